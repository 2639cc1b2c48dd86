"""The ops of a few detectors each: beside their definitions, written as loops, or other ops that they become."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F

from models.detector.mmcv_ops import border_align, carafe, deform_roi_pool, install, sampling

pytestmark = pytest.mark.filterwarnings("ignore")  # mmdet's and mmcv's own, on import
install()

ROIS = torch.tensor([[0, 2, 3, 20, 17], [1, -8, -8, 40, 60], [0, 5, 5, 5.5, 5.2], [1, 100, 100, 120, 130]]).double()


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_roi_pool():
    from mmcv.ops import roi_pool

    images = numbers(2, 2, 9, 12)
    found = roi_pool(images, ROIS, (3, 2), 0.25)
    for roi, pooled in zip(ROIS.tolist(), found, strict=True):
        x1, y1, x2, y2 = roi[1] / 4, roi[2] / 4, (roi[3] + 1) / 4, (roi[4] + 1) / 4
        for down, over in itertools.product(range(3), range(2)):
            top, bottom = ((at * (y2 - y1) / 3 + y1) for at in (down, down + 1))
            left, right = ((at * (x2 - x1) / 2 + x1) for at in (over, over + 1))
            rows = [y for y in range(9) if top // 1 <= y < -(-bottom // 1)]
            columns = [x for x in range(12) if left // 1 <= x < -(-right // 1)]
            area = images[int(roi[0])][:, rows][:, :, columns].flatten(1)
            expected = area.max(1).values if area.numel() else torch.zeros(2, dtype=area.dtype)
            assert torch.equal(pooled[:, down, over], expected)
    assert torch.autograd.gradcheck(lambda one: roi_pool(one, ROIS, (3, 2), 0.25), (images.requires_grad_(),))
    assert roi_pool(images, ROIS[:0], (3, 2)).shape == (0, 2, 3, 2)


@pytest.mark.parametrize("ratio", [0, 2])
def test_deformable_roi_pooling_without_offsets_is_roi_align(ratio):
    from mmcv.ops import deform_roi_pool as op
    from mmcv.ops import roi_align

    images = numbers(2, 3, 9, 12)
    expected = roi_align(images, ROIS, (3, 2), 0.25, ratio)
    torch.testing.assert_close(op(images, ROIS, None, (3, 2), 0.25, ratio), expected)
    torch.testing.assert_close(op(images, ROIS, numbers(4, 2, 3, 2) * 0, (3, 2), 0.25, ratio), expected)


def test_offsets_move_the_bins_of_deformable_roi_pooling(monkeypatch):
    from mmcv.ops import deform_roi_pool as op
    from mmcv.ops import roi_align

    images, offset = numbers(2, 3, 9, 12), torch.zeros(4, 2, 3, 2, dtype=torch.float64)
    offset[:, 0], offset[:, 1] = 0.3, -0.2  # of a tenth of the width and the height
    moved = ROIS.clone()
    moved[:, [1, 3]] += 0.03 * (ROIS[:, 3] - ROIS[:, 1])[:, None]
    moved[:, [2, 4]] -= 0.02 * (ROIS[:, 4] - ROIS[:, 2])[:, None]
    found = op(images, ROIS, offset, (3, 2), 0.25, 2, 0.1)
    torch.testing.assert_close(found, roi_align(images, moved, (3, 2), 0.25, 2))
    offset = numbers(4, 2, 3, 2).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda *of: op(of[0], ROIS, of[1], (3, 2), 0.25, 2), (images[:, :1].clone().requires_grad_(), offset)
    )
    whole = op(images, ROIS, offset, (3, 2), 0.25, 2)
    monkeypatch.setattr(deform_roi_pool, "weighted_rows", sampling.plain_weighted_rows)
    torch.testing.assert_close(op(images, ROIS, offset, (3, 2), 0.25, 2), whole)


def test_carafe(monkeypatch):
    from mmcv.ops import carafe as op
    from mmcv.ops import carafe_naive

    features, masks = numbers(2, 4, 3, 5), numbers(2, 2 * 9, 6, 10, seed=1)
    expected = torch.zeros(2, 4, 6, 10, dtype=features.dtype)
    padded = F.pad(features, (1, 1, 1, 1))
    for channel, y, x in itertools.product(range(4), range(6), range(10)):
        kernel = masks[:, channel // 2 * 9 : channel // 2 * 9 + 9, y, x].view(2, 3, 3)
        around = padded[:, channel, y // 2 : y // 2 + 3, x // 2 : x // 2 + 3]
        expected[:, channel, y, x] = (kernel * around).sum((1, 2))
    torch.testing.assert_close(op(features, masks, 3, 2, 2), expected)
    torch.testing.assert_close(carafe_naive(features, masks, 3, 2, 2), expected)
    monkeypatch.setattr(carafe, "AT_ONCE", 100)  # a row at a time
    torch.testing.assert_close(op(features, masks, 3, 2, 2), expected)
    small = features[:, :2, :2, :2].clone().requires_grad_(), masks[:, :, :4, :4].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda *of: op(*of, 3, 2, 2), small)


def test_a_masked_convolution_is_one_where_the_mask_is():
    from mmcv.ops import MaskedConv2d

    torch.manual_seed(0)
    layer, image = MaskedConv2d(3, 4, 3, padding=1), torch.randn(1, 3, 6, 7)
    mask = (torch.rand(1, 6, 7) > 0.5).float()
    with torch.no_grad():
        found = layer(image, mask)
        torch.testing.assert_close(found, F.conv2d(image, layer.weight, layer.bias, padding=1) * mask[:, None])
        assert not layer(image, mask * 0).any()


def test_border_align(monkeypatch):
    from mmcv.ops import border_align as op

    features = numbers(2, 8, 6, 7)
    boxes = torch.tensor([[[1.0, 0, 4, 3], [0, 2, 2, 5]], [[2, 2, 2, 2], [-9, -9, -5, -5]]]).double()
    found = op(features, boxes, 3)  # three steps: here from pixel to pixel
    assert found.shape == (2, 2, 2, 4)
    torch.testing.assert_close(found[0, :, 0, 0], features[0, 0:2, 0, 1:5].max(1).values)  # top
    torch.testing.assert_close(found[0, :, 0, 1], features[0, 2:4, 0:4, 1].max(1).values)  # left
    torch.testing.assert_close(found[0, :, 0, 2], features[0, 4:6, 3, 1:5].max(1).values)  # bottom
    torch.testing.assert_close(found[0, :, 0, 3], features[0, 6:8, 0:4, 4].max(1).values)  # right
    torch.testing.assert_close(found[1, :, 0], features[1].view(4, 2, 6, 7)[:, :, 2, 2].T)
    assert not found[1, :, 1].any()
    assert torch.autograd.gradcheck(lambda one: op(one, boxes + 0.3, 3), (features.requires_grad_(),))
    monkeypatch.setattr(border_align, "AT_ONCE", 1)
    assert torch.equal(op(features, boxes, 3), found)
