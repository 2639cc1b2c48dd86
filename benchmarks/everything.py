"""`python -m benchmarks.everything`: all masks of an image, here and by transformers' `mask-generation` pipeline.

Either side is a process of its own with one thread. The times are those of the processor, so that what else the machine
does is not in them; the memory is the most that the process has had. The pipeline's last step needs torchvision and is
replaced by this project's non-maximum suppression, which costs next to nothing; all else is transformers' own.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.child import Child, Task
from benchmarks.machine import Machine
from benchmarks.report import duration, table

ROOT = Path(__file__).parents[1]
DEMO = ROOT / "weights" / "demo" / "sam"
HEADER = (
    "case", "masks, theirs", "masks, ours", "lowest IoU", "theirs", "ours", "theirs / ours",
    "memory, theirs", "memory, ours", "ours / theirs",
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """An image of a size, and what is asked of it. is_alone: transformers is not asked."""

    name: str
    size_hw: tuple[int, int]
    grid: dict[str, Any] = field(default_factory=dict)
    is_base: bool = False
    is_alone: bool = False


# Random weights think of their masks what they like, so that no threshold is right for them.
ALL: dict[str, Any] = {"pred_iou_thresh": 0.0, "stability_score_thresh": 0.0, "crops_nms_thresh": 0.9}
# The demo weights rate their masks lower than published ones do.
DEMO_GRID: dict[str, Any] = {"pred_iou_thresh": 0.5, "stability_score_thresh": 0.8}
CASES = (
    Case("demo weights, 1200 x 900, 16 x 16 points", (900, 1200), DEMO_GRID | {"points_per_side": 16}),
    Case(
        "demo weights, 1200 x 900, 8 x 8 points, 1 layer of crops",
        (900, 1200),
        DEMO_GRID | {"points_per_side": 8, "crops_n_layers": 1},
    ),
    Case("base size, random weights, 1200 x 900, 8 x 8 points", (900, 1200), ALL | {"points_per_side": 8}, True),
    Case("base size, random weights, 1200 x 900, 16 x 16 points", (900, 1200), ALL | {"points_per_side": 16}, True),
    Case("demo weights, 4000 x 3000, 64 x 64 points", (3000, 4000), DEMO_GRID | {"points_per_side": 64}, False, True),
)


def main(argv: list[str] | None = None) -> int:
    """Returns 1 if the masks differ."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.everything", description=__doc__)
    parser.add_argument("--cases", nargs="+", type=int, metavar="N", help="only these, from 0")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/everything.md", help="where to write")
    args = parser.parse_args(argv)
    machine = Machine.this()
    rows: list[tuple[str, ...]] = []
    differ = False
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder) / "base"
        for case in [CASES[number] for number in args.cases or range(len(CASES))]:
            if case.is_base and not base.exists():
                make_base(base)
            weights = base if case.is_base else DEMO
            ours = _run(Child(_ours, weights), case)
            theirs = None if case.is_alone else _run(Child(_theirs, weights), case)
            row, same = _row(case, ours, theirs)
            rows.append(row)
            differ |= not same
            print(" | ".join(row), flush=True)
            _write(args.out, machine, rows)
    return int(differ)


def _write(out: Path, machine: Machine, rows: list[tuple[str, ...]]) -> None:
    lines = [
        "# Everything mode beside transformers' pipeline",
        "",
        *machine.lines(),
        "- `python -m benchmarks.everything`",
        "",
        "One thread, float32; processor time of the first call; memory is the most that the process has had, libraries",
        "and weights included. Masks are compared in their order; the pipeline's last step is this project's own NMS.",
        "",
        table(HEADER, rows),
    ]
    out.write_text("\n".join(lines) + "\n")


def make_base(folder: Path) -> None:
    """A SAM ViT-B whose random weights let image, place and prompt reach the masks."""
    import torch
    from transformers import SamConfig, SamImageProcessorPil, SamModel

    torch.manual_seed(0)
    model = SamModel(SamConfig())
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.Linear | torch.nn.Conv2d | torch.nn.ConvTranspose2d | torch.nn.Embedding):
                module.reset_parameters()
        model.shared_image_embedding.positional_embedding.normal_(0, 1)
        place = model.shared_image_embedding.positional_embedding
        model.prompt_encoder.shared_embedding.positional_embedding.copy_(place)
    model.save_pretrained(folder)
    SamImageProcessorPil().save_pretrained(folder)


