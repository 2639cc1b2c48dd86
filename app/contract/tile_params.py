"""The params of small objects in large photos <-> a `Tiling`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from app.contract import causes
from app.contract.grid_params import OTHER_NAMES
from app.errors import BadRequest
from models.segmenter.grid import NAMES
from models.tiles import Merge, Tiling

SMALLEST_TILE, LARGEST_TILE, MOST_OVERLAP = 16, 65536, 0.9
MERGES: tuple[str, ...] = get_args(Merge)


def read_tiling(params: Mapping[str, Any]) -> Tiling | None:
    """The tiles that they ask for; None where `tiles` is 0, null or not there. Raises BadRequest."""
    side, overlap, merge = (params.get(name) for name in ("tiles", "tile_overlap", "tile_merge"))
    whole = isinstance(side, int) and not isinstance(side, bool)
    if side is not None and not (whole and (side == 0 or SMALLEST_TILE <= side <= LARGEST_TILE)):
        raise BadRequest(
            f"params.tiles: expected 0, or the side of a tile in whole pixels from {SMALLEST_TILE} to {LARGEST_TILE}, "
            f"got {causes.shown(side)}"
        )
    number = isinstance(overlap, int | float) and not isinstance(overlap, bool)
    if overlap is not None and not (number and 0 <= overlap <= MOST_OVERLAP):
        raise BadRequest(
            f"params.tile_overlap: expected a number from 0 to {MOST_OVERLAP:g}, got {causes.shown(overlap)}"
        )
    if merge is not None and merge not in MERGES:
        expected = " or ".join(f'"{one}"' for one in MERGES)
        raise BadRequest(f"params.tile_merge: expected {expected}, got {causes.shown(merge)}")
    if not side:
        return None
    if params.get("return_logits"):
        raise BadRequest(
            "params.return_logits: expected false with params.tiles, got true: a mask's logits would be those of its "
            "tile, of no use beside the photo; ask for them without tiles"
        )
    if searches := [name for name in (*NAMES, *OTHER_NAMES) if params.get(name) is not None]:
        raise BadRequest(
            f"params.tiles: expected it without params.{searches[0]}, which asks for all masks of an image: "
            "crops_n_layers looks at parts of it there"
        )
    given = {name: value for name, value in (("overlap", overlap), ("merge", merge)) if value is not None}
    return Tiling(side, **given)


def described() -> dict[str, dict[str, Any]]:
    """What OpenAPI says of each."""
    return {
        "tiles": {
            "type": "integer",
            "minimum": 0,
            "maximum": LARGEST_TILE,
            "description": f"Look at a large photo in square tiles of this side too, from {SMALLEST_TILE} pixels on; "
            "0: do not",
        },
        "tile_overlap": {
            "type": "number",
            "minimum": 0,
            "maximum": MOST_OVERLAP,
            "description": "The fraction of a tile's side that neighbours share at least",
        },
        "tile_merge": {
            "type": "string",
            "enum": list(MERGES),
            "description": "Of boxes of one object keep the best, or their mean",
        },
    }
