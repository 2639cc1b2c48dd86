"""The head of a cluster is killed and comes back, while clients click: with RAY_TESTS=all (`make ray-test`)."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.ray_service.clicking import LATER, LOST, RIGHT, WRONG, Clicks
from tests.ray.heads import PATIENT, STORES, kept
from tests.ray.nodes import Cluster, cluster
from tests.ray.service.deployed import EDGE, PATIENCE_S, PROXY, REPLICA, Deployed, deployed, environment

pytestmark = pytest.mark.skipif(os.environ.get("RAY_TESTS") != "all", reason="takes minutes: RAY_TESTS=all")

CLIENTS = range(2)  # who leave room for the head to start


@pytest.fixture(params=STORES)
def machines(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """A head without replicas, and one worker, which waits for it."""
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    with kept(request.param, tmp_path) as variables, cluster(head_cpus=0, head_variables=variables) as started:
        started.add(cpus=3, variables=PATIENT)
        yield started


def test_a_service_goes_on_without_its_head_and_with_it_again(machines: Cluster) -> None:
    """Answers are right or for another time; lost are at most those on connections to the head's own proxy."""
    (worker,) = machines.workers
    settings = {"ray_edges": 2}
    with deployed(machines, fewest=2, most=2, cpus=1, proxies="EveryNode", settings=settings) as service:
        clicks = Clicks(service.url)

        async def answered(count: int) -> None:
            goal = clicks.outcomes.counts[RIGHT] + count
            while clicks.outcomes.counts[RIGHT] < goal:
                await asyncio.sleep(0.05)

        async def head_goes_and_comes() -> None:
            async with clicks.client, clicks.all_the_while(CLIENTS):
                while not service.processes(PROXY, worker):
                    await asyncio.sleep(0.2)
                await answered(50)
                replicas = service.processes(REPLICA, worker)
                began = time.monotonic()
                await asyncio.to_thread(machines.head.kill)
                if service.processes(EDGE, worker):
                    await answered(50)
                await asyncio.to_thread(machines.head_comes_back)
                print(f"the head was away for {time.monotonic() - began:.0f} s")
                await there_again(service, machines)
                silence = clicks.outcomes.longest_silence(began, time.monotonic())
                print(f"all parts again after {time.monotonic() - began:.0f} s; longest silence {silence:.1f} s")
                await answered(50)
                assert service.processes(REPLICA, worker) == replicas

        asyncio.run(asyncio.wait_for(head_goes_and_comes(), PATIENCE_S))
        counts = clicks.outcomes.counts
        print(dict(counts), clicks.outcomes.lost[:5])
        assert counts[WRONG] == 0 and counts[LOST] <= len(CLIENTS)
        assert counts[RIGHT] >= 100 and counts[LATER] <= counts[RIGHT]


async def there_again(service: Deployed, machines: Cluster) -> None:
    """Return when the head has a proxy, and there are as many edges as were asked for."""
    while not service.processes(PROXY, machines.head) or len(service.processes(EDGE)) < 2:
        await asyncio.sleep(0.2)
