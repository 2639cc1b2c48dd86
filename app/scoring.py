"""The story of a request: rows to images and prompts, through the engine, to the answer's JSON values.

A request is checked whole, images included, before any network runs. It knows nothing of HTTP.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from app import masks, schemas
from app.engine import Engine
from app.errors import BadRequest
from app.images import ImageError, ImageLimits, load_image
from app.schemas import Params, Request, ResponseSchema, Row
from models import sam, yolof
from models.pipeline import box_prompts
from models.types import Detections

T = TypeVar("T")

# A mask for each of a hundred guesses helps nobody.
PIPELINE_SCORE_THRESHOLD = 0.3


@dataclass(frozen=True)
class Scorer:
    """Answers requests with an engine. Every method raises BadRequest for what the client got wrong.

    limits: what an image may cost. max_prompts: per row. response_schema: where a request names none.
    """

    engine: Engine
    limits: ImageLimits
    max_prompts: int
    response_schema: ResponseSchema

    async def detect(self, request: Request) -> list[dict[str, Any]]:
        """YOLOF's answer: `{"boxes": [...]}` per row."""
        images, of_row = await self._prepare(
            schemas.detector_rows(request), request.params, [self._detector.preprocess]
        )
        found = await self._detections([sample for (sample,) in images], request.params)
        answers = [{"boxes": schemas.detected_boxes(one, self._detector.class_names)} for one in found]
        return [answers[image] for image in of_row]

    async def segment(self, request: Request) -> list[dict[str, Any]]:
        """SAM's answer: the masks of every prompt, per row. Rows of one image share its embedding."""
        rows = schemas.segmenter_rows(request, self.max_prompts)
        images, of_row = await self._prepare(rows, request.params, [self._segmenter.preprocess])
        samples: list[sam.Sample] = [sample for (sample,) in images]
        prompts = [
            schemas.resolve_prompts(
                row.prompts, samples[of_row[number]].size_hw, normalized=request.params.normalized, row=number
            )
            for number, row in enumerate(rows)
        ]
        embeddings = [await self.engine.embed(sample) for sample in samples]
        answers = []
        for number, row in enumerate(rows):
            raw = await self.engine.decode(embeddings[of_row[number]], prompts[number], multimask=row.multimask)
            encoded = await self._encode(raw, request.params)
            answers.append(schemas.predictions(encoded, request.params.response_schema or self.response_schema))
        return answers

    async def detect_and_segment(self, request: Request) -> list[dict[str, Any]]:
        """YOLOF's answer with a mask for every box: `{"boxes": [{..., "mask_per_prediction": [...]}]}` per row."""
        params = request.params
        preprocess = [self._detector.preprocess, self._segmenter.preprocess]
        images, of_row = await self._prepare(schemas.detector_rows(request), params, preprocess)
        found = await self._detections([sample for sample, _ in images], params, PIPELINE_SCORE_THRESHOLD)
        answers = []
        for one, (_, sample) in zip(found, images, strict=True):
            boxes = schemas.detected_boxes(one, self._detector.class_names)
            if boxes:
                embedding = await self.engine.embed(sample)
                raw = await self.engine.decode(embedding, box_prompts(one), multimask=params.multimask_output)
                for box, encoded in zip(boxes, await self._encode(raw, params), strict=True):
                    if params.mask_format == "polygon":  # Azure's instance-segmentation form: the best mask's
                        box["polygon"] = max(encoded, key=lambda mask: mask["iou_score"])["polygon"]
                    box["mask_per_prediction"] = encoded
            answers.append({"boxes": boxes})
        return [answers[image] for image in of_row]

    @property
    def _detector(self) -> yolof.Detector:
        assert self.engine.detector is not None
        return self.engine.detector

    @property
    def _segmenter(self) -> sam.Segmenter:
        assert self.engine.segmenter is not None
        return self.engine.segmenter

    async def _prepare(
        self, rows: Sequence[Row], params: Params, preprocess: Sequence[Callable[[np.ndarray], Any]]
    ) -> tuple[list[list[Any]], list[int]]:
        """The distinct images of the rows, each as every one of `preprocess` makes it, and which of them each row has.

        Only what the networks need is kept of an image.
        """
        keys = [row.image if isinstance(row.image, str) else number for number, row in enumerate(rows)]
        first_rows: dict[object, int] = {}  # image as it was sent -> the first row with it
        for number, key in enumerate(keys):
            first_rows.setdefault(key, number)

        def prepare(number: int) -> list[Any]:
            try:
                image = load_image(rows[number].image, exif_orientation=params.exif_orientation, limits=self.limits)
            except ImageError as error:
                raise BadRequest(str(error), row=number, column=schemas.IMAGE) from error
            return [function(image) for function in preprocess]

        images = await _all(self.engine.aside(prepare, number) for number in first_rows.values())
        place = {key: index for index, key in enumerate(first_rows)}
        return images, [place[key] for key in keys]

    async def _detections(
        self, samples: Sequence[yolof.Sample], params: Params, score_threshold: float | None = None
    ) -> list[Detections]:
        raws = await self.engine.detect(samples)
        threshold = score_threshold if params.score_threshold is None else params.score_threshold
        return await _all(
            self.engine.aside(
                self._detector.postprocess,
                raw,
                score_threshold=threshold,
                iou_threshold=params.iou_threshold,
                max_detections=params.max_detections,
            )
            for raw in raws
        )

    async def _encode(self, raw: sam.RawMasks, params: Params) -> list[list[dict[str, Any]]]:
        """For each prompt its masks, in the form that was asked for, each with its iou_score."""

        def encode(index: int) -> list[dict[str, Any]]:
            scores = raw.iou_scores[index].astype(float).tolist()
            return [
                {key: function(mask), "iou_score": score}
                for mask, score in zip(self._segmenter.postprocess(raw, index), scores, strict=True)
            ]

        encoders: dict[str, tuple[str, Callable[[np.ndarray], Any]]] = {
            "png": ("encoded_binary_mask", masks.encode_png),
            "rle": ("rle", masks.encode_rle),
            "polygon": ("polygon", masks.encode_polygons),
        }
        key, function = encoders[params.mask_format]
        return await _all(self.engine.aside(encode, index) for index in range(len(raw)))


async def _all(calls: Any) -> list[Any]:
    """Await all, also those after one that failed, so that nothing goes on working for a dead request.

    Raises the first failure in the order of the calls, which is that of the rows.
    """
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
    return list(outcomes)
