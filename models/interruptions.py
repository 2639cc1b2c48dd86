"""Other work between a network's layers, so that what is short need not wait for what is long."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch


def as_outside(between: Callable[[], None], device_type: str) -> Callable[[], None]:
    """The same in torch's default modes, and silent while it is already running: it may run the model itself."""
    running = False

    def call() -> None:
        nonlocal running
        if running:
            return
        running = True
        try:
            with torch.inference_mode(False), torch.autocast(device_type, enabled=False):
                between()
        finally:
            running = False

    return call


@contextmanager
def called_between_layers(model: torch.nn.Module, between: Callable[[], None] | None) -> Iterator[None]:
    """Call `between` before each of the model's innermost modules."""
    handles = []
    if between is not None:
        call = between
        layers = [module for module in model.modules() if not any(module.children())]
        handles = [layer.register_forward_pre_hook(lambda *_: call()) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
