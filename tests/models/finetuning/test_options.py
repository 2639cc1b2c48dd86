"""Options: checked when made, Azure's on demand, each of them in the docs."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from models.finetuning.options import LEARNING_RATE, OptionError, TrainingOptions, table

# As the issue of this feature and Azure's component spell them.
AZURE_NAMES = {
    "number_of_epochs",
    "training_batch_size",
    "learning_rate",
    "optimizer",
    "learning_rate_scheduler",
    "warmup_steps",
    "weight_decay",
    "gradient_accumulation_step",
    "precision",
    "image_min_size",
    "image_max_size",
    "box_score_threshold",
    "iou_threshold",
    "early_stopping",
    "early_stopping_patience",
    "save_total_limit",
    "random_seed",
    "auto_find_batch_size",
    "resume_from_checkpoint",
    "metric_for_best_model",
    "max_grad_norm",
    "extra_optim_args",
}


def test_every_option_of_azure_is_there() -> None:
    assert {one.name for one in dataclasses.fields(TrainingOptions)} >= AZURE_NAMES


def test_azure_defaults() -> None:
    options = TrainingOptions.by_azure({"random_seed": 7})
    assert (options.number_of_epochs, options.training_batch_size, options.learning_rate) == (10, 2, 1e-5)
    assert (options.optimizer, options.learning_rate_scheduler, options.warmup_steps) == ("adamw", "warmup_cosine", 1)
    assert (options.weight_decay, options.max_grad_norm) == (1.468e-5, 1.0)
    assert (options.box_score_threshold, options.iou_threshold, options.random_seed) == (0.3, 0.5, 7)
    assert options.resume_from_checkpoint, "or the same command again would delete what it has trained"


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("number_of_epochs", 0, "number_of_epochs: expected at least 1, found 0"),
        ("number_of_epochs", 1.5, "number_of_epochs: expected a whole number, found 1.5"),
        ("learning_rate", 0.0, "learning_rate: expected more than 0, found 0.0"),
        ("learning_rate", float("nan"), "learning_rate: expected a number, found nan"),
        ("iou_threshold", 1.5, "iou_threshold: expected at most 1, found 1.5"),
        ("optimizer", "lion", "optimizer: expected one of adamw, .*, found 'lion'"),
        ("early_stopping", "yes", "early_stopping: expected true or false, found 'yes'"),
        ("extra_optim_args", "momentum", "extra_optim_args: expected name=value parts .*, found 'momentum'"),
        ("extra_optim_args", "lr=import os", "extra_optim_args: .*found 'lr=import os'"),
        ("precision", "8", "precision: expected one of 32, 16, found '8'"),
    ],
)
def test_bad_values_are_refused(name: str, value: object, expected: str) -> None:
    with pytest.raises(OptionError, match=f"^{expected}"):
        TrainingOptions(**{name: value})


def test_sizes_must_fit_each_other() -> None:
    with pytest.raises(OptionError, match="image_min_size: expected at most image_max_size"):
        TrainingOptions(image_min_size=800, image_max_size=600)


def test_names_of_hugging_face_and_numbers_for_precision() -> None:
    assert TrainingOptions(learning_rate_scheduler="cosine").learning_rate_scheduler == "warmup_cosine"
    assert TrainingOptions(precision=16).precision == "16"


def test_learning_rate_follows_the_optimizer() -> None:
    assert TrainingOptions().highest_learning_rate == LEARNING_RATE
    assert TrainingOptions(optimizer="sgd").highest_learning_rate == 0.01
    assert TrainingOptions(optimizer="sgd", learning_rate=0.1).highest_learning_rate == 0.1


def test_extra_arguments() -> None:
    assert TrainingOptions(extra_optim_args='"momentum=0.5; nesterov=True"').optimizer_arguments() == {
        "momentum": 0.5,
        "nesterov": True,
    }


def test_every_default_is_documented() -> None:
    document = Path(__file__).parents[3] / "docs" / "finetuning.md"
    assert table() in document.read_text(encoding="utf-8"), "replace the table by options.table()"
