"""A step or two of families of MMDetection's zoo, narrow and from random weights: each part learns, and is served."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from models.data import Annotation, Dataset, LabelledImage
from models.demo.dataset import labelled
from models.demo.scenes import render_scene
from models.demo.things import CLASS_NAMES
from models.detector.mmdetection import MMDetector
from models.finetuning import curve
from models.finetuning.checkpoint_files import TrainingError
from models.finetuning.options import TrainingOptions
from models.finetuning.start import Start
from models.finetuning.training import finetune

pytestmark = pytest.mark.filterwarnings("ignore")  # mmdet's and mmcv's own

PIPELINE = """
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=(64, 64), keep_ratio=True),
    dict(type="PackDetInputs", meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")),
]
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
"""
NARROW = "backbone=dict(depth=18, base_channels=16), neck=dict(in_channels=[16, 32, 64, 128]"
FPN = f"model = dict({NARROW}))"
QUERIES = "num_queries=20, test_cfg=dict(max_per_img=20)"
OWN = "its own sizes"  # whose test pipeline is made smaller by options alone
# A config, what makes it small, and the parts that learn masks.
FAMILIES: dict[str, tuple[str, tuple[str, ...]]] = {
    "atss/atss_r50_fpn_1x_coco.py": (FPN, ()),
    "boxinst/boxinst_r50_fpn_ms-90k_coco.py": (FPN, ("mask_head.mask_feature_head.", "bbox_head.controller.")),
    "centernet/centernet_r18_8xb16-crop512-140e_coco.py": ("", ()),
    "condinst/condinst_r50_fpn_ms-poly-90k_coco_instance.py": (FPN, ("mask_head.", "bbox_head.controller.")),
    "deformable_detr/deformable-detr_r50_16xb2-50e_coco.py": (
        f"model = dict(backbone=dict(depth=18), neck=dict(in_channels=[128, 256, 512]), {QUERIES})",
        (),
    ),
    "faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py": (FPN, ()),
    "htc/htc_r50_fpn_1x_coco.py": (FPN, ("roi_head.mask_head.0.", "roi_head.mask_head.2.")),
    "mask2former/mask2former_r50_8xb2-lsj-50e_coco-panoptic.py": (
        "model = dict(backbone=dict(depth=18), panoptic_head=dict(in_channels=[64, 128, 256, 512], num_queries=20), "
        "test_cfg=dict(max_per_image=20))",
        ("panoptic_head.mask_embed.", "panoptic_head.pixel_decoder.mask_feature."),
    ),
    "mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py": (FPN, ("roi_head.mask_head.",)),
    "queryinst/queryinst_r50_fpn_1x_coco.py": (
        f"model = dict({NARROW}), rpn_head=dict(num_proposals=10), test_cfg=dict(rcnn=dict(max_per_img=10)))",
        ("roi_head.mask_head.0.", "roi_head.mask_head.4."),
    ),
    "rtmdet/rtmdet-ins_tiny_8xb32-300e_coco.py": (OWN, ("bbox_head.mask_head.", "bbox_head.rtm_kernel.")),
    "solo/decoupled-solo-light_r50_fpn_3x_coco.py": (FPN, ("mask_head.mask_convs.", "mask_head.conv_mask_list_x.")),
    "yolox/yolox_tiny_8xb8-300e_coco.py": (OWN, ()),
}


@pytest.fixture(autouse=True)
def no_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curve, "draw", lambda history, path: None)


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Five scenes of two sizes, with true masks; the fourth has no object."""
    folder = tmp_path_factory.mktemp("masked")
    images = []
    for index in range(5):
        scene = render_scene(
            np.random.default_rng(index), (72, 96) if index % 2 else (96, 80), containers=(1, 3), clutter=(0, 1)
        )
        path = folder / f"{index}.png"
        Image.fromarray(scene.image).save(path)
        image = labelled(path, scene)
        images.append(LabelledImage(path, image.size_hw) if index == 3 else image)
    return Dataset(tuple(CLASS_NAMES), tuple(images))


def zoo(folder: Path, config: str, small: str) -> Path:
    """A config that is based on one of the zoo's."""
    import mmdet

    base = Path(mmdet.__file__).parent / ".mim" / "configs" / config
    pipeline = "" if small in ("", OWN) else PIPELINE
    path = folder / "config.py"
    path.write_text(f"_base_ = [{str(base)!r}]\n{'' if small == OWN else small}\n{pipeline}")
    return path


def bare(dataset: Dataset, count: int) -> Dataset:
    """The data set with `count` objects whose masks are gone."""
    images = []
    for image in dataset.images:
        annotations = []
        for one in image.annotations:
            annotations.append(Annotation(one.label, one.box_xyxy) if count > 0 else one)
            count -= 1
        images.append(LabelledImage(image.path, image.size_hw, tuple(annotations)))
    return Dataset(dataset.class_names, tuple(images))


