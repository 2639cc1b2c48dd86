"""Sends generated bad requests to a real service, and sees to it that good ones go on being answered rightly.

Fails where anything is answered 5xx, in another form than the service's errors have, or where a good request's answer
changes.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field

import httpx

from benchmarks.machine import Machine
from benchmarks.reliability.bad_requests import ROUTES, BadRequest, bad_requests, good_request
from benchmarks.report import table
from benchmarks.service import REPOSITORY, Service

GOOD_EVERY = 100
DEMO = {
    "BOX2MASK_DETECTOR": str(REPOSITORY / "weights" / "demo" / "yolof"),
    "BOX2MASK_SEGMENTER": str(REPOSITORY / "weights" / "demo" / "sam"),
    "BOX2MASK_DEVICE": "cpu",
}


@dataclass
class Tally:
    """What became of one kind of request."""

    statuses: Counter[int] = field(default_factory=Counter)
    slowest_s: float = 0.0

    def cells(self, kind: str) -> tuple[str, ...]:
        statuses = ", ".join(f"{status}: {count}" for status, count in sorted(self.statuses.items()))
        failed = sum(count for status, count in self.statuses.items() if status >= 500)
        return kind, str(self.statuses.total()), statuses, str(failed), f"{1000 * self.slowest_s:.0f} ms"


def send(client: httpx.Client, request: BadRequest) -> httpx.Response:
    """The answer, which may have any status; raises AssertionError where an error is not told as errors are."""
    response = client.request(request.method, request.path, content=request.body)
    if response.status_code >= 400:
        content = response.json()
        assert content.keys() == {"message"} and isinstance(content["message"], str), response.text
        assert len(content["message"]) < 1000, "a message grew with its request"
    return response


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reliability fuzz", description=__doc__)
    parser.add_argument("--requests", type=int, default=20_000, metavar="N", help="how many (default: 20000)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="which ones (default: 0)")
    args = parser.parse_args(argv)
    tallies: defaultdict[str, Tally] = defaultdict(Tally)
    faults: list[str] = []
    service = Service(DEMO)
    try:
        service.ready()
        bodies = {path: good_request(path) for path in ROUTES}
        expected = {path: service.post(path, body) for path, body in bodies.items()}
        began, right = time.monotonic(), 0
        with httpx.Client(base_url=service.url, timeout=120, trust_env=False) as client:
            for number, request in zip(range(1, args.requests + 1), bad_requests(args.seed), strict=False):
                started = time.perf_counter()
                try:
                    response = send(client, request)
                except (httpx.HTTPError, AssertionError, ValueError) as error:
                    faults.append(f"request {number} ({request.kind}): {type(error).__name__} {error}")
                    continue
                tally = tallies[request.kind]
                tally.statuses[response.status_code] += 1
                tally.slowest_s = max(tally.slowest_s, time.perf_counter() - started)
                if response.status_code >= 500:
                    faults.append(f"request {number} ({request.kind}): {response.status_code} {response.text[:200]}")
                if number % GOOD_EVERY == 0:
                    path = ROUTES[number // GOOD_EVERY % len(ROUTES)]
                    if service.post(path, bodies[path]) == expected[path]:
                        right += 1
                    else:
                        faults.append(f"after request {number}: another answer to the good request on {path}")
        seconds = time.monotonic() - began
        peak = service.peak_mb()
    finally:
        service.close()
    header = ("fault", "requests", "answers", "5xx", "slowest")
    print(table(header, [tally.cells(kind) for kind, tally in tallies.items()]))
    total = sum(tally.statuses.total() for tally in tallies.values())
    print(f"\n{total} bad requests in {seconds:.0f} s (seed {args.seed}), {len(faults)} faults; {right} good requests")
    print(f"in between, all answered as before; the service's peak memory: {peak:.0f} MB. {Machine.this().name}")
    for fault in faults[:20]:
        print(fault)
    return 1 if faults else 0
