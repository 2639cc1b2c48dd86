"""SAM's image encoder, several ways cheaper than Hugging Face's own forward, with the same weights and answers.

Knows one Hugging Face `SamVisionEncoder`, or `SamHQVisionEncoder`, which is alike, and tensors; nothing of images,
prompts, files, or who waits for it.

What it does otherwise:

- Tokens stay in window order from one layer to the next and are moved only where windows meet global attention.
- Windows that stick out over the grid's edge compute nothing for their pad tokens. A pad token is zero when it is
  projected, so its key and value are the bias of the projection: they are filled in, not computed. As queries pad
  tokens are not needed at all.
- Relative positions are resolved when the encoder is made. Each query is multiplied by its table once, and the
  bias is a view of that product; it is spread over keys only for the few queries at hand.
- Attention and MLP run in pieces that stay in the cache and reuse a few buffers, and add into the residual in place.
- Products with weights are computed by the library that is the fastest for them on this processor.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.models.sam.modeling_sam import (
    SamMLPBlock,
    SamPatchEmbeddings,
    SamVisionAttention,
    SamVisionEncoder,
    SamVisionLayer,
    SamVisionNeck,
    SamVisionSdpaAttention,
)
from transformers.models.sam_hq import modeling_sam_hq as hq

from models.mapped_weights import MappedPages
from models.segmenter.products import Product
from models.segmenter.window_layout import Layout

# Attention scores at once. In steps, as many per thread as its cache holds; fused, as many as make it worth while to
# turn keys and values into the matrix units' layout again; off the CPU, as many as memory is happy to spare.
_SCORES_IN_STEPS, _SCORES_FUSED, _SCORES_ELSEWHERE = 1 << 20, 4 << 20, 256 << 20
# Tokens projected at once in float32 on the CPU. With bfloat16's matrix units, turning the weights into the units'
# layout takes as long as some hundreds of tokens, so there a whole image's tokens go at once.
_TOKENS, _TOKENS_BFLOAT16 = 1024, 4096


def _nothing() -> None:
    pass


class UnknownEncoder(TypeError):
    """The encoder is not built as Hugging Face builds it, so this module cannot say what it computes."""


@dataclass(frozen=True, eq=False)
class Relative:
    """Relative position embeddings of keys on a (kh, kw) grid, as they are multiplied with queries.

    table: (D, 2 kh - 1 + 2 kw - 1). First the rows' embeddings from distance kh - 1 down to 1 - kh (query's row
    minus key's row), then the columns' likewise. In this order the embeddings of one query's keys are neighbours.
    """

    table: Tensor
    keys_hw: tuple[int, int]

    def bias(self, query: Tensor, first_row: int) -> tuple[Tensor, Tensor]:
        """The two terms (b, r, qw, kh) and (b, r, qw, kw) that a query's score with a key at (row, column) gains.

        query: (b, r, qw, D), unscaled; the grid's rows from `first_row`, its columns from 0. The terms are
        MViTv2's decomposed relative positions (https://arxiv.org/abs/2112.01526, eq. 4).
        """
        b, rows, columns, _ = query.shape
        kh, kw = self.keys_hw
        product = torch.bmm(query.flatten(1, 2), self.table.expand(b, -1, -1))  # (b, r qw, distances)
        width = product.shape[-1]
        # A step to the next row moves a query's keys one distance back; so does a step to the next column.
        one, row = rows * columns * width, columns * width
        by_row = product.as_strided((b, rows, columns, kh), (one, row - 1, width, 1), kh - 1 - first_row)
        by_column = product.as_strided((b, rows, columns, kw), (one, row, width - 1, 1), 2 * kh - 1 + kw - 1)
        return by_row, by_column


# query (n, heads, qh, qw, D), key and value (n, heads, kh kw, D), their relative positions, out (n, qh, qw, heads, D),
# and what to call between pieces. The queries' grid is the upper left part of the keys'. `out` is written, and query,
# key and value may be views of one tensor with any strides but the last.
Attend = Callable[[Tensor, Tensor, Tensor, Relative | None, Tensor, Callable[[], None]], None]


def attend_in_steps(
    query: Tensor, key: Tensor, value: Tensor, relative: Relative | None, out: Tensor, between: Callable[[], None]
) -> None:
    """Attention by bmm, softmax and bmm, on scores that stay in the cache. Fits `Attend`."""
    n, heads, height, width, dim = query.shape
    tokens = key.shape[2]
    _, together, rows = _at_once(_SCORES_IN_STEPS * torch.get_num_threads(), n, heads, height, width * tokens)
    scores = query.new_empty(together * rows * width * tokens)
    for i in range(n):
        for h in range(0, heads, together):
            k, v = key[i, h : h + together], value[i, h : h + together]
            if rows < height:  # used often: neighbours in memory are read faster
                k, v = k.contiguous(), v.contiguous()
            k = k.transpose(1, 2)
            for r in range(0, height, rows):
                q = query[i, h : h + together, r : r + rows]  # (b, r, qw, D)
                b, here = q.shape[:2]
                now = scores[: b * here * width * tokens].view(b, here * width, tokens)
                if relative is not None:
                    by_row, by_column = relative.bias(q, r)
                    spread = now.view(b, here, width, *relative.keys_hw)
                    torch.add(by_row.unsqueeze(-1), by_column.unsqueeze(-2), out=spread)
                torch.baddbmm(now, q.flatten(1, 2), k, beta=0 if relative is None else 1, alpha=dim**-0.5, out=now)
                torch.softmax(now, dim=-1, out=now)
                attended = torch.bmm(now, v).view(b, here, width, dim)
                out[i, r : r + rows, :, h : h + together] = attended.permute(1, 2, 0, 3)
                between()


def attend_fused(
    query: Tensor, key: Tensor, value: Tensor, relative: Relative | None, out: Tensor, between: Callable[[], None]
) -> None:
    """Attention by torch's scaled_dot_product_attention, its bias built for a part of the queries. Fits `Attend`."""
    n, heads, height, width, _ = query.shape
    tokens = key.shape[2]
    limit = _SCORES_FUSED * torch.get_num_threads() if query.device.type == "cpu" else _SCORES_ELSEWHERE
    images, together, rows = _at_once(limit, n, heads, height, width * tokens)
    for i, h in itertools.product(range(0, n, images), range(0, heads, together)):
        part = (slice(i, i + images), slice(h, h + together))
        for r in range(0, height, rows):
            q = query[part][:, :, r : r + rows]  # (m, b, r, qw, D)
            m, b, here = q.shape[:3]
            mask = None
            if relative is not None:
                by_row, by_column = relative.bias(q.flatten(0, 1), r)
                spread = by_row.unsqueeze(-1) + by_column.unsqueeze(-2)
                mask = spread.reshape(m, b, here * width, tokens)
            attended = F.scaled_dot_product_attention(q.flatten(2, 3), key[part], value[part], attn_mask=mask)
            attended = attended.unflatten(2, (here, width)).permute(0, 2, 3, 1, 4)
            out[i : i + images, r : r + rows, :, h : h + together] = attended
            between()


