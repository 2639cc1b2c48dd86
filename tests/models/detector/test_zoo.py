"""Families of MMDetection's zoo, narrow and with random weights, beside MMDetection's own inference.

They have other pictures, sizes and numbers of layers than in the zoo, so that they take seconds.
"""

from __future__ import annotations

import math
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from models.checkpoints import ModelFilesError
from models.detector.configs import read_config
from models.detector.files import build_model
from models.detector.mmcv_ops import install
from models.detector.mmdetection import MMDetector
from models.detector.single_image import class_count

pytestmark = pytest.mark.filterwarnings("ignore")  # mmdet's and mmcv's own
install()

PIPELINE = """
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=(160, 128), keep_ratio=True),
    dict(type="PackDetInputs", meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")),
]
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
"""
NARROW = "backbone=dict(depth=18), neck=dict(in_channels=[64, 128, 256, 512])"
FPN = f"model = dict({NARROW})"
# Random ones are unsure; and a thousand proposals and a hundred masks would take most of the tests' time.
TWO_STAGES = (
    f"model = dict({NARROW}, test_cfg=dict(rpn=dict(max_per_img=100), rcnn=dict(score_thr=0.001, max_per_img=20)))"
)
QUERIES = "num_queries=20, test_cfg=dict(max_per_img=20)"
# A config, and what makes it small. Each needs an op or a rule of its own.
FAMILIES = {
    "atss/atss_r50_fpn_1x_coco.py": FPN,
    "carafe/faster-rcnn_r50_fpn-carafe_1x_coco.py": TWO_STAGES,
    "cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py": TWO_STAGES,
    "condinst/condinst_r50_fpn_ms-poly-90k_coco_instance.py": FPN,
    "dcn/faster-rcnn_r50_fpn_dpool_1x_coco.py": TWO_STAGES,
    "dcnv2/faster-rcnn_r50_fpn_mdpool_1x_coco.py": TWO_STAGES,
    "detr/detr_r50_8xb2-150e_coco.py": "model = dict(backbone=dict(depth=18), neck=dict(in_channels=[512]), "
    f"{QUERIES})",
    "dyhead/atss_r50_fpn_dyhead_1x_coco.py": "model = dict(backbone=dict(depth=18), neck=[dict(type='FPN', "
    "in_channels=[64, 128, 256, 512], out_channels=64, start_level=1, add_extra_convs='on_output', num_outs=5), "
    "dict(type='DyHead', in_channels=64, out_channels=64, num_blocks=1)], "
    "bbox_head=dict(in_channels=64, feat_channels=64))",
    "faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py": TWO_STAGES,
    "grid_rcnn/grid-rcnn_r50_fpn_gn-head_1x_coco.py": TWO_STAGES,
    "mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py": TWO_STAGES,
    "gfl/gfl_r50_fpn_1x_coco.py": FPN,
    "foveabox/fovea_r50_fpn_4xb4-1x_coco.py": FPN,
    "reppoints/reppoints-moment_r50_fpn_1x_coco.py": FPN,
    "retinanet/retinanet_r50_fpn_1x_coco.py": FPN,
    "free_anchor/freeanchor_r50_fpn_1x_coco.py": FPN,
    "sabl/sabl-retinanet_r50_fpn_1x_coco.py": FPN,
    "tood/tood_r50_fpn_1x_coco.py": FPN,
    "vfnet/vfnet_r50-mdconv-c3-c5_fpn_ms-2x_coco.py": "",
}
# Those that are served as another model than the config says: the weights that are in the checkpoint besides.
REDUCED = {
    "bytetrack/bytetrack_yolox_x_8xb4-80e_crowdhuman-mot17halftrain_test-mot17halfval.py": (
        "model = dict(detector=dict(backbone=dict(deepen_factor=0.33, widen_factor=0.25), neck=dict(num_csp_blocks=1, "
        "in_channels=[64, 128, 256], out_channels=64), bbox_head=dict(in_channels=64, feat_channels=64)))",
        "detector.",
        (),
        "YOLOX",
    ),
    "lad/lad_r50-paa-r101_fpn_2xb8_coco_1x.py": (FPN, "", ("teacher_model.backbone.conv1.weight",), "PAA"),
    "ld/ld_r18-gflv1-r101_fpn_1x_coco.py": ("", "", (), "SingleStageDetector"),
    "panoptic_fpn/panoptic-fpn_r50_fpn_1x_coco.py": (TWO_STAGES, "", ("semantic_head.conv_logits.weight",), "MaskRCNN"),
}


