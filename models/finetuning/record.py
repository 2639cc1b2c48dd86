"""The record of what a folder's training is, so that the same command goes on with it and another one does not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.finetuning.checkpoint_files import LATEST, TrainingError

FILE = "training.json"
EMBEDDINGS = "embeddings"  # of a segmenter's training, which are work done before there is a checkpoint
_PART = FILE + ".part"


@dataclass
class Record:
    """folder: OUT/training. asked: what decides the result (options, data, weights). batch_size: the one that fits
    into memory, at most the one asked for. finished: whether all epochs are done."""

    folder: Path
    asked: dict[str, Any]
    batch_size: int
    finished: bool = False

    @classmethod
    def open(cls, folder: Path, asked: dict[str, Any], batch_size: int, resume: bool) -> Record:
        """The record that is there, or a new one where no training has got anywhere yet or it is not to be resumed.

        Raises TrainingError where another training is there, naming what differs, or where there is something else.
        """
        file = folder / FILE
        asked = json.loads(json.dumps(asked))
        begun = (folder / "checkpoints" / LATEST).is_file() or (folder / EMBEDDINGS).is_dir()
        if resume and file.is_file() and begun:
            try:
                content = json.loads(file.read_bytes())
                there = content["asked"]
                record = cls(folder, there, int(content["batch_size"]), bool(content["finished"]))
            except (ValueError, KeyError, TypeError) as error:
                raise TrainingError(f"{file} is damaged ({error!r}): choose another out folder") from error
            differences = [
                f"{key} {there.get(key)!r} there, {asked.get(key)!r} here"
                for key in sorted(there.keys() | asked.keys())
                if there.get(key) != asked.get(key)
            ]
            if differences:
                raise TrainingError(
                    f"{folder.parent} holds another training ({'; '.join(differences)}): choose another out folder, "
                    "or begin anew with --resume_from_checkpoint false"
                )
            return record
        if folder.exists():
            _check_own(folder)
            shutil.rmtree(folder)
        record = cls(folder, asked, batch_size)
        record.save()
        return record

    def save(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        part = self.folder / _PART
        content = {"asked": self.asked, "batch_size": self.batch_size, "finished": self.finished}
        part.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        part.replace(self.folder / FILE)


def check_apart(folder: Path, paths: Iterable[Path]) -> None:
    """Raises TrainingError for the first of `paths` that lies in the training's folder, which is its alone."""
    home = folder.resolve()
    for path in paths:
        if any(place.is_relative_to(home) for place in (path.resolve(), path.parent.resolve())):
            raise TrainingError(
                f"{path} lies in {folder}, where the training keeps its own files: choose another out folder"
            )


def _check_own(folder: Path) -> None:
    """Raises TrainingError unless a training made the folder, which is then removed."""
    if folder.is_dir():
        if {path.name for path in folder.iterdir()} <= {_PART}:  # nothing, or killed at its very beginning
            return
        try:
            if json.loads((folder / FILE).read_bytes()).keys() == {"asked", "batch_size", "finished"}:
                return
        except (OSError, ValueError, AttributeError):
            pass
    raise TrainingError(
        f"{folder} is there already and was not made by a training, which would replace it: choose another out folder"
    )
