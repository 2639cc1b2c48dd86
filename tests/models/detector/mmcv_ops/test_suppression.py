"""Non-maximum suppression in all its forms, beside the textbook's loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.detector.mmcv_ops import suppression, using

pytestmark = pytest.mark.filterwarnings("ignore")  # mmdet's and mmcv's own, on import


def greedy_nms(boxes: torch.Tensor, scores: torch.Tensor, threshold: float, offset: int) -> list[int]:
    """The textbook loop, in numpy's float32: take the best box left, drop what overlaps it."""
    x1, y1, x2, y2 = boxes.numpy().T
    areas = (x2 - x1 + np.float32(offset)) * (y2 - y1 + np.float32(offset))
    left = sorted(range(len(boxes)), key=lambda i: -scores[i].item())  # stable
    kept: list[int] = []
    while left:
        best = left.pop(0)
        kept.append(best)
        others = np.array(left, dtype=int)
        width = np.minimum(x2[best], x2[others]) - np.maximum(x1[best], x1[others]) + np.float32(offset)
        height = np.minimum(y2[best], y2[others]) - np.maximum(y1[best], y1[others]) + np.float32(offset)
        intersection = np.where((width > 0) & (height > 0), width * height, np.float32(0))
        with np.errstate(invalid="ignore"):
            iou = intersection / (areas[best] + areas[others] - intersection)
        left = [other for other, value in zip(left, iou, strict=True) if not value > np.float32(threshold)]
    return kept


