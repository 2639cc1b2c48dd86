"""The walk over a run's images: several in work at once, each kept as soon as it is done, those done before skipped."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from tqdm import tqdm

from app.folders.image_work import Predict, Task, answered, stamp, to_do
from app.folders.journal import FAILED, Journal, Stamp
from app.folders.outputs import Outputs
from app.folders.prompts import BoxPrompts
from app.folders.room import Room, bytes_in_work
from app.folders.sources import SourceImage, Sources
from app.prediction import PredictionError, Predictor
from app.results.image_result import ImageResult
from models.images.decoding import ImageError
from models.images.notes import PhotoNotes, look_at

# Images in work: while some are in the networks, others are read, and their masks written.
AT_ONCE = min(16, 2 + 2 * (os.cpu_count() or 1))


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
        return AT_ONCE
    served = [predictor.description[kind] for kind in ("detector", "segmenter")]
    devices = {str(one["device"]) for one in served if one is not None}
    return 1 if devices == {"cpu"} else AT_ONCE


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
    todo = to_do(sources, journal, outputs, prompts)
    failed = 0
    turns, room = threading.Semaphore(in_networks), Room()

    def work(task: Task) -> tuple[ImageResult, Stamp | None]:
        source = task.source
        if task.known is not None:
            with room.of(bytes_in_work(source) if outputs.need_images else 0):
                outputs.write_image(task.known, source.read() if outputs.need_images else b"")
            return task.known, task.known_stamp if outputs.remote else None
        now = stamp(source, task.boxes)  # before the file is read: one that changes meanwhile is done again
        if now is None:
            raise PredictionError("the file has gone")
        with room.of(bytes_in_work(source)):
            image = source.read()
            if (seen := look_at(image, outputs.page)) is not None:
                notes.add(source.path, *seen)
            with turns:
                result = answered(task, image, predict, outputs.page)
            outputs.write_image(result, image)
        return result, now

    with (
        failures(journal.folder / FAILED) as tell,
        tqdm(total=todo.total, initial=todo.total - todo.left, unit="image", disable=None) as bar,
    ):
        for source, future in _in_parallel(work, todo):
            try:
                result, now = future.result()
                if now is not None:
                    journal.append(result, now, outputs.own_files)
            except (PredictionError, ImageError) as error:
                failed += 1
                if journal.stamp(source.name) is not None:
                    journal.forget(source.name)
                outputs.remove_image(source.name)
                bar.write(f"box2mask: {source.path}: {error}; skipped", file=sys.stderr)
                tell.write(json.dumps({"image": source.name, "reason": str(error)}) + "\n")
                tell.flush()
            bar.update()
    return Summary(todo.resumed, len(sources.images) - todo.resumed - failed, failed)


@contextmanager
def failures(path: Path) -> Iterator[TextIO]:
    """The file of the images that failed this time; there is none where none did."""
    with path.open("w", encoding="utf-8") as file:
        yield file
        empty = file.tell() == 0
    if empty:
        path.unlink()


def _in_parallel(
    work: Callable[[Task], tuple[ImageResult, Stamp | None]], todo: Iterable[Task]
) -> Iterator[tuple[SourceImage, Future[tuple[ImageResult, Stamp | None]]]]:
    """Each image with its finished work, as they finish; never more than a few are begun."""
    pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="image")
    begun: dict[Future[tuple[ImageResult, Stamp | None]], SourceImage] = {}
    try:
        for task in todo:
            begun[pool.submit(work, task)] = task.source
            while len(begun) >= AT_ONCE:
                for future in wait(begun, return_when=FIRST_COMPLETED).done:
                    yield begun.pop(future), future
        while begun:
            for future in wait(begun, return_when=FIRST_COMPLETED).done:
                yield begun.pop(future), future
    finally:
        pool.shutdown(cancel_futures=True)
