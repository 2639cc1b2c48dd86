"""The walk over a run's images: several in work at once, each kept as soon as it is done, those done before skipped."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import TextIO

import numpy as np
from tqdm import tqdm

from app.contract.schemas import MaskSource
from app.folders.journal import FAILED, Journal, Stamp
from app.folders.outputs import Outputs
from app.folders.prompts import BoxPrompt, BoxPrompts
from app.folders.sources import SourceImage, Sources
from app.prediction import PredictedObject, PredictionError, Predictor, read_image
from app.results.image_result import ImageResult
from models import uncertainty
from models.images.decoding import ImageError, decode_image, image_size_hw, one_page
from models.images.notes import PhotoNotes

# Images in work: while some are in the networks, others are read, and their masks written.
_AT_ONCE = min(16, 2 + 2 * (os.cpu_count() or 1))
# What the images in work may take of the memory, all together: one that takes more is alone.
_BYTES_IN_WORK = 512 * 2**20
# Of an image: for each of its pixels, decoded and once more while it is resized or drawn over; and for each byte of its
# file, which is in a request too.
_BYTES_PER_PIXEL, _BYTES_PER_FILE_BYTE = 6, 5


# The boxes of an image to its objects; the boxes are None where the detector finds them.
Predict = Callable[[Path | bytes, tuple[BoxPrompt, ...] | None], list[PredictedObject]]


@dataclass(frozen=True)
class Summary:
    """resumed: images that were done before. done, failed: those of this time."""

    resumed: int
    done: int
    failed: int


def images_in_networks(predictor: Predictor) -> int:
    """How many images a predictor is best asked for at once.

    GPUs want enough for a batch each. On a processor an image on its own gets the same numbers to the last digit every
    time, whatever else is in the run, which an image in a batch does not: a service there is asked for one at a time.
    """
    if predictor.images_apart:
        return _AT_ONCE
    served = [predictor.description[kind] for kind in ("detector", "segmenter")]
    devices = {str(one["device"]) for one in served if one is not None}
    return 1 if devices == {"cpu"} else _AT_ONCE


def detecting(predictor: Predictor, score_threshold: float, masks: MaskSource) -> Predict:
    """Objects by the detector, with the segmenter's masks, its own or none."""

    def predict(image: Path | bytes, boxes: tuple[BoxPrompt, ...] | None) -> list[PredictedObject]:
        if masks == "segmenter":
            return predictor.detect_and_segment(image, score_threshold)
        return predictor.detect(image, score_threshold, masks=masks == "detector")

    return predict


def prompted(predictor: Predictor) -> Predict:
    """Masks of given boxes, which keep their labels and scores."""

    def predict(image: Path | bytes, boxes: tuple[BoxPrompt, ...] | None) -> list[PredictedObject]:
        if not boxes:
            return []
        found = predictor.segment(image, np.array([one.box_xyxy for one in boxes]))
        return [replace(one, label=box.label, score=box.score) for box, one in zip(boxes, found, strict=True)]

    return predict


def everything(predictor: Predictor, grid: Mapping[str, float]) -> Predict:
    """All masks that the segmenter finds, without labels."""
    return lambda image, boxes: predictor.everything(image, **grid)


def with_agreement(predictor: Predictor, predict: Predict) -> Predict:
    """The same objects, with how far SAM's three masks for each box agree: one more decoding, by the kept embedding."""

    def both(image: Path | bytes, boxes: tuple[BoxPrompt, ...] | None) -> list[PredictedObject]:
        objects = predict(image, boxes)
        places = np.array([one.box_xyxy for one in objects]).reshape(-1, 4)
        masks = predictor.three_masks(image, places)
        return [
            replace(one, mask_agreement=uncertainty.mask_agreement(three))
            for one, three in zip(objects, masks, strict=True)
        ]

    return both


