"""Posts image bombs to a real service over HTTP: how long each takes, what of that the service computes,
and how much memory it has beyond what it had at rest.

The first is a PNG of 50,000 x 50,000 pixels that would decode. The service runs with its default limits.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import httpx

from benchmarks.child import peak_memory_mb
from benchmarks.reliability.bad_requests import good_request
from benchmarks.reliability.bomb_files import DECODED, REFUSED, decompression_bomb
from benchmarks.reliability.fuzz import DEMO
from benchmarks.report import table
from benchmarks.service import Service


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reliability bomb", description=__doc__)
    parser.add_argument("--mb", type=int, default=32, metavar="N", help="size of those that have one (default: 32)")
    parser.add_argument(
        "--repeats", type=int, default=3, metavar="N", help="times each; times are the least, memory the most"
    )
    parser.add_argument("--only", metavar="TEXT", default="", help="bombs whose name has this")
    args = parser.parse_args(argv)
    service = Service(DEMO)
    failed = False
    rows = []
    try:
        service.ready()
        good = good_request("/yolof/score")
        expected = service.post("/yolof/score", good)
        with httpx.Client(base_url=service.url, timeout=600, trust_env=False) as client:
            for name, body in _requests(args.mb * 2**20, args.only):
                seconds, computing, memory = [], [], []
                for _ in range(args.repeats):
                    before = _reset_peak(service.pid)
                    computed, began = _cpu_seconds(service.pid), time.perf_counter()
                    response = client.post("/yolof/score", content=body)
                    seconds.append(time.perf_counter() - began)
                    computing.append(_cpu_seconds(service.pid) - computed)
                    memory.append(peak_memory_mb(service.pid) - before)
                    failed |= response.status_code >= 500 or service.post("/yolof/score", good) != expected
                answer = "decoded" if response.status_code == 200 else response.json()["message"].split(": ", 1)[1]
                cells = (
                    f"{len(body) / 2**20:.1f} MB",
                    f"{1000 * min(seconds):.0f} ms",
                    f"{1000 * min(computing):.0f} ms",
                    f"{max(memory):.0f} MB",
                )
                rows.append((name, *cells, str(response.status_code), answer[:90]))
                print(" | ".join(rows[-1]), flush=True)
    finally:
        service.close()
    print("\n" + table(("file", "body", "answered in", "computing", "extra memory", "status", "answer"), rows))
    return int(failed)


def _requests(size: int, only: str) -> Iterator[tuple[str, bytes]]:
    """Names and bodies, one after the other, so that not all are in memory."""
    bombs = {"PNG, 50,000 x 50,000": lambda size: decompression_bomb(), **REFUSED, **DECODED}
    for name, make in bombs.items():
        if only in name:
            image = base64.b64encode(make(size)).decode()
            yield name, json.dumps({"input_data": {"columns": ["image"], "data": [[image]]}}).encode()


def _cpu_seconds(pid: int) -> float:
    """What a process has computed so far, in all its threads (Linux)."""
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def _reset_peak(pid: int) -> float:
    """Let the peak begin anew (Linux); what the process has now, in MB."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")
    return peak_memory_mb(pid)
