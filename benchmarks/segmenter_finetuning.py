"""`python -m benchmarks.segmenter_finetuning`: what a SAM's fine-tuning reaches, what it forgets, how long it takes.

The demo segmenter learns thin, holed and see-through things (`benchmarks.hard_things`) from 20 and from 100 images, and
is measured on others, and on scenes and photos unlike them. Then seconds per step at the size of ViT-B, with random
weights, beside transformers' plain loop, which encodes in every step (`benchmarks.plain_finetuning`).
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.accuracy import DEMO_SEGMENTER
from benchmarks.hard_things import KINDS, MEASURED, TRAINING, draw_dataset, hard_scene
from benchmarks.machine import Machine
from benchmarks.plain_finetuning import Pace, our_pace, plain_pace
from benchmarks.random_models import make_sam
from benchmarks.report import table
from models.data import LabelledImage, load, split
from models.demo.dataset import demo_scene, held_out_numbers, labelled
from models.demo.evaluation import photos
from models.finetuning.segmenter.examples import Example
from models.finetuning.segmenter.learner import Learner
from models.finetuning.segmenter.options import SegmenterOptions
from models.finetuning.segmenter.training import finetune_segmenter
from models.finetuning.segmenter.validation import asked, figures, filled_box_iou, ious
from models.rle import Rle
from models.segmenter.sam import Sam

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared" / "data"
MOST_FORGOTTEN, MOST_MINUTES, LEAST_RATIO = 0.02, 10.0, 10.0
HEADER = ("measured on", "objects", "filled boxes", "boxes: before", "20 images", "100 images", "clicks: before",
          "20 images", "100 images")  # fmt: skip
CPU = torch.device("cpu")
NEW = {"thin": "thin things", "holed": "things with holes", "glass": "see-through things"}


@dataclass(frozen=True)
class Measured:
    """Pictures with objects that no training saw. unlike: whether they are unlike what was trained on."""

    name: str
    pictures: Sequence[np.ndarray]
    examples: Sequence[Example]
    unlike: bool


@dataclass(frozen=True)
class Trained:
    """minutes, processor_minutes: of the whole command. epochs: how many it took."""

    folder: Path
    minutes: float
    processor_minutes: float
    epochs: float


def main(argv: list[str] | None = None) -> int:
    """Returns 1 if something is slower, or more is forgotten, than it should be."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.segmenter_finetuning", description=__doc__)
    parser.add_argument("--scenes", type=int, default=100, help="to measure on, of each kind")
    parser.add_argument("--photos", type=Path, nargs="*", help="annotated photos to measure on (default: those shared)")
    parser.add_argument("--threads", type=int, default=2, help="of torch, while the demo segmenter learns")
    parser.add_argument("--steps", type=int, default=3, help="of ViT-B on each side, after one that is not counted")
    parser.add_argument("--only", choices=["masks", "pace"], help="the demo segmenter's masks, or ViT-B's pace")
    parser.add_argument("--work", type=Path, metavar="DIR", help="folder for what is trained, which stays")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/segmenter-finetuning.md")
    args = parser.parse_args(argv)
    machine = Machine.this()
    lines = ["# Fine-tuning of a segmenter", "", *machine.lines()]
    lines.append(f"- `python -m benchmarks.segmenter_finetuning --threads {args.threads}`, float32")
    failures: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        for part in (masks_part, pace_part) if args.only is None else (PARTS[args.only],):
            told, failed = part(args, args.work or Path(folder))
            lines += ["", *told]
            failures += failed
    args.out.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    for one in failures:
        print(f"FAILED: {one}")
    return bool(failures)


def masks_part(args: argparse.Namespace, work: Path) -> tuple[list[str], list[str]]:
    """What is learnt and what is forgotten: lines, and what is not as it should be."""
    torch.set_num_threads(args.threads)
    found = sorted(SHARED.iterdir()) if args.photos is None and SHARED.is_dir() else args.photos or []
    trained = {count: train(work, count, SegmenterOptions()) for count in (20, 100)}
    sets = measured_sets(args.scenes, [one for one in found if one.is_dir()])
    folders = {"before": DEMO_SEGMENTER, **{str(count): one.folder for count, one in trained.items()}}
    return mask_lines(args.threads, trained, sets, {name: measure(one, sets) for name, one in folders.items()})


