"""SAM-HQ, from Hugging Face's folders: SAM's encoder, and masks with finer edges.

Its masks are SAM's plus one of its own, as transformers' `SamHQModel` gives them by default (`hq_token_only=False`).
But transformers 5.23 upscales the image as it was before the decoder's layers, with rows and columns swapped. Masks
here are made from what the layers made of it, as SAM-HQ's own code and earlier releases of transformers do.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import SamHQConfig, SamHQModel

from models.segmenter import sam_folder
from models.segmenter.decoder import Images
from models.segmenter.decoder_graphs import DecoderGraph, SamHQDecoderGraph
from models.segmenter.encoder import ImageEncoder
from models.segmenter.fine_decoders import SamHQImages, fold, unfold
from models.segmenter.sam import Encode, Sam


class SamHQ(Sam):
    """A loaded SAM-HQ; make one with `SamHQ.load`. It is a `models.segmenter.protocol.Segmenter`.

    Its embeddings hold, beside SAM's features, what the decoder makes of the image alone: no click makes it again.
    """

    model_types: ClassVar[tuple[str, ...]] = sam_folder.SAM_HQ
    config_class: ClassVar[Any] = SamHQConfig
    model_class: ClassVar[Any] = SamHQModel
    images_class: ClassVar[type[Images]] = SamHQImages
    has_cuda_graphs: ClassVar[bool] = False
    decoder_graph: ClassVar[type[DecoderGraph]] = SamHQDecoderGraph

    def _fast_features(self) -> Encode:
        encoder = ImageEncoder(self._model.vision_encoder, frees=True)

        def encode(samples: Any, between: Any) -> Tensor:
            return self._with_details(*encoder.with_early_tokens(self.pixels(samples), between))

        return encode

    def published_features(self, pixels: Tensor) -> Tensor:
        seen = self._model.vision_encoder(pixels)
        early = seen.intermediate_embeddings
        return self._with_details(seen.last_hidden_state, early[0] if early else None)

    def named_features(self, features: Tensor) -> dict[str, Tensor]:
        channels = self._model.mask_decoder.hidden_size
        return {"image_embeddings": features[:, :channels], "hq_features": unfold(unfold(features[:, channels:]))}

    def _with_details(self, features: Tensor, early: Tensor | None) -> Tensor:
        """(B, C, h, w) and early tokens (B, h, w, D) -> (B, 3 * C, h, w), see `SamHQImages`."""
        decoder = self._model.mask_decoder
        details = decoder.encoder_conv2(F.gelu(decoder.encoder_norm(decoder.encoder_conv1(features))))
        if early is not None:
            compressed = decoder.compress_vit_conv1(early.permute(0, 3, 1, 2))
            details = details + decoder.compress_vit_conv2(F.gelu(decoder.compress_vit_norm(compressed)))
        return torch.cat([features, fold(fold(details))], dim=1)

    def _published_masks(
        self, features: Tensor, place: Tensor, sparse: Tensor | None, dense: Tensor, multimask: bool
    ) -> tuple[Tensor, Tensor]:
        """As in `Sam`: the published modules, on details that were made once for the image."""
        decoder = self._model.mask_decoder
        channels = decoder.hidden_size
        coarse, details = features[:, :channels], unfold(unfold(features[:, channels:]))
        batch, prompts = len(features), 1 if sparse is None else sparse.shape[1]
        tokens = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight, decoder.hq_token.weight])
        tokens = tokens.expand(batch, prompts, -1, -1)
        if sparse is not None:
            tokens = torch.cat([tokens, sparse.to(tokens.dtype)], dim=2)
        queries, image = decoder.transformer(
            point_embeddings=tokens,
            image_embeddings=(coarse + dense).repeat_interleave(prompts, 0),
            image_positional_embeddings=place.expand(batch, -1, -1, -1).repeat_interleave(prompts, 0),
            attention_similarity=None,
        )
        queries, details = queries.flatten(0, 1), details.repeat_interleave(prompts, 0)
        image = image.flatten(0, 1).transpose(1, 2).reshape(batch * prompts, *coarse.shape[1:])
        image = decoder.upscale_conv2(F.gelu(decoder.upscale_layer_norm(decoder.upscale_conv1(image))))
        image = F.gelu(image)
        refined = decoder.mask_conv2(F.gelu(decoder.mask_norm(decoder.mask_conv1(image)))) + details
        wanted = slice(1, None) if multimask else slice(0, 1)
        scores, order = decoder.iou_prediction_head(queries[:, 0])[:, wanted].sort(dim=1, descending=True)
        mlps = [*decoder.output_hypernetworks_mlps, decoder.hq_mask_mlp]
        filters = torch.stack([mlp(queries[:, 1 + i]) for i, mlp in enumerate(mlps)], dim=1)
        masks = torch.einsum("pmc,pchw->pmhw", filters[:, :-1][:, wanted], image)
        masks = masks.gather(1, order[..., None, None].expand_as(masks))
        masks = masks + torch.einsum("pc,pchw->phw", filters[:, -1], refined).unsqueeze(1)
        return masks.unflatten(0, (batch, prompts)), scores.unflatten(0, (batch, prompts))