def random_boxes(count: int, extent: float, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Boxes on a half-pixel grid (many touch, some coincide) with scores of which many are equal."""
    generator = torch.Generator().manual_seed(seed)
    corners = (torch.rand(count, 2, generator=generator) * extent * 2).round() / 2
    sides = (torch.rand(count, 2, generator=generator) * 60).round() / 2
    return torch.cat([corners, corners + sides], 1), torch.rand(count, generator=generator).mul(200).round() / 200


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("threshold", [0.1, 0.5])
def test_nms_equals_the_greedy_loop(threshold: float, offset: int) -> None:
    boxes, scores = random_boxes(1200, extent=300)
    kept = suppression.nms(boxes, scores, threshold, offset)
    assert kept.dtype == torch.int64
    assert kept.tolist() == greedy_nms(boxes, scores, threshold, offset)
    assert 50 < len(kept) < 1150


def test_nms_does_not_depend_on_the_size_of_its_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    boxes, scores = random_boxes(2500, extent=200)
    whole = suppression.nms(boxes, scores, 0.3)
    monkeypatch.setattr(suppression, "BLOCK", 37)
    assert torch.equal(suppression.nms(boxes, scores, 0.3), whole)


def test_nms_settles_a_chain_in_which_every_second_box_survives() -> None:
    starts = torch.arange(400.0)[:, None]
    boxes = torch.cat([starts, torch.zeros(400, 1), starts + 2, torch.ones(400, 1)], 1)  # neighbours: IoU 1/3
    kept = suppression.nms(boxes, torch.linspace(1, 0, 400), 0.2)
    assert kept.tolist() == list(range(0, 400, 2))


def test_nms_keeps_touching_boxes_and_an_iou_that_equals_the_threshold() -> None:
    boxes = torch.tensor([[0.0, 0, 2, 2], [2, 0, 4, 2], [0, 0, 2, 1]])  # IoU of the first and the last: 0.5
    scores = torch.tensor([0.9, 0.9, 0.8])
    assert suppression.nms(boxes, scores, 0.5).tolist() == [0, 1, 2]
    assert suppression.nms(boxes, scores, 0.499).tolist() == [0, 1]
    assert suppression.nms(boxes, scores, 0.0).tolist() == [0, 1]
    assert suppression.nms(boxes, scores, 0.0, offset=1).tolist() == [0]  # there, sharing an edge is overlapping


def test_nms_takes_no_boxes_empty_boxes_and_half_precision() -> None:
    assert suppression.nms(torch.zeros(0, 4), torch.zeros(0), 0.5).tolist() == []
    assert suppression.nms(torch.ones(3, 4), torch.tensor([0.1, 0.3, 0.2]), 0.5).tolist() == [1, 2, 0]
    same = torch.tensor([[300.0, 300, 400, 400]] * 2, dtype=torch.bfloat16)
    assert suppression.nms(same, torch.tensor([0.5, 0.6]), 0.9).tolist() == [1]


def test_mmcv_calls_it_per_class() -> None:
    from mmcv.ops import batched_nms

    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 10]])
    scores, labels = torch.tensor([0.5, 0.9, 0.8]), torch.tensor([0, 0, 1])
    dets, kept = batched_nms(boxes, scores, labels, {"type": "nms", "iou_threshold": 0.6})
    assert kept.tolist() == [1, 2]
    assert torch.equal(dets, torch.cat([boxes[kept], scores[kept, None]], 1))


def soft_loop(boxes: np.ndarray, scores: np.ndarray, threshold: float, sigma: float, least: float, method: str) -> list:
    """Soft-NMS as its paper has it: (index, score), best first."""
    left, kept = dict(enumerate(scores)), []
    while left:
        best = max(left, key=left.__getitem__)
        kept.append((best, left.pop(best)))
        for other in list(left):
            value = iou(boxes[best], boxes[other])
            if method == "gaussian":
                left[other] *= np.exp(-(value**2) / sigma)
            elif value >= threshold:
                left[other] *= 0 if method == "naive" else 1 - value
            if left[other] < least:
                del left[other]
    return kept


def iou(one: np.ndarray, other: np.ndarray) -> float:
    width = max(0, min(one[2], other[2]) - max(one[0], other[0]))
    height = max(0, min(one[3], other[3]) - max(one[1], other[1]))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return width * height / (sum(areas) - width * height)


@pytest.mark.parametrize("method", ["naive", "linear", "gaussian"])
def test_soft_nms_equals_the_loop(method: str) -> None:
    from mmcv.ops import soft_nms

    generator = torch.Generator().manual_seed(1)
    corners = torch.rand(80, 2, generator=generator) * 60
    boxes = torch.cat([corners, corners + 5 + torch.rand(80, 2, generator=generator) * 40], 1)
    scores = torch.rand(80, generator=generator)
    dets, kept = soft_nms(boxes, scores, 0.3, sigma=0.5, min_score=0.05, method=method)
    expected = soft_loop(boxes.double().numpy(), scores.double().numpy(), 0.3, 0.5, 0.05, method)
    assert kept.tolist() == [index for index, _ in expected] and 10 < len(expected) < 80
    assert torch.equal(dets[:, :4], boxes[kept])
    np.testing.assert_allclose(dets[:, 4], [score for _, score in expected], rtol=1e-5)
    assert soft_nms(boxes[:0], scores[:0])[1].tolist() == []


def test_nms_match_says_who_suppressed_whom() -> None:
    from mmcv.ops import nms_match

    boxes = torch.tensor([[0.0, 0, 10, 10], [20, 0, 30, 10], [0, 0, 10, 8], [1, 0, 11, 10], [20, 0, 30, 5]])
    dets = torch.cat([boxes, torch.tensor([[0.9], [0.5], [0.7], [0.8], [0.4]])], 1)
    assert [group.tolist() for group in nms_match(dets, 0.5)] == [[0, 3, 2], [1, 4]]  # an IoU of 0.5 is enough


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("mode", ["iou", "iof"])
def test_bbox_overlaps(mode: str, offset: int) -> None:
    from mmcv.ops import bbox_overlaps

    one, other = torch.tensor([[0.0, 0, 9, 9], [5, 5, 14, 9]]), torch.tensor([[0.0, 0, 9, 4], [100, 100, 110, 110]])
    found = bbox_overlaps(one, other, mode, offset=offset)
    side = 9 + offset
    first = (side * (4 + offset)) / (side * side)
    assert found[0].tolist() == pytest.approx([first, 0])
    assert found[1, 1] == 0 and found.shape == (2, 2)
    assert torch.equal(bbox_overlaps(one, other, mode, aligned=True, offset=offset), found.diagonal())


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("count", [1, 90, 700])
def test_the_forms_on_the_cpu_equal_their_plain_twins(count: int, offset: int) -> None:
    boxes, _ = random_boxes(count, extent=150)
    scores = (
        torch.randperm(count, generator=torch.Generator().manual_seed(3)).div(2 * count).mul(64).ceil() / 64
    )  # ties
    dets = torch.cat([boxes, scores[:, None]], 1)

    def found() -> tuple[list[object], list[torch.Tensor]]:
        exact: list[object] = [
            suppression.nms(boxes, scores, threshold, offset).tolist() for threshold in (0.0, 0.3, 0.7)
        ]
        exact += [suppression.nms_match(dets, threshold) for threshold in (0.3, 0.5)]
        near = []
        for method in (suppression.NAIVE, suppression.LINEAR, suppression.GAUSSIAN):
            near.append(torch.zeros(count, 5))
            exact.append(suppression.softnms(boxes, scores, near[-1], 0.3, 0.5, 0.01, method, offset).tolist())
        return exact, near

    with using(fast=False):
        plain, plain_dets = found()
    fast, fast_dets = found()
    assert fast == plain
    torch.testing.assert_close(fast_dets, plain_dets)
