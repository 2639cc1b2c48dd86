"""SAM: embed an image once, decode any number of prompts on it.

Knows tensors and files, nothing of HTTP. `predict_masks` is the decoder that serving and training share.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from huggingface_hub.errors import StrictDataclassError
from PIL import Image
from torch import Tensor
from transformers import SamConfig, SamModel
from transformers.models.sam.modeling_sam import SamAttention, SamMaskDecoder, SamPromptEncoder

from models.checkpoints import ModelFilesError, load_into, load_state_dict
from models.types import Embedding, Masks, Prompts

# Hugging Face's SamImageProcessor, for a folder without preprocessor_config.json.
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Prompts decoded at once: bounds the decoder's memory, about 45 MB for each prompt of a full-size SAM.
PROMPTS_AT_ONCE = 32
_PLACE = "shared_image_embedding.positional_embedding"
_TIED_PLACE = "prompt_encoder.shared_embedding.positional_embedding"
# What transformers raises for values in a config.json that make no network.
_CONFIG_ERRORS = (
    TypeError, ValueError, KeyError, AttributeError, ArithmeticError, RuntimeError, StrictDataclassError,
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Sample:
    """One image as the encoder wants it, on the CPU.

    pixels: (3, S, S) float32, resized to fit, normalised, then padded with zeros at the right and bottom.
    size_hw: the image's own size. resized_hw: its size before padding.
    """

    pixels: Tensor
    size_hw: tuple[int, int]
    resized_hw: tuple[int, int]


@dataclass(frozen=True, eq=False)
class RawMasks:
    """What the decoder said about N prompts, on the CPU in float32, before thresholds.

    logits: (N, M, S / 4, S / 4), over the padded square. iou_scores: (N, M).
    size_hw, resized_hw: as in Embedding.
    """

    logits: Tensor
    iou_scores: np.ndarray
    size_hw: tuple[int, int]
    resized_hw: tuple[int, int]

    def __len__(self) -> int:
        return len(self.logits)


class Segmenter:
    """A loaded SAM; make one with `Segmenter.load`.

    `preprocess` and `postprocess` may run in any number of threads beside one `embed` or `decode`.
    """

    def __init__(
        self,
        model: SamModel,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """mean, std: by which RGB in 0..1 is normalised."""
        self.device = torch.device(device)
        self.dtype = dtype
        self.image_size: int = model.config.vision_config.image_size
        self._model = model.to(device=self.device, dtype=dtype).eval()
        self._mean, self._std = (torch.tensor(v, dtype=torch.float32).reshape(3, 1, 1) for v in (mean, std))

    @classmethod
    def load(
        cls, path: str | Path, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
    ) -> Segmenter:
        """Load a Hugging Face SAM folder of any size, or Azure's MLflow folder around one (see `find_folder`).

        Weights of another dtype are converted. Raises ModelFilesError if the files make no SAM, and its
        CheckpointError if the weights are unsafe or do not fit.
        """
        folder = find_folder(path)
        try:
            config = SamConfig.from_dict(_read_json(folder / "config.json"))
            with torch.device("meta"):  # random weights that are overwritten at once take longer than reading
                model = SamModel(config)
        except _CONFIG_ERRORS as error:
            raise ModelFilesError(f"{folder / 'config.json'}: cannot build a SAM: {error}") from error
        state_dict, _ = load_state_dict(folder)
        # The two names of the one positional encoding; files of different ages hold either or both.
        for name, other in ((_PLACE, _TIED_PLACE), (_TIED_PLACE, _PLACE)):
            if other in state_dict:
                state_dict.setdefault(name, state_dict[other])
        load_into(model, state_dict, folder, assign=True)
        mean, std = _normalization(folder, model.config.vision_config.image_size)
        return cls(model, mean, std, device, dtype)

    def preprocess(self, image: np.ndarray) -> Sample:
        """(H, W, 3) uint8 RGB -> Sample, as Hugging Face's SamImageProcessor with Pillow makes it."""
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
            raise ValueError(f"image: expected (H, W, 3) uint8, got {image.shape} {image.dtype}")
        size_hw = (image.shape[0], image.shape[1])
        height, width = resized_hw = resized_size(size_hw, self.image_size)
        resized = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
        pixels = torch.zeros(3, self.image_size, self.image_size)
        fitted = torch.from_numpy(np.array(resized)).permute(2, 0, 1) / 255
        pixels[:, :height, :width] = (fitted - self._mean) / self._std
        return Sample(pixels, size_hw, resized_hw)

    @torch.inference_mode()
    def embed(self, samples: Sequence[Sample]) -> list[Embedding]:
        """Run the image encoder on the device; one Embedding per sample, in order."""
        if not samples:
            return []
        pixels = torch.stack([sample.pixels for sample in samples]).to(self.device, self.dtype)
        features = self._model.vision_encoder(pixels).last_hidden_state  # (B, C, h, w)
        return [
            Embedding(one, sample.size_hw, sample.resized_hw) for one, sample in zip(features, samples, strict=True)
        ]

    @torch.inference_mode()
    def decode(self, embedding: Embedding, prompts: Prompts, *, multimask: bool) -> RawMasks:
        """Run prompt encoder and mask decoder on the device, for any number of prompts.

        multimask: three masks per prompt instead of one.
        """
        scale = [r / s for r, s in zip(reversed(embedding.resized_hw), reversed(embedding.size_hw), strict=True)]
        points = None if prompts.points_xy is None else prompts.points_xy * scale
        boxes = None if prompts.boxes_xyxy is None else prompts.boxes_xyxy * (scale * 2)
        features = embedding.features[None]
        wanted = slice(1, None) if multimask else slice(0, 1)
        logits, scores = [], []
        for start in range(0, len(prompts), PROMPTS_AT_ONCE):
            points_now, labels_now, boxes_now = (
                None
                if array is None
                else torch.from_numpy(array[None, start : start + PROMPTS_AT_ONCE]).to(self.device)
                for array in (points, prompts.point_labels, boxes)
            )
            tokens = encode_prompts(self._model.prompt_encoder, points_now, labels_now, boxes_now)
            logits_now, scores_now = predict_masks(self._model, features, tokens)
            logits.append(logits_now[0, :, wanted].float().cpu())
            scores.append(scores_now[0, :, wanted].float().cpu())
        return RawMasks(torch.cat(logits), torch.cat(scores).numpy(), embedding.size_hw, embedding.resized_hw)

    @torch.inference_mode()
    def postprocess(self, raw: RawMasks, index: int) -> np.ndarray:
        """The masks (M, H, W) bool of prompt `index`, in the image's own size, on the CPU.

        One prompt at a time, because a hundred masks of a large photo would not fit into memory at once.
        The logits are interpolated to the padded square, cropped, then interpolated to the image, as
        Hugging Face's `post_process_masks` does.
        """
        height, width = raw.resized_hw
        square = (self.image_size, self.image_size)
        logits = F.interpolate(raw.logits[index][None], square, mode="bilinear", align_corners=False)
        logits = logits[..., :height, :width]
        return (F.interpolate(logits, raw.size_hw, mode="bilinear", align_corners=False)[0] > 0).numpy()

    def segment(self, image: np.ndarray, prompts: Prompts, *, multimask: bool = False) -> Masks:
        """All steps for one image and all of its prompts."""
        (embedding,) = self.embed([self.preprocess(image)])
        raw = self.decode(embedding, prompts, multimask=multimask)
        return Masks(np.stack([self.postprocess(raw, index) for index in range(len(raw))]), raw.iou_scores)


