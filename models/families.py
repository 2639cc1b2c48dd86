"""Families of models: which of them a folder holds, told by the folder's own files.

A family is a class in a module of its own, beside the others of its kind: MMDetection's detectors, Hugging Face's SAM.
A new one is that module and its name in the list of its kind (`models.detector.families`, `models.segmenter.families`).
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from models.model_errors import ModelFilesError

# What a model is loaded from: by a file's name the file, or its content where that is in no one file.
ModelFiles = dict[str, Path | bytes]


class Family(Protocol):
    """What a family says of folders, without loading a model. It knows its own by what lies in them."""

    @classmethod
    def find(cls, path: Path) -> Path:
        """The family's folder at `path` or a little further in.

        Raises ModelFilesError that says what was looked for and what is there.
        """
        ...

    @classmethod
    def folders_below(cls, root: Path) -> set[Path]:
        """Every folder of the family at or below `root`, however far in."""
        ...

    @classmethod
    def files(cls, path: Path) -> ModelFiles:
        """All that the model at `path` is loaded from. Raises ModelFilesError."""
        ...


FamilyT = TypeVar("FamilyT", bound=Family)


class Families(Generic[FamilyT]):
    """The families of one kind of model; their modules are imported when they are first needed."""

    def __init__(self, *places: str) -> None:
        """places: `module:Class` of each, in the order in which they are asked."""
        self._places = places

    def __iter__(self) -> Iterator[FamilyT]:
        for place in self._places:
            module, _, name = place.partition(":")
            yield getattr(import_module(module), name)

    def of(self, path: Path) -> FamilyT:
        """The first family that knows what is at `path`. Raises ModelFilesError with what each of them misses."""
        missed = []
        for family in self:
            try:
                family.find(path)
            except ModelFilesError as error:
                missed.append(str(error))
            else:
                return family
        raise ModelFilesError("; ".join(dict.fromkeys(missed)))  # families of one kind of folder say the same

    def folders_below(self, root: Path) -> set[Path]:
        """Every folder at or below `root` that holds a model of any of them."""
        return {folder for family in self for folder in family.folders_below(root)}

    def files(self, path: Path) -> ModelFiles:
        """All that the model at `path` is loaded from. Raises ModelFilesError."""
        return self.of(path).files(path)
