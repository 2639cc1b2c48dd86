"""Triton kernels for attention over an image grid with decomposed relative positions; they build no bias.

Knows tensors only. Needs Triton to be imported, and a CUDA device (or Triton's interpreter) to be called. All
kernels read queries, keys and values where the layer's one projection has written them, and write where the next
projection reads: nothing is permuted, padded or copied in between.

The softmax is computed while the keys pass by, with a running maximum and sum (Milakov and Gimelshein 2018;
Dao et al. 2022), in float32 and to the base of 2. Head dimensions are taken as two powers of two (80 = 64 +
16), since Triton's tiles know no other sizes and 128 would be 60 % more work.
"""

# What Triton compiles is typed by its arguments.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

LOG2_E = math.log2(math.e)
# No side of a tile of Triton's matrix product is shorter.
LEAST_TILE = 16


@dataclass(frozen=True)
class Tiles:
    """How a kernel is cut for the device. queries: rows of a program. keys: of a step, where that is free."""

    queries: int
    keys: int
    warps: int
    stages: int


GRID_TILES = Tiles(queries=128, keys=0, warps=8, stages=3)
WINDOW_TILES = Tiles(queries=128, keys=32, warps=8, stages=2)


def attend_grid(
    qkv: Tensor, table_h: Tensor, table_w: Tensor, heads: int, scale: float, tiles: Tiles = GRID_TILES
) -> Tensor:
    """Attention of every place to every place.

    qkv: (B, H, W, 3 * heads * d) contiguous; W a power of two from 16 on, d as `head_parts` takes it.
    table_h: (H, H, d), table_w: (W, W, d), contiguous: a score q k scale gains q table_h[y, v] + q table_w[x, u],
    where the query is at row y and column x, and the key at v and u (MViTv2, arXiv 2112.01526, eq. 4).
    Returns (B, H, W, heads * d).
    """
    batch, height, width, channels = qkv.shape
    dim = channels // 3 // heads
    count = height * width
    # A step takes one row of keys: what it adds across is the same in every step, what it adds down is a column.
    down = torch.empty(batch * heads, height, count, dtype=torch.float32, device=qkv.device)
    across = torch.empty(batch * heads, count, width, dtype=torch.float32, device=qkv.device)
    _relate(qkv, table_h, table_w, heads, down.transpose(1, 2), across)
    out = torch.empty(batch, height, width, heads * dim, dtype=qkv.dtype, device=qkv.device)
    first, second = head_parts(dim)
    _grid_kernel[(triton.cdiv(count, tiles.queries), batch * heads)](
        qkv, down, across, out, scale * LOG2_E, heads, count,
        ROWS=height, WIDTH=width, DIM=dim, FIRST=first, SECOND=second, QUERIES=tiles.queries,
        num_warps=tiles.warps, num_stages=tiles.stages,
    )  # fmt: skip
    return out


def attend_windows(
    qkv: Tensor,
    outside: Tensor,
    table_h: Tensor,
    table_w: Tensor,
    heads: int,
    scale: float,
    tiles: Tiles = WINDOW_TILES,
) -> Tensor:
    """Attention of every place to the places of its window; windows are laid from the top left corner.

    qkv: (B, H, W, 3 * heads * d) contiguous. outside: (3 * heads * d,), what `qkv` would hold at a window's
    places beyond the image. table_h, table_w: (S, S, d) contiguous, for windows of S x S, S at most 16.
    Returns (B, H, W, heads * d).
    """
    batch, height, width, channels = qkv.shape
    dim = channels // 3 // heads
    window, side = len(table_h), LEAST_TILE
    # The bias is these two times a matrix of zeros and ones, which is made in registers.
    related = torch.empty(batch * heads, height * width, 2 * side, dtype=qkv.dtype, device=qkv.device)
    _relate(qkv, table_h, table_w, heads, related[..., :side], related[..., side:])
    out = torch.empty(batch, height, width, heads * dim, dtype=qkv.dtype, device=qkv.device)
    first, second = head_parts(dim)
    columns = triton.cdiv(width, window)
    grid = (triton.cdiv(window * window, tiles.queries), triton.cdiv(height, window) * columns, batch * heads)
    _window_kernel[grid](
        qkv, outside, related, out, scale * LOG2_E, heads, height, width, columns,
        WINDOW=window, SIDE=side, DIM=dim, FIRST=first, SECOND=second, QUERIES=tiles.queries, KEYS=tiles.keys,
        num_warps=tiles.warps, num_stages=tiles.stages,
    )  # fmt: skip
    return out


