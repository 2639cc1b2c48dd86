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

from collections.abc import Callable
from dataclasses import dataclass

import torch
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
from models.segmenter.attention import Attend, Relative, attend_fused, attend_in_steps, fastest_reduced
from models.segmenter.products import Product
from models.segmenter.window_layout import Layout

# Tokens projected at once in float32 on the CPU. With bfloat16's matrix units, turning the weights into the units'
# layout takes as long as some hundreds of tokens, so there a whole image's tokens go at once.
_TOKENS, _TOKENS_BFLOAT16 = 1024, 4096


def _nothing() -> None:
    pass


class UnknownEncoder(TypeError):
    """The encoder is not built as Hugging Face builds it, so this module cannot say what it computes."""


@dataclass(frozen=True, eq=False)
class _Layer:
    """A Hugging Face layer with what was worked out when the encoder was made."""

    module: SamVisionLayer
    layout: Layout
    relative: Relative | None
    attend: Attend
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

        attend: the attention of all layers, by default each one's fastest of `models.segmenter.attention`.
        way: how products are computed, one of `models.segmenter.products.ways`, by default each in its fastest way.
        frees: the module is not called any more, so its weights need not be kept in their own order too.

        Raises UnknownEncoder where the module, or a part of it, is of another class than Hugging Face's.
        """
        _check(encoder)
        weight = encoder.patch_embed.projection.weight
        on_cpu, reduced = weight.device.type == "cpu", weight.dtype != torch.float32
        self._encoder = encoder
        self._gelu = encoder.config.hidden_act == "gelu"
        self._tokens_at_once = (_TOKENS_BFLOAT16 if reduced else _TOKENS) if on_cpu else None
        (height, width), patch = encoder.patch_embed.image_size, encoder.patch_embed.projection.kernel_size
        self._grid_hw = (height // patch[0], width // patch[1])
        rows = self._tokens_at_once or self._grid_hw[0] * self._grid_hw[1]
        pages = MappedPages() if frees else None
        with torch.no_grad():
            self._layers = [
                _prepare(layer, self._grid_hw, attend, _products(layer, rows, self._gelu, way, pages))
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
        if len(pieces) == 1 and products["qkv"].way != "plain":  # what oneDNN multiplies is a new tensor in any case
            qkv = products["qkv"](module.layer_norm1(tokens))
            between()
        else:
            qkv = buffer[: 3 * tokens.numel()].view(len(tokens), -1)
            for piece in pieces:
                products["qkv"](module.layer_norm1(tokens[piece]), qkv[piece])
                between()
        self._attention(layer, qkv, attended, batch, between)
        del qkv
        for piece in pieces:
            tokens[piece].add_(products["proj"](attended[piece]))
            between()
        for piece in pieces:
            normed, first = module.layer_norm2(tokens[piece]), products["lin1"]
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
            layer.attend(query, key.flatten(2, 3), value.flatten(2, 3), layer.relative, out, between)
            start = stop


def _prepare(
    layer: SamVisionLayer, grid_hw: tuple[int, int], attend: Attend | None, products: dict[str, Product]
) -> _Layer:
    attention = layer.attn
    window_hw = (layer.window_size, layer.window_size) if layer.window_size > 0 else grid_hw
    relative = None
    if attention.use_rel_pos:
        tables = []
        for size, embeddings in zip(window_hw, (attention.rel_pos_h, attention.rel_pos_w), strict=True):
            resolved = attention.get_rel_pos(size, size, embeddings)  # (queries, keys, D), equal along diagonals
            tables.append(torch.cat([resolved[-1], resolved[0, 1:]]))  # the last query's keys, then the first's
        relative = Relative(torch.cat(tables).t().contiguous(), window_hw)
    return _Layer(layer, Layout(grid_hw, window_hw), relative, attend or _fastest(layer, relative), products)


def _fastest(layer: SamVisionLayer, relative: Relative | None) -> Attend:
    qkv, heads = layer.attn.qkv, layer.attn.num_attention_heads
    weight = qkv.weight  # empty where a packed one has replaced it
    if weight.device.type != "cpu":
        return attend_fused
    if weight.dtype == torch.float32:
        return attend_in_steps
    dim, keys_hw = qkv.in_features // heads, None if relative is None else relative.keys_hw
    return fastest_reduced(heads, dim, keys_hw, weight.dtype, torch.get_num_threads())


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
