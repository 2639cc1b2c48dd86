"""`python -m benchmarks.sam2_speed`: SAM 2.1's image encoder and the first click, here and by transformers.

Full published sizes, random weights, one thread; transformers computes in float32. Either side is a process of its own,
and they run in turns. Times are those of the processor (user and system), so that what else the machine does is not in
them, and of the clock. Both begin with an image's normalised pixels and end with a mask in the image's size.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.child import Child, Task
from benchmarks.machine import Machine
from benchmarks.random_models import SAM2_SIZES, make_sam2
from benchmarks.report import table

ROOT = Path(__file__).parents[1]
SIZE_HW = (768, 1024)
POINT_XY = (400.0, 300.0)
# Of the mask, what is to be as in transformers' float32.
SAME_PIXELS = {"float32": 0.999, "bfloat16": 0.97}
HEADER = (
    "model", "what", "processor: theirs, ours", "theirs / ours, median", "lowest, highest", "clock: theirs, ours",
    "masks that agree",
)  # fmt: skip


@dataclass(frozen=True)
class Turn:
    """(processor seconds, clock seconds) of the encoder alone and up to the first mask; that mask (H, W) bool."""

    encode_s: tuple[float, float]
    click_s: tuple[float, float]
    mask: np.ndarray


def main(argv: list[str] | None = None) -> int:
    """Returns 1 if the masks differ."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sam2_speed", description=__doc__)
    parser.add_argument("--sizes", nargs="+", choices=list(SAM2_SIZES), default=["tiny", "small"])
    parser.add_argument("--dtype", choices=list(SAME_PIXELS), default="float32", help="the numbers of ours")
    parser.add_argument("--turns", type=int, default=3, help="after one that is not counted")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/sam2.md", help="where to write")
    args = parser.parse_args(argv)
    machine = Machine.this()
    rows: list[tuple[str, ...]] = []
    differ = False
    for size in args.sizes:
        with tempfile.TemporaryDirectory() as folder:
            make_sam2(Path(folder) / size, size)
            turns = _turns(Path(folder) / size, args.turns, args.dtype)
        same = min(float((theirs.mask == ours.mask).mean()) for theirs, ours in turns)
        differ |= same < SAME_PIXELS[args.dtype]
        rows += [
            _row(size, "encode", [(theirs.encode_s, ours.encode_s) for theirs, ours in turns], ""),
            _row(size, "first click", [(theirs.click_s, ours.click_s) for theirs, ours in turns], f"{same:.2%}"),
        ]
        print(*(" | ".join(row) for row in rows[-2:]), sep="\n", flush=True)
        _write(args.out, machine, args.turns, args.dtype, rows)
    return int(differ)


def _turns(weights: Path, count: int, dtype: str) -> list[tuple[Turn, Turn]]:
    """Theirs and ours, one after the other, after a first turn of each that is not counted."""
    children = [Child(_theirs, weights), Child(_ours, weights, dtype)]
    try:
        for child in children:
            child.ready()
        turns = []
        for _ in range(count + 1):
            theirs, ours = (child.answer() for child in children)
            turns.append((theirs, ours))
        return turns[1:]
    finally:
        for child in children:
            child.close()


def _row(
    size: str, what: str, pairs: list[tuple[tuple[float, float], tuple[float, float]]], same: str
) -> tuple[str, ...]:
    processor, clock = ([(theirs[i], ours[i]) for theirs, ours in pairs] for i in (0, 1))
    ratios = [theirs / ours for theirs, ours in processor]
    medians = [
        ", ".join(f"{statistics.median(side):.2f} s" for side in zip(*times, strict=True))
        for times in (processor, clock)
    ]
    spread = f"{min(ratios):.2f}, {max(ratios):.2f}"
    return f"SAM 2.1 {size}", what, medians[0], f"{statistics.median(ratios):.2f}", spread, medians[1], same


def _write(out: Path, machine: Machine, turns: int, dtype: str, rows: list[tuple[str, ...]]) -> None:
    lines = [
        "# SAM 2.1's image encoder beside transformers'",
        "",
        *machine.lines(),
        f"- `python -m benchmarks.sam2_speed --dtype {dtype}`",
        "",
        f"Full published sizes, random weights, one thread, theirs in float32 and ours in {dtype}. {turns} turns of",
        "each side, one after the other, after one that is not counted. Processor time is user and system time, and",
        "the ratios are of it; the clock also shows what else the machine did. First click: encode, decode one point,",
        "and its mask in the image's size",
        "(1024 x 768).",
        "",
        table(HEADER, rows),
    ]
    out.write_text("\n".join(lines) + "\n")


def _now() -> tuple[float, float]:
    return time.process_time(), time.perf_counter()


def _since(began: tuple[float, float]) -> tuple[float, float]:
    processor, clock = _now()
    return processor - began[0], clock - began[1]


def _image() -> np.ndarray:
    from models.demo.scenes import render_scene

    return render_scene(np.random.default_rng(7), SIZE_HW).image


def _ours(weights: Path, dtype: str) -> Task:
    import torch

    from models.devices import flush_denormals
    from models.segmenter.sam2 import Sam2
    from models.types import Prompts

    torch.set_num_threads(1)
    flush_denormals()
    segmenter = Sam2.load(weights, dtype=getattr(torch, dtype))
    sample = segmenter.preprocess(_image())
    prompt = Prompts(np.array([[POINT_XY]]))

    def run(_: None) -> Turn:
        began = _now()
        (embedding,) = segmenter.embed([sample])
        encoded = _since(began)
        mask = segmenter.postprocess(segmenter.decode(embedding, prompt, multimask=False), 0)[0]
        return Turn(encoded, _since(began), mask)

    return run


def _theirs(weights: Path) -> Task:
    import torch
    import torch.nn.functional as F
    from transformers import Sam2Model

    from models.segmenter.sam2 import Sam2

    torch.set_num_threads(1)
    model = Sam2Model.from_pretrained(weights, dtype=torch.float32).eval()
    preparing = Sam2.load(weights, fast=False)  # transformers' own preprocessing needs torchvision
    pixels = preparing.pixels([preparing.preprocess(_image())])
    del preparing
    side = model.prompt_encoder.input_image_size
    point = torch.tensor(POINT_XY) * torch.tensor([side / SIZE_HW[1], side / SIZE_HW[0]])

    @torch.inference_mode()
    def run(_: None) -> Turn:
        began = _now()
        embeddings = model.get_image_embeddings(pixels)
        encoded = _since(began)
        found = model(image_embeddings=embeddings, input_points=point.view(1, 1, 1, 2), multimask_output=False)
        mask = F.interpolate(found.pred_masks[0], SIZE_HW, mode="bilinear", align_corners=False)[0, 0] > 0
        return Turn(encoded, _since(began), mask.numpy())

    return run


if __name__ == "__main__":
    raise SystemExit(main())