def head_parts(dim: int) -> tuple[int, int]:
    """A head dimension as two powers of two from LEAST_TILE on, the second possibly 0.

    Raises ValueError for one that is not their sum.
    """
    first = 1 << max(dim.bit_length() - 1, 0)
    second = dim - first
    if first < LEAST_TILE or second & (second - 1) or 0 < second < LEAST_TILE:
        raise ValueError(f"head dimension {dim}: expected a sum of two powers of two from {LEAST_TILE} on")
    return first, second


def suits(dim: int, window: int, grid_hw: tuple[int, int]) -> bool:
    """Whether there is a kernel for heads of this dimension on this grid. window: a side of each, 0 for global."""
    try:
        head_parts(dim)
    except ValueError:
        return False
    width = grid_hw[1]
    return 0 < window <= LEAST_TILE or (window == 0 and width >= LEAST_TILE and width & (width - 1) == 0)


def _relate(qkv: Tensor, table_h: Tensor, table_w: Tensor, heads: int, down: Tensor, across: Tensor) -> None:
    """Fill `down` and `across` with every query times the tables' rows for its place, to the base of 2.

    down: (B * heads, H * W, at least len(table_h)), across: likewise, of any strides; the surplus becomes 0.
    """
    batch, height, width, channels = qkv.shape
    dim = channels // 3 // heads
    first, second = head_parts(dim)
    longest = max(height, width)
    _relative_kernel[(longest, batch * heads, 2)](
        qkv, table_h, table_w, down, across, LOG2_E, heads, height, width,
        len(table_h), len(table_w), down.shape[2], across.shape[2], *down.stride(), *across.stride(),
        DIM=dim, FIRST=first, SECOND=second,
        LINE=max(LEAST_TILE, triton.next_power_of_2(longest)),
        KEYS=max(LEAST_TILE, triton.next_power_of_2(max(down.shape[2], across.shape[2]))),
        num_warps=4,
    )  # fmt: skip


