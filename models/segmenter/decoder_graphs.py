"""SAM's encoder, and its decoder with prompts and interpolation, as modules that can be exported as graphs.

Made of Hugging Face's modules, as the plain twins are. The decoder's inputs and outputs have the names and meanings of
segment-anything's own ONNX export, so that what is written for that runs; beyond it, any number of prompts is decoded
at once. Knows modules and tensors, nothing of files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.segmenter.decoder import encode_prompts

PROMPTS = ("point_coords", "point_labels", "mask_input", "has_mask_input", "orig_im_size")
OUTPUTS = ("masks", "iou_predictions", "low_res_masks")


class EncoderGraph(nn.Module):
    """An image's encoder: pixels (1, 3, S, S) float32, normalised and padded, to the tensors of its embedding."""

    def __init__(
        self, model: Any, features: Callable[[Tensor], dict[str, Tensor]], mean: Sequence[float], std: Sequence[float]
    ) -> None:
        """model: whose weights these are. features: pixels -> tensors, by plain modules of `model`.

        mean, std: by which RGB in 0..1 is normalised before.
        """
        super().__init__()
        self.model, self.mean, self.std, self._features = model, mean, std, features

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, ...]:
        return tuple(self._features(pixel_values).values())


class DecoderGraph(nn.Module):
    """SAM's decoder. A prompt's first mask is the one that it gets alone; the others are its three (multimask).

    features: the names of the tensors that an image's embedding consists of. ends: by what a prompt has, "box" also
    beside points, how many points of label -1 end it, as in the service.
    """

    features: ClassVar[tuple[str, ...]] = ("image_embeddings",)
    ends: ClassVar[dict[str, int]] = {"points": 1, "box": 0, "mask": 0}
    prompt_encoder: Any
    decoder: Any
    place: Tensor
    output_tokens: Tensor

    def __init__(self, model: Any, *, stretched: bool) -> None:
        """model: Hugging Face's. stretched: its images fill the whole square, whatever their shape."""
        super().__init__()
        self.prompt_encoder, self.decoder, self.stretched = model.prompt_encoder, model.mask_decoder, stretched
        self.side: int = model.prompt_encoder.input_image_size
        self.register_buffer("place", model.get_image_wide_positional_embeddings().detach())
        self.register_buffer("output_tokens", self._output_tokens().detach())

    def forward(
        self,
        features: list[Tensor],
        point_coords: Tensor,
        point_labels: Tensor,
        mask_input: Tensor,
        has_mask_input: Tensor,
        orig_im_size: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Logits (N, 4, H, W) over the image, predicted IoU (N, 4), and logits (N, 4, S / 4, S / 4) over the square.

        features: as `self.features`, each of one image. point_coords: (N, T, 2) float32, pixels of the model's input.
        point_labels: (N, T) float32, as for `encode_prompts`. mask_input: (N, 1, S / 4, S / 4), earlier logits.
        has_mask_input: (N,) 1, or 0 where mask_input counts not. orig_im_size: (2,) the image's height and width.
        """
        made = self._decoded(features[0], point_coords, point_labels, mask_input, has_mask_input)
        masks, scores = self.masks(features, *made)
        return self._over_image(masks, orig_im_size), scores, masks

    def _decoded(
        self, coarse: Tensor, points: Tensor, labels: Tensor, mask_input: Tensor, has_mask_input: Tensor
    ) -> tuple[Tensor, Tensor]:
        """What the layers make of the tokens (N, T', C) and of the image (N, C, h, w)."""
        sparse = encode_prompts(self.prompt_encoder, points, labels)
        count = sparse.shape[0]
        given = has_mask_input.reshape(-1, 1, 1, 1)
        dense = given * self.prompt_encoder.mask_embed(mask_input)
        dense = dense + (1 - given) * self.prompt_encoder.no_mask_embed.weight.reshape(1, -1, 1, 1)
        tokens = torch.cat([self.output_tokens.expand(count, -1, -1), sparse], dim=1)
        queries, image = self.decoder.transformer(
            point_embeddings=tokens.unsqueeze(1),
            image_embeddings=coarse + dense,
            image_positional_embeddings=self.place,
            attention_similarity=None,
        )
        return queries.squeeze(1), image.squeeze(1).transpose(1, 2).reshape(count, *coarse.shape[1:])

    def _output_tokens(self) -> Tensor:
        return torch.cat([self.decoder.iou_token.weight, self.decoder.mask_tokens.weight])

    def masks(self, features: list[Tensor], queries: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (N, 4, 4h, 4w) and predicted IoU (N, 4) of what the layers made."""
        scores = self.decoder.iou_prediction_head(queries[:, 0])
        return _through(self._filters(queries[:, 1:]), self._upscaled(image)), scores

    def _filters(self, queries: Tensor) -> Tensor:
        """(N, 4, C / 8) of the masks' tokens, which come first among `queries`."""
        mlps = self.decoder.output_hypernetworks_mlps
        return torch.stack([mlp(queries[:, number]) for number, mlp in enumerate(mlps)], dim=1)

    def _upscaled(self, image: Tensor, half: Tensor | None = None, quarter: Tensor | None = None) -> Tensor:
        """(N, C / 8, 4h, 4w). half, quarter: what is added at the grids twice and four times as fine."""
        decoder = self.decoder
        image = decoder.upscale_conv1(image)
        image = F.gelu(decoder.upscale_layer_norm(image if half is None else image + half))
        image = decoder.upscale_conv2(image)
        return F.gelu(image if quarter is None else image + quarter)

    def _over_image(self, masks: Tensor, orig_im_size: Tensor) -> Tensor:
        """The logits (N, 4, S / 4, S / 4) interpolated to the image's size (N, 4, H, W), as the service does it."""
        size_hw = _as_size(orig_im_size)
        if not self.stretched:
            # In float64 and in this order, as `models.square_images.resized_size`: a pixel more would show.
            size = orig_im_size.double()
            resized_hw = _as_size((size * (self.side / size.max()) + 0.5).clamp(min=1), self.side)
            masks = F.interpolate(masks, (self.side, self.side), mode="bilinear", align_corners=False)
            masks = masks[..., : resized_hw[0], : resized_hw[1]]
        return F.interpolate(masks, size_hw, mode="bilinear", align_corners=False)


class SamHQDecoderGraph(DecoderGraph):
    """SAM-HQ's: SAM's masks, the best of three first, each plus the one of high quality."""

    features: ClassVar[tuple[str, ...]] = ("image_embeddings", "hq_features")

    def _output_tokens(self) -> Tensor:
        return torch.cat([super()._output_tokens(), self.decoder.hq_token.weight])

    def masks(self, features: list[Tensor], queries: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        decoder, upscaled = self.decoder, self._upscaled(image)
        filters, scores = self._filters(queries[:, 1:]), decoder.iou_prediction_head(queries[:, 0])
        ordered, order = scores[:, 1:].sort(dim=1, descending=True)
        scores = torch.cat([scores[:, :1], ordered], dim=1)
        of_three = filters[:, 1:].gather(1, order.unsqueeze(-1).expand(-1, -1, filters.shape[-1]))
        filters = torch.cat([filters[:, :1], of_three], dim=1)
        refined = decoder.mask_conv2(F.gelu(decoder.mask_norm(decoder.mask_conv1(upscaled)))) + features[1]
        fine = decoder.hq_mask_mlp(queries[:, 1 + len(decoder.mask_tokens.weight)]).unsqueeze(1)
        return _through(filters, upscaled) + _through(fine, refined), scores


class Sam2DecoderGraph(DecoderGraph):
    """SAM 2's: an image's details at finer grids count, and a single mask that is not stable is the best of three."""

    features: ClassVar[tuple[str, ...]] = ("image_embeddings", "high_res_feats_0", "high_res_feats_1")
    ends: ClassVar[dict[str, int]] = {"points": 1, "box": 1, "mask": 2}

    def _output_tokens(self) -> Tensor:
        return torch.cat([self.decoder.obj_score_token.weight, super()._output_tokens()])

    def masks(self, features: list[Tensor], queries: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        _, quarter, half = features
        scores = self.decoder.iou_prediction_head(queries[:, 1])
        masks = _through(self._filters(queries[:, 2:]), self._upscaled(image, half, quarter))
        if self.decoder.dynamic_multimask_via_stability:
            (single,), (its_score,) = self.decoder._dynamic_multimask_via_stability(masks[None], scores[None])
            masks = torch.cat([single, masks[:, 1:]], dim=1)
            scores = torch.cat([its_score, scores[:, 1:]], dim=1)
        return masks, scores


def _through(filters: Tensor, image: Tensor) -> Tensor:
    """(N, M, C) and (N, C, h, w) -> (N, M, h, w)."""
    return (filters @ image.flatten(2)).unflatten(2, image.shape[2:])


def _as_size(values: Tensor, most: int | None = None) -> tuple[int, int]:
    """Two numbers of a tensor as a size, rounded down, of which an export knows that it is one: at least 1."""
    height, width = (value.item() for value in values.long())
    for side in (height, width):
        torch._check(side >= 1)
        if most is not None:
            torch._check(side <= most)
    return height, width
