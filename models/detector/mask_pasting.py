"""Mends how mmdet 3.3.0 pastes small masks into an image: a box wholly outside of it ended in an error of torch's."""

from __future__ import annotations

from typing import Any

from torch import Tensor


def install() -> None:
    """Put `paste` in the place of MMDetection's own, once. Detectors that do not clip their boxes need it, such as
    QueryInst."""
    from mmdet.models.roi_heads.mask_heads import fcn_mask_head

    original = fcn_mask_head._do_paste_mask
    if getattr(original, "mended", False):
        return

    def paste(masks: Tensor, boxes: Tensor, img_h: int, img_w: int, skip_empty: bool = True) -> tuple[Any, Any]:
        """As mmdet's: masks (N, 1, h, w) in boxes (N, 4) -> (N, H', W'), and where in the image that region is."""
        if skip_empty and not _touches(boxes, img_h, img_w):  # no region of the image: all of it, without the object
            return original(masks, boxes, img_h, img_w, False)[0], (slice(0, img_h), slice(0, img_w))
        found: tuple[Any, Any] = original(masks, boxes, img_h, img_w, skip_empty)
        return found

    paste.mended = True  # type: ignore[attr-defined]
    fcn_mask_head._do_paste_mask = paste


def _touches(boxes: Tensor, height: int, width: int) -> bool:
    """Whether the region around all boxes, with a pixel around it, has a part in the image."""
    first, last = boxes[:, :2].min(0).values.floor() - 1, boxes[:, 2:].max(0).values.ceil() + 1
    return bool((first < last.new_tensor([width, height])).all() and (last > 0).all())
