"""Runs something in a process of its own, and says how much memory it took there beyond what the imports take."""

from __future__ import annotations

import multiprocessing
import resource
import traceback
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

GIGABYTE = 1_000_000_000
_CEILING = 8 * GIGABYTE  # a fault ends with MemoryError, and not with a machine that stands still
_IMPORTED = ("models.data", "models.evaluation.predictions", "app.contract.masks")


class Outcome(NamedTuple):
    """What the function returned, and the most bytes that it held at one time."""

    answer: Any
    peak: int


def bounded(function: Callable[..., Any], *arguments: Any, most: int = GIGABYTE, seconds: float = 120) -> Outcome:
    """Calls the function, which is one of a module's, and fails where it raises, takes too long or more than `most`.

    Warnings are errors there, as they are in tests.
    """
    # Forked off a process that has imported all of it and runs no threads: what each takes of its own is seen.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*_IMPORTED, function.__module__])
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_call, args=(function, arguments, theirs))
    process.start()
    theirs.close()
    try:
        assert ours.poll(seconds), f"still at it after {seconds:.0f} s"
        answer, failure, peak = ours.recv()
    except EOFError:
        process.join()
        raise AssertionError(f"the process ended with {process.exitcode}, and without a word") from None
    finally:
        process.kill()
        process.join()
        ours.close()
    assert failure is None, failure
    assert peak <= most, f"took {peak / 1e6:.0f} MB, expected at most {most / 1e6:.0f}"
    return Outcome(answer, peak)


def _call(function: Callable[..., Any], arguments: tuple[Any, ...], parent: Connection) -> None:
    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", "__array__ implementation doesn't accept a copy keyword", DeprecationWarning)
    with open("/proc/self/statm") as file:
        mapped = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + _CEILING, mapped + _CEILING))
    before, answer, failure = _most_held(), None, None
    try:
        answer = function(*arguments)
    except BaseException:
        failure = traceback.format_exc()[-5000:]
    parent.send((answer, failure, _most_held() - before))


def _most_held() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
