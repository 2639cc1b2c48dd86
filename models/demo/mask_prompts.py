"""Teaches the demo segmenter to read masks as prompts: `python -m models.demo.mask_prompts OUT --start FOLDER`.

Only the prompt encoder's `mask_embed` learns, so that what the weights answer to points and boxes stays as it is.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from transformers import SamModel

from models.demo import training
from models.demo.segmenter import hard_iou, image_features, mask_losses, save
from models.demo.segmenter_examples import CELL, PATCH_SIZE, SegmenterExamples
from models.segmenter.decoder import BOX_CORNERS, encode_prompts, predict_masks

ROUNDS = 2


def begin(model: SamModel) -> SamModel:
    """The model, of which only `mask_embed` will learn, and which at first takes every mask for nearly none."""
    model.requires_grad_(False)
    encoder = model.prompt_encoder
    encoder.mask_embed.requires_grad_(True)
    with torch.no_grad():
        encoder.mask_embed.conv3.bias.copy_(encoder.no_mask_embed.weight[0])
        encoder.mask_embed.conv3.weight.mul_(0.1)
    return model


def refinement_loss(model: SamModel, batch: list[Tensor], step: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss of masks that are made of an earlier mask's logits and one more click, in rounds.

    The first prompts are boxes in every second step, else points. Now and then the mask comes with the new click alone,
    with no new click, or with nothing else, as clients send it too.
    """
    images, targets, boxes, points, _, _, place = batch
    truth = targets.float().flatten(0, 1)  # (P, 4h, 4w)
    size, (row, column) = images.shape[-1] // PATCH_SIZE, place.tolist()
    window = (slice(row, row + size), slice(column, column + size))
    image_of = torch.arange(len(images)).repeat_interleave(boxes.shape[1])
    boxed = step % 2 == 0
    xy, labels = points.flatten(0, 1)[:, :1], torch.ones(len(image_of), 1)
    ends = boxes.flatten(0, 1).unflatten(-1, (2, 2)) if boxed else torch.zeros(len(image_of), 1, 2)
    end_labels = torch.tensor(BOX_CORNERS if boxed else (-1,)).expand(len(image_of), -1)
    if boxed:
        xy, labels = xy[:, :0], labels[:, :0]

    with torch.no_grad():
        features = image_features(model, images, window)
        tokens = encode_prompts(model.prompt_encoder, torch.cat([xy, ends], 1), torch.cat([labels, end_labels], 1))
        logits, scores = predict_masks(model, features, tokens, image_of, window=window)
    rng = np.random.default_rng(step)
    before, losses, figures = None, [], {}
    for number in range(ROUNDS):
        fed = _one_of_each(rng, logits.detach(), scores.detach())
        if before is None:
            before = hard_iou(fed, truth)
        kind = rng.choice(["all", "new", "same", "alone"], p=[0.65, 0.15, 0.1, 0.1])
        if kind in ("all", "new"):
            clicks, kinds = _clicks(rng, fed, truth)
            clicks = clicks + torch.tensor([column, row]) * PATCH_SIZE
            xy, labels = torch.cat([xy, clicks], 1), torch.cat([labels, kinds], 1)
        shown_xy, shown = torch.cat([xy, ends], 1), torch.cat([labels, end_labels], 1)
        if kind == "new":
            shown_xy = torch.cat([clicks, torch.zeros_like(clicks)], 1)
            shown = torch.cat([kinds, torch.full_like(kinds, -1)], 1)
        prompts = None if kind == "alone" else encode_prompts(model.prompt_encoder, shown_xy, shown)
        dense = model.prompt_encoder.mask_embed(fed[:, None])
        logits, scores = predict_masks(model, features[image_of], prompts, window=window, dense=dense)
        each = mask_losses(logits, truth[:, None].expand_as(logits))  # (P, 4)
        ious = hard_iou(logits.detach(), truth[:, None])
        losses.append(each[:, 0].mean() + 0.5 * each[:, 1:].min(-1).values.mean() + (scores - ious).square().mean())
        figures[f"round {number + 1}"] = ious[:, 0].mean()
    assert before is not None
    return torch.stack(losses).mean(), {"before": before.mean(), **figures}


def _one_of_each(rng: np.random.Generator, logits: Tensor, scores: Tensor) -> Tensor:
    """(P, 4h, 4w) of (P, 4, 4h, 4w): of two thirds of the prompts the single mask, of the rest the best of three."""
    best = 1 + scores[:, 1:].argmax(-1)
    best[torch.from_numpy(rng.random(len(best)) < 2 / 3)] = 0
    return logits[torch.arange(len(logits)), best]


def _clicks(rng: np.random.Generator, logits: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """A click (P, 1, 2), in pixels of the view, on something that each mask has wrong, and its label (P, 1)."""
    places, kinds = [], []
    for mask, thing in zip((logits > 0).numpy(), (truth > 0.5).numpy(), strict=True):
        missed, wrong = thing & ~mask, mask & ~thing
        worse = missed if missed.sum() >= wrong.sum() else wrong
        if not worse.any():
            worse = thing if thing.any() else ~mask
        if rng.random() < 0.5:
            depth = cv2.distanceTransform(np.pad(worse, 1).astype(np.uint8), cv2.DIST_L2, 3)[1:-1, 1:-1]
            worse = worse & (depth >= 0.8 * depth.max())
        rows, columns = np.nonzero(worse)
        i = int(rng.integers(rows.size)) if rows.size else 0
        place = (columns[i], rows[i]) if rows.size else (0, 0)
        places.append([CELL * (float(one) + 0.5) for one in place])
        kinds.append(float(thing[place[1], place[0]]))
    return torch.tensor(places)[:, None], torch.tensor(kinds)[:, None]


def main() -> None:
    args = training.argument_parser(__doc__, minutes=20, batch=8).parse_args()
    if args.start is None:
        raise SystemExit("--start: expected the folder of a segmenter that knows points and boxes")
    training.train(
        begin(SamModel.from_pretrained(Path(args.start)).float()),
        lambda seed: training.loaded(SegmenterExamples(args.seed + seed, args.batch)),
        refinement_loss,
        save,
        args.out,
        args.minutes,
        args.lr,
    )


if __name__ == "__main__":
    main()
