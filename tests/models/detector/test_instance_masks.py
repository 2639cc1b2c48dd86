"""Masks of MMDetection's own families, narrow and with random weights, beside MMDetection's own inference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models.detector import instance_masks
from models.detector.mmcv_ops import install
from models.detector.mmdetection import MMDetector
from models.rle import decode_rle
from tests.models.detector.test_zoo import FPN, NARROW, TWO_STAGES, folder_of, picture

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
    # With fewer proposals so few masks are left that the last of equal scores would count too much.
    "ms_rcnn/ms-rcnn_r50-caffe_fpn_1x_coco.py": "model = dict("
    + NARROW.replace("depth=18", "depth=18, style='pytorch'")
    + ", test_cfg=dict(rcnn=dict(score_thr=0.001)))",
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

    folder = folder_of(tmp_path, config, (PASTED | WHOLE)[config], spread=1.5 if "rtmdet" in config else 1.0)
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
    ys, xs = np.nonzero(masks[0])
    if "solo" in config and len(xs):  # it finds masks alone
        np.testing.assert_allclose(ours.boxes_xyxy[0], [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1], atol=0.01)
    sizes = masks.mean(axis=(1, 2))
    assert (sizes > 0).any() and (sizes < 1).any()


def test_a_model_of_boxes_has_no_masks(tmp_path: Path) -> None:
    detector = MMDetector.load(folder_of(tmp_path, "retinanet/retinanet_r50_fpn_1x_coco.py", FPN))
    [found] = detector.detect([picture()])
    assert not detector.has_masks and found.masks is None


@pytest.mark.parametrize("config", ["mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py", "solo/solo_r50_fpn_1x_coco.py"])
def test_a_large_image_has_masks_of_its_size_made_one_at_a_time(
    tmp_path: Path, config: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pasted ones are the same to the pixel; others are enlarged from those that the network saw."""
    folder = folder_of(tmp_path, config, (PASTED | WHOLE)[config])
    image = picture().repeat(4, axis=0).repeat(4, axis=1)
    [plain] = MMDetector.load(folder, fast=False).detect([image])
    monkeypatch.setattr(instance_masks, "WHOLE_SIZE_PIXELS", 101 * 150)
    detector = MMDetector.load(folder)
    [raw] = detector.forward([detector.preprocess(image)])
    assert raw.found is not None and raw.found.masks is not None
    assert raw.found.masks[0].numel() < 160 * 128  # not of the image's size
    fast = detector.postprocess(raw)
    assert masks_of(fast).shape == masks_of(plain).shape == (len(plain), 404, 600)
    np.testing.assert_allclose(fast.boxes_xyxy, plain.boxes_xyxy, atol=0.05 if config in PASTED else 4)
    either = (masks_of(fast) | masks_of(plain)).sum(axis=(1, 2))
    both = (masks_of(fast) & masks_of(plain)).sum(axis=(1, 2))
    assert (both >= (0.999 if config in PASTED else 0.85) * either).mean() > 0.9


def test_columns_that_were_repeated_are_one_in_the_mask(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py", TWO_STAGES)
    image = np.random.default_rng(1).integers(0, 256, (600, 2, 3), dtype=np.uint8)
    [found] = MMDetector.load(folder).detect([image], score_threshold=0.0)
    assert len(found) and masks_of(found).shape[1:] == (600, 2)


def test_boxes_alone_may_be_asked_for(tmp_path: Path) -> None:
    detector = MMDetector.load(folder_of(tmp_path, "mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py", TWO_STAGES))
    [raw] = detector.forward([detector.preprocess(picture())])
    found = detector.postprocess(raw, masks=False)
    assert len(found) and found.masks is None


def test_rows_that_rtmdet_leaves_out_are_empty(tmp_path: Path) -> None:
    """mmdet 3.3.0 enlarges RTMDet-Ins's masks by the widths' factor in height too (`_bbox_mask_post_process`).

    536 x 1600 becomes 54 x 160 for the network: 160 rows x 536 / 54 are 1589 and not 1600.
    """
    from mmdet.apis import inference_detector, init_detector

    config = "rtmdet/rtmdet-ins_tiny_8xb32-300e_coco.py"
    folder = folder_of(tmp_path, config, WHOLE[config], spread=1.5)
    image = np.random.default_rng(0).integers(0, 256, (1600, 536, 3), dtype=np.uint8)
    model = init_detector(str(folder / "config.py"), str(folder / "weights.pth"), device="cpu")
    assert inference_detector(model, image).pred_instances.masks.shape[1:] == (1589, 536)
    [found] = MMDetector.load(folder).detect([image], score_threshold=0.0)
    masks = masks_of(found)
    assert masks.shape[1:] == (1600, 536) and masks[:, :1589].any() and not masks[:, 1589:].any()
