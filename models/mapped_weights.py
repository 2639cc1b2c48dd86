"""Weights that lie in a mapped file, as a model takes them: one after the other, without the file staying in memory.

A mapped file takes memory page by page, as it is read, until the whole of it is let go. Here the pages of a weight are
given back as soon as it has been copied. The system keeps them in its own cache as long as it has room. A loaded model
has copies of all its weights: were some still the file, whoever writes a new model into it would change the loaded one,
and end the process by making it shorter.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import torch

from models.c_library import c_function

ModuleT = TypeVar("ModuleT", bound=torch.nn.Module)

_MAPS = Path("/proc/self/maps")


class MappedPages:
    """This process's memory that was a file's content when this was made; none where the system does not say it."""

    def __init__(self) -> None:
        self._madvise = c_function("madvise")
        self._ranges = [] if self._madvise is None else list(_files_in_memory())

    def give_back(self, tensor: torch.Tensor) -> None:
        """Let go of a tensor's whole pages where it is part of a file. Who reads it again reads the file again.

        tensor: that nobody has written to since it was mapped.
        """
        if self._madvise is None or not self.holds(tensor) or not tensor.is_contiguous():
            return
        start = tensor.data_ptr()
        stop = start + tensor.numel() * tensor.element_size()
        first = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
        length = stop // mmap.PAGESIZE * mmap.PAGESIZE - first
        if length > 0:
            self._madvise(ctypes.c_void_p(first), ctypes.c_size_t(length), mmap.MADV_DONTNEED)

    def holds(self, tensor: torch.Tensor) -> bool:
        """Whether a tensor is part of a file."""
        if tensor.device.type != "cpu":
            return False
        return any(low <= tensor.data_ptr() < high for low, high in self._ranges)


def moved(model: ModuleT, device: str | torch.device, dtype: torch.dtype | None = None) -> ModuleT:
    """`model.to(device, dtype)`, in which every weight of a file is copied, and leaves no pages of it behind."""
    pages = MappedPages()

    def one(tensor: torch.Tensor) -> torch.Tensor:
        its = tensor.to(device, dtype if tensor.is_floating_point() else None, copy=pages.holds(tensor))
        if its is not tensor:
            pages.give_back(tensor)
        return its

    return model._apply(one)


@contextmanager
def given_back_as_copied(model: torch.nn.Module, state_dict: Mapping[str, torch.Tensor]) -> Iterator[None]:
    """While the model copies `state_dict`, give back what each of its modules has copied."""
    pages = MappedPages()

    def after(prefix: str, names: list[str]) -> None:
        for name in names:
            if (tensor := state_dict.get(prefix + name)) is not None:
                pages.give_back(tensor)

    hooks = []
    for path, module in model.named_modules():
        names = [*module._parameters, *module._buffers]
        if names:
            prefix = f"{path}." if path else ""
            hooks.append(
                module.register_load_state_dict_post_hook(lambda *_, prefix=prefix, names=names: after(prefix, names))
            )
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _files_in_memory() -> Iterator[tuple[int, int]]:
    """From where to where files are mapped."""
    if not _MAPS.is_file():
        return
    for line in _MAPS.read_text(errors="replace").splitlines():
        span, _, _, _, inode, *_ = line.split()
        if inode != "0":
            low, high = span.split("-")
            yield int(low, 16), int(high, 16)
