"""Embeddings of views in a folder, each made once: a training reads them in every epoch, and after an interruption.

They are kept in float16, two bytes a number: 2 MB for a full-size SAM. What is read often stays in the system's cache.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from models.atomic_files import file_path
from models.finetuning.segmenter.views import View
from models.square_images import Sample
from models.types import Embedding

GREATEST = 65504.0  # in float16


@dataclass(frozen=True)
class KeptView:
    """A view with its embedding. features: (C, h, w) float16 on the CPU. pixels: (h, w, 3) uint8, in the size of the
    model's input; None where only the embedding is kept. Others as in `View` and `Sample`."""

    features: Tensor
    pixels: np.ndarray | None
    size_hw: tuple[int, int]
    resized_hw: tuple[int, int]
    truths: np.ndarray
    boxes_xyxy: np.ndarray

    @property
    def sample(self) -> Sample:
        assert self.pixels is not None
        return Sample(self.pixels, self.size_hw)


class KeptViews:
    """The views of some images. Each image has one file, which is there when all of its views are encoded."""

    def __init__(self, folder: Path, *, pixels: bool = False) -> None:
        """pixels: whether those are kept too, for an encoder that learns."""
        self._folder, self._pixels = folder, pixels

    def has(self, image: int) -> bool:
        return self._file(image).is_file()

    def add(self, image: int, views: Sequence[View], embeddings: Sequence[Embedding]) -> None:
        """Keep the views of an image, of which there may be none. Raises OSError."""
        content: dict[str, Tensor] = {}
        for number, (view, embedding) in enumerate(zip(views, embeddings, strict=True)):
            features = embedding.features.detach().float().clamp(-GREATEST, GREATEST)
            truths = zlib.compress(view.truths.tobytes(), 1)
            content |= {
                f"{number}.features": features.to("cpu", torch.float16).contiguous(),
                f"{number}.sizes": torch.tensor([view.sample.size_hw, view.sample.resized_hw, view.truths.shape[1:]]),
                f"{number}.boxes": torch.from_numpy(view.boxes_xyxy.copy()),
                f"{number}.truths": torch.frombuffer(bytearray(truths), dtype=torch.uint8),
            }
            if self._pixels:
                content[f"{number}.pixels"] = torch.from_numpy(view.sample.image.copy())
        with file_path(self._file(image)) as path:
            path.write_bytes(save(content))

    def count(self, image: int) -> int:
        """How many views an image has."""
        with safe_open(self._file(image), "pt") as file:
            return sum(key.endswith(".sizes") for key in file.keys())  # noqa: SIM118 (not a dict)

    def view(self, image: int, number: int) -> KeptView:
        with safe_open(self._file(image), "pt") as file:
            keys = [key for key in file.keys() if key.startswith(f"{number}.")]  # noqa: SIM118
            return _view({key.partition(".")[2]: file.get_tensor(key) for key in keys})

    def _file(self, image: int) -> Path:
        return self._folder / f"{image:06d}.safetensors"


def _view(content: dict[str, Tensor]) -> KeptView:
    size_hw, resized_hw, grid_hw = (tuple(pair) for pair in content["sizes"].tolist())
    boxes = content["boxes"].numpy()
    truths = np.frombuffer(zlib.decompress(content["truths"].numpy().tobytes()), np.uint8)
    pixels = content.get("pixels")
    return KeptView(
        content["features"],
        None if pixels is None else pixels.numpy(),
        size_hw,
        resized_hw,
        truths.reshape(len(boxes), *grid_hw),
        boxes,
    )
