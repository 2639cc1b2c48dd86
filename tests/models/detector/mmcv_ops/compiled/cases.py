"""The calls whose answers by mmcv's compiled ops are kept in `answers.npz`. It knows mmcv and torch alone.

Every number of an input is one of float16, so that it is the same in every type and takes little space in the file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch

Tensors = dict[str, torch.Tensor]
BOTH = (torch.float32, torch.float64)
SINGLE = (torch.float32,)  # what the compiled op takes where it takes no other

# Within the image, at pixels' centres, far over its border, smaller than a pixel, at the edge, outside, thin, without
# an area.
ROIS = [
    [0, 2, 3, 20, 17], [1, 4, 4, 12, 12], [1, -8, -8, 40, 60], [0, 5, 5, 5.5, 5.25], [1, 22, 10, 37, 35],
    [0, 100, 100, 120, 130], [1, 1, 9, 27, 10], [0, 6, 3, 6, 3],
]  # fmt: skip


class Case(NamedTuple):
    """One call. inputs: made anew by the recipe. call: takes them, and returns tensors by name. differentiable: the
    inputs by which the compiled op gives gradients, of the sum of the output times `grad`, an input too."""

    inputs: Callable[[], Tensors]
    call: Callable[[Tensors], Tensors]
    dtypes: tuple[torch.dtype, ...] = BOTH
    differentiable: tuple[str, ...] = ()


def answers(case: Case, inputs: Tensors, dtype: torch.dtype) -> Tensors:
    """What the call returns, and the gradients as `by_NAME`."""
    its = {name: one.to(dtype) if one.is_floating_point() else one for name, one in inputs.items()}
    for name in case.differentiable:
        its[name].requires_grad_()
    found = case.call(its)
    if case.differentiable:
        wanted = [its[name] for name in case.differentiable]
        gradients = torch.autograd.grad(found["output"], wanted, its["grad"])
        found |= {f"by_{name}": one for name, one in zip(case.differentiable, gradients, strict=True)}
    return {name: one.detach() for name, one in found.items()}


def _numbers(*shape: int, seed: int = 0, scale: float = 1) -> torch.Tensor:
    return (torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * scale).half().float()


def _pooled(bins: tuple[int, int], *, flat: bool) -> Callable[[], Tensors]:
    """flat: with the region that has no area, of which the compiled op's largest value is -10000."""

    def make() -> Tensors:
        rois = torch.tensor(ROIS if flat else ROIS[:-1], dtype=torch.float32)
        return {"image": _numbers(2, 2, 7, 9), "rois": rois, "grad": _numbers(len(rois), 2, *bins, seed=1)}

    return make


def _roi_align(mode: str, aligned: bool, ratio: int) -> Case:
    def call(of: Tensors) -> Tensors:
        from mmcv.ops import roi_align

        return {"output": roi_align(of["image"], of["rois"], (3, 2), 0.25, ratio, mode, aligned)}

    return Case(_pooled((3, 2), flat=mode == "avg" or not aligned), call, BOTH, ("image",))