@pytest.mark.parametrize("config", FAMILIES)
def test_a_family_learns_and_is_served(
    masked: Dataset, tmp_path: Path, config: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    small, parts = FAMILIES[config]
    begun: dict[str, torch.Tensor] = {}
    make = Start.model_for

    def noted(start: Start, *arguments: Any) -> Any:
        model = make(start, *arguments)
        begun.update({key: weight.detach().clone() for key, weight in model.named_parameters()})
        return model

    monkeypatch.setattr(Start, "model_for", noted)
    options: dict[str, Any] = {"image_min_size": 64, "image_max_size": 64} if small == OWN else {}
    options |= {"number_of_epochs": 1, "training_batch_size": 2, "number_of_workers": 0, "weight_decay": 0.0}
    training, validation = masked.subset(range(4)), masked.subset([4])
    start = zoo(tmp_path, config, small)
    done = finetune(
        bare(training, 99) if "boxinst" in config else training,
        validation,
        start,
        tmp_path / "out",
        TrainingOptions(**options),
        take="nothing",
        say=lambda line: None,
    )
    assert np.isfinite(done.figures["training_loss"])
    learns_masks = bool(parts) and "boxinst" not in config
    assert ("mask_mean_average_precision" in done.figures) == learns_masks

    # Without weight decay nothing moves a weight but its gradient.
    after = load_file(tmp_path / "out" / "config.safetensors")
    changed = {key for key, weight in begun.items() if not torch.equal(weight, after[key])}
    assert len(changed) > 0.6 * len(begun)
    for part in parts:
        assert any(key.startswith(part) for key in changed), part

    served = MMDetector.load(tmp_path / "out")
    assert served.class_names == tuple(CLASS_NAMES)
    assert served.has_masks == bool(parts)
    with Image.open(validation.images[0].path) as image:
        [found] = served.detect([np.asarray(image)], score_threshold=0.0)
    assert np.isfinite(found.boxes_xyxy).all()
    assert (found.masks is not None) == bool(parts)


@pytest.mark.parametrize("name", ["rtmdet-ins", "mask-rcnn"])
def test_a_student_learns_masks_on_a_detectors_backbone(masked: Dataset, tiny: Path, tmp_path: Path, name: str) -> None:
    lines: list[str] = []
    options = TrainingOptions(number_of_epochs=1, training_batch_size=2, number_of_workers=0)
    parts = masked.subset(range(4)), masked.subset([4])
    done = finetune(*parts, tiny, tmp_path / "out", options, student=name, say=lines.append)
    assert any("the backbone of" in line for line in lines)
    assert done.figures["mask_mean_average_precision"] is not None
    served = MMDetector.load(tmp_path / "out" / f"{name}.py")
    assert served.has_masks and served.input_scale == (64, 64), "images reach it as they reach the detector"
    before, after = load_file(tiny / "tiny.safetensors"), load_file(tmp_path / "out" / f"{name}.safetensors")
    shared = [key for key in before if key.startswith("backbone.")]
    assert shared and all(before[key].shape == after[key].shape for key in shared)


def test_masks_that_are_missing_are_counted_and_none_is_refused(masked: Dataset, tiny: Path, tmp_path: Path) -> None:
    training, validation = masked.subset(range(4)), masked.subset([4])
    options = TrainingOptions(number_of_epochs=1, training_batch_size=2, number_of_workers=0)

    def train(count: int, lines: list[str]) -> None:
        finetune(
            bare(training, count), validation, tiny, tmp_path / "out", options, student="rtmdet-ins", say=lines.append
        )

    with pytest.raises(TrainingError, match=r"learns masks, and none of the \d+ objects .* --formats coco"):
        train(99, [])
    assert not (tmp_path / "out").exists()
    lines: list[str] = []
    train(2, lines)
    assert sum("2 of " in line and "have no mask and are left out" in line for line in lines) == 1


@pytest.mark.parametrize("student", [None, "rtmdet-ins"])
def test_a_figure_of_masks_needs_masks(masked: Dataset, tiny: Path, tmp_path: Path, student: str | None) -> None:
    options = TrainingOptions(metric_for_best_model="mask_mean_average_precision")
    reason = "tiny.py learns no masks" if student is None else "the validation data has objects without masks"
    with pytest.raises(TrainingError, match=f"metric_for_best_model: .*{reason}"):
        finetune(masked, bare(masked, 1), tiny, tmp_path / "out", options, student=student, say=lambda line: None)


def test_a_step_that_fails_is_said(masked: Dataset, tmp_path: Path) -> None:
    start = zoo(tmp_path, "atss/atss_r50_fpn_1x_coco.py", f"{FPN}\nmodel['train_cfg'] = None")
    options = TrainingOptions(number_of_epochs=1, number_of_workers=0)
    with pytest.raises(TrainingError, match="config.py: its first training step fails: .* lacks what training asks"):
        finetune(masked, masked, start, tmp_path / "out", options, take="nothing", say=lambda line: None)
