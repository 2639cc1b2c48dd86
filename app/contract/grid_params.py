"""The params of everything mode <-> a `Grid`: in AzureML's `params`, and in the `parameters` of Hugging Face's form."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from app.contract import causes
from app.errors import BadRequest
from models.segmenter.grid import NAMES, Grid

# name -> the kind of its value, the least and the most.
LIMITS: dict[str, tuple[type, float, float]] = {
    "points_per_side": (int, 1, 256),
    "points_per_batch": (int, 1, 1024),
    "pred_iou_thresh": (float, 0, 1),
    "stability_score_thresh": (float, 0, 1),
    "stability_score_offset": (float, 0, 1000),
    "mask_threshold": (float, -1000, 1000),
    "crops_nms_thresh": (float, 0, 1),
    "crops_n_layers": (int, 0, 3),
    "crop_overlap_ratio": (float, 0, 1),
    "crop_n_points_downscale_factor": (int, 1, 256),
}
# What `SamAutomaticMaskGenerator`, and for the points transformers' pipeline, call them.
OTHER_NAMES = {
    "points_per_crop": "points_per_side",
    "crop_n_layers": "crops_n_layers",
    "box_nms_thresh": "crops_nms_thresh",
    "crop_nms_thresh": "crops_nms_thresh",
}
# Of all crops of an image together: 256 x 256 of the whole image, or 32 x 32 in three layers of crops.
MAX_POINTS = 100_000


def read_grid(params: Mapping[str, Any], where: str = "params") -> Grid | None:
    """The grid that they ask for; None where they name none of its values. where: what errors call them.

    Null stands for the default. Raises BadRequest.
    """
    given: dict[str, Any] = {}
    called: dict[str, str] = {}
    for asked in (*NAMES, *OTHER_NAMES):
        value = params.get(asked)
        if value is None:
            continue
        name = OTHER_NAMES.get(asked, asked)
        value = _number(asked, value, *LIMITS[name], where)
        if name in given and given[name] != value:
            raise BadRequest(
                f"{where}.{asked}: expected one value with {where}.{called[name]}, which is the same here, got "
                f"{value:g} and {given[name]:g}"
            )
        given[name], called[name] = value, asked
    if not given:
        return None
    grid = Grid(**given)
    if grid.points > MAX_POINTS:
        raise BadRequest(
            f"{where}.{called.get('points_per_side', 'points_per_side')}: expected at most {MAX_POINTS} points in all "
            f"crops together, got {grid.points}; ask for fewer points or layers, or for fewer points in later layers "
            "by crop_n_points_downscale_factor"
        )
    return grid


def described() -> dict[str, dict[str, Any]]:
    """What OpenAPI says of each."""
    return {
        name: {"type": "integer" if kind is int else "number", "minimum": least, "maximum": most}
        for name, (kind, least, most) in LIMITS.items()
    }


def _number(name: str, value: Any, kind: Callable[..., Any], least: float, most: float, where: str) -> Any:
    whole = kind is int
    is_kind = isinstance(value, int | float) and not isinstance(value, bool)
    # The range first, in which there is no NaN, no infinity, and no whole number that a float cannot hold.
    if not is_kind or not least <= value <= most or (whole and value != int(value)):
        expected = f"a {'whole number' if whole else 'number'} from {least:g} to {most:g}"
        raise BadRequest(f"{where}.{name}: expected {expected}, got {causes.shown(value)}")
    return kind(value)