def folder_of(
    folder: Path, config: str, small: str, prefix: str = "", more: tuple[str, ...] = (), spread: float = 1.0
) -> Path:
    """The config's folder as the zoo has it: a file with a base, and a checkpoint. more: other keys in that."""
    import mmdet

    base = Path(mmdet.__file__).parent / ".mim" / "configs" / config
    path = folder / "config.py"
    path.write_text(f"_base_ = [{str(base)!r}]\n{small}\n{PIPELINE}")
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = build_model(read_config(path), path)
    for name, weight in model.named_parameters():  # so that scores and boxes are spread, and boxes have an area
        if weight.ndim > 1:
            std = 0.05 if "fc_reg" in name or "rpn_reg" in name else spread
            torch.nn.init.normal_(weight, std=std / weight[0].numel() ** 0.5)
    weights = {prefix + key: tensor for key, tensor in model.state_dict().items()}
    names = [f"class {index}" for index in range(class_count(model) or 80)]
    content = {"state_dict": weights | dict.fromkeys(more, torch.ones(2)), "meta": {"dataset_meta": {"classes": names}}}
    torch.save(content, folder / "weights.pth")
    return folder


def picture() -> np.ndarray:
    blocks = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    return blocks.repeat(24, axis=0).repeat(24, axis=1)[:101, :150]


@pytest.mark.parametrize("config", FAMILIES)
def test_a_family_answers_as_mmdetection_itself(tmp_path: Path, config: str) -> None:
    from mmdet.apis import inference_detector, init_detector

    folder = folder_of(tmp_path, config, FAMILIES[config])
    image = picture()
    [ours] = MMDetector.load(folder).detect([image])
    model = init_detector(str(folder / "config.py"), str(folder / "weights.pth"), device="cpu")
    theirs = inference_detector(model, np.ascontiguousarray(image[..., ::-1])).pred_instances
    assert len(ours) == len(theirs) > 0
    np.testing.assert_allclose(np.sort(ours.scores), np.sort(theirs.scores.numpy()), atol=1e-3)
    near = np.abs(ours.boxes_xyxy[:, None] - theirs.bboxes.numpy().clip(0, [150, 101, 150, 101])[None]).max(2) < 0.05
    near &= np.abs(ours.scores[:, None] - theirs.scores.numpy()[None]) < 1e-3
    near &= ours.labels[:, None] == theirs.labels.numpy()[None]
    assert near.any(1).mean() > 0.97 and near.any(0).mean() > 0.97  # of equal scores, either may be the last one


@pytest.mark.parametrize(
    "config", ["dino/dino-4scale_r50_8xb2-12e_coco.py", "ddq/ddq-detr-4scale_r50_8xb2-12e_coco.py"]
)
@pytest.mark.parametrize("size", [(2, 150), (150, 2), (64, 64), (101, 150)])
def test_an_image_may_have_fewer_places_than_there_are_queries(
    tmp_path: Path, config: str, size: tuple[int, int]
) -> None:
    """mmdet 3.3.0 fails for the first two: it takes the best queries of all places, and there are not as many."""
    small = "neck=dict(in_channels=[128, 256, 512]), num_queries=100, test_cfg=dict(max_per_img=20)"
    detector = MMDetector.load(folder_of(tmp_path, config, f"model = dict(backbone=dict(depth=18), {small})"))
    image = np.zeros((*size, 3), np.uint8)
    [found] = detector.detect([image], score_threshold=0.0)
    assert len(found) and np.isfinite(found.boxes_xyxy).all() and np.isfinite(found.scores).all()
    padded = detector.preprocess(image).inputs.shape
    unpadded = math.ceil(160 * size[0] / max(size)), math.ceil(160 * size[1] / max(size))
    assert (padded[1] * padded[2] > 1.2 * math.prod(unpadded)) == (min(size) == 2)


