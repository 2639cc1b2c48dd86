"""What every format is made of, checked: numbers, sizes, names, boxes and polygons.

Values may have drifted on their way through a spreadsheet or pandas: a number as text, a whole number as `3.0`, a list
as its text, a missing value as NaN. Where only one reading is possible, it is taken.

Coordinates are kept to a millionth of a pixel (`DECIMALS`). A width written as a difference, or a coordinate written
as a fraction of the image's width, comes back from that as exactly the coordinate that it was. They are bounded, and so
is the length of an outline: pycocotools draws a polygon pixel by pixel, however far outside the image it is.
"""

from __future__ import annotations

import json
import math
import reprlib
from collections.abc import Sequence
from typing import Any

from models.data.dataset import Polygon

DECIMALS = 6
FURTHEST = 1_000_000  # pixels, of a coordinate from the image's corner
LONGEST_OUTLINE = 4_000_000  # pixels around one polygon; pycocotools takes a hundred bytes for each
MOST_PIXELS = 2**28  # of an image; Pillow refuses larger ones too

# What is said of a box for which `are_fractions` holds.
FRACTIONS = "within the first pixel: are these fractions of the image's width and height? --normalized reads them"

Box = tuple[float, float, float, float]

_EXACT = 2.0**53
_MOST_NAMES = 12  # that a message has
_LARGE = 1e9  # up to here a millionth is more than a float's own rounding
_MISSING_TEXTS = frozenset({"", "nan", "none", "null", "<na>"})
_FLAGS = {"0": False, "1": True, "false": False, "true": True, "no": False, "yes": True, "0.0": False, "1.0": True}


# For messages: a list of a million numbers, or one that holds itself ten times over, is not written out to be cut.
_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxlist, _SHORT.maxtuple, _SHORT.maxdict = 3, 12, 12, 12
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 100


class BadValueError(ValueError):
    """A value that is not what its format asks for: the message names the field, what was expected and what found."""


class EmptyBoxError(BadValueError):
    """A box that is well-formed and has no inside."""


def is_missing(value: Any) -> bool:
    """Whether it stands for no value: None, empty text, NaN, and the texts that programs write for these."""
    if isinstance(value, str):
        return value.strip().casefold() in _MISSING_TEXTS
    return value is None or (isinstance(value, float) and math.isnan(value))


def number(value: Any, field: str) -> float:
    """A finite number, also as text; booleans are none."""
    if type(value) in (float, int) and -FURTHEST <= value <= FURTHEST:  # most are, and there are millions
        return float(value)
    found = value
    try:
        if isinstance(value, str) and "_" not in value:
            found = float(value)
        if isinstance(found, int | float) and not isinstance(found, bool) and math.isfinite(found):
            return float(found)
    except (OverflowError, ValueError):  # an integer beyond every float; other text
        pass
    hint = ""
    if isinstance(value, str) and value.count(",") == 1 and value.replace(",", "").strip().lstrip("-").isdecimal():
        hint = " (write the decimals after a point)"
    raise BadValueError(f"{field}: expected a number, found {shown(value)}{hint}")


def coordinate(value: Any, field: str) -> float:
    """A number of pixels that is not beyond every image."""
    found = number(value, field)
    if abs(found) > FURTHEST:
        raise BadValueError(f"{field}: expected at most {FURTHEST} pixels, found {shown(value)}")
    return found


def length(value: Any, field: str) -> int:
    """An image's width or height in pixels: a whole number above zero."""
    found = number(value, field)
    if found < 1 or found != int(found):
        raise BadValueError(f"{field}: expected a whole number of pixels, found {shown(value)}")
    if found > FURTHEST:
        raise BadValueError(f"{field}: expected at most {FURTHEST} pixels, found {shown(value)}")
    return int(found)


def stated_size_hw(height: Any, width: Any, fields: tuple[str, str] = ("height", "width")) -> tuple[int, int] | None:
    """The image's (height, width); None where it is not stated, which programs also write as 0 or -1."""

    def unstated(value: Any) -> bool:
        return is_missing(value) or (isinstance(value, int | float | str) and value in _UNSTATED)

    if unstated(height) or unstated(width):
        return None
    size = length(height, fields[0]), length(width, fields[1])
    if size[0] * size[1] > MOST_PIXELS:
        found = f"{size[1]} x {size[0]}"
        raise BadValueError(f"{fields[1]}, {fields[0]}: expected at most {MOST_PIXELS} pixels, found {found}")
    return size


