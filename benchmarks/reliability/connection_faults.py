"""Faults of clients and their connections: slow ones, vanishing ones, too many of them."""

from __future__ import annotations

import json
import resource
import time
from contextlib import ExitStack

from benchmarks.reliability.callers import (
    PATIENCE_S,
    Reply,
    ask,
    body,
    click,
    connect,
    head,
    rest,
    statuses,
)
from benchmarks.reliability.outcomes import (
    CLOSED_WITHIN_S,
    CONNECTIONS,
    MB,
    PLACES,
    TIMEOUT_S,
    Broken,
    Outcome,
    expect,
    fresh,
    recovered,
)
from benchmarks.reliability.served import Served, wait_until


def _good_ones(served: Served, number: int = 4) -> list[Reply]:
    replies = [ask(served.url, click(fresh())) for _ in range(number)]
    expect("other clients' answers", statuses(replies), {200: number})
    return replies


def slow_heads(served: Served) -> Outcome:
    """Clients that never finish a request's head hold no place, and their connections are closed in time."""
    clients = [connect(served.port) for _ in range(3 * PLACES)]
    for client in clients:
        client.sendall(b"POST /score HTTP/1.1\r\nhost: x\r\nx-a")
    replies = _good_ones(served)
    began = time.monotonic()
    for client in clients:
        expect("what a slow client gets", rest(client), b"")
        client.close()
    expect("closed in time", time.monotonic() - began < CLOSED_WITHIN_S, True)
    return recovered(served, replies)


def slow_bodies(served: Served) -> Outcome:
    """Clients that never finish their body hold no place either; they are told so in time (408)."""
    clients = [connect(served.port) for _ in range(3 * PLACES)]
    for client in clients:
        client.sendall(head(100_000) + b"{")
    replies = _good_ones(served)
    for client in clients:
        answer = rest(client)
        client.close()
        replies.append(Reply(int(answer.split()[1]) if answer else 0, 0.0))
    return recovered(served, replies)


def bodies_without_memory(served: Served) -> Outcome:
    """Bodies that would take more memory than all may have: the one too many is a 429, until others have gone."""
    with ExitStack() as stack:
        clients = [stack.enter_context(connect(served.port)) for _ in range(3)]
        for client in clients:
            client.sendall(head(4 * MB))
        for client in clients[:2]:
            client.sendall(b" " * (5 * MB // 2))
        clients[2].sendall(b" " * (5 * MB // 2))
        answers = [rest(client) for client in clients]
    expect("how many were refused", sum(answer.split()[1:2] == [b"429"] for answer in answers), 1)
    return recovered(served, [Reply(int(answer.split()[1]), 0.0) for answer in answers])


def answers_not_taken(served: Served) -> Outcome:
    """Clients that take nothing of their answer are cut off, and keep neither memory nor file descriptors."""
    before = served.open_files()
    content = click(fresh(), boxes=300, mask_format="polygon")
    clients = [connect(served.port, receive_buffer=4096) for _ in range(PLACES // 2)]
    for client in clients:
        client.sendall(head(len(content)) + content)
    replies = _good_ones(served)
    if wait_until(lambda: served.open_files() <= before, CLOSED_WITHIN_S) is None:
        raise Broken(f"{served.open_files()} files are open, {before} were")
    for client in clients:
        client.close()
    return recovered(served, replies)


def answer_taken_slowly(served: Served) -> Outcome:
    """A client that takes its answer slowly, but takes it, gets all of it, however long that lasts."""
    content = click(fresh(), boxes=300, mask_format="polygon")
    began = time.monotonic()
    received = bytearray()
    with connect(served.port, receive_buffer=4096) as client:
        client.sendall(head(len(content)) + content)
        while time.monotonic() - began < 2.5 * TIMEOUT_S:  # far slower than it could
            received += client.recv(2048)
            time.sleep(0.02)
        client.sendall(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        received += rest(client)
    first, _, others = bytes(received).partition(b"\r\n\r\n")
    length = int(first.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    expect("bytes of the answer", len(others[:length]), length)
    expect("the whole answer", len(json.loads(others[:length])[0]["predictions"]), 300)
    return recovered(served, [Reply(int(first.split()[1]), 0.0)])


def vanishing_clients(served: Served) -> Outcome:
    """Clients that go while they are waited on: their work is dropped and their places are free."""
    content = click(fresh())
    with served.fault("stall"):
        admitted = len(served.admitted())
        clients = [connect(served.port) for _ in range(PLACES)]
        for client in clients:
            client.sendall(head(len(content)) + content)
        if wait_until(lambda: len(served.admitted()) >= admitted + PLACES, PATIENCE_S) is None:
            raise Broken("they were not admitted")
        expect("one more than there are places", ask(served.url, content).status, 429)
        for client in clients:
            client.close()
        # What does not take part in the fault is answered while it lasts: the stalled work has been dropped.
        boxes = body(["image"], [[fresh()]])
        if wait_until(lambda: ask(served.url, boxes).status == 200, PATIENCE_S) is None:
            raise Broken("what had been begun for those who left goes on")
    return recovered(served, [])


def half_closed_connections(served: Served) -> Outcome:
    """Clients that close their sending half count as gone, as for nginx; nothing of theirs stays."""
    before = served.open_files()
    content = click(fresh())
    with served.fault("stall"):
        clients = [connect(served.port) for _ in range(PLACES)]
        for client in clients:
            client.sendall(head(len(content)) + content)
            client.shutdown(1)
        for client in clients:
            expect("what it gets", rest(client), b"")
            client.close()
    if wait_until(lambda: served.open_files() <= before, CLOSED_WITHIN_S) is None:
        raise Broken(f"{served.open_files()} files are open, {before} were")
    return recovered(served, [])


def idle_connections(served: Served) -> Outcome:
    """Far more idle connections than may be open: the oldest make room, and new clients are answered."""
    before = served.open_files()
    clients = []
    replies = []
    for _ in range(4):
        clients += [connect(served.port) for _ in range(CONNECTIONS)]
        replies += _good_ones(served, 1)
    open_now = served.open_files() - before
    expect(f"{open_now} open connections are no more than may be", open_now <= CONNECTIONS + 1, True)
    for client in clients:
        client.close()
    return recovered(served, replies)


def no_file_descriptors(served: Served) -> Outcome:
    """No file descriptor left: connections wait to be accepted, and the service goes on as soon as there are some."""
    limits = resource.prlimit(served.process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(served.process.pid, resource.RLIMIT_NOFILE, (served.open_files() + 3, limits[1]))
    with ExitStack() as stack:
        try:
            for _ in range(12):
                stack.enter_context(connect(served.port))
            said = "Too many open files"
            if wait_until(lambda: said in served.log(), PATIENCE_S) is None:
                raise Broken("there were enough of them")
        finally:
            resource.prlimit(served.process.pid, resource.RLIMIT_NOFILE, limits)
        return recovered(served, [])
