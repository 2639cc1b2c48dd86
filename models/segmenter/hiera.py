"""SAM 2's image encoder, Hiera with its neck, several ways cheaper than Hugging Face's own forward, with its answers.

Knows one `Sam2Model` and tensors; nothing of images, prompts, files, or who waits for it.

What it does otherwise:

- Windows that do not meet go through layer after layer together, a few rows of them at a time, so that what they need
  stays in the processor's cache. They are taken out of the grid and put back only where the windows change.
- Windows that stick out over the grid's edge compute nothing for their pad tokens. A pad token is zero when it is
  projected, so its key and value are the bias of the projection: they are filled in, not computed.
- The embedding of every place is resolved when the encoder is made. The published attention computes scores that
  nobody reads; here it does not.
- Of a stage's tokens the neck's projection is kept, not the tokens, see `models.segmenter.pyramid`.
- In float32, projections and MLP add into the residual in place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import Sam2Model
from transformers.activations import GELUActivation
from transformers.models.sam2 import modeling_sam2 as hf

from models.segmenter.encoder import UnknownEncoder
from models.segmenter.pyramid import Pyramid
from models.segmenter.window_layout import Block, Layout

Size = tuple[int, int]

# Numbers in what an MLP computes for as many tokens as are taken at once, on a CPU. A quarter of it was slower.
_NUMBERS = 3 << 21
# Attention scores at once where all tokens see each other.
_SCORES = 4 << 20


def _nothing() -> None:
    pass


@dataclass(frozen=True, eq=False)
class _Layer:
    """A Hugging Face layer. pools: whether it makes one token of four. stage: which stage ends with it, if one does."""

    module: hf.Sam2MultiScaleBlock
    pools: bool
    stage: int | None

    @property
    def channels(self) -> int:
        return self.module.dim_out


@dataclass(frozen=True, eq=False)
class _Run:
    """Layers one after the other whose windows do not meet. layout: None for one layer whose tokens all meet."""

    layout: Layout | None
    grid_hw: Size
    layers: list[_Layer] = field(default_factory=list)

    @property
    def grid_hw_after(self) -> Size:
        shrunk = 2 ** sum(layer.pools for layer in self.layers)
        return self.grid_hw[0] // shrunk, self.grid_hw[1] // shrunk


@dataclass(frozen=True)
class _Windows:
    """Some rows of a block's windows, of some images."""

    block: Block
    images: slice
    rows: slice

    @property
    def shape(self) -> tuple[int, int, int]:
        """How many, and their height and width."""
        windows = (self.images.stop - self.images.start) * (self.rows.stop - self.rows.start) * self.block.across
        return windows, self.block.height, self.block.width

    def of(self, grid: Tensor) -> Tensor:
        """Their part of (B, h, w, C), as a view (b, down, across, height, width, C)."""
        return self.block.of(grid)[self.images, self.rows]

    def pooled(self) -> _Windows:
        """The same where four tokens have become one."""
        one = self.block
        half = replace(one, top=one.top // 2, left=one.left // 2, height=one.height // 2, width=one.width // 2)
        return replace(self, block=half)


class HieraEncoder:
    """The image encoder of a Hugging Face `Sam2Model`, prepared; call it as often as wanted, in any thread.

    Weights are the module's own, but the embedding of places and the neck are resolved when it is made: after new
    weights, another device or another dtype, make a new one.
    """

    def __init__(self, model: Sam2Model) -> None:
        """model: on its device and in its dtype.

        Raises UnknownEncoder where a part is of another class than Hugging Face's, or the neck is not as published.
        """
        backbone = model.vision_encoder.backbone
        _check(backbone)
        self._embed = backbone.patch_embed.projection
        weight = self._embed.weight
        self._on_cpu = weight.device.type == "cpu"
        self._image_size: int = model.prompt_encoder.input_image_size
        (kernel, _), (stride, _), (padding, _) = self._embed.kernel_size, self._embed.stride, self._embed.padding
        side = (self._image_size + 2 * int(padding) - kernel) // stride + 1
        with torch.no_grad():
            self._pyramid = Pyramid(model)
            self._filters = weight.contiguous(memory_format=torch.channels_last)
            places = backbone._get_pos_embed((side, side))  # (1, h, w, C)
            self._places = places if self._embed.bias is None else places + self._embed.bias
        self._runs = list(_runs(backbone, (side, side)))

    @torch.no_grad()
    def __call__(self, pixels: Tensor, between: Callable[[], None] | None = None) -> Tensor:
        """(B, 3, S, S) -> (B, 4 * C, h, w): the features of three grids, as `Pyramid.joined` gives them.

        between: called in this thread after every piece of work, a hundred times and more for a full-size SAM 2 on a
        CPU; may do anything, other work in torch and other calls of this encoder included. What it raises ends the
        call. Raises ValueError for pixels of another size than the encoder's.
        """
        if pixels.shape[-2:] != (self._image_size, self._image_size):
            raise ValueError(f"expected {self._image_size} x {self._image_size} pixels, got {tuple(pixels.shape)}")
        between = between or _nothing
        pixels = pixels.to(self._filters.dtype).contiguous(memory_format=torch.channels_last)
        grid = F.conv2d(pixels, self._filters, None, self._embed.stride, self._embed.padding)
        grid = grid.permute(0, 2, 3, 1).contiguous().add_(self._places)
        between()
        found = self._pyramid.empty(grid, [_grid_of(self._runs, stage) for stage in range(4)])
        for run in self._runs:
            if run.layout is None:
                self._all_together(run.layers[0], grid, found, between)
            else:
                grid = self._by_window(run, run.layout, grid, found, between)
        features = self._pyramid.joined(found)
        between()
        return features

    def _by_window(
        self, run: _Run, layout: Layout, grid: Tensor, found: list[Tensor], between: Callable[[], None]
    ) -> Tensor:
        """Layers whose windows do not meet, on (B, h, w, C), some windows at a time -> (B, h', w', C')."""
        after = grid.new_empty(len(grid), *run.grid_hw_after, run.layers[-1].channels)
        for windows in self._portions(run, layout.blocks, len(grid)):
            window_hw = layout.window_hw
            rows = torch.cat([one.of(grid).flatten(0, -2) for one in windows])
            for layer in run.layers:
                rows = self._layer(layer, rows, windows, window_hw, between)
                if layer.pools:
                    windows, window_hw = [one.pooled() for one in windows], (window_hw[0] // 2, window_hw[1] // 2)
                if layer.stage is not None:
                    _put(windows, found[layer.stage], self._pyramid.project(layer.stage, rows))
            _put(windows, after, rows)
            between()
        return after

    def _portions(self, run: _Run, blocks: list[Block], batch: int) -> Iterator[list[_Windows]]:
        """All windows; on a CPU those of an image that go through a run at once, or a few rows of windows."""
        all_rows = [slice(0, block.down) for block in blocks]
        if not self._on_cpu:
            yield [_Windows(block, slice(0, batch), rows) for block, rows in zip(blocks, all_rows, strict=True)]
            return
        widest = max(layer.module.mlp.proj_in.out_features >> 2 * i for i, layer in _pooled(run.layers))
        tokens = _NUMBERS // widest
        for image in (slice(i, i + 1) for i in range(batch)):
            if sum(block.tokens for block in blocks) <= tokens:
                yield [_Windows(block, image, rows) for block, rows in zip(blocks, all_rows, strict=True)]
                continue
            for block in blocks:
                step = max(1, tokens * block.down // block.tokens)
                for row in range(0, block.down, step):
                    yield [_Windows(block, image, slice(row, min(row + step, block.down)))]

    def _layer(
        self, layer: _Layer, rows: Tensor, windows: list[_Windows], window_hw: Size, between: Callable[[], None]
    ) -> Tensor:
        """One layer on the tokens of windows (N, C), which are overwritten -> (N', C')."""
        module, attention = layer.module, layer.module.attn
        shapes = [one.shape for one in windows]  # (n, height, width): the parts of windows that lie in the grid
        sizes = [n * height * width for n, height, width in shapes]
        normed = module.layer_norm1(rows)
        qkv = attention.qkv(normed)
        if module.dim != module.dim_out:
            rows = module.proj(normed)
            if layer.pools:
                parts = zip(rows.split(sizes), shapes, strict=True)
                rows = torch.cat([_pool(part.unflatten(0, shape)).flatten(0, 2) for part, shape in parts])
        attended = torch.empty_like(rows)
        into = attended.split([size // 4 if layer.pools else size for size in sizes])
        for part, out, shape in zip(qkv.split(sizes), into, shapes, strict=True):
            here = part.view(*shape, 3, attention.num_attention_heads, -1)  # (n, height, width, 3, heads, D)
            query, key, value = here.unbind(3)
            if shape[1:] != window_hw:
                key, value = _padded(here, attention.qkv.bias, window_hw).unbind(3)
            if layer.pools:
                query = _pool(query)
            query, key, value = (x.flatten(1, 2).transpose(1, 2) for x in (query, key, value))  # (n, heads, T, D)
            found = F.scaled_dot_product_attention(query, key, value).transpose(1, 2)
            out.view(found.shape).copy_(found)
            between()
        _add_linear(rows, attention.proj, attended)
        self._mlp(module, rows)
        between()
        return rows

    def _all_together(self, layer: _Layer, grid: Tensor, found: list[Tensor], between: Callable[[], None]) -> None:
        """One layer in which all tokens of an image meet, on (B, h, w, C), in place."""
        module, attention = layer.module, layer.module.attn
        heads, channels = attention.num_attention_heads, layer.channels
        images = 1 if self._on_cpu else len(grid)
        step = _NUMBERS // module.mlp.proj_in.out_features if self._on_cpu else grid.shape[:-1].numel()
        for tokens in grid.flatten(1, 2).split(images):
            rows = tokens.view(-1, channels)
            qkv = rows.new_empty(len(rows), 3 * channels)
            for some, into in zip(rows.split(step), qkv.split(step), strict=True):
                torch.addmm(attention.qkv.bias, module.layer_norm1(some), attention.qkv.weight.t(), out=into)
                between()
            shape = (len(tokens), -1, 3, heads, channels // heads)
            query, key, value = qkv.view(shape).permute(2, 0, 3, 1, 4)  # (b, heads, hw, D)
            attended = rows.new_empty(len(tokens), query.shape[2], heads, channels // heads)
            self._attend(query, key, value, attended.transpose(1, 2), between)
            for some, seen in zip(rows.split(step), attended.view(rows.shape).split(step), strict=True):
                _add_linear(some, attention.proj, seen)
                self._mlp(module, some)
                between()
        if layer.stage is not None:
            found[layer.stage].copy_(self._pyramid.project(layer.stage, grid))

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, out: Tensor, between: Callable[[], None]) -> None:
        """All of (b, heads, hw, D) at once, or on a CPU in pieces."""
        if not self._on_cpu:
            out.copy_(F.scaled_dot_product_attention(query, key, value))
            return
        step = max(1, _SCORES // key.shape[2])
        for head in range(query.shape[1]):
            # Neighbours in memory are read faster, and each key and value is read often.
            q, k, v = (x[:, head : head + 1].contiguous() for x in (query, key, value))
            for start in range(0, q.shape[2], step):
                some = slice(start, start + step)
                out[:, head : head + 1, some] = F.scaled_dot_product_attention(q[:, :, some], k, v)
                between()

    def _mlp(self, module: hf.Sam2MultiScaleBlock, rows: Tensor) -> None:
        """Add the MLP of (N, C) to it."""
        mlp = module.mlp
        hidden = mlp.proj_in(module.layer_norm2(rows))
        hidden = torch.ops.aten.gelu_(hidden) if isinstance(mlp.activation, GELUActivation) else mlp.activation(hidden)
        _add_linear(rows, mlp.proj_out, hidden)


def _add_linear(rows: Tensor, linear: nn.Linear, x: Tensor) -> None:
    """Add the linear map of x (N, D) to rows (N, C)."""
    if rows.dtype != torch.float32:  # else the bias would cost the residual a rounding of its own
        rows.add_(linear(x))
        return
    if linear.bias is not None:
        rows.add_(linear.bias)
    rows.addmm_(x, linear.weight.t())


def _pool(tokens: Tensor) -> Tensor:
    """(n, 2h, 2w, ...) -> (n, h, w, ...): the largest of each four."""
    rows = torch.maximum(tokens[:, 0::2], tokens[:, 1::2])
    return torch.maximum(rows[:, :, 0::2], rows[:, :, 1::2])


def _padded(qkv: Tensor, bias: Tensor | None, window_hw: Size) -> Tensor:
    """Keys and values of whole windows out of parts (n, height, width, 3, heads, D): (n, h, w, 2, heads, D)."""
    n, height, width, _, heads, dim = qkv.shape
    padded = qkv.new_zeros(n, *window_hw, 2, heads, dim)
    if bias is not None:
        padded.copy_(bias[heads * dim :].view(2, heads, dim))
    padded[:, :height, :width] = qkv[:, :, :, 1:]
    return padded


def _put(windows: list[_Windows], grid: Tensor, rows: Tensor) -> None:
    """Write the tokens of windows (N, C) to where they are in (B, h, w, C)."""
    views = [one.of(grid) for one in windows]
    for view, some in zip(views, rows.split([view.shape[:-1].numel() for view in views]), strict=True):
        view.copy_(some.view(view.shape))


def _pooled(layers: list[_Layer]) -> Iterator[tuple[int, _Layer]]:
    """Each layer, and how often tokens have been pooled before its MLP."""
    count = 0
    for layer in layers:
        count += layer.pools
        yield count, layer


def _runs(backbone: hf.Sam2HieraDetModel, grid_hw: Size) -> Iterator[_Run]:
    run: _Run | None = None
    window_after: Size | None = None
    for index, block in enumerate(backbone.blocks):
        pools = block.query_stride is not None
        layer = _Layer(block, pools, backbone.stage_ends.index(index) if index in backbone.stage_ends else None)
        if block.window_size <= 0:
            if pools or block.dim != block.dim_out:
                raise UnknownEncoder(f"blocks.{index}: expected windows where a stage begins")
            if run is not None:
                yield run
            yield _Run(None, grid_hw, [layer])
            run = None
            continue
        window_hw = (block.window_size, block.window_size)
        if run is None or window_after != window_hw:
            if run is not None:
                yield run
            run = _Run(Layout(grid_hw, window_hw), grid_hw)
        run.layers.append(layer)
        window_after = window_hw
        if pools:
            sides = [side for one in Layout(grid_hw, window_hw).blocks for side in (one.height, one.width)]
            if any(side % 2 for side in (*sides, *window_hw)):
                raise UnknownEncoder(f"blocks.{index}: windows of an odd side are pooled")
            grid_hw, window_after = (grid_hw[0] // 2, grid_hw[1] // 2), (window_hw[0] // 2, window_hw[1] // 2)
    if run is not None:
        yield run


def _grid_of(runs: list[_Run], stage: int) -> Size:
    """The grid of tokens with which a stage ends."""
    for run in runs:
        for pooled, layer in _pooled(run.layers):
            if layer.stage == stage:
                return run.grid_hw[0] >> pooled, run.grid_hw[1] >> pooled
    raise UnknownEncoder(f"no layer ends stage {stage}")


def _check(backbone: hf.Sam2HieraDetModel) -> None:
    """Raises UnknownEncoder where a part is not exactly Hugging Face's: a subclass or a wrapper may compute more."""

    def expect(name: str, module: nn.Module, kind: type[nn.Module]) -> None:
        if type(module) is not kind:
            raise UnknownEncoder(f"{name}: expected {kind.__name__}, found {type(module).__name__}")

    expect("backbone", backbone, hf.Sam2HieraDetModel)
    expect("patch_embed", backbone.patch_embed, hf.Sam2PatchEmbeddings)
    expect("patch_embed.projection", backbone.patch_embed.projection, nn.Conv2d)
    for index, block in enumerate(backbone.blocks):
        name = f"blocks.{index}"
        expect(name, block, hf.Sam2MultiScaleBlock)
        expect(f"{name}.attn", block.attn, hf.Sam2MultiScaleAttention)
        expect(f"{name}.mlp", block.mlp, hf.Sam2FeedForward)
        for norm in ("layer_norm1", "layer_norm2"):
            expect(f"{name}.{norm}", getattr(block, norm), nn.LayerNorm)
        for linear in ("attn.qkv", "attn.proj", "mlp.proj_in", "mlp.proj_out"):
            expect(f"{name}.{linear}", block.get_submodule(linear), nn.Linear)
        if block.query_stride is not None and tuple(block.query_stride) != (2, 2):
            raise UnknownEncoder(f"{name}: expected pooling of 2 x 2, found {block.query_stride}")
        if len(block.mlp.layers) or block.mlp.sigmoid_output:
            raise UnknownEncoder(f"{name}.mlp: expected two linear maps")
