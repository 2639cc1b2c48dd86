"""Entries by their ids, which one side of a file may write as text and the other as numbers."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from typing import Generic, TypeVar

import numpy as np

Value = TypeVar("Value")
Id = int | str


class Ids(Generic[Value]):
    """What was added, by the very id; or else by the number that the id is written of, if only one has that.

    `7`, `"7"` and `"0007"` are three ids where a file has all of them, and one where it has one of them.
    """

    def __init__(self) -> None:
        self._values: dict[Id, Value] = {}
        self._alike: dict[int, Id | None] = {}  # None: several

    def add(self, identity: Id, value: Value) -> bool:
        """False, and nothing is added, where there is one of this very id."""
        if identity in self._values:
            return False
        self._values[identity] = value
        if (known := _number(identity)) is not None:
            self._alike[known] = None if known in self._alike else identity
        return True

    def remove(self, identity: Id) -> None:
        """Takes away what has this very id."""
        del self._values[identity]
        if (known := _number(identity)) is not None and self._alike.get(known) == identity:
            del self._alike[known]

    def get(self, identity: Id) -> Value | None:
        """What the id means here; None where it means nothing, or may mean several."""
        found = self._values.get(identity)
        if found is None and identity not in self._values and (known := _number(identity)) is not None:
            alike = self._alike.get(known)
            return None if alike is None else self._values[alike]
        return found

    def __contains__(self, identity: Id) -> bool:
        """Whether it is there under this very id."""
        return identity in self._values

    def values(self) -> Iterable[Value]:
        """All that was added, in order."""
        return self._values.values()


class IdsSeen:
    """The ids of a million annotations, in eight bytes each."""

    def __init__(self) -> None:
        self._numbers = array("q")
        self._indices = array("q")
        self._others: dict[Id, list[int]] = {}

    def add(self, identity: Id, index: int) -> None:
        """Takes the id of the annotation of this index."""
        if type(identity) is int and -(2**63) <= identity < 2**63:
            self._numbers.append(identity)
            self._indices.append(index)
        else:
            self._others.setdefault(identity, []).append(index)

    def again(self) -> set[int]:
        """The indices of those whose id an earlier one has."""
        order = np.argsort(numbers := np.array(self._numbers), kind="stable")
        repeated = order[1:][np.diff(numbers[order]) == 0]
        indices = np.array(self._indices)[repeated].tolist()
        return set(indices).union(*(its[1:] for its in self._others.values()))


def _number(identity: Id) -> int | None:
    if isinstance(identity, int):
        return identity
    whole = identity.strip().removesuffix(".0")
    return int(whole) if whole.isdecimal() and len(whole) <= 20 else None
