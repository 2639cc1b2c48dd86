"""Label Studio's ML backend without HTTP: its requests -> the scorer's -> regions in the project's own controls."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from app import timings
from app.contract import schemas
from app.contract.answers import box_in_pixels, without_row
from app.contract.schemas import MAX_TEXTS, Params, Request
from app.engine import loading
from app.errors import BadRequest, NotFound, ServiceError
from app.http.middleware import loggable
from app.images.store import StoredImage
from app.label_studio.asked import Asked
from app.label_studio.labeling_config import ImageTag, Interface, parse
from app.label_studio.regions import answer_control, pre_labels, smart_answer
from app.label_studio.smart_tools import Drawn, drawn_objects
from app.label_studio.task_images import TaskImages, image_address
from app.prediction import PredictedObject
from app.scoring.description import describe
from app.scoring.scorer import PIPELINE_SCORE_THRESHOLD, Scorer
from app.settings import Settings
from models.data.formats.label_studio.writing import prediction
from models.images.decoding import ImageError, image_size_hw
from models.rle import decode_rle

T = TypeVar("T")

log = logging.getLogger("box2mask")

# Tasks in work at once, of one request: enough for the devices to be busy, while few photos are in memory.
_AT_ONCE = 8
# What a task gets that could not be answered: no prediction is stored, so that Label Studio asks again.
_NOTHING = b"[]"


class Backends:
    """Backends of the models that answer, one after the other. For one event loop."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._images = TaskImages(settings)
        self._versions: dict[str, None] = {}
        self._last: Backend | None = None

    def of(self, scorer: Scorer, choice: loading.Choice) -> Backend:
        """The one of these models."""
        if self._last is None or self._last.scorer is not scorer:
            self._last = Backend(scorer, choice, self._settings, self._images, self._versions)
        return self._last


