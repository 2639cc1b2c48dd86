"""The kernels run in Triton's interpreter, which knows no bfloat16; `benchmarks/gpu.sh` checks them on a GPU."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from types import ModuleType

import pytest
import torch
from torch import Tensor
from transformers import SamConfig, SamModel
from transformers.models.sam.modeling_sam import SamVisionAttention

from models.segmenter.cuda.sam import KernelEncoder, suits

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


def test_in_the_interpreter() -> None:
    """Triton interprets only where it has been told so before its first import, so in a process of its own."""
    pytest.importorskip("triton")
    if INTERPRETED:
        pytest.skip("this is it")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__]
    run = subprocess.run(command, env=os.environ | {"TRITON_INTERPRET": "1"}, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.fixture(scope="module")
def kernels() -> ModuleType:
    pytest.importorskip("triton")
    if not INTERPRETED:
        pytest.skip("runs within test_in_the_interpreter")
    return importlib.import_module("models.segmenter.cuda.attention_kernels")


def explicit(qkv: Tensor, table_h: Tensor, table_w: Tensor, heads: int, scale: float) -> Tensor:
    """Attention over whole grids, by the formula: (n, h, w, 3 C) -> (n, h, w, C) in float64."""
    n, height, width, _ = qkv.shape
    q, k, v = qkv.double().unflatten(-1, (3, heads, -1)).permute(3, 0, 4, 1, 2, 5)
    scores = torch.einsum("nayxd,navud->nayxvu", q, k) * scale
    scores = scores + torch.einsum("nayxd,yvd->nayxv", q, table_h.double()).unsqueeze(-1)
    scores = scores + torch.einsum("nayxd,xud->nayxu", q, table_w.double()).unsqueeze(-2)
    shares = scores.flatten(-2).softmax(-1).unflatten(-1, (height, width))
    return torch.einsum("nayxvu,navud->nyxad", shares, v).flatten(-2)


def explicit_windows(
    qkv: Tensor, outside: Tensor, table_h: Tensor, table_w: Tensor, heads: int, scale: float
) -> Tensor:
    """Each window by itself, filled up with `outside`."""
    batch, height, width, channels = qkv.shape
    side = len(table_h)
    out = torch.empty(batch, height, width, channels // 3, dtype=torch.float64)
    for top in range(0, height, side):
        for left in range(0, width, side):
            part = qkv[:, top : top + side, left : left + side]
            window = outside.expand(batch, side, side, -1).clone()
            window[:, : part.shape[1], : part.shape[2]] = part
            attended = explicit(window, table_h, table_w, heads, scale)
            out[:, top : top + side, left : left + side] = attended[:, : part.shape[1], : part.shape[2]]
    return out


def inputs(shape: tuple[int, int, int], heads: int, dim: int, dtype: torch.dtype, window: int) -> list[Tensor]:
    """qkv, outside, table_h, table_w."""
    torch.manual_seed(0)
    batch, height, width = shape
    qkv, outside = torch.randn(batch, height, width, 3 * heads * dim), torch.randn(3 * heads * dim)
    tables = (0.3 * torch.randn(side, side, dim) for side in (window or height, window or width))
    return [x.to(dtype) for x in (qkv, outside, *tables)]


def distance(found: Tensor, expected: Tensor) -> float:
    return float((found.double() - expected).norm() / expected.norm())


@pytest.mark.parametrize(
    ("shape", "heads", "dim", "dtype", "within"),
    [
        ((2, 3, 16), 2, 80, torch.float32, 1e-5),
        ((1, 5, 32), 1, 64, torch.float16, 2e-3),
        ((1, 2, 16), 1, 48, torch.float32, 1e-5),
    ],
)
def test_global_attention(
    kernels: ModuleType, shape: tuple[int, int, int], heads: int, dim: int, dtype: torch.dtype, within: float
) -> None:
    qkv, _, table_h, table_w = inputs(shape, heads, dim, dtype, 0)
    tiles = kernels.Tiles(queries=32, keys=0, warps=4, stages=2)
    found = kernels.attend_grid(qkv, table_h, table_w, heads, dim**-0.5, tiles)
    assert distance(found, explicit(qkv, table_h, table_w, heads, dim**-0.5)) < within


@pytest.mark.parametrize(
    ("shape", "window", "heads", "dim", "dtype", "within"),
    [
        ((2, 5, 6), 4, 2, 80, torch.float32, 1e-5),  # filled up below and on the right
        ((1, 9, 14), 14, 1, 64, torch.float16, 2e-3),  # more places in a window than in a tile
        ((1, 4, 8), 4, 1, 32, torch.float32, 1e-5),
    ],
)
def test_window_attention(
    kernels: ModuleType,
    shape: tuple[int, int, int],
    window: int,
    heads: int,
    dim: int,
    dtype: torch.dtype,
    within: float,
) -> None:
    tensors = inputs(shape, heads, dim, dtype, window)
    tiles = kernels.Tiles(queries=64, keys=32, warps=4, stages=2)
    found = kernels.attend_windows(*tensors, heads, dim**-0.5, tiles)
    assert distance(found, explicit_windows(*tensors, heads, dim**-0.5)) < within


def test_encoder_is_hugging_faces(kernels: ModuleType) -> None:
    vision = {
        "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "mlp_dim": 48, "image_size": 128,
        "patch_size": 8, "output_channels": 16, "num_pos_feats": 8, "window_size": 11, "global_attn_indexes": [1],
    }  # fmt: skip
    torch.manual_seed(0)
    encoder = SamModel(SamConfig(vision_config=vision)).vision_encoder.eval()
    with torch.no_grad():
        for module in encoder.modules():
            if isinstance(module, torch.nn.Linear | torch.nn.Conv2d):
                module.reset_parameters()
            elif isinstance(module, SamVisionAttention):
                module.rel_pos_h.normal_()
                module.rel_pos_w.normal_()
        encoder.pos_embed.normal_()
        pixels = torch.randn(1, 3, 128, 128)
        assert suits(encoder, kernels)
        expected = encoder(pixels).last_hidden_state
        assert distance(KernelEncoder(encoder, kernels)(pixels), expected.double()) < 1e-5


@pytest.mark.parametrize(
    ("dim", "window", "grid_hw", "suited"),
    [
        (80, 14, (64, 64), True), (80, 0, (64, 64), True), (64, 0, (5, 16), True), (128, 16, (9, 9), True),
        (72, 0, (64, 64), False), (8, 14, (64, 64), False), (80, 17, (64, 64), False), (80, 0, (64, 48), False),
        (80, 0, (8, 8), False),
    ],
)  # fmt: skip
def test_what_no_kernel_can_do_is_known(
    kernels: ModuleType, dim: int, window: int, grid_hw: tuple[int, int], suited: bool
) -> None:
    assert kernels.suits(dim, window, grid_hw) is suited
