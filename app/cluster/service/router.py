"""Which replica gets a request: the one whose place on the ring is the next after the photo's; see docs/scale.md.

The ring is Ray Serve's own. What differs is what happens when a replica has much to do: Serve's would have the request
wait for a replica to refuse it. Here nothing is refused, as the edge has let in no more than may wait, and nothing
waits in the router, where one photo's requests would hold up all others'.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable
from typing import Any

from ray.serve._private.common import ReplicaID
from ray.serve._private.request_router.common import PendingRequest
from ray.serve._private.request_router.replica_wrapper import RunningReplica
from ray.serve.experimental.consistent_hash_router import ConsistentHashRouter

# Before a key whose request only one replica can answer: it is named by what was sent to that replica.
STAY = "stay:"
# A replica may have so many times as much in work as the mean of all; and always a few requests, among which chance
# decides.
_UNEVEN, _FEW = 1.5, 4
# Photos of which each process remembers where it sent them last; they stay there until it has so many times that load.
_REMEMBERED, _STAYING = 10_000, 2


def session(key: str, lost: Iterable[str] = ()) -> str:
    """What a request's `session_id` is. lost: names of replicas that are not to be asked, as long as there are others.

    Such a one answers at once, that it cannot; so it seems to have little to do, and would be asked all the more.
    """
    return f"{'+'.join(lost)},{key}"


class ByPhoto(ConsistentHashRouter):
    """Chooses by `session`'s key: a photo's, after STAY where the request has to go where the photo is.

    Others go on to the next on the ring, always the same ones in the same order, where a replica has clearly more to do
    than the others: consistent hashing with bounded loads, https://arxiv.org/abs/1608.01350. Where a photo went on, its
    clicks follow.
    """

    def initialize_state(self, **kwargs: Any) -> None:
        """Called by Ray Serve, once."""
        super().initialize_state(**kwargs)
        self._sent: OrderedDict[str, ReplicaID] = OrderedDict()  # by photo; sent longest ago first
        self._waiting: Counter[ReplicaID] = Counter()  # requests that went from here and are not answered

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        """Each in a list of its own: those after the first are for where it does not say that it is there."""
        if pending_request is None:
            return [candidate_replicas]
        pending_request.routing_context.should_backoff = True
        self._num_fallback_replicas = len(self._replicas)
        lost, _, key = pending_request.metadata.session_id.rpartition(",")
        photo, key = key, key or pending_request.metadata.internal_request_id
        ranked = [
            self._replicas[one] for one in self._lookup_ranked_replicas(key.removeprefix(STAY)) if one in self._replicas
        ]
        for one in ranked:
            # Else Ray Serve asks the replica before each request, and one that stands still holds up all others' too.
            self.replica_queue_len_cache.update(one.replica_id, self._waiting[one.replica_id])
        names = set(lost.split("+"))
        ranked = [one for one in ranked if one.replica_id.unique_id not in names] or ranked
        if key.startswith(STAY):
            return [[one] for one in ranked[:1]]
        known = self._sent.get(photo)
        ranked.sort(key=lambda one: one.replica_id != known)
        loads = [self._waiting[one.replica_id] for one in ranked]
        most = max(_FEW, _UNEVEN * (sum(loads) + 1) / max(1, len(loads)))
        free = [
            one
            for one, load in zip(ranked, loads, strict=True)
            if load < most * (_STAYING if one.replica_id == known else 1)
        ]
        ranked = free + [one for one in ranked if one not in free]
        if photo and ranked:
            self._remember(photo, ranked[0].replica_id)
        return [[one] for one in ranked]

    def _remember(self, photo: str, replica_id: ReplicaID) -> None:
        self._sent[photo] = replica_id
        self._sent.move_to_end(photo)
        if len(self._sent) > _REMEMBERED:
            self._sent.popitem(last=False)

    def on_send_request(self, replica_id: ReplicaID) -> None:
        """Called by Ray Serve, whose own count is of no use by gRPC.

        There a replica's word on how much it has in work comes with its answer, when that is no longer so.
        """
        super().on_send_request(replica_id)
        self._waiting[replica_id] += 1

    def on_request_completed(self, replica_id: ReplicaID, internal_request_id: str) -> None:
        """Called by Ray Serve, also for what could not be sent."""
        super().on_request_completed(replica_id, internal_request_id)
        self._waiting[replica_id] -= 1
        if self._waiting[replica_id] <= 0:
            del self._waiting[replica_id]
