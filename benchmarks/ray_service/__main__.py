"""What more replicas bring, and whether clicks find their photo's embedding, on a cluster of this machine.

    python -m benchmarks.ray_service [--replicas 1 2 4 8 16] [--seconds 15] > benchmarks/results/ray-service.md

Replicas sleep 50 ms for a photo and 2 ms for a click. Photos of 200 KB come as base64; nothing is kept of them where
throughput is measured.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import httpx
import psutil  # type: ignore[import-untyped]
from prometheus_client.parser import text_string_to_metric_families

from app.cluster.service import proxy
from benchmarks.machine import Machine
from benchmarks.ray_service import processes
from benchmarks.ray_service.clicking import RIGHT, Clicks, encoded, request_of
from benchmarks.report import table

# PNG files of 200 KB.
SIZE_HW = (256, 256)
PHOTOS, CLIENTS_PER_REPLICA = 256, 3
CLIENTS, CLICKS = 64, 20

_ABOUT = "Models sleep 50 ms for a photo and 2 ms for a click."
_RATES = (
    "Each request has a photo of 200 KB as base64 and one click on it. Client, proxy, edge and replicas share the "
    "processors: where these are full, more replicas say nothing. The CPU time is that of a photo, by the processes "
    "that took it; Ray's own are all others that Ray starts."
)
_RATE_COLUMNS = (
    "replicas", "photos a second", "of linear", "processors busy", "CPU ms a photo", *processes.KINDS,
    "answered right", "otherwise",
)  # fmt: skip
_HITS = f"{CLIENTS} clients x {CLICKS} clicks, all at once, each on a photo of its own, sent as base64 with each click."


def main() -> None:
    """Measure, and print what was found as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replicas", type=int, nargs="*", default=[1, 2, 4, 8, 16])
    parser.add_argument("--hits", type=int, nargs="*", default=[1, 8], help="numbers of replicas to count hits with")
    parser.add_argument("--seconds", type=float, default=15)
    args = parser.parse_args()
    machine = Machine.this()
    rates: list[Rate] = []
    for count in args.replicas:
        with deployed(count, embedding_cache_mb=0) as url:
            rates.append(asyncio.run(throughput(url, count, args.seconds)))
        print(rates[-1], file=sys.stderr, flush=True)
    hits: list[tuple[str, ...]] = []
    for count in args.hits:
        with deployed(count) as url:
            found, missed, right = asyncio.run(hit_rate(url))
        hits.append((str(count), f"{found / (found + missed):.4f}", f"{missed:.0f}", str(right)))
    print("# What more replicas bring to the service on Ray, and where clicks go\n")
    print("\n".join(machine.lines()))
    print(f"\nMade by `python -m benchmarks.ray_service`, with Ray {version('ray')} and one edge. {_ABOUT}")
    if rates:
        print(f"\n## Photos a second\n\n{_RATES}\n")
        print(table(_RATE_COLUMNS, [one.cells(rates[0]) for one in rates]))
    if hits:
        print(f"\n## Clicks that find their photo's embedding\n\n{_HITS}\n")
        print(table(("replicas", "hit rate", "photos encoded", "answered right"), hits))


@dataclass(frozen=True)
class Rate:
    """What so many replicas answered. a_second: photos. busy: of the processors, 0..1.

    cpu_ms: for each photo, by `processes.KINDS`. right, others: answers, from beginning to end.
    """

    replicas: int
    a_second: float
    busy: float
    cpu_ms: dict[str, float]
    right: int
    others: int

    def cells(self, one: Rate) -> tuple[str, ...]:
        """one: what linear is told by."""
        linear = self.a_second / one.a_second * one.replicas / self.replicas
        spent = (f"{self.cpu_ms[kind]:.1f}" for kind in processes.KINDS)
        whole = f"{sum(self.cpu_ms.values()):.1f}"
        return (
            str(self.replicas), f"{self.a_second:.1f}", f"{linear:.2f}", f"{self.busy:.0%}", whole, *spent,
            str(self.right), str(self.others),
        )  # fmt: skip


async def throughput(url: str, replicas: int, seconds: float) -> Rate:
    """Photos that are answered right in a second, with so many clients that each replica has work."""
    clicks = Clicks(url)
    requests = [request_of(json.dumps(clicks.body(n, 3, 4, encoded(n, SIZE_HW))).encode()) for n in range(PHOTOS)]
    over, asked = asyncio.Event(), 0

    async def one() -> None:
        nonlocal asked
        async with clicks.connection() as connection:
            while not over.is_set():
                asked += 1
                number = asked % PHOTOS
                await connection.send(requests[number], number, 3, 4)

    async with clicks.client:
        clients = [asyncio.create_task(one()) for _ in range(CLIENTS_PER_REPLICA * replicas)]
        await asyncio.sleep(seconds / 3)
        psutil.cpu_percent()
        times = processes.CpuTimes()
        began, before = time.monotonic(), clicks.outcomes.counts[RIGHT]
        await asyncio.sleep(seconds)
        spent, busy = times.seconds(), psutil.cpu_percent() / 100
        photos, took = clicks.outcomes.counts[RIGHT] - before, time.monotonic() - began
        over.set()
        await asyncio.gather(*clients)
    counts = clicks.outcomes.counts
    cpu_ms = {kind: 1000 * spent[kind] / photos for kind in processes.KINDS}
    return Rate(replicas, photos / took, busy, cpu_ms, counts[RIGHT], counts.total() - counts[RIGHT])


async def hit_rate(url: str) -> tuple[float, float, int]:
    """Clicks that found an embedding, and those that did not, of clients that each click on a photo of theirs."""
    clicks = Clicks(url, (64, 64))

    async def one(number: int) -> None:
        for turn in range(CLICKS):
            await clicks.click(number, turn, number)

    async with clicks.client:
        await asyncio.gather(*(one(number) for number in range(CLIENTS)))
        figures = (await clicks.client.get("/metrics")).text
    counted = {"hits": 0.0, "shared": 0.0, "misses": 0.0}
    for family in text_string_to_metric_families(figures):
        for sample in family.samples:
            kind = sample.name.removeprefix("box2mask_embedding_cache_").removesuffix("_total")
            if kind in counted and sample.name.endswith("_total"):
                counted[kind] += sample.value
    return counted["hits"] + counted["shared"], counted["misses"], clicks.outcomes.counts[RIGHT]


@contextlib.contextmanager
def deployed(replicas: int, **settings: Any) -> Iterator[str]:
    """The address of a service on a cluster of this machine, which ends with it."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    limits = {"max_requests": 1024, "api_keys": None} | settings
    wanted = {"fewest": replicas, "most": replicas, "settings": limits}
    command: Sequence[str] = [sys.executable, "-m", "benchmarks.ray_service.deployed", "local", str(port)]
    with (
        tempfile.TemporaryFile("w+") as log,
        subprocess.Popen(
            [*command, json.dumps(wanted)],
            env=os.environ | proxy.ENVIRONMENT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        ) as process,
    ):
        assert process.stdin is not None and process.stdout is not None
        for line in process.stdout:
            if line.strip() == "ready":
                break
        else:
            log.seek(0)
            raise RuntimeError(f"the service did not start: {log.read()[-2000:]}")
        try:
            url = f"http://127.0.0.1:{port}"
            httpx.get(f"{url}/health/ready", timeout=30).raise_for_status()
            yield url
        finally:
            process.stdin.write("stop\n")
            process.stdin.flush()
            process.communicate()


if __name__ == "__main__":
    main()