class Convolution(NamedTuple):
    """A deformable convolution's arguments."""

    stride: int = 1
    padding: int = 1
    dilation: int = 1
    groups: int = 1
    deform_groups: int = 1

    def inputs(self, modulated: bool) -> Callable[[], Tensors]:
        def make() -> Tensors:
            height, width = ((side + 2 * self.padding - 2 * self.dilation - 1) // self.stride + 1 for side in (4, 5))
            made = {
                "image": _numbers(2, 4, 4, 5),
                "weight": _numbers(4, 4 // self.groups, 3, 3, seed=1, scale=0.3),
                # of which some are whole, and some far outside
                "offset": _numbers(2, 18 * self.deform_groups, height, width, seed=2, scale=2).mul(4).round().div(4),
                "grad": _numbers(2, 4, height, width, seed=3),
            }
            if modulated:
                made["mask"] = _numbers(2, 9 * self.deform_groups, height, width, seed=4).sigmoid().half().float()
                made["bias"] = _numbers(4, seed=5)
            return made

        return make

    def case(self) -> Case:
        def call(of: Tensors) -> Tensors:
            from mmcv.ops import deform_conv2d

            return {"output": deform_conv2d(of["image"], of["offset"], of["weight"], *self)}

        return Case(self.inputs(False), call, BOTH, ("image", "offset", "weight"))

    def modulated(self) -> Case:
        def call(of: Tensors) -> Tensors:
            from mmcv.ops import modulated_deform_conv2d

            of = [of[name] for name in ("image", "offset", "mask", "weight", "bias")]
            return {"output": modulated_deform_conv2d(*of, *self)}

        return Case(self.inputs(True), call, BOTH, ("image", "offset", "mask", "weight", "bias"))


def _crowd(count: int) -> Callable[[], Tensors]:
    """Boxes in heaps, among them equal ones, touching ones and some without an area; no two scores are equal."""

    def make() -> Tensors:
        spread = torch.Generator().manual_seed(count)
        centres = torch.rand(count // 12 + 1, 2, generator=spread).mul(300).repeat(12, 1)[:count]
        centres = centres + torch.randn(count, 2, generator=spread) * 6
        sides = 20 + torch.rand(count, 2, generator=spread) * 40
        boxes = torch.cat([centres - sides / 2, centres + sides / 2], 1).mul(4).round().div(4)
        boxes[3], boxes[7, 2:], boxes[11] = boxes[2], boxes[7, :2], boxes[10]
        boxes[11, 0], boxes[11, 2] = boxes[10, 2], boxes[10, 2] + 30  # begins where the other ends
        scores = (torch.randperm(count, generator=spread) + 1) / 1024
        return {"boxes": boxes, "scores": scores}

    return make


def _nms(threshold: float, offset: int) -> Case:
    def call(of: Tensors) -> Tensors:
        from mmcv.ops import nms

        dets, kept = nms(of["boxes"], of["scores"], threshold, offset)
        return {"dets": dets, "kept": kept}

    return Case(_crowd(200), call, SINGLE)


def _soft_nms(method: str, offset: int) -> Case:
    def call(of: Tensors) -> Tensors:
        from mmcv.ops import soft_nms

        dets, kept = soft_nms(of["boxes"], of["scores"], 0.3, 0.5, 0.02, method, offset)
        return {"dets": dets, "kept": kept}

    return Case(_crowd(120), call, SINGLE)


def _nms_match(threshold: float) -> Case:
    def make() -> Tensors:
        made = _crowd(120)()
        return {"dets": torch.cat([made["boxes"], made["scores"][:, None]], 1)}

    def call(of: Tensors) -> Tensors:
        from mmcv.ops import nms_match

        groups = nms_match(of["dets"], threshold)
        return {"members": torch.cat(groups), "lengths": torch.tensor([len(group) for group in groups])}

    return Case(make, call, SINGLE)


def _overlaps(mode: str, aligned: bool, offset: int) -> Case:
    def make() -> Tensors:
        boxes = _crowd(40)()["boxes"]
        return {"first": boxes[:16], "second": boxes[1:17] if aligned else boxes[16:]}

    def call(of: Tensors) -> Tensors:
        from mmcv.ops import bbox_overlaps

        return {"output": bbox_overlaps(of["first"], of["second"], mode, aligned, offset)}

    return Case(make, call, BOTH)


def _cases() -> Iterator[tuple[str, Case]]:
    for mode in ("avg", "max"):
        for aligned in (True, False):
            for ratio in (0, 1, 2):
                name = f"roi_align, {mode}, {'aligned' if aligned else 'not aligned'}, sampling_ratio {ratio}"
                yield name, _roi_align(mode, aligned, ratio)
    for of in (
        Convolution(),
        Convolution(stride=2, padding=2, dilation=2),
        Convolution(groups=2),
        Convolution(padding=0, deform_groups=2),
        Convolution(groups=4, deform_groups=4, stride=2),
    ):
        how = ", ".join(f"{name} {value}" for name, value in of._asdict().items())
        yield f"deform_conv2d, {how}", of.case()
        yield f"modulated_deform_conv2d, {how}", of.modulated()
    for offset in (0, 1):
        for threshold in (0.3, 0.7):
            yield f"nms, {threshold}, offset {offset}", _nms(threshold, offset)
        for method in ("naive", "linear", "gaussian"):
            yield f"soft_nms, {method}, offset {offset}", _soft_nms(method, offset)
    for threshold in (0.25, 0.5):
        yield f"nms_match, {threshold}", _nms_match(threshold)
    for mode in ("iou", "iof"):
        for aligned in (True, False):
            for offset in (0, 1):
                name = f"bbox_overlaps, {mode}, {'aligned' if aligned else 'all pairs'}, offset {offset}"
                yield name, _overlaps(mode, aligned, offset)


CASES = dict(_cases())
