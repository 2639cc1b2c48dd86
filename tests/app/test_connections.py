"""Which connection goes where there are too many."""

from __future__ import annotations

from typing import Any

from app.connections import Connection, House


class Transport:
    """One with so many bytes of an answer still to be taken."""

    def __init__(self, unread: int) -> None:
        self.unread = unread
        self.aborted = False

    def get_write_buffer_size(self) -> int:
        return self.unread

    def abort(self) -> None:
        self.aborted = True


def open_connections(*idle: tuple[float, int]) -> list[Any]:
    """Connections without a request, each idle since a time and with so many unread bytes."""
    house, all_of_them, made = House(most=len(idle), most_unread=2**20, seconds=60), set(), []
    for since, unread in idle:
        one: Any = Connection.__new__(Connection)
        one.house, one.connections, one.cycle = house, all_of_them, None
        one._idle_since, one.transport = since, Transport(unread)
        all_of_them.add(one)
        made.append(one)
    return made


def test_an_answer_on_its_way_is_not_cut_off_while_another_connection_is_idle() -> None:
    slow, idle, new = open_connections((1.0, 5000), (2.0, 0), (3.0, 0))
    new._make_room()
    assert (slow.transport.aborted, idle.transport.aborted) == (False, True)
    new._make_room()
    assert slow.transport.aborted
