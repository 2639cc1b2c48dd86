"""Which prompts of which requests are decoded at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Any

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
