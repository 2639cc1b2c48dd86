"""What can be chosen about a training: names, meanings, ours and Azure's defaults. It imports nothing heavy."""

from __future__ import annotations

import ast
import math
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Any

OPTIMIZERS = ("adamw", "adamw_hf", "adam", "adamax", "sgd", "rmsprop", "adagrad", "adafactor")
SCHEDULERS = (
    "warmup_linear",
    "warmup_cosine",
    "warmup_cosine_with_restarts",
    "warmup_polynomial",
    "warmup_constant",
    "constant",
)
# Hugging Face's names of the same.
SCHEDULER_ALIASES = {
    "linear": "warmup_linear",
    "cosine": "warmup_cosine",
    "cosine_with_restarts": "warmup_cosine_with_restarts",
    "polynomial": "warmup_polynomial",
    "constant_with_warmup": "warmup_constant",
}
# What `models.finetuning.students` makes on a detector's backbone.
STUDENTS = ("rtmdet-ins", "mask-rcnn")
MASK_METRIC = "mask_mean_average_precision"
METRICS = (
    "mean_average_precision",
    "coco_mean_average_precision",
    MASK_METRIC,
    "precision",
    "recall",
    "loss",
)
# The highest learning rate where none is chosen: for the optimisers that scale each step themselves, and for the rest.
LEARNING_RATES = {"sgd": 0.01, "adagrad": 0.01, "adafactor": 0.01}
LEARNING_RATE = 5e-4
MOST_WARMUP_STEPS = 500

_SAME: Any = object()


class OptionError(ValueError):
    """An option with a value that it cannot have; the message says which, what is expected and what was found."""


def option(default: Any, help: str, why: str = "", azure: Any = _SAME, **more: Any) -> Any:
    """A field. azure: Azure's default where it differs. why: what speaks for ours. affects: False where it changes
    only how the training runs and not what comes out. kept: True where `by_azure` keeps ours all the same."""
    same = azure is _SAME
    metadata = {"help": help, "why": why, "azure": default if same else azure, "affects": True, "kept": same, **more}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class TrainingOptions:
    """The options of Azure's fine-tuning component by its names, with defaults that train a new head.

    None leaves a choice to the training, as the option's help says. Raises OptionError when made with a value that
    cannot be used.
    """

    number_of_epochs: int = option(
        40,
        "how often the training sees every image",
        "100 images in batches of 4 make a thousand steps in 40 epochs, in 10 only 250",
        azure=10,
        least=1,
    )
    training_batch_size: int = option(
        4, "images per step, on each device", "meant to steady the gradients; not measured", azure=2, least=1
    )
    validation_batch_size: int = option(
        4, "images at once in validation", "no figure depends on it", azure=2, least=1, affects=False
    )
    learning_rate: float | None = option(
        None,
        f"highest learning rate (default: {LEARNING_RATE:g}; {LEARNING_RATES['sgd']:g} with sgd, adagrad, adafactor)",
        "at 1e-5 a new head has hardly moved after ten epochs (measured below)",
        azure=1e-5,
        above=0,
    )
    optimizer: str = option("adamw", "what turns gradients into steps", choices=OPTIMIZERS)
    learning_rate_scheduler: str = option(
        "warmup_cosine",
        "how the learning rate runs; Hugging Face's names (cosine, linear, constant_with_warmup, ...) work too",
        choices=SCHEDULERS,
        aliases=SCHEDULER_ALIASES,
    )
    warmup_steps: int | None = option(
        None,
        f"steps in which the learning rate rises (default: a twentieth of all, at most {MOST_WARMUP_STEPS})",
        "meant to spare the trained layers a new head's first gradients; not measured",
        azure=1,
        least=0,
    )
    weight_decay: float = option(
        0.01,
        "how much weights shrink; biases and norms never do",
        "AdamW's usual value; not measured",
        azure=1.468e-5,
        least=0,
    )
    gradient_accumulation_step: int = option(1, "batches whose gradients make one step", least=1)
    max_grad_norm: float | None = option(
        10.0,
        "longest gradient; longer ones are scaled down; 0: never",
        "meant for outliers only: in our runs gradients mostly had norms of 3 to 10, all of which 1 scales down",
        azure=1.0,
        least=0,
    )
    extra_optim_args: str = option(
        "", "further arguments of the optimiser, as in 'momentum=0.5; nesterov=True'; they take precedence"
    )
    precision: str = option(
        "32", "16: mixed precision on a GPU, in bfloat16 where it computes that natively", choices=("32", "16")
    )
    image_min_size: int | None = option(
        None, "short side that images are resized to fit, in pixels (default: the detector's own)", least=32
    )
    image_max_size: int | None = option(
        None, "long side that images are resized to fit, in pixels (default: the detector's own)", least=32
    )
    apply_augmentations: bool = option(True, "flip, crop and expand training images at random")
    box_score_threshold: float | None = option(
        None,
        "score from which the trained detector keeps boxes (default: the detector's own)",
        "average precision counts low scores too, and a client can always cut higher",
        azure=0.3,
        least=0,
        most=1,
    )
    iou_threshold: float | None = option(
        None,
        "of boxes of one class that overlap more, the trained detector keeps the best (default: the detector's own)",
        "it was chosen for the detector",
        azure=0.5,
        least=0,
        most=1,
    )
    metric_for_best_model: str = option(
        "mean_average_precision", "validation figure by which the best epoch is chosen", choices=METRICS
    )
    early_stopping: bool = option(False, "stop when that figure no longer gets better")
    early_stopping_patience: int = option(
        5,
        "validations in a row without a better figure after which to stop",
        "with few validation images a figure may dip for an epoch; not measured",
        azure=1,
        least=1,
    )
    save_total_limit: int = option(
        1,
        "checkpoints of epochs to keep beside the best weights; -1: all",
        "one of YOLOF-R50 takes about 0.5 GB",
        azure=5,
        least=-1,
        affects=False,
    )
    save_steps: int | None = option(
        None,
        "steps between checkpoints within an epoch (default: about a minute)",
        "a lost minute is soon made good, whatever a step takes",
        azure=500,
        least=1,
        affects=False,
    )
    resume_from_checkpoint: bool = option(
        True,
        "go on with the unfinished training in the out folder; false: begin anew",
        "the same command again is what one types after an interruption; `--azure-defaults` keeps `true` too, or that "
        "command would delete the unfinished training",
        azure=False,
        affects=False,
        kept=True,
    )
    auto_find_batch_size: bool = option(
        True, "halve the batch while it does not fit into memory", "a smaller batch is better than none", azure=False
    )
    number_of_workers: int | None = option(
        None,
        "processes that prepare images (default: 1, with a GPU up to 4)",
        "eight would be more than many machines have processors; not measured",
        azure=8,
        least=0,
        affects=False,
    )
    random_seed: int = option(42, "seed of new weights, of the order of images and of augmentations", least=0)

    def __post_init__(self) -> None:
        for one in fields(self):
            object.__setattr__(self, one.name, checked(one, getattr(self, one.name)))
        if self.image_min_size and self.image_max_size and self.image_min_size > self.image_max_size:
            raise OptionError(
                f"image_min_size: expected at most image_max_size ({self.image_max_size}), found {self.image_min_size}"
            )
        self.optimizer_arguments()

    @classmethod
    def by_azure(cls, chosen: Mapping[str, Any]) -> TrainingOptions:
        """Azure's defaults for everything that is not chosen, but for what would delete an unfinished training."""
        azures = {one.name: one.metadata["azure"] for one in fields(cls) if not one.metadata["kept"]}
        return cls(**azures | dict(chosen))

    def optimizer_arguments(self) -> dict[str, Any]:
        """`extra_optim_args` as arguments by name."""
        found: dict[str, Any] = {}
        for part in self.extra_optim_args.strip().strip("\"'").split(";"):
            if not part.strip():
                continue
            name, equals, value = (text.strip() for text in part.partition("="))
            try:
                found[name] = ast.literal_eval(value)
            except (ValueError, SyntaxError):
                equals = ""
            if not equals or not name.isidentifier():
                raise OptionError(
                    f"extra_optim_args: expected name=value parts with ';' between them, found {part.strip()!r}"
                )
        return found

    @property
    def highest_learning_rate(self) -> float:
        """The chosen one, or what suits the optimiser."""
        return self.learning_rate or LEARNING_RATES.get(self.optimizer, LEARNING_RATE)

    def plain(self) -> dict[str, Any]:
        """By name, as JSON has it."""
        return {one.name: getattr(self, one.name) for one in fields(self)}

    def deciding(self) -> dict[str, Any]:
        """Those on which the trained weights depend."""
        return {one.name: getattr(self, one.name) for one in fields(self) if one.metadata["affects"]}