_UNSTATED = (0, -1, "0", "-1", "0.0", "-1.0")


def text(value: Any, field: str) -> str:
    """Text, as it is, that is more than spaces."""
    if not isinstance(value, str) or not value.strip():
        raise BadValueError(f"{field}: expected text, found {shown(value)}")
    return value


def flag(value: Any, field: str) -> bool:
    """0, 1, false or true, also as text; what is missing, or stands as `Unspecified`, is false."""
    if is_missing(value):
        return False
    if isinstance(value, str):
        known = value.strip().casefold()
        if known == "unspecified":
            return False
        if known in _FLAGS:
            return _FLAGS[known]
    elif isinstance(value, int | float) and value in (0, 1):
        return bool(value)
    raise BadValueError(f"{field}: expected 0 or 1, found {shown(value)}")


def score_of(value: Any) -> float:
    """A score in 0..1. Raises BadValueError, for what is a percentage too."""
    score = number(value, "score")
    if not 0 <= score <= 1 + 1e-6:  # sums of float32 end a little above
        hint = " (percent? divide all scores by 100)" if 1 < score <= 100 else ""
        raise BadValueError(f"score: expected a number from 0 to 1, found {shown(value)}{hint}")
    return min(score, 1.0)


def listed(value: Any) -> Any:
    """The list or object that a text holds, as a table of pandas or a spreadsheet has it; else the value as it is."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def pixel(value: float) -> float:
    """The coordinate as every format holds it: to a millionth of a pixel, and no minus before zero."""
    if -_LARGE < value < _LARGE:  # a third of the time of round() to decimals, which goes by way of text
        return round(value * 1e6) / 1e6
    return round(float(value), DECIMALS) + 0.0


def box(x1: float, y1: float, x2: float, y2: float, field: str) -> Box:
    """A box with an inside, x1 < x2 and y1 < y2, in absolute pixels; it may reach beyond the image.

    Raises BadValueError, and EmptyBoxError for one of no width or height.
    """
    found = (pixel(x1), pixel(y1), pixel(x2), pixel(y2))
    if max(found) > FURTHEST or min(found) < -FURTHEST:
        raise BadValueError(
            f"{field}: expected coordinates of at most {FURTHEST} pixels, found {' '.join(map(shortest, found))}"
        )
    if found[0] >= found[2] or found[1] >= found[3]:
        empty = found[0] == found[2] or found[1] == found[3]
        kind, error = ("empty", EmptyBoxError) if empty else ("inverted", BadValueError)
        raise error(f"{field}: expected x1 < x2 and y1 < y2, found {' '.join(map(shortest, found))} ({kind})")
    return found


def are_fractions(xyxy: Sequence[float], size_hw: tuple[int, int]) -> bool:
    """Whether a box of pixels lies within the first one, and says it in decimals: it is hardly one of pixels."""
    x1, y1, x2, y2 = xyxy
    return (
        x2 <= 1.000001
        and y2 <= 1.000001
        and min(x1, y1) >= 0
        and min(size_hw) > 2
        and not all(float(one).is_integer() for one in xyxy)
    )


def polygons(
    value: Any, field: str, scale_xy: tuple[float, float] = (1, 1), dropped: list[str] | None = None
) -> tuple[Polygon, ...]:
    """The parts of an outline, each x1, y1, x2, y2, ... of three points or more, times `scale_xy`.

    value: a list of parts, or one part alone; a part is a flat list of coordinates or a list of pairs.
    dropped: takes a line for each part that has fewer than three points, or half a point; there may be none left then.
        None: such a part is an error.
    """
    value = listed(value)
    if not isinstance(value, list | tuple) or not value:
        raise BadValueError(f"{field}: expected a list of polygons, found {shown(value)}")
    if not isinstance(value[0], list | tuple | dict):
        value = [value]  # one part alone
    elif all(map(_is_point, value)) and (len(value) > 2 or isinstance(value[0], dict)):
        value = [value]  # one part alone, of pairs
    parts = []
    for index, part in enumerate(value):
        name = f"{field}[{index}]"
        try:
            parts.append(_polygon(part, name, scale_xy))
        except _DegenerateError as error:
            if dropped is None:
                raise
            dropped.append(str(error))
    return tuple(parts)


class _DegenerateError(BadValueError):
    """A polygon that has no area, for want of points."""


def _is_point(value: Any) -> bool:
    if isinstance(value, dict):
        return "x" in value and "y" in value
    return isinstance(value, list | tuple) and len(value) == 2 and not isinstance(value[0], list | tuple | dict)


def _polygon(value: Any, field: str, scale_xy: tuple[float, float]) -> Polygon:
    if not isinstance(value, list | tuple):
        raise BadValueError(f"{field}: expected a list of coordinates, found {shown(value)}")
    if value and isinstance(value[0], list | tuple | dict):
        points = [(one["x"], one["y"]) if isinstance(one, dict) and _is_point(one) else one for one in value]
        if not all(isinstance(one, list | tuple) and len(one) == 2 for one in points):
            raise BadValueError(f"{field}: expected pairs of x and y, found {shown(value)}")
        value = [one for point in points for one in point]
    if len(value) % 2:
        raise _DegenerateError(f"{field}: expected pairs of x and y, found {len(value)} numbers")
    if len(value) < 6:
        raise _DegenerateError(f"{field}: expected at least 3 points, found {len(value) // 2}")
    x, y = scale_xy
    if all((type(one) is float or type(one) is int) and -FURTHEST <= one <= FURTHEST for one in value):
        numbers = value
    else:
        numbers = [number(one, field) for one in value]
    if x == y == 1:
        scaled = list(map(pixel, numbers))
    else:
        scaled = [pixel(one * (y if index % 2 else x)) for index, one in enumerate(numbers)]
    lowest, highest = min(scaled), max(scaled)
    if not (highest <= FURTHEST and lowest >= -FURTHEST):
        furthest = max(scaled, key=abs)
        raise BadValueError(f"{field}: expected coordinates of at most {FURTHEST} pixels, found {shortest(furthest)}")
    if len(scaled) * (highest - lowest) > LONGEST_OUTLINE:  # it may be so long
        xs, ys = scaled[::2], scaled[1::2]
        around = sum(max(abs(xs[i] - xs[i - 1]), abs(ys[i] - ys[i - 1])) for i in range(len(xs)))
        if around > LONGEST_OUTLINE:
            raise BadValueError(f"{field}: expected an outline of at most {LONGEST_OUTLINE} pixels, found {around:.0f}")
    return tuple(scaled)


def extent(parts: Sequence[Polygon]) -> Box:
    """The box around the polygons; it may have no inside."""
    if len(parts) == 1:
        xs, ys = parts[0][::2], parts[0][1::2]
    else:
        xs = tuple(x for part in parts for x in part[::2])
        ys = tuple(y for part in parts for y in part[1::2])
    return min(xs), min(ys), max(xs), max(ys)


def shortest(value: float) -> str:
    """The number as it is written: `12`, not `12.0`."""
    return str(plain(value))


def plain(value: float) -> int | float:
    """An int where the number is whole, else the float, to a millionth."""
    value = pixel(value)
    return int(value) if value.is_integer() and abs(value) < _EXACT else value


def sized(size_hw: tuple[int, int]) -> str:
    """An image's size in a message, with the width first."""
    return f"{size_hw[1]} x {size_hw[0]} pixels"


def few(names: Sequence[str]) -> str:
    """Names in a message: the first, each cut where it is long, and how many more there are."""
    first = [name if len(name) <= 60 else f"{name[:57]}..." for name in names[:_MOST_NAMES]]
    return ", ".join(first) + (f" and {len(names) - len(first)} more" if len(names) > len(first) else "")


def shown(value: Any) -> str:
    """The value in a message: short, and in one line."""
    if value is None:
        return "nothing"
    written = _SHORT.repr(value)
    return written if len(written) <= 60 else f"{written[:57]}..."