def pace_part(args: argparse.Namespace, work: Path) -> tuple[list[str], list[str]]:
    """Seconds of a step at the size of ViT-B."""
    torch.set_num_threads(1)
    make_sam(work / "base", "base")
    theirs, ours = plain_pace(work / "base", args.steps), our_pace(work / "base", args.steps)
    ratio = theirs.step_s / max(ours.step_s, ours.head_step_s)
    slow = [f"a step is {ratio:.1f} times as fast as the plain loop's"] if ratio < LEAST_RATIO else []
    return pace_lines(theirs, ours, args.steps), slow


PARTS = {"masks": masks_part, "pace": pace_part}


def train(work: Path, count: int, options: SegmenterOptions) -> Trained:
    """As `box2mask finetune` does it: every fifth of `count` drawn images validates."""
    draw_dataset(work / f"data{count}", TRAINING, count)
    training, validation = split(load(work / f"data{count}"), every=5)
    out = work / f"sam{count}"
    clock, processor = time.monotonic(), time.process_time()
    finetune_segmenter(training, validation, DEMO_SEGMENTER, out, options, device=CPU, dtype=torch.float32)
    history = torch.load(out / "training" / "checkpoints" / "latest.pth", weights_only=True)["history"]
    spent = ((time.monotonic() - clock) / 60, (time.process_time() - processor) / 60)
    return Trained(out, *spent, history["epochs"][-1]["epoch"])


def measured_sets(scenes: int, folders: Sequence[Path]) -> list[Measured]:
    hard = [hard_scene(number) for number in range(MEASURED, MEASURED + scenes)]
    usual = [demo_scene(number) for number in held_out_numbers(scenes)]
    of_hard = [labelled(Path("scene"), one, names=KINDS) for one in hard]
    sets = [
        of_images(f"new: {what}", [one.image for one in hard], [only(one, kind) for one in of_hard], unlike=False)
        for kind, what in NEW.items()
    ]
    of_usual = [labelled(Path("scene"), one, "clutter") for one in usual]
    sets.append(of_images("old: the demo's scenes", [one.image for one in usual], of_usual, unlike=True))
    for folder in folders:
        shot = photos(folder)
        pictures = [shot.pixels(index) for index in range(len(shot.dataset))]
        sets.append(of_images(f"photos: {folder.name}", pictures, shot.dataset.images, unlike=True))
    return sets


def only(image: LabelledImage, kind: str) -> LabelledImage:
    """The image with its objects of one class."""
    return replace(image, annotations=tuple(one for one in image.annotations if one.label == kind))


def of_images(name: str, pictures: Sequence[np.ndarray], images: Sequence[LabelledImage], *, unlike: bool) -> Measured:
    kept, examples = [], []
    for picture, image in zip(pictures, images, strict=True):
        rles = [one.to_rle(image.size_hw) for one in image.annotations]
        if rles:
            whole = tuple(Rle(size=one["size"], counts=one["counts"]) for one in rles if one is not None)
            kept.append(picture)
            examples.append(Example(image, whole, image.boxes_xyxy))
    return Measured(name, kept, examples, unlike)


def measure(folder: Path, sets: Sequence[Measured]) -> list[dict[str, float]]:
    """For each set what `models.finetuning.segmenter.validation.figures` says of the SAM in a folder."""
    segmenter = Sam.load(folder)
    learner = Learner(Sam.network(folder, folder), Sam).requires_grad_(False)
    told = []
    for one in sets:
        found = []
        for picture, example in zip(one.pictures, one.examples, strict=True):
            (embedding,) = segmenter.embed([segmenter.preprocess(picture)])
            found.append(ious(learner, embedding, asked(example)))
        told.append(figures(found))
    return told