def resized_size(size_hw: tuple[int, int], longest: int) -> tuple[int, int]:
    """(height, width) whose longer side is `longest`, rounded as Hugging Face rounds; no side is ever 0."""
    scale = longest / max(size_hw)
    height, width = (max(1, int(side * scale + 0.5)) for side in size_hw)
    return height, width


# The two networks


def encode_prompts(
    encoder: SamPromptEncoder, points: Tensor | None, labels: Tensor | None, boxes: Tensor | None
) -> Tensor | None:
    """Prompt tokens (B, N, T, C) in the frame of the model's input, or None where there is no prompt.

    points: (B, N, P, 2) pixels of the resized image; labels: (B, N, P); boxes: (B, N, 4) pixels likewise.
    """
    sparse, _ = encoder(input_points=points, input_labels=labels, input_boxes=boxes, input_masks=None)
    return sparse


def predict_masks(model: SamModel, features: Tensor, prompts: Tensor | None) -> tuple[Tensor, Tensor]:
    """Run the mask decoder on every prompt: all of its masks, the single one first, then the multimask three.

    features: (B, C, h, w) image embeddings. prompts: (B, N, T, C) prompt tokens or None (N is then 1).
    Returns logits (B, N, 4, 4h, 4w) and predicted IoU (B, N, 4).

    Computes what Hugging Face's `SamMaskDecoder.forward` computes, but keeps the image embedding once per
    image, not once per prompt, until the first layer has made it depend on the prompt.
    """
    decoder: SamMaskDecoder = model.mask_decoder
    batch, channels, height, width = features.shape
    output_tokens = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
    count = 1 if prompts is None else prompts.shape[1]
    tokens = output_tokens.expand(batch, count, -1, -1)
    if prompts is not None:
        tokens = torch.cat([tokens, prompts.to(tokens.dtype)], dim=2)  # (B, N, T, C)

    image = features + model.prompt_encoder.no_mask_embed.weight.reshape(1, -1, 1, 1)
    image = image.flatten(2).transpose(1, 2).unsqueeze(1)  # (B, 1, hw, C)
    place = model.get_image_wide_positional_embeddings().to(features.dtype)
    place = place.flatten(2).transpose(1, 2).unsqueeze(1)  # (1, 1, hw, C)

    queries = tokens
    for layer in decoder.transformer.layers:
        if layer.skip_first_layer_pe:
            queries = _attend(layer.self_attn, queries, queries, queries)
        else:
            placed = queries + tokens
            queries = queries + _attend(layer.self_attn, placed, placed, queries)
        queries = layer.layer_norm1(queries)
        queries = queries + _attend(layer.cross_attn_token_to_image, queries + tokens, image + place, image)
        queries = layer.layer_norm2(queries)
        queries = layer.layer_norm3(queries + layer.mlp(queries))
        image = image + _attend(layer.cross_attn_image_to_token, image + place, queries + tokens, queries)
        image = layer.layer_norm4(image)  # (B, N, hw, C) from here on
    final = decoder.transformer.final_attn_token_to_image
    queries = queries + _attend(final, queries + tokens, image + place, image)
    queries = decoder.transformer.layer_norm_final_attn(queries)

    image = image.transpose(2, 3).reshape(batch * count, channels, height, width)
    image = decoder.activation(decoder.upscale_layer_norm(decoder.upscale_conv1(image)))
    image = decoder.activation(decoder.upscale_conv2(image))  # (B * N, C / 8, 4h, 4w)
    weights = torch.stack(
        [mlp(queries[:, :, 1 + i]) for i, mlp in enumerate(decoder.output_hypernetworks_mlps)], dim=2
    )  # (B, N, 4, C / 8)
    logits = weights @ image.reshape(batch, count, image.shape[1], -1)
    scores = decoder.iou_prediction_head(queries[:, :, 0])
    return logits.reshape(batch, count, -1, 4 * height, 4 * width), scores


