"""One config of the zoo: its folder made, served by `box2mask serve` in a process of its own, and asked over HTTP."""

from __future__ import annotations

import json
import multiprocessing
import re
import resource
import tempfile
import time
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

import httpx
import numpy as np

from benchmarks.service import ServiceFailed
from benchmarks.workload import detector_request
from benchmarks.zoo.folders import TEXTS, TOKENIZER, Made, write_folder
from benchmarks.zoo.forked import ForkedService

MAKES_WITHIN_S = 600
ANSWERS_WITHIN_S = 600

State = Literal["served", "refused", "failed"]


@dataclass(frozen=True)
class Limits:
    """What one config may take. memory_gb: each of the process that makes its folder and the one that serves it.
    longest: the pixels of an image's longest side after the config's own resizing. proposals: what the first stage of a
    detector hands on. None: as the config has it."""

    memory_gb: float = 8.0
    threads: int = 1
    longest: int | None = None
    proposals: int | None = None


@dataclass(frozen=True)
class Outcome:
    """What became of one config.

    state: "served": 200, and nothing went wrong on the way; "refused": the service did not start, and said why in a
    sentence; "failed": anything else. said: that sentence, or what went wrong. starts_s: until it was ready, with its
    first forward pass. peak_mb: of the service's process.
    """

    config: str
    state: State
    said: str = ""
    model: str = ""
    parameters: int = 0
    masks: bool | None = None
    starts_s: float = 0.0
    answer_s: float = 0.0
    peak_mb: float = 0.0
    boxes: int = 0
    polygons: int = 0
    needs: str = ""

    @property
    def family(self) -> str:
        return self.config.split("/")[0]

    def line(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def of(cls, line: str) -> Outcome:
        return cls(**json.loads(line))


def ask(root: Path, config: str, image: np.ndarray, limits: Limits) -> Outcome:
    """The outcome of one config below `root`; whatever goes wrong is in it. image: (H, W, 3) uint8 RGB."""
    with tempfile.TemporaryDirectory(prefix="box2mask-zoo-") as scratch:
        folder = Path(scratch)
        made = _make(root / config, folder, image, limits)
        if isinstance(made, str):
            return Outcome(config, "failed", f"its folder could not be made: {made}")
        return _serve(config, made, folder, image, limits)


def _serve(config: str, made: Made, folder: Path, image: np.ndarray, limits: Limits) -> Outcome:
    known: dict[str, Any] = {
        "model": made.model,
        "parameters": made.parameters,
        "masks": made.masks,
        "needs": made.needs,
    }
    settings = {
        "BOX2MASK_DETECTOR": str(folder),
        "BOX2MASK_SEGMENTER": "none",
        "BOX2MASK_DEVICE": "cpu",
        "BOX2MASK_DTYPE": "float32",
        "BOX2MASK_REQUEST_TIMEOUT_S": str(ANSWERS_WITHIN_S),
        "OMP_NUM_THREADS": str(limits.threads),
    }
    params = {"texts": list(TEXTS)} if made.needs == TOKENIZER else {}
    began = time.monotonic()
    service = ForkedService(settings, int(limits.memory_gb * 2**30))
    try:
        service.ready()
        known["starts_s"] = round(time.monotonic() - began, 2)
        asked = time.monotonic()
        answer = json.loads(service.post("/yolof/score", detector_request(image, **params)))
        known["answer_s"] = round(time.monotonic() - asked, 2)
        known["peak_mb"] = round(service.peak_mb())
        known["boxes"] = len(answer[0]["boxes"])
        known["polygons"] = sum(bool(one.get("polygon")) for one in answer[0]["boxes"])
        said = service.log()
        if "Traceback" in said:
            return Outcome(config, "failed", _last(said, folder), **known)
        return Outcome(config, "served", **known)
    except (ServiceFailed, httpx.HTTPError, ValueError, LookupError, OSError) as error:
        said = service.log()
        sentence = _sentence(said, folder)
        if sentence and "Traceback" not in said and not service.url:
            return Outcome(config, "refused", sentence, **known)
        return Outcome(config, "failed", f"{_last(str(error), folder)} | {_last(said, folder)}", **known)
    finally:
        service.close()


def _sentence(said: str, folder: Path) -> str:
    """What the service could not start for, without the folder's own name."""
    found = re.findall(r"^(?:.* ERROR \S+: |ERROR \S+: |box2mask: )(.*)$", said, re.MULTILINE)
    return found[0].replace(f"{folder}/", "").strip() if found else ""


def _last(said: str, folder: Path) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return lines[-1].replace(f"{folder}/", "")[:500] if lines else ""


def _make(source: Path, folder: Path, image: np.ndarray, limits: Limits) -> Made | str:
    """`write_folder` in a process of its own, which has what this one has imported; or what went wrong."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_make_here, args=(theirs, source, folder, image, limits), daemon=True)
    process.start()
    theirs.close()
    try:
        if not ours.poll(MAKES_WITHIN_S):
            return f"not within {MAKES_WITHIN_S} s"
        return ours.recv()
    except EOFError:
        process.join()
        return f"the process ended with {process.exitcode}"
    finally:
        process.kill()
        process.join()
        ours.close()


def _make_here(pipe: Connection, source: Path, folder: Path, image: np.ndarray, limits: Limits) -> None:
    bound = int(limits.memory_gb * 2**30)
    resource.setrlimit(resource.RLIMIT_DATA, (bound, bound))
    try:
        pipe.send(write_folder(source, folder, image, limits.longest, limits.proposals))
    except Exception as error:  # of any of the zoo's models; told, and the next one is asked
        place = error.__traceback__
        while place is not None and place.tb_next is not None:
            place = place.tb_next
        where = f"{Path(place.tb_frame.f_code.co_filename).name}:{place.tb_lineno}" if place is not None else ""
        pipe.send(f"{type(error).__name__}: {str(error)[:300]} ({where})")