def _ours(weights: Path) -> Task:
    import torch

    from models.segmenter.everything import everything
    from models.segmenter.grid import Grid
    from models.segmenter.sam import Sam

    torch.set_num_threads(1)
    segmenter = Sam.load(weights)

    def run(case: Case) -> tuple[float, list[tuple[dict[str, Any], float]]]:
        image, began = _image(case), time.process_time()
        found = everything(segmenter, image, Grid(**case.grid))
        return time.process_time() - began, [(dict(one.rle), one.score) for one in found]

    return run


def _theirs(weights: Path) -> Task:
    import torch
    from PIL import Image
    from transformers import MaskGenerationPipeline, SamImageProcessorPil, SamModel
    from transformers.models.sam import image_processing_pil_sam as of_transformers

    from models.detector.mmcv_ops.suppression import nms
    from models.rle import encode_rle

    def chosen(masks: list[Any], scores: torch.Tensor, boxes: torch.Tensor, threshold: float) -> tuple[Any, ...]:
        kept = nms(boxes.float(), scores, threshold)
        rles = [masks[index] for index in kept.tolist()]
        return [of_transformers._rle_to_mask(rle) for rle in rles], scores[kept], rles, boxes[kept]

    torch.set_num_threads(1)
    processor = SamImageProcessorPil.from_pretrained(weights)
    processor.post_process_for_mask_generation = chosen
    model = SamModel.from_pretrained(weights, dtype=torch.float32).eval()
    pipeline = MaskGenerationPipeline(model=model, image_processor=processor)

    def run(case: Case) -> tuple[float, list[tuple[dict[str, Any], float]]]:
        image = Image.fromarray(_image(case))
        options = dict(case.grid)
        options["points_per_crop"] = options.pop("points_per_side", 32)
        began = time.process_time()
        answer = pipeline(image, **options)
        seconds = time.process_time() - began
        found = zip(answer["masks"], answer["scores"].tolist(), strict=True)
        return seconds, [(dict(encode_rle(mask)), score) for mask, score in found]

    return run


def _image(case: Case) -> np.ndarray:
    from models.demo.scenes import render_scene

    image = render_scene(np.random.default_rng(7), case.size_hw).image
    Path("/proc/self/clear_refs").write_text("5")  # what drawing takes is no side's: the peak starts anew
    return image


def _run(child: Child, case: Case) -> tuple[float, float, list[tuple[dict[str, Any], float]]]:
    """Processor seconds, MB at the most, and the masks."""
    try:
        child.ready()
        seconds, found = child.answer(case)
        return seconds, child.peak_mb(), found
    finally:
        child.close()


def _row(case: Case, ours: Any, theirs: Any) -> tuple[tuple[str, ...], bool]:
    from pycocotools import mask as coco_mask

    if theirs is None:
        return (case.name, "", str(len(ours[2])), "", "", duration(ours[0]), "", "", f"{ours[1]:.0f} MB", ""), True
    pairs = list(zip(ours[2], theirs[2], strict=False))
    ious = [float(coco_mask.iou([a], [b], [0])[0, 0]) for (a, _), (b, _) in pairs if coco_mask.area(b)]
    same = len(ours[2]) == len(theirs[2]) and all(abs(a - b) < 1e-4 for (_, a), (_, b) in pairs)
    row = (
        case.name, str(len(theirs[2])), str(len(ours[2])), f"{min(ious, default=1):.4f}",
        duration(theirs[0]), duration(ours[0]), f"{theirs[0] / ours[0]:.1f}×",
        f"{theirs[1]:.0f} MB", f"{ours[1]:.0f} MB", f"{ours[1] / theirs[1]:.2f}",
    )  # fmt: skip
    return row, same


if __name__ == "__main__":
    raise SystemExit(main())
