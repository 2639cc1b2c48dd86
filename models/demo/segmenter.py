"""Trains the demo segmenter: a small SAM, from nothing, on demo scenes. Run it as `python -m models.demo.segmenter`.

It writes an ordinary Hugging Face folder and can be stopped and started again at any time.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import SamConfig, SamModel

from models.demo import training
from models.demo.segmenter_examples import CELL_FACTS, IMAGE_SIZE, PATCH_SIZE, WINDOW, SegmenterExamples
from models.segmenter.decoder import BOX_CORNERS, Window, encode_prompts, predict_masks
from models.square_images import IMAGENET_MEAN, IMAGENET_STD


def small_config(hidden: int = 128, layers: int = 8, decoder: int = 128) -> SamConfig:
    """A SAM of a few million parameters; every fourth layer attends globally."""
    return SamConfig(
        vision_config={
            "hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": hidden // 32,
            "mlp_dim": 4 * hidden, "image_size": IMAGE_SIZE, "patch_size": PATCH_SIZE, "use_rel_pos": False,
            "window_size": WINDOW, "global_attn_indexes": list(range(3, layers, 4)), "output_channels": decoder,
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
    """A SAM that can be trained from nothing, which Hugging Face's is not meant for.

    It draws the encoder's weights with a deviation of 1e-10, which leaves nothing to learn from, and the shared
    positional encoding with hidden_size / 2, in whose noise every place looks alike. Here the latter's frequencies
    reach from a fraction of the image's width, which tell left from right, to Meta's own scale of 1, which tell
    neighbours apart; and the encoder's attention begins with a liking for what is near and alike.
    """
    torch.manual_seed(seed)
    model = SamModel(config)
    for part in (model.mask_decoder, model.prompt_encoder, model.vision_encoder):
        for module in part.modules():
            if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d | nn.Embedding):
                module.reset_parameters()
    place = model.shared_image_embedding.positional_embedding
    with torch.no_grad():
        frequencies = torch.exp(torch.empty(place.shape[1]).uniform_(math.log(0.1), math.log(1.2)))
        place.copy_(torch.randn(place.shape) * frequencies)
        _mimetic(model.vision_encoder)
    place.requires_grad_(False)
    model.cells = nn.Conv2d(config.vision_config.output_channels, CELL_FACTS * 16, 1)
    return model


def _mimetic(encoder: Any) -> None:
    """Begin with sines for places, and with attention as trained transformers have it.

    Queries and keys agree where tokens do, and values are given back with the opposite sign. After Trockman and Kolter,
    Mimetic Initialization of Self-Attention Layers, 2023.
    """
    grid, hidden = encoder.pos_embed.shape[1], encoder.pos_embed.shape[3]
    speeds = 1.2 * 64 ** -torch.linspace(0, 1, hidden // 4)  # radians per token
    angles = torch.arange(grid)[:, None] * speeds
    waves = torch.cat([angles.sin(), angles.cos()], 1)  # (grid, hidden / 2)
    rows, columns = waves[:, None].expand(grid, grid, -1), waves[None].expand(grid, grid, -1)
    encoder.pos_embed.copy_(0.5 * torch.cat([rows, columns], 2))
    for layer in encoder.layers:
        attention = layer.attn
        size = hidden // attention.num_attention_heads
        for start in range(0, hidden, size):
            left, values, right = torch.linalg.svd(_noise(hidden, 0.7) + 0.7 * torch.eye(hidden))
            root = values[:size].sqrt()
            attention.qkv.weight[start : start + size] = (left[:, :size] * root).T
            attention.qkv.weight[hidden + start : hidden + start + size] = root[:, None] * right[:size]
        left, values, right = torch.linalg.svd(_noise(hidden, 0.4) - 0.4 * torch.eye(hidden))
        attention.qkv.weight[2 * hidden :] = values.sqrt()[:, None] * right
        attention.proj.weight.copy_(left * values.sqrt())
        for linear in (attention.qkv, attention.proj):
            nn.init.zeros_(linear.bias)


def _noise(size: int, scale: float) -> Tensor:
    return scale * torch.randn(size, size) / math.sqrt(size)


def facts_loss(model: SamModel, features: Tensor, facts: Tensor) -> Tensor:
    """How badly the features (B, C, h, w) tell the cells' facts (B, 7, 4h, 4w); see cell_facts.

    Masks of prompts alone teach the encoder slowly: every pixel has an answer here, and the answers are what
    tells one thing from the next.
    """
    told = F.pixel_shuffle(model.cells(features), 4)
    owned = facts[:, 6]
    thing = F.binary_cross_entropy_with_logits(told[:, 0], facts[:, 0])
    edge = F.binary_cross_entropy_with_logits(told[:, 1], facts[:, 1], pos_weight=told.new_tensor(3.0))
    distance = ((told[:, 2:] - facts[:, 2:6]).abs().mean(1) * owned).sum() / owned.sum().clamp(min=1)
    return thing + edge + distance


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


def image_features(model: SamModel, images: Tensor, window: Window) -> Tensor:
    """The image embeddings (B, C, h, w) of images (B, 3, S, S) uint8 that are a part of SAM's input."""
    encoder = model.vision_encoder
    tokens = encoder.patch_embed.projection(normalize(images)).permute(0, 2, 3, 1) + encoder.pos_embed[:, *window]
    for layer in encoder.layers:
        tokens = layer(tokens)
    return encoder.neck(tokens)


