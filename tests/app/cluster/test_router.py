"""Which replica gets a request: Serve's own ring and router, with replicas that only say how much they have to do."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence

from ray.serve._private.common import DeploymentHandleSource, DeploymentID, ReplicaID, RequestMetadata
from ray.serve._private.request_router.common import PendingRequest

from app.cluster.service.router import STAY, ByPhoto, session

DEPLOYMENT = DeploymentID("replica", "box2mask")
KEYS = [f"sha256:{number:064x}" for number in range(800)]


class Named:
    """As much of a replica as is asked for where nothing is sent to it."""

    max_ongoing_requests = 10_000

    def __init__(self, name: str) -> None:
        self.replica_id = ReplicaID(name, DEPLOYMENT)

    async def get_queue_len(self, *, deadline_s: float) -> int:
        return 0


def with_router(replicas: Sequence[str], work: Callable[[ByPhoto], Awaitable[None]]) -> None:
    async def run() -> None:
        router = ByPhoto(DEPLOYMENT, DeploymentHandleSource.UNKNOWN, use_replica_queue_len_cache=True)
        router.initialize_state()
        router.update_replicas([Named(name) for name in replicas])  # type: ignore[misc]
        await work(router)

    asyncio.run(run())


async def order(router: ByPhoto, session_id: str) -> list[str]:
    """The replicas that are asked, in order."""
    metadata = RequestMetadata(request_id="r", internal_request_id=f"i-{session_id}", session_id=session_id)
    pending = PendingRequest(args=[], kwargs={}, metadata=metadata)
    found = await router.choose_replicas(list(router.curr_replicas.values()), pending)
    assert all(len(one) == 1 for one in found)
    return [one[0].replica_id.unique_id for one in found]


def busy(router: ByPhoto, name: str, requests: int) -> None:
    """So many are in work that went from here, and none of those before."""
    replica = ReplicaID(name, DEPLOYMENT)
    for _ in range(100):
        router.on_request_completed(replica, "i")
    for _ in range(requests):
        router.on_send_request(replica)
    router.on_new_queue_len_info(replica, 0)  # as it says by gRPC, long after


def test_a_photo_goes_to_the_same_replica_in_every_process() -> None:
    orders: list[list[list[str]]] = []
    for replicas in ("abcd", "dcba"):

        async def look(router: ByPhoto) -> None:
            orders.append([await order(router, session(key)) for key in KEYS])

        with_router(replicas, look)
    assert orders[0] == orders[1]
    shares = Counter(one[0] for one in orders[0])
    assert len(shares) == 4 and min(shares.values()) > len(KEYS) / 8
    assert all(sorted(one) == list("abcd") for one in orders[0])


def test_a_reference_goes_where_its_photo_went_and_nowhere_else() -> None:
    async def look(router: ByPhoto) -> None:
        for key in KEYS[:50]:
            first, *_ = await order(router, session(key))
            assert await order(router, session(STAY + key)) == [first]
            busy(router, first, 99)
            assert await order(router, session(STAY + key)) == [first]
            busy(router, first, 0)

    with_router("abcd", look)


def test_a_new_photo_goes_on_from_a_busy_replica_and_its_clicks_follow() -> None:
    async def look(router: ByPhoto) -> None:
        (first,) = await order(router, session(STAY + KEYS[0]))
        busy(router, first, 4)
        found = await order(router, session(KEYS[0]))
        assert found[-1] == first
        busy(router, first, 0)
        assert (await order(router, session(KEYS[0])))[0] == found[0]

    with_router("abcd", look)


def test_a_photo_stays_longer_than_a_new_one_comes() -> None:
    async def look(router: ByPhoto) -> None:
        first, *_ = await order(router, session(KEYS[0]))
        busy(router, first, 7)
        assert (await order(router, session(KEYS[0])))[0] == first
        busy(router, first, 8)
        assert (await order(router, session(KEYS[0])))[0] != first

    with_router("abcd", look)


def test_where_all_have_much_to_do_a_photo_goes_to_its_place() -> None:
    async def look(router: ByPhoto) -> None:
        (first,) = await order(router, session(STAY + KEYS[0]))
        for name in "abcd":
            busy(router, name, 14)
        busy(router, first, 20)
        assert (await order(router, session(KEYS[0])))[0] == first

    with_router("abcd", look)


def test_a_lost_replica_is_passed_over() -> None:
    async def look(router: ByPhoto) -> None:
        ranked = await order(router, session(KEYS[0]))
        first, second, *rest = ranked
        assert await order(router, session(KEYS[0], [first])) == [second, *rest]
        assert await order(router, session(STAY + KEYS[0], [first])) == [second]
        for name in (second, *rest):
            busy(router, name, 100)  # and the lost one has nothing to do
        assert first not in await order(router, session(KEYS[0], [first]))
        for name in (second, *rest):
            busy(router, name, 0)
        assert sorted(await order(router, session(KEYS[0], "abcd"))) == list("abcd")  # there are no others
        router.on_replica_actor_died(ReplicaID(ranked[0], DEPLOYMENT))
        assert await order(router, session(KEYS[0])) == ranked[1:]

    with_router("abcd", look)


def test_another_replica_takes_over_its_share_alone() -> None:
    firsts: list[list[str]] = []
    for replicas in ("abcd", "abcde"):

        async def look(router: ByPhoto) -> None:
            firsts.append([(await order(router, session(key)))[0] for key in KEYS])

        with_router(replicas, look)
    moved = [(one, other) for one, other in zip(*firsts, strict=True) if one != other]
    assert {other for _, other in moved} == {"e"}
    assert len(moved) < len(KEYS) / 3


def test_what_has_no_photo_goes_round() -> None:
    async def look(router: ByPhoto) -> None:
        found = set()
        for number in range(60):
            metadata = RequestMetadata(request_id="r", internal_request_id=f"i{number}", session_id=session(""))
            pending = PendingRequest(args=[], kwargs={}, metadata=metadata)
            found.add((await router.choose_replicas([], pending))[0][0].replica_id.unique_id)
        assert found == set("abcd")

    with_router("abcd", look)


def test_no_replica_is_asked_how_much_it_has_to_do() -> None:
    """One that stands still would not say, and hold up the requests that come after."""

    async def look(router: ByPhoto) -> None:
        for key in (session(KEYS[0]), session(STAY + KEYS[0])):
            first, *_ = await order(router, key)
            busy(router, first, 3)
            router.replica_queue_len_cache.invalidate_key(ReplicaID(first, DEPLOYMENT))
            await order(router, key)
            assert router.replica_queue_len_cache.get(ReplicaID(first, DEPLOYMENT)) == 3

    with_router("abcd", look)
