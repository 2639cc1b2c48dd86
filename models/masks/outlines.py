"""A mask's outlines with fewer corners, as people edit them: no outline crosses or touches itself or another one.

Corners are some of the corners of the pixels' own outlines, which run along the pixels' outer edges. A line strays from
the outline by at most the tolerance, as Douglas and Peucker have it; the corners that matter most come first, so that a
limit on their number takes the best of them. Every part and every hole stays.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from models.masks.pixel_outlines import Outline, outlines_of

# Outlines that the mask's own have in one point, and a cut's two sides, are this far from it, in pixels.
APART = 1 / 64
_CLEARANCE = 0.01  # of lines that must not touch, so that coordinates may be rounded to thousandths
_OF_THICKNESS = 0.25  # the largest tolerance for a part or hole, of twice its area by the length of its outline
_FEWEST, _ENOUGH = 3, 4  # corners of an outline: there must be, and there are if there may be
_LINES_AT_ONCE = 256
_MOST_COLUMNS = 16  # that are tried for a cut


@dataclass(eq=False)
class _Ring:
    """An outline, (N, 2) closed by itself, and the places of the corners that are kept, ascending."""

    points: np.ndarray
    part: int
    tolerance: float
    kept: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        far = int(((self.points - self.points[0]) ** 2).sum(1).argmax())
        self.kept = [0, far]

    def chain(self, start: int) -> np.ndarray:
        """The places from the kept corner `start` to the next one, both among them."""
        place = self.kept.index(start)
        end = self.kept[place + 1] if place + 1 < len(self.kept) else self.kept[0] + len(self.points)
        return np.arange(start, end + 1) % len(self.points)

    def farthest(self, start: int) -> tuple[float, int] | None:
        """How far the outline strays from the line that begins at `start`, and where; None where nothing is between."""
        places = self.chain(start)
        if len(places) < 3:
            return None
        points = self.points[places]
        distances = _distances(points[1:-1], points[0], points[-1])
        at = int(distances.argmax())
        return float(distances[at]), int(places[1 + at])

    def keep(self, place: int) -> None:
        self.kept.append(place)
        self.kept.sort()

    def corners(self) -> np.ndarray:
        return self.points[self.kept]


def simplified(mask: np.ndarray, tolerance: float = 0.0, max_vertices: int | None = None) -> list[list[np.ndarray]]:
    """For each part of a mask (H, W) bool its outline and those of its holes, (N, 2) float64 x and y in pixels.

    tolerance: in pixels, how far lines may stray; for parts and holes that are small or thin it is at most an eighth of
    the side of a square. max_vertices: of a part with its holes joined to it; more only where each outline would have
    fewer than three corners, or where lines would cross. Outlines go clockwise on the screen, holes counter-clockwise.
    """
    rings = _rings(outlines_of(mask, APART), tolerance)
    of_part: dict[int, list[_Ring]] = {}
    for ring in rings:  # an outline comes before those of its holes
        of_part.setdefault(ring.part, []).append(ring)
    for its in of_part.values():
        _select(its, None if max_vertices is None else max_vertices - 4 * (len(its) - 1))  # four for each cut
    _untangle(rings)
    return [[ring.corners() for ring in its] for its in of_part.values()]


def _rings(found: Sequence[Outline], wanted: float) -> list[_Ring]:
    """The outlines, with the tolerance of each: less than wanted for a part or a hole that is small or thin."""
    sizes = [_area_and_length(one.points) for one in found]
    of_part: dict[int, tuple[float, float]] = {}
    for one, (area, length) in zip(found, sizes, strict=True):
        whole, around = of_part.get(one.part, (0.0, 0.0))
        of_part[one.part] = (whole + area, around + length)  # areas of holes are negative
    rings = []
    for one, (area, length) in zip(found, sizes, strict=True):
        whole, around = of_part[one.part]
        rings.append(
            _Ring(one.points, one.part, min(wanted, 2 * _OF_THICKNESS * min(abs(area) / length, whole / around)))
        )
    return rings


def _area_and_length(points: np.ndarray) -> tuple[float, float]:
    """The area, negative for a hole's outline, and the length in x and in y."""
    x, y = (points - points[0]).T
    area = float(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2
    return area, float(np.abs(np.diff(points, axis=0, append=points[:1])).sum())


def _select(rings: Sequence[_Ring], most: int | None) -> None:
    """Keep the corners that stray most, until the rest strays by no more than the tolerance or there are `most`."""
    waiting: list[tuple[float, int, int, int]] = []

    def look(number: int, start: int) -> None:
        if (stray := rings[number].farthest(start)) is not None:
            heapq.heappush(waiting, (-stray[0], number, start, stray[1]))

    def take(number: int, start: int, place: int) -> None:
        rings[number].keep(place)
        look(number, start)
        look(number, place)

    for number, ring in enumerate(rings):
        for start in list(ring.kept):
            look(number, start)
    count = 2 * len(rings)
    later = []
    while waiting:  # what every outline needs comes first
        _, number, start, place = entry = heapq.heappop(waiting)
        if len(rings[number].kept) < _FEWEST:
            take(number, start, place)
            count += 1
        else:
            later.append(entry)
    for entry in later:
        heapq.heappush(waiting, entry)
    while waiting and (most is None or count < most):
        stray, number, start, place = heapq.heappop(waiting)
        ring = rings[number]
        if -stray > ring.tolerance or (len(ring.kept) < _ENOUGH and -stray > 0):
            take(number, start, place)
            count += 1


def _untangle(rings: Sequence[_Ring]) -> None:
    """Keep more corners where lines cross or touch, or have jumped over another outline; the pixels' own never do."""
    while True:
        starts, ends, owner, place = _lines(rings)
        is_new = np.array(
            [len(rings[r].chain(p)) > 2 for r, p in zip(owner.tolist(), place.tolist(), strict=True)], bool
        )
        bad = _in_conflict(starts, ends, owner, is_new)
        bad |= _jumping(rings, owner, place, is_new)
        if not bad.any():
            return
        for at in np.flatnonzero(bad).tolist():
            ring, start = rings[owner[at]], int(place[at])
            stray = ring.farthest(start)
            assert stray is not None  # it is new
            ring.keep(stray[1])


def _lines(rings: Sequence[_Ring]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Every line: its ends, the number of its ring, and the place of its first corner."""
    corners = [ring.corners() for ring in rings]
    none = np.zeros((0, 2))
    return (
        np.concatenate([none, *corners]),
        np.concatenate([none, *(np.roll(one, -1, axis=0) for one in corners)]),
        np.repeat(np.arange(len(rings)), [len(one) for one in corners]),
        np.array([place for ring in rings for place in ring.kept], np.int64),
    )


def _in_conflict(starts: np.ndarray, ends: np.ndarray, owner: np.ndarray, is_new: np.ndarray) -> np.ndarray:
    """Which new lines cross, touch or nearly touch another."""
    count = len(starts)
    bad = np.zeros(count, np.bool_)
    low, high = np.minimum(starts, ends) - _CLEARANCE, np.maximum(starts, ends) + _CLEARANCE
    new = np.flatnonzero(is_new)
    new = new[np.argsort(low[new, 0])]
    following = np.arange(count) + 1
    last = np.append(np.flatnonzero(np.diff(owner)), count - 1) if count else np.zeros(0, np.int64)
    first = np.concatenate(([0], last[:-1] + 1)) if count else last
    following[last] = first
    for at in range(0, len(new), _LINES_AT_ONCE):
        some = new[at : at + _LINES_AT_ONCE]
        near = np.flatnonzero((low[:, 0] <= high[some, 0].max()) & (high[:, 0] >= low[some, 0].min()))
        meets = ((low[some][:, None] <= high[near]) & (high[some][:, None] >= low[near])).all(-1)
        rows, columns = np.nonzero(meets)
        a, b = some[rows], near[columns]
        a, b = a[a != b], b[a != b]
        crossing = _opposite(starts[a], ends[a], starts[b], ends[b]) & _opposite(starts[b], ends[b], starts[a], ends[a])
        # Neighbours have a corner in common: they are in conflict where one folds back onto the other.
        behind, before = following[a] == b, following[b] == a
        crossing[behind] = _folds(starts[a[behind]], ends[a[behind]], ends[b[behind]])
        crossing[before] = _folds(starts[b[before]], ends[b[before]], ends[a[before]])
        bad[a[crossing]] = True
    return bad


def _opposite(a: np.ndarray, b: np.ndarray, p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Whether p and q are on both sides of the line through a and b, or nearly on it."""
    side = b - a
    clearance = _CLEARANCE * np.hypot(side[:, 0], side[:, 1])
    of_p, of_q = (side[:, 0] * (one - a)[:, 1] - side[:, 1] * (one - a)[:, 0] for one in (p, q))
    return (np.minimum(of_p, of_q) <= clearance) & (np.maximum(of_p, of_q) >= -clearance)


def _folds(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """Whether the way from a by b to c turns back onto itself."""
    there, on = b - a, c - b
    aside = np.abs(there[:, 0] * on[:, 1] - there[:, 1] * on[:, 0])
    longer = np.maximum(np.hypot(there[:, 0], there[:, 1]), np.hypot(on[:, 0], on[:, 1]))
    return ((there * on).sum(1) < 0) & (aside <= _CLEARANCE * longer)


def _jumping(rings: Sequence[_Ring], owner: np.ndarray, place: np.ndarray, is_new: np.ndarray) -> np.ndarray:
    """Which new lines leave a corner of another outline on their other side."""
    bad = np.zeros(len(owner), np.bool_)
    if len(rings) < 2:
        return bad
    one_of_each = np.array([ring.points[ring.kept[0]] for ring in rings])
    for at in np.flatnonzero(is_new).tolist():
        ring = rings[owner[at]]
        chain = ring.points[ring.chain(int(place[at]))]
        low, high = chain.min(0), chain.max(0)
        inside = ((one_of_each > low) & (one_of_each < high)).all(1)
        inside[owner[at]] = False
        if inside.any():
            shape = chain.astype(np.float32)[:, None]
            bad[at] = any(cv2.pointPolygonTest(shape, one, False) > 0 for one in one_of_each[inside].tolist())
    return bad


def _distances(points: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """From points (N, 2) to the line from a to b, its ends being ends."""
    side = b - a
    length = float(side @ side)
    share = ((points - a) @ side / length).clip(0, 1) if length else np.zeros(len(points))
    away = points - a - share[:, None] * side
    return np.hypot(away[:, 0], away[:, 1])


def one_ring(outline: np.ndarray, holes: Sequence[np.ndarray]) -> np.ndarray:
    """An outline and those of its holes as a single one, (N, 2), which does not cross or touch itself.

    A cut, as narrow as can be written, goes from the top of each hole to the next line above it.
    """
    whole, waiting = outline, list(holes)
    while waiting:
        for number, hole in sorted(enumerate(waiting), key=lambda pair: float(pair[1][:, 1].min())):
            cut = _cut(whole, hole, [other for at, other in enumerate(waiting) if at != number])
            if cut is not None:
                whole = cut
                del waiting[number]
                break
        else:
            raise AssertionError("a hole that is inside its part can be reached from above")
    return whole


def _cut(whole: np.ndarray, hole: np.ndarray, others: Sequence[np.ndarray]) -> np.ndarray | None:
    """The outline with the hole joined to it where the way up is shortest; None where other holes lie between."""
    best: tuple[float, float, float, int, int] | None = None
    for left, right in _columns([whole, hole, *others], hole):
        x = float(np.floor((left + right) / 2)) + 0.25  # between the middles of pixels
        if not left < x < right:
            x = (left + right) / 2
        low, place = min(_crossings(hole, x))
        above = [max((hit for hit in _crossings(ring, x) if hit[0] < low), default=None) for ring in (whole, *others)]
        if above[0] is None or any(hit is not None and hit > above[0] for hit in above[1:]):
            continue
        length = low - above[0][0]
        if best is None or length < best[0]:
            best = length, x, min(APART / 2, (x - left) / 2, (right - x) / 2), above[0][1], place
    if best is None:
        return None
    _, x, half, at, place = best
    down = [_on_line(whole, at, x - half), _on_line(hole, place, x - half)]  # the hole's top is walked to the left
    up = [_on_line(hole, place, x + half), _on_line(whole, at, x + half)]
    return np.concatenate((whole[: at + 1], down, np.roll(hole, -(place + 1), axis=0), up, whole[at + 1 :]))


def _columns(rings: Sequence[np.ndarray], hole: np.ndarray) -> Iterator[tuple[float, float]]:
    """Columns over the hole without a corner in them: some wide ones, and those beside its highest corner."""
    xs = np.unique(np.concatenate([ring[:, 0] for ring in rings]))
    xs = xs[(xs >= hole[:, 0].min()) & (xs <= hole[:, 0].max())]
    wide = np.flatnonzero(np.diff(xs) > 2 * APART)
    top = int(np.searchsorted(xs, hole[hole[:, 1].argmin(), 0]))
    some = wide[:: 1 + len(wide) // _MOST_COLUMNS].tolist()
    for place in dict.fromkeys([*some, top - 1, top]):
        if 0 <= place < len(xs) - 1:
            yield float(xs[place]), float(xs[place + 1])


def _crossings(ring: np.ndarray, x: float) -> list[tuple[float, int]]:
    """Where the outline crosses a column: y, and the place of the line's first corner."""
    right = ring[:, 0] > x
    places = np.flatnonzero(right != np.roll(right, -1))
    return [(float(_on_line(ring, place, x)[1]), place) for place in places.tolist()]


def _on_line(ring: np.ndarray, place: int, x: float) -> np.ndarray:
    """The point at x of the line that begins at a corner."""
    a, b = ring[place], ring[(place + 1) % len(ring)]
    return np.array([x, a[1] + (b[1] - a[1]) * (x - a[0]) / (b[0] - a[0])])
