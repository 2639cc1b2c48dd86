"""The training loop of the demo weights: a model, batches without end, a budget of minutes.

It knows neither SAM nor YOLOF; it can be stopped at any time and goes on from where it was.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader, IterableDataset

from models.training_process import prepare_process

Loss = Callable[[Any, Any, int], tuple[Tensor, dict[str, Tensor]]]


def train(
    model: nn.Module,
    batches: Callable[[int], Iterator[Any]],
    loss: Loss,
    save: Callable[[nn.Module, Path], None],
    out: Path,
    minutes: float,
    lr: float,
    save_every: int = 100,
) -> None:
    """Train `model` for `minutes` of work over all runs together, and `save` its moving average to `out`.

    batches: given a seed, the batches. loss: given the model, a batch and the step, the loss and figures to show.
    The learning rate stays where it is for the first two fifths of the time, and then falls along a line. It goes
    by time, not by steps, so that the result is a finished one however fast the machine is; a training that is given
    more minutes later has lost little. The state is kept in `out`/training.pt.
    """
    prepare_process()
    out.mkdir(parents=True, exist_ok=True)
    averaged = AveragedModel(model, multi_avg_fn=_average, use_buffers=True)
    learnt = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learnt, lr=lr, betas=(0.9, 0.98), weight_decay=0.02)
    parts: dict[str, Any] = {"model": model, "averaged": averaged, "optimizer": optimizer}
    step, worked, state_file = 0, 0.0, out / "training.pt"
    if state_file.exists():
        state = torch.load(state_file, weights_only=True)
        for name, part in parts.items():
            part.load_state_dict(state[name])
        step, worked = state["step"], state["worked"]

    def keep() -> None:
        state = {name: part.state_dict() for name, part in parts.items()} | {"step": step, "worked": worked}
        torch.save(state, state_file.with_suffix(".part"))
        state_file.with_suffix(".part").replace(state_file)
        save(averaged.module, out)

    stream = batches(1000 * step)
    next(stream)  # the workers have loaded their cut-outs before the clock starts
    began = time.monotonic() - worked
    figures: dict[str, float] = {}
    while (worked := time.monotonic() - began) < 60 * minutes:
        for group in optimizer.param_groups:
            left = 1 - worked / (60 * minutes)
            group["lr"] = lr * min(1.0, (step + 1) / 100) * min(1.0, max(left / 0.6, 0.02))
        total, now = loss(model, next(stream), step)
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        nn.utils.clip_grad_norm_(learnt, 1.0)
        optimizer.step()
        averaged.update_parameters(model)
        step += 1
        for key, value in {"loss": total.detach(), **now}.items():
            figures[key] = 0.96 * figures.get(key, float(value)) + 0.04 * float(value)
        if step % 20 == 0:
            text = " ".join(f"{key} {value:.3f}" for key, value in figures.items())
            print(f"{worked / 60:.1f}/{minutes:g} min, step {step}: {text}", flush=True)
        if step % save_every == 0:
            keep()
    keep()


@torch.no_grad()
def _average(averaged: tuple[Tensor, ...] | list[Tensor], now: Any, count: Any) -> None:
    """A moving average over about 500 steps, or over the last tenth of all steps while there are fewer."""
    weight = max(0.002, 1 / (1 + 0.1 * float(count)))
    for mean, value in zip(averaged, now, strict=True):
        if mean.is_floating_point():
            mean.lerp_(value, weight)
        else:
            mean.copy_(value)


def loaded(batches: IterableDataset) -> Iterator[Any]:
    """What a dataset draws, batch by batch, in a process beside the training."""
    return iter(DataLoader(batches, batch_size=None, num_workers=1))


def argument_parser(description: str | None, minutes: float, batch: int) -> argparse.ArgumentParser:
    """The command line that both training scripts share, which is the first that they ask for."""
    prepare_process()
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("out", type=Path, help="folder to write, and to go on from")
    parser.add_argument("--start", type=Path, metavar="FOLDER", help="begin with the weights of this folder")
    parser.add_argument("--minutes", type=float, default=minutes, help="how long to train, over all runs together")
    parser.add_argument("--batch", type=int, default=batch, help="images per step")
    parser.add_argument("--lr", type=float, default=1e-3, help="highest learning rate")
    parser.add_argument("--seed", type=int, default=0)
    return parser
