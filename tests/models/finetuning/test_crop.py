"""The crop: of every part that holds all boxes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.detector import mmcv_ops
from models.finetuning.crop import SafeCrop

SIZE_HW = (50, 80)
PLACES = np.arange(50 * 80 * 3).reshape(50, 80, 3)  # tells where a part is from
TWO = ((10.25, 5.0, 30.5, 20.75), (40.0, 12.0, 44.5, 33.25))


@pytest.mark.parametrize("boxes", [TWO, ((0.0, 0.0, 80.0, 50.0),), ((79.0, 49.0, 80.0, 50.0),), ()])
def test_no_box_is_cut(boxes: tuple[tuple[float, ...], ...]) -> None:
    mmcv_ops.install()
    from mmdet.structures.bbox import HorizontalBoxes

    np.random.seed(0)
    crop, parts = SafeCrop(0.6), set()
    for _ in range(200):
        tensor = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
        result = crop({"img": PLACES, "gt_bboxes": HorizontalBoxes(tensor.clone()), "img_shape": SIZE_HW})
        height, width = result["img"].shape[:2]
        assert result["img_shape"] == (height, width) and height >= 30 and width >= 48
        top, left = divmod(int(result["img"][0, 0, 0]) // 3, 80)
        found = result["gt_bboxes"].tensor
        assert torch.equal(found + torch.tensor([left, top, left, top]), tensor), "the same pixels in the part"
        assert (found >= 0).all() and (found <= torch.tensor([width, height, width, height])).all()
        parts.add((top, left, height, width))
    assert (len(parts) == 1) == (boxes == ((0.0, 0.0, 80.0, 50.0),))
    if boxes == TWO:  # up to the boxes' very edges, and to the image's
        tops, lefts, heights, widths = zip(*parts, strict=True)
        assert (min(tops), max(tops), min(lefts), max(lefts)) == (0, 5, 0, 10)
        assert (min(heights), max(heights), min(widths), max(widths)) == (30, 50, 48, 80)
