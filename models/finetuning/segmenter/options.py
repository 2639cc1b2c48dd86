"""What can be chosen about a segmenter's training: names, meanings and defaults. It imports nothing heavy.

Where a choice is one of a detector's too, it has the same name: see `models.finetuning.options`.
"""

from __future__ import annotations

from dataclasses import MISSING, dataclass, fields
from typing import Any

from models.finetuning.options import checked, option

TRAINED = ("decoder", "whole-decoder", "encoder-lora")
RATES = {"decoder": 1e-3, "whole-decoder": 4e-4, "encoder-lora": 1e-4}
MASK_METRICS = ("mask_iou", "box_iou", "click_iou")


@dataclass(frozen=True)
class SegmenterOptions:
    """The options of `box2mask finetune --segmenter`. None leaves a choice to the training, as the help says.

    Raises OptionError when made with a value that cannot be used.
    """

    train: str = option(
        "decoder",
        "what learns, on embeddings that are made once: the mask decoder after its layers, or all of it and the prompt "
        "encoder, which takes three times as long; or with that small matrices beside the image encoder's attention, "
        "which takes a GPU",
        choices=TRAINED,
    )
    number_of_epochs: int | None = option(
        None,
        "how often the training sees every image (default: as often as 500 steps take, at least 10 times)",
        least=1,
    )
    training_batch_size: int = option(4, "images per step", least=1)
    objects_per_image: int = option(4, "objects of each image in a step, drawn at random", least=1)
    learning_rate: float | None = option(
        None, "highest learning rate (default: 0.001; 0.0004 with whole-decoder, 0.0001 with encoder-lora)", above=0
    )
    warmup_steps: int | None = option(
        None, "steps in which the learning rate rises (default: a twentieth of all)", least=0
    )
    weight_decay: float = option(0.01, "how much weights shrink; biases and norms never do", least=0)
    max_grad_norm: float | None = option(1.0, "longest gradient; longer ones are scaled down; 0: never", least=0)
    clicks: int = option(
        1, "clicks on errors that follow the first box or click on an object, in every third step", least=0
    )
    old_share: float = option(
        0.5, "share of the old weights in the result, which are mixed with the new ones", least=0, most=1
    )
    keep_old: float = option(
        1.0,
        "weight of staying with the segmenter's old answers to boxes and clicks anywhere in the images; 0: new masks "
        "alone count",
        least=0,
    )
    apply_augmentations: bool = option(True, "encode mirrored images and parts of images too")
    views_per_image: int = option(
        4, "embeddings of each image: the whole, its mirror image, and parts around objects", least=1
    )
    embeddings_gb: float = option(
        16.0, "most disk space for embeddings; where it is short, images get fewer", above=0, affects=False
    )
    lora_rank: int = option(8, "rank of the matrices beside the encoder's, with encoder-lora", least=1)
    encoder_on_cpu: bool = option(
        False, "train the encoder without a GPU too, where a step may take minutes", affects=False
    )
    metric_for_best_model: str = option(
        "mask_iou",
        "validation figure by which the best epoch is chosen: mean IoU of masks by boxes, by clicks, or both",
        choices=MASK_METRICS,
    )
    early_stopping: bool = option(True, "stop when that figure no longer gets better")
    early_stopping_patience: int = option(
        8, "validations in a row without a better figure after which to stop", least=1
    )
    save_steps: int | None = option(
        None, "steps between checkpoints within an epoch (default: about a minute)", least=1, affects=False
    )
    resume_from_checkpoint: bool = option(
        True, "go on with the unfinished training in the out folder; false: begin anew", affects=False
    )
    random_seed: int = option(42, "seed of the order of images, of their parts, and of prompts", least=0)

    def __post_init__(self) -> None:
        for one in fields(self):
            object.__setattr__(self, one.name, checked(one, getattr(self, one.name)))

    @property
    def highest_learning_rate(self) -> float:
        """The chosen one, or what suits what is trained."""
        return self.learning_rate or RATES[self.train]

    def plain(self) -> dict[str, Any]:
        """By name, as JSON has it."""
        return {one.name: getattr(self, one.name) for one in fields(self)}

    def deciding(self) -> dict[str, Any]:
        """Those on which the trained weights depend."""
        return {one.name: getattr(self, one.name) for one in fields(self) if one.metadata["affects"]}


def table() -> str:
    """Every option as rows of a Markdown table: name, default and meaning."""
    rows = ["| option | default | meaning |", "|---|---|---|"]
    for one in fields(SegmenterOptions):
        assert one.default is not MISSING
        default = (
            "-" if one.default is None else str(one.default).lower() if isinstance(one.default, bool) else one.default
        )
        choices = one.metadata.get("choices")
        meaning = one.metadata["help"] + (f": {', '.join(f'`{name}`' for name in choices)}" if choices else "")
        rows.append(f"| `{one.name}` | {default if default == '-' else f'`{default}`'} | {meaning} |")
    return "\n".join(rows)
