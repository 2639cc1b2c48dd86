"""The options of the commands that read a list of results: which reading it has, where it is not as COCO has it."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from models.evaluation import Options

# As `models.evaluation.readings` has them, which is not imported for `--help`.
CATEGORY_IDS = ("ids", "from-0", "from-1")
IMAGE_IDS = ("ids", "names")
BOX_FORMS = ("xywh", "xyxy", "xywh-fractions", "xyxy-fractions")


def add_list_options(parser: argparse.ArgumentParser, of: str) -> None:
    """--category-ids, --image-ids and --boxes. of: the option that takes the list."""
    group = parser.add_argument_group(
        f"how {of} reads COCO's lists of results, which are clear without these if possible"
    )
    group.add_argument(
        "--category-ids", choices=CATEGORY_IDS, help="category_id is an id, or a position among the classes from 0 or 1"
    )
    group.add_argument("--image-ids", choices=IMAGE_IDS, help="image_id is an id, or the number that is a file's name")
    group.add_argument("--boxes", choices=BOX_FORMS, help="what the numbers of bbox are, in pixels or as fractions")


def list_options(args: argparse.Namespace) -> Options:
    """What `add_list_options` read."""
    from models.evaluation import Options

    return Options(args.category_ids, args.image_ids, args.boxes)


def named_options(args: argparse.Namespace) -> str:
    """Those of the readings that the command line names, for a message."""
    names = ("category_ids", "image_ids", "boxes")
    return ", ".join(f"--{name.replace('_', '-')}" for name in names if getattr(args, name) is not None)
