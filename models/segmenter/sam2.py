"""SAM 2 and 2.1 for single images, from Hugging Face's folders: what transformers' `Sam2Model` computes.

Images are stretched to a square, and masks are interpolated from the decoder's grid to the image at once.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from transformers import Sam2Config, Sam2Model

from models.segmenter import sam_folder
from models.segmenter.decoder import Images
from models.segmenter.decoder_graphs import DecoderGraph, Sam2DecoderGraph
from models.segmenter.fine_decoders import Sam2Images, fold, unfold
from models.segmenter.hiera import HieraEncoder
from models.segmenter.prompt_points import labelled_points
from models.segmenter.protocol import DecodeRequest, RawMasks
from models.segmenter.sam import Encode, Sam


class Sam2(Sam):
    """A loaded SAM 2; make one with `Sam2.load`. It is a `models.segmenter.protocol.Segmenter`.

    Its embeddings hold the features of all three grids, see `Sam2Images`: four times as much as SAM's.
    """

    model_types: ClassVar[tuple[str, ...]] = sam_folder.SAM2
    config_class: ClassVar[Any] = Sam2Config
    model_class: ClassVar[Any] = Sam2Model
    stretches: ClassVar[bool] = True
    images_class: ClassVar[type[Images]] = Sam2Images
    has_cuda_graphs: ClassVar[bool] = False
    decoder_graph: ClassVar[type[DecoderGraph]] = Sam2DecoderGraph

    def _fast_features(self) -> Encode:
        encoder = HieraEncoder(self._model)
        return lambda samples, between: encoder(self.pixels(samples), between)

    def published_features(self, pixels: Tensor) -> Tensor:
        """(B, 3, S, S) -> (B, 4 * C, h, w): the coarsest grid, then what is twice and four times as fine."""
        model = self._model
        quarter, half, coarse = model.vision_encoder(pixels).fpn_hidden_states
        coarse = coarse + model.no_memory_embedding.reshape(1, -1, 1, 1)
        half, quarter = model.mask_decoder.conv_s1(half), model.mask_decoder.conv_s0(quarter)
        return joined(coarse, half, quarter)

    def named_features(self, features: Tensor) -> dict[str, Tensor]:
        channels = self._model.mask_decoder.hidden_size
        coarse, half, quarter = features.split([channels, channels, 2 * channels], dim=1)
        fine = {"high_res_feats_0": unfold(unfold(quarter)), "high_res_feats_1": unfold(half)}
        return {"image_embeddings": coarse} | fine

    def _published_masks(
        self, features: Tensor, place: Tensor, sparse: Tensor | None, dense: Tensor, multimask: bool
    ) -> tuple[Tensor, Tensor]:
        model = self._model
        if sparse is None:  # as `Sam2Model` does it: a point that is none, and the one that ends all points
            sparse = model.prompt_encoder.not_a_point_embed.weight.expand(len(features), 1, 2, -1)
        channels = model.mask_decoder.hidden_size
        coarse, half, quarter = features.split([channels, channels, 2 * channels], dim=1)
        fine = [unfold(unfold(quarter)), unfold(half)]
        masks, scores, _, _ = model.mask_decoder(coarse, place, sparse.to(self.dtype), dense, multimask, fine)
        return masks, scores

    @classmethod
    def labelled_points(cls, request: DecodeRequest) -> tuple[np.ndarray, np.ndarray]:
        """As in `Sam`, but a box ends with a point that is none as well, and no prompt at all is two of them."""
        points, labels = labelled_points(request.embedding, request.prompts)
        if request.prompts.boxes_xyxy is not None or not labels.shape[1]:
            more = 1 if labels.shape[1] else 2
            points = np.concatenate([points, np.zeros((len(points), more, 2))], axis=1)
            labels = np.concatenate([labels, np.full((len(labels), more), -1)], axis=1)
        return points, labels

    def mask_frame(self, raw: RawMasks) -> tuple[int, tuple[int, int]]:
        """The logits' own grid, all of it the image's: they are interpolated to the image at once."""
        return self.mask_side, (self.mask_side, self.mask_side)


def joined(coarse: Tensor, half: Tensor, quarter: Tensor) -> Tensor:
    """The features of all three grids as one (B, 4 * C, h, w), see `Sam2Images`."""
    return torch.cat([coarse, fold(half), fold(fold(quarter))], dim=1)
