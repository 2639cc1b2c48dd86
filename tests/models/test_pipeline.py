from __future__ import annotations

import numpy as np
import pytest

from models.pipeline import box_prompts
from models.types import Detections, PromptError


def found(boxes: list[list[float]]) -> Detections:
    count = len(boxes)
    scores = np.linspace(0.9, 0.3, count, dtype=np.float32)
    return Detections(
        np.array(boxes, np.float32).reshape(count, 4), scores, np.arange(count, dtype=np.int64) % 4, (480, 640)
    )


def test_every_box_becomes_one_prompt_in_the_same_frame_and_order() -> None:
    boxes = [[400.5, 10.25, 640, 480], [0, 0, 1, 1], [17.125, 3, 18, 99.75]]
    prompts = box_prompts(found(boxes))
    assert len(prompts) == 3
    assert prompts.points_xy is None and prompts.point_labels is None
    assert prompts.boxes_xyxy is not None and prompts.boxes_xyxy.dtype == np.float64
    np.testing.assert_array_equal(prompts.boxes_xyxy, boxes)


def test_nothing_found_is_nothing_to_prompt_with() -> None:
    with pytest.raises(PromptError, match=r"input_boxes: .*got \(0, 4\)"):
        box_prompts(found([]))
