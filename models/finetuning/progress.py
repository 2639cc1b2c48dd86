"""What one sees of a training: a bar with the loss and the time left, and a line for every validation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TextIO

from mmengine.hooks import Hook
from tqdm import tqdm

from models.finetuning.history import History

NAMES = {
    "mean_average_precision": "mAP@50",
    "coco_mean_average_precision": "COCO mAP",
    "mask_mean_average_precision": "mask mAP",
    "precision": "precision",
    "recall": "recall",
    "loss": "validation loss",
}


class Progress(Hook):
    """The bar and the lines, of the main process alone.

    say: takes the lines. stream: where the bar is drawn; None for no bar.
    """

    priority = "LOWEST"

    def __init__(self, history: History, say: Callable[[str], None], stream: TextIO | None) -> None:
        self._history, self._say, self._stream = history, say, stream
        self._bar: tqdm | None = None

    def before_train(self, runner: Any) -> None:
        if runner.iter:
            self._say(f"going on at step {runner.iter} of {runner.max_iters}, in epoch {runner.epoch + 1}")
        if self._stream is not None:
            self._bar = tqdm(
                total=runner.max_iters,
                initial=runner.iter,
                unit="step",
                file=self._stream,
                dynamic_ncols=True,
                mininterval=0.5 if self._stream.isatty() else 30.0,
            )

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        if self._bar is not None:
            self._bar.set_postfix_str(f"loss {self._history.recent_loss():.3f}", refresh=False)
            self._bar.update()

    def after_val_epoch(self, runner: Any, metrics: dict[str, Any] | None = None) -> None:
        last = self._history.epochs[-1]
        figures = [
            f"{name} {last[key]:.3f}" if last[key] is not None else f"{name} -"
            for key, name in NAMES.items()
            if key in last
        ]
        if not last["step"]:
            self._line("before the training: " + "  ".join(figures))
            return
        loss = last["training_loss"]
        line = f"epoch {last['epoch']:g}/{runner.max_epochs}: " + "  ".join(
            ([f"loss {loss:.3f}"] if loss is not None else []) + figures
        )
        self._line(line + ("  best" if self._history.best is last else ""))

    def after_train(self, runner: Any) -> None:
        self.close()

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _line(self, text: str) -> None:
        if self._bar is not None:
            self._bar.clear()
        self._say(text)
        if self._bar is not None:
            self._bar.refresh()
