"""The ends of SAM 2's and SAM-HQ's mask decoders, which add details of the image at a finer grid.

The layers before are SAM's, see `models.segmenter.decoder`. Knows modules and tensors, nothing of files or requests.

An image's features (B, C', h, w) carry these details as further channels of each place of the grid, so that an
embedding stays one tensor: `fold` puts the pixels of a finer grid there, `unfold` takes them out again.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from models.segmenter.decoder import Images, PromptedImages, in_raster


def fold(fine: Tensor) -> Tensor:
    """(B, D, 2h, 2w) -> (B, 4 * D, h, w): of each place upper left, upper right, lower left, lower right."""
    batch, channels, height, width = fine.shape
    parts = fine.view(batch, channels, height // 2, 2, width // 2, 2).permute(0, 3, 5, 1, 2, 4)
    return parts.reshape(batch, 4 * channels, height // 2, width // 2)


def unfold(folded: Tensor) -> Tensor:
    """(B, 4 * D, h, w) -> (B, D, 2h, 2w): undoes `fold`."""
    batch, channels, height, width = folded.shape
    parts = folded.reshape(batch, 2, 2, channels // 4, height, width).permute(0, 3, 4, 1, 5, 2)
    return parts.reshape(batch, channels // 4, 2 * height, 2 * width)


def _by_place(folded: Tensor) -> Tensor:
    """(B, D, h, w) -> (B, hw, D)."""
    return folded.flatten(2).transpose(1, 2).contiguous()


class Sam2Images(Images):
    """Of Hugging Face's `Sam2Model`. features: C channels, C of the grid twice and 2 * C of that four times as fine."""

    def coarse(self, features: Tensor) -> Tensor:
        channels = self.model.mask_decoder.hidden_size
        coarse, half, quarter = features.split([channels, channels, 2 * channels], dim=1)
        self.details = (_by_place(half), _by_place(quarter))
        return coarse

    def output_tokens(self) -> Tensor:
        return torch.cat([self.model.mask_decoder.obj_score_token.weight, super().output_tokens()])

    def masks(self, image: PromptedImages, queries: Tensor, wanted: slice) -> tuple[Tensor, Tensor]:
        """As in `Images`. A single mask that is not stable makes way for the best of three, as the config says."""
        decoder = self.model.mask_decoder
        chosen_later = wanted == slice(0, 1) and decoder.dynamic_multimask_via_stability
        if chosen_later:
            wanted = slice(None)
        filters = self.filters(queries[:, 2:], wanted)
        logits = [filters @ part.transpose(1, 2) for part in image.upscaled(self.details)]
        masks = in_raster(torch.cat(logits, dim=2), self.size_hw)
        scores = decoder.iou_prediction_head(queries[:, 1])[:, wanted]
        if chosen_later:
            (masks,), (scores,) = decoder._dynamic_multimask_via_stability(masks[None], scores[None])
        return masks, scores


class SamHQImages(Images):
    """Of Hugging Face's `SamHQModel`. features: C channels, then 2 * C of the grid that is four times as fine."""

    def coarse(self, features: Tensor) -> Tensor:
        channels = self.model.mask_decoder.hidden_size
        coarse, quarter = features.split([channels, 2 * channels], dim=1)
        self.details = _by_place(quarter).unflatten(2, (16, -1)).flatten(1, 2)  # (B, hw * 16, C / 8)
        return coarse

    def output_tokens(self) -> Tensor:
        return torch.cat([super().output_tokens(), self.model.mask_decoder.hq_token.weight])

    def masks(self, image: PromptedImages, queries: Tensor, wanted: slice) -> tuple[Tensor, Tensor]:
        """As in `Images`: SAM's masks, the best of several first, each plus the one of high quality.

        All four of them, as training wants them, stay in their own order.
        """
        decoder = self.model.mask_decoder
        scores = decoder.iou_prediction_head(queries[:, 0])[:, wanted]
        filters = self.filters(queries[:, 1:], wanted)
        if wanted != slice(None):
            scores, order = scores.sort(dim=1, descending=True)
            filters = filters.gather(1, order.unsqueeze(-1).expand_as(filters))
        upscaled = torch.cat(list(image.upscaled()), dim=1)  # (P, hw * 16, C / 8)
        fine_filter = decoder.hq_mask_mlp(queries[:, 1 + len(decoder.mask_tokens.weight)])  # (P, C / 8)
        details = self.details if len(self.details) == 1 else self.details[image.image_of]
        logits = filters @ upscaled.transpose(1, 2) + (details @ fine_filter.unsqueeze(-1)).transpose(1, 2)
        return in_raster(logits, self.size_hw) + self._refined(upscaled, fine_filter), scores

    def _refined(self, upscaled: Tensor, fine_filter: Tensor) -> Tensor:
        """(P, 1, 4h, 4w): two convolutions of the upscaled image (P, hw * 16, C / 8), through `fine_filter` (P, C / 8).

        The second one and the filter are linear: together they are 9 numbers for each place, moved and added up.
        """
        decoder = self.model.mask_decoder
        norm, conv = decoder.mask_norm, decoder.mask_conv2
        grid = in_raster(upscaled.transpose(1, 2), self.size_hw)  # (P, C / 8, 4h, 4w)
        hidden = decoder.mask_conv1(grid).permute(0, 2, 3, 1)
        hidden = F.gelu(F.layer_norm(hidden, norm.normalized_shape, norm.weight, norm.bias, norm.eps))
        size_hw = hidden.shape[1:3]
        # `fold` of torch moves a place's 9 numbers outward, a convolution reads them inward: hence turned round.
        weight = torch.einsum("pd,dcyx->pyxc", fine_filter, conv.weight).flip(1, 2).flatten(1, 2)  # (P, 9, C / 4)
        taps = weight @ hidden.flatten(1, 2).transpose(1, 2)  # (P, 9, 4h * 4w)
        found = F.fold(taps, (int(size_hw[0]), int(size_hw[1])), kernel_size=3, padding=1)
        return found + (fine_filter @ conv.bias).view(-1, 1, 1, 1)
