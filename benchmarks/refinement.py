"""Clicks on drawn scenes, with and without the last mask's logits fed back, and how a binary mask does as a prompt.

`python -m benchmarks.refinement` writes benchmarks/results/refinement.md: the demo weights, one object of each scene.
Every click is where the mask is most wrong: in the middle of the largest part that is missing, or should not be there.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

from benchmarks.accuracy import DEMO_SEGMENTER
from benchmarks.machine import Machine
from models.demo.dataset import demo_scene, held_out_numbers
from models.evaluation.masks import middle_point
from models.segmenter.mask_prompts import covered_cells
from models.segmenter.protocol import RawMasks
from models.segmenter.sam import Sam
from models.types import Embedding, Prompts

CLICKS = (1, 2, 3, 5)
RESULT = Path(__file__).parent / "results" / "refinement.md"
Rule = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Scene:
    """A scene's embedding, and the truth (H, W) bool of one thing in it."""

    embedding: Embedding
    truth: np.ndarray


def scenes(segmenter: Sam, count: int) -> list[Scene]:
    """One thing of each scene, by turns a large and a small one; no demo weights were trained on these."""
    found = []
    for number in held_out_numbers(count):
        scene = demo_scene(number, 480)
        (embedding,) = segmenter.embed([segmenter.preprocess(scene.image)])
        masks = sorted(np.asarray(scene.masks, bool), key=lambda mask: int(mask.sum()))
        found.append(Scene(embedding, masks[number % len(masks)]))
    return found


def iou(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / max(1, (one | other).sum()))


def next_click(mask: np.ndarray, truth: np.ndarray) -> tuple[tuple[float, float], int]:
    """The place (x, y) of a click on what the mask has wrong, and its label; on the thing where nothing is."""
    worst, size = truth, 0
    for wrong in (truth & ~mask, mask & ~truth):
        count, labels, stats, _ = cv2.connectedComponentsWithStats(wrong.astype(np.uint8), connectivity=8)
        if count > 1 and (largest := int(stats[1:, cv2.CC_STAT_AREA].max())) > size:
            worst, size = labels == 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax()), largest
    x, y = middle_point(worst)
    return (x, y), int(truth[int(y), int(x)])


def decoded(segmenter: Sam, scene: Scene, prompts: Prompts) -> tuple[np.ndarray, RawMasks]:
    raw = segmenter.decode(scene.embedding, prompts, multimask=False)
    return segmenter.postprocess(raw, 0)[0], raw


def refined(segmenter: Sam, scene: Scene, *, feed_back: bool) -> list[float]:
    """IoU after each click, up to the last of CLICKS."""
    mask, logits, clicks, labels, ious = np.zeros_like(scene.truth), None, [], [], []
    for _ in range(CLICKS[-1]):
        place, label = next_click(mask, scene.truth)
        clicks.append(place)
        labels.append(label)
        prompts = Prompts(np.array([clicks]), np.array([labels]), None, None if logits is None else (logits,))
        mask, raw = decoded(segmenter, scene, prompts)
        if feed_back:
            logits = raw.logits[0, 0].numpy().astype(np.float16)  # as it travels
        ious.append(iou(mask, scene.truth))
    return ious


def rules(segmenter: Sam, embedding: Embedding) -> dict[str, Rule]:
    """By which a binary mask becomes logits; the last is the service's."""
    square, side = segmenter.image_size, segmenter.mask_side

    def inside(mask: np.ndarray) -> np.ndarray:
        return covered_cells(mask, square, embedding.resized_hw, side).astype(np.float32)

    def scaled(most: float) -> Rule:
        return lambda mask: (most * (2 * inside(mask) - 1)).astype(np.float16)

    def blurred(most: float, sigma: float) -> Rule:
        return lambda mask: (most * (2 * cv2.GaussianBlur(inside(mask), (0, 0), sigma) - 1)).astype(np.float16)

    def distance(slope: float, most: float) -> Rule:
        def rule(mask: np.ndarray) -> np.ndarray:
            cells = inside(mask).astype(np.uint8)
            within, without = (cv2.distanceTransform(one, cv2.DIST_L2, 5) for one in (cells, 1 - cells))
            return (slope * (within - without)).clip(-most, most).astype(np.float16)

        return rule

    return {
        "0 and 1": lambda mask: inside(mask).astype(np.float16),
        **{f"-{most} and {most}": scaled(most) for most in (1, 4, 10, 20)},
        **{f"{most}, blurred by {sigma} cells": blurred(most, sigma) for sigma in (1, 3) for most in (4, 10, 20)},
        **{
            f"{slope} for a cell of distance, to {most}": distance(slope, most)
            for slope in (0.5, 2)
            for most in (4, 10)
        },
        "the service's: 10, blurred by 1 cell, sign kept": segmenter.logits_of_mask,
    }


