"""How far every family's masks and scores are from transformers', at the published sizes, with random weights.

`python -m benchmarks.fidelity` writes benchmarks/results/fidelity.md. The reference is transformers' model in float32;
beside ours in float32 and bfloat16 stands transformers' own in bfloat16, so that one sees what the numbers alone cost.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import (
    Sam2Config,
    Sam2Model,
    Sam2VideoConfig,
    Sam2VideoModel,
    SamConfig,
    SamHQConfig,
    SamHQModel,
    SamModel,
)

from benchmarks.machine import Machine
from benchmarks.random_models import SAM2_SIZES
from benchmarks.report import table
from benchmarks.segmenter_reference import (
    MEAN,
    STD,
    Published,
    mended_sam_hq,
    prompt_by_prompt,
    published_sam,
    published_sam2,
    random_weights,
)
from models.demo.scenes import render_scene
from models.segmenter.families import SEGMENTERS
from models.types import Prompts

RESULT = Path(__file__).parent / "results" / "fidelity.md"
SIZE_HW = (900, 1200)
HEADER = ("family", "prompts", "numbers", "same pixels", "least mask IoU", "scores within")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Family:
    """A family at a published size.

    make: transformers' model. reference: the model that is asked, of the one that was saved. processor: its file.
    """

    make: Callable[[], Any]
    published: Published
    processor: dict[str, Any]
    reference: Callable[[Any, Path], Any] = field(default=lambda model, folder: model)


PADDED = {"size": {"longest_edge": 1024}, "pad_size": {"height": 1024, "width": 1024}}
STRETCHED = {"size": {"height": 1024, "width": 1024}}
HIERA_SMALL = {"model_type": "sam2_hiera_det_model", **SAM2_SIZES["small"]}


class Remembered(nn.Module):
    """A vision encoder that encodes an image once, however many prompts are asked of it."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self._last: tuple[torch.Tensor, Any] | None = None

    def forward(self, pixels: torch.Tensor, **options: Any) -> Any:
        last, encoded = self._last or (None, None)
        # `equal` holds across dtypes too.
        if last is None or last.dtype != pixels.dtype or not torch.equal(last, pixels):
            encoded = self.encoder(pixels, **options)
            self._last = pixels, encoded
        return deepcopy(encoded)  # `Sam2Model` changes what it gets


def _of_images(model: Any, folder: Path) -> Any:
    """SAM 2.1 is published as a model of videos; this is the same weights' model of images."""
    return Sam2Model.from_pretrained(folder).eval()


FAMILIES: dict[str, Family] = {
    "sam, ViT-B": Family(lambda: SamModel(SamConfig()), published_sam, PADDED),
    "sam_hq, ViT-B": Family(
        lambda: SamHQModel(SamHQConfig()), published_sam, PADDED, lambda model, folder: mended_sam_hq(model)
    ),
    "sam2, tiny": Family(lambda: Sam2Model(Sam2Config()), published_sam2, STRETCHED),
    "sam2_video (2.1), small": Family(
        lambda: Sam2VideoModel(Sam2VideoConfig(vision_config={"backbone_config": HIERA_SMALL})),
        published_sam2,
        STRETCHED,
        _of_images,
    ),
}


def kinds() -> dict[str, Prompts]:
    """Of an image of SIZE_HW."""
    rng = np.random.default_rng(3)
    height, width = SIZE_HW
    corner = rng.uniform(0, (width - 100, height - 100), (16, 2))
    boxes = np.concatenate((corner, corner + rng.uniform(20, 100, (16, 2))), axis=1)
    points = rng.uniform(0, (width, height), (16, 1, 2))
    yy, xx = np.mgrid[:256, :256]
    rounds = [(8 - np.hypot(yy - 100, xx - x) / 8).clip(-10, 10).astype(np.float32) for x in (60, 128)]
    return {
        "a point": Prompts(points[:1]),
        "points with labels": Prompts(points[:4].reshape(1, 4, 2), np.array([[1, 0, -1, -10]])),
        "a box": Prompts(boxes_xyxy=boxes[:1]),
        "16 boxes": Prompts(boxes_xyxy=boxes),
        "boxes with points": Prompts(points[:2], np.array([[1], [0]]), boxes[:2]),
        "boxes with masks": Prompts(boxes_xyxy=boxes[:2], mask_logits=tuple(rounds)),
    }