class Backend:
    """Answers Label Studio by a scorer."""

    def __init__(
        self,
        scorer: Scorer,
        choice: loading.Choice,
        settings: Settings,
        images: TaskImages,
        versions: dict[str, None],
    ) -> None:
        """versions: those that projects were told, the last one last; it adds its own."""
        self.scorer = scorer
        self._images = images
        self._seconds = settings.label_studio_predict_s
        self._most_bytes = scorer.answer_limits.bytes
        served = describe(scorer, choice, settings)
        self._identity = {name: served[name] for name in ("box2mask", "detector", "segmenter")}
        self._versions = versions

    @property
    def versions(self) -> list[str]:
        """Those that projects were told since the service started, newest first."""
        return list(reversed(self._versions)) or [self._version_of(None)]

    def version(self, config: str | None) -> str:
        """Stands for the models, and for all else that predictions depend on; of the interface's own wishes too."""
        try:
            interface = None if config is None else parse(config)
        except BadRequest:  # it is told of with the tasks
            interface = None
        return self._version_of(interface)

    def _version_of(self, interface: Interface | None) -> str:
        known = json.dumps([self._identity, repr(interface)], sort_keys=True)
        version = f"box2mask-{hashlib.sha256(known.encode()).hexdigest()[:10]}"
        if interface is not None:
            self._versions.pop(version, None)
            self._versions[version] = None
            while len(self._versions) > 32:
                del self._versions[next(iter(self._versions))]
        return version

    async def predict(self, asked: Asked, client: str) -> bytes:
        """The answer's JSON, `{"results": [...]}`: an entry for each task, in order."""
        entries = [await self.smart(asked, client)] if asked.context is not None else await self.batch(asked, client)
        return b'{"results":[' + b",".join(entries) + b"]}"

    async def batch(self, asked: Asked, client: str) -> list[bytes]:
        """For each task its prediction, `[]` of one that failed or was not done in time: the log says why."""
        turns = asyncio.Semaphore(_AT_ONCE)
        began, size = time.monotonic(), 0

        async def one(task: dict[str, Any]) -> bytes:
            nonlocal size
            async with turns:
                if size > self._most_bytes:
                    return _NOTHING
                try:
                    entry = await self.pre_label(task, asked.interface, client)
                except ServiceError as error:
                    log.warning("Label Studio's task %s has no prediction: %s", _number(task), loggable(error))
                    return _NOTHING
                except Exception:
                    log.exception("Label Studio's task %s has no prediction", _number(task))
                    return _NOTHING
                size += len(entry)
                return entry

        works = [asyncio.create_task(one(task)) for task in asked.tasks]
        try:
            await asyncio.wait(works, timeout=self._seconds)
        finally:
            late = [work for work in works if not work.done()]
            for work in late:
                work.cancel()
            if late:
                await asyncio.wait(late)
        if late:
            seconds = time.monotonic() - began
            log.warning("%d of %d tasks were not done in %.0f s: ask again", len(late), len(works), seconds)
        return [_NOTHING if work.cancelled() else work.result() for work in works]

    async def pre_label(self, task: dict[str, Any], interface: Interface, client: str) -> bytes:
        """A task's prediction, as JSON. Raises ServiceError."""
        results: list[dict[str, Any]] = []
        for tag in interface.images:
            controls = [one for one in interface.controls if one.to_name == tag.name and not one.is_skipped]
            if not controls or self.scorer.engine.detector is None:
                continue
            image = await self._image(task, tag, client)
            size_hw = await self.scorer.engine.aside(self._size_hw, image)
            found = await self._found(image, interface, tag.name, client, size_hw)
            regions, nowhere = await self.scorer.engine.aside(
                timings.stage("post")(pre_labels), found, interface, tag.name, size_hw
            )
            if nowhere:
                log.info("Label Studio's interface has no label for the classes of %d objects: left out", nowhere)
            results += regions
        return await self.scorer.engine.aside(_to_json, prediction(results, self._version_of(interface)))

    async def _found(
        self, image: StoredImage, interface: Interface, image_name: str, client: str, size_hw: tuple[int, int]
    ) -> list[PredictedObject]:
        engine = self.scorer.engine
        detector = engine.detector
        assert detector is not None
        shapes = {one.shape for one in interface.controls if one.to_name == image_name and not one.is_skipped}
        with_masks = bool(shapes & {"brush", "polygon"}) and (engine.segmenter is not None or detector.has_masks)
        texts = interface.texts if detector.takes_texts else ()
        if len(texts) > MAX_TEXTS:
            raise BadRequest(f"label_config: expected at most {MAX_TEXTS} labels for this detector, got {len(texts)}")
        threshold = interface.score_threshold
        params = Params(
            score_threshold=PIPELINE_SCORE_THRESHOLD if threshold is None else threshold,
            texts=texts or None,
            masks=None if with_masks else "none",
            mask_format="rle",
            exif_orientation=True,
            response_schema="card",
        )
        request = Request(schemas.DETECTOR_COLUMNS, [[image]], params, client)
        with _told():
            (row,) = await (self.scorer.detect_and_segment if with_masks else self.scorer.detect)(request)
        objects = []
        for one in row["boxes"]:
            box = box_in_pixels(one["box"], size_hw)
            masks = one.get("mask_per_prediction", [{}])
            objects.append(PredictedObject(one["label"], one["score"], box, masks[0].get("rle")))
        return objects

    async def smart(self, asked: Asked, client: str) -> bytes:
        """The one entry that a smart tool is answered with, as JSON. Raises ServiceError."""
        assert asked.context is not None
        if self.scorer.engine.segmenter is None:
            raise NotFound("this service has no segmenter, which answers smart tools: start it with BOX2MASK_SEGMENTER")
        drawn = drawn_objects(asked.context)
        wanted = []
        for one in drawn:
            tag = asked.interface.image(one.to_name) or (asked.interface.images[0] if not one.to_name else None)
            if tag is None:
                raise BadRequest(
                    f"params.context.result, to_name: expected an <Image> of label_config, got {one.to_name[:40]!r}"
                )
            place = answer_control(asked.interface, tag.name, one.label)
            if place is None:
                label = "" if one.label is None else f" with the label {one.label[:40]!r}"
                raise BadRequest(
                    f"label_config: expected BrushLabels, PolygonLabels or RectangleLabels{label}, got none"
                )
            wanted.append((one, tag, place))
        results: list[dict[str, Any]] = []
        for one, tag, (control, written) in wanted:
            image = await self._image(asked.tasks[0], tag, client)
            mask, score = await self._mask(image, one, client)
            results += await self.scorer.engine.aside(
                timings.stage("post")(_smart_regions), control, written, mask, asked.interface, score
            )
        return _to_json(prediction(results, self._version_of(asked.interface)))

    async def _mask(self, image: StoredImage, one: Drawn, client: str) -> tuple[dict[str, Any], float]:
        """The best mask, run-length encoded, and how good SAM takes it to be."""
        points = [one.points_xy] if one.points_xy else None
        labels = [one.point_labels] if one.points_xy else None
        boxes = None if one.box_xyxy is None else [one.box_xyxy]
        values: dict[str, Any] = {
            schemas.POINTS: points,
            schemas.BOXES: boxes,
            schemas.LABELS: labels,
            schemas.IMAGE: image,
        }
        values[schemas.MULTIMASK] = one.is_single_click
        row = [values[column] for column in schemas.SEGMENTER_COLUMNS]
        params = Params(coordinates="normalized", mask_format="rle", exif_orientation=True, response_schema="card")
        with _told():
            (answer,) = await self.scorer.segment(
                Request(schemas.SEGMENTER_COLUMNS, [row], params, client, best_alone=True)
            )
        (only,) = answer["predictions"]
        (best,) = only["mask_per_prediction"]
        return best["rle"], best["iou_score"]

    async def _image(self, task: dict[str, Any], tag: ImageTag, client: str) -> StoredImage:
        """Raises BadRequest."""
        address, store = image_address(task, tag.field), self.scorer.store
        known = self._images.known(store, client, address)
        if known is not None:
            return known
        try:
            file = await self.scorer.engine.fetch(self._images.file, address, task.get("id"), self.scorer.limits)
        except ImageError as error:
            raise BadRequest(f"task {_number(task)}, data.{tag.field}: {error}") from error
        return self._images.keep(store, client, address, file)

    def _size_hw(self, image: StoredImage) -> tuple[int, int]:
        try:
            return image_size_hw(image.file, exif_orientation=True, max_pixels=self.scorer.limits.max_pixels)
        except ImageError as error:
            raise BadRequest(str(error)) from error


@contextmanager
def _told() -> Iterator[None]:
    """A client's mistake without the row that it is in, as there is only one."""
    try:
        yield
    except BadRequest as error:
        raise BadRequest(without_row(error.message)) from error


def _smart_regions(
    control: Any, label: str | None, rle: Any, interface: Interface, score: float
) -> list[dict[str, Any]]:
    return smart_answer(control, label, decode_rle(rle), interface, score)


def _number(task: dict[str, Any]) -> str:
    """A task's id, as far as it is one that a log may have."""
    identity = task.get("id")
    return str(identity) if isinstance(identity, int) else "?"


def _to_json(content: object) -> bytes:
    return json.dumps(content, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode()