def _at_once(limit: int, images: int, heads: int, rows: int, each: int) -> tuple[int, int, int]:
    """How many images, heads of an image and rows of a head to take at once, for at most `limit` scores.

    each: the scores of one row of queries in one head. Rows are taken first, since they share keys and values.
    """
    return (
        min(images, max(1, limit // (each * rows * heads))),
        min(heads, max(1, limit // (each * rows))),
        min(rows, max(1, limit // each)),
    )


@dataclass(frozen=True, eq=False)
class _Layer:
    """A Hugging Face layer with what was worked out when the encoder was made."""

    module: SamVisionLayer
    layout: Layout
    relative: Relative | None
    products: dict[str, Product]


class ImageEncoder:
    """A Hugging Face `SamVisionEncoder`, prepared; call it as often as wanted, in any thread.

    Weights are the module's own, or a copy in another order, and relative positions are resolved when it is made: after
    new weights, another device or another dtype, make a new one. Dropout is never applied.
    """

    def __init__(
        self,
        encoder: SamVisionEncoder,
        attend: Attend | None = None,
        *,
        way: str | None = None,
        frees: bool = False,
    ) -> None:
        """encoder: on its device and in its dtype.

        attend: the attention of all layers, by default the fastest of this module for the device and dtype.
        way: how products are computed, one of `models.segmenter.products.ways`, by default each in its fastest way.
        frees: the module is not called any more, so its weights need not be kept in their own order too.

        Raises UnknownEncoder where the module, or a part of it, is of another class than Hugging Face's.
        """
        _check(encoder)
        weight = encoder.patch_embed.projection.weight
        on_cpu, reduced = weight.device.type == "cpu", weight.dtype != torch.float32
        if attend is None:
            attend = attend_in_steps if on_cpu and not reduced else attend_fused
        self._encoder = encoder
        self._attend = attend
        self._gelu = encoder.config.hidden_act == "gelu"
        self._tokens_at_once = (_TOKENS_BFLOAT16 if reduced else _TOKENS) if on_cpu else None
        (height, width), patch = encoder.patch_embed.image_size, encoder.patch_embed.projection.kernel_size
        self._grid_hw = (height // patch[0], width // patch[1])
        rows = self._tokens_at_once or self._grid_hw[0] * self._grid_hw[1]
        pages = MappedPages() if frees else None
        with torch.no_grad():
            self._layers = [
                _prepare(layer, self._grid_hw, _products(layer, rows, self._gelu, way, pages))
                for layer in encoder.layers
            ]

    @torch.no_grad()
    def __call__(self, pixels: Tensor, between: Callable[[], None] | None = None) -> Tensor:
        """(B, 3, S, S) -> (B, C, h, w), what the encoder's own forward gives as `last_hidden_state`.

        between: called in this thread after every piece of work, some thousand times in all for a full-size SAM on
        a CPU; may do anything, other work in torch and other calls of this encoder included. What it raises ends
        the call. Raises ValueError for pixels of another size than the encoder's.
        """
        return self._encode(pixels, between, None)

    @torch.no_grad()
    def with_early_tokens(
        self, pixels: Tensor, between: Callable[[], None] | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """The same, and the tokens (B, h, w, C) after the first layer with global attention, if there is one."""
        early: list[Tensor] = []
        embedding = self._encode(pixels, between, early)
        return embedding, early[0] if early else None

    def _encode(self, pixels: Tensor, between: Callable[[], None] | None, early: list[Tensor] | None) -> Tensor:
        """early: gets the tokens after the first layer with global attention."""
        between = between or _nothing
        encoder = self._encoder
        grid = encoder.patch_embed(pixels)  # (B, h, w, C), in memory (B, C, h, w)
        if encoder.pos_embed is not None:
            grid = grid + encoder.pos_embed
        batch, channels = grid.shape[0], grid.shape[-1]
        if not batch or not self._layers:
            return encoder.neck(grid)
        layout = self._layers[0].layout
        tokens, spare = (grid.new_empty(grid.shape[:-1].numel(), channels) for _ in range(2))
        layout.gather(grid, tokens)
        step = self._tokens_at_once or len(tokens)
        # One buffer for the whole call, by turns for what is projected and for what is within the MLP: as buffers
        # of their own in every layer, ones this large would be returned to the system and cleared by it each time.
        buffer = grid.new_empty(max(3 * channels * len(tokens), encoder.config.mlp_dim * min(step, len(tokens))))
        del grid
        for layer in self._layers:
            if layer.layout != layout:
                raster = spare.view(batch, *self._grid_hw, channels)
                layout.scatter(tokens, raster)
                layer.layout.gather(raster, tokens)
                layout = layer.layout
            between()
            self._run(layer, tokens, buffer, spare, batch, between)
            if early == [] and layer.module.window_size == 0:  # its layout is the grid's own order
                early.append(tokens.view(batch, *self._grid_hw, channels).clone())
        del buffer
        layout.scatter(tokens, spare.view(batch, *self._grid_hw, channels))
        embedding = encoder.neck(spare.view(batch, *self._grid_hw, channels))
        between()
        return embedding

    def _run(
        self, layer: _Layer, tokens: Tensor, buffer: Tensor, attended: Tensor, batch: int, between: Callable[[], None]
    ) -> None:
        """One layer on tokens (B h w, C) in its layout, in place; buffer and attended (B h w, C) are overwritten."""
        module = layer.module
        products = layer.products
        step = self._tokens_at_once or len(tokens)
        pieces = [slice(start, start + step) for start in range(0, len(tokens), step)]
        qkv = buffer[: 3 * tokens.numel()].view(len(tokens), -1)
        for piece in pieces:
            products["qkv"](module.layer_norm1(tokens[piece]), qkv[piece])
            between()
        self._attention(layer, qkv, attended, batch, between)
        for piece in pieces:
            tokens[piece].add_(products["proj"](attended[piece]))
            between()
        for piece in pieces:
            normed, first = module.layer_norm2(tokens[piece]), products["lin1"]
            # What oneDNN multiplies is a new tensor in any case.
            room = buffer[: len(normed) * first.out_features].view(len(normed), -1) if first.way == "plain" else None
            hidden = first(normed, room)
            if not self._gelu:
                hidden = module.mlp.act(hidden)
            between()
            tokens[piece].add_(products["lin2"](hidden))
            between()

    def _attention(self, layer: _Layer, qkv: Tensor, attended: Tensor, batch: int, between: Callable[[], None]) -> None:
        """From projected tokens (B h w, 3 C) in the layer's layout to attended (B h w, C), not yet projected."""
        attention, window_hw = layer.module.attn, layer.layout.window_hw
        heads, channels = attention.num_attention_heads, attended.shape[-1]
        start = 0
        for block in layer.layout.blocks:
            stop = start + batch * block.tokens
            shape = (-1, block.height, block.width, 3, heads, channels // heads)
            query, key, value = qkv[start:stop].view(shape).permute(3, 0, 4, 1, 2, 5)  # (n, heads, height, width, D)
            if (block.height, block.width) != window_hw:
                padded = qkv.new_zeros(len(query), *window_hw, 2, heads, channels // heads)
                if attention.qkv.bias is not None:
                    padded.copy_(attention.qkv.bias[channels:].view(padded.shape[3:]))
                padded[:, : block.height, : block.width] = qkv[start:stop].view(shape)[:, :, :, 1:]
                key, value = padded.permute(3, 0, 4, 1, 2, 5)
            out = attended[start:stop].view(-1, block.height, block.width, heads, channels // heads)
            self._attend(query, key.flatten(2, 3), value.flatten(2, 3), layer.relative, out, between)
            start = stop


def _prepare(layer: SamVisionLayer, grid_hw: tuple[int, int], products: dict[str, Product]) -> _Layer:
    attention = layer.attn
    window_hw = (layer.window_size, layer.window_size) if layer.window_size > 0 else grid_hw
    relative = None
    if attention.use_rel_pos:
        tables = []
        for size, embeddings in zip(window_hw, (attention.rel_pos_h, attention.rel_pos_w), strict=True):
            resolved = attention.get_rel_pos(size, size, embeddings)  # (queries, keys, D), equal along diagonals
            tables.append(torch.cat([resolved[-1], resolved[0, 1:]]))  # the last query's keys, then the first's
        relative = Relative(torch.cat(tables).t().contiguous(), window_hw)
    return _Layer(layer, Layout(grid_hw, window_hw), relative, products)


def _products(
    layer: SamVisionLayer, rows: int, gelu: bool, way: str | None, frees: MappedPages | None
) -> dict[str, Product]:
    """Those of a layer's tokens with its weights, GELU with the first of the MLP."""
    linears = {"qkv": layer.attn.qkv, "proj": layer.attn.proj, "lin1": layer.mlp.lin1, "lin2": layer.mlp.lin2}
    return {
        name: Product(linear, rows, gelu=gelu and name == "lin1", way=way, frees=frees)
        for name, linear in linears.items()
    }


def _check(encoder: SamVisionEncoder) -> None:
    """Raises UnknownEncoder where a part is not exactly Hugging Face's: a subclass or a wrapper may compute more."""

    def expect(name: str, module: nn.Module, *kinds: type[nn.Module]) -> None:
        if type(module) not in kinds:
            raise UnknownEncoder(f"{name}: expected {kinds[0].__name__}, found {type(module).__name__}")

    expect("encoder", encoder, SamVisionEncoder, hq.SamHQVisionEncoder)
    expect("patch_embed", encoder.patch_embed, SamPatchEmbeddings, hq.SamHQPatchEmbeddings)
    expect("neck", encoder.neck, SamVisionNeck, hq.SamHQVisionNeck)
    attentions = (SamVisionAttention, SamVisionSdpaAttention, hq.SamHQVisionAttention, hq.SamHQVisionSdpaAttention)
    for index, layer in enumerate(encoder.layers):
        name = f"layers.{index}"
        expect(name, layer, SamVisionLayer, hq.SamHQVisionLayer)
        expect(f"{name}.attn", layer.attn, *attentions)
        expect(f"{name}.mlp", layer.mlp, SamMLPBlock, hq.SamHQMLPBlock)
        for norm in ("layer_norm1", "layer_norm2"):
            expect(f"{name}.{norm}", getattr(layer, norm), nn.LayerNorm)
        for linear in ("attn.qkv", "attn.proj", "mlp.lin1", "mlp.lin2"):
            expect(f"{name}.{linear}", layer.get_submodule(linear), nn.Linear)
