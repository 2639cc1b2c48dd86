"""SAM on an NVIDIA GPU: the image encoder with kernels of its own, and both networks as CUDA graphs.

Knows Hugging Face's modules and tensors, nothing of files or requests. Everything here has a plainer twin that it
falls back to, and that it is compared with: `models.segmenter.encoder` and `models.segmenter.decoder`.
"""

from __future__ import annotations

import logging
import subprocess
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import product
from types import ModuleType

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import SamModel
from transformers.models.sam.modeling_sam import SamVisionEncoder, SamVisionLayer

from models.segmenter.attention import attend_folded
from models.segmenter.cuda.cuda_graphs import Graphs
from models.segmenter.decoder import PROJECT_FROM, Images, PlaceTables, encode_prompts
from models.segmenter.encoder import ImageEncoder
from models.segmenter.pixel_upload import normalize, upload

log = logging.getLogger("box2mask")

# Batches that are captured; others are filled up to the next one.
IMAGES, PROMPTS = (1, 2, 4, 8), (1, 4, 8, 16, 32, 64)
# Tokens of the prompts that are captured: boxes and single points have two, a box with a point three.
TOKENS = (2, 3)


class CudaEncoder:
    """A Hugging Face `SamVisionEncoder` on CUDA, in 16 bits; it may be called from one thread.

    attention: "triton" where the kernels suit the model and run on this machine, otherwise "folded".
    """

    def __init__(
        self, encoder: SamVisionEncoder, mean: Tensor, std: Tensor, *, kernels: bool = True, graphs: bool = True
    ) -> None:
        """mean, std: (3,) by which RGB in 0..1 is normalised. kernels, graphs: False does without.

        Raises UnknownEncoder as `ImageEncoder` does.
        """
        weight = encoder.patch_embed.projection.weight
        self._side = int(encoder.patch_embed.image_size[0])
        self._device, dtype = weight.device, weight.dtype
        mean, std = (values.flatten().to(self._device, torch.float32) for values in (mean, std))
        plain = ImageEncoder(encoder, attend_folded)
        fast = _working_kernels(encoder) if kernels else None
        self.attention = "folded" if fast is None else "triton"
        run = fast or plain
        sizes = IMAGES if graphs else ()
        self._encode = Graphs(lambda pixels: (run(pixels),), sizes)
        self._encode_bytes = Graphs(lambda pixels, sizes: (run(normalize(pixels, sizes, mean, std, dtype)),), sizes)

    def __call__(self, pixels: Tensor, between: Callable[[], None] | None = None) -> Tensor:
        """(B, 3, S, S) on the device, in its dtype -> (B, C, h, w), as `ImageEncoder` does.

        between: called once, before the work, which is over in a moment.
        """
        if between is not None:
            between()
        return self._encode((pixels,))[0]

    def encode_images(self, images: Sequence[np.ndarray], between: Callable[[], None] | None = None) -> Tensor:
        """RGB images (h, w, 3) uint8, already resized to fit -> (B, C, h, w); normalised and padded on the device."""
        if between is not None:
            between()
        return self._encode_bytes(upload(images, self._side, self._device))[0]

    def warm_up(self) -> None:
        """Capture all sizes, in the thread and on the stream that will encode images."""
        image = np.zeros((1, 1, 3), np.uint8)
        for size in IMAGES:
            self.encode_images([image] * size)


