"""Which functions stand in for mmcv's compiled ops, and how mmcv finds them.

`install()` makes this module's stand-in importable as `mmcv._ext`; call it before mmdet is imported.
It knows nothing of detectors or files.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import sys
from collections.abc import Callable
from types import ModuleType

from models.detector.mmcv_ops import (
    attention,
    border_align,
    carafe,
    deform_conv,
    deform_roi_pool,
    focal_loss,
    masked_conv,
    roi_align,
    roi_pool,
    suppression,
)
from models.model_errors import MissingOpError

EXTENSION = "mmcv._ext"


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


def _version() -> str:
    return "not compiled"


_OPS: dict[str, Callable[..., object]] = {
    op.__name__: op
    for op in (
        attention.ms_deform_attn_forward,
        attention.ms_deform_attn_backward,
        border_align.border_align_forward,
        border_align.border_align_backward,
        carafe.carafe_forward,
        carafe.carafe_backward,
        carafe.carafe_naive_forward,
        carafe.carafe_naive_backward,
        deform_conv.deform_conv_forward,
        deform_conv.deform_conv_backward_input,
        deform_conv.deform_conv_backward_parameters,
        deform_conv.modulated_deform_conv_forward,
        deform_conv.modulated_deform_conv_backward,
        deform_roi_pool.deform_roi_pool_forward,
        deform_roi_pool.deform_roi_pool_backward,
        focal_loss.sigmoid_focal_loss_forward,
        focal_loss.sigmoid_focal_loss_backward,
        masked_conv.masked_im2col_forward,
        masked_conv.masked_col2im_forward,
        roi_align.roi_align_forward,
        roi_align.roi_align_backward,
        roi_pool.roi_pool_forward,
        roi_pool.roi_pool_backward,
        suppression.bbox_overlaps,
        suppression.nms,
        suppression.nms_match,
        suppression.softnms,
    )
} | {"get_compiler_version": _version, "get_compiling_cuda_version": _version}


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