def test_labels_are_whole_numbers(tmp_path: Path) -> None:
    """CrowdDet's are floats in mmdet 3.3.0."""
    config = "crowddet/crowddet-rcnn_r50_fpn_8xb2-30e_crowdhuman.py"
    [found] = MMDetector.load(folder_of(tmp_path, config, FPN)).detect([picture()], score_threshold=0.0)
    assert len(found) and found.labels.dtype == np.int64


def test_the_names_of_a_students_classes_are_counted(tmp_path: Path) -> None:
    config = "soft_teacher/soft-teacher_faster-rcnn_r50-caffe_fpn_180k_semi-0.1-coco.py"
    folder = folder_of(tmp_path, config, f"model = dict(detector=dict({NARROW}))")
    content = torch.load(folder / "weights.pth", weights_only=True)
    content["meta"]["dataset_meta"]["classes"] = ["one"]
    torch.save(content, folder / "weights.pth")
    with pytest.raises(ModelFilesError, match="names 1 classes, but .* has 80"):
        MMDetector.load(folder)


@pytest.mark.parametrize("config", REDUCED)
def test_what_is_more_than_a_detector_is_served_as_the_one_in_it(tmp_path: Path, config: str) -> None:
    small, prefix, more, kind = REDUCED[config]
    loaded = MMDetector.load(folder_of(tmp_path, config, small, prefix, more))
    assert type(loaded._model).__name__ == kind
    [found] = loaded.detect([picture()], score_threshold=0.0)
    assert len(found) and np.isfinite(found.boxes_xyxy).all()


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ("fast_rcnn/fast-rcnn_r50_fpn_1x_coco.py", "no part that proposes boxes.*Serve the Faster R-CNN"),
        ("reid/reid_r50_8xb32-6e_mot17train80_test-mot17val20.py", "BaseReID is no detector.*serve that detector"),
        (
            "misc/d2_mask-rcnn_r50-caffe_fpn_ms-90k_coco.py",
            "Detectron2Wrapper is no detector.*MMDetection's own config",
        ),
        ("mask2former_vis/mask2former_r50_8xb2-8e_youtubevis2019.py", "several frames of a video"),
    ],
)
def test_what_finds_nothing_in_an_image_is_refused_in_a_sentence(tmp_path: Path, config: str, reason: str) -> None:
    (tmp_path / "config.py").write_text(f"_base_ = ['../{config}']\n")
    with pytest.raises(ModelFilesError, match=reason):
        read_config(tmp_path / "config.py")


def test_proposals_are_objects_of_one_class(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "cascade_rpn/cascade-rpn_r50-caffe_fpn_1x_coco.py", FPN)
    loaded = MMDetector.load(folder)
    assert loaded.class_names == ("object",)


def test_masks_alone_have_classes_that_are_counted_too(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "solo/solo_r50_fpn_1x_coco.py", FPN)
    content = torch.load(folder / "weights.pth")
    content["meta"]["dataset_meta"]["classes"] = ["one", "another"]
    torch.save(content, folder / "weights.pth")
    with pytest.raises(ModelFilesError, match="weights.pth names 2 classes, but .*config.py has 80"):
        MMDetector.load(folder)


def test_a_base_whose_name_lacks_its_ending_is_found(tmp_path: Path) -> None:
    name = "faster-rcnn_r50_fpn_8xb2-4e_mot17halftrain_test-mot17halfval"  # as in the zoo's SORT
    (tmp_path / "config.py").write_text(f"_base_ = ['./{name}']\n")
    assert read_config(tmp_path / "config.py").model.type == "FasterRCNN"
