"""What every format is made of, checked: numbers, sizes, names, boxes and polygons.

Coordinates are kept to a millionth of a pixel (`DECIMALS`). A width written as a difference, or a coordinate written
as a fraction of the image's width, comes back from that as exactly the coordinate that it was.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from models.data.dataset import Polygon

DECIMALS = 6

Box = tuple[float, float, float, float]


class BadValueError(ValueError):
    """A value that is not what its format asks for: the message names the field, what was expected and what found."""


def number(value: Any, field: str) -> float:
    """A finite number; text and booleans are none."""
    try:
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            return float(value)
    except OverflowError:  # an integer beyond every float
        pass
    raise BadValueError(f"{field}: expected a number, found {shown(value)}")


def length(value: Any, field: str) -> int:
    """An image's width or height in pixels: a whole number above zero."""
    found = number(value, field)
    if found < 1 or found != int(found):
        raise BadValueError(f"{field}: expected a whole number of pixels, found {shown(value)}")
    return int(found)


def text(value: Any, field: str) -> str:
    """Text, as it is, that is more than spaces."""
    if not isinstance(value, str) or not value.strip():
        raise BadValueError(f"{field}: expected text, found {shown(value)}")
    return value


def flag(value: Any, field: str) -> bool:
    """0, 1, false or true."""
    if value not in (0, 1):
        raise BadValueError(f"{field}: expected 0 or 1, found {shown(value)}")
    return bool(value)


def pixel(value: float) -> float:
    """The coordinate as every format holds it: to a millionth of a pixel, and no minus before zero."""
    return round(float(value), DECIMALS) + 0.0


def box(x1: float, y1: float, x2: float, y2: float, field: str) -> Box:
    """A box with an inside, x1 < x2 and y1 < y2, in absolute pixels; it may reach beyond the image."""
    found = (pixel(x1), pixel(y1), pixel(x2), pixel(y2))
    if found[0] >= found[2] or found[1] >= found[3]:
        kind = "empty" if found[0] == found[2] or found[1] == found[3] else "inverted"
        raise BadValueError(f"{field}: expected x1 < x2 and y1 < y2, found {' '.join(map(shortest, found))} ({kind})")
    return found


def polygons(value: Any, field: str, scale_xy: tuple[int, int] = (1, 1)) -> tuple[Polygon, ...]:
    """A list of parts, each a list x1, y1, x2, y2, ... of three points or more, times `scale_xy`."""
    if not isinstance(value, list | tuple) or not value:
        raise BadValueError(f"{field}: expected a list of polygons, found {shown(value)}")
    return tuple(_polygon(part, f"{field}[{index}]", scale_xy) for index, part in enumerate(value))


def _polygon(value: Any, field: str, scale_xy: tuple[int, int]) -> Polygon:
    if not isinstance(value, list | tuple):
        raise BadValueError(f"{field}: expected a list of coordinates, found {shown(value)}")
    if len(value) % 2:
        raise BadValueError(f"{field}: expected pairs of x and y, found {len(value)} numbers")
    if len(value) < 6:
        raise BadValueError(f"{field}: expected at least 3 points, found {len(value) // 2}")
    return tuple(pixel(number(one, field) * scale_xy[index % 2]) for index, one in enumerate(value))


def extent(parts: Sequence[Polygon]) -> Box:
    """The box around the polygons; it may have no inside."""
    xs = [x for part in parts for x in part[::2]]
    ys = [y for part in parts for y in part[1::2]]
    return min(xs), min(ys), max(xs), max(ys)


def shortest(value: float) -> str:
    """The number as it is written: `12`, not `12.0`."""
    return str(plain(value))


def plain(value: float) -> int | float:
    """An int where the number is whole, else the float, to a millionth."""
    value = pixel(value)
    return int(value) if value.is_integer() else value


def shown(value: Any) -> str:
    """The value in a message: short, and in one line."""
    if value is None:
        return "nothing"
    written = repr(value)
    return written if len(written) <= 60 else f"{written[:57]}..."
