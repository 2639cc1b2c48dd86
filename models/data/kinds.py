"""Problems of one kind together, so that ten thousand equal ones can be told in a few lines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from models.data.dataset import Problem


def by_kind(problems: Iterable[Problem]) -> list[list[Problem]]:
    """The problems that differ in no more than a number or a name together, in the order in which kinds first appear.

    What could not be read comes apart from what is only odd.
    """
    kinds: dict[tuple[bool, str], list[Problem]] = {}
    for problem in problems:
        kinds.setdefault((problem.fatal, problem.kind), []).append(problem)
    return list(kinds.values())


def shortened(problems: Iterable[Problem], most: int) -> Iterator[Problem | int]:
    """Of each kind the first `most`, and where there are more, how many more."""
    for alike in by_kind(problems):
        # In place of a line that says "and 1 more", that one.
        shown = alike if len(alike) <= most + 1 else alike[:most]
        yield from shown
        if more := len(alike) - len(shown):
            yield more
