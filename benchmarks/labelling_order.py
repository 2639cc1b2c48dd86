"""What is labelled first: detector and masks against the number of corrected photos, by uncertainty and at random.

`python -m benchmarks.labelling_order` writes benchmarks/results/labelling-order.md and .png. The drawn truth plays the
person who corrects. The photos are demo scenes: most of a kind that the demo detector knows, some blurred or dark.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image

from benchmarks.accuracy import DEMO_DETECTOR, DEMO_SEGMENTER
from benchmarks.machine import Machine
from models import evaluation, uncertainty
from models.data import Dataset, LabelledImage
from models.demo.dataset import labelled
from models.demo.evaluation import SURE
from models.demo.scenes import render_scene
from models.demo.things import CLASS_NAMES
from models.detector import mmcv_ops
from models.detector.mmdetection import MMDetector, RawDetections
from models.detector.protocol import Sample
from models.evaluation import Predicted
from models.rle import encode_rle
from models.segmenter.sam import Sam
from models.types import Detections, Embedding, Prompts
from models.uncertainty import Doubts

RESULT = Path(__file__).parent / "results" / "labelling-order.md"
SIDE = 256
BATCH, LEARNING_RATE = 4, 5e-4
# The orders that are compared; the first is the service's.
COLOURS = {"uncertainty": "tab:orange", "uncertainty, summed": "tab:green", "random": "tab:blue"}
# Scenes of these numbers on are neither those of `box2mask data demo` nor those that the demo weights are measured on.
FIRST_NUMBER = 20_000_000
TEST_NUMBER = 30_000_000
Detect = Callable[["Photo"], Detections]
Join = Callable[[Sequence[Doubts]], float]


@dataclass(frozen=True, eq=False)
class Photo:
    """A drawn photo, in a file, with its truth. hard: of the kind that the detector does badly."""

    labelled: LabelledImage
    pixels: np.ndarray
    hard: bool


@dataclass(frozen=True, eq=False)
class Answer:
    """What the models say of a photo: every box with its score, and of the sure ones the mask and the doubts."""

    boxes: list[Predicted]
    sure: list[Predicted]
    doubts: list[Doubts]


def draw(folder: Path, first: int, count: int, hard_share: float) -> list[Photo]:
    """Photos in PNG files; as if a camera were out of focus, or the light off, in a share of them."""
    folder.mkdir(parents=True)
    photos = []
    for number in range(first, first + count):
        rng = np.random.default_rng(number)
        scene = render_scene(rng, (SIDE, SIDE), clutter=(0, 3))
        hard = bool(rng.random() < hard_share)
        pixels = spoilt(scene.image, rng) if hard else scene.image
        path = folder / f"{number}.png"
        Image.fromarray(pixels).save(path)
        photos.append(Photo(labelled(path, scene), pixels, hard))
    return photos


def spoilt(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(H, W, 3) uint8, blurred or dark by turns."""
    if rng.random() < 0.5:
        return np.asarray(cv2.GaussianBlur(image, (0, 0), 3))
    dark = 255 * (image / 255.0) ** 1.3 * np.array([0.16, 0.20, 0.34])
    return np.clip(dark + rng.normal(0, 5, image.shape), 0, 255).astype(np.uint8)


