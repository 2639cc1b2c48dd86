"""SAM's mask decoder: from image embeddings and prompt tokens to mask logits; serving and training share it.

Knows modules and tensors, nothing of requests, files or pixels' origin. It computes what Hugging Face's
`SamPromptEncoder` and `SamMaskDecoder` compute, with their weights, but never makes an image embedding per
prompt. Between two layers, the embedding (hw, C) of a prompt with T tokens is kept as

    image = scale * (base + weights^T rows) + bias

where `base` (hw, C) and `bias` (C,) are the same for all prompts, `scale` (1, hw) is what the layer norms
divided by, and `weights` (K, hw), `rows` (K, C) are the attention of image to tokens so far: K = heads * T
for each layer, about a hundred instead of C = 256 values per place. Layer norm is affine once its deviation
is known: it centres `base` and `rows`, multiplies `scale`, and leaves `weights` alone. The deviation
follows from inner products of `base` and `rows`. What reads the image (queries, keys, values, the first
upscaling convolution) is linear, so that its part for `base` is computed once per image and its part for
`rows` on a few vectors per prompt. All of it is plain differentiable arithmetic.

SAM 2 and SAM-HQ have the same layers and make masks of what comes out otherwise: `models.segmenter.fine_decoders`.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import SamModel
from transformers.models.sam.modeling_sam import SamAttention, SamMaskDecoder, SamPromptEncoder

from models.segmenter.projections import (
    as_linear,
    attend,
    by_head,
    centre,
    flat_times,
    out_projection,
    project,
    split_heads,
    times,
)

# Labels of points beside Hugging Face's 1 object, 0 not the object, -1 no point, -10 nothing.
BOX_CORNERS = (2, 3)  # upper left, lower right
# Rows and columns of the grid of image tokens.
Window = tuple[slice, slice]
WHOLE: Window = (slice(None), slice(None))
# From so many prompts on one image it pays to project the image once rather than every prompt's tokens.
PROJECT_FROM = 3
# Places of the grid, over all prompts, that a processor upscales at once: 2 KiB each in float32, twice.
UPSCALED_AT_ONCE = 1024


def encode_prompts(encoder: SamPromptEncoder, points_xy: Tensor, labels: Tensor) -> Tensor:
    """Prompt tokens (P, T, C), of the weights' dtype, for T points each.

    points_xy: (P, T, 2) pixels of the model's input. labels: (P, T): 1, 0, -1 or -10 as in Prompts, 2 and 3
    for a box's upper left and lower right corner. (Hugging Face's encoder ends points without a box with
    one of label -1, and lets a box follow points; here that is for the caller to do.)
    Places are encoded in float32, in which a pixel is still told from the next.
    """
    frequencies = encoder.shared_embedding.positional_embedding.float()
    places = _encode_places((points_xy + 0.5) / encoder.input_image_size, frequencies)  # 0.5: a pixel's middle
    points = encoder.point_embed  # one table for all kinds in SAM 2, else one for each
    tables = [points] if isinstance(points, nn.Embedding) else points
    kinds = torch.cat([encoder.not_a_point_embed.weight, *(table.weight for table in tables)])
    labels = labels.long()
    tokens = kinds[(labels + 1).clamp(min=0)] + places * (labels >= 0).unsqueeze(-1)
    return (tokens * (labels != -10).unsqueeze(-1)).to(kinds.dtype)


def _encode_places(xy: Tensor, frequencies: Tensor) -> Tensor:
    """Random Fourier features (..., C) of places (..., 2) in 0..1."""
    angles = (2 * torch.pi) * ((2 * xy - 1).to(frequencies.dtype) @ frequencies)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def predict_masks(
    model: SamModel,
    features: Tensor,
    prompts: Tensor | None = None,
    image_of: Tensor | None = None,
    present: Tensor | None = None,
    wanted: slice = slice(None),
    window: Window = WHOLE,
    dense: Tensor | None = None,
    images_class: type[Images] | None = None,
) -> tuple[Tensor, Tensor]:
    """Logits (P, M, 4h, 4w) and predicted IoU (P, M) of P prompts, each on one of B images.

    features: (B, C, h, w) image embeddings. prompts: (P, T, C) prompt tokens, or None for the unprompted
    prediction of each image (P is then B). image_of: (P,) int64 in 0..B-1, or None where P = B.
    present: (P, T) bool, false for tokens that only fill up the batch and change nothing; None: all are real.
    wanted: which of the masks, the single one first, then the multimask three.
    window: the part of the grid that `features` are of; prompts are in pixels of the whole input all the same.
    dense: (B, C, h, w) what mask prompts add to the images, see `Images`; None: no prompt has one.
    images_class: that of the model's family; None: SAM's.
    """
    if image_of is None:
        image_of = torch.arange(len(features), device=features.device)
    projected = len(image_of) >= PROJECT_FROM * len(features)
    images = (images_class or Images)(model, features, PlaceTables(model, window), dense, projected=projected)
    return images.decode(prompts, image_of, present, wanted)


class PlaceTables:
    """What depends on the weights alone: how every place of the grid, or of a part of it, looks to every attention."""

    def __init__(self, model: SamModel, window: Window = WHOLE) -> None:
        decoder: SamMaskDecoder = model.mask_decoder
        size = model.prompt_encoder.image_embedding_size[0]
        frequencies = model.shared_image_embedding.positional_embedding.float()
        middle = (torch.arange(size, device=frequencies.device) + 0.5) / size
        rows, columns = window
        xy = torch.stack(torch.meshgrid(middle[columns], middle[rows], indexing="xy"), dim=-1).flatten(0, 1)
        self.grid = _encode_places(xy, frequencies).to(decoder.iou_token.weight.dtype)  # (hw, C)
        self.tables: dict[nn.Linear, Tensor] = {}  # (1, heads, d, hw)
        layers = decoder.transformer.layers
        for before, layer in zip(layers, layers[1:], strict=False):
            placed = self.grid + before.layer_norm4.bias
            for attention, linear in (
                (layer.cross_attn_token_to_image, layer.cross_attn_token_to_image.k_proj),
                (layer.cross_attn_image_to_token, layer.cross_attn_image_to_token.q_proj),
            ):
                self.tables[linear] = project(placed[None], *by_head(attention, linear))
        final = decoder.transformer.final_attn_token_to_image
        placed = self.grid + layers[-1].layer_norm4.bias
        self.tables[final.k_proj] = project(placed[None], *by_head(final, final.k_proj))


class Images:
    """B image embeddings made ready for any number of prompts: all that does not depend on a prompt.

    projected: compute the projections of the image once, which pays from a few prompts per image on;
    otherwise tokens are projected to the image's side instead. The results are the same.
    dense: (B, C, h, w) of prompts with masks, whose images are theirs alone; None: the embedding of no mask for all.
    """

    def __init__(
        self, model: SamModel, features: Tensor, places: PlaceTables, dense: Tensor | None = None, *, projected: bool
    ) -> None:
        self.model, self.places, self.projected = model, places, projected
        self.size_hw = (features.shape[2], features.shape[3])
        features = self.coarse(features)
        base = features + (model.prompt_encoder.no_mask_embed.weight.reshape(1, -1, 1, 1) if dense is None else dense)
        self.bases = [base.flatten(2).transpose(1, 2).contiguous()]  # (B, hw, C), one more after each layer
        self.placed = self.bases[0] + places.grid
        self.centred: list[Tensor] = []
        self.squares: list[Tensor] = []  # (B, 1, hw) float32
        # What an image's values become in the embedding, per earlier layer: (heads, d + 1, C), centred.
        self.outward: list[list[Tensor]] = []
        outward: list[Tensor] = []
        bias: Tensor | float = 0.0
        for layer in model.mask_decoder.transformer.layers:
            attention, norm = layer.cross_attn_image_to_token, layer.layer_norm4
            heads = attention.num_attention_heads
            out = out_projection(attention)
            weight = out.weight.t().unflatten(0, (heads, -1))  # (heads, d, C)
            # Every head's attention sums to one: its share of the biases travels as one more value, a 1.
            share = ((out.bias + bias) / heads).expand(heads, 1, -1)
            outward = [centre(one) for one in (*outward, torch.cat([weight, share], dim=1))]
            self.outward.append(outward)
            self.centred.append(centre(self.bases[-1]))
            self.squares.append(self.centred[-1].float().square().sum(-1).unsqueeze(1))
            self.bases.append(self.centred[-1] * norm.weight)
            outward, bias = [one * norm.weight for one in outward], norm.bias
        self._projections: dict[object, Tensor] = {}

    def coarse(self, features: Tensor) -> Tensor:
        """The part (B, C, h, w) of an image's features that the layers read; called once, before anything else."""
        return features

    def project(self, key: object, base: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """(B, heads, d, hw): `base` (B, hw, C) seen through `weight` (heads, d, C); kept under `key`."""
        if key not in self._projections:
            self._projections[key] = project(base, weight, bias)
        return self._projections[key]

    def upscaled(self, weight: Tensor) -> Tensor:
        """(B, hw, D): the last base through the first upscaling, `weight` (C, D)."""
        if "upscaled" not in self._projections:
            self._projections["upscaled"] = self.bases[-1] @ weight
        return self._projections["upscaled"]

    def decode(
        self, prompts: Tensor | None, image_of: Tensor, present: Tensor | None, wanted: slice
    ) -> tuple[Tensor, Tensor]:
        """As `predict_masks`."""
        decoder: SamMaskDecoder = self.model.mask_decoder
        output_tokens = self.output_tokens()
        tokens = output_tokens.expand(len(image_of), -1, -1)
        if prompts is not None:
            tokens = torch.cat([tokens, prompts.to(tokens.dtype)], dim=1)  # (P, T, C)
            if present is not None:
                present = F.pad(present, (len(output_tokens), 0), value=True)[:, None, None]  # (P, 1, 1, T)

        image = PromptedImages(self, image_of)
        queries = tokens
        for layer in decoder.transformer.layers:
            if layer.skip_first_layer_pe:
                queries = attend(layer.self_attn, queries, queries, present)
            else:
                queries = queries + attend(layer.self_attn, queries + tokens, queries, present)
            queries = layer.layer_norm1(queries)
            queries = queries + image.read(layer.cross_attn_token_to_image, queries + tokens)
            queries = layer.layer_norm2(queries)
            queries = layer.layer_norm3(queries + layer.mlp(queries))
            image.write(layer.cross_attn_image_to_token, queries + tokens, queries, present)
            image.normalize(layer.layer_norm4)
        queries = queries + image.read(decoder.transformer.final_attn_token_to_image, queries + tokens)
        return self.masks(image, decoder.transformer.layer_norm_final_attn(queries), wanted)

    def output_tokens(self) -> Tensor:
        """The tokens (T, C) that stand before a prompt's, and that masks and scores are read from."""
        decoder: SamMaskDecoder = self.model.mask_decoder
        return torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])

    def masks(self, image: PromptedImages, queries: Tensor, wanted: slice) -> tuple[Tensor, Tensor]:
        """Logits (P, M, 4h, 4w) and predicted IoU (P, M) from what `image` and tokens (P, T, C) have become."""
        filters = self.filters(queries[:, 1:], wanted)
        logits = [filters @ part.transpose(1, 2) for part in image.upscaled()]
        scores = self.model.mask_decoder.iou_prediction_head(queries[:, 0])[:, wanted]
        return in_raster(torch.cat(logits, dim=2), self.size_hw), scores

    def filters(self, mask_tokens: Tensor, wanted: slice) -> Tensor:
        """What the upscaled image is multiplied by (P, M, C / 8), from the masks' tokens (P, 4, C)."""
        networks = list(enumerate(self.model.mask_decoder.output_hypernetworks_mlps))[wanted]
        return torch.stack([mlp(mask_tokens[:, i]) for i, mlp in networks], dim=1)


