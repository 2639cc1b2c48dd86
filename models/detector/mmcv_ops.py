"""The compiled mmcv ops that YOLOF needs, in plain torch, for an mmcv that has none compiled (`mmcv-lite`).

`install()` makes this module's stand-in importable as `mmcv._ext`; call it before mmdet is imported.
It knows nothing of detectors or files.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import sys
from collections.abc import Callable
from types import ModuleType

import torch
import torch.nn.functional as F

EXTENSION = "mmcv._ext"
BLOCK = 256  # boxes that are compared with each other at a time: bounds NMS's memory to a few BLOCK x BLOCK arrays


class MissingOpError(RuntimeError):
    """A model called a compiled mmcv op that has no replacement here."""

    def __init__(self, op: str) -> None:
        super().__init__(
            f"this model needs mmcv's compiled op '{op}', which mmcv-lite does not have: "
            "install the full 'mmcv' package in its place (it compiles for ten minutes or more)"
        )
        self.op = op


def install() -> bool:
    """Provide `mmcv._ext` where mmcv has none compiled; return whether the stand-in is in use.

    A compiled extension is left as it is. One that exists but cannot be loaded (built for another
    torch, say) raises its own ImportError: hiding it would hide why an op is missing.
    """
    try:
        extension = importlib.import_module(EXTENSION)
    except ModuleNotFoundError as error:
        if error.name != EXTENSION:
            raise
        extension = sys.modules[EXTENSION] = _StandIn()
    return isinstance(extension, _StandIn)


def nms(boxes: torch.Tensor, scores: torch.Tensor, iou_threshold: float, offset: int = 0) -> torch.Tensor:
    """Greedy non-maximum suppression, with the very result of mmcv's compiled op.

    boxes: (N, 4) as x1, y1, x2, y2, where a side is `x2 - x1 + offset` long. scores: (N,).
    Returns (K,) int64 indices of the kept boxes, best score first, equal scores in their given order.
    A box goes when its IoU with a kept box before it is strictly above the threshold.

    Greedy suppression is the fixed point of `keep[i] = no kept box before i overlaps i`. Starting from
    all kept, each round settles at least one more box from the front, so it ends after at most N
    rounds, and on real detections after a handful. Blocks in score order bound the memory.
    """
    order = scores.sort(descending=True, stable=True).indices
    ranked = _widened(boxes[order])
    kept: list[torch.Tensor] = []  # ranks, one tensor per block
    for start in range(0, len(ranked), BLOCK):
        block = ranked[start : start + BLOCK]  # (B, 4)
        free = block.new_ones(len(block), dtype=torch.bool)
        for earlier in kept:
            free &= ~_overlaps(block, ranked[earlier], iou_threshold, offset).any(dim=1)
        rivals = _overlaps(block, block, iou_threshold, offset).tril(diagonal=-1)  # (B, B): column outranks row
        keep = free
        while True:
            settled = free & ~(rivals & keep).any(dim=1)
            if torch.equal(settled, keep):
                break
            keep = settled
        kept.append(start + keep.nonzero().squeeze(1))
    return order[torch.cat(kept)] if kept else order


def _overlaps(a: torch.Tensor, b: torch.Tensor, iou_threshold: float, offset: int) -> torch.Tensor:
    """(A, 4) and (B, 4) -> (A, B) bool: IoU above the threshold, rounded as mmcv's C++ rounds it."""
    a_x1, a_y1, a_x2, a_y2 = a[:, None].unbind(-1)  # (A, 1) each
    b_x1, b_y1, b_x2, b_y2 = b[None].unbind(-1)  # (1, B) each
    width = (torch.minimum(a_x2, b_x2) - torch.maximum(a_x1, b_x1) + offset).clamp(min=0)
    height = (torch.minimum(a_y2, b_y2) - torch.maximum(a_y1, b_y1) + offset).clamp(min=0)
    intersection = width * height
    a_area = (a_x2 - a_x1 + offset) * (a_y2 - a_y1 + offset)
    b_area = (b_x2 - b_x1 + offset) * (b_y2 - b_y1 + offset)
    # Two empty boxes give 0 / 0 = NaN, which is not above anything: they do not suppress each other.
    return intersection / (a_area + b_area - intersection) > iou_threshold


def sigmoid_focal_loss_forward(
    input: torch.Tensor,
    target: torch.Tensor,
    weight: torch.Tensor,
    output: torch.Tensor,
    gamma: float,
    alpha: float,
) -> None:
    """Write the focal loss of every logit into `output`.

    input, output: (N, C) logits and losses. target: (N,) int64 in 0..C, where C is the background.
    weight: (C,) factors by target class, or empty for none.
    Formula: -a (1 - p)^gamma log(p) with p the probability of the truth and a = alpha for the target
    class, 1 - alpha for the others (Lin et al., "Focal Loss for Dense Object Detection", eq. 5). The
    logarithm is taken of the logit, so it stays exact where a sigmoid would round to 0 or 1.
    """
    truth, balance = _truth(input, target, weight, alpha)
    logits = truth * _widened(input)  # p = sigmoid(logits)
    output.copy_(-balance * torch.sigmoid(-logits) ** gamma * F.logsigmoid(logits))


def sigmoid_focal_loss_backward(
    input: torch.Tensor,
    target: torch.Tensor,
    weight: torch.Tensor,
    grad_input: torch.Tensor,
    gamma: float,
    alpha: float,
) -> None:
    """Write the derivative of `sigmoid_focal_loss_forward`'s loss by each logit into `grad_input` (N, C)."""
    truth, balance = _truth(input, target, weight, alpha)
    logits = truth * _widened(input)
    p, q = torch.sigmoid(logits), torch.sigmoid(-logits)
    grad_input.copy_(truth * balance * q**gamma * (gamma * p * F.logsigmoid(logits) - q))


def _truth(
    input: torch.Tensor, target: torch.Tensor, weight: torch.Tensor, alpha: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """(N, C) each: the sign of each logit's truth, +1 at the target class and -1 elsewhere, and its factor."""
    is_target = target[:, None] == torch.arange(input.shape[1], device=input.device)
    truth = is_target.to(_widened(input).dtype) * 2 - 1
    balance = torch.where(is_target, alpha, 1 - alpha).to(truth)
    if weight.numel():
        balance = balance * weight.to(truth)[target][:, None]
    return truth, balance


def _widened(tensor: torch.Tensor) -> torch.Tensor:
    """Half precision as float32: too coarse to compare IoUs or sum losses in; anything else as it is."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def _version() -> str:
    return "not compiled"


_OPS: dict[str, Callable[..., object]] = {
    "nms": nms,
    "sigmoid_focal_loss_forward": sigmoid_focal_loss_forward,
    "sigmoid_focal_loss_backward": sigmoid_focal_loss_backward,
    "get_compiler_version": _version,
    "get_compiling_cuda_version": _version,
}


class _StandIn(ModuleType):
    """`mmcv._ext` with the ops above; any other name is a function that raises MissingOpError.

    mmcv asserts at import that every op's name exists, so a missing op can only fail when called.
    """

    def __init__(self) -> None:
        super().__init__(EXTENSION, "mmcv's compiled ops, in plain torch.")
        self.__spec__ = importlib.machinery.ModuleSpec(EXTENSION, loader=None, origin=__file__)  # mmengine asks for it
        self.__dict__.update(_OPS)

    def __getattr__(self, name: str) -> Callable[..., object]:
        if name.startswith("__"):
            raise AttributeError(f"module '{EXTENSION}' has no attribute '{name}'")

        def missing(*args: object, **kwargs: object) -> object:
            raise MissingOpError(name)

        return missing
