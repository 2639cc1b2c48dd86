"""The ops at the sizes that detectors have, as functions to be called: the same for either build of mmcv.

It knows mmcv and torch alone, because it runs where mmcv is compiled too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch

Call = Callable[[], object]
P2 = (1, 256, 200, 304)  # of an image of 800 x 1216, a quarter of its size
MIDDLE = (1, 256, 100, 160)


class Case(NamedTuple):
    """One op. make: what to call, forward and, where training reaches it, backward. compiled: whether mmcv has it
    compiled for the CPU; if not, `make` takes what mmcv or MMDetection does there in Python."""

    name: str
    make: Callable[[], tuple[Call, Call | None]]
    repeats: int = 5


def _randn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def _boxes(count: int, largest: float = 112, width: float = 1216, height: float = 800) -> torch.Tensor:
    """(count, 4) within the image, with sides of 8 to `largest` pixels: those that an FPN takes from P2."""
    part = torch.rand(count, 4, generator=torch.Generator().manual_seed(count))
    sides = 8 + part[:, 2:] * (largest - 8)
    corners = part[:, :2] * (torch.tensor([width, height]) - sides)
    return torch.cat([corners, corners + sides], 1)


def _crowd(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Boxes as a detector gives them to NMS: thirty around each of count / 30 objects; and their scores."""
    spread = torch.Generator().manual_seed(count)
    boxes = _boxes(max(1, count // 30), 300).repeat(31, 1)[:count]
    boxes = boxes + torch.randn(boxes.shape, generator=spread) * 12
    boxes = torch.cat([boxes[:, :2], torch.maximum(boxes[:, 2:], boxes[:, :2] + 2)], 1)
    return boxes, torch.rand(count, generator=spread)


def _both(forward: Callable[[], torch.Tensor], inputs: list[torch.Tensor]) -> tuple[Call, Call]:
    """The call without gradients, and the backward pass alone, of an output that is made once."""
    for one in inputs:
        one.requires_grad_()
    state: list[torch.Tensor] = []

    def without() -> object:
        with torch.no_grad():
            return forward()

    def backward() -> object:
        if not state:
            found = forward()
            state.extend([found, torch.ones_like(found)])
        return torch.autograd.grad(state[0], inputs, state[1], retain_graph=True)

    return without, backward


def _roi_align(count: int, bins: int, ratio: int) -> tuple[Call, Call]:
    from mmcv.ops import roi_align

    image, rois = _randn(*P2), torch.cat([torch.zeros(count, 1), _boxes(count)], 1)
    return _both(lambda: roi_align(image, rois, bins, 0.25, ratio, "avg", True), [image])


def _deform_conv() -> tuple[Call, Call]:
    from mmcv.ops import deform_conv2d

    image, weight, offset = _randn(*MIDDLE), _randn(256, 256, 3, 3) / 48, _randn(1, 18, *MIDDLE[2:]) * 2
    return _both(lambda: deform_conv2d(image, offset, weight, 1, 1), [image, offset, weight])


def _modulated(groups: int = 1) -> tuple[Call, Call]:
    from mmcv.ops import modulated_deform_conv2d

    image, weight, bias = _randn(*MIDDLE), _randn(256, 256, 3, 3) / 48, _randn(256)
    offset, mask = _randn(1, 18 * groups, *MIDDLE[2:]) * 2, _randn(1, 9 * groups, *MIDDLE[2:]).sigmoid()
    return _both(
        lambda: modulated_deform_conv2d(image, offset, mask, weight, bias, 1, 1, 1, 1, groups),
        [image, offset, mask, weight, bias],
    )


def _nms(count: int) -> tuple[Call, None]:
    from mmcv.ops import nms

    boxes, scores = _crowd(count)
    return lambda: nms(boxes, scores, 0.7), None


def _soft_nms(count: int, method: str) -> tuple[Call, None]:
    from mmcv.ops import soft_nms

    boxes, scores = _crowd(count)
    return lambda: soft_nms(boxes, scores, 0.5, min_score=0.05, method=method), None


def _nms_match(count: int) -> tuple[Call, None]:
    from mmcv.ops import nms_match

    dets = torch.cat([(crowd := _crowd(count))[0], crowd[1][:, None]], 1)
    return lambda: nms_match(dets, 0.7), None


def _bbox_overlaps() -> tuple[Call, None]:
    from mmcv.ops import bbox_overlaps

    first, second = _boxes(100, 400), _boxes(20000)
    return lambda: bbox_overlaps(first, second), None


CASES = (
    Case("RoIAlign, 1000 regions of P2, 7 x 7", lambda: _roi_align(1000, 7, 0), 3),
    Case("RoIAlign, 100 regions of P2, 14 x 14", lambda: _roi_align(100, 14, 0), 3),
    Case("RoIAlign, 1000 regions of P2, 7 x 7, sampling_ratio 2", lambda: _roi_align(1000, 7, 2), 3),
    Case("deformable convolution, 256 channels, 100 x 160, 3 x 3", _deform_conv, 3),
    Case("modulated deformable convolution, the same", _modulated, 3),
    Case("the same with 4 deformable groups", lambda: _modulated(4), 3),
    Case("NMS, 2000 boxes", lambda: _nms(2000), 31),
    Case("NMS, 10000 boxes", lambda: _nms(10000), 5),
    Case("NMS, 300 boxes", lambda: _nms(300), 31),
    Case("soft-NMS linear, 2000 boxes", lambda: _soft_nms(2000, "linear"), 31),
    Case("soft-NMS gaussian, 2000 boxes", lambda: _soft_nms(2000, "gaussian"), 31),
    Case("nms_match, 2000 boxes", lambda: _nms_match(2000), 31),
    Case("bbox_overlaps, 100 x 20000 boxes", _bbox_overlaps, 31),
)
