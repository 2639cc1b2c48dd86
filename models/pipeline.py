"""The walk from boxes to masks: what a detector found, as prompts for a segmenter."""

from __future__ import annotations

import numpy as np

from models.types import Detections, Prompts


def box_prompts(found: Detections) -> Prompts:
    """One box prompt per detection, in the same order; both speak of absolute pixels of the same image.

    Raises PromptError where nothing was found: there is nothing to prompt with.
    """
    return Prompts(boxes_xyxy=found.boxes_xyxy.astype(np.float64))
