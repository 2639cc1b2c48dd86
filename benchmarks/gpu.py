"""Checks what is written for NVIDIA GPUs against its plain twins, times both, and writes the tables: see `gpu.sh`.

Needs torch, transformers and OpenCV, and for YOLOF mmdet. Weights are random but for the demo's, which say how far the
masks are from Hugging Face's in float32.
"""

from __future__ import annotations

import argparse
import copy
import datetime
import functools
import importlib.util
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import SamConfig, SamModel
from transformers.models.sam.modeling_sam import SamVisionAttention

from models.demo.scenes import render_scene
from models.segmenter.cuda.sam import CudaDecoder, CudaEncoder
from models.segmenter.decoder import BOX_CORNERS
from models.segmenter.mask_packing import pack_masks, unpack_bits
from models.segmenter.pixel_upload import normalize, upload
from models.segmenter.sam import IMAGENET_MEAN, IMAGENET_STD, DecodeRequest, Segmenter, resized_size
from models.types import Prompts

RESULTS = Path(__file__).parent / "results"
DEMO = Path(__file__).parents[1] / "weights" / "demo" / "sam"
MEAN, STD = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
HUGE: dict[str, Any] = {
    "hidden_size": 1280, "num_hidden_layers": 32, "num_attention_heads": 16, "mlp_dim": 5120,
    "global_attn_indexes": [7, 15, 23, 31],
}  # fmt: skip
# Every part of the huge one in small, so that a processor is through it in seconds.
TINY: dict[str, Any] = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "mlp_dim": 64, "image_size": 128,
    "patch_size": 8, "window_size": 5, "global_attn_indexes": [1],
}  # fmt: skip
# How much further than Hugging Face's 16 bits ours may be from float32: both round, at different places.
ROOM, LEAST_ROOM = 1.25, 0.002
LEAST_IOU = 0.99
TARGETS = {"encode 1": 12.0, "encode 8": 8000 / 90, "decode 1": 0.7, "decode 16": 1.2, "decode 100": 3.5, "YOLOF": 2.0}


