"""What one sees of a segmenter's training: bars with the time left, and a line for every validation."""

from __future__ import annotations

from collections.abc import Callable
from typing import TextIO

from tqdm import tqdm

from models.finetuning.history import History

NAMES = {"mask_iou": "mask IoU", "box_iou": "by boxes", "click_iou": "by clicks"}


class Report:
    """say: takes the lines. stream: where bars are drawn; None for none."""

    def __init__(self, say: Callable[[str], None], stream: TextIO | None) -> None:
        self.say, self._stream = say, stream
        self._bar: tqdm | None = None

    def begin(self, what: str, unit: str, total: int, done: int = 0) -> None:
        """A bar in place of the one before."""
        self.close()
        if self._stream is not None:
            self._bar = tqdm(
                desc=what,
                total=total,
                initial=done,
                unit=unit,
                file=self._stream,
                dynamic_ncols=True,
                mininterval=0.5 if self._stream.isatty() else 30.0,
            )

    def step(self, loss: float | None = None) -> None:
        if self._bar is not None:
            if loss is not None:
                self._bar.set_postfix_str(f"loss {loss:.3f}", refresh=False)
            self._bar.update()

    def validated(self, history: History, epochs: int) -> None:
        """The line of the history's last validation."""
        last = history.epochs[-1]
        told = "  ".join(f"{name} {last[key]:.3f}" for key, name in NAMES.items())
        if not last["step"]:
            self.line(f"before the training: {told}  filled boxes {last['filled_box_iou']:.3f}")
            return
        loss = "" if last["training_loss"] is None else f"loss {last['training_loss']:.3f}  "
        best = "  best" if history.best is last else ""
        self.line(f"epoch {last['epoch']:g}/{epochs}: {loss}{told}{best}")

    def line(self, text: str) -> None:
        if self._bar is not None:
            self._bar.clear()
        self.say(text)
        if self._bar is not None:
            self._bar.refresh()

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