@dataclass(frozen=True)
class Distance:
    """Over all masks of a prompt kind, the single masks and all three."""

    same_pixels: float
    least_iou: float
    score: float

    @classmethod
    def of(cls, ours: list[tuple[np.ndarray, np.ndarray]], theirs: list[tuple[np.ndarray, np.ndarray]]) -> Distance:
        same, ious, scores = [], [], []
        for (masks, our_scores), (expected, their_scores) in zip(ours, theirs, strict=True):
            same.append((masks == expected).mean())
            union = (masks | expected).sum((-2, -1))
            ious.append(np.where(union, (masks & expected).sum((-2, -1)) / union.clip(1), 1).min())
            scores.append(np.abs(our_scores - their_scores).max())
        return cls(float(np.mean(same)), float(min(ious)), float(max(scores)))


def answers(ask: Callable[[Prompts, bool], tuple[np.ndarray, np.ndarray]]) -> dict[str, list[Any]]:
    return {name: [ask(prompts, multimask) for multimask in (False, True)] for name, prompts in kinds().items()}


def measure(name: str, family: Family, dtypes: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """The rows of a family: ours in these of DTYPES, and theirs in bfloat16 if it is among them."""
    image = render_scene(np.random.default_rng(5), SIZE_HW).image
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        torch.manual_seed(0)
        model: Any = random_weights(family.make())
        model.save_pretrained(folder)
        processor = {"image_mean": MEAN, "image_std": STD, **family.processor}
        (folder / "processor_config.json").write_text(json.dumps({"image_processor": processor}))
        reference = family.reference(model, folder)
        reference.vision_encoder = Remembered(reference.vision_encoder)

        def theirs(prompts: Prompts, multimask: bool) -> tuple[np.ndarray, np.ndarray]:
            return prompt_by_prompt(family.published, reference, image, prompts, multimask)

        expected = answers(theirs)
        for dtype in dtypes:
            segmenter = SEGMENTERS.of(folder).load(folder, torch.device("cpu"), DTYPES[dtype], fast=True)
            (embedding,) = segmenter.embed([segmenter.preprocess(image)])

            def ours(
                prompts: Prompts, multimask: bool, segmenter: Any = segmenter, embedding: Any = embedding
            ) -> tuple[np.ndarray, np.ndarray]:
                raw = segmenter.decode(embedding, prompts, multimask=multimask)
                return np.stack([segmenter.postprocess(raw, n) for n in range(len(raw))]), raw.iou_scores

            yield from _rows(name, f"ours, {dtype}", answers(ours), expected)
        if "bfloat16" not in dtypes:
            return
        reference = reference.to(torch.bfloat16)
        yield from _rows(name, "theirs, bfloat16", answers(theirs), expected)


def _rows(name: str, numbers: str, found: dict[str, Any], expected: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    for kind, masks in expected.items():
        shown = [mask.mean() for mask, _ in masks]
        if not any(0.01 < covered < 0.99 for covered in shown):
            raise RuntimeError(f"{name}, {kind}: the reference shows nothing: {shown}")
        far = Distance.of(found[kind], masks)
        yield name, kind, numbers, f"{far.same_pixels:.5f}", f"{far.least_iou:.4f}", f"{far.score:.1g}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fidelity", description=__doc__)
    parser.add_argument("--families", nargs="+", choices=list(FAMILIES), metavar="NAME", help="only these")
    parser.add_argument("--dtypes", nargs="+", choices=list(DTYPES), default=list(DTYPES), help="the numbers of ours")
    parser.add_argument("--out", type=Path, default=RESULT, help="file to write")
    args = parser.parse_args()
    torch.set_num_threads(1)
    machine, rows = Machine.this(), []
    for name in args.families or FAMILIES:
        for row in measure(name, FAMILIES[name], args.dtypes):
            print(" | ".join(row), flush=True)
            rows.append(row)
    lines = [
        "# Masks and scores beside transformers'",
        "",
        *machine.lines(),
        f"- `python -m benchmarks.fidelity`, random weights at the published sizes, an image of {SIZE_HW[1]} x "
        f"{SIZE_HW[0]}",
        "",
        "The reference is transformers' processor and model in float32. Of each kind of prompts the single mask and",
        "all three are compared.",
        "",
        table(HEADER, sorted(rows, key=lambda row: list(FAMILIES).index(row[0]))),
    ]
    args.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
