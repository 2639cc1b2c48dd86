"""Asks a real service, with its default settings, to fetch every hostile URL, and counts who was connected to.

Fails where one is answered anything but 400, or where a listener on this machine's loopback addresses got a connection.
"""

from __future__ import annotations

import argparse
import json
import socket
import threading
import time
from contextlib import ExitStack, suppress

import httpx

from benchmarks.reliability.fuzz import DEMO
from benchmarks.reliability.hostile_urls import hostile_urls
from benchmarks.report import table
from benchmarks.service import Service


class Listener:
    """Takes every connection to an address, and counts them."""

    def __init__(self, address: str, port: int) -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._socket = socket.create_server((address, port), family=family)
        self.port: int = self._socket.getsockname()[1]
        self.connections = 0
        threading.Thread(target=self._count, daemon=True).start()

    def _count(self) -> None:
        with suppress(OSError):  # it was closed
            while True:
                connection, _ = self._socket.accept()
                self.connections += 1
                connection.close()

    def close(self) -> None:
        self._socket.close()


def main(argv: list[str]) -> int:
    argparse.ArgumentParser(prog="python -m benchmarks.reliability ssrf", description=__doc__).parse_args(argv)
    with ExitStack() as stack:
        listeners = [Listener("0.0.0.0", 0)]
        with suppress(OSError):  # a machine without IPv6
            listeners.append(Listener("::1", listeners[0].port))
        for listener in listeners:
            stack.callback(listener.close)
        service = Service(DEMO)
        stack.callback(service.close)
        service.ready()
        socket.create_connection(("127.0.0.1", listeners[0].port)).close()  # they do listen
        while not listeners[0].connections:
            time.sleep(0.01)
        listeners[0].connections = 0
        rows, refused, urls = [], 0, 0
        with httpx.Client(base_url=service.url, timeout=60, trust_env=False) as client:
            for kind, hostile in hostile_urls(listeners[0].port).items():
                slowest, messages = 0.0, []
                for url in hostile:
                    body = json.dumps({"input_data": {"columns": ["image"], "data": [[url]]}})
                    began = time.perf_counter()
                    response = client.post("/yolof/score", content=body)
                    slowest = max(slowest, time.perf_counter() - began)
                    messages += [response.json()["message"]] if response.status_code == 400 else []
                connections = sum(listener.connections for listener in listeners)
                cells = (kind, str(len(hostile)), str(len(messages)), str(connections), f"{1000 * slowest:.0f} ms")
                rows.append(cells)
                refused, urls = refused + len(messages), urls + len(hostile)
        connections = sum(listener.connections for listener in listeners)
    rows.append(("all", str(urls), str(refused), str(connections), ""))
    print(table(("URLs", "number", "answered 400", "connections so far", "slowest"), rows))
    return 0 if refused == urls and not connections else 1
