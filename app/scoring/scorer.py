"""The story of a request: rows to images and prompts, through the engine, to the answer's JSON values.

A request is checked whole, images included, before any network runs. It knows nothing of HTTP.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from app import timings
from app.contract import schemas
from app.contract.exemplars import resolve_exemplars
from app.contract.hugging_face import found_boxes
from app.contract.masks import MaskFormat
from app.contract.schemas import Params, Request, ResponseSchema, Row
from app.engine.cache import content_key
from app.engine.engine import FETCHES, Engine
from app.errors import BadRequest, ImageGone, NotFound, NotNumbers
from app.images.reading import ImageLimits, is_url
from app.images.store import ImageStore, is_reference
from app.scoring import pipelines
from app.scoring.cost import AnswerCost, AnswerLimits
from app.scoring.everything import Search
from app.scoring.mask_answers import MaskAnswers, to_box
from app.scoring.row_image import image_file, told_of
from app.scoring.row_prompts import count_of, prompts_of
from app.scoring.waiting import each, together
from app.scoring.wanted import check_prompted, names_of
from models.detector.protocol import Detector, Sample
from models.images.decoding import decode_image
from models.pipeline import box_prompts
from models.segmenter.protocol import RawMasks, Segmenter
from models.types import Detections, Embedding, Prompts

# A mask for each of a hundred guesses helps nobody.
PIPELINE_SCORE_THRESHOLD = 0.3


@dataclass(frozen=True, eq=False)
class _Image:
    """What is kept of an image: only what the networks still need of it.

    key: stands for its content. embedding: where it was known already; there is no for_segmenter then. file: as it
    came, where parts of the image will be needed too. names: of the labels that the detector may find in it.
    """

    key: str
    size_hw: tuple[int, int]
    for_detector: Sample | None = None
    for_segmenter: Any | None = None
    embedding: Embedding | None = None
    file: bytes | None = None
    names: Sequence[str] = ()


@dataclass(frozen=True)
class Scorer:
    """Answers requests with an engine.

    Every method raises BadRequest for what the client got wrong, NotFound for want of a model that it takes, and
    ImageGone for an image that is named by its hash and is not in the store.

    limits: what an image may cost. max_prompts: per row. response_schema: where a request names none. answer_limits:
    what a request's masks may cost. store: images that may be named by their hash. texts: what an open-vocabulary
    detector finds where a request names nothing.
    """

    engine: Engine
    limits: ImageLimits
    max_prompts: int
    response_schema: ResponseSchema
    answer_limits: AnswerLimits = AnswerLimits()
    store: ImageStore = field(default_factory=lambda: ImageStore(0))
    texts: tuple[str, ...] = ()

    async def by_columns(self, request: Request) -> Any:
        """SAM's answer to a request with any of SAM's prompt columns, YOLOF's to one without; or a pipeline's."""
        if request.inputs is not None:
            return await pipelines.answer(self, request, request.inputs)
        return await (self.segment if request.has_prompts else self.detect)(request)

    async def by_models(self, request: Request) -> list[dict[str, Any]]:
        """All that the models here can say: as `by_columns`, but with both models images alone get boxes and masks.

        With one model it is asked, whatever the columns.
        """
        if self.is_prompted(request):
            return await self.segment(request)
        boxes_alone = self.engine.segmenter is None or request.params.masks == "none"
        return await (self.detect if boxes_alone else self.detect_and_segment)(request)

    def is_prompted(self, request: Request) -> bool:
        """Whether `by_models` takes the request for one for SAM and its prompts."""
        if self.engine.segmenter is None:
            return False
        return self.engine.detector is None or request.has_prompts

    async def detect(self, request: Request) -> list[dict[str, Any]]:
        """The detector's answer: `{"boxes": [...]}` per row, with its own masks if it has some."""
        _need(self.engine.detector, "detector")
        params = request.params
        if params.masks == "segmenter":
            raise BadRequest(
                'params.masks: expected "detector" or "none" on this route, got "segmenter": /pipeline/score asks it'
            )
        with_masks = self._detector.has_masks and params.masks != "none"
        if params.masks == "detector":
            self._need_masks()
        return await self._boxes(request, None, with_masks, params.mask_format or "polygon")

    async def _boxes(
        self, request: Request, score_threshold: float | None, with_masks: bool, mask_format: MaskFormat
    ) -> list[dict[str, Any]]:
        """Per row the detector's boxes and, if `with_masks`, its own masks in that form."""
        params = request.params
        images, of_row = await self._images(schemas.detector_rows(request), request, detect=True)
        cost = AnswerCost(self.answer_limits)
        if with_masks and params.return_logits:
            raise BadRequest(
                "params.return_logits: expected SAM's masks, got the detector's own, which have no logits; leave it "
                'out, or ask /pipeline/score with params.masks "segmenter"'
            )

        async def answer(image: _Image) -> dict[str, Any]:
            found = await self._detections(image, params, score_threshold, with_masks)
            boxes = (schemas.detected_boxes if request.inputs is None else found_boxes)(found, image.names)
            if found.masks is not None:
                cost.plan(len(boxes), False, image.size_hw)
                wanted = MaskAnswers(self.engine, params, mask_format, self._detector.fast, cost)
                encoded = await wanted.entries(found.masks, found.scores.tolist())
                for box, mask in zip(boxes, encoded, strict=True):
                    to_box(box, [mask])
                    box |= mask if mask_format == "polygon" else {"mask_per_prediction": [mask]}
            return {"boxes": boxes}

        answers = await together(answer(image) for image in images)
        return [answers[image] for image in of_row]

    async def segment(self, request: Request) -> list[dict[str, Any]]:
        """SAM's answer: the masks of every prompt, per row. Rows of one image share its embedding."""
        _need(self.engine.segmenter, "segmenter")
        check_prompted(request)
        # Hundreds of thousands of coordinates take seconds; other requests are answered meanwhile.
        read = timings.stage("parse")(schemas.segmenter_rows)
        rows = await self.engine.aside(read, request, self.max_prompts)
        images, of_row = await self._images(rows, request, segment=True)
        params = request.params
        cost = AnswerCost(self.answer_limits)
        grids = [params.everything if row.is_unprompted else None for row in rows]
        for number, row in enumerate(rows):
            if grids[number] is None:
                cost.plan(count_of(row), row.multimask, images[of_row[number]].size_hw)
        one_at_a_time = asyncio.Lock()  # of rows that want everything, so that the memory is that of one

        async def ready(number: int, row: Row) -> Prompts | None:
            asked = (row, number, images[of_row[number]].size_hw, params, self._segmenter)
            return await self.engine.aside(prompts_of, *asked) if row.masks else prompts_of(*asked)

        prompts = await each(ready(number, row) for number, row in enumerate(rows))

        async def answer(number: int) -> dict[str, Any]:
            wanted, grid, encoded = prompts[number], grids[number], []
            if grid is not None:
                async with one_at_a_time:
                    image = images[of_row[number]]
                    search = Search(self.engine, grid, image.file, self.limits, params.exif_orientation)
                    encoded = await search.answer(await self._embedding(image), params, cost, number)
            elif wanted is not None:
                embedding = await self._embedding(images[of_row[number]])
                encoded = await self._masks(embedding, wanted, rows[number].multimask, params, cost)
            return schemas.predictions(encoded, params.response_schema or self.response_schema)

        return await together(answer(number) for number in range(len(rows)))

    async def detect_and_segment(self, request: Request) -> list[dict[str, Any]]:
        """The detector's answer with a mask for every box: `{"boxes": [{..., "mask_per_prediction": [...]}]}` per row.

        They are the segmenter's, or the detector's own where these are asked for or there is no segmenter.
        """
        _need(self.engine.detector, "detector")
        params = request.params
        if params.masks == "none":
            raise BadRequest(
                'params.masks: expected "detector" or "segmenter" here, got "none": /yolof/score finds boxes'
            )
        alone = params.masks is None and self.engine.segmenter is None and self._detector.has_masks
        if params.masks == "detector" or alone:
            self._need_masks()
            return await self._boxes(request, PIPELINE_SCORE_THRESHOLD, True, params.mask_format or "png")
        _need(self.engine.segmenter, "segmenter")
        images, of_row = await self._images(schemas.detector_rows(request), request, detect=True, segment=True)
        cost = AnswerCost(self.answer_limits)

        async def answer(image: _Image) -> dict[str, Any]:
            found = await self._detections(image, params, PIPELINE_SCORE_THRESHOLD, masks=False)
            boxes = schemas.detected_boxes(found, image.names)
            if boxes:
                cost.plan(len(boxes), params.multimask_output, image.size_hw)
                embedding = await self._embedding(image)
                multimask = params.multimask_output
                masks_of_boxes = await self._masks(embedding, box_prompts(found), multimask, params, cost, found.scores)
                for box, encoded in zip(boxes, masks_of_boxes, strict=True):
                    to_box(box, encoded)
                    if params.mask_format == "polygon":  # Azure's instance-segmentation form: the best mask's
                        box["polygon"] = max(encoded, key=lambda mask: mask["iou_score"])["polygon"]
                    box["mask_per_prediction"] = encoded
            return {"boxes": boxes}

        answers = await together(answer(image) for image in images)
        return [answers[image] for image in of_row]

    @property
    def _detector(self) -> Detector[Any, Any]:
        assert self.engine.detector is not None
        return self.engine.detector

    def _need_masks(self) -> None:
        if not self._detector.has_masks:
            raise BadRequest('params.masks: expected "segmenter", got "detector": this detector finds boxes alone')

    @property
    def _segmenter(self) -> Segmenter[Any]:
        assert self.engine.segmenter is not None
        return self.engine.segmenter

    async def _images(
        self, rows: Sequence[Row], request: Request, *, detect: bool = False, segment: bool = False
    ) -> tuple[list[_Image], list[int]]:
        """The distinct images of the rows, prepared for these networks, and which of them each row has."""
        params = request.params
        # An image is looked at anew for other exemplars.
        keys = [(row.image if isinstance(row.image, str) else number, row.exemplars) for number, row in enumerate(rows)]
        first_rows: dict[object, int] = {}  # image as it was sent -> the first row with it
        for number, key in enumerate(keys):
            first_rows.setdefault(key, number)
        # Looked up at once, so that none of them makes room for another meanwhile.
        known = {number: self._known(request.client, rows[number].image, number) for number in first_rows.values()}

        def read(number: int) -> tuple[str, bytes]:
            data = known[number]
            if data is None:
                with told_of(number):
                    data = image_file(rows[number].image, self.limits)
            return content_key(data, exif_orientation=params.exif_orientation), data

        def prepare(number: int, key: str, data: bytes, embedding: Embedding | None) -> _Image:
            with told_of(number), timings.stage("decode"):
                image = decode_image(data, exif_orientation=params.exif_orientation, max_pixels=self.limits.max_pixels)
                return _Image(
                    key,
                    (image.shape[0], image.shape[1]),
                    for_detector=self._sample(image, rows[number], number, names[number], params) if detect else None,
                    for_segmenter=self._segmenter.preprocess(image) if segment and embedding is None else None,
                    embedding=embedding,
                    file=data if with_parts else None,
                    names=names[number],
                )

        with_parts = segment and params.everything is not None and params.everything.crops_n_layers > 0
        names: dict[int, Sequence[str]] = dict.fromkeys(first_rows.values(), ())
        if detect:
            names = {n: names_of(self._detector, params, self.texts, rows[n], n) for n in names}

        # A few at a time, so that files need not all be in memory.
        turns = {True: asyncio.Semaphore(FETCHES), False: asyncio.Semaphore(self.engine.workers)}

        async def load(number: int) -> _Image:
            fetched = is_url(rows[number].image)
            async with turns[fetched]:
                key, data = await (self.engine.fetch if fetched else self.engine.aside)(read, number)
                embedding = self.engine.cache.peek(key) if segment else None
                if embedding is not None and not detect:  # it was decoded once, which tells all that is needed of it
                    return _Image(key, embedding.size_hw, embedding=embedding, file=data if with_parts else None)
                return await self.engine.prepare(prepare, number, key, data, embedding)

        images = await each(load(number) for number in first_rows.values())
        place = {key: index for index, key in enumerate(first_rows)}
        return images, [place[key] for key in keys]

    def _sample(self, image: np.ndarray, row: Row, number: int, names: Sequence[str], params: Params) -> Sample:
        frame = {"normalized": params.coordinates == "normalized", "absolute": params.coordinates == "absolute"}
        exemplars = resolve_exemplars(row.exemplars, (image.shape[0], image.shape[1]), **frame, row=number)
        return self._detector.preprocess(image, names if self._detector.takes_texts else (), exemplars)

    def _known(self, client: str, value: object, row: int) -> bytes | None:
        """The file that the client has sent before, if `value` names one. Raises ImageGone."""
        if not is_reference(value):
            return None
        image = self.store.get(client, str(value))
        if image is None:
            raise ImageGone(str(value), row=row)
        return image

    async def _detections(
        self, image: _Image, params: Params, score_threshold: float | None, masks: bool
    ) -> Detections:
        assert image.for_detector is not None
        found = await self.engine.aside(
            timings.stage("post")(self._detector.postprocess),
            await self.engine.detect(image.for_detector),
            score_threshold=score_threshold if params.score_threshold is None else params.score_threshold,
            iou_threshold=params.iou_threshold,
            max_detections=params.max_detections,
            class_agnostic=params.class_agnostic_nms,
            masks=masks,
        )
        if not (np.isfinite(found.boxes_xyxy).all() and np.isfinite(found.scores).all()):
            raise NotNumbers()
        return found

    async def _embedding(self, image: _Image) -> Embedding:
        if image.embedding is not None:
            return image.embedding
        assert image.for_segmenter is not None
        return await self.engine.embed(image.key, image.for_segmenter)

    async def _masks(
        self,
        embedding: Embedding,
        prompts: Prompts,
        multimask: bool,
        params: Params,
        cost: AnswerCost,
        scores: np.ndarray | float = 1.0,
    ) -> list[list[dict[str, Any]]]:
        """For each prompt its masks, as they stand in the answer. scores: of the boxes that prompt them."""
        wanted = MaskAnswers(self.engine, params, params.mask_format or "png", self._segmenter.fast, cost)
        if not params.no_overlaps:
            return await self._decoded(embedding, prompts, multimask, wanted)
        found = await self._decoded(embedding, prompts, multimask, wanted.to_be_parted())
        ranks = scores * np.array([one["iou_score"] for (one,) in found])
        return [[one] for one in await wanted.parted([one for (one,) in found], ranks.tolist())]

    async def _decoded(
        self, embedding: Embedding, prompts: Prompts, multimask: bool, wanted: MaskAnswers
    ) -> list[list[dict[str, Any]]]:
        """For each prompt its masks, encoded; while one part of them is encoded, the next is decoded."""
        encoded: list[list[dict[str, Any]]] = []
        last: asyncio.Task[list[list[dict[str, Any]]]] | None = None
        try:
            decoded = self.engine.decode(
                embedding, prompts, multimask=multimask, keep_logits=wanted.params.return_logits
            )
            async with aclosing(decoded) as parts:
                async for raw in parts:
                    if last is not None:
                        encoded += await last
                    last = asyncio.create_task(self._encode(raw, wanted))
            assert last is not None  # there is always a prompt
            return encoded + await last
        finally:
            if last is not None:
                last.cancel()
                await asyncio.gather(last, return_exceptions=True)

    async def _encode(self, raw: RawMasks, wanted: MaskAnswers) -> list[list[dict[str, Any]]]:
        """For each prompt its masks, in the form that was asked for, each with its iou_score."""

        @timings.stage("post")
        def encode(index: int) -> list[dict[str, Any]]:
            found, scores = self._segmenter.postprocess(raw, index), raw.iou_scores[index].astype(float).tolist()
            logits = raw.logits[index].numpy() if wanted.params.return_logits else [None] * len(scores)
            return [wanted.entry(*one) for one in zip(found, scores, logits, strict=True)]

        async def one(index: int) -> list[dict[str, Any]]:
            encoded = await self.engine.aside(encode, index)
            wanted.cost.add(encoded)
            return encoded

        return await together(one(index) for index in range(len(raw)))


def _need(model: object | None, kind: str) -> None:
    if model is None:
        purpose = {"detector": "requests with only images", "segmenter": "requests with points and boxes"}[kind]
        raise NotFound(f"this service has no {kind}, which answers {purpose}: start it with BOX2MASK_{kind.upper()}")
