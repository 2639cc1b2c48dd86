"""What an MMDetection network gets, and what it says: one image's values on the CPU, before thresholds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from models.detector.instance_masks import boxes_of


@dataclass(frozen=True, eq=False)
class Sample:
    """One image as the network wants it, on the CPU.

    inputs: (3, h, w) uint8, resized, not normalised, padded only where `Places` does.
    metainfo: what MMDetection notes of the way here (`img_shape`, `scale_factor`, …).
    size_hw: the image's own size. stretch_xy: how often its columns and rows were repeated before.
    """

    inputs: torch.Tensor
    metainfo: dict[str, Any]
    size_hw: tuple[int, int]
    stretch_xy: tuple[int, int]

    @property
    def pixels(self) -> int:
        """How many the network will see, before padding."""
        return self.inputs[0].numel()


class Found(NamedTuple):
    """Objects that were selected, on the CPU: in pixels of the image as `Sample.metainfo` has its `ori_shape`.

    boxes_xyxy: (N, 4), scores: (N,), labels: (N,). masks: as `InstanceMasks` takes them; None without masks.
    """

    boxes_xyxy: torch.Tensor
    scores: torch.Tensor
    labels: torch.Tensor
    masks: torch.Tensor | None = None


@dataclass(frozen=True, eq=False)
class RawDetections:
    """What the network said about one image, on the CPU in float32, before thresholds.

    Exactly one of the two is there. head: for each output of a dense head its levels, (1, C, h, w) each, or several
    such. found: of a detector that selects on the way.
    """

    sample: Sample
    head: tuple[Any, ...] | None = None
    found: Found | None = None

    @property
    def is_numbers(self) -> bool:
        """Whether there is no NaN in it, of which thresholds would make boxes that were simply not found."""
        return not any(bool(tensor.isnan().any()) for tensor in _tensors(self.found or self.head))


def found_of(result: Any) -> Found:
    """MMDetection's `pred_instances`, on the CPU."""
    masks = result.get("masks")
    boxes = boxes_of(result.bboxes, masks)
    masks = None if masks is None else masks.cpu()
    labels = result.labels.long().cpu()  # CrowdDet's are floats
    return Found(boxes.float().cpu(), result.scores.float().cpu(), labels, masks)


def _tensors(outputs: Any) -> Iterator[torch.Tensor]:
    """All that are in lists and tuples of any depth."""
    if isinstance(outputs, torch.Tensor):
        yield outputs
    else:
        for one in outputs or ():
            yield from _tensors(one)


def mapped(outputs: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """The same lists and tuples, with each tensor changed."""
    if isinstance(outputs, torch.Tensor):
        return change(outputs)
    return type(outputs)(mapped(one, change) for one in outputs)
