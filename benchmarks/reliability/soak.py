"""Hours at saturation: every answer compared with the right one, memory and latency sampled along, and their drift.

Well-behaved clients ask for all that the service can do, about images that fit the embedding cache and images that do
not; others send what is wrong, or vanish before they are answered.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np

from benchmarks.machine import Machine
from benchmarks.reliability import traffic
from benchmarks.reliability.callers import PATIENCE_S, head
from benchmarks.reliability.served import Served, serving
from benchmarks.reliability.traffic import Case, Deviation
from benchmarks.report import table

RESULTS = Path(__file__).parent / "results"
IMAGES = 40
# So that some of the images' embeddings are there and others have been evicted: one of the demo weights' takes 256 kB.
SETTINGS = {"BOX2MASK_EMBEDDING_CACHE_MB": "4", "BOX2MASK_LOG_LEVEL": "warning"}
# Of the clients, and what they have in mind.
VANISHING = 1 / 16
SAMPLES = 60
DRIFT = 0.03
NAMES = ("memory, MB", "latency, mean s", "processor seconds an answer")


@dataclass
class Seen:
    """What the clients saw. samples: seconds since the start, then one of each of NAMES."""

    statuses: Counter[int] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    vanished: int = 0
    deviation: Deviation = field(default_factory=Deviation)
    latencies: list[float] = field(default_factory=list)  # since the last sample
    all_latencies: list[float] = field(default_factory=list)
    samples: list[tuple[float, ...]] = field(default_factory=list)


def main(argv: list[str] | None = None) -> int:
    """Returns 0 where nothing was lost or wrong and neither memory nor latency drifts by DRIFT, else 1."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reliability soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0, help="default: 30")
    parser.add_argument("--clients", type=int, default=64, help="default: 64")
    parser.add_argument(
        "--warm-up", type=float, metavar="MINUTES", help="left out of the drift (default: a third, at most 10)"
    )
    parser.add_argument("--out", type=Path, default=RESULTS, metavar="FOLDER", help=f"default: {RESULTS}")
    args = parser.parse_args(argv)
    warm_up = min(10.0, args.minutes / 3) if args.warm_up is None else args.warm_up
    machine = Machine.this()
    with serving(SETTINGS) as served:
        cases = traffic.answered(traffic.make(IMAGES), served.url)
        print(f"{len(cases)} right answers are known; {args.minutes:g} minutes begin", file=sys.stderr, flush=True)
        seen = Seen()
        asyncio.run(_soak(served, cases, seen, args.clients, 60 * args.minutes))
        cache = httpx.get(f"{served.url}/version", trust_env=False).json()["embedding_cache"]
        peak = served.memory_mb("VmHWM")
        # Nothing is in work any more: whatever is still held, nobody holds.
        status_at_rest = served.probe("/health/ready")
    drifts = {name: drift(seen.samples, column, 60 * warm_up) for column, name in enumerate(NAMES, 1)}
    failed = bool(
        seen.wrong or seen.lost or status_at_rest != 200 or any(drifts[name][0] >= DRIFT for name in NAMES[:2])
    )
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "soak.md").write_text(document(machine, seen, drifts, cache, peak, args, warm_up, failed))
    plot(seen.samples, 60 * warm_up, args.out / "soak.png")
    print((args.out / "soak.md").read_text())
    for what in (*seen.wrong[:20], *seen.lost[:20]):
        print(what, file=sys.stderr)
    return int(failed)


