"""Finds images by what other files call them."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from models.images.formats import SUFFIXES


class ByName:
    """Images by the end of their path, over as many folders as the name has."""

    def __init__(self, paths: Iterable[Path | str]) -> None:
        self._parts = [_parts(path) for path in paths]
        self._of_last: dict[str, list[int]] = defaultdict(list)
        self._of_stem: dict[str, list[int]] = defaultdict(list)
        for index, parts in enumerate(self._parts):
            last = parts[-1] if parts else ""
            self._of_last[last].append(index)
            self._of_stem[_stem(last)].append(index)

    def find(self, name: str, *, loosely: bool = False) -> list[int]:
        """The indices of the images that the name fits. loosely: also without a suffix, or with another, or case."""
        wanted = [part for part in PurePosixPath(name.replace("\\", "/")).parts if part not in ("/", "..")]
        if not wanted:
            return []
        *above, last = wanted
        found = self._among(self._of_last.get(last, ()), above)
        return found or (self._among(self._of_stem.get(_stem(last), ()), above) if loosely else [])

    def _among(self, indices: Sequence[int], above: Sequence[str]) -> list[int]:
        folders = ((index, self._parts[index][:-1]) for index in indices)
        return [index for index, parts in folders if not above or parts[-len(above) :] == above]


def _parts(path: Path | str) -> list[str]:
    return list(path.parts if isinstance(path, Path) else PurePosixPath(re.split("[?#]", path, maxsplit=1)[0]).parts)


def _stem(name: str) -> str:
    stem, suffix = os.path.splitext(name)
    return (stem if suffix.lower() in SUFFIXES else name).casefold()