def mask_lines(
    threads: int,
    trained: dict[int, Trained],
    sets: Sequence[Measured],
    results: dict[str, list[dict[str, float]]],
) -> tuple[list[str], list[str]]:
    rows, failures = [], []
    for index, one in enumerate(sets):
        told = {name: found[index] for name, found in results.items()}
        objects = sum(len(example.rles) for example in one.examples)
        cells = [one.name, str(objects), f"{filled_box_iou(one.examples):.3f}"]
        for key in ("box_iou", "click_iou"):
            cells += [f"{told[name][key]:.3f}" for name in ("before", "20", "100")]
        rows.append(tuple(cells))
        for count in ("20", "100"):
            lost = told["before"]["box_iou"] - told[count]["box_iou"]
            if one.unlike and lost >= MOST_FORGOTTEN:
                failures.append(f"{one.name}: {lost:.3f} of the IoU by boxes is lost after {count} images")
    fresh = [index for index, one in enumerate(sets) if not one.unlike]
    for count in ("20", "100"):
        gains = [results[count][index]["box_iou"] - results["before"][index]["box_iou"] for index in fresh]
        if np.mean(gains) <= 0:
            failures.append(f"nothing is learnt from {count} images")
    lines = [
        "Mean IoU of single masks with the drawn or annotated ones, by the object's box and by a click in its middle,",
        "in the size of the image, before and after a training on 20 and on 100 images with thin, holed and",
        "see-through things (500 steps at most, every fifth image validates).",
        "Nothing measured on was trained on.",
        "",
        table(HEADER, rows),
        "",
        "| training on | epochs | minutes | of the processor |",
        "|---|---|---|---|",
        *(
            f"| {count} images | {one.epochs:g} | {one.minutes:.1f} | {one.processor_minutes:.1f} |"
            for count, one in trained.items()
        ),
        "",
        f"Minutes are those of the whole command, with {threads} threads, encoding included.",
    ]
    if trained[100].minutes >= MOST_MINUTES:
        failures.append(f"100 images took {trained[100].minutes:.1f} minutes")
    return lines, failures


def pace_lines(theirs: Pace, ours: Pace, steps: int) -> list[str]:
    def whole(count: int, epochs: int, views: int) -> tuple[float, float]:
        """Hours of a whole training by the plain loop, and by ours with its encoding."""
        made = count * epochs / theirs.images
        return made * theirs.step_s / 3600, (count * views * ours.encode_s + made * ours.head_step_s) / 3600

    options = SegmenterOptions()
    epochs, views = 25, options.views_per_image  # 500 steps of 4 images
    plain, own = whole(80, epochs, views)
    return [
        "## A step at the size of ViT-B",
        "",
        f"Random weights, float32, one thread, {theirs.images} images with a box each in a step: transformers'",
        "`SamModel` and `SamProcessor`, encoder and prompt encoder frozen, the image encoded in every step; and the",
        "same by this project's step on embeddings that are kept.",
        f"Medians of {steps} steps, seconds of the processor.",
        "",
        "| | seconds per step | seconds to encode an image |",
        "|---|---|---|",
        f"| transformers' plain loop | {theirs.step_s:.2f} | {theirs.encode_s:.2f} |",
        f"| here, the whole decoder, the same prompts | {ours.step_s:.2f} | {ours.encode_s:.2f} |",
        f"| here, the decoder after its layers, as by default | {ours.head_step_s:.2f} | |",
        f"| here, also a click, its mask fed back and old answers, all in one step | {ours.full_step_s:.2f} | |",
        "",
        f"A step is {theirs.step_s / ours.step_s:.0f} and {theirs.step_s / ours.head_step_s:.0f} times as fast.",
        f"{epochs} epochs of 80 images would take the plain loop {plain:.1f} hours; here, with {views} views of",
        f"each image encoded once, {own:.1f} hours.",
    ]


if __name__ == "__main__":
    raise SystemExit(main())
