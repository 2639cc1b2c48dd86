"""Which replica gets a request: the one whose place on the ring is the next after the photo's; see docs/scale.md.

The ring is Ray Serve's own. What differs is what happens when a replica has much to do: Serve's would have the request
wait for a replica to refuse it. Here nothing is refused, as the edge has let in no more than may wait, and nothing
waits in the router, where one photo's requests would hold up all others'.
"""

from __future__ import annotations

from ray.serve._private.common import ReplicaID
from ray.serve._private.request_router.common import PendingRequest
from ray.serve._private.request_router.replica_wrapper import RunningReplica
from ray.serve.experimental.consistent_hash_router import ConsistentHashRouter

# Before a key whose request only one replica can answer: it is named by what was sent to that replica.
STAY = "stay:"
# A replica may have so many times as much in work as the mean of all; and always a few requests, among which chance
# decides.
_UNEVEN, _FEW = 1.5, 4


def session(key: str, passed_over: int = 0) -> str:
    """What a request's `session_id` is. passed_over: replicas at the key's place on the ring that are not asked."""
    return f"{passed_over},{key}" if key else ""


class ByPhoto(ConsistentHashRouter):
    """Chooses by `session`'s key: a photo's, after STAY where the request has to go where the photo is.

    Others go on to the next on the ring, always the same ones in the same order, where a replica has clearly more to do
    than the others: consistent hashing with bounded loads, https://arxiv.org/abs/1608.01350.
    """

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        """Each in a list of its own: those after the first are for where it does not say that it is there."""
        key = None if pending_request is None else self._routing_key(pending_request)
        if pending_request is None or key is None:
            return [candidate_replicas]
        pending_request.routing_context.should_backoff = True
        self._num_fallback_replicas = len(self._replicas)
        passed_over, _, key = key.rpartition(",")
        ranked = [
            self._replicas[one] for one in self._lookup_ranked_replicas(key.removeprefix(STAY)) if one in self._replicas
        ]
        first = int(passed_over or 0) % len(ranked) if ranked else 0
        ranked = ranked[first:] + ranked[:first]
        if key.startswith(STAY):
            return [[one] for one in ranked[:1]]
        loads = [self._in_work(one.replica_id) for one in ranked]
        most = max(_FEW, _UNEVEN * (sum(loads) + 1) / max(1, len(loads)))
        free = [one for one, load in zip(ranked, loads, strict=True) if load < most]
        return [[one] for one in free + [one for one in ranked if one not in free]]

    def _in_work(self, replica_id: ReplicaID) -> int:
        """As far as it is known here: what was sent from here, and what it said itself when it took the last one."""
        return self.replica_queue_len_cache.get(replica_id) or 0
