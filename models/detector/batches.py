"""A detector's samples in batches: those of one shape share one, of no more pixels than pays off."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

import torch

from models.interruptions import as_outside, called_between_layers

SampleT = TypeVar("SampleT")
RawT = TypeVar("RawT")

# What the network sees at once: a processor is busy with one image of the usual size, and small ones share a batch.
PIXELS_AT_ONCE = {"cpu": 1 << 20, "cuda": 9 << 20}


def in_batches(
    network: torch.nn.Module,
    samples: Sequence[SampleT],
    of: Callable[[SampleT], tuple[Hashable, int]],
    forward: Callable[[list[SampleT]], list[RawT]],
    between: Callable[[], None] | None,
    *,
    device: torch.device,
    limited: bool,
) -> list[RawT]:
    """`forward` of all samples; one result per sample, in order.

    of: a sample's shape, which all of a batch have in common, as padding to another would change the results; and how
    many pixels that is. limited: whether batches have at most PIXELS_AT_ONCE, or one sample.
    between: called over and over in the middle of it, on this thread and in torch's default modes, so that short work
    need not wait: on the CPU before each of the network's layers, elsewhere between batches. What it raises ends it.
    """
    groups: dict[tuple[Hashable, int], list[int]] = {}
    for index, sample in enumerate(samples):
        groups.setdefault(of(sample), []).append(index)
    outcome: dict[int, RawT] = {}
    if between is not None:
        between = as_outside(between, device.type)
    with called_between_layers(network, between if device.type == "cpu" else None):
        for (_, pixels), indices in groups.items():
            at_once = max(1, PIXELS_AT_ONCE.get(device.type, 1) // pixels) if limited else len(indices)
            for start in range(0, len(indices), at_once):
                if outcome and between is not None:
                    between()
                chosen = indices[start : start + at_once]
                outcome.update(zip(chosen, forward([samples[index] for index in chosen]), strict=True))
    return [outcome[index] for index in range(len(samples))]
