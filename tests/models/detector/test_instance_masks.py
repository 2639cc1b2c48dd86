"""Masks of MMDetection's own families, narrow and with random weights, beside MMDetection's own inference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models.detector.mmcv_ops import install
from models.detector.mmdetection import MMDetector
from models.rle import decode_rle
from tests.models.detector.test_zoo import FPN, TWO_STAGES, folder_of, picture

pytestmark = pytest.mark.filterwarnings("ignore")  # mmdet's and mmcv's own
install()

SMALL_MASK2FORMER = (
    "model = dict(backbone=dict(depth=18), panoptic_head=dict(in_channels=[64, 128, 256, 512], num_queries=20, "
    "transformer_decoder=dict(num_layers=1), pixel_decoder=dict(encoder=dict(num_layers=1))), "
    "test_cfg=dict(max_per_image=20))"
)
# Pasted into boxes, of the whole image, from masks alone.
PASTED = {
    "mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py": TWO_STAGES,
    "ms_rcnn/ms-rcnn_r50-caffe_fpn_1x_coco.py": TWO_STAGES.replace("depth=18", "depth=18, style='pytorch'"),
    "point_rend/point-rend_r50-caffe_fpn_ms-1x_coco.py": TWO_STAGES.replace("depth=18", "depth=18, style='pytorch'"),
}
WHOLE = {
    "condinst/condinst_r50_fpn_ms-poly-90k_coco_instance.py": FPN,
    "rtmdet/rtmdet-ins_tiny_8xb32-300e_coco.py": "model = dict(data_preprocessor=dict(pad_size_divisor=32))",
    "mask2former/mask2former_r50_8xb2-lsj-50e_coco.py": SMALL_MASK2FORMER,
    "yolact/yolact_r50_1xb8-55e_coco.py": FPN,
    "solo/solo_r50_fpn_1x_coco.py": FPN,
    "solov2/solov2_r50_fpn_1x_coco.py": FPN,
}


def masks_of(found: object) -> np.ndarray:
    return np.array([decode_rle(rle) for rle in found.masks])  # type: ignore[attr-defined]


@pytest.mark.parametrize("config", PASTED | WHOLE)
def test_masks_are_mmdetections_own(tmp_path: Path, config: str) -> None:
    from mmdet.apis import inference_detector, init_detector

    folder = folder_of(tmp_path, config, (PASTED | WHOLE)[config])
    image = picture()
    detector = MMDetector.load(folder)
    assert detector.has_masks and (detector._mask_threshold is not None) == (config in PASTED)
    [ours] = detector.detect([image], score_threshold=0.0)
    model = init_detector(str(folder / "config.py"), str(folder / "weights.pth"), device="cpu")
    theirs = inference_detector(model, np.ascontiguousarray(image[..., ::-1])).pred_instances
    assert 0 < len(ours) <= len(theirs)
    masks, wanted = masks_of(ours), theirs.masks.numpy()
    assert masks.shape[1:] == image.shape[:2]
    agree = 0
    for mask, score, label in zip(masks, ours.scores, ours.labels, strict=True):
        alike = (np.isclose(theirs.scores.numpy(), score, 1e-3, 1e-3)) & (theirs.labels.numpy() == label)
        agree += bool(((wanted[alike] != mask).mean(axis=(1, 2)) < 1e-3).any())
    assert agree >= 0.97 * len(ours)  # of equal scores, either may be the last one
    sizes = masks.mean(axis=(1, 2))
    assert (sizes > 0).any() and (sizes < 1).any()
