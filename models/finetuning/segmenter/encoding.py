"""Encodes the views of all images before a training begins, within a limit on disk space."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from models.finetuning.checkpoint_files import TrainingError
from models.finetuning.segmenter.embeddings import KeptViews
from models.finetuning.segmenter.examples import Example
from models.finetuning.segmenter.options import SegmenterOptions
from models.finetuning.segmenter.report import Report
from models.finetuning.segmenter.views import frames, views
from models.segmenter.sam import Sam

AT_ONCE = {"cpu": 1, "cuda": 8}  # views, of an image
TRUTH_SHARE = 0.05  # about what masks and boxes take beside an embedding
_NUMBER = np.dtype(np.float16).itemsize


class Encoding:
    """The views of the images to train on, and of those to validate on, in a folder."""

    def __init__(
        self,
        folder: Path,
        training: Sequence[Example],
        validation: Sequence[Example],
        options: SegmenterOptions,
    ) -> None:
        with_pixels = options.train == "encoder-lora"
        self.training = KeptViews(folder / "training", pixels=with_pixels)
        self.validation = KeptViews(folder / "validation", pixels=with_pixels)
        self._examples = {"training": list(training), "validation": list(validation)}
        self._options = options

    def run(self, family: type[Sam], start: Path, device: torch.device, dtype: torch.dtype, report: Report) -> int:
        """Encode what is not encoded yet, by the encoder that serves. Returns how many views an image has.

        Raises DataError, ModelFilesError, OSError, and TrainingError where the images do not fit into the limit.
        """
        missing = [
            (use, number)
            for use, kept in (("training", self.training), ("validation", self.validation))
            for number in range(len(self._examples[use]))
            if not kept.has(number)
        ]
        sam = family.load(start, device, dtype)
        count = self._views_per_image(sam, report)
        if not missing:
            return count
        report.begin("encoding", "image", len(missing))
        for use, number in missing:
            self._encode(sam, use, number, count if use == "training" else 1)
            report.step()
        report.close()
        return count

    def _encode(self, sam: Sam, use: str, number: int, count: int) -> None:
        example = self._examples[use][number]
        rng = np.random.default_rng([self._options.random_seed, 1, number])
        of_frames = frames(example.image.size_hw, example.boxes_xyxy, count, rng)
        found = views(example.photo(), example.rles, of_frames, sam.preprocess, sam.image_size, sam.mask_side)
        at_once, embeddings = AT_ONCE[sam.device.type], []
        for first in range(0, len(found), at_once):
            embeddings += sam.embed([view.sample for view in found[first : first + at_once]])
        (self.training if use == "training" else self.validation).add(number, found, embeddings)

    def _views_per_image(self, sam: Sam, report: Report) -> int:
        wanted = self._options.views_per_image if self._options.apply_augmentations else 1
        side = sam.image_size
        (one,) = sam.embed([sam.preprocess(np.zeros((side, side, 3), np.uint8))])
        size = _NUMBER * one.features.numel() * (1 + TRUTH_SHARE)
        if self._options.train == "encoder-lora":
            size += 3 * side * side
        images = {use: len(found) for use, found in self._examples.items()}
        room = self._options.embeddings_gb * 2**30 / size - images["validation"]
        fits = int(room // images["training"])
        if fits < 1:
            need = size * sum(images.values()) / 2**30
            raise TrainingError(
                f"embeddings_gb: expected at least {need:.2g} for {sum(images.values())} images, found "
                f"{self._options.embeddings_gb:g}"
            )
        if fits < wanted:
            report.line(f"{fits} views of each image in place of {wanted}, to stay within embeddings_gb")
        return min(fits, wanted)