@dataclass
class Bench:
    """The device and the sizes to run at, and what has been found so far."""

    device: torch.device
    vision: dict[str, Any]
    batches: tuple[int, ...] = (1, 4, 8)
    boxes: tuple[int, ...] = (1, 16, 100)
    repeats: int = 20
    photo_hw: tuple[int, int] = (1080, 1920)
    scenes: int = 12
    checks: list[tuple[str, str, str, str]] = field(default_factory=list)
    times: list[tuple[str, ...]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    passed: bool = True
    # How far Hugging Face's embeddings in bfloat16 are from float32's, once that has been measured.
    rounding: float = 0.02

    @property
    def on_cuda(self) -> bool:
        return self.device.type == "cuda"

    def check(self, what: str, found: float, at_most: float | None = None, at_least: float | None = None) -> None:
        good = (at_most is None or found <= at_most) and (at_least is None or found >= at_least)  # a NaN is not
        limit = f"at most {at_most:.3g}" if at_most is not None else f"at least {at_least:.3g}"
        self.passed &= good
        self.checks.append((what, f"{found:.4g}", limit, "ok" if good else "FAILED"))
        print(f"{'ok    ' if good else 'FAILED'} {what}: {found:.4g} ({limit})")

    def note(self, text: str) -> None:
        self.notes.append(text)
        print(text)

    def row(self, case: str, ours: float, bf16: float | None, float32: float | None, more: str = "") -> None:
        """Times in milliseconds; those of Hugging Face, or whoever is plain, where there is one."""
        target = TARGETS.get(case) if self.vision is HUGE else None
        cells = [f"{x:.3f}" if x is not None else "" for x in (ours, bf16, float32, target)]
        ratio = f"{bf16 / ours:.2f}×" if bf16 else ""
        self.times.append((case, cells[0], cells[1], ratio, cells[2], cells[3], more))
        print("time  ", " | ".join(self.times[-1]))

    def wait(self) -> None:
        if self.on_cuda:
            torch.cuda.synchronize(self.device)

    def milliseconds(self, function: Callable[[], object], repeats: int | None = None) -> float:
        """Median time from the call until the device is done."""
        for _ in range(3 if self.on_cuda else 1):
            function()
        seconds = []
        for _ in range(repeats or self.repeats):
            self.wait()
            began = time.perf_counter()
            function()
            self.wait()
            seconds.append(time.perf_counter() - began)
        return 1000 * statistics.median(seconds)

    def stream(self, priority: int = 0) -> AbstractContextManager[object]:
        return torch.cuda.stream(torch.cuda.Stream(self.device, priority=priority)) if self.on_cuda else nullcontext()


def distance(found: Tensor, expected: Tensor) -> float:
    return float((found.float() - expected.float()).norm() / expected.float().norm())


def random_sam(vision: dict[str, Any], device: torch.device) -> SamModel:
    """In float32, with weights that let everything reach the result: Hugging Face's own leave relative positions 0."""
    size, patch = vision.get("image_size", 1024), vision.get("patch_size", 16)
    prompt = {"image_size": size, "patch_size": patch, "image_embedding_size": size // patch}
    torch.manual_seed(0)
    with torch.device(device):
        model = SamModel(SamConfig(vision_config=vision, prompt_encoder_config=prompt))
        with torch.no_grad():
            for module in model.modules():
                if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d | nn.Embedding):
                    module.reset_parameters()
                elif isinstance(module, SamVisionAttention):
                    module.rel_pos_h.normal_(0, 0.3)
                    module.rel_pos_w.normal_(0, 0.3)
            model.vision_encoder.pos_embed.normal_(0, 0.3)
            place = model.shared_image_embedding.positional_embedding.normal_()
            model.prompt_encoder.shared_embedding.positional_embedding.copy_(place)
    return model.to(device).eval()


def in_16_bits(model: SamModel) -> SamModel:
    """A copy in bfloat16 as it is served: places stay in float32, which tells a pixel from the next."""
    half = copy.deepcopy(model).to(torch.bfloat16)
    for ours, theirs in (
        (half.shared_image_embedding, model.shared_image_embedding),
        (half.prompt_encoder.shared_embedding, model.prompt_encoder.shared_embedding),
    ):
        ours.positional_embedding.data = theirs.positional_embedding.data.clone()
    return half


@dataclass
class Models:
    """One SAM three times: in float32 and plainly in bfloat16 for Hugging Face's code, in bfloat16 for ours."""

    float32: SamModel
    bf16: SamModel
    ours: SamModel

    @classmethod
    def random(cls, bench: Bench) -> Models:
        model = random_sam(bench.vision, bench.device)
        return cls(model, copy.deepcopy(model).to(torch.bfloat16), in_16_bits(model))

    @property
    def side(self) -> int:
        return int(self.float32.config.vision_config.image_size)


def check_kernels(bench: Bench, models: Models) -> None:
    """Each attention of its own against the formula in float32, at the encoder's sizes."""
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    if importlib.util.find_spec("triton") is None or not (bench.on_cuda or interpreted):
        bench.note("Triton's kernels: not run, for want of a GPU or of Triton")
        return
    from models.segmenter.cuda import attention_kernels as kernels

    dtype = torch.bfloat16 if bench.on_cuda else torch.float16  # the interpreter knows no bfloat16
    config = models.ours.config.vision_config
    heads, size = config.num_attention_heads, models.side // config.patch_size
    dim = config.hidden_size // heads
    qkv = torch.randn(1, size, size, 3 * heads * dim, device=bench.device).to(dtype)
    outside = torch.randn(3 * heads * dim, device=bench.device).to(dtype)
    rows = []
    for name, window in (("global", 0), ("window", config.window_size)):
        side = window or size
        table_h, table_w = (0.3 * torch.randn(2, side, side, dim, device=bench.device)).to(dtype)
        expected = plain_attention(qkv, outside, table_h, table_w, heads, window)
        choices = [kernels.Tiles(64, 0, 4, 3), kernels.Tiles(128, 0, 8, 2), kernels.Tiles(128, 0, 8, 3)]
        if window:
            choices = [
                kernels.Tiles(64, 32, 4, 2), kernels.Tiles(64, 32, 4, 3), kernels.Tiles(64, 64, 4, 2),
                kernels.Tiles(64, 256, 4, 1), kernels.Tiles(128, 32, 8, 2), kernels.Tiles(128, 64, 8, 2),
            ]  # fmt: skip
        chosen = kernels.WINDOW_TILES if window else kernels.GRID_TILES
        for tiles in choices:
            arguments = (table_h, table_w, heads, dim**-0.5, tiles)
            if window:
                run = functools.partial(kernels.attend_windows, qkv, outside, *arguments)
            else:
                run = functools.partial(kernels.attend_grid, qkv, *arguments)
            bench.check(f"{name} attention kernel, {tiles}, error", distance(run(), expected), at_most=0.01)
            rows.append((bench.milliseconds(run), name, tiles, tiles == chosen))
    for ms, name, tiles, is_chosen in sorted(rows, key=lambda row: (row[1], row[0])):
        bench.row(f"{name} attention of one layer, {tiles}", ms, None, None, "the default" if is_chosen else "")


def plain_attention(qkv: Tensor, outside: Tensor, table_h: Tensor, table_w: Tensor, heads: int, window: int) -> Tensor:
    """What `attention_kernels` computes, by the formula in float32, a head at a time: (B, h, w, C)."""
    batch, height, width, channels = qkv.shape
    side = window or max(height, width)
    full = outside.expand(batch, -(-height // side) * side, -(-width // side) * side, -1).clone()
    full[:, :height, :width] = qkv
    windows = full.unflatten(2, (-1, side)).unflatten(1, (-1, side)).transpose(2, 3)  # (B, down, across, S, S, 3 C)
    table_h, table_w = table_h.float(), table_w.float()
    out = full.new_empty(*windows.shape[:-1], channels // 3, dtype=torch.float32)
    for head, (q, k, v) in enumerate(windows.unflatten(-1, (3, heads, -1)).float().permute(6, 5, 0, 1, 2, 3, 4, 7)):
        scores = q.flatten(3, 4) @ k.flatten(3, 4).transpose(-1, -2) * q.shape[-1] ** -0.5
        down = torch.einsum("bijyxd,yvd->bijyxv", q, table_h).unsqueeze(-1)
        across = torch.einsum("bijyxd,xud->bijyxu", q, table_w).unsqueeze(-2)
        shares = (scores + (down + across).flatten(5, 6).flatten(3, 4)).softmax(-1)
        out[..., head * q.shape[-1] : (head + 1) * q.shape[-1]] = (shares @ v.flatten(3, 4)).unflatten(3, (side, side))
    return out.transpose(2, 3).flatten(3, 4).flatten(1, 2)[:, :height, :width]


def encode(bench: Bench, models: Models) -> None:
    """The encoder in all its forms, for batches that fit a graph and one that is filled up."""
    torch.manual_seed(1)
    count = max(bench.batches)
    pixels = torch.randn(count, 3, models.side, models.side, device=bench.device)
    half = pixels.bfloat16()
    expected = torch.cat([models.float32.get_image_embeddings(one) for one in pixels.split(1)])
    bench.rounding = theirs = distance(
        torch.cat([models.bf16.get_image_embeddings(one) for one in half.split(1)]), expected
    )
    bench.note(f"Hugging Face's embeddings in bfloat16 are {theirs:.4f} from those in float32")
    limit = ROOM * theirs + LEAST_ROOM
    make = functools.partial(CudaEncoder, models.ours.vision_encoder, MEAN, STD)
    fast = make()
    bench.note(f"attention of the encoder as served: {fast.attention}")
    if bench.on_cuda and importlib.util.find_spec("triton"):
        bench.check("the encoder as served uses the kernels", fast.attention == "triton", at_least=1)
    encoders = {"graphs": fast, "no graphs": make(graphs=False)}
    if fast.attention != "folded":
        encoders |= {"folded, graphs": make(kernels=False), "folded, no graphs": make(kernels=False, graphs=False)}
    for name, encoder in encoders.items():
        for size in (1, 3, count):
            bench.check(f"encode {size}, {name}, error", distance(encoder(half[:size]), expected[:size]), at_most=limit)
    again = distance(fast(half[1:2]), expected[1:2])
    bench.check("encode another image by the same graph, error", again, at_most=limit)
    for size in bench.batches:
        now, now32 = half[:size], pixels[:size]
        plain = bench.milliseconds(functools.partial(models.bf16.get_image_embeddings, now))
        slow = bench.milliseconds(functools.partial(models.float32.get_image_embeddings, now32), repeats=3)
        by = {name: bench.milliseconds(functools.partial(encoder, now)) for name, encoder in encoders.items()}
        others = ", ".join(f"{name} {ms:.2f}" for name, ms in by.items() if encoders[name] is not fast)
        ours = by["graphs"]
        floor = bench.milliseconds(gemms(bench, models, size))
        more = f"{1000 * size / ours:.1f} images/s; products alone {floor:.2f}; {others}"
        bench.row(f"encode {size}", ours, plain, slow, more)
    held(bench, f"encoder's graphs for {bench.batches} images", lambda: all_sizes(make(), half, bench.batches))


def all_sizes(encoder: CudaEncoder, pixels: Tensor, sizes: Sequence[int]) -> CudaEncoder:
    for size in sizes:
        encoder(pixels[:size])
    return encoder


def held(bench: Bench, what: str, make: Callable[[], object]) -> None:
    """Note the GPU's memory that is taken for what `make` returns, and for making it."""
    if not bench.on_cuda:
        return
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved(bench.device)
    torch.cuda.reset_peak_memory_stats(bench.device)
    made = make()
    peak = torch.cuda.max_memory_reserved(bench.device) - before
    torch.cuda.empty_cache()
    bench.note(f"{what} hold {(torch.cuda.memory_reserved(bench.device) - before) / 2**30:.2f} GB beside the weights, "
               f"and {peak / 2**30:.2f} GB at the peak of making them")  # fmt: skip
    del made


def gemms(bench: Bench, models: Models, batch: int) -> Callable[[], None]:
    """The matrix products of the encoder's layers and nothing else: no implementation is faster."""
    config = models.ours.config.vision_config
    wide, tokens = config.hidden_size, batch * (models.side // config.patch_size) ** 2
    sides = [(wide, 3 * wide), (wide, wide), (wide, config.mlp_dim), (config.mlp_dim, wide)]
    left = {side: torch.randn(tokens, side, device=bench.device).bfloat16() for side, _ in sides}
    weights = [
        [torch.randn(a, b, device=bench.device).bfloat16() for a, b in sides] for _ in range(config.num_hidden_layers)
    ]

    def run() -> None:
        for layer in weights:
            for weight in layer:
                left[len(weight)] @ weight

    return run


def decode(bench: Bench, models: Models) -> None:
    """The decoder on a ready embedding, and what follows until the masks are on the CPU."""
    generator = torch.Generator().manual_seed(2)
    size = models.side // models.ours.config.vision_config.patch_size
    images = torch.randn(2, 256, size, size, generator=generator).to(bench.device)
    fast, eager = CudaDecoder(models.ours), CudaDecoder(models.ours, graphs=False)
    labels = torch.tensor(BOX_CORNERS)
    for count in bench.boxes:
        corners = models.side * torch.rand(count, 2, 2, generator=generator).sort(dim=1).values
        boxes = corners.flatten(1)[None].to(bench.device)
        kinds = labels.expand(count, -1)

        def theirs(model: SamModel, image: Tensor, boxes: Tensor = boxes, multimask: bool = False) -> Tensor:
            features = image[None].to(model.dtype)
            found = model(image_embeddings=features, input_boxes=boxes, multimask_output=multimask)
            return found.pred_masks[0]

        for multimask in (False, True):
            expected = [theirs(models.float32, image, multimask=multimask) for image in images]
            error = max(
                distance(theirs(models.bf16, image, multimask=multimask), truth)
                for image, truth in zip(images, expected, strict=True)
            )
            for name, decoder in (("eager", eager), ("graphs", fast)):
                found = [decoder(image.bfloat16(), corners, kinds, multimask=multimask)[0] for image in images]
                ours = max(distance(one, truth) for one, truth in zip(found, expected, strict=True))
                what = f"decode {count}, {3 if multimask else 1} each, {name}, error (Hugging Face's {error:.3g})"
                bench.check(what, ours, at_most=ROOM * error + LEAST_ROOM)
        image, image16 = images[0], images[0].bfloat16()
        ours = bench.milliseconds(functools.partial(fast, image16, corners, kinds, multimask=False))
        bf16 = bench.milliseconds(functools.partial(theirs, models.bf16, image))
        float32 = bench.milliseconds(functools.partial(theirs, models.float32, image))
        plain = bench.milliseconds(functools.partial(eager, image16, corners, kinds, multimask=False))
        bench.row(f"decode {count}", ours, bf16, float32, f"without graphs {plain:.2f}")

    logits, _ = fast(images[0].bfloat16(), corners, kinds, multimask=False)
    resized_hw = resized_size(bench.photo_hw, models.side)
    arguments = (models.side, resized_hw, bench.photo_hw)
    packed = pack_masks(logits, *arguments).cpu().numpy()
    wrong = 0
    for one, its_packed in zip(logits, packed, strict=True):
        mask = plain_mask(one, *arguments).cpu().numpy()
        wrong += int((unpack_bits(its_packed, bench.photo_hw[1]) != mask).sum())
    bench.check(f"pixels that packing {len(packed)} masks changes", wrong, at_most=0)
    ours = bench.milliseconds(lambda: pack_masks(logits, *arguments).cpu())
    plain = bench.milliseconds(lambda: [plain_mask(one, *arguments).cpu() for one in logits], repeats=3)
    case = f"{len(packed)} masks of {bench.photo_hw[1]}×{bench.photo_hw[0]} to the CPU"
    bench.row(case, ours, plain, None, "as bits; beside it, as bytes and one by one")
    decoder = CudaDecoder(models.ours)
    held(bench, f"decoder's graphs for {count} boxes", lambda: decoder(image16, corners, kinds, multimask=False))


def plain_mask(logits: Tensor, square: int, resized_hw: tuple[int, int], size_hw: tuple[int, int]) -> Tensor:
    """(M, h, w) -> (M, H, W) bool, as Hugging Face's `post_process_masks`."""
    found = F.interpolate(logits[None].float(), (square, square), mode="bilinear", align_corners=False)
    found = found[..., : resized_hw[0], : resized_hw[1]]
    return F.interpolate(found, size_hw, mode="bilinear", align_corners=False)[0] > 0


def both_lanes(bench: Bench, models: Models) -> None:
    """Encoder and decoder from two threads with streams of their own, both capturing: the answers must not change."""
    torch.manual_seed(3)
    pixels = torch.randn(max(bench.batches), 3, models.side, models.side, device=bench.device).bfloat16()
    size = models.side // models.ours.config.vision_config.patch_size
    image = torch.randn(256, size, size, device=bench.device).bfloat16()
    counts = (1, 3, 16, 64) if bench.on_cuda else (1, 3)
    corners = models.side * torch.rand(counts[-1], 2, 2)
    kinds = torch.tensor(BOX_CORNERS).expand(counts[-1], -1)
    plain_encoder = CudaEncoder(models.ours.vision_encoder, MEAN, STD, graphs=False)
    plain_decoder = CudaDecoder(models.ours, graphs=False)
    expected = plain_encoder(pixels[:1])
    expected_masks = {n: plain_decoder(image, corners[:n], kinds[:n], multimask=False)[0] for n in counts}
    encoder, decoder = CudaEncoder(models.ours.vision_encoder, MEAN, STD), CudaDecoder(models.ours)
    bench.wait()
    errors: dict[str, float] = {}
    latencies: list[float] = []
    failures: list[str] = []
    stop = threading.Event()

    def finish(ready: Callable[[], None]) -> None:
        try:
            with torch.inference_mode():
                ready()
        except Exception:  # of another thread: told by `failures`
            failures.append(traceback.format_exc())
        finally:
            stop.set()

    def encode_all() -> None:
        with bench.stream():
            found = []
            for round_ in range(bench.repeats):
                encoder(pixels)
                found.append(encoder(pixels[:1] if round_ % 2 == 0 else pixels[:3])[:1].float().cpu())
            errors["encode"] = max(distance(one, expected.cpu()) for one in found)

    def decode_all() -> None:
        with bench.stream(priority=-1):
            worst = 0.0
            while not stop.is_set() or not latencies:
                for n in counts:
                    began = time.perf_counter()
                    found = decoder(image, corners[:n], kinds[:n], multimask=False)[0].cpu()
                    if n == 1:
                        latencies.append(1000 * (time.perf_counter() - began))
                    worst = max(worst, distance(found, expected_masks[n].cpu()))
            errors["decode"] = worst

    threads = [threading.Thread(target=finish, args=(work,)) for work in (encode_all, decode_all)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise RuntimeError("\n".join(failures))
    for name, error in errors.items():
        what = f"{name} while the other lane works, distance from alone and without graphs"
        bench.check(what, error, at_most=2 * bench.rounding + LEAST_ROOM)
    p50, p99 = np.percentile(latencies[1:] or latencies, (50, 99))  # the first call captures
    bench.row("decode 1 while batches are encoded", float(p50), None, None, f"p99 {p99:.2f}; masks' copy included")


def transfers(bench: Bench, models: Models) -> None:
    """Pixels to the device as bytes, normalised there, against float32 made on the CPU."""
    height, width = resized_size(bench.photo_hw, models.side)
    rng = np.random.default_rng(4)
    images = [rng.integers(0, 256, (height, width, 3), dtype=np.uint8) for _ in range(max(bench.batches))]
    mean, std = MEAN.to(bench.device), STD.to(bench.device)
    plain = torch.zeros(len(images), 3, models.side, models.side)
    for its_pixels, image in zip(plain, images, strict=True):
        its_pixels[:, :height, :width] = (torch.from_numpy(image).permute(2, 0, 1) / 255 - MEAN.reshape(3, 1, 1)) / (
            STD.reshape(3, 1, 1)
        )
    found = normalize(*upload(images, models.side, bench.device), mean, std, torch.float32)
    bench.check("pixels normalised on the device, error", distance(found.cpu(), plain), at_most=1e-6)
    sent = bench.milliseconds(lambda: upload(images[:1], models.side, bench.device))
    sent_plain = bench.milliseconds(lambda: plain[:1].to(bench.device))
    bench.row(
        "one image to the device",
        sent,
        None,
        sent_plain,
        f"as bytes, {models.side**2 * 3e-6 / sent:.1f} GB/s; beside it, as float32",
    )
    encoder = CudaEncoder(models.ours.vision_encoder, MEAN, STD)
    both = distance(encoder.encode_images(images[:2]), encoder(plain[:2].to(bench.device).bfloat16()))
    bench.check("encode of bytes, distance from encode of float32 pixels", both, at_most=2 * bench.rounding)
    ours = bench.milliseconds(lambda: encoder.encode_images(images[:1]))
    bench.row("encode 1 from bytes on the CPU", ours, None, None)


def demo(bench: Bench) -> None:
    """Mean mask IoU on the demo weights with Hugging Face's modules in float32."""
    reference = Segmenter.load(DEMO, bench.device, torch.float32, fast=False)
    plain = Segmenter.load(DEMO, bench.device, torch.bfloat16, fast=False)
    served = Segmenter.load(DEMO, bench.device, torch.bfloat16)
    half = in_16_bits(SamModel.from_pretrained(DEMO).float().to(bench.device).eval())
    encoder, decoder = CudaEncoder(half.vision_encoder, MEAN, STD), CudaDecoder(half)
    labels = torch.tensor(BOX_CORNERS)

    def parts(image: np.ndarray, boxes_xyxy: np.ndarray) -> np.ndarray:
        """Encoder, decoder and packing without what is around them in the service: (N, 1, H, W) bool."""
        sample = reference.preprocess(image)
        features = encoder.encode_images([sample.image])[0]
        scale = np.array(sample.resized_hw[::-1]) / np.array(sample.size_hw[::-1])
        corners = torch.from_numpy((boxes_xyxy.reshape(-1, 2, 2) * scale).astype(np.float32))
        logits, _ = decoder(features, corners, labels.expand(len(corners), -1), multimask=False)
        packed = pack_masks(logits, reference.image_size, sample.resized_hw, sample.size_hw)
        return unpack_bits(packed.cpu().numpy(), sample.size_hw[1])

    ious: dict[str, list[float]] = {"Hugging Face's bfloat16": [], "as served": [], "encoder, decoder, packing": []}
    for seed in range(bench.scenes):
        scene = render_scene(np.random.default_rng(seed), (300, 400))
        if not len(scene.boxes_xyxy):
            continue
        prompts = Prompts(boxes_xyxy=scene.boxes_xyxy.astype(np.float64))
        expected = reference.segment(scene.image, prompts).masks
        found = (plain.segment(scene.image, prompts).masks, served.segment(scene.image, prompts).masks)
        for values, masks in zip(ious.values(), (*found, parts(scene.image, scene.boxes_xyxy)), strict=True):
            either, both = (masks | expected).sum((1, 2, 3)), (masks & expected).sum((1, 2, 3))
            values += np.where(either == 0, 1.0, both / np.maximum(either, 1)).tolist()
    theirs, *ours = (statistics.mean(values) for values in ious.values())
    for name, iou in zip(list(ious)[1:], ours, strict=True):
        what = f"mean IoU with float32 over {len(ious[name])} masks of the demo weights, {name}"
        bench.check(f"{what} (Hugging Face's bfloat16 {theirs:.4f})", iou, at_least=min(LEAST_IOU, theirs - 0.002))


def served(bench: Bench) -> None:
    """`Segmenter` as the engine calls it: images and prompts of several kinds in one batch, on the last device."""
    device = bench.device
    if device.type == "cuda":  # a current device that is not the model's would go unnoticed with the first
        device = torch.device("cuda", torch.cuda.device_count() - 1)
    scenes = [render_scene(np.random.default_rng(seed), (300, 400)) for seed in range(2)]
    boxes = np.array([[40.0, 30.0, 200.0, 180.0], [120.0, 90.0, 330.0, 290.0], [5.0, 5.0, 60.0, 80.0]])
    points = np.array([[[100.0, 90.0]], [[220.0, 200.0]], [[30.0, 40.0]]])
    kinds = [
        Prompts(boxes_xyxy=boxes),
        Prompts(points_xy=points[:1]),
        Prompts(points_xy=points.repeat(3, axis=1) + np.arange(3)[None, :, None]),
        Prompts(points_xy=points, boxes_xyxy=boxes),
    ]
    for dtype, least in ((torch.float32, 0.999), (torch.bfloat16, 0.98)):
        fast, plain = (Segmenter.load(DEMO, device, dtype, fast=fast) for fast in (True, False))
        embeddings = fast.embed([fast.preprocess(scene.image) for scene in scenes])
        fast.capture_encoder()
        fast.capture_decoder(embeddings[0])
        requests = [DecodeRequest(image, prompts, True) for image in embeddings for prompts in kinds]
        same, all_of_them = 0, 0
        for request, raw in zip(requests, fast.decode_batch(requests), strict=True):
            alone = plain.decode(request.embedding, request.prompts, multimask=True)
            for index in range(len(raw)):
                ours, theirs = fast.postprocess(raw, index), plain.postprocess(alone, index)
                same, all_of_them = same + int((ours == theirs).sum()), all_of_them + ours.size
        bench.check(f"pixels alike in a mixed batch on {device}, {dtype}", same / all_of_them, at_least=least)


def yolof(bench: Bench) -> None:
    """The network alone: what goes before it and after it is done on the CPU."""
    missing = [name for name in ("mmdet", "mmengine", "mmcv") if importlib.util.find_spec(name) is None]
    if missing:
        bench.note(f"YOLOF: not measured, {', '.join(missing)} not installed")
        return
    from benchmarks.random_models import make_yolof
    from models.detector.mmdetection import Detector

    with tempfile.TemporaryDirectory() as scratch:
        folder = DEMO.parent / "yolof"
        if bench.on_cuda:
            folder = Path(scratch, "yolof")
            make_yolof(folder)
        bf16, float32 = (Detector.load(folder, bench.device, dtype) for dtype in (torch.bfloat16, torch.float32))
        plain = Detector.load(folder, bench.device, fast=False)
    image = render_scene(np.random.default_rng(0), bench.photo_hw).image
    alone, whole = [], []
    for detector in (bf16, float32, plain):
        sample = detector.preprocess(image)
        alone.append(bench.milliseconds(functools.partial(detector.forward, [sample])))
        whole.append(bench.milliseconds(functools.partial(detector.detect, [image])))
    for case, (ours, ours32, slow) in (("YOLOF", alone), ("YOLOF from photo to boxes", whole)):
        bench.row(case, ours, None, slow, f"ours in float32 {ours32:.3f}; beside it MMDetection's own network code")


def cold_start(bench: Bench) -> None:
    """A new process until it has encoded and decoded, with Triton's cache empty and then filled."""
    with tempfile.TemporaryDirectory() as cache:
        for name in ("with nothing compiled yet", "with kernels compiled before")[: 2 if bench.on_cuda else 1]:
            command = [sys.executable, "-m", "benchmarks.gpu", "--ready", *([] if bench.on_cuda else ["--cpu"])]
            began = time.monotonic()
            run = subprocess.run(
                command, env=os.environ | {"TRITON_CACHE_DIR": cache}, stdout=subprocess.PIPE, text=True, check=True
            )
            seconds = time.monotonic() - began
            parts = json.loads(run.stdout.splitlines()[-1])
            details = ", ".join(f"{part} {took:.1f} s" for part, took in parts.items())
            bench.check(f"seconds from start to ready, {name} ({details})", seconds, at_most=60)


def ready(bench: Bench) -> None:
    """What a service does until it is ready, but for reading weights from a disk; prints the seconds of each part."""
    marks = [("imports", time.monotonic())]
    model = in_16_bits(random_sam(bench.vision, bench.device))
    bench.wait()
    marks.append(("weights", time.monotonic()))
    encoder, decoder = CudaEncoder(model.vision_encoder, MEAN, STD), CudaDecoder(model)
    encoder.warm_up()
    features = encoder.encode_images([np.zeros((1, 1, 3), np.uint8)])[0]
    bench.wait()
    marks.append(("encoder", time.monotonic()))
    decoder.warm_up(features)
    bench.wait()
    marks.append(("decoder", time.monotonic()))
    print(json.dumps({name: end - start for (_, start), (name, end) in zip(marks, marks[1:], strict=False)}))


def document(bench: Bench) -> str:
    """The result file."""
    checks = table(("check", "found", "limit", ""), bench.checks)
    header = ("case", "ours, ms", "plain bfloat16, ms", "ratio", "plain float32, ms", "target, ms", "")
    return "\n\n".join(
        [
            f"# {machine(bench)}",
            f"{datetime.date.today().isoformat()}, {versions()}, `benchmarks/gpu.sh`",
            "Medians, from the call until the device is done. Plain is Hugging Face's own code unless said otherwise. "
            "An error is the norm of the difference from float32 over float32's own norm.",
            "\n".join(f"- {note}" for note in bench.notes),
            "## Times",
            table(header, bench.times),
            "## Checks",
            checks,
        ]
    ) + "\n"  # fmt: skip


def machine(bench: Bench) -> str:
    return torch.cuda.get_device_name(bench.device) if bench.on_cuda else "No GPU, tiny sizes"


def versions() -> str:
    found = [f"Python {platform.python_version()}"]
    for name in ("torch", "transformers", "triton", "mmdet"):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"no {name}")
    return ", ".join(found)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *rows))


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0, 1 where a check failed, 2 where there is no GPU."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cpu", action="store_true", help="tiny sizes on the processor: shows that the script works")
    parser.add_argument("--out", type=Path, help="folder for the result (default: $OUT, or benchmarks/results)")
    parser.add_argument("--ready", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if not args.cpu and not torch.cuda.is_available():
        print("benchmarks.gpu: no NVIDIA GPU that torch can use; --cpu runs tiny sizes without one", file=sys.stderr)
        return 2
    if args.cpu:
        bench = Bench(torch.device("cpu"), TINY, (1, 2, 4), (1, 3), repeats=1, photo_hw=(96, 128), scenes=2)
    else:
        bench = Bench(torch.device("cuda", torch.cuda.current_device()), HUGE)
    with torch.inference_mode():
        if args.ready:
            ready(bench)
            return 0
        print(f"{machine(bench)}, {versions()}")
        models = Models.random(bench)
        parts = (check_kernels, encode, decode, both_lanes, transfers)
        sections: list[functools.partial[None]] = [functools.partial(part, bench, models) for part in parts]
        sections += [functools.partial(part, bench) for part in (demo, served, yolof, cold_start)]
        for section in sections:
            began = time.monotonic()
            try:
                section()
            except Exception as error:  # the time on a GPU is dear: the rest still runs, and this one has failed
                traceback.print_exc()
                bench.passed = False
                name = section.func.__name__
                bench.checks.append((name, type(error).__name__, "no error", "FAILED"))
            print(f"       {section.func.__name__}: {time.monotonic() - began:.0f} s")
    folder = args.out or Path(os.environ.get("OUT") or RESULTS)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{re.sub('[^a-z0-9]+', '-', machine(bench).lower())}.md"
    path.write_text(document(bench))
    print(f"{'all checks passed' if bench.passed else 'SOME CHECKS FAILED'}; written to {path}")
    return 0 if bench.passed else 1


if __name__ == "__main__":
    sys.exit(main())
