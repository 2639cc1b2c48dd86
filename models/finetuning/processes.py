"""The processes of one training, where torchrun started several."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as distributed


def is_first() -> bool:
    """Whether this process is the one that speaks for all of them; known before they have joined, and after."""
    return not distributed.is_torchelastic_launched() or os.environ["RANK"] == "0"  # torchrun says it there alone


@contextmanager
def joined() -> Iterator[None]:
    """Join the other processes, if there are any."""
    if not distributed.is_torchelastic_launched():
        yield
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(distributed.get_node_local_rank())
    distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield
    finally:
        distributed.destroy_process_group()