def process(
    sources: Sources,
    predict: Predict,
    journal: Journal,
    outputs: Outputs,
    prompts: BoxPrompts | None,
    notes: PhotoNotes,
    *,
    in_networks: int,
) -> Summary:
    """Bring every image's result into the journal, and its own files into the folder.

    prompts: None where the detector finds the boxes. notes: are told how the images were read. in_networks: see
    `images_in_networks`.

    A bad image is said on standard error and in FAILED, and does not keep the others. Raises PredictorError where no
    image can be answered, and OSError where results cannot be written; what was done by then is kept.
    """
    resumed = failed = 0
    todo: list[tuple[SourceImage, tuple[BoxPrompt, ...] | None, ImageResult | None]] = []
    for source in sources.images:
        boxes = None if prompts is None else prompts.of_image.get(source.name, ())
        before = journal.stamp(source.name)
        if before is None or before != _stamp(source, boxes):
            todo.append((source, boxes, None))
            continue
        resumed += 1
        result = journal.result(source.name)
        if outputs.lacks(result):  # a format that was not asked for then
            todo.append((source, boxes, result))
    others = [(source, None, result) for source, result in _of_earlier_runs(sources, journal) if outputs.lacks(result)]
    todo += others
    total = len(sources.images) + len(others)

    turns, room = threading.Semaphore(in_networks), _Room(_BYTES_IN_WORK)

    def work(
        source: SourceImage, boxes: tuple[BoxPrompt, ...] | None, known: ImageResult | None
    ) -> tuple[ImageResult, Stamp | None]:
        if known is not None:
            with room.of(_bytes_in_work(source.path)):
                outputs.write_image(known, source.path)
            return known, None
        stamp = _stamp(source, boxes)  # before the file is read: one that changes meanwhile is done again
        if stamp is None:
            raise PredictionError("the file has gone")
        with room.of(_bytes_in_work(source.path)):
            return answered(source, boxes), stamp

    def answered(source: SourceImage, boxes: tuple[BoxPrompt, ...] | None) -> ImageResult:
        notes.look(source.path)
        image = source.path if outputs.page == 1 else one_page(read_image(source.path), outputs.page)
        with turns:
            objects = predict(image, boxes)
        result = _result(source, boxes, objects, outputs.page)
        outputs.write_image(result, source.path)
        return result

    with (
        _failures(journal.folder / FAILED) as tell,
        tqdm(total=total, initial=total - len(todo), unit="image", disable=None) as bar,
    ):
        for source, future in _in_parallel(work, todo):
            try:
                result, stamp = future.result()
                if stamp is not None:
                    journal.append(result, stamp)
            except (PredictionError, ImageError) as error:
                failed += 1
                if journal.stamp(source.name) is not None:
                    journal.forget(source.name)
                outputs.remove_image(source.name)
                bar.write(f"box2mask: {source.path}: {error}; skipped", file=sys.stderr)
                tell.write(json.dumps({"image": source.name, "reason": str(error)}) + "\n")
                tell.flush()
            bar.update()
    return Summary(resumed, len(sources.images) - resumed - failed, failed)


class _Room:
    """So many bytes of memory, shared by threads: who wants some waits until there is room, or nobody else has any."""

    def __init__(self, size: int) -> None:
        self._left = self._size = size
        self._changed = threading.Condition()

    @contextmanager
    def of(self, count: int) -> Iterator[None]:
        taken = min(count, self._size)
        with self._changed:
            self._changed.wait_for(lambda: taken <= self._left)
            self._left -= taken
        try:
            yield
        finally:
            with self._changed:
                self._left += taken
                self._changed.notify_all()


def _bytes_in_work(path: Path) -> int:
    """About what an image takes of the memory while it is in work; 0 for a bad one, which whoever reads it says."""
    try:
        height, width = image_size_hw(path)
        return _BYTES_PER_PIXEL * height * width + _BYTES_PER_FILE_BYTE * path.stat().st_size
    except (OSError, ImageError):
        return 0


def _of_earlier_runs(sources: Sources, journal: Journal) -> Iterator[tuple[SourceImage, ImageResult]]:
    """The results of images that are not among these, whose files are still as they were."""
    own = {source.name for source in sources.images}
    for result in journal:
        if result.name not in own:
            source = SourceImage(sources.root / result.name, result.name)
            before, now = journal.stamp(result.name), _stamp(source, None)
            if before is not None and now is not None and before | {"boxes": None} == now:
                yield source, result


def _result(
    source: SourceImage, boxes: tuple[BoxPrompt, ...] | None, objects: list[PredictedObject], page: int
) -> ImageResult:
    if objects and objects[0].rle is not None:
        height, width = objects[0].rle["size"]
    elif boxes is None:
        height, width = image_size_hw(source.path.read_bytes(), exif_orientation=True, page=page)
    else:  # nothing was asked of the predictor, which would have found out whether the image is whole
        height, width = decode_image(source.path.read_bytes(), exif_orientation=True, page=page).shape[:2]
    return ImageResult(source.name, (height, width), tuple(objects))


def _stamp(source: SourceImage, boxes: tuple[BoxPrompt, ...] | None) -> Stamp | None:
    """What the image's result depends on, besides the settings of the run; None for a file that is not there."""
    try:
        status = source.path.stat()
    except OSError:
        return None
    asked = None if boxes is None else hashlib.sha256(json.dumps(list(map(astuple, boxes))).encode()).hexdigest()
    return {"size_bytes": status.st_size, "mtime_ns": status.st_mtime_ns, "boxes": asked}


@contextmanager
def _failures(path: Path) -> Iterator[TextIO]:
    """The file of the images that failed this time; there is none where none did."""
    with path.open("w", encoding="utf-8") as file:
        yield file
        empty = file.tell() == 0
    if empty:
        path.unlink()


def _in_parallel(
    work: Callable[[SourceImage, tuple[BoxPrompt, ...] | None, ImageResult | None], tuple[ImageResult, Stamp | None]],
    todo: Iterable[tuple[SourceImage, tuple[BoxPrompt, ...] | None, ImageResult | None]],
) -> Iterator[tuple[SourceImage, Future[tuple[ImageResult, Stamp | None]]]]:
    """Each image with its finished work, as they finish; never more than a few are begun."""
    pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="image")
    begun: dict[Future[tuple[ImageResult, Stamp | None]], SourceImage] = {}
    try:
        for source, boxes, known in todo:
            begun[pool.submit(work, source, boxes, known)] = source
            while len(begun) >= _AT_ONCE:
                for future in wait(begun, return_when=FIRST_COMPLETED).done:
                    yield begun.pop(future), future
        while begun:
            for future in wait(begun, return_when=FIRST_COMPLETED).done:
                yield begun.pop(future), future
    finally:
        pool.shutdown(cancel_futures=True)
