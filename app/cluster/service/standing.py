"""What edges and replicas say of themselves and of their work, besides answers. Without models."""

from __future__ import annotations

from dataclasses import dataclass

from ray import serve

from app.timings import Stretch

# Of a request: by the name of each stage when it was in work, in seconds from the call's beginning.
Stages = dict[str, list[Stretch]]


@dataclass(frozen=True)
class Lost:
    """In place of an answer: the replica's device has stopped, and another one can answer. replica: its name."""

    replica: str


def process_name() -> str:
    """Of the replica that this is called in: its deployment's name and its own."""
    identity = serve.get_replica_context().replica_id
    return f"{identity.deployment_id.name}-{identity.unique_id}"