def checked(one: Field[Any], value: Any) -> Any:
    """The value as it is used. Raises OptionError."""
    limits = one.metadata
    if value is None:
        if one.default is None or one.name == "max_grad_norm":
            return None
        raise OptionError(f"{one.name}: expected a value, found none")
    kind = str(one.type).split(" |")[0]
    if kind in ("int", "float"):
        number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        if not number or (kind == "int" and value != int(value)):
            raise OptionError(
                f"{one.name}: expected {'a whole number' if kind == 'int' else 'a number'}, found {value!r}"
            )
        for name, wrong in (
            ("least", lambda limit: value < limit),
            ("above", lambda limit: value <= limit),
            ("most", lambda limit: value > limit),
        ):
            if name in limits and wrong(limits[name]):
                words = {"least": "at least", "above": "more than", "most": "at most"}
                raise OptionError(f"{one.name}: expected {words[name]} {limits[name]}, found {value!r}")
        return int(value) if kind == "int" else float(value)
    if kind == "bool" and not isinstance(value, bool):
        raise OptionError(f"{one.name}: expected true or false, found {value!r}")
    if "choices" in limits:
        value = limits.get("aliases", {}).get(str(value), str(value))
        if value not in limits["choices"]:
            raise OptionError(f"{one.name}: expected one of {', '.join(limits['choices'])}, found {value!r}")
    return value


def table() -> str:
    """Every option as rows of a Markdown table: name, our default, Azure's, meaning, and why ours differs."""
    rows = ["| option | default | Azure's | meaning | why not Azure's |", "|---|---|---|---|---|"]
    for one in fields(TrainingOptions):
        assert one.default is not MISSING
        azure = one.metadata["azure"]
        same = azure == one.default
        rows.append(
            f"| `{one.name}` | {_shown(one.default)} | {'the same' if same else _shown(azure)} "
            f"| {_with_choices(one)} | {'' if same else one.metadata['why']} |"
        )
    return "\n".join(rows)


def _with_choices(option: Field[Any]) -> str:
    choices = option.metadata.get("choices")
    return option.metadata["help"] + (f": {', '.join(f'`{one}`' for one in choices)}" if choices else "")


def _shown(value: Any) -> str:
    if value is None or value == "":
        return "-"
    return f"`{str(value).lower() if isinstance(value, bool) else f'{value:g}' if isinstance(value, float) else value}`"
