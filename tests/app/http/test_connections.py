"""Which connection goes where there are too many."""

from __future__ import annotations

import socket
from contextlib import closing
from typing import Any

from app.http.connections import Connection, House


class Transport:
    """One that holds so many bytes of an answer; the kernel may hold more."""

    def __init__(self, unread: int, connection: socket.socket | None = None) -> None:
        self.unread = unread
        self.connection = connection
        self.aborted = False

    def get_extra_info(self, name: str) -> socket.socket | None:
        assert name == "socket"
        return self.connection

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


def test_what_the_kernel_has_not_passed_on_is_on_its_way_too() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(listener.getsockname())
        with closing(client), closing(listener.accept()[0]) as connection:
            slow, idle, new = open_connections((1.0, 0), (2.0, 0), (3.0, 0))
            slow.transport.connection = connection
            assert slow.untaken == 0
            connection.setblocking(False)
            sent = connection.send(b"x" * 100_000)
            taken = len(client.recv(1000))
            assert 0 < slow.untaken <= sent - taken
            new._make_room()
            assert (slow.transport.aborted, idle.transport.aborted) == (False, True)
    assert slow.untaken == 0  # of a socket that is closed
