"""Keeps a training's state on disk, so that nothing is lost when it is killed at any moment.

Every file gets its name only once it is whole. A checkpoint holds weights, optimiser, schedule, random numbers, the
place in the epoch and the history; after a kill the training goes on from the last one just as it would have.
"""

from __future__ import annotations

import math
import os
import random
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dist import broadcast_object_list, is_main_process, master_only
from mmengine.hooks import Hook
from safetensors.torch import save_file

from models.finetuning.checkpoint_files import BEST, LATEST, SECONDS, OutOfTime, TrainingError, install, portable
from models.finetuning.history import History


class Checkpointing(Hook):
    """Writes `latest.pth` within epochs and after every validation, `best.safetensors` when a validation is the best,
    and `epoch_N.pth` of the last epochs; ends the training when its figures stall or its time is over.

    folder: for the files. accumulated: batches to a step of the optimiser; within such a group there is no checkpoint.
    save_steps: batches between checkpoints, None for about a minute. limit: epochs to keep, -1 for all.
    patience: validations, or None never to stop early. minutes: of this run, or None.
    """

    priority = "LOWEST"  # after the schedule has made its step

    def __init__(
        self,
        folder: Path,
        history: History,
        *,
        accumulated: int = 1,
        save_steps: int | None = None,
        limit: int = 1,
        patience: int | None = None,
        minutes: float | None = None,
    ) -> None:
        self.folder, self.history = folder, history
        self._accumulated, self._save_steps, self._limit = accumulated, save_steps, limit
        self._patience, self._minutes = patience, minutes
        self._random: dict[str, Any] | None = None
        self._began = self._saved = time.monotonic()

    def after_load_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        kept = checkpoint["history"]
        self.history.losses[:] = [(step, loss) for step, loss in kept["losses"]]
        self.history.epochs[:], self.history.pending[:] = kept["epochs"], kept["pending"]
        self._random = checkpoint["random"]

    def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        # MMEngine's own log buffers are objects, which torch refuses to load again for fear of code in them.
        checkpoint["message_hub"] = {"log_scalars": {}, "runtime_info": {}, "resumed_keys": {}}
        checkpoint["history"] = self.history.plain()
        checkpoint["random"] = _random_state()

    def before_train(self, runner: Any) -> None:
        if self._random is not None:  # at last: building and loading have drawn numbers themselves
            _set_random_state(self._random)
        if self._patience is not None and self.history.stalled(self._patience):
            runner.train_loop.stop_training = True

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: dict[str, Any] | None = None
    ) -> None:
        step = runner.iter + 1
        assert outputs is not None
        loss = float(outputs["loss"])
        if not math.isfinite(loss):
            raise TrainingError(f"the loss is {loss} at step {step}: choose a lower learning_rate or max_grad_norm")
        self.history.add_loss(step, loss, runner.max_iters)
        if step % self._accumulated:
            return
        if self._is_over():
            self._save(runner, runner.epoch, step)
            raise OutOfTime
        if self._save_steps is not None:
            due = step % (math.ceil(self._save_steps / self._accumulated) * self._accumulated) == 0
        else:
            due = time.monotonic() - self._saved > SECONDS
        if due:
            self._save(runner, runner.epoch, step)

    def after_val_epoch(self, runner: Any, metrics: dict[str, Any] | None = None) -> None:
        epoch = runner.iter / len(runner.train_dataloader)
        since = max((one["step"] for one in self.history.epochs if one["step"] < runner.iter), default=0)
        figures = {"epoch": round(epoch, 3), "step": runner.iter, "training_loss": self.history.loss_since(since)}
        if self.history.add_epoch({**figures, **(metrics or {})}):
            self._save_best(runner)
        if not runner.iter:  # of the start, from which the same command begins anyway
            return
        stop = self._patience is not None and self.history.stalled(self._patience)
        if runner.iter % self._accumulated == 0 or runner.iter == runner.max_iters or stop:
            self._save(runner, runner.epoch, runner.iter)
            if runner.iter % len(runner.train_dataloader) == 0:
                self._keep(runner.epoch)
        if stop:
            runner.train_loop.stop_training = True

    def _is_over(self) -> bool:
        """Asked of all processes at once; the main one decides, as their clocks differ."""
        if self._minutes is None:
            return False
        over = [time.monotonic() - self._began > 60 * self._minutes]
        broadcast_object_list(over)
        return over[0]

    def _save(self, runner: Any, epoch: int, step: int) -> None:
        """A checkpoint after `step` batches in all, of which those of `epoch` whole epochs are done with."""
        part = LATEST + ".part"
        runner.save_checkpoint(str(self.folder), part, meta={"epoch": epoch, "iter": step}, by_epoch=False)
        if is_main_process():
            install(self.folder / part, self.folder / LATEST)
        self._saved = time.monotonic()

    @master_only
    def _save_best(self, runner: Any) -> None:
        part = self.folder / (BEST + ".part")
        save_file(portable(getattr(runner.model, "module", runner.model)), part)
        install(part, self.folder / BEST)

    @master_only
    def _keep(self, epoch: int) -> None:
        """Give the latest checkpoint a name of its own, where links work at no cost in space, and remove those over the
        limit."""
        if self._limit == 0:
            return
        own = self.folder / f"epoch_{epoch}.pth"
        own.unlink(missing_ok=True)
        try:
            os.link(self.folder / LATEST, own)
        except OSError:  # as on FAT, and on many a network's file system
            part = self.folder / (own.name + ".part")
            shutil.copyfile(self.folder / LATEST, part)
            install(part, own)
        if self._limit > 0:
            kept = sorted(self.folder.glob("epoch_*.pth"), key=lambda path: int(path.stem.removeprefix("epoch_")))
            for path in kept[: -self._limit]:
                path.unlink()


def _random_state() -> dict[str, Any]:
    """Of every generator that a model may draw from, as values that torch loads without running anything."""
    version, words, gauss = random.getstate()
    name, keys, *rest = np.random.get_state(legacy=True)
    state: dict[str, Any] = {
        "python": (version, torch.tensor(words), gauss),
        "numpy": (name, torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest),
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def _set_random_state(state: dict[str, Any]) -> None:
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words.tolist()), gauss))
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.cpu().numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"].cpu())
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"].cpu())