def _attend(attention: SamAttention, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention over (B, N or 1, L, C): what has a 1 stands for all N prompts and is projected only once."""
    heads = attention.num_attention_heads

    def split(x: Tensor) -> Tensor:  # (B, n, L, C) -> (B, n, heads, L, C / heads)
        return x.unflatten(-1, (heads, -1)).transpose(2, 3)

    q, k, v = split(attention.q_proj(query)), split(attention.k_proj(key)), split(attention.v_proj(value))
    count = max(q.shape[1], k.shape[1])
    q, k, v = (x.expand(-1, count, -1, -1, -1).flatten(0, 1) for x in (q, k, v))
    attended = F.scaled_dot_product_attention(q, k, v)  # (B * N, heads, L, C / heads)
    return attention.out_proj(attended.transpose(1, 2).flatten(2).unflatten(0, (-1, count)))


# Files


def find_folder(path: str | Path) -> Path:
    """The Hugging Face SAM folder at `path` or within it, up to three folders further in.

    Azure's MLflow folder keeps it in `artifacts/INPUT_model_path`. Raises ModelFilesError that says what
    was looked for and what is there.
    """
    path = Path(path)
    if not path.is_dir():
        raise ModelFilesError(f"{path}: no such folder")
    for depth in range(4):
        found = sorted(file.parent for file in path.glob("*/" * depth + "config.json") if is_sam(file))
        if len(found) > 1:
            raise ModelFilesError(f"{path}: expected one SAM, found {len(found)}: {', '.join(map(str, found))}")
        if found:
            return found[0]
    present = ", ".join(sorted(child.name for child in path.iterdir())[:20]) or "nothing"
    raise ModelFilesError(f"{path}: looked for a config.json whose model_type is 'sam'; found {present}")


def is_sam(config: Path) -> bool:
    """Whether a config.json is that of a SAM. Raises ModelFilesError where it is not JSON."""
    return _read_json(config).get("model_type") == "sam"


def _read_json(path: Path) -> dict[str, object]:
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise ModelFilesError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ModelFilesError(f"{path}: expected a JSON object, got {type(content).__name__}")
    return content


def _normalization(folder: Path, image_size: int) -> tuple[Sequence[float], Sequence[float]]:
    """Mean and standard deviation from the folder's preprocessor_config.json, whose size must be the model's."""
    path = folder / "preprocessor_config.json"
    if not path.is_file():
        return IMAGENET_MEAN, IMAGENET_STD
    config = _read_json(path)
    size = config.get("size") or {}
    longest = size.get("longest_edge", image_size) if isinstance(size, dict) else size
    if longest != image_size:
        raise ModelFilesError(f"{path} resizes images to {longest} pixels, but the model takes {image_size}")
    for step in ("do_resize", "do_rescale", "do_normalize", "do_pad"):
        if config.get(step) is False:
            raise ModelFilesError(f"{path}: {step} is false, but every SAM's images are prepared in that step")
    mean, std = config.get("image_mean") or IMAGENET_MEAN, config.get("image_std") or IMAGENET_STD
    for name, values in (("image_mean", mean), ("image_std", std)):
        if not isinstance(values, list | tuple) or [isinstance(v, int | float) for v in values] != [True] * 3:
            raise ModelFilesError(f"{path}: {name}: expected 3 numbers, got {values!r}")
    return mean, std  # type: ignore[return-value]