class CudaDecoder:
    """Prompt encoder and mask decoder of a `SamModel` on CUDA, for prompts on one image; for one thread."""

    def __init__(self, model: SamModel, *, graphs: bool = True) -> None:
        places = PlaceTables(model)

        def decode(wanted: slice) -> Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]:
            def run(points_xy: Tensor, labels: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
                tokens = encode_prompts(model.prompt_encoder, points_xy, labels)
                images = Images(model, features.unsqueeze(0), places, projected=len(points_xy) >= PROJECT_FROM)
                image_of = torch.zeros(len(points_xy), dtype=torch.int64, device=features.device)
                return images.decode(tokens, image_of, None, wanted)

            return run

        sizes = PROMPTS if graphs else ()
        self._one = Graphs(decode(slice(0, 1)), sizes, len(PROMPTS) * len(TOKENS))
        self._three = Graphs(decode(slice(1, None)), sizes, len(PROMPTS) * len(TOKENS))

    def __call__(
        self, features: Tensor, points_xy: Tensor, labels: Tensor, *, multimask: bool
    ) -> tuple[Tensor, Tensor]:
        """Logits (P, M, 4h, 4w) and predicted IoU (P, M), M = 3 with multimask and else 1.

        features: (C, h, w) of one image. points_xy (P, T, 2) float32 and labels (P, T): as `encode_prompts` takes
        them, all of them real. All on the device, or on the CPU but for `features`. Many are decoded in parts.
        """
        graphs = self._three if multimask else self._one
        points_xy, labels = (x.to(features.device, non_blocking=True) for x in (points_xy, labels))
        parts = zip(points_xy.split(PROMPTS[-1]), labels.split(PROMPTS[-1]), strict=True)
        logits, scores = zip(*(graphs(part, (features,)) for part in parts), strict=True)
        return (logits[0], scores[0]) if len(logits) == 1 else (torch.cat(logits), torch.cat(scores))

    def warm_up(self, features: Tensor) -> None:
        """Capture all sizes of TOKENS, in the thread and on the stream that will decode."""
        for size, tokens, multimask in product(PROMPTS, TOKENS, (False, True)):
            points_xy, labels = torch.zeros(size, tokens, 2), torch.ones(size, tokens, dtype=torch.int64)
            self(features, points_xy, labels, multimask=multimask)


@dataclass(frozen=True, eq=False)
class _Layer:
    """A Hugging Face layer and its relative positions (S, S, d). window: the side S of its windows, 0 for global."""

    module: SamVisionLayer
    window: int
    table_h: Tensor
    table_w: Tensor


class KernelEncoder:
    """A Hugging Face `SamVisionEncoder` whose attention is that of `models.segmenter.cuda.attention_kernels`.

    Tokens stay where they are in the image: the kernels find the windows. As with `ImageEncoder`, which has to
    take the module as well, relative positions are worked out here: make a new one for new weights.
    """

    def __init__(self, encoder: SamVisionEncoder, kernels: ModuleType) -> None:
        self._encoder = encoder
        self._kernels = kernels
        with torch.no_grad():
            self._layers = [_prepare(layer, _grid_hw(encoder)) for layer in encoder.layers]

    @torch.no_grad()
    def __call__(self, pixels: Tensor) -> Tensor:
        """(B, 3, S, S) -> (B, C, h, w)."""
        # Triton launches on the thread's current device, wherever its arguments are.
        with torch.cuda.device(pixels.device) if pixels.is_cuda else nullcontext():
            return self._run(pixels)

    def _run(self, pixels: Tensor) -> Tensor:
        encoder = self._encoder
        tokens = self._embed_patches(pixels)  # (B, h, w, C)
        if encoder.pos_embed is not None:
            tokens = tokens + encoder.pos_embed
        for layer in self._layers:
            module = layer.module
            attended = self._attend(layer, module.attn.qkv(module.layer_norm1(tokens)))
            tokens = _add_linear(tokens, attended, module.attn.proj)
            hidden = module.mlp.act(module.mlp.lin1(module.layer_norm2(tokens)))
            tokens = _add_linear(tokens, hidden, module.mlp.lin2)
        return encoder.neck(tokens)

    def _embed_patches(self, pixels: Tensor) -> Tensor:
        """(B, 3, S, S) -> (B, h, w, C): a convolution whose patches do not overlap is a product of matrices."""
        projection = self._encoder.patch_embed.projection
        height, width = projection.kernel_size
        patches = pixels.unflatten(3, (-1, width)).unflatten(2, (-1, height)).permute(0, 2, 4, 1, 3, 5)
        return F.linear(patches.flatten(3), projection.weight.flatten(1), projection.bias)

    def _attend(self, layer: _Layer, qkv: Tensor) -> Tensor:
        attention = layer.module.attn
        heads, scale = attention.num_attention_heads, attention.scale
        tables = (layer.table_h, layer.table_w)
        if not layer.window:
            return self._kernels.attend_grid(qkv, *tables, heads, scale)
        # Hugging Face fills windows up with zeros before they are projected, which leaves the bias.
        bias = attention.qkv.bias
        outside = qkv.new_zeros(qkv.shape[-1]) if bias is None else bias
        return self._kernels.attend_windows(qkv, outside, *tables, heads, scale)


def _prepare(layer: SamVisionLayer, grid_hw: tuple[int, int]) -> _Layer:
    attention, window = layer.attn, layer.window_size
    tables = (
        attention.get_rel_pos(window or size, window or size, embeddings).contiguous()
        for size, embeddings in zip(grid_hw, (attention.rel_pos_h, attention.rel_pos_w), strict=True)
    )
    return _Layer(layer, window, *tables)


def _add_linear(x: Tensor, y: Tensor, linear: torch.nn.Linear) -> Tensor:
    """x + linear(y), in x's place; x, y: (..., C), contiguous."""
    x.view(-1, x.shape[-1]).addmm_(y.view(-1, y.shape[-1]), linear.weight.t())
    return x.add_(linear.bias)


def _grid_hw(encoder: SamVisionEncoder) -> tuple[int, int]:
    (height, width), patch = encoder.patch_embed.image_size, encoder.patch_embed.projection.kernel_size
    return height // patch[0], width // patch[1]


def _working_kernels(encoder: SamVisionEncoder) -> KernelEncoder | None:
    """The encoder with kernels, after a first run of them all; None where they do not suit it or do not run here."""
    weight = encoder.patch_embed.projection.weight
    if weight.device.type != "cuda" or weight.dtype not in (torch.float16, torch.bfloat16):
        return None
    try:
        import triton

        from models.segmenter.cuda import attention_kernels
    except ImportError:
        log.info("Triton is not installed: SAM's attention runs without kernels of its own")
        return None
    if not suits(encoder, attention_kernels):
        return None
    kernels = KernelEncoder(encoder, attention_kernels)
    try:
        kernels(weight.new_zeros(1, weight.shape[1], *encoder.patch_embed.image_size))
        torch.cuda.current_stream(weight.device).synchronize()
    except torch.OutOfMemoryError:
        raise
    except (triton.TritonError, ImportError, RuntimeError, ValueError, OSError, subprocess.SubprocessError):
        # An older GPU, or none of what Triton needs for its launchers: a C compiler, a folder to load them from.
        log.exception("Triton's kernels do not run here: SAM's attention runs without them")
        return None
    return kernels


def suits(encoder: SamVisionEncoder, kernels: ModuleType) -> bool:
    """Whether the kernels can compute all layers of the encoder."""
    return bool(encoder.layers) and all(
        layer.attn.use_rel_pos
        and kernels.suits(layer.attn.qkv.in_features // layer.attn.num_attention_heads, layer.window_size, grid)
        for layer, grid in ((layer, _grid_hw(encoder)) for layer in encoder.layers)
    )
