"""The options of commands that ask for masks: how these are cleaned, as the params of a request are called."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from app.commands.arguments import within

if TYPE_CHECKING:
    from app.results.image_result import Corners

# Options that are on or off, as `app.contract.schemas` has them, which is not imported for `--help`.
MASK_FLAGS = {
    "fill_holes": "fill all holes",
    "largest_part": "keep the largest part of each mask alone",
    "no_overlaps": "give each pixel to the best mask alone",
    "class_agnostic_nms": "of boxes of unlike classes that overlap keep the best, too: one object, one class",
    "tight_boxes": "boxes are those around the masks",
    "rotated_boxes": "coco.json has the smallest turned box around each mask, too",
}


def add_mask_options(parser: argparse.ArgumentParser) -> None:
    """--min-region-area, --fill-holes and so on, for `mask_params`."""
    group = parser.add_argument_group("clean masks (without these, masks are as the model made them)")
    group.add_argument(
        "--min-region-area",
        type=within(int, 0, 1_000_000_000),
        default=0,
        metavar="N",
        help="drop islands and holes of less than N pixels",
    )
    for name, text in MASK_FLAGS.items():
        group.add_argument(f"--{name.replace('_', '-')}", action="store_true", help=text)


def mask_params(args: argparse.Namespace) -> dict[str, Any]:
    """What `add_mask_options` read, as params of a request; {} where nothing is asked for."""
    return {name: getattr(args, name) for name in ("min_region_area", *MASK_FLAGS) if getattr(args, name)}


def add_polygon_options(parser: argparse.ArgumentParser) -> None:
    """--polygon-tolerance and --max-vertices, for `corners`."""
    group = parser.add_argument_group(
        "polygons people can edit, in coco, jsonl, label-studio and yolo-seg (without these, masks are exact, and no "
        "polygons in coco and label-studio)"
    )
    group.add_argument(
        "--polygon-tolerance",
        type=within(float, 0, 1000),
        metavar="PIXELS",
        help="how far polygons may stray from the mask",
    )
    group.add_argument("--max-vertices", type=within(int, 4, 1_000_000), metavar="N", help="corners of each polygon")


def corners(args: argparse.Namespace) -> Corners:
    """What `add_polygon_options` read."""
    from app.results.image_result import Corners

    return Corners(args.polygon_tolerance, args.max_vertices)
