"""Learning rates as Hugging Face's names mean them, and optimisers with the arguments that were asked for."""

from __future__ import annotations

import warnings

import pytest
import torch
import transformers

from models.finetuning.learning_rates import factor
from models.finetuning.options import OptionError, TrainingOptions
from models.finetuning.schedule import Schedule, optimizer_config, schedule_config


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("warmup_linear", "linear"),
        ("warmup_cosine", "cosine"),
        ("constant", "constant"),
        ("warmup_constant", "constant_with_warmup"),
    ],
)
def test_like_hugging_face_after_the_warmup(ours: str, theirs: str) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = transformers.get_scheduler(theirs, optimizer, num_warmup_steps=5, num_training_steps=40)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the optimiser is never stepped
        for step in range(40):
            if step >= 5:
                assert factor(ours, step, 40, 5) == pytest.approx(scheduler.get_last_lr()[0], abs=1e-9)
            scheduler.step()


@pytest.mark.parametrize("kind", ["warmup_linear", "warmup_cosine", "warmup_cosine_with_restarts", "warmup_polynomial"])
def test_rises_then_ends_at_nothing(kind: str) -> None:
    rates = [factor(kind, step, 100, 10) for step in range(101)]
    assert 0 < rates[0] < rates[5] < rates[10] == 1
    assert max(rates) == 1 and rates[100] == pytest.approx(0, abs=1e-9)


def test_restarts() -> None:
    rates = [factor("warmup_cosine_with_restarts", step, 90, 0) for step in range(90)]
    assert rates[0] == rates[30] == rates[60] == 1
    assert rates[29] < 0.01


def test_schedule_steps_once_for_accumulated_batches() -> None:
    options = TrainingOptions(gradient_accumulation_step=2, warmup_steps=0, learning_rate_scheduler="warmup_linear")
    config = schedule_config(options, batches=8)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = Schedule(optimizer, **{key: value for key, value in config.items() if key != "type"})
    rates = []
    for _ in range(8):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates == [1, 1, 0.75, 0.75, 0.5, 0.5, 0.25, 0.25]


def test_optimizer() -> None:
    options = TrainingOptions(optimizer="sgd", extra_optim_args="nesterov=True; weight_decay=0.5", max_grad_norm=2)
    config = optimizer_config(options, None)
    assert config["optimizer"] == {"type": "SGD", "lr": 0.01, "momentum": 0.9, "nesterov": True, "weight_decay": 0.5}
    assert config["clip_grad"] == {"max_norm": 2.0}
    assert "clip_grad" not in optimizer_config(TrainingOptions(max_grad_norm=0), None)


def test_mixed_precision() -> None:
    config = optimizer_config(TrainingOptions(), torch.bfloat16)
    assert (config["type"], config["dtype"], config["loss_scale"]) == ("AmpOptimWrapper", "bfloat16", 1.0)
    assert "loss_scale" not in optimizer_config(TrainingOptions(), torch.float16)


def test_unknown_extra_argument() -> None:
    with pytest.raises(
        OptionError, match="extra_optim_args: adamw has no argument 'momentum', expected some of .*betas"
    ):
        optimizer_config(TrainingOptions(extra_optim_args="momentum=0.9"), None)