class PromptedImages:
    """The image embeddings of P prompts while they pass through the layers, in the form the module describes."""

    bias: Tensor  # (C,), from the first norm on

    def __init__(self, images: Images, image_of: Tensor) -> None:
        self.images, self.image_of = images, image_of
        self.stage = 0  # how many layers they have passed
        self.scale: Tensor | None = None  # (P, 1, hw) float32
        self.weights: Tensor | None = None  # (P, K, hw)
        self.rows: Tensor | None = None  # (P, K, C)
        self.values: list[Tensor] = []  # (P, heads, T, d + 1), of every layer's writing

    def read(self, attention: SamAttention, tokens: Tensor) -> Tensor:
        """Attention of tokens (P, T, C) to the image: (P, T, C)."""
        heads = attention.num_attention_heads
        queries = split_heads(attention.q_proj(tokens), heads) * attention.scaling  # (P, heads, T, d)
        shares = self._match(attention, attention.k_proj, queries).softmax(-1)  # (P, heads, T, hw)
        if self.scale is not None:
            shares = shares * self.scale.to(shares.dtype).unsqueeze(1)
        weight, bias = by_head(attention, attention.v_proj)
        base = self.images.bases[self.stage]
        if self.images.projected:
            table = self.images.project(attention.v_proj, base, weight)
            seen = times(shares, table.transpose(2, 3), self.image_of)  # (P, heads, T, d)
        else:
            seen = flat_times(shares, base, self.image_of) @ weight.transpose(1, 2)
        if self.rows is not None and self.weights is not None:
            of_rows = (shares.flatten(1, 2) @ self.weights.transpose(1, 2)).unflatten(1, (heads, -1))
            seen = seen + of_rows @ split_heads(F.linear(self.rows, attention.v_proj.weight), heads)
            bias = bias + (weight @ self.bias)
        return out_projection(attention)((seen + bias.unsqueeze(1)).transpose(1, 2).flatten(2))

    def write(self, attention: SamAttention, keys: Tensor, values: Tensor, present: Tensor | None) -> None:
        """Add the attention of the image to tokens with these keys and values (P, T, C)."""
        heads = attention.num_attention_heads
        k = split_heads(attention.k_proj(keys), heads) * attention.scaling  # (P, heads, T, d)
        scores = self._match(attention, attention.q_proj, k)  # (P, heads, T, hw)
        if present is not None:
            scores = scores.masked_fill(~present.transpose(2, 3), -torch.inf)
        weights = scores.softmax(2).flatten(1, 2)
        v = F.pad(split_heads(attention.v_proj(values), heads), (0, 1), value=1.0)
        rows = (v @ self.images.outward[self.stage][-1]).flatten(1, 2)
        self.values.append(v)
        if self.scale is None or self.weights is None or self.rows is None:
            self.weights, self.rows = weights, rows
        else:
            self.weights = torch.cat([self.weights, weights / self.scale.to(weights.dtype)], dim=1)
            self.rows = torch.cat([centre(self.rows), rows], dim=1)

    def normalize(self, norm: nn.LayerNorm) -> None:
        """Layer norm of the image over its channels, after `write`."""
        assert self.weights is not None and self.rows is not None
        centred = self.images.centred[self.stage]
        # |base + weights^T rows|^2 = |base|^2 + (2 rows base^T + rows rows^T weights) * weights, summed over K
        if self.images.projected:
            with_base = torch.cat(
                [
                    times(v, self.images.project((norm, i), centred, weight), self.image_of).flatten(1, 2)
                    for i, (v, weight) in enumerate(zip(self.values, self.images.outward[self.stage], strict=True))
                ],
                dim=1,
            )
        else:
            with_base = flat_times(self.rows, centred.transpose(1, 2), self.image_of)
        mixed = torch.baddbmm(with_base, self.rows @ self.rows.transpose(1, 2), self.weights, beta=2)
        squares = self.images.squares[self.stage][self.image_of if len(centred) > 1 else slice(None)]
        squares = squares + (mixed * self.weights).sum(1, keepdim=True, dtype=torch.float32)
        scale = torch.ones_like(squares) if self.scale is None else self.scale
        variance = scale.square() * squares.clamp(min=0) / centred.shape[-1]
        self.scale = scale * torch.rsqrt(variance + norm.eps)
        self.rows, self.bias = self.rows * norm.weight, norm.bias
        self.stage += 1

    def upscaled(self, fine: tuple[Tensor, Tensor] | None = None) -> Iterator[Tensor]:
        """The image upscaled twice, as (P, places * 4 * 4, C / 8) of some lines of the grid, in `in_raster`'s order.

        fine: what is added after each step: (B, hw, 4 * C / 4) and (B, hw, 16 * C / 8), or None.
        Some lines at a time on a processor, so that what is sixteen times as large stays in its caches.
        """
        assert self.weights is not None and self.rows is not None and self.scale is not None
        decoder: SamMaskDecoder = self.images.model.mask_decoder
        norm = decoder.upscale_layer_norm
        # A transposed convolution of kernel and stride 2 turns each place into 2 x 2: one linear map.
        weight1, bias1 = as_linear(decoder.upscale_conv1)  # (C, 4 * C / 4)
        weight2, bias2 = as_linear(decoder.upscale_conv2)  # (C / 4, 4 * C / 8)
        base = self.images.upscaled(weight1)  # (B, hw, 4 * C / 4)
        base, *details = (part if len(part) == 1 else part[self.image_of] for part in (base, *(fine or ())))
        rows, bias1 = self.rows @ weight1, bias1 + self.bias @ weight1
        scale = self.scale.transpose(1, 2).to(rows.dtype)

        prompts, (height, width) = len(self.rows), self.images.size_hw
        # All of them on a GPU, and where a gradient is wanted, for which all of it is kept anyway.
        at_once = rows.is_cuda or (torch.is_grad_enabled() and rows.requires_grad)
        lines = height if at_once else max(1, UPSCALED_AT_ONCE // (prompts * width))
        for first in range(0, height, lines):
            places = slice(first * width, (first + lines) * width)
            image = torch.baddbmm(base[:, places], self.weights[..., places].transpose(1, 2), rows)
            added = bias1 + details[0][:, places] if details else bias1
            image = torch.addcmul(added, image, scale[:, places]).unflatten(-1, (4, -1))
            image = F.gelu(F.layer_norm(image, norm.normalized_shape, norm.weight, norm.bias, norm.eps))
            image = torch.addmm(bias2, image.flatten(0, 2), weight2)  # (P * places * 4, 4 * C / 8)
            if details:
                image = image.view(prompts, -1, details[1].shape[-1]).add_(details[1][:, places])
            yield F.gelu(image).view(prompts, -1, decoder.upscale_conv2.out_channels)

    def _match(self, attention: SamAttention, linear: nn.Linear, x: Tensor) -> Tensor:
        """Inner products (P, heads, T, hw) of x (P, heads, T, d) with `linear` of the image and its places."""
        weight, bias = by_head(attention, linear)
        base = self.images.bases[self.stage] if self.stage else self.images.placed
        if self.images.projected:
            table = self.images.project(linear, base, weight, None if self.stage else bias)
            products = times(x, table, self.image_of)
        else:
            products = flat_times(x @ weight, base.transpose(1, 2), self.image_of)
            if not self.stage:
                products = products + (x @ bias.unsqueeze(-1))
        if self.rows is None or self.weights is None or self.scale is None:
            return products
        with_rows = x @ split_heads(F.linear(self.rows, linear.weight), x.shape[1]).transpose(2, 3)  # (P, heads, T, K)
        products = torch.baddbmm(products.flatten(1, 2), with_rows.flatten(1, 2), self.weights)
        placed = times(x, self.images.places.tables[linear], self.image_of).flatten(1, 2)
        return torch.addcmul(placed, products, self.scale.to(placed.dtype)).unflatten(1, x.shape[1:3])


def in_raster(logits: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """(P, M, h * w * 4 * 4), a place of the grid after the other as `upscaled` has them -> (P, M, 4h, 4w)."""
    height, width = size_hw
    # (P, M, line, column, half of the line, of the column, quarter of the line, of the column)
    whole = logits.view(*logits.shape[:2], height, width, 2, 2, 2, 2)
    return whole.permute(0, 1, 2, 4, 6, 3, 5, 7).reshape(*logits.shape[:2], 4 * height, 4 * width)
