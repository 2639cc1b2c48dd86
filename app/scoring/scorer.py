"""The story of a request: rows to images and prompts, through the engine, to the answer's JSON values.

A request is checked whole, images included, before any network runs. It knows nothing of HTTP.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from app import timings
from app.contract import schemas
from app.contract.amount import is_little
from app.contract.exemplars import resolve_exemplars
from app.contract.hugging_face import found_boxes
from app.contract.masks import MaskFormat
from app.contract.schemas import Params, Request, ResponseSchema, Row
from app.engine.engine import FETCHES, Engine
from app.engine.keys import content_key
from app.errors import BadRequest, ImageGone, NotFound
from app.images.reading import ImageLimits, is_url
from app.images.store import ImageStore, StoredImage, is_reference
from app.scoring import pipelines
from app.scoring.cost import AnswerCost, AnswerLimits
from app.scoring.everything import Search
from app.scoring.found_boxes import Finding
from app.scoring.mask_answers import MaskAnswers, to_box
from app.scoring.prepared_image import Parts, PreparedImage
from app.scoring.prompted_masks import Prompting
from app.scoring.row_image import image_file, stored_key, told_of
from app.scoring.row_prompts import count_of, prompts_of
from app.scoring.waiting import each, together
from app.scoring.wanted import check_prompted, names_of
from models.detector.protocol import Detector, Sample
from models.images.decoding import decode_image
from models.pipeline import box_prompts
from models.segmenter.protocol import Segmenter
from models.segmenter.tiles import parts_of
from models.types import Embedding, Prompts

# A mask for each of a hundred guesses helps nobody.
PIPELINE_SCORE_THRESHOLD = 0.3
# Rows, and columns, of a request whose prompts may be read at once.
_FEW = 16


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
        cost, parts = AnswerCost(self.answer_limits), Parts(self.engine, self.limits, params)
        finding = Finding(self.engine, params, score_threshold, with_masks)
        for image in images:
            cost.plan_tiles(params.tiling, image.size_hw, image.row)
        if with_masks and params.return_logits:
            raise BadRequest(
                "params.return_logits: expected SAM's masks, got the detector's own, which have no logits; leave it "
                'out, or ask /pipeline/score with params.masks "segmenter"'
            )

        async def answer(image: PreparedImage) -> dict[str, Any]:
            async with parts.turn():
                found = await finding.boxes(image, parts)
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
        rows = await self.engine.aside_if(not _has_few_prompts(request), read, request, self.max_prompts)
        images, of_row = await self._images(rows, request, segment=True)
        params = request.params
        cost = AnswerCost(self.answer_limits)
        grids = [params.everything if row.is_unprompted else None for row in rows]
        for number, row in enumerate(rows):
            if grids[number] is None:
                cost.plan(count_of(row), row.multimask, images[of_row[number]].size_hw)
        one_at_a_time = asyncio.Lock()  # of rows that want everything, so that the memory is that of one
        parts = Parts(self.engine, self.limits, params)

        async def ready(number: int, row: Row) -> Prompts | None:
            asked = (row, number, images[of_row[number]].size_hw, params, self._segmenter)
            return await self.engine.aside(prompts_of, *asked) if row.masks else prompts_of(*asked)

        prompts = await each(ready(number, row) for number, row in enumerate(rows))

        for number, one in enumerate(prompts):
            if params.tiling is not None and one is not None:
                its_parts = parts_of(one, images[of_row[number]].size_hw, params.tiling)
                cost.plan_prompts(len(its_parts.keys() - {None}), number)

        async def answer(number: int) -> dict[str, Any]:
            wanted, grid, encoded = prompts[number], grids[number], []
            if grid is not None:
                async with one_at_a_time:
                    image = images[of_row[number]]
                    search = Search(self.engine, grid, image, parts)
                    encoded = await search.answer(await parts.embedding(image, None), params, cost, number)
            elif wanted is not None:
                async with parts.turn():
                    prompting = Prompting(self.engine, params, cost, images[of_row[number]], parts, request.best_alone)
                    encoded = await prompting.masks(wanted, rows[number].multimask)
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
        cost, parts = AnswerCost(self.answer_limits), Parts(self.engine, self.limits, params)
        finding = Finding(self.engine, params, PIPELINE_SCORE_THRESHOLD, False)
        for image in images:
            cost.plan_tiles(params.tiling, image.size_hw, image.row)

        async def answer(image: PreparedImage) -> dict[str, Any]:
            async with parts.turn():
                found = await finding.boxes(image, parts)
                boxes = schemas.detected_boxes(found, image.names)
                if boxes:
                    multimask = params.multimask_output
                    cost.plan(len(boxes), multimask, image.size_hw)
                    prompting = Prompting(self.engine, params, cost, image, parts)
                    masks_of_boxes = await prompting.masks(box_prompts(found), multimask, found.scores)
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
    ) -> tuple[list[PreparedImage], list[int]]:
        """The distinct images of the rows, prepared for these networks, and which of them each row has."""
        params = request.params
        # An image is looked at anew for other exemplars.
        one_of = (str, StoredImage)
        keys = [(row.image if isinstance(row.image, one_of) else n, row.exemplars) for n, row in enumerate(rows)]
        first_rows: dict[object, int] = {}  # image as it was sent -> the first row with it
        for number, key in enumerate(keys):
            first_rows.setdefault(key, number)
        # Looked up at once, so that none of them makes room for another meanwhile.
        known = {number: self._known(request.client, rows[number].image, number) for number in first_rows.values()}

        def read(number: int) -> tuple[str, bytes]:
            stored = known[number]
            if stored is not None:
                return stored_key(stored, exif_orientation=params.exif_orientation), stored.file
            with told_of(number):
                data = image_file(rows[number].image, self.limits)
            return content_key(data, exif_orientation=params.exif_orientation), data

        with_crops = segment and params.everything is not None and params.everything.crops_n_layers > 0
        with_parts = with_crops or params.tiling is not None

        def prepare(number: int, key: str, data: bytes, embedding: Embedding | None) -> PreparedImage:
            with told_of(number), timings.stage("decode"):
                image = decode_image(data, exif_orientation=params.exif_orientation, max_pixels=self.limits.max_pixels)
                return PreparedImage(
                    key,
                    (image.shape[0], image.shape[1]),
                    number,
                    for_detector=self._sample(image, rows[number], number, names[number], params) if detect else None,
                    for_segmenter=self._segmenter.preprocess(image) if segment and embedding is None else None,
                    embedding=embedding,
                    file=data if with_parts else None,
                    names=names[number],
                )

        names: dict[int, Sequence[str]] = dict.fromkeys(first_rows.values(), ())
        if detect:
            names = {n: names_of(self._detector, params, self.texts, rows[n], n) for n in names}

        # A few at a time, so that files need not all be in memory.
        turns = {True: asyncio.Semaphore(FETCHES), False: asyncio.Semaphore(self.engine.workers)}

        async def load(number: int) -> PreparedImage:
            fetched, stored = is_url(rows[number].image), known[number]
            has_key = stored is not None and params.exif_orientation in stored.keys
            async with turns[fetched]:
                if fetched:
                    key, data = await self.engine.fetch(read, number)
                else:
                    key, data = await self.engine.aside_if(not has_key, read, number)
                embedding = self.engine.cache.peek(key) if segment else None
                if embedding is not None and not detect:  # it was decoded once, which tells all that is needed of it
                    file = data if with_parts else None
                    return PreparedImage(key, embedding.size_hw, number, embedding=embedding, file=file)
                return await self.engine.prepare(prepare, number, key, data, embedding)

        images = await each(load(number) for number in first_rows.values())
        place = {key: index for index, key in enumerate(first_rows)}
        return images, [place[key] for key in keys]

    def _sample(self, image: np.ndarray, row: Row, number: int, names: Sequence[str], params: Params) -> Sample:
        frame = {"normalized": params.coordinates == "normalized", "absolute": params.coordinates == "absolute"}
        exemplars = resolve_exemplars(row.exemplars, (image.shape[0], image.shape[1]), **frame, row=number)
        return self._detector.preprocess(image, names if self._detector.takes_texts else (), exemplars)

    def _known(self, client: str, value: object, row: int) -> StoredImage | None:
        """The image that the client has sent before, if `value` names one, or is one. Raises ImageGone."""
        if isinstance(value, StoredImage):  # no JSON can hold one: of this process's own
            return value
        if not is_reference(value):
            return None
        image = self.store.get(client, str(value))
        if image is None:
            raise ImageGone(str(value), row=row)
        return image


def _has_few_prompts(request: Request) -> bool:
    """Whether all that a request has beside its images is little."""
    if len(request.data) > _FEW or len(request.columns) > _FEW:
        return False
    rows = [zip(request.columns, row, strict=False) for row in request.data if isinstance(row, list)]
    return is_little([value for row in rows for column, value in row if column != schemas.IMAGE])


def _need(model: object | None, kind: str) -> None:
    if model is None:
        purpose = {"detector": "requests with only images", "segmenter": "requests with points and boxes"}[kind]
        raise NotFound(f"this service has no {kind}, which answers {purpose}: start it with BOX2MASK_{kind.upper()}")
