"""The three stages of a folder's images on a cluster, each a function of a block of rows: read, find, write.

    read    names -> the files' bytes                  any process; a file that cannot be read is a row that says so
    find    bytes -> results                           a process with models
    write   results -> the images' own files, a shard  any process

A process with models may do the stages beside its own too, so that no file goes from process to process: see `Find`.
A row that says why its image failed goes through untouched, so that no image costs its block. Nothing here imports
PyTorch but the models that are opened. Blocks are pyarrow's tables, with these columns:

    task     an `image_work.Task`, pickled
    stamp    the file's, as JSON; empty for a result that is known
    image    the file; empty once no stage needs it
    line     the result, as a journal's line; empty until it is there
    boxes    the detector's `BoxPrompt`s, pickled, on their way from a detector's process to a segmenter's
    failed   why the image has no result; empty if it has one
    pages, reading      what `models.images.notes.look_at` says
"""

from __future__ import annotations

import json
import pickle
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from app.cluster.folders.models import ModelsError
from app.folders import shards, storage
from app.folders.batch import AT_ONCE, images_in_networks
from app.folders.image_work import Asked, Task, answered, stamp
from app.folders.journal import line_of
from app.folders.outputs import Outputs
from app.folders.prompts import BoxPrompt
from app.folders.room import Room, bytes_in_work
from app.folders.storage import Place
from app.prediction import PredictionError, Predictor, PredictorError
from app.results.image_result import ImageResult
from models.images.decoding import ImageError
from models.images.notes import look_at

SCHEMA = pa.schema(
    {
        "task": pa.large_binary(), "stamp": pa.string(), "image": pa.large_binary(), "line": pa.large_binary(),
        "boxes": pa.binary(), "failed": pa.string(), "pages": pa.int64(), "reading": pa.string(),
    }
)  # fmt: skip
SUMMARY = pa.schema({"name": pa.string(), "failed": pa.string(), "pages": pa.int64(), "reading": pa.string()})
_EMPTY = {"stamp": "", "image": b"", "line": b"", "boxes": b"", "failed": "", "pages": 0, "reading": ""}
_FETCHED_AT_ONCE, _WRITTEN_AT_ONCE = 8, 8
_BYTES_OF_A_BLOCK = 32 * 2**20  # of files that are handed on together

Row = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """What all stages know of a run. variables: of the stores' environment. number: of the run's process."""

    asked: Asked
    outputs: Outputs
    place: Place
    number: int
    variables: Mapping[str, str]


def rows_of(tasks: list[Task]) -> pa.Table:
    """The block that the first stage gets."""
    return _table([_EMPTY | {"task": pickle.dumps(task)} for task in tasks])


def read(block: pa.Table, job: Job) -> Iterator[pa.Table]:
    """Fetch the images' files."""
    storage.adopt(job.variables)
    rows: list[Row] = []
    size = 0
    with ThreadPoolExecutor(_FETCHED_AT_ONCE) as pool:
        for row in pool.map(lambda row: _read(row, job.outputs), block.to_pylist()):
            rows.append(row)
            size += len(row["image"])
            if size >= _BYTES_OF_A_BLOCK:
                yield _table(rows)
                rows, size = [], 0
    if rows:
        yield _table(rows)


def _read(row: Row, outputs: Outputs) -> Row:
    task: Task = pickle.loads(row["task"])
    try:
        if task.known is not None:
            image = task.source.read() if outputs.need_images else b""
            line = line_of(task.known, task.known_stamp or {}, outputs.own_files)
            return row | {"image": image, "line": line}
        now = stamp(task.source, task.boxes)  # before the file is read: one that changes meanwhile is done again
        if now is None:
            raise PredictionError("the file has gone")
        image = task.source.read()
    except PredictionError as error:
        return row | {"failed": str(error)}
    pages, reading = look_at(image, outputs.page) or (0, None)
    return row | {"image": image, "stamp": json.dumps(now), "pages": pages, "reading": reading or ""}


