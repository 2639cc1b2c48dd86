"""The embedding of an image that was sent before, as a file for whoever has the segmenter's exported decoder."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import safetensors.torch
import torch

from app import timings
from app.contract.embedding_params import EmbeddingParams
from app.engine.loading import Choice
from app.errors import BadRequest, ImageGone, NotFound
from app.images.store import StoredImage
from app.scoring.row_image import stored_key
from app.scoring.scorer import Scorer
from models.images.decoding import ImageError, decode_image
from models.types import Embedding


@dataclass(frozen=True)
class WantedEmbedding:
    """reference: of the image. model: which model this is, for the file's metadata."""

    reference: str
    params: EmbeddingParams
    model: Mapping[str, str]

    @property
    def tag(self) -> str:
        """An ETag: stands for the file's content before it is made."""
        wanted = repr((self.reference, self.params, sorted(self.model.items())))
        return f'"{hashlib.sha256(wanted.encode()).hexdigest()[:32]}"'


def wanted_embedding(scorer: Scorer, choice: Choice, reference: str, query: Mapping[str, str]) -> WantedEmbedding:
    """What an address asks for. Raises NotFound for want of a segmenter, or BadRequest."""
    segmenter = scorer.engine.segmenter
    if segmenter is None or choice.segmenter is None:
        raise NotFound("this service has no segmenter, which makes embeddings: start it with BOX2MASK_SEGMENTER")
    model = {
        "model": choice.segmenter.name,
        "model_sha256": choice.hashes["segmenter"],
        "computed_in": str(segmenter.dtype).removeprefix("torch."),
    }
    return WantedEmbedding(reference, EmbeddingParams.read(query), model)


async def embedding_file(scorer: Scorer, client: str, wanted: WantedEmbedding) -> bytes:
    """The embedding as safetensors, its tensors by the names that the exported decoder has for them.

    It is that of later clicks on the image too: taken from the cache, or computed once and kept there. Raises
    ImageGone, or BadRequest for an image that cannot be read.
    """
    engine, segmenter, upright = scorer.engine, scorer.engine.segmenter, wanted.params.exif_orientation
    image = scorer.store.get(client, wanted.reference)
    if image is None:
        raise ImageGone(wanted.reference[:80])
    assert segmenter is not None
    embedding = await stored_embedding(scorer, image, exif_orientation=upright)
    named = segmenter.named_features(embedding.features[None])
    metadata = _metadata(embedding, wanted, segmenter.image_size)
    return await engine.aside(timings.stage("serialise")(_safetensors), named, wanted.params.dtype, metadata)


async def stored_embedding(scorer: Scorer, image: StoredImage, *, exif_orientation: bool) -> Embedding:
    """From the cache, or computed once and kept there. Raises BadRequest for an image that cannot be read."""
    engine, segmenter = scorer.engine, scorer.engine.segmenter
    assert segmenter is not None

    def prepare() -> Any:
        with timings.stage("decode"):
            most = scorer.limits.max_pixels
            return segmenter.preprocess(decode_image(image.file, exif_orientation=exif_orientation, max_pixels=most))

    has_key = exif_orientation in image.keys
    key = await engine.aside_if(not has_key, stored_key, image, exif_orientation=exif_orientation)
    embedding = engine.cache.peek(key)
    if embedding is not None:
        return embedding
    try:
        sample = await engine.prepare(prepare)
    except ImageError as error:
        raise BadRequest(str(error)) from error
    return await engine.embed(key, sample)


def _metadata(embedding: Embedding, wanted: WantedEmbedding, image_size: int) -> dict[str, str]:
    (height, width), (resized_height, resized_width) = embedding.size_hw, embedding.resized_hw
    sizes = {"height": height, "width": width, "resized_height": resized_height, "resized_width": resized_width}
    texts = {name: str(size) for name, size in (sizes | {"image_size": image_size}).items()}
    return {"image": wanted.reference, **wanted.model, **texts}


def _safetensors(named: Mapping[str, torch.Tensor], dtype: str, metadata: dict[str, str]) -> bytes:
    tensors = {name: one.to("cpu", getattr(torch, dtype)).contiguous() for name, one in named.items()}
    return safetensors.torch.save(tensors, metadata)
