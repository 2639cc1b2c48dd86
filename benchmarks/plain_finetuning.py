"""A step of a SAM's fine-tuning as transformers' users write it, and the same step here.

The plain loop is the one of common tutorials: `SamProcessor` makes inputs of an image and a box, `SamModel` encodes the
image and decodes the box, encoder and prompt encoder are frozen, and the mask decoder learns by dice and focal loss.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.hard_things import TRAINING, hard_scene
from benchmarks.segmenter_reference import processor_of
from models.demo.scenes import Scene
from models.finetuning.segmenter.learner import Learner
from models.finetuning.segmenter.losses import mask_losses
from models.finetuning.segmenter.steps import Batch, Rules, add_gradients
from models.finetuning.segmenter.views import frames, views
from models.rle import encode_rle
from models.segmenter.sam import Sam

IMAGES = 2  # in a step, with one box each


@dataclass(frozen=True)
class Pace:
    """Seconds of the processor. step_s: of a step in which the whole decoder learns. Of ours alone: head_step_s, of one
    in which its head learns; full_step_s, of one with all that a training here does in turns."""

    images: int
    step_s: float
    encode_s: float
    head_step_s: float = 0.0
    full_step_s: float = 0.0


def plain_pace(folder: Path, steps: int) -> Pace:
    from transformers import SamModel

    model = SamModel.from_pretrained(folder, dtype=torch.float32)
    processor = processor_of(model.config.vision_config.image_size)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith("mask_decoder"))
    optimizer = torch.optim.AdamW(model.mask_decoder.parameters(), lr=1e-5)
    scenes = _scenes()
    side = 4 * model.config.prompt_encoder_config.image_embedding_size
    truths = torch.stack([torch.from_numpy(_truth(one, side)) for one in scenes])

    def step() -> None:
        inputs = processor(
            [Image.fromarray(one.image) for one in scenes],
            input_boxes=[[one.boxes_xyxy[0].tolist()] for one in scenes],
            return_tensors="pt",
        )
        given = {name: inputs[name] for name in ("pixel_values", "input_boxes")}
        given["input_boxes"] = given["input_boxes"].float()
        logits = model(**given, multimask_output=False).pred_masks[:, 0, 0]
        loss = mask_losses(logits, truths).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def encode() -> None:
        inputs = processor(Image.fromarray(scenes[0].image), return_tensors="pt")
        with torch.no_grad():
            model.get_image_embeddings(inputs["pixel_values"])

    return Pace(IMAGES, _median(step, steps), _median(encode, 1))


def our_pace(folder: Path, steps: int) -> Pace:
    """The same boxes on kept embeddings. The loss is of four masks and of scores, as a training here has it."""
    sam, scenes = Sam.load(folder), _scenes()
    found = []
    for one in scenes:
        rle = encode_rle(np.ascontiguousarray(one.masks[0]))
        (whole,) = frames(one.image.shape[:2], one.boxes_xyxy[:1], 1, np.random.default_rng(0))
        found += views(one.image, [rle], [whole], sam.preprocess, sam.image_size, sam.mask_side)
    embeddings = [sam.embed([view.sample])[0] for view in found]
    network = Sam.network(folder, folder)
    old = Learner(network, Sam).requires_grad_(False)
    features = torch.stack([one.features for one in embeddings]).float()
    batch = Batch(
        features,
        features,
        [view.sample.resized_hw for view in found],
        torch.arange(len(found)),
        np.concatenate([view.boxes_xyxy[:1] for view in found]),
        np.concatenate([view.truths[:1] for view in found]).astype(np.float32) / 255,
    )

    def step(rules: Rules, *, head_only: bool) -> Callable[[], None]:
        learner = Learner(network, Sam, head_only=head_only)
        optimizer = torch.optim.AdamW((one for one in learner.parameters() if one.requires_grad), lr=1e-5)

        def run() -> None:
            optimizer.zero_grad()
            add_gradients(learner, old, batch, rules, np.random.default_rng(0))
            optimizer.step()

        return run

    def encode() -> None:
        sam.embed([sam.preprocess(scenes[0].image)])

    plain, full = Rules(clicks=0, keep=0.0), Rules(clicks=1, keep=1.0)
    return Pace(
        IMAGES,
        _median(step(plain, head_only=False), steps),
        _median(encode, 1),
        _median(step(plain, head_only=True), steps),
        _median(step(full, head_only=True), steps),
    )


def _scenes() -> list[Scene]:
    """The first scenes with a thing in them."""
    found: list[Scene] = []
    number = TRAINING
    while len(found) < IMAGES:
        scene = hard_scene(number)
        found += [scene] if len(scene.labels) else []
        number += 1
    return found


def _truth(scene: Scene, side: int) -> np.ndarray:
    """(side, side) float32: the first thing's mask at the nearest pixels of a padded square, as plain loops have it."""
    mask: Any = scene.masks[0]
    longest = max(mask.shape)
    square = np.zeros((longest, longest), np.float32)
    square[: mask.shape[0], : mask.shape[1]] = mask
    places = ((np.arange(side) + 0.5) * longest / side).astype(int)
    return square[np.ix_(places, places)]


def _median(run: Callable[[], None], times: int) -> float:
    """Of `times` runs, after one that is not counted."""
    spent = []
    for _ in range(times + 1):
        began = time.process_time()
        run()
        spent.append(time.process_time() - began)
    return statistics.median(spent[1:])