def rough(truth: np.ndarray, number: int) -> np.ndarray:
    """A mask as people and other models give them: grown or shrunk by some pixels, and moved a little."""
    rng = np.random.default_rng(number)
    size = 1 + 2 * int(rng.integers(2, 6))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
    changed = (cv2.dilate, cv2.erode)[number % 2](truth.astype(np.uint8), kernel)
    return np.roll(changed if changed.any() else truth, rng.integers(-4, 5, 2), (0, 1)).astype(bool)


def rule_ious(segmenter: Sam, drawn: list[Scene]) -> dict[str, list[float]]:
    """Mean IoU for each rule: of a rough mask alone, and with a click in the thing's middle."""
    figures: dict[str, list[list[float]]] = {"no mask": [], "the rough mask itself": []}
    for number, scene in enumerate(drawn):
        mask = rough(scene.truth, number)
        click = np.array([[middle_point(scene.truth)]])
        figures["the rough mask itself"].append([iou(mask, scene.truth)] * 2)
        figures["no mask"].append([np.nan, iou(decoded(segmenter, scene, Prompts(click))[0], scene.truth)])
        for name, rule in rules(segmenter, scene.embedding).items():
            logits = (rule(mask),)
            prompts = (Prompts(mask_logits=logits), Prompts(click, mask_logits=logits))
            masks = [decoded(segmenter, scene, one)[0] for one in prompts]
            figures.setdefault(name, []).append([iou(mask, scene.truth) for mask in masks])
    return {name: np.mean(values, axis=0).tolist() for name, values in figures.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", type=int, default=200, help="how many scenes to draw")
    parser.add_argument("--rule-scenes", type=int, default=40, help="of how many the rules are tried")
    parser.add_argument("--segmenter", type=Path, default=DEMO_SEGMENTER, help="SAM folder")
    parser.add_argument("--out", type=Path, default=RESULT, help="file to write")
    args = parser.parse_args()
    torch.set_num_threads(1)
    machine, began = Machine.this(), time.process_time()
    segmenter = Sam.load(args.segmenter)
    drawn = scenes(segmenter, args.scenes)
    lines = [
        "# Clicks with the last mask's logits fed back, and binary masks as prompts",
        "",
        *machine.lines(),
        f"- `python -m benchmarks.refinement --scenes {args.scenes} --rule-scenes {args.rule_scenes}`, demo weights",
        "",
        f"Mean IoU with the drawn truth, single-mask output, one thing in each of {args.scenes} scenes. A click is in",
        "the middle of the largest part that the mask has wrong.",
        "",
        "| clicks | all clicks so far | and the last mask's logits |",
        "|---|---|---|",
    ]
    without, with_logits = (
        np.mean([refined(segmenter, scene, feed_back=fed) for scene in drawn], axis=0) for fed in (False, True)
    )
    lines += [f"| {count} | {without[count - 1]:.3f} | {with_logits[count - 1]:.3f} |" for count in CLICKS]
    lines += [
        "",
        f"Binary masks as prompts, grown or shrunk by some pixels and moved a little, in {args.rule_scenes} scenes.",
        "",
        "| its logits | mask alone | and a click |",
        "|---|---|---|",
    ]
    for name, (alone, clicked) in rule_ious(segmenter, drawn[: args.rule_scenes]).items():
        lines.append(f"| {name} | {'-' if np.isnan(alone) else f'{alone:.3f}'} | {clicked:.3f} |")
    lines += ["", f"All of it took {time.process_time() - began:.0f} seconds of one core."]
    args.out.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
