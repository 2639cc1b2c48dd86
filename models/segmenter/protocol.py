"""What every promptable segmenter does, whatever family it is of: embed an image once, decode any number of prompts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self, TypeVar

import numpy as np
import torch
from torch import Tensor

from models.families import Family
from models.segmenter.decoder_graphs import DecoderGraph, EncoderGraph
from models.types import Embedding, Prompts


@dataclass(frozen=True, eq=False)
class RawMasks:
    """What the decoder said about N prompts, on the CPU.

    logits: (N, M, S / 4, S / 4) float32, over the padded square, before the threshold; empty where a GPU has made
    masks of them already. iou_scores: (N, M) float32; NaN too where a prompt's logits have been NaN or infinite, which
    masks do not show. size_hw, resized_hw: as in Embedding.
    packed: these masks (N, M, H, ceil(W / 8)) uint8, eight pixels in a byte, or None.
    """

    logits: Tensor
    iou_scores: np.ndarray
    size_hw: tuple[int, int]
    resized_hw: tuple[int, int]
    packed: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.iou_scores)

    @classmethod
    def concatenate(cls, raws: Sequence[RawMasks]) -> RawMasks:
        """Those of more prompts on the same image, in order; at least one."""
        first = raws[0]
        logits, scores = torch.cat([raw.logits for raw in raws]), np.concatenate([raw.iou_scores for raw in raws])
        packed = (
            None if first.packed is None else np.concatenate([raw.packed for raw in raws if raw.packed is not None])
        )
        return cls(logits, scores, first.size_hw, first.resized_hw, packed)

    def best(self) -> RawMasks:
        """Of each prompt the mask with the highest score alone."""
        which = np.arange(len(self)), self.iou_scores.argmax(axis=1)
        logits = self.logits[which][:, None] if self.packed is None else self.logits
        packed = None if self.packed is None else self.packed[which][:, None]
        return RawMasks(logits, self.iou_scores[which][:, None], self.size_hw, self.resized_hw, packed)


@dataclass(frozen=True, eq=False)
class DecodeRequest:
    """Prompts for one image, of each of which one mask is wanted, or three (multimask).

    keep_logits: whether the masks' logits are wanted too, where a device would give masks alone.
    """

    embedding: Embedding
    prompts: Prompts
    multimask: bool
    keep_logits: bool = False


SampleT = TypeVar("SampleT")


class Segmenter(Family, Protocol[SampleT]):
    """A loaded segmenter. `preprocess` and `postprocess` may run in any number of threads beside one `embed` or
    `decode_batch`.

    image_size: the side of the square, in pixels, that its encoder sees. mask_side: the side of the square of its
    masks' logits, and of those that a prompt may have. fast: whether it takes the fast paths.
    """

    image_size: int
    mask_side: int
    fast: bool
    device: torch.device
    dtype: torch.dtype

    @classmethod
    def load(cls, path: str | Path, device: str | torch.device, dtype: torch.dtype, *, fast: bool) -> Self:
        """Load the segmenter at `path`. Raises ModelFilesError where the files make none."""
        ...

    def preprocess(self, image: np.ndarray) -> SampleT:
        """(H, W, 3) uint8 RGB -> what the encoder wants, on the CPU. Raises ValueError for any other array."""
        ...

    def embed(self, samples: Sequence[SampleT], between: Callable[[], None] | None = None) -> list[Embedding]:
        """Run the image encoder on the device; one Embedding per sample, in order.

        between: called on the way as often as the encoder can, and may run other work in this thread.
        """
        ...

    def decode_batch(
        self, requests: Sequence[DecodeRequest], between: Callable[[], None] | None = None
    ) -> list[RawMasks]:
        """Run prompt encoder and mask decoder for any number of requests; one RawMasks each, in order.

        between: called between one portion of the prompts and the next.
        """
        ...

    def postprocess(self, raw: RawMasks, index: int) -> np.ndarray:
        """The masks (M, H, W) bool of prompt `index`, in the image's own size, on the CPU."""
        ...

    def mask_frame(self, raw: RawMasks) -> tuple[int, tuple[int, int]]:
        """The side of the square that logits are interpolated to, and the part of it (h, w) that the image fills."""
        ...

    def logits_of_mask(self, mask: np.ndarray) -> np.ndarray:
        """A mask (H, W) bool of an image as the logits of a prompt (mask_side, mask_side) float16, on the CPU."""
        ...

    def named_features(self, features: Tensor) -> dict[str, Tensor]:
        """Features (B, ...) of B embeddings as the tensors (B, ...) that an exported decoder takes, by their names."""
        ...

    def graphs(self) -> tuple[EncoderGraph, DecoderGraph] | None:
        """Encoder and decoder as they are exported, in float32 on the CPU; None of a family that is not exported."""
        ...

    def capture_encoder(self) -> None:
        """Get ready for every size of batch, where that takes a while; on the thread that will call `embed`."""
        ...

    def capture_decoder(self, embedding: Embedding) -> None:
        """The same for usual prompts; on the thread that will call `decode_batch`."""
        ...
