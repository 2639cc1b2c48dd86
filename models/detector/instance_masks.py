"""The masks that an MMDetection model finds with its boxes: as the network leaves them, until they are asked for.

Masks of the image's size are large, a hundred of a photo of 12 megapixels 1.2 GB, and MMDetection makes them all at
once. Here one is made at a time, of the detections that are kept: pasted from the network's small ones where the model
has such (Mask R-CNN and its kin), and else, for large images, enlarged from those of the size that the network saw.
"""

from __future__ import annotations

import types
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from torch import Tensor

from models.rle import Rle, encode_rle

# Larger images get masks of the size that the network saw, enlarged one at a time, where they cannot be pasted.
WHOLE_SIZE_PIXELS = 1 << 21


@dataclass(frozen=True, eq=False)
class InstanceMasks:
    """Masks of N objects, on the CPU.

    masks: (N, h, w), bool over the whole image; or, where there is a threshold, float32 probabilities within each box.
    boxes_xyxy: (N, 4), in pixels of an image of height and width `size_hw`, the frame in which masks are made.
    """

    masks: Tensor
    boxes_xyxy: Tensor
    size_hw: tuple[int, int]
    threshold: float | None = None

    def rle(self, place: int, size_hw: tuple[int, int], stretch_xy: tuple[int, int]) -> Rle:
        """One object's mask in the image of `size_hw`, of which columns and rows were repeated before."""
        columns, rows = stretch_xy
        mask = self._whole(place) if self.threshold is None else self._pasted(place, self.threshold)
        if mask.shape != (size_hw[0] * rows, size_hw[1] * columns):
            larger = size_hw[1] * columns, size_hw[0] * rows
            mask = cv2.resize(mask.astype(np.float32), larger, interpolation=cv2.INTER_LINEAR) > 0.5
        return encode_rle(np.ascontiguousarray(mask[::rows, ::columns]))

    def _whole(self, place: int) -> np.ndarray:
        """RTMDet-Ins of mmdet 3.3.0 scales heights by the widths' factor, which can leave rows out at the bottom."""
        mask = self.masks[place].numpy()
        height, width = self.size_hw
        if mask.shape == self.size_hw:
            return mask
        filled = np.zeros(self.size_hw, np.bool_)
        filled[: mask.shape[0], : mask.shape[1]] = mask[:height, :width]
        return filled

    def _pasted(self, place: int, threshold: float) -> np.ndarray:
        from mmdet.models.roi_heads.mask_heads.fcn_mask_head import _do_paste_mask

        height, width = self.size_hw
        one = slice(place, place + 1)
        values, (rows, columns) = _do_paste_mask(self.masks[one, None], self.boxes_xyxy[one], height, width, True)
        mask = np.zeros(self.size_hw, np.bool_)
        mask[rows, columns] = (values[0] >= threshold).numpy()
        return mask


def has_masks(model: Any) -> bool:
    """Whether a built MMDetection model finds masks with its boxes."""
    from mmdet.models.dense_heads import RTMDetInsHead

    head = getattr(model, "bbox_head", None)
    return bool(model.with_mask or isinstance(head, RTMDetInsHead) or getattr(model, "panoptic_head", None) is not None)


def keep_small(model: Any) -> float | None:
    """Let a model whose masks are pasted into boxes leave them small; the threshold for them, or None without such."""
    from mmdet.models.roi_heads.mask_heads import FCNMaskHead

    heads = [module for module in model.modules() if isinstance(module, FCNMaskHead)]
    threshold = model.roi_head.test_cfg.get("mask_thr_binary") if heads and model.with_mask else None
    if threshold is None or threshold < 0:  # below 0 MMDetection gives probabilities to look at
        return None
    for head in heads:
        head._predict_by_feat_single = types.MethodType(_small, head)
    return float(threshold)


def _small(
    head: Any,
    mask_preds: Any,
    bboxes: Tensor,
    labels: Tensor,
    img_meta: dict[str, Any],
    rcnn_test_cfg: Any,
    rescale: bool = False,
    activate_map: bool = False,
) -> Tensor:
    """In place of FCNMaskHead's `_predict_by_feat_single` of mmdet 3.3.0: as it begins, and without the pasting."""
    probabilities = bboxes.new_tensor(mask_preds) if activate_map else mask_preds.sigmoid()
    if rescale:  # in place, as there: these are the boxes of the result
        bboxes /= bboxes.new_tensor(img_meta["scale_factor"]).repeat((1, 2))
    if not head.class_agnostic:
        probabilities = probabilities[range(len(labels)), labels][:, None]
    return probabilities[:, 0]


def boxes_of(boxes: Tensor, masks: Tensor | None) -> Tensor:
    """The boxes (N, 4) that were found; of SOLO, which finds masks (N, h, w) and no boxes, those around its masks."""
    if masks is None or not len(masks) or boxes.any():
        return boxes
    from mmdet.structures.mask import mask2bbox

    return mask2bbox(masks)


def in_network_frame(metainfo: dict[str, Any]) -> dict[str, Any]:
    """What says of an image that it is as large as the network sees it."""
    return metainfo | {"ori_shape": metainfo["img_shape"], "scale_factor": (1.0, 1.0)}


def is_large(size_hw: tuple[int, int]) -> bool:
    """Whether masks of an image's size, all at once, are more than a service should hold."""
    return size_hw[0] * size_hw[1] > WHOLE_SIZE_PIXELS