class Find:
    """A process with models: it is made once, and called for each block, by several threads."""

    def __init__(
        self,
        open_models: Callable[[], Predictor],
        job: Job,
        *,
        boxes_alone: bool = False,
        reads: bool = False,
        writes: bool = False,
    ) -> None:
        """boxes_alone: find the detector's boxes, for another process to have masks made of them.

        reads, writes: do the stage before, or after, as well. While some images are in the networks, others are read
        and written then.
        """
        storage.adopt(job.variables)
        self._predictor = open_models()
        self._job = job
        self._boxes_alone = boxes_alone
        self._reads, self._writes = reads, writes
        self._predict = job.asked.predict(self._predictor)
        at_once = images_in_networks(self._predictor)
        self._pool = ThreadPoolExecutor(AT_ONCE if reads or writes else at_once, thread_name_prefix="image")
        self._turns = threading.Semaphore(at_once)
        self._room = Room()

    def __call__(self, block: pa.Table) -> pa.Table:
        """Raises ModelsError where no image can be answered, and OSError where results cannot be written."""
        rows = list(self._pool.map(self._all_of, block.to_pylist()))
        return _shard(rows, self._job) if self._writes else _table(rows)

    def _all_of(self, row: Row) -> Row:
        if self._reads:
            row = _read(row, self._job.outputs)
        with self._room.of(bytes_in_work(row["image"])):
            row = self._find(row)
            return _write(row, self._job.outputs) if self._writes else row

    def _find(self, row: Row) -> Row:
        if row["failed"] or row["line"]:
            return row
        try:
            with self._turns:
                return self._boxes(row) if self._boxes_alone else self._result(row)
        except (PredictionError, ImageError) as error:
            return row | {"failed": str(error), "image": b""}
        except PredictorError as error:
            raise ModelsError(str(error)) from error

    def _boxes(self, row: Row) -> Row:
        found = self._predictor.detect(row["image"], self._job.asked.score_threshold)
        return row | {"boxes": pickle.dumps(tuple(BoxPrompt(one.box_xyxy, one.label, one.score) for one in found))}

    def _result(self, row: Row) -> Row:
        task: Task = pickle.loads(row["task"])
        if row["boxes"]:
            task = replace(task, boxes=pickle.loads(row["boxes"]))
        outputs = self._job.outputs
        result = answered(task, row["image"], self._predict, outputs.page)
        line = line_of(result, json.loads(row["stamp"]), outputs.own_files)
        return row | {"line": line, "image": row["image"] if outputs.need_images else b""}


def write(block: pa.Table, job: Job) -> pa.Table:
    """Write the images' own files, and then the shard that says that they are there. Raises OSError."""
    storage.adopt(job.variables)
    with ThreadPoolExecutor(_WRITTEN_AT_ONCE) as pool:
        return _shard(list(pool.map(lambda row: _write(row, job.outputs), block.to_pylist())), job)


def _shard(rows: list[Row], job: Job) -> pa.Table:
    if lines := [row["line"] for row in rows if row["line"] and row["stamp"] != _ONLY_FILES]:
        # By its images, so that a block that is done again is the same shard.
        shards.put(job.place, job.number, lines, name="\n".join(row["name"] for row in rows))
    return pa.Table.from_pylist([{name: row[name] for name in SUMMARY.names} for row in rows], schema=SUMMARY)


_ONLY_FILES = "only files"


def _write(row: Row, outputs: Outputs) -> Row:
    task: Task = pickle.loads(row["task"])
    row["name"] = task.source.name
    try:
        if row["failed"]:
            outputs.remove_image(task.source.name)
        else:
            outputs.write_image(ImageResult.from_json(json.loads(row["line"])), row["image"])
            if task.known is not None and outputs.remote is None:
                row["stamp"] = _ONLY_FILES  # the journal has the result
    except ImageError as error:
        row["failed"], row["line"] = str(error), b""
        outputs.remove_image(task.source.name)
    return row


def _table(rows: list[Row]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=SCHEMA)
