"""What several commands have in common: kinds of arguments, and how they say that they failed."""

from __future__ import annotations

import argparse
import sys


def add_prefix(parser: argparse.ArgumentParser) -> None:
    """--prefix FROM=TO, any number of times; `dict(args.prefix)` is what the readers of data sets take."""
    parser.add_argument(
        "--prefix",
        action="append",
        default=[],
        type=_prefix,
        metavar="FROM=TO",
        help="read image addresses that begin with FROM (azureml://..., AmlDatastore://...) as the folder or http(s) "
        "URL TO; may be given several times",
    )


def _prefix(text: str) -> tuple[str, str]:
    start, _, target = text.rpartition("=")  # addresses may have one of their own
    if not start or not target:
        raise argparse.ArgumentTypeError(f"expected FROM=TO, found {text!r}")
    return start, target


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
    """Says why a command failed; its exit status."""
    print(f"box2mask: {reason}", file=sys.stderr)
    return 1
