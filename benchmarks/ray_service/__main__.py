"""What more replicas bring, and whether clicks find their photo's embedding, on a cluster of this machine.

    python -m benchmarks.ray_service [--replicas 1 2 4 8] [--seconds 15] [--into FILE]

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
from pathlib import Path
from typing import Any

import httpx
import psutil  # type: ignore[import-untyped]
from prometheus_client.parser import text_string_to_metric_families

from app.cluster.service import proxy
from benchmarks.ray_service.clicking import RIGHT, Clicks, encoded

# PNG files of 200 KB.
SIZE_HW = (256, 256)
PHOTOS, CLIENTS_PER_REPLICA = 256, 3
CLIENTS, CLICKS = 64, 20


def main() -> None:
    """Measure, and print a line for each number of replicas."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replicas", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--hits", type=int, nargs="*", default=[1, 8], help="numbers of replicas to count hits with")
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--into", type=Path, help="file for the lines")
    args = parser.parse_args()
    lines: list[str] = []

    def say(line: str) -> None:
        print(line, flush=True)
        lines.append(line)

    say("replicas  photos/s  of linear  processors busy  right  others")
    one = 0.0
    for count in args.replicas:
        with deployed(count, embedding_cache_mb=0) as url:
            found = asyncio.run(throughput(url, count, args.seconds))
        one = one or found["rate"] / count
        share = found["rate"] / one / count
        say(
            f"{count:8d}  {found['rate']:8.1f}  {share:9.2f}  {found['busy']:14.0f}%  {found['right']:5d}"
            f"  {found['others']:6d}"
        )
    say("")
    say(f"replicas  hit rate of {CLIENTS} clients x {CLICKS} clicks  photos encoded  right")
    for count in args.hits:
        with deployed(count) as url:
            hits, misses, right = asyncio.run(hit_rate(url))
        say(f"{count:8d}  {hits / (hits + misses):.4f}  {misses:6.0f}  {right}")
    if args.into is not None:
        args.into.write_text("\n".join(lines) + "\n")


async def throughput(url: str, replicas: int, seconds: float) -> dict[str, Any]:
    """Photos that are answered right in a second, with so many clients that each replica has work."""
    clicks = Clicks(url)
    bodies = [json.dumps(clicks.body(n, 3, 4, encoded(n, SIZE_HW))).encode() for n in range(PHOTOS)]
    over, asked = asyncio.Event(), 0

    async def one(first: int) -> None:
        nonlocal asked
        while not over.is_set():
            asked += 1
            number = asked % PHOTOS
            await clicks.send(bodies[number], number, 3, 4)

    async with clicks.client:
        clients = [asyncio.create_task(one(n)) for n in range(CLIENTS_PER_REPLICA * replicas)]
        await asyncio.sleep(seconds / 3)
        psutil.cpu_percent()
        began, before = time.monotonic(), clicks.outcomes.counts[RIGHT]
        await asyncio.sleep(seconds)
        rate = (clicks.outcomes.counts[RIGHT] - before) / (time.monotonic() - began)
        busy = psutil.cpu_percent()
        over.set()
        await asyncio.gather(*clients)
    counts = clicks.outcomes.counts
    return {"rate": rate, "busy": busy, "right": counts[RIGHT], "others": counts.total() - counts[RIGHT]}


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
