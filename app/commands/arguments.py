"""What several commands have in common: kinds of arguments, and how they say that they failed."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from app.settings import Settings
    from models.data import Dataset

FORMATS = ("coco", "voc", "jsonl", "mltable")
SHOWN_PROBLEMS = 20  # by a command that wants to go on; `data check` shows all


def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    """--format, --images-root and --prefix FROM=TO, any number of times: how `read_data` is to read."""
    parser.add_argument("--format", choices=FORMATS, help="what the data set is (default: seen from what is there)")
    parser.add_argument(
        "--images-root", type=Path, metavar="DIR", help="where its relative image paths start, if not beside it"
    )
    parser.add_argument(
        "--prefix",
        action="append",
        default=[],
        type=_prefix,
        metavar="FROM=TO",
        help="read image addresses that begin with FROM (azureml://..., AmlDatastore://...) as the folder or http(s) "
        "URL TO; may be given several times",
    )


def read_data(args: argparse.Namespace, path: Path, *, skip_bad: bool = False) -> Dataset:
    """The data set at `path`, whole, or with `skip_bad` what of it can be read.

    Says on standard error what is odd in it and what is left out. args: has what `add_data_arguments` added.

    Raises DataError, which `failed` puts in some lines, when something cannot be read and is not to be skipped.
    """
    from models.data import DataError, read

    dataset, problems = read(path, format=args.format, prefixes=dict(args.prefix), images=args.images_root)
    fatal = [problem for problem in problems if problem.fatal]
    if fatal and not skip_bad:
        raise DataError(fatal)
    for line in _first([f"{'left out: ' if problem.fatal else ''}{problem}" for problem in problems]):
        print(f"box2mask: {line}", file=sys.stderr)
    return dataset


def _first(lines: list[str]) -> list[str]:
    """The lines, of many the first and how many more there are."""
    more = len(lines) - SHOWN_PROBLEMS
    return lines if more <= 0 else [*lines[:SHOWN_PROBLEMS], f"and {more} more; `box2mask data check` shows all"]


def _prefix(text: str) -> tuple[str, str]:
    start, _, target = text.rpartition("=")  # addresses may have one of their own
    if not start or not target:
        raise argparse.ArgumentTypeError(f"expected FROM=TO, found {text!r}")
    return start, target


def add_models(parser: argparse.ArgumentParser, default: str | None = None, *, segmenters: bool = False) -> None:
    """--detector, --segmenter and --device, for `chosen_settings`.

    default: what stands for a model that is not named; None: that of the settings. segmenters: there may be several.
    """
    folder = "folder, name that `box2mask weights list` shows, auto or none"
    more = "; give it again for another one beside it" if segmenters else ""
    for kind, what, action, text in (
        ("detector", "detector", "store", ""),
        ("segmenter", "SAM", "append" if segmenters else "store", more),
    ):
        instead = default or f"BOX2MASK_{kind.upper()}"
        text = f"{what}: {folder} (default: {instead}){text}"
        parser.add_argument(f"--{kind}", action=action, metavar="NAME_OR_DIR", help=text)
    parser.add_argument("--device", metavar="DEVICE", help="cpu, cuda, cuda:1 or several (default: BOX2MASK_DEVICE)")


def chosen_settings(args: argparse.Namespace) -> Settings:
    """The environment's settings with what `add_models` added in their place; of several segmenters the first.

    Raises SettingsError.
    """
    from app.settings import Settings

    named = {kind: getattr(args, kind) for kind in (*typed(args), "device")}
    changes = {name: value[0] if isinstance(value, list) else value for name, value in named.items()}
    settings = Settings.from_environment()
    return settings.model_copy(update={name: value for name, value in changes.items() if value is not None})


def typed(args: argparse.Namespace) -> tuple[str, ...]:
    """Which of `detector` and `segmenter` the command line names."""
    return tuple(kind for kind in ("detector", "segmenter") if getattr(args, kind) is not None)


def fraction(text: str) -> float:
    """The type of an argument from 0 to 1."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 1, found {text!r}")
    return value


def failed(reason: Exception | str) -> int:
    """Says why a command failed, of a DataError the first problems; its exit status."""
    problems = getattr(reason, "problems", ())
    text = str(reason)
    if len(problems) > 1:
        text = "\n  ".join([f"{len(problems)} problems:", *_first([str(problem) for problem in problems])])
    print(f"box2mask: {text}", file=sys.stderr)
    return 1
