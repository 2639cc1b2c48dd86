"""Optimisers and learning rates by the names that Azure and Hugging Face give them, for MMEngine."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from typing import Any

import torch
from mmengine.optim.scheduler import _ParamScheduler

from models.finetuning.learning_rates import factor
from models.finetuning.options import MOST_WARMUP_STEPS, OptionError, TrainingOptions

# What MMEngine calls them: the classes of torch.optim.
_OPTIMIZERS = {
    "adamw": "AdamW",
    "adamw_hf": "AdamW",
    "adam": "Adam",
    "adamax": "Adamax",
    "sgd": "SGD",
    "rmsprop": "RMSprop",
    "adagrad": "Adagrad",
    "adafactor": "TorchAdafactor",
}


class Schedule(_ParamScheduler):
    """`factor` as MMEngine's scheduler of learning rates, in closed form, so that rounding does not add up.

    It is stepped with every batch; `accumulated` of them make a step of the optimiser.
    """

    def __init__(self, optimizer: Any, kind: str, steps: int, warmup: int, accumulated: int, end: int) -> None:
        """end: batches in all."""
        self.kind, self.steps, self.warmup, self.accumulated = kind, steps, warmup, accumulated
        super().__init__(optimizer, param_name="lr", by_epoch=False, end=end + 1)

    def _get_value(self) -> list[float]:
        share = factor(self.kind, self.last_step // self.accumulated, self.steps, self.warmup)
        return [base * share for base in self.base_values]


def schedule_config(options: TrainingOptions, batches: int) -> dict[str, Any]:
    """MMEngine's config of the schedule over so many batches."""
    accumulated = options.gradient_accumulation_step
    steps = math.ceil(batches / accumulated)
    warmup = options.warmup_steps
    if warmup is None:
        warmup = min(MOST_WARMUP_STEPS, steps // 20)
    return {
        "type": Schedule,
        "kind": options.learning_rate_scheduler,
        "steps": steps,
        "warmup": warmup,
        "accumulated": accumulated,
        "end": batches,
    }


def optimizer_config(
    options: TrainingOptions, half: torch.dtype | None, factors: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """MMEngine's config of the optimiser.

    half: what to compute in, of mixed precision; None for float32 alone. factors: by the parts of a model, how much of
    the learning rate and weight decay is theirs, as MMDetection's configs have it (`custom_keys`).

    Raises OptionError for extra arguments that the optimiser does not have.
    """
    extra = options.optimizer_arguments()
    name = _OPTIMIZERS[options.optimizer]
    known = inspect.signature(getattr(torch.optim, name.removeprefix("Torch"))).parameters
    for argument in extra:
        if argument not in known or argument == "params":
            raise OptionError(
                f"extra_optim_args: {options.optimizer} has no argument {argument!r}, expected some of "
                f"{', '.join(sorted(known.keys() - {'params'}))}"
            )
    arguments: dict[str, Any] = {"lr": options.highest_learning_rate, "weight_decay": options.weight_decay}
    if options.optimizer == "sgd":
        arguments["momentum"] = 0.9
    config: dict[str, Any] = {
        "type": "OptimWrapper",
        "optimizer": {"type": name, **arguments, **extra},
        "accumulative_counts": options.gradient_accumulation_step,
        "paramwise_cfg": {
            "norm_decay_mult": 0.0,
            "bias_decay_mult": 0.0,
            "bypass_duplicate": True,  # of layers that several levels of a head share, such as RTMDet's
            "custom_keys": dict(factors or {}),
        },
    }
    if options.max_grad_norm:
        config["clip_grad"] = {"max_norm": options.max_grad_norm}
    if half is not None:
        # bfloat16 has float32's range, so that losses need no scaling.
        scale = {"loss_scale": 1.0} if half == torch.bfloat16 else {}
        config |= {"type": "AmpOptimWrapper", "dtype": str(half).removeprefix("torch."), **scale}
    return config
