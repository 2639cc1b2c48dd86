"""Which prompts of which requests are decoded at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Any

import numpy as np

from models.segmenter.prompt_points import token_count
from models.segmenter.protocol import DecodeRequest

# What is decoded at once: numbers of requests, each with some of its prompts.
Portion = list[tuple[int, range]]


def portions(
    requests: Sequence[DecodeRequest], kind: Callable[[int], tuple[Any, ...]], at_once: int
) -> Iterator[Portion]:
    """All prompts of all requests, at most `at_once` in a portion, in which all requests are of one kind.

    kind: of a request, by its number; kinds can be sorted. Prompts of as many tokens come together, so that few are
    filled up.
    """
    order = sorted(range(len(requests)), key=lambda r: (kind(r), token_count(requests[r].prompts)))
    for _, alike in groupby(order, key=kind):
        portion: Portion = []
        room = at_once
        for r in alike:
            start, count = 0, len(requests[r].prompts)
            while start < count:
                piece = range(start, min(count, start + room))
                portion.append((r, piece))
                start, room = piece.stop, room - len(piece)
                if not room:
                    yield portion
                    portion, room = [], at_once
        if portion:
            yield portion


def filled_up(
    portion: Portion, points: Sequence[tuple[np.ndarray, np.ndarray]]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points (P, T, 2), labels (P, T) and whether they are real (P, T), for the P prompts of a portion.

    points: by the number of the request, all its points (N, t, 2) and labels (N, t); T is the largest t.
    """
    count, longest = sum(len(piece) for _, piece in portion), max(points[r][1].shape[1] for r, _ in portion)
    xy = np.zeros((count, longest, 2), np.float32)
    labels = np.full((count, longest), -10)
    present = np.zeros((count, longest), bool)
    row = 0
    for r, piece in portion:
        its_xy, its_labels = points[r]
        filled = slice(row, row + len(piece)), slice(its_xy.shape[1])
        xy[filled] = its_xy[piece.start : piece.stop]
        labels[filled] = its_labels[piece.start : piece.stop]
        present[filled] = True
        row += len(piece)
    return xy, labels, present
