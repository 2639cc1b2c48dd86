"""Trains the demo segmenter: a small SAM, from nothing, on demo scenes. Run it as `python -m models.demo.segmenter`.

It writes an ordinary Hugging Face folder and can be stopped and started again at any time.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import IterableDataset
from transformers import SamConfig, SamModel

from models.demo import training
from models.demo.scenes import Scene, scene_stream
from models.sam import IMAGENET_MEAN, IMAGENET_STD
from models.sam_decoder import BOX_CORNERS, encode_prompts, predict_masks

IMAGE_SIZE = 256
PATCH_SIZE = 16


def small_config(hidden: int = 192, layers: int = 8, decoder: int = 128) -> SamConfig:
    """A SAM of a few million parameters. Every layer attends globally: 256 tokens make windows pointless."""
    return SamConfig(
        vision_config={
            "hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": hidden // 32,
            "mlp_dim": 4 * hidden, "image_size": IMAGE_SIZE, "patch_size": PATCH_SIZE, "use_rel_pos": False,
            "window_size": 0, "global_attn_indexes": list(range(layers)), "output_channels": decoder,
            "num_pos_feats": decoder // 2,
        },
        prompt_encoder_config={
            "hidden_size": decoder, "image_size": IMAGE_SIZE, "patch_size": PATCH_SIZE,
            "image_embedding_size": IMAGE_SIZE // PATCH_SIZE,
        },
        mask_decoder_config={
            "hidden_size": decoder, "mlp_dim": 4 * decoder, "iou_head_hidden_dim": decoder, "num_attention_heads": 8,
        },
    )  # fmt: skip


def new_model(config: SamConfig, seed: int = 0) -> SamModel:
    """A SAM that can be trained from nothing.

    Hugging Face draws the shared positional encoding with standard deviation hidden_size / 2, in whose
    noise every place looks alike. Here its frequencies reach from a fraction of the image's width, which
    tell left from right, to Meta's own scale of 1, which tell neighbours apart.
    """
    torch.manual_seed(seed)
    model = SamModel(config)
    for part in (model.mask_decoder, model.prompt_encoder):
        for module in part.modules():
            if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d | nn.Embedding):
                module.reset_parameters()
    place = model.shared_image_embedding.positional_embedding
    with torch.no_grad():
        frequencies = torch.exp(torch.empty(place.shape[1]).uniform_(math.log(0.1), math.log(1.2)))
        place.copy_(torch.randn(place.shape) * frequencies)
        nn.init.trunc_normal_(model.vision_encoder.pos_embed, std=0.02)
    place.requires_grad_(False)
    return model


class SegmenterExamples(IterableDataset):
    """Scenes as SAM's training wants them, each with `prompts` prompts for things drawn from it.

    Yields pixels (3, S, S) uint8 RGB padded with zeros, targets (K, S / 4, S / 4) float16 (how much of each
    cell the thing covers), boxes (K, 4), points (K, 2, 2) and their labels (K, 2), in pixels.
    """

    def __init__(self, seed: int, prompts: int = 7) -> None:
        self.seed, self.prompts = seed, prompts

    def __iter__(self) -> Iterator[tuple[np.ndarray, ...]]:
        cv2.setNumThreads(1)
        rng = np.random.default_rng(self.seed)
        for scene in scene_stream(self.seed, IMAGE_SIZE):
            yield self._example(rng, scene)

    def _example(self, rng: np.random.Generator, scene: Scene) -> tuple[np.ndarray, ...]:
        count, grid = self.prompts, IMAGE_SIZE // 4
        height, width = scene.image.shape[:2]
        pixels = np.zeros((3, IMAGE_SIZE, IMAGE_SIZE), np.uint8)
        pixels[:, :height, :width] = scene.image.transpose(2, 0, 1)
        chosen = rng.integers(len(scene.masks), size=count)
        padded = np.zeros((count, IMAGE_SIZE, IMAGE_SIZE), np.float32)
        padded[:, :height, :width] = scene.masks[chosen]
        targets = padded.reshape(count, grid, 4, grid, 4).mean((2, 4))
        boxes = scene.boxes_xyxy[chosen]
        size = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
        jitter = rng.normal(0, 0.05, (count, 4)) * size * (rng.random((count, 1)) < 0.7)
        boxes = np.clip(boxes + np.clip(jitter, -12, 12), 0, IMAGE_SIZE).astype(np.float32)
        points = np.zeros((count, 2, 2), np.float32)
        labels = np.full((count, 2), -1, np.float32)
        for k in range(count):
            inside = padded[k] > 0
            points[k, 0], labels[k, 0] = _pick(rng, inside, rng.random() < 0.5), 1
            kind = rng.random()
            if kind < 0.2:
                points[k, 1], labels[k, 1] = _pick(rng, inside, False), 1
            elif kind < 0.35:
                points[k, 1], labels[k, 1] = _pick(rng, ~inside[:height, :width], False), 0
        return pixels, targets.astype(np.float16), boxes, points, labels


def _pick(rng: np.random.Generator, where: np.ndarray, middle: bool) -> tuple[float, float]:
    """A point (x, y) where `where` is true, on request away from its edges."""
    if middle:
        depth = cv2.distanceTransform(where.astype(np.uint8), cv2.DIST_L2, 3)
        where = depth >= 0.6 * depth.max()
    rows, columns = np.nonzero(where)
    if not rows.size:
        return 0.0, 0.0
    i = int(rng.integers(rows.size))
    return float(columns[i]), float(rows[i])


def mask_losses(logits: Tensor, targets: Tensor) -> Tensor:
    """BCE + dice of logits (..., h, w) against coverage (..., h, w) in 0..1, one value per mask."""
    bce = F.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean((-2, -1))
    shown = logits.sigmoid()
    overlap, total = (shown * targets).sum((-2, -1)), (shown + targets).sum((-2, -1))
    return 5 * bce + 1 - (2 * overlap + 1) / (total + 1)


def hard_iou(logits: Tensor, targets: Tensor) -> Tensor:
    """IoU of logits > 0 with coverage > 0.5, over the last two axes."""
    ours, truth = logits > 0, targets > 0.5
    return (ours & truth).sum((-2, -1)) / (ours | truth).sum((-2, -1)).clamp(min=1)


def normalize(images: Tensor) -> Tensor:
    """(B, 3, S, S) uint8 -> float32 as SAM's image processor gives it; what is exactly black counts as padding."""
    mean, std = (torch.tensor(v, device=images.device).reshape(1, 3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    padding = (images == 0).all(1, keepdim=True)
    return ((images / 255 - mean) / std).masked_fill(padding, 0.0)


def training_loss(
    model: SamModel, batch: list[Tensor], box_prompts: int, together: bool
) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss of one batch, whose first `box_prompts` prompts of each image are given as boxes, the rest as points.

    Points come with the second point or padding (label -1) that Hugging Face's encoder would add. With
    `together`, every prompt is a box and a point.
    """
    images, targets, boxes, points, labels = batch
    targets = targets.float()
    features = model.vision_encoder(normalize(images)).last_hidden_state
    encoder, k = model.prompt_encoder, box_prompts
    corners, as_box = boxes.unflatten(-1, (2, 2)), labels.new_tensor(BOX_CORNERS).expand(*labels.shape[:2], -1)
    if together:
        xy, kinds = torch.cat([points[:, :, :1], corners], 2), torch.cat([labels[:, :, :1], as_box], 2)
    else:
        xy, kinds = torch.cat([corners[:, :k], points[:, k:]], 1), torch.cat([as_box[:, :k], labels[:, k:]], 1)
    prompts = encode_prompts(encoder, xy.flatten(0, 1), kinds.flatten(0, 1))  # (B * N, T, C)
    image_of = torch.arange(len(boxes), device=boxes.device).repeat_interleave(boxes.shape[1])
    logits, scores = (x.unflatten(0, boxes.shape[:2]) for x in predict_masks(model, features, prompts, image_of))
    losses = mask_losses(logits, targets[:, :, None].expand_as(logits))  # (B, N, 4)
    best = losses[..., 1:].min(-1).values
    with torch.no_grad():
        ious = hard_iou(logits, targets[:, :, None])
    score_loss = (scores - ious).square().mean()
    loss = losses[..., 0].mean() + best.mean() + 0.05 * losses[..., 1:].mean() + score_loss
    return loss, {"box": ious[:, :k, 0].mean(), "point": ious[:, k:, 0].mean()}


def save(model: SamModel, folder: Path) -> None:
    """Write a Hugging Face SAM folder: config.json, preprocessor_config.json, model.safetensors (float16)."""
    half = SamModel(model.config).half()
    half.load_state_dict(model.state_dict())
    half.save_pretrained(folder)
    grid = IMAGE_SIZE // 4
    processor = {
        "image_processor_type": "SamImageProcessor", "processor_class": "SamProcessor",
        "do_convert_rgb": True, "do_resize": True, "do_rescale": True, "do_normalize": True, "do_pad": True,
        "rescale_factor": 1 / 255, "resample": 2,
        "image_mean": IMAGENET_MEAN, "image_std": IMAGENET_STD,
        "size": {"longest_edge": IMAGE_SIZE}, "pad_size": {"height": IMAGE_SIZE, "width": IMAGE_SIZE},
        "mask_size": {"longest_edge": grid}, "mask_pad_size": {"height": grid, "width": grid},
    }  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(processor, indent=2) + "\n")


def main() -> None:
    args = training.arguments(__doc__, minutes=120, batch=8)
    training.train(
        new_model(small_config(), args.seed),
        lambda seed: training.loaded(SegmenterExamples(args.seed + seed), args.batch),
        # Every fifth step gives each object's box and a point together.
        lambda model, batch, step: training_loss(model, batch, box_prompts=4, together=step % 5 == 4),
        save,
        args.out,
        args.minutes,
        args.lr,
    )


if __name__ == "__main__":
    main()
