"""`box2mask serve`, with faults that can be switched on and off while it runs; and a journal of what it admits.

For tests only: it replaces parts of the service before it starts it. A fault is on while the folder that FAULTS names
has a file of its name; what stands in the file says how. What is aimed at one image is aimed at all of TARGET_HEIGHT.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

import app.main
from app.cli import main
from app.contract import masks
from app.engine import disk_tier
from app.scoring import scorer as scoring
from models.detector.mmdetection import MMDetector
from models.segmenter.sam import Sam

FOLDER = "FAULTS"  # the environment variable
# What a start imports.
PRELOADED = [
    __name__,
    "app.server",
    "app.engine.engine",
    "models.detector.mmdetection",
    "models.segmenter.sam",
    "mmdet.registry",
    "transformers.models.sam",
]
JOURNAL = "admitted"  # in that folder: the x-request-id of every request that was let in, a line each
TARGET_HEIGHT = 66


class Died(BaseException):
    """Passes by all that handles a job's own failure, as the loss of a device does."""


def install(folder: Path) -> None:
    """Replace what the faults are in."""

    def asked(fault: str) -> str | None:
        """How the fault is to be, or None where it is off."""
        try:
            return (folder / fault).read_text()
        except FileNotFoundError:
            return None

    def around(owner: Any, name: str, make: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
        setattr(owner, name, make(getattr(owner, name)))

    def decoding(decode: Callable[..., Any]) -> Callable[..., Any]:
        def decode_batch(self: Sam, requests: Sequence[Any], between: Any = None) -> Any:
            most = asked("no-memory")
            if most is not None and sum(len(one.prompts) for one in requests) > int(most):
                raise torch.OutOfMemoryError("CUDA out of memory, or so it is said")
            if asked("compute-dies") is not None:
                raise Died("the compute thread was told to die")
            while asked("stall") is not None:  # until it is switched off; nobody waits for it any more: dropped
                if between is not None:
                    between()
                time.sleep(0.005)
            return decode(self, requests, between)

        return decode_batch

    def decoder(make: Callable[..., Any]) -> Callable[..., Any]:
        def _decoder(self: Sam, requests: Sequence[Any]) -> Any:
            decode = make(self, requests)

            def with_nan(portion: Any) -> Any:
                logits, scores = decode(portion)
                row = 0
                for number, piece in portion:
                    if asked("nan-masks") is not None and requests[number].embedding.size_hw[0] == TARGET_HEIGHT:
                        logits[row : row + len(piece)] = torch.nan
                    row += len(piece)
                return logits, scores

            return with_nan

        return _decoder

    def embedding(embed: Callable[..., Any]) -> Callable[..., Any]:
        def with_nan(self: Sam, samples: Sequence[Any], between: Any = None) -> Any:
            made = embed(self, samples, between)
            if asked("nan-embedding") is not None:
                with torch.inference_mode():
                    for one in made:
                        if one.size_hw[0] == TARGET_HEIGHT:
                            one.features[0, 0, 0] = torch.nan
            return made

        return with_nan

    def forward(detect: Callable[..., Any]) -> Callable[..., Any]:
        def with_nan(self: MMDetector, samples: Sequence[Any], between: Any = None) -> Any:
            made = detect(self, samples, between)
            if asked("nan-boxes") is not None:
                with torch.inference_mode():
                    for one in made:
                        if one.sample.size_hw[0] == TARGET_HEIGHT:
                            one.head[0][0][0, 0, 0, 0] = torch.nan
            return made

        return with_nan

    def encoding(encode: Callable[..., Any]) -> Callable[..., Any]:
        def failing(*args: Any, **options: Any) -> Any:
            how = asked("pool-thread")
            if how is not None:
                raise {"MemoryError": MemoryError, "SystemExit": SystemExit, "RuntimeError": RuntimeError}[how]()
            return encode(*args, **options)

        return failing

    def making_a_file(mkstemp: Callable[..., Any]) -> Callable[..., Any]:
        def full(*args: Any, **options: Any) -> Any:
            descriptor, path = mkstemp(*args, **options)
            if asked("disk-full") is not None:  # the kernel's own ENOSPC, for whatever is written
                os.close(descriptor)
                descriptor = os.open("/dev/full", os.O_WRONLY)
            return descriptor, path

        return full

    def replacing(replace: Callable[..., Any]) -> Callable[..., Any]:
        def half(source: str, target: Any) -> None:
            how = asked("killed-while-writing")
            if how is not None:
                os.truncate(source, os.path.getsize(source) // 2)
                if how == "moved":  # as where the power fails, and the disk has the name but not all of the content
                    replace(source, target)
                os.kill(os.getpid(), signal.SIGKILL)
            replace(source, target)

        return half

    def parsing(parse: Callable[..., Any]) -> Callable[..., Any]:
        def by_columns(self: scoring.Scorer, request: Any) -> Any:
            if asked("loop-ends") is not None:
                raise SystemExit(9)  # which asyncio lets out of the event loop
            return parse(self, request)

        return by_columns

    def connected(wait: Callable[..., Any]) -> Callable[..., Any]:
        def journal(http: Any, work: Any) -> Any:
            with (folder / JOURNAL).open("a") as file:  # one write of a few bytes
                file.write(http.scope["box2mask.id"] + "\n")
            return wait(http, work)

        return journal

    around(Sam, "decode_batch", decoding)
    around(Sam, "_decoder", decoder)
    around(Sam, "embed", embedding)
    around(MMDetector, "forward", forward)
    around(masks, "encode_png", encoding)
    around(scoring.Scorer, "segment", parsing)
    around(app.main, "_while_connected", connected)
    # What the module calls by these names, and nobody else's.
    disk_tier.tempfile = _Instead(tempfile, mkstemp=making_a_file(tempfile.mkstemp))  # type: ignore[assignment]
    disk_tier.os = _Instead(os, replace=replacing(os.replace))  # type: ignore[assignment]


class _Instead:
    """A module in which some names mean something else."""

    def __init__(self, module: Any, **names: Any) -> None:
        self._module = module
        self.__dict__.update(names)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


def run(environment: dict[str, str], log_file: str) -> None:
    """The service, in a process that was forked for it."""
    os.environ.clear()
    os.environ.update(environment)
    for stream, path in ((sys.stdout, os.devnull), (sys.stderr, log_file)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_APPEND), stream.fileno())
    install(Path(environment[FOLDER]))
    sys.exit(main(["serve"]))