def training_loss(model: SamModel, batch: list[Tensor], together: bool) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss of one batch, the first half of whose prompts of each image are given as boxes, the rest as points.

    Points come with the second point or padding (label -1) that Hugging Face's encoder would add. With
    `together`, every prompt is a box and a point.
    """
    images, targets, boxes, points, labels, facts, place = batch
    targets, facts = targets.float(), facts.float()
    size, (row, column), half = images.shape[-1] // PATCH_SIZE, place.tolist(), (boxes.shape[1] + 1) // 2
    window = (slice(row, row + size), slice(column, column + size))
    features = image_features(model, images, window)
    corners, as_box = boxes.unflatten(-1, (2, 2)), labels.new_tensor(BOX_CORNERS).expand(*labels.shape[:2], -1)
    if together:
        xy, kinds = torch.cat([points[:, :, :1], corners], 2), torch.cat([labels[:, :, :1], as_box], 2)
    else:
        xy = torch.cat([corners[:, :half], points[:, half:]], 1)
        kinds = torch.cat([as_box[:, :half], labels[:, half:]], 1)
    prompts = encode_prompts(model.prompt_encoder, xy.flatten(0, 1), kinds.flatten(0, 1))  # (B * N, T, C)
    image_of = torch.arange(len(boxes), device=boxes.device).repeat_interleave(boxes.shape[1])
    predicted = predict_masks(model, features, prompts, image_of, window=window)
    logits, scores = (x.unflatten(0, boxes.shape[:2]) for x in predicted)
    losses = mask_losses(logits, targets[:, :, None].expand_as(logits))  # (B, N, 4)
    best = losses[..., 1:].min(-1).values
    with torch.no_grad():
        ious = hard_iou(logits, targets[:, :, None])
    told = facts_loss(model, features, facts)
    loss = losses[..., 0].mean() + best.mean() + 0.05 * losses[..., 1:].mean() + (scores - ious).square().mean() + told
    return loss, {"box": ious[:, :half, 0].mean(), "point": ious[:, half:, 0].mean(), "facts": told.detach()}


def save(model: SamModel, folder: Path) -> None:
    """Write a Hugging Face SAM folder: config.json, preprocessor_config.json, model.safetensors (float16)."""
    half = SamModel(model.config).half()
    half.load_state_dict({name: value for name, value in model.state_dict().items() if not name.startswith("cells.")})
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


def start_from(model: SamModel, folder: Path) -> SamModel:
    """Give a new model the weights that `save` wrote to a folder."""
    model.load_state_dict(SamModel.from_pretrained(folder).float().state_dict(), strict=False)
    return model


def main() -> None:
    args = training.argument_parser(__doc__, minutes=240, batch=8).parse_args()
    model = new_model(small_config(), args.seed)
    training.train(
        model if args.start is None else start_from(model, args.start),
        lambda seed: training.loaded(SegmenterExamples(args.seed + seed, args.batch)),
        # Every seventh step gives each object's box and a point together.
        lambda model, batch, step: training_loss(model, batch, together=step % 7 == 6),
        save,
        args.out,
        args.minutes,
        args.lr,
    )


if __name__ == "__main__":
    main()
