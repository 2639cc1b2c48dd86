"""Asks a real service for images of names whose addresses a name server changes, and sees who is connected to.

In a network of its own (Linux's namespaces, by `unshare` and `ip`), where no packet leaves: a name server, a host at a
public address, and one at a loopback address. Fails where the second is ever connected to, or where a name is looked up
twice for one fetch.
"""

from __future__ import annotations

import argparse
import io
import ipaddress
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import numpy as np
from PIL import Image

from benchmarks.reliability.fuzz import DEMO
from benchmarks.report import table
from benchmarks.service import Service

PUBLIC, INNER, METADATA = "1.2.3.4", "127.0.0.1", "169.254.169.254"
# A name -> the addresses of its first look-up, of its second, and so on; the last are those of all further ones.
NAMES = {
    "steady.example": [[PUBLIC]],
    "rebinding.example": [[PUBLIC], [INNER]],
    "back.example": [[INNER], [PUBLIC], [INNER]],
    "both.example": [[PUBLIC, INNER]],
    "inner.example": [[INNER]],
    "metadata.example": [[METADATA]],
    "mapped.example": [[f"::ffff:{INNER}"]],
    "six.example": [["::1"]],
    "redirecting.example": [[PUBLIC]],
}
# What is asked for, in this order, and the status it is to have.
FETCHES = (
    ("http://steady.example/image", 200),
    ("http://rebinding.example/image", 200),
    ("http://rebinding.example/image", 400),
    ("http://back.example/image", 400),
    ("http://back.example/image", 200),
    ("http://back.example/image", 400),
    ("http://both.example/image", 400),
    ("http://inner.example/image", 400),
    ("http://metadata.example/image", 400),
    ("http://mapped.example/image", 400),
    ("http://six.example/image", 400),
    ("http://redirecting.example/to/inner.example", 400),
    ("http://redirecting.example/to/steady.example", 200),
)
_A, _AAAA = 1, 28
_INSIDE = "BOX2MASK_REBINDING_INSIDE"


class NameServer:
    """Answers A and AAAA queries of NAMES over UDP; everything else does not exist. look_ups: of each name's A."""

    def __init__(self) -> None:
        self.look_ups: Counter[str] = Counter()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((INNER, 53))
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            query, client = self._socket.recvfrom(512)
            self._socket.sendto(self._answer(query), client)

    def _answer(self, query: bytes) -> bytes:
        labels, place = [], 12
        while query[place]:
            labels.append(query[place + 1 : place + 1 + query[place]].decode().lower())
            place += 1 + query[place]
        name, (kind,), end = ".".join(labels), struct.unpack_from(">H", query, place + 1), place + 5
        # The resolver asks for both kinds at once, in either order: they belong to one look-up.
        self.look_ups[name] += kind == _A
        answers = NAMES.get(name)
        found = [] if answers is None else answers[min(max(self.look_ups[name], 1), len(answers)) - 1]
        addresses = [ipaddress.ip_address(one) for one in found]
        packed = [one.packed for one in addresses if one.version == (4 if kind == _A else 6)]
        header = query[:2] + struct.pack(">HHHHH", 0x8180 if answers else 0x8183, 1, len(packed), 0, 0)
        # Each points at the question's name, is of class IN, and may be kept for 0 seconds.
        records = [struct.pack(">HHHIH", 0xC00C, kind, 1, 0, len(one)) + one for one in packed]
        return header + query[12:end] + b"".join(records)


class Host:
    """Sends an image, or a redirect to another name's, and counts its connections."""

    def __init__(self, address: str) -> None:
        self.connections = 0
        picture = io.BytesIO()
        Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(picture, "PNG")
        host = self

        class Handler(BaseHTTPRequestHandler):
            def setup(self) -> None:
                super().setup()
                host.connections += 1

            def do_GET(self) -> None:
                name = self.path.removeprefix("/to/")
                self.send_response(302 if name != self.path else 200)
                self.send_header("location", f"http://{name}/image")
                self.send_header("content-type", "image/png")
                self.end_headers()
                self.wfile.write(picture.getvalue())

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            address_family = socket.AF_INET6 if ":" in address else socket.AF_INET

        threading.Thread(target=Server((address, 80), Handler).serve_forever, daemon=True).start()


def main(argv: list[str]) -> int:
    argparse.ArgumentParser(prog="python -m benchmarks.reliability rebinding", description=__doc__).parse_args(argv)
    if os.environ.get(_INSIDE):
        return _inside()
    missing = [program for program in ("unshare", "ip", "mount") if shutil.which(program) is None]
    if missing:
        print(f"there is no {' and no '.join(missing)}; this needs Linux, util-linux and iproute2", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        resolver = Path(folder) / "resolv.conf"
        resolver.write_text(f"nameserver {INNER}\n")
        script = (
            f'ip link set lo up && ip address add {PUBLIC}/32 dev lo && mount --bind "$1" /etc/resolv.conf'
            ' && shift && exec "$@"'
        )
        command = [sys.executable, "-m", "benchmarks.reliability", "rebinding"]
        return subprocess.call(
            ["unshare", "--map-root-user", "--net", "--mount", "sh", "-ec", script, "sh", str(resolver), *command],
            env=os.environ | {_INSIDE: "1"},
        )


def _inside() -> int:
    with ExitStack() as stack:
        names, public = NameServer(), Host(PUBLIC)
        inner = [Host(INNER), Host("::1")]
        service = Service(DEMO)
        stack.callback(service.close)
        service.ready()
        rows, failed = [], False
        for url, expected in FETCHES:
            name = httpx.URL(url).host
            before = names.look_ups[name], public.connections
            body = json.dumps({"input_data": {"columns": ["image"], "data": [[url]]}})
            response = httpx.post(f"{service.url}/yolof/score", content=body, timeout=60, trust_env=False)
            look_ups, connections = names.look_ups[name] - before[0], public.connections - before[1]
            within = sum(host.connections for host in inner)
            failed |= response.status_code != expected or look_ups != 1 or within > 0
            rows.append((url, str(response.status_code), str(look_ups), str(connections), str(within)))
    heads = ("URL", "status", "look-ups of its name", "connections to the public host", "to the inner ones, so far")
    print(table(heads, rows))
    return int(failed)
