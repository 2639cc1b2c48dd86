"""Masks of boxes that lie outside the image."""

from __future__ import annotations

import pytest
import torch

from models.detector import mask_pasting, mmcv_ops


@pytest.mark.parametrize("box", [(-30, 2, -20, 9), (60, 2, 90, 9), (2, 50, 9, 90), (2, -30, 9, -20)])
def test_a_box_outside_has_no_pixel(box: tuple[int, ...]) -> None:
    mmcv_ops.install()
    mask_pasting.install()
    mask_pasting.install()
    from mmdet.models.roi_heads.mask_heads.fcn_mask_head import _do_paste_mask

    full, (rows, columns) = _do_paste_mask(torch.ones(1, 1, 28, 28), torch.tensor([box]).float(), 20, 40)
    assert not full.any() and full.shape[1:] == (rows.stop - rows.start, columns.stop - columns.start)
    inside, (rows, columns) = _do_paste_mask(torch.ones(1, 1, 28, 28), torch.tensor([[5.0, 5, 15, 15]]), 20, 40)
    assert (rows.start, columns.start) == (4, 4) and inside.sum() == 100
