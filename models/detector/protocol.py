"""What every detector does, whatever family it is of: three steps from an RGB image to its boxes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, Protocol, Self, TypeVar

import numpy as np
import torch

from models.families import Family
from models.types import Detections, Exemplars

ChannelOrder = Literal["bgr", "rgb"]


class Sample(Protocol):
    """One image as the network wants it, on the CPU."""

    @property
    def pixels(self) -> int:
        """How many the network will see, which is what a batch is measured by."""
        ...


class RawDetections(Protocol):
    """What the network said about one image, on the CPU, before thresholds."""

    @property
    def is_numbers(self) -> bool:
        """Whether there is no NaN in it, of which thresholds would make boxes that were simply not found."""
        ...


SampleT = TypeVar("SampleT", bound=Sample)
RawT = TypeVar("RawT", bound=RawDetections)


class Detector(Family, Protocol[SampleT, RawT]):
    """A loaded detector. `preprocess` and `postprocess` may run in any number of threads beside one `forward`.

    class_names: the name of each label. channel_order: how images reach the network. input_scale: the (long, short)
    sides in pixels that images are resized to fit, or None if they are not. takes_texts: whether it finds what it is
    asked for by texts; `class_names` is () then. takes_exemplars: whether objects in the image may show it what to
    find. has_masks: whether it finds masks with its boxes. fast: whether shortcuts are taken, with the same results but
    for rounding.
    """

    class_names: tuple[str, ...]
    channel_order: ChannelOrder
    input_scale: tuple[int, int] | None
    takes_texts: bool
    takes_exemplars: bool
    has_masks: bool
    device: torch.device
    dtype: torch.dtype
    fast: bool

    @classmethod
    def load(
        cls,
        path: str | Path,
        device: str | torch.device,
        dtype: torch.dtype,
        channel_order: ChannelOrder,
        fast: bool,
        autocast: bool,
    ) -> Self:
        """Load the detector at `path`; autocast: whether a network that is not known well may compute in `dtype` too.

        Raises ModelFilesError where the files make none.
        """
        ...

    def preprocess(self, image: np.ndarray, texts: Sequence[str] = (), exemplars: Exemplars | None = None) -> SampleT:
        """(H, W, 3) uint8 RGB -> what the network wants, on the CPU. Raises ValueError for any other array.

        texts: what to find, if the detector `takes_texts`; the labels found are then places in it. exemplars: objects
        of what the one text names, if it `takes_exemplars`. Raises TextsError for texts that it cannot read.
        """
        ...

    def forward(self, samples: Sequence[SampleT], between: Callable[[], None] | None = None) -> list[RawT]:
        """Run the network on the device; one result per sample, in order.

        between: called on the way as often as the network can, and may run other work in this thread.
        """
        ...

    def postprocess(
        self,
        raw: RawT,
        *,
        score_threshold: float | None = None,
        iou_threshold: float | None = None,
        max_detections: int | None = None,
        class_agnostic: bool = False,
        masks: bool = True,
    ) -> Detections:
        """One image's boxes, best first, on the CPU; None takes the model's own threshold.

        class_agnostic: see `models.detector.thresholds.kept`. masks: whether they are made, by a detector that
        `has_masks`.
        """
        ...