def answers(
    detect: Detect, segmenter: Sam, photos: Sequence[Photo], known: dict[Path, Embedding] | None = None
) -> list[Answer]:
    """As `box2mask run --order uncertainty` asks the models.

    known: embeddings by the photo's file, kept from one detector to the next; without doubts then.
    """
    found = []
    for photo in photos:
        ours = detect(photo)
        boxes = [
            Predicted(CLASS_NAMES[label], float(score), tuple(box))
            for box, label, score in zip(ours.boxes_xyxy.tolist(), ours.labels, ours.scores, strict=True)
        ]
        sure, doubts = [one for one in boxes if (one.score or 0) >= SURE], []
        if sure:
            embedding = None if known is None else known.get(Path(photo.labelled.path))
            if embedding is None:
                (embedding,) = segmenter.embed([segmenter.preprocess(photo.pixels)])
            if known is not None:
                known[Path(photo.labelled.path)] = embedding
            prompts = Prompts(boxes_xyxy=np.array([one.box_xyxy for one in sure], np.float32))
            single = segmenter.decode(embedding, prompts, multimask=False)
            several = segmenter.decode(embedding, prompts, multimask=True) if known is None else None
            for index, one in enumerate(sure):
                mask = encode_rle(segmenter.postprocess(single, index)[0])
                sure[index] = Predicted(one.label, one.score, one.box_xyxy, mask)
                if several is not None:
                    three = [encode_rle(np.ascontiguousarray(each)) for each in segmenter.postprocess(several, index)]
                    agreement = uncertainty.mask_agreement(three)
                    doubts.append(uncertainty.of_object(one.score, one.box_xyxy, mask, agreement))
        found.append(Answer(boxes, sure, doubts))
    return found


def figures(photos: Sequence[Photo], found: Sequence[Answer]) -> tuple[float, float]:
    """COCO's mAP of the boxes, and the mean IoU of all objects' masks by the detector's boxes, 0 where it is missed."""
    dataset = Dataset(tuple(CLASS_NAMES), tuple(photo.labelled for photo in photos))
    boxes = evaluation.box_figures(dataset, [one.boxes for one in found], SURE)["coco"]["mAP"]
    scored = evaluation.score_detected(dataset, evaluation.truth_masks(dataset), [one.sure for one in found], SURE)
    masks = evaluation.mask_figures(scored, dataset.class_names)["average_iou_all_objects"]
    return float(boxes), float(masks)


def lacking(photos: Sequence[Photo], found: Sequence[Answer]) -> np.ndarray:
    """For each photo what a person has to do: 1 - IoU of each true object's mask, and 1 for each wrong detection."""
    work = []
    for photo, answer in zip(photos, found, strict=True):
        dataset = Dataset(tuple(CLASS_NAMES), (photo.labelled,))
        scored = evaluation.score_detected(dataset, evaluation.truth_masks(dataset), [answer.sure], SURE)
        right = [one.scores.iou for one in scored if one.scores is not None]
        work.append(len(scored) - sum(right) + len(answer.sure) - len(right))
    return np.array(work)


def joins() -> dict[str, Join]:
    """The rules that were tried: doubts of a photo's objects -> its place in the order."""
    terms: dict[str, Callable[[Doubts], float]] = {
        "score": lambda one: one.score or 0,
        "masks": lambda one: one.masks or 0,
        "box": lambda one: one.box or 0,
        "all, mean": lambda one: ((one.score or 0) + (one.masks or 0) + (one.box or 0)) / 3,
        "all, joined": lambda one: one.joined(),
    }
    found: dict[str, Join] = {"objects found": lambda doubts: float(len(doubts))}
    for name, term in terms.items():
        found |= {f"{name}; {how}": rule for how, rule in _of_objects(term).items()}
    found["the service's"] = uncertainty.of_photo
    return found


def _of_objects(term: Callable[[Doubts], float]) -> dict[str, Join]:
    return {
        "largest": lambda doubts: max(map(term, doubts), default=uncertainty.NOTHING_FOUND),
        "mean": lambda doubts: float(np.mean([*map(term, doubts)])) if doubts else uncertainty.NOTHING_FOUND,
        "sum": lambda doubts: sum(map(term, doubts)) if doubts else uncertainty.NOTHING_FOUND,
    }


def rank_correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Spearman's, with middle ranks of equal values."""

    def ranks(values: np.ndarray) -> np.ndarray:
        _, place, count = np.unique(values, return_inverse=True, return_counts=True)
        return (np.cumsum(count) - (count - 1) / 2)[place]

    return float(np.corrcoef(ranks(first), ranks(second))[0, 1])


