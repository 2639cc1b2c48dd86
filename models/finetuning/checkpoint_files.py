"""The files of a training's state, each of which gets its name only once it is whole; and what ends a training."""

from __future__ import annotations

import os
from pathlib import Path

import torch

LATEST = "latest.pth"
BEST = "best.safetensors"
SECONDS = 60.0  # between checkpoints within an epoch


class TrainingError(Exception):
    """A training that cannot go on; the message says why."""


class OutOfTime(Exception):
    """The time that was given is over; a checkpoint has been written."""


def portable(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A model's weights on the CPU, each with memory of its own, as safetensors wants them."""
    return {key: tensor.detach().cpu().contiguous().clone() for key, tensor in model.state_dict().items()}


def install(part: Path, target: Path) -> None:
    """Give a file that is whole its name."""
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.chmod(0o644)  # safetensors' files are their owner's alone
    part.replace(target)