@triton.jit
def _relative_kernel(
    qkv, table_h, table_w, down, across, factor, heads, height, width,
    size_h, size_w, kept_h, kept_w, down_0, down_1, down_2, across_0, across_1, across_2,
    DIM: tl.constexpr, FIRST: tl.constexpr, SECOND: tl.constexpr, LINE: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    """One image row (axis 0) or column (axis 1) of one head: all its queries share the tables' row."""
    line = tl.program_id(0)
    image_head = tl.program_id(1)
    along = tl.arange(0, LINE)
    keys = tl.arange(0, KEYS)
    if tl.program_id(2) == 0:
        place = line * width + along
        real = (along < width) & (line < height)
        table = table_h + (line % size_h) * size_h * DIM
        size, kept = size_h, kept_h
        target = down + image_head.to(tl.int64) * down_0 + place[:, None] * down_1 + keys[None, :] * down_2
    else:
        place = along * width + line
        real = (along < height) & (line < width)
        table = table_w + (line % size_w) * size_w * DIM
        size, kept = size_w, kept_w
        target = across + image_head.to(tl.int64) * across_0 + place[:, None] * across_1 + keys[None, :] * across_2
    step = 3 * heads * DIM
    image = (image_head // heads).to(tl.int64)
    queries = qkv + image * height * width * step + (image_head % heads) * DIM + place * step
    part = tl.arange(0, FIRST)
    q = tl.load(queries[:, None] + part[None, :], mask=real[:, None], other=0.0)
    t = tl.load(table + keys[None, :] * DIM + part[:, None], mask=keys[None, :] < size, other=0.0)
    related = tl.dot(q, t)
    if SECOND > 0:
        rest = FIRST + tl.arange(0, SECOND)
        q = tl.load(queries[:, None] + rest[None, :], mask=real[:, None], other=0.0)
        t = tl.load(table + keys[None, :] * DIM + rest[:, None], mask=keys[None, :] < size, other=0.0)
        related = tl.dot(q, t, related)
    tl.store(target, (related * factor).to(target.dtype.element_ty), mask=real[:, None] & (keys[None, :] < kept))


@triton.jit
def _grid_kernel(
    qkv, down, across, out, factor, heads, count,
    ROWS: tl.constexpr, WIDTH: tl.constexpr, DIM: tl.constexpr, FIRST: tl.constexpr, SECOND: tl.constexpr,
    QUERIES: tl.constexpr,
):  # fmt: skip
    """QUERIES places of one head, against one row of keys after the other."""
    place = tl.program_id(0) * QUERIES + tl.arange(0, QUERIES)
    image_head = tl.program_id(1).to(tl.int64)
    image, head = image_head // heads, image_head % heads
    real = place < count
    column = tl.arange(0, WIDTH)
    part = tl.arange(0, FIRST)
    step = 3 * heads * DIM
    base = qkv + image * count * step + head * DIM
    queries = base + place * step
    keys = base + heads * DIM + column * step
    values = keys + heads * DIM
    q = tl.load(queries[:, None] + part[None, :], mask=real[:, None], other=0.0)
    sums = tl.zeros([QUERIES, FIRST], tl.float32)
    if SECOND > 0:
        rest = FIRST + tl.arange(0, SECOND)
        q_rest = tl.load(queries[:, None] + rest[None, :], mask=real[:, None], other=0.0)
        sums_rest = tl.zeros([QUERIES, SECOND], tl.float32)
    across_here = across + (image_head * count + place[:, None]) * WIDTH + column[None, :]
    bias_w = tl.load(across_here, mask=real[:, None], other=0.0)
    down_here = down + image_head * ROWS * count + place
    most = tl.full([QUERIES], float("-inf"), tl.float32)
    total = tl.zeros([QUERIES], tl.float32)
    for key_row in range(ROWS):
        here = key_row * WIDTH * step
        scores = tl.dot(q, tl.load(keys[None, :] + here + part[:, None]))
        if SECOND > 0:
            scores = tl.dot(q_rest, tl.load(keys[None, :] + here + rest[:, None]), scores)
        bias_h = tl.load(down_here + key_row * count, mask=real, other=0.0)
        scores = scores * factor + bias_w + bias_h[:, None]
        new_most = tl.maximum(most, tl.max(scores, 1))
        shrink = tl.exp2(most - new_most)
        scores = tl.exp2(scores - new_most[:, None])
        total = total * shrink + tl.sum(scores, 1)
        shares = scores.to(out.dtype.element_ty)
        sums = tl.dot(shares, tl.load(values[:, None] + here + part[None, :]), sums * shrink[:, None])
        if SECOND > 0:
            v_rest = tl.load(values[:, None] + here + rest[None, :])
            sums_rest = tl.dot(shares, v_rest, sums_rest * shrink[:, None])
        most = new_most
    target = out + (image * count + place) * (heads * DIM) + head * DIM
    sums = sums / total[:, None]
    tl.store(target[:, None] + part[None, :], sums.to(out.dtype.element_ty), mask=real[:, None])
    if SECOND > 0:
        sums_rest = sums_rest / total[:, None]
        tl.store(target[:, None] + rest[None, :], sums_rest.to(out.dtype.element_ty), mask=real[:, None])


@triton.jit
def _window_kernel(
    qkv, outside, related, out, factor, heads, height, width, columns,
    WINDOW: tl.constexpr, SIDE: tl.constexpr, DIM: tl.constexpr, FIRST: tl.constexpr, SECOND: tl.constexpr,
    QUERIES: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    """QUERIES places of one window of one head, against KEYS of its places after the other."""
    top = (tl.program_id(1) // columns) * WINDOW
    left = (tl.program_id(1) % columns) * WINDOW
    image_head = tl.program_id(2).to(tl.int64)
    image, head = image_head // heads, image_head % heads
    part = tl.arange(0, FIRST)
    side = tl.arange(0, 2 * SIDE)
    step = 3 * heads * DIM
    base = qkv + image * height * width * step + head * DIM
    beyond = outside + head * DIM

    number = tl.program_id(0) * QUERIES + tl.arange(0, QUERIES)
    y, x = top + number // WINDOW, left + number % WINDOW
    real = (number < WINDOW * WINDOW) & (y < height) & (x < width)
    place = y * width + x
    queries = base + place * step
    q = tl.load(queries[:, None] + part[None, :], mask=real[:, None], other=0.0)
    sums = tl.zeros([QUERIES, FIRST], tl.float32)
    if SECOND > 0:
        rest = FIRST + tl.arange(0, SECOND)
        q_rest = tl.load(queries[:, None] + rest[None, :], mask=real[:, None], other=0.0)
        sums_rest = tl.zeros([QUERIES, SECOND], tl.float32)
    related_here = related + (image_head * height * width + place[:, None]) * (2 * SIDE) + side[None, :]
    bias = tl.load(related_here, mask=real[:, None], other=0.0)
    most = tl.full([QUERIES], float("-inf"), tl.float32)
    total = tl.zeros([QUERIES], tl.float32)
    for start in range(0, WINDOW * WINDOW, KEYS):
        key = start + tl.arange(0, KEYS)
        key_row, key_column = key // WINDOW, key % WINDOW
        exists = key < WINDOW * WINDOW
        inside = exists & (top + key_row < height) & (left + key_column < width)
        key_at = base + heads * DIM + ((top + key_row) * width + left + key_column) * step
        k = _load_keys(key_at, beyond + heads * DIM, inside, part)
        scores = tl.dot(q, tl.trans(k))
        if SECOND > 0:
            k = _load_keys(key_at, beyond + heads * DIM, inside, rest)
            scores = tl.dot(q_rest, tl.trans(k), scores)
        # Which row and which column of the window a key is in
        which = (side[:, None] == key_row[None, :]) | (side[:, None] - SIDE == key_column[None, :])
        scores = tl.dot(bias, which.to(bias.dtype), scores * factor)
        scores = tl.where(exists[None, :], scores, float("-inf"))
        new_most = tl.maximum(most, tl.max(scores, 1))
        shrink = tl.exp2(most - new_most)
        scores = tl.exp2(scores - new_most[:, None])
        total = total * shrink + tl.sum(scores, 1)
        shares = scores.to(out.dtype.element_ty)
        value_at = key_at + heads * DIM
        v = _load_keys(value_at, beyond + 2 * heads * DIM, inside, part)
        sums = tl.dot(shares, v, sums * shrink[:, None])
        if SECOND > 0:
            v = _load_keys(value_at, beyond + 2 * heads * DIM, inside, rest)
            sums_rest = tl.dot(shares, v, sums_rest * shrink[:, None])
        most = new_most
    target = out + (image * height * width + place) * (heads * DIM) + head * DIM
    sums = sums / total[:, None]
    tl.store(target[:, None] + part[None, :], sums.to(out.dtype.element_ty), mask=real[:, None])
    if SECOND > 0:
        sums_rest = sums_rest / total[:, None]
        tl.store(target[:, None] + rest[None, :], sums_rest.to(out.dtype.element_ty), mask=real[:, None])


@triton.jit
def _load_keys(at, beyond, inside, part):
    """(KEYS, d): what stands at the pointers, and `beyond` where the window leaves the image."""
    loaded = tl.load(at[:, None] + part[None, :], mask=inside[:, None], other=0.0)
    return tl.where(inside[:, None], loaded, tl.load(beyond + part)[None, :])
