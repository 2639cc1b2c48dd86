"""What becomes of a request whose replica is lost while it works, as far as no cluster is needed to tell."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import Any

import pytest
from grpc import StatusCode  # type: ignore[import-untyped]
from grpc.aio import AioRpcError, Metadata  # type: ignore[import-untyped]
from ray.exceptions import ActorUnavailableError

from app.cluster.service.replicas import Replicas
from app.errors import Unavailable
from app.settings import Settings

NOBODY = AioRpcError(StatusCode.CANCELLED, Metadata(), Metadata())
FOUND = {"box2mask": "0.1.0"}


class Handle:
    """Ray Serve's handle, of replicas that do as they are told, one after the other."""

    def __init__(self, *outcomes: BaseException | dict[str, str] | None) -> None:
        self.do = self
        self.asked = self.cancelled = 0
        self._outcomes = outcomes

    def options(self, **options: Any) -> Handle:
        return self

    def remote(self, what: str, client: str) -> Handle:
        self.asked += 1
        return self

    def cancel(self) -> None:
        self.cancelled += 1

    def __await__(self) -> Generator[Any, None, Any]:
        outcome = self._outcomes[self.asked - 1]
        if outcome is None:
            yield from asyncio.Event().wait().__await__()
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome, {}


def replicas(handle: Handle) -> Replicas:
    return Replicas(Settings(api_keys=None), handle)  # type: ignore[arg-type]


@pytest.mark.parametrize("lost", [asyncio.CancelledError(), NOBODY, ActorUnavailableError("it has gone", None)])
def test_another_replica_is_asked(lost: BaseException) -> None:
    handle = Handle(lost, FOUND)
    assert asyncio.run(replicas(handle).describe()) == FOUND
    assert (handle.asked, handle.cancelled) == (2, 0)


def test_not_more_than_three_are() -> None:
    handle = Handle(NOBODY, NOBODY, NOBODY)
    with pytest.raises(Unavailable, match="3 replicas were lost"):
        asyncio.run(replicas(handle).describe())


def test_who_goes_takes_the_request_along() -> None:
    handle = Handle(None)

    async def ask_and_go() -> None:
        asking = asyncio.create_task(replicas(handle).describe())
        while not handle.asked:
            await asyncio.sleep(0)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking

    asyncio.run(ask_and_go())
    assert (handle.asked, handle.cancelled) == (1, 1)
