"""COCO's run-length encoded masks, checked without making the mask."""

from __future__ import annotations

import ast
from typing import Any

from pycocotools import mask as coco_mask

from models.data.parsing.values import BadValueError, listed, number, shown

_MOST_BITS = 40  # of one length


def read_rle(value: dict[str, Any], size_hw: tuple[int, int]) -> dict[str, Any]:
    """The encoding, compressed, once it is sure that its runs fill the image.

    pycocotools reads and writes beyond its memory, or leaves pixels undefined, where they do not. One mask always
    gives the same text. Raises BadValueError.
    """
    size, counts = listed(value.get("size")), listed(value.get("counts"))
    if (
        not isinstance(size, list)
        or len(size) != 2
        or tuple(number(one, "segmentation.size") for one in size) != size_hw
    ):
        raise BadValueError(f"segmentation.size: expected {list(size_hw)}, the image's, found {shown(size)}")
    if isinstance(counts, str):
        runs = _runs(_plain(counts))
    elif isinstance(counts, list) and all(_is_length(run) for run in counts):
        runs = [int(run) for run in counts]
    else:
        raise BadValueError(f"segmentation.counts: expected a list of lengths or text, found {shown(counts)}")
    pixels = size_hw[0] * size_hw[1]
    if sum(runs) != pixels or min(runs) < 0:
        raise BadValueError(f"segmentation.counts: expected runs that fill {pixels} pixels, found {shown(counts)}")
    encoded = coco_mask.frPyObjects({"size": list(size_hw), "counts": _shortest(runs)}, *size_hw)
    return {"size": list(size_hw), "counts": encoded["counts"].decode("ascii")}


def _is_length(run: Any) -> bool:
    return isinstance(run, int | float) and not isinstance(run, bool) and run == run // 1


def _plain(counts: str) -> str:
    """The text without `b'...'`, which Python makes of bytes that somebody wrote with str()."""
    if counts[:2] in ("b'", 'b"') and counts[-1:] == counts[1]:
        try:
            found = ast.literal_eval(counts)
            return found.decode("ascii") if isinstance(found, bytes) else counts
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return counts
    return counts


def _shortest(runs: list[int]) -> list[int]:
    """The runs of the same mask of which none but the first is empty."""
    found = [runs[0]]
    joins = False  # an empty run between two of one kind makes them one
    for run in runs[1:]:
        if joins:
            found[-1] += run
            joins = False
        elif run == 0:
            joins = True
        else:
            found.append(run)
    return found


def _runs(counts: str) -> list[int]:
    """The lengths that COCO's compressed text stands for.

    Each is written in groups of 5 bits, the lowest first, in characters from "0" on; the sixth bit says that another
    group follows, and the highest bit of the last group is the sign. From the fourth length on, what is written is the
    difference to the length two before (`rleFrString` in COCO's maskApi.c).
    """
    runs: list[int] = []
    number = bits = 0
    for character in counts:
        group = ord(character) - ord("0")
        if not 0 <= group < 64 or bits > _MOST_BITS:
            raise BadValueError(f"segmentation.counts: expected COCO's compressed text, found {shown(counts)}")
        number |= (group & 31) << bits
        bits += 5
        if group & 32:
            continue
        if group & 16:
            number -= 1 << bits
        runs.append(number + (runs[-2] if len(runs) > 2 else 0))
        number = bits = 0
    if bits or not runs:
        raise BadValueError(f"segmentation.counts: expected COCO's compressed text, whole, found {shown(counts)}")
    return runs
