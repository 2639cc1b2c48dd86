"""What is wrong with a model's files, as errors; and what is only worth a line, which is said once."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache

Say = Callable[[str], None]


class ModelFilesError(Exception):
    """The files given do not make a model: something is missing, ambiguous or contradictory.

    CheckpointError is the part of it that concerns the file with the weights.
    """


class CheckpointError(ModelFilesError):
    """A file with weights is unreadable, unsafe, or does not fit the model."""


class MissingOpError(RuntimeError):
    """A model called a compiled mmcv op that has no replacement here."""

    def __init__(self, op: str) -> None:
        super().__init__(
            f"this model needs mmcv's compiled op '{op}', which mmcv-lite does not have: "
            "install the full 'mmcv' package in its place (it compiles for ten minutes or more)"
        )
        self.op = op


@cache
def say_once(line: str) -> None:
    """Into the log, once in a process: several devices load the same files."""
    logging.getLogger("box2mask").warning(line)
