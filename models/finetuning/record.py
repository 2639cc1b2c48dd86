"""The record of what a folder's training is, so that the same command goes on with it and another one does not."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.finetuning.checkpointing import LATEST, TrainingError

FILE = "training.json"


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

        Raises TrainingError where another training is there, naming what differs.
        """
        file = folder / FILE
        asked = json.loads(json.dumps(asked))
        if resume and file.is_file() and (folder / "checkpoints" / LATEST).is_file():
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
            shutil.rmtree(folder)
        record = cls(folder, asked, batch_size)
        record.save()
        return record

    def save(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        part = self.folder / (FILE + ".part")
        content = {"asked": self.asked, "batch_size": self.batch_size, "finished": self.finished}
        part.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        part.replace(self.folder / FILE)