async def _soak(served: Served, cases: list[Case], seen: Seen, clients: int, seconds: float) -> None:
    began = time.monotonic()
    end = began + seconds
    popular, others = cases[: len(cases) // 4], cases

    def one_of(rng: random.Random) -> Case:
        return rng.choice(popular if rng.random() < 0.5 else others)

    async def good(number: int) -> None:
        rng = random.Random(number)
        limits = httpx.Limits(max_connections=1)
        async with httpx.AsyncClient(base_url=served.url, timeout=PATIENCE_S, limits=limits, trust_env=False) as http:
            while time.monotonic() < end:
                case, asked = one_of(rng), time.monotonic()
                try:
                    answer = await http.post(case.path, content=case.content)
                except httpx.TransportError as error:
                    seen.lost.append(f"{time.monotonic() - began:.1f} s, {case.path}: {error!r}")
                    continue
                seen.statuses[answer.status_code] += 1
                if answer.status_code in (429, 503):
                    await asyncio.sleep(float(answer.headers["retry-after"]))
                    continue
                seen.latencies.append(time.monotonic() - asked)
                found = await asyncio.to_thread(case.check, answer.status_code, answer.content)
                if found is None:
                    seen.wrong.append(f"{case.path}: {case.difference(answer.status_code, answer.content)}")
                else:
                    seen.deviation = seen.deviation.most(found)

    async def vanishing(number: int) -> None:
        rng = random.Random(-number)
        while time.monotonic() < end:
            case = one_of(rng)
            _, writer = await asyncio.open_connection("127.0.0.1", served.port)
            whole = head(len(case.content), case.path) + case.content
            writer.write(whole[: len(whole) // rng.choice((1, 1, 2))])
            await asyncio.sleep(rng.uniform(0, 5))
            writer.transport.abort()
            seen.vanished += 1

    async def sampling() -> None:
        step = seconds / SAMPLES
        cpu, last_cpu = served.cpu_s(), served.cpu_s()
        while time.monotonic() < end:
            # Many times: the service gives memory back every few seconds, so a single look depends on when it is.
            until, memory = time.monotonic() + step, []
            while time.monotonic() < until:
                await asyncio.sleep(min(1.0, step / 10))
                memory.append(served.memory_mb())
            cpu, last_cpu = served.cpu_s(), cpu
            latencies, seen.latencies = seen.latencies, []
            if not latencies:
                continue
            seen.all_latencies += latencies
            seen.samples.append(
                (
                    time.monotonic() - began,
                    float(np.mean(memory)),
                    float(np.mean(latencies)),
                    (cpu - last_cpu) / len(latencies),
                )
            )

    leaving = round(clients * VANISHING)
    await asyncio.gather(
        sampling(), *(good(number) for number in range(clients - leaving)), *(vanishing(one) for one in range(leaving))
    )


def drift(samples: list[tuple[float, ...]], column: int, after_s: float) -> tuple[float, float, float]:
    """(change, first, last) by a straight line through the samples after the warm-up; the change as a share of them."""
    points = np.array([(sample[0], sample[column]) for sample in samples if sample[0] >= after_s])
    slope, offset = np.polyfit(points[:, 0], points[:, 1], 1)
    first, last = (float(slope * points[end, 0] + offset) for end in (0, -1))
    return (last - first) / ((first + last) / 2), first, last


def document(
    machine: Machine,
    seen: Seen,
    drifts: dict[str, tuple[float, float, float]],
    cache: dict[str, float],
    peak_mb: float,
    args: argparse.Namespace,
    warm_up: float,
    failed: bool,
) -> str:
    answers = sum(seen.statuses.values())
    latency = np.percentile(seen.all_latencies, (50, 95, 99, 100))
    counts = [
        ("answers", str(answers), f"{answers / args.minutes / 60:.1f} a second"),
        ("of these 200, 4xx as they must be", f"{seen.statuses[200]}", f"{seen.statuses[400] + seen.statuses[404]}"),
        ("429, 503", f"{seen.statuses[429]}", f"{seen.statuses[503]}"),
        ("lost", str(len(seen.lost)), ""),
        ("wrong", str(len(seen.wrong)), "largest deviations of the right ones: "
         f"{seen.deviation.number:.1e} in numbers, {100 * seen.deviation.pixels:.3f} % of a mask's pixels; allowed "
         f"{traffic.WITHIN.number:.0e}, {100 * traffic.WITHIN.pixels:.1f} %"),
        ("clients that vanished", str(seen.vanished), ""),
        ("latency, median; 95; 99 %; most", "; ".join(f"{value:.2f}" for value in latency), "s"),
        ("embeddings: hits, shared, misses, evictions",
         ", ".join(str(cache[name]) for name in ("hits", "shared", "misses", "evictions")), ""),
        ("memory, most", f"{peak_mb:.0f} MB", ""),
    ]  # fmt: skip
    lines = [
        (name, f"{first:.3g}", f"{last:.3g}", f"{100 * change:+.1f} %")
        for name, (change, first, last) in drifts.items()
    ]
    return "\n".join(
        [
            "# Soak",
            "",
            f"`make soak MINUTES={args.minutes:g} CLIENTS={args.clients}`: **{'FAILED' if failed else 'passed'}**",
            "",
            *machine.lines(),
            f"- load average at the end: {os.getloadavg()[0]:.1f}",
            "",
            table(("", "number", ""), counts),
            "",
            f"By a straight line through the samples after the first {warm_up:g} minutes:",
            "",
            table(("of", "at the end of the warm-up", "at the end", "drift"), lines),
            "",
            "![Memory, latency and processor time along the run](soak.png)",
            "",
        ]
    )


def plot(samples: list[tuple[float, ...]], after_s: float, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(len(NAMES), 1, sharex=True, figsize=(8, 7), layout="constrained")
    minutes = [sample[0] / 60 for sample in samples]
    for column, (name, axis) in enumerate(zip(NAMES, axes, strict=True), 1):
        axis.plot(minutes, [sample[column] for sample in samples], linewidth=1)
        _, first, last = drift(samples, column, after_s)
        axis.plot([after_s / 60, minutes[-1]], [first, last], linewidth=2)
        axis.set_ylim(bottom=0)
        axis.set_title(name, fontsize=10)
    axes[-1].set_xlabel("minutes")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
