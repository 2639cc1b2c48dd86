"""SIGTERM under load, many times: every request that was admitted must have been answered, and the process end with 0.

Admitted is a request that got past the door: its body was there and it had a place; the service's own journal has it.
What comes later is refused: by a 503, a refused or reset connection, or the close of a connection that was kept alive.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from benchmarks.reliability.callers import body, click, picture
from benchmarks.reliability.served import Served
from benchmarks.report import table

# In which the process must have ended, as BOX2MASK_REQUEST_TIMEOUT_S has it; its queue takes a few seconds.
ENDS_WITHIN_S = 600.0
HEADER = (
    "stops", "admitted in all", "in work at SIGTERM, least to most", "lost", "refused after it (503; connection)",
    "hung", "status not 0", "seconds to the end, median; most",
)  # fmt: skip


@dataclass
class Stop:
    """One start, load and SIGTERM. at_work: admitted and not answered at that moment."""

    admitted: int = 0
    at_work: int = 0
    lost: list[str] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    hung: int = 0
    status: int | None = None
    seconds: float = 0.0


def main(argv: list[str] | None = None) -> int:
    """Returns 0 where no admitted request was lost, no caller hung and every process ended with 0; else 1."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reliability sigterm", description=__doc__)
    parser.add_argument("--times", type=int, default=50, help="default: 50")
    parser.add_argument("--clients", type=int, default=16, help="that saturate it (default: 16)")
    args = parser.parse_args(argv)
    bodies = [(path, content) for seed in range(12) for path, content in _bodies(seed)]
    stops: list[Stop] = []
    with tempfile.TemporaryDirectory(prefix="box2mask-") as scratch:
        # The next one starts while this one is being stopped.
        following = _start(Path(scratch), 0)
        for number in range(args.times):
            served = following
            try:
                served.ready()
                if number + 1 < args.times:
                    following = _start(Path(scratch), number + 1)
                stops.append(asyncio.run(_stop(served, bodies, args.clients, random.Random(number))))
            finally:
                served.close()
            print(f"{number + 1}: {stops[-1]}", file=sys.stderr, flush=True)
        following.close()
    print(table(HEADER, [summary(stops)]))
    return int(any(stop.lost or stop.hung or stop.status != 0 for stop in stops))


def summary(stops: list[Stop]) -> tuple[str, ...]:
    refused = sum((stop.refused for stop in stops), Counter[str]())
    seconds = sorted(stop.seconds for stop in stops)
    at_work = [stop.at_work for stop in stops]
    return (
        str(len(stops)), str(sum(stop.admitted for stop in stops)), f"{min(at_work)} to {max(at_work)}",
        str(sum(len(stop.lost) for stop in stops)), f"{refused['503']}; {refused['connection']}",
        str(sum(stop.hung for stop in stops)), str(sum(stop.status != 0 for stop in stops)),
        f"{seconds[len(seconds) // 2]:.1f}; {seconds[-1]:.1f}",
    )  # fmt: skip


def _start(scratch: Path, number: int) -> Served:
    return Served(scratch / str(number), {"OMP_NUM_THREADS": "1", "BOX2MASK_LOG_LEVEL": "warning"}, faulty=True)


def _bodies(seed: int) -> list[tuple[str, bytes]]:
    image = picture(seed, (120, 160))
    return [
        ("/yolof/score", body(["image"], [[image]])),
        ("/sam/score", click(image, boxes=4)),
        ("/pipeline/score", body(["image"], [[image]])),
    ]


async def _stop(served: Served, bodies: list[tuple[str, bytes]], clients: int, rng: random.Random) -> Stop:
    """Saturate it, and stop it at a random moment."""
    stop, answered = Stop(), set[str]()
    signalled = asyncio.Event()

    async def client(number: int) -> None:
        # One half keep their connections, the other half make one for each request.
        keep = httpx.Limits(max_keepalive_connections=1 if number % 2 else 0)
        async with httpx.AsyncClient(base_url=served.url, limits=keep, timeout=ENDS_WITHIN_S, trust_env=False) as http:
            for turn in range(10_000):
                path, content = bodies[(number * 7 + turn) % len(bodies)]
                identifier = f"{number}-{turn}"
                try:
                    answer = await http.post(path, content=content, headers={"x-request-id": identifier})
                except httpx.TimeoutException:
                    stop.hung += 1
                    return
                except httpx.TransportError:
                    stop.refused["connection"] += 1
                    return
                if answer.status_code == 200:
                    answer.json()  # whole
                    answered.add(identifier)
                elif signalled.is_set():
                    stop.refused[str(answer.status_code)] += 1
                    return

    tasks = [asyncio.create_task(client(number)) for number in range(clients)]
    while not served.admitted():
        await asyncio.sleep(0.05)
    await asyncio.sleep(rng.uniform(0, 3))
    stop.at_work = len(set(served.admitted()) - answered)
    signalled.set()
    served.terminate()
    began = time.monotonic()
    await asyncio.gather(*tasks)
    stop.status = await asyncio.to_thread(served.ended, ENDS_WITHIN_S)
    stop.seconds = time.monotonic() - began
    admitted = served.admitted()
    stop.admitted = len(admitted)
    stop.lost = sorted(set(admitted) - answered)
    return stop
