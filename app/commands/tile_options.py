"""The options of commands that may look at large photos in tiles, as the params of a request are called."""

from __future__ import annotations

import argparse
from typing import Any

from app.commands.arguments import within

# As `app.contract.tile_params` has them, which is not imported for `--help`.
SMALLEST_TILE, LARGEST_TILE, MOST_OVERLAP = 16, 65536, 0.9
MERGES = ("nms", "fusion")


def add_tile_options(parser: argparse.ArgumentParser) -> None:
    """--tiles, --tile-overlap and --tile-merge, for `tile_params`."""
    group = parser.add_argument_group("small objects in large photos (without --tiles, the whole photo alone is seen)")
    group.add_argument(
        "--tiles",
        type=within(int, SMALLEST_TILE, LARGEST_TILE),
        metavar="PIXELS",
        help="look at photos in square tiles of this side, too: 1024, say",
    )
    group.add_argument(
        "--tile-overlap",
        type=within(float, 0, MOST_OVERLAP),
        metavar="X",
        help="the fraction of a side that neighbouring tiles share (default: 0.2)",
    )
    group.add_argument(
        "--tile-merge", choices=MERGES, help="of boxes of one object keep the best, or their mean (default: nms)"
    )


def tile_params(args: argparse.Namespace) -> dict[str, Any]:
    """What `add_tile_options` read, as params of a request; {} where nothing is asked for."""
    names = ("tiles", "tile_overlap", "tile_merge")
    return {name: getattr(args, name) for name in names if getattr(args, name) is not None}


def lacks_tiles(args: argparse.Namespace) -> str | None:
    """The option that says how, where nothing asks for tiles."""
    named = tile_params(args)
    return None if "tiles" in named else next((f"--{name.replace('_', '-')}" for name in named), None)
