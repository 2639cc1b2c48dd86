"""A service on several machines, of which things break while clients click: each click is right, or comes again."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path

import httpx
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.ray_service.clicking import LATER, LOST, RIGHT, WRONG, Clicks, Outcomes
from tests.ray.nodes import Cluster, cluster
from tests.ray.service.deployed import EDGE, PATIENCE_S, REPLICA, Deployed, deployed, environment

ALL = os.environ.get("RAY_TESTS") == "all"
thorough = pytest.mark.skipif(not ALL, reason="takes minutes: `make ray-test`")
CLIENTS = range(16)


@pytest.fixture(scope="module")
def machines() -> Iterator[Cluster]:
    """A head without replicas of its own, and two workers."""
    with pytest.MonkeyPatch.context() as patched:
        for name, value in environment().items():
            patched.setenv(name, value)
        with cluster(head_cpus=0, workers=2, cpus=2) as started:
            yield started


@pytest.fixture(scope="module")
def fails_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("faults") / "fails"


@pytest.fixture(scope="module")
def service(machines: Cluster, fails_once: Path) -> Iterator[Deployed]:
    """Two replicas, one on each worker; each test leaves it so."""
    settings = {"ray_replica_requests": 2}  # so that a few clients are reason enough for a second replica
    with deployed(machines, fewest=2, most=2, cpus=1.5, fails_once=str(fails_once), settings=settings) as started:
        yield started
        started.tell("stop")


def clicked(
    service: Deployed, break_it: Callable[[Clicks], Awaitable[None]], clients: Sequence[int] = CLIENTS
) -> Outcomes:
    """What becomes of clicks while something breaks. break_it: returns when what was broken is mended."""
    clicks = Clicks(service.url)

    async def run() -> None:
        async with clicks.client, clicks.all_the_while(clients):
            await answered(clicks, 100)
            await break_it(clicks)
            await answered(clicks, 100)

    asyncio.run(asyncio.wait_for(run(), PATIENCE_S))
    counts = clicks.outcomes.counts
    print(f"{dict(counts)}, at most {max(clicks.outcomes.seconds):.1f} s for one")
    assert counts[WRONG] == counts[LOST] == 0, clicks.outcomes.lost[:5]
    assert counts[RIGHT] >= 200
    return clicks.outcomes


async def answered(clicks: Clicks, count: int) -> None:
    """Return when so many more clicks have been answered right."""
    goal = clicks.outcomes.counts[RIGHT] + count
    while clicks.outcomes.counts[RIGHT] < goal:
        assert not clicks.outcomes.lost, clicks.outcomes.lost[:5]
        await asyncio.sleep(0.05)


async def there_are(service: Deployed, title: str, count: int, without: psutil.Process) -> None:
    """Return when so many processes of this title are there, and that one is not among them."""
    while without in (found := service.processes(title)) or len(found) < count:
        await asyncio.sleep(0.2)
    await ready(service)


async def ready(service: Deployed) -> None:
    async with httpx.AsyncClient(base_url=service.url) as client:
        while (await client.get("/health/ready")).status_code != 200:
            await asyncio.sleep(0.2)


def test_a_replica_is_killed(service: Deployed) -> None:
    async def kill(clicks: Clicks) -> None:
        victim = service.processes(REPLICA)[0]
        victim.kill()
        await there_are(service, REPLICA, 2, victim)

    outcomes = clicked(service, kill)
    assert outcomes.counts[LATER] == 0  # the other replica answers for it


def test_a_device_stops(service: Deployed, fails_once: Path) -> None:
    async def fail(clicks: Clicks) -> None:
        before = service.processes(REPLICA)
        fails_once.touch()
        while all(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in before):
            await asyncio.sleep(0.1)
        (victim,) = [one for one in before if not one.is_running() or one.status() == psutil.STATUS_ZOMBIE]
        await there_are(service, REPLICA, 2, victim)

    outcomes = clicked(service, fail)
    assert outcomes.counts[LATER] == 0


def test_an_edge_is_killed(service: Deployed) -> None:
    async def kill(clicks: Clicks) -> None:
        victim = service.processes(EDGE)[0]
        victim.kill()
        await there_are(service, EDGE, 1, victim)

    clicked(service, kill)  # there is no other: who asks meanwhile waits, or is told to come again


def test_who_goes_is_forgotten(service: Deployed) -> None:
    """Work that nobody waits for any more is dropped in the replicas."""
    clicks = Clicks(service.url)

    async def figure(name: str, **labels: str) -> float:
        figures = (await clicks.client.get("/metrics")).text
        samples = [one for family in text_string_to_metric_families(figures) for one in family.samples]
        return sum(one.value for one in samples if one.name == name and labels.items() <= one.labels.items())

    async def encoded() -> float:
        return await figure("box2mask_batch_size_sum", kind="encode")

    async def run() -> None:
        async with clicks.client:
            before = await encoded()
            waiting = [asyncio.create_task(clicks.click(1000 + number, 1, 1)) for number in range(48)]
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for one in waiting:
                one.cancel()
            await asyncio.wait(waiting)
            while await figure("box2mask_requests_in_work") or await figure("box2mask_device_jobs"):
                await asyncio.sleep(0.05)
            assert await encoded() - before < 36

    asyncio.run(asyncio.wait_for(run(), PATIENCE_S))


def test_who_comes_too_much_is_told_when_to_come_again(service: Deployed) -> None:
    clicks = Clicks(service.url)

    async def run() -> None:
        async with clicks.client:
            await asyncio.gather(*(clicks.click(2000 + number, 1, 1) for number in range(160)))

    asyncio.run(asyncio.wait_for(run(), PATIENCE_S))
    counts = clicks.outcomes.counts
    assert counts[WRONG] == counts[LOST] == 0
    assert counts[RIGHT] >= 64 and counts[LATER] >= 1


@thorough
def test_a_machine_is_lost(machines: Cluster, service: Deployed) -> None:
    async def kill(clicks: Clicks) -> None:
        lost = next(node for node in machines.workers if service.processes(REPLICA, node))
        machines.workers.remove(lost)
        await asyncio.to_thread(lost.kill)
        await asyncio.to_thread(machines.add, cpus=2)
        while len(service.processes(REPLICA)) < 2:
            await asyncio.sleep(0.5)
        await ready(service)

    clicked(service, kill)


@thorough
def test_scaled_up_and_down_under_load(service: Deployed) -> None:
    # With clicks so slow that 16 clients have more than two of them in work, however slow they are themselves.
    service.tell("scale 1 2 1 100")

    async def there_are(count: int) -> None:
        while len(service.processes(REPLICA)) != count:
            await asyncio.sleep(0.2)

    async def scale(clicks: Clicks) -> None:
        async with clicks.all_the_while(range(100, 116)):
            await there_are(2)
            await answered(clicks, 100)
        await there_are(1)

    outcomes = clicked(service, scale, clients=range(2))
    assert outcomes.counts[LATER] == 0
    service.tell("scale 2 2 600")


@thorough
def test_deployed_anew_under_load(service: Deployed) -> None:
    async def deploy(clicks: Clicks) -> None:
        before = service.processes(REPLICA)
        await asyncio.to_thread(service.tell, "scale 2 2 600")
        assert not set(before) & set(service.processes(REPLICA))

    outcomes = clicked(service, deploy)
    assert outcomes.counts[LATER] == 0


@thorough
def test_a_slow_machine(machines: Cluster, service: Deployed) -> None:
    """One that stands still for a while: Ray takes it for lost after its own time, and another replica answers."""

    async def stand_still(clicks: Clicks) -> None:
        victim = service.processes(REPLICA)[0]
        victim.suspend()
        began = time.monotonic()
        try:
            await answered(clicks, 200)
        finally:
            victim.resume()
        print(f"200 more clicks took {time.monotonic() - began:.1f} s")

    clicked(service, stand_still)
