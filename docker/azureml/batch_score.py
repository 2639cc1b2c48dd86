"""Scoring script for AzureML's batch endpoints: image files, and CSV files with the catalog's columns.

The runner calls init() once in each of its processes and run() with a few paths at a time; with `append_row` it writes
each element of what run() returns as a line of predictions.csv, which has no header. Each element is such a line:

    file    the path as the runner gave it
    row     which row of a CSV file, counted from 0; empty for an image file
    answer  the service's answer for it, as JSON; empty where it failed
    error   why it failed; empty where it did not

An image alone gets all that the models here can say: boxes, with a mask for each where there are both models. A row of
SAM's five columns gets its masks. SCORING_PARAMS in the environment holds the requests' `params`, as JSON.
"""

from __future__ import annotations

import base64
import csv
import io
import json
import logging
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from app.contract import schemas
from app.engine import loading
from app.errors import BadRequest, ServiceError
from app.http import logs
from app.images.reading import ImageLimits
from app.scoring.thread import ScorerThread
from app.scoring.waiting import within
from app.settings import Settings, SettingsError

log = logging.getLogger("box2mask")

PARAMS = "SCORING_PARAMS"

# While some rows are in the networks, others are read and their masks written.
_AT_ONCE = min(16, 2 + 2 * (os.cpu_count() or 1))


class Item(NamedTuple):
    """An image file or a row of a CSV file. columns: its values by name, or why there are none."""

    file: str
    row: int | None
    columns: dict[str, Any] | ServiceError


class Batch:
    """The models, and how files are answered by them."""

    def __init__(self, settings: Settings, params: object) -> None:
        self._settings = settings
        self._limits = ImageLimits.of(settings)
        try:
            self._params = schemas.parse_params(params)
        except BadRequest as error:
            raise SettingsError(f"{PARAMS}: {error.message}") from error
        self._thread = ScorerThread(settings, loading.choose(settings), settings.max_prompts)

    def lines(self, paths: list[str]) -> list[str]:
        """A line for each image file and each row of a CSV file, in order.

        Raises RuntimeError where a device has stopped computing, so that the runner tries again or gives up.
        """
        # Threads take items one after the other, so that not all of a large file is in memory.
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="row") as pool:
            found = list(_few_ahead(pool, self._line, (item for path in paths for item in self._items(path))))
        if not self._thread.engine.healthy:
            raise RuntimeError("a device has stopped computing")
        return found

    def _items(self, path: str) -> Iterator[Item]:
        if Path(path).suffix.lower() == ".csv":
            yield from self._rows(path)
            return
        try:
            most = self._limits.max_bytes
            with open(path, "rb") as file:
                data = file.read(most + 1)
        except OSError as error:
            yield Item(path, None, BadRequest(error.strerror or str(error)))
            return
        if len(data) > most:
            yield Item(path, None, BadRequest(f"expected an image of at most {most} bytes, got more"))
            return
        yield Item(path, None, {schemas.IMAGE: base64.b64encode(data).decode("ascii")})

    def _rows(self, path: str) -> Iterator[Item]:
        """The rows of a CSV file; a file that cannot be read on gives one item that says so."""
        row = 0
        try:
            with open(path, encoding="utf-8-sig", newline="") as file:
                reader = csv.reader(file)
                header = next(reader, [])
                if schemas.IMAGE not in header:
                    expected = ", ".join(schemas.SEGMENTER_COLUMNS)
                    raise BadRequest(f"expected a header with {schemas.IMAGE}, or with {expected}")
                for values in reader:
                    if not values:  # an empty line
                        continue
                    yield Item(path, row, _columns(header, values))
                    row += 1
        except (OSError, csv.Error, UnicodeDecodeError) as error:
            yield Item(path, row, BadRequest(f"the file cannot be read on: {error}"))
        except BadRequest as error:
            yield Item(path, None, error)

    def _line(self, item: Item) -> str:
        answer, fault = "", ""
        try:
            if isinstance(item.columns, ServiceError):
                raise item.columns
            found = self._thread.wait(self._answer(item.columns))
            answer = json.dumps(found, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        except ServiceError as error:
            # A request of one row calls every row 0; the line has its number.
            fault = error.message.removeprefix("row 0, ").removeprefix("row 0: ")
            log.warning("%s%s: %s", item.file, "" if item.row is None else f", row {item.row}", fault)
        except Exception:
            fault = "internal error; the job's log has it"
            log.exception("%s, row %s", item.file, item.row)
        text = io.StringIO()
        csv.writer(text, lineterminator="").writerow([item.file, "" if item.row is None else item.row, answer, fault])
        return text.getvalue()

    async def _answer(self, columns: dict[str, Any]) -> dict[str, Any]:
        request = schemas.Request(tuple(columns), [list(columns.values())], self._params)
        async with within(self._settings.request_timeout_s):
            (answer,) = await self._thread.scorer.by_models(request)
        return answer


def _columns(header: list[str], values: list[str]) -> dict[str, Any] | BadRequest:
    if len(values) != len(header):
        return BadRequest(f"expected one value per column ({len(header)}), got {len(values)}")
    columns: dict[str, Any] = dict(zip(header, values, strict=True))
    if schemas.MULTIMASK in columns:  # the only one that is not text
        text = columns[schemas.MULTIMASK].strip().lower()
        columns[schemas.MULTIMASK] = {"true": True, "false": False}.get(text)
    return columns


def _few_ahead(pool: ThreadPoolExecutor, function: Any, items: Iterator[Item]) -> Iterator[str]:
    """What the function makes of each item, in order; few are taken before it is their turn."""
    begun: list[Any] = []
    for item in items:
        begun.append(pool.submit(function, item))
        if len(begun) >= _AT_ONCE:
            yield begun.pop(0).result()
    for future in begun:
        yield future.result()


batch: Batch | None = None


def init() -> None:
    """Load the models and try each once. What is raised ends the job."""
    global batch
    settings = Settings.from_environment()
    logs.configure(settings.log_level)
    csv.field_size_limit(sys.maxsize)  # an image is a field
    try:
        params = json.loads(os.environ.get(PARAMS) or "{}")
    except ValueError as error:
        raise SettingsError(f"{PARAMS}: expected JSON, got {os.environ[PARAMS]!r}") from error
    batch = Batch(settings, params)


def run(mini_batch: list[str]) -> list[str]:
    """A line for each image file and each row of a CSV file, in order; the module says what is in it."""
    assert batch is not None
    return batch.lines([str(path) for path in mini_batch])