@dataclass(frozen=True)
class Setting:
    """pool, test: photos to label, and to measure on. budgets: how many photos are corrected. steps: of each training.
    hard_share: of the photos of the hard kind."""

    pool: int
    test: int
    budgets: tuple[int, ...]
    steps: int
    hard_share: float


@dataclass(frozen=True, eq=False)
class Foretold:
    """A pool's photos: what a person has to do in each, which are hard, and the doubts that should have told."""

    work: np.ndarray
    hard: np.ndarray
    doubts: list[list[Doubts]]


@dataclass(frozen=True)
class Point:
    """The figures after a training on so many corrected photos, how many of these were hard, and the things in them."""

    seed: int
    order: str
    corrected: int
    hard: int
    things: int
    box_map: float
    mask_iou: float


class Student:
    """The demo detector, of which neck and head learn and the backbone does not, so that its features are kept.

    A fine-tuning of the whole detector would take an hour of these cores for each point of the figure.
    """

    def __init__(self) -> None:
        self.detector = MMDetector.load(DEMO_DETECTOR, fast=False)
        self._model = self.detector._model
        self._start = copy.deepcopy(self._model.state_dict())
        self._known: dict[Path, tuple[Sample, Any]] = {}

    def train(self, photos: Sequence[Photo], steps: int, seed: int) -> None:
        """Begin anew with the demo's weights, and train on the truth of these photos."""
        from mmdet.structures import DetDataSample
        from mmengine.structures import InstanceData

        self._model.load_state_dict(self._start)
        rng, head = np.random.default_rng(seed), self._model.bbox_head
        learning = [one for part in (self._model.neck, head) for one in part.parameters()]
        for one in learning:
            one.requires_grad_(True)
        optimizer = torch.optim.AdamW(learning, lr=LEARNING_RATE, weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        for _ in range(steps):
            chosen = [photos[place] for place in rng.integers(len(photos), size=BATCH)]
            features, samples = [], []
            for photo in chosen:
                sample, feature = self._features(photo)
                features.append(feature)
                truth = photo.labelled.annotations
                scale = np.array(sample.metainfo["scale_factor"] * 2)
                boxes = torch.tensor(np.array([one.box_xyxy for one in truth]).reshape(-1, 4) * scale).float()
                labels = torch.tensor([CLASS_NAMES.index(one.label) for one in truth], dtype=torch.long)
                padded = tuple(sample.inputs.shape[1:])
                shape = {"pad_shape": padded, "batch_input_shape": padded}
                samples.append(DetDataSample(metainfo=sample.metainfo | shape))
                samples[-1].gt_instances = InstanceData(bboxes=boxes, labels=labels)
            with mmcv_ops.using(fast=False):
                losses = head.loss(self._model.neck((torch.cat(features),)), samples)
            optimizer.zero_grad()
            sum(losses.values()).backward()
            torch.nn.utils.clip_grad_norm_(learning, 10)
            optimizer.step()
            schedule.step()

    @torch.inference_mode()
    def detect(self, photo: Photo) -> Detections:
        """As MMDetector.detect, from the kept features."""
        sample, feature = self._features(photo)
        with mmcv_ops.using(fast=False):
            outputs = self._model.bbox_head(self._model.neck((feature,)))
        return self.detector.postprocess(RawDetections(sample, head=tuple(outputs)))

    def _features(self, photo: Photo) -> tuple[Sample, Any]:
        key = Path(photo.labelled.path)
        if key not in self._known:
            sample = self.detector.preprocess(photo.pixels)
            with torch.no_grad():
                pixels = self._model.data_preprocessor({"inputs": [sample.inputs], "data_samples": None}, False)
                self._known[key] = sample, self._model.backbone(pixels["inputs"])[-1]
        return self._known[key]


def points(
    student: Student,
    segmenter: Sam,
    seed: int,
    setting: Setting,
    scratch: Path,
    test: Sequence[Photo],
    known: dict[Path, Embedding],
) -> tuple[list[Point], Foretold]:
    """The orders of one pool, and what each budget of each brings. known: embeddings of the test photos."""
    pool = draw(scratch, FIRST_NUMBER + seed * 10_000, setting.pool, setting.hard_share)
    student.train(pool, 0, seed)  # the demo's weights
    found = answers(student.detect, segmenter, pool)
    values = np.array([uncertainty.of_photo(one.doubts) for one in found])
    summed = np.array([sum(each.joined() for each in one.doubts) for one in found])
    orders = {
        "uncertainty": np.argsort(-values, kind="stable"),
        "uncertainty, summed": np.argsort(-summed, kind="stable"),
        "random": np.random.default_rng(seed).permutation(setting.pool),
    }
    before = figures(test, answers(student.detect, segmenter, test, known))
    measured = []
    for name, order in orders.items():
        measured.append(Point(seed, name, 0, 0, 0, *before))
        for budget in setting.budgets:
            chosen = [pool[place] for place in order[:budget]]
            student.train(chosen, setting.steps, seed)
            now = figures(test, answers(student.detect, segmenter, test, known))
            hard, things = sum(one.hard for one in chosen), sum(len(one.labelled.annotations) for one in chosen)
            measured.append(Point(seed, name, budget, hard, things, *now))
            print(measured[-1], flush=True)
    foretold = Foretold(lacking(pool, found), np.array([one.hard for one in pool]), [one.doubts for one in found])
    return measured, foretold


def plot(measured: Sequence[Point], path: Path) -> None:
    """Means over the seeds, with the standard error of each."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    fields = {"box_map": "detector: COCO mAP", "mask_iou": "masks: mean IoU of all objects"}
    for axes, (field, title) in zip(figure.subplots(1, 2), fields.items(), strict=True):
        for name, colour in COLOURS.items():
            budgets, values = table(measured, name, field)
            spread = values.std(axis=1, ddof=1) / values.shape[1] ** 0.5 if values.shape[1] > 1 else None
            axes.errorbar(budgets, values.mean(axis=1), spread, label=name, color=colour, marker="o", capsize=3)
        axes.set(xlabel="corrected photos", title=title)
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=110)


def table(measured: Sequence[Point], name: str, field: str) -> tuple[list[int], np.ndarray]:
    """Budgets, and (budgets, seeds) values of one order."""
    mine = [one for one in measured if one.order == name]
    budgets = sorted({one.corrected for one in mine})
    seeds = sorted({one.seed for one in mine})
    value = {(one.corrected, one.seed): float(getattr(one, field)) for one in mine}
    return budgets, np.array([[value[budget, seed] for seed in seeds] for budget in budgets])


def figures_of_rules(pools: Sequence[Foretold]) -> list[str]:
    """How well each rule foretells what a person has to do, over all photos of the pools."""
    work, hard = (np.concatenate([getattr(one, field) for one in pools]) for field in ("work", "hard"))
    first, rows = len(work) // 5, []
    for name, join in joins().items():
        values = np.array([join(doubts) for one in pools for doubts in one.doubts])
        top = np.argsort(-values, kind="stable")[:first]
        rows.append((rank_correlation(values, work), name, work[top].sum() / work.sum(), hard[top].mean()))
    rows.sort(reverse=True)
    chance = f"| at random | 0 | {first / len(work):.2f} | {hard.mean():.2f} |"
    return [f"| {name} | {rank:.2f} | {share:.2f} | {kind:.2f} |" for rank, name, share, kind in rows] + [chance]


def report(
    measured: Sequence[Point], setting: Setting, rules: Sequence[str], picture: str, seconds: float
) -> list[str]:
    seeds = len({one.seed for one in measured})
    budgets, _ = table(measured, "random", "box_map")
    lines = [
        "# What to label first: by uncertainty and at random",
        "",
        *Machine.this().lines(),
        f"- `python -m benchmarks.labelling_order`: {seeds} seeds, {setting.pool} photos to label in each, of which",
        f"  about {setting.hard_share:.0%} are blurred or dark; {setting.test} photos of that mixture to measure on;",
        f"  {setting.steps} steps of {BATCH} photos for the demo detector's neck and head, its backbone kept as it is;",
        f"  the demo SAM, not trained; {seconds / 60:.0f} minutes",
        "",
        "The drawn truth plays the person. Mean over the seeds, and its standard error. Mask IoU is of all true things",
        "by the detector's boxes, with 0 for those that it misses.",
        "",
        f"![Figures against the number of corrected photos]({picture})",
        "",
        "| corrected | order | of them blurred or dark | things in them | detector mAP | mask IoU |",
        "|---|---|---|---|---|---|",
    ]

    def shown(name: str, field: str, place: int) -> str:
        values = table(measured, name, field)[1][place]
        error = f" ± {values.std(ddof=1) / len(values) ** 0.5:.3f}" if len(values) > 1 else ""
        return f"{values.mean():.3f}{error}"

    for place, budget in enumerate(budgets):
        for name in COLOURS if budget else ("random",):
            hard, things = (table(measured, name, field)[1][place].mean() for field in ("hard", "things"))
            lines.append(
                f"| {budget} | {name if budget else '-'} | {hard:.1f} | {things:.0f} | {shown(name, 'box_map', place)} "
                f"| {shown(name, 'mask_iou', place)} |"
            )
    lines += ["", "Minus random order, of the same seed:", ""]
    lines += ["| corrected | order | detector mAP | mask IoU |", "|---|---|---|---|"]
    for place, budget in enumerate(budgets):
        for name in [*COLOURS][:-1] if budget else ():
            differences = [
                table(measured, name, field)[1][place] - table(measured, "random", field)[1][place]
                for field in ("box_map", "mask_iou")
            ]
            cells = (f"{one.mean():+.3f} ({(one > 0).sum()} of {len(one)} seeds)" for one in differences)
            lines.append(f"| {budget} | {name} | {' | '.join(cells)} |")
    lines += [
        "",
        "## The rules that were tried",
        "",
        "On the photos to label: Spearman's rank correlation with what a person has to do on a photo (1 - IoU of each",
        "true object's mask, and 1 for each wrong detection); of the fifth that each rule puts first, its share of all",
        "such work, and the part of it that is blurred or dark.",
        "",
        "| rule | rank correlation | work in the first fifth | blurred or dark in it |",
        "|---|---|---|---|",
        *rules,
    ]
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5, help="how many pools of photos")
    parser.add_argument("--pool", type=int, default=48, help="photos to label, in each pool")
    parser.add_argument("--test", type=int, default=32, help="photos to measure on")
    parser.add_argument("--budgets", type=int, nargs="+", default=[12, 24], help="how many photos are corrected")
    parser.add_argument("--steps", type=int, default=25, help="of each training")
    parser.add_argument("--hard-share", type=float, default=0.25, help="the share of photos that are blurred or dark")
    parser.add_argument("--out", type=Path, default=RESULT, help="file to write")
    args = parser.parse_args()
    torch.set_num_threads(1)
    setting = Setting(args.pool, args.test, tuple(args.budgets), args.steps, args.hard_share)
    began = time.monotonic()
    student, segmenter = Student(), Sam.load(DEMO_SEGMENTER)
    measured: list[Point] = []
    pools: list[Foretold] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        test = draw(folder / "test", TEST_NUMBER, setting.test, setting.hard_share)
        known: dict[Path, Embedding] = {}
        for seed in range(args.seeds):  # what is done is written, whatever becomes of the rest
            more, foretold = points(student, segmenter, seed, setting, folder / str(seed), test, known)
            measured += more
            pools.append(foretold)
            picture = args.out.with_suffix(".png")
            plot(measured, picture)
            lines = report(measured, setting, figures_of_rules(pools), picture.name, time.monotonic() - began)
            args.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
