"""What several commands have in common: kinds of arguments, and how they say that they failed."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from app.settings import Settings
    from models.data import Dataset, Problem
    from models.finetuning.segmenter.training import FinetunedSegmenter
    from models.finetuning.training import Finetuned

CROWDS = ("as-crowds", "as-objects")
ORIENTATIONS = ("upright", "stored")
ANSWERS = ("truth", "last", "first", "prediction")
SHOWN_PROBLEMS = 3  # of one kind, by a command that wants to go on; `data check` shows more


# As in `models.data`, which takes a moment to import: formats that are read, and those of them that are written too.
WRITTEN = ("coco", "voc", "jsonl", "mltable", "yolo", "label-studio", "cvat", "labelme")
FORMATS = (*WRITTEN, "via", "supervisely", "datumaro")


def add_data_arguments(parser: argparse.ArgumentParser, *, skip_bad: bool = True) -> None:
    """--format, --images-root, --prefix FROM=TO and more: how `read_data` is to read.

    skip_bad: whether the command can do without what cannot be read.
    """
    parser.add_argument(
        "--format",
        choices=FORMATS,
        metavar="FORMAT",
        help="what the data set is: %(choices)s (default: seen from what is there)",
    )
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
    frame = parser.add_mutually_exclusive_group()
    frame.add_argument(
        "--normalized",
        action="store_const",
        const=True,
        help="coordinates are fractions of the image's width and height (default: as the format has them)",
    )
    frame.add_argument(
        "--absolute", action="store_const", const=False, dest="normalized", help="coordinates are pixels"
    )
    parser.add_argument(
        "--crowds", choices=CROWDS, help="what objects are that are marked iscrowd or difficult (default: as-crowds)"
    )
    add_page(parser)
    parser.add_argument(
        "--orientation",
        choices=ORIENTATIONS,
        help="the frame of the boxes of photos that EXIF says are stored on their side (default: told by what fits)",
    )
    parser.add_argument(
        "--answer",
        choices=ANSWERS,
        default="truth",
        help="of Label Studio's tasks with several annotations: the ground truth or else the last one, the last or the "
        "first one, or the prediction (default: truth)",
    )
    if skip_bad:
        parser.add_argument(
            "--skip-bad", action="store_true", help="leave out what cannot be read, and say what, instead of stopping"
        )


def add_page(parser: argparse.ArgumentParser) -> None:
    """--page: which page of an image file with several."""
    parser.add_argument(
        "--page",
        type=_page,
        default=1,
        metavar="N",
        help="of image files with several pages or frames (TIFF, GIF, WebP, PNG, AVIF) take number N (default: 1)",
    )


def reading(args: argparse.Namespace) -> dict[str, Any]:
    """What `add_data_arguments` added, as `models.data.read` takes it."""
    return {
        "format": args.format,
        "prefixes": dict(args.prefix),
        "images": args.images_root,
        "normalized": args.normalized,
        "crowds": args.crowds,
        "orientation": args.orientation,
        "page": args.page,
        "answer": args.answer,
    }


def read_data(args: argparse.Namespace, path: Path) -> Dataset:
    """The data set at `path`, whole, or with --skip-bad what of it can be read.

    Says on standard error what is odd in it and what is left out. args: has what `add_data_arguments` added.

    Raises DataError, which `failed` puts in some lines, when something cannot be read and is not to be skipped.
    """
    from models.data import DataError, read

    dataset, problems = read(path, **reading(args))
    fatal = [problem for problem in problems if problem.fatal]
    for line in _lines([problem for problem in problems if not (problem.fatal and not args.skip_bad)]):
        print(f"box2mask: {line}", file=sys.stderr)
    if fatal and not args.skip_bad:
        raise DataError(fatal)
    return dataset


def _lines(problems: Sequence[Problem], skipped: str = "left out: ") -> list[str]:
    """A line for each of the first problems of a kind, and one for how many more there are of it."""
    from models.data import shortened

    lines = []
    for one in shortened(problems, SHOWN_PROBLEMS):
        if isinstance(one, int):
            lines.append(f"... and {one:,} more like this; `box2mask data check --all` shows each")
        else:
            lines.append(f"{skipped if one.fatal else ''}{one}")
    return lines


def _page(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"expected a number from 1 on, found {text!r}")
    return int(text)


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


def within(kind: type[int] | type[float], least: float, most: float) -> Callable[[str], Any]:
    """The type of an argument that is a number of this kind between two. Whole numbers are written in digits alone."""

    def number(text: str) -> Any:
        is_odd = kind is int and not (text.isascii() and text.removeprefix("-").isdecimal())
        try:
            value = least - 1 if is_odd else kind(text)
        except ValueError:
            value = least - 1
        if not least <= value <= most:
            what, ends = ("whole number", f"{least} to {most}") if kind is int else ("number", f"{least:g} to {most:g}")
            raise argparse.ArgumentTypeError(f"expected a {what} from {ends}, found {text!r}")
        return value

    return number


fraction = within(float, 0, 1)


def failed(reason: Exception | str) -> int:
    """Says why a command failed, of a DataError the first problems; its exit status."""
    problems = getattr(reason, "problems", ())
    text = str(reason)
    if len(problems) > 1:
        text = "\n  ".join([f"{len(problems):,} problems:", *_lines(problems, skipped="")])
    print(f"box2mask: {text}", file=sys.stderr)
    return 1


def read_parts(args: argparse.Namespace) -> tuple[Dataset, Dataset]:
    """What a training learns from and what it is validated on: `args.validation`, or every `args.every`th image.

    Raises as `read_data`, and TrainingError where there is nothing to validate on.
    """
    from models.data import split
    from models.finetuning.checkpoint_files import TrainingError

    training = read_data(args, args.data)
    if args.validation is not None:
        return training, read_data(args, args.validation)
    if len(training) < 2:
        raise TrainingError(
            f"{args.data}: expected at least 2 images, one of them to validate on, found {len(training)}"
        )
    return split(training, every=args.every or 5)


def say_trained(kind: str, done: Finetuned | FinetunedSegmenter, metric: str, say: Callable[[str], None]) -> None:
    """What came out of a training. kind: of model. metric: the figure by which the best epoch was chosen."""
    best = done.figures
    which = f"of epoch {best['epoch']:g}" if best["step"] else "as it was before, which no epoch has bettered"
    figure = "-" if best[metric] is None else f"{best[metric]:.4f}"
    say(f"{done.folder}: the {kind} {which}, {metric} {figure}")
    if not done.finished:
        say("time is over before the last epoch; the same command goes on")
