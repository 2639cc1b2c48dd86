"""SAM's encoder and decoder, part by part, against their plain twins."""

from __future__ import annotations

import functools
import importlib.util
import os
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import SamModel

from benchmarks.gpu.bench import LEAST_ROOM, ROOM, Bench, distance
from benchmarks.gpu.random_sam import MEAN, STD, Models
from models.segmenter.cuda.sam import CudaDecoder, CudaEncoder
from models.segmenter.decoder import BOX_CORNERS
from models.segmenter.mask_packing import pack_masks, unpack_bits
from models.square_images import resized_size


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
