"""What is taken of a detector: all that fits, its backbone, or nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from models.checkpoints import CheckpointError
from models.demo.things import CLASS_NAMES
from models.detector.configs import read_config
from models.detector.files import build_trainable
from models.finetuning.start import Start, pipeline_steps
from models.finetuning.trainable import class_nodes

CLASS_HEAD = {"bbox_head.cls_score.weight", "bbox_head.cls_score.bias"}


def model_of(start: Start, class_names: tuple[str, ...], say: Callable[[str], None]) -> Any:
    return start.model_for(class_names, start.config_for(class_names), say, seed=1)


def differing(start: Start, model: Any) -> set[str]:
    assert start.state_dict is not None
    return {
        key
        for key, tensor in model.state_dict().items()
        if key not in start.state_dict or not torch.equal(start.state_dict[key], tensor)
    }


def test_the_head_of_the_same_classes_is_kept(tiny: Path, said: Any) -> None:
    start = Start.read(tiny)
    assert start.class_names == CLASS_NAMES
    reordered = start.order(("water_bottle", "can", "milk_bottle", "carton"))
    assert reordered == CLASS_NAMES
    assert not differing(start, model_of(start, reordered, said))
    assert "its head is kept" in said.lines[0]


@pytest.mark.parametrize("class_names", [("cup", "plate"), ("a", "b", "c", "d")])  # another number, and the same
def test_the_head_of_other_classes_is_made_anew(tiny: Path, said: Any, class_names: tuple[str, ...]) -> None:
    start = Start.read(tiny)
    model = model_of(start, start.order(class_names), said)
    assert model.bbox_head.num_classes == len(class_names)
    assert "bbox_head.cls_score.weight" in differing(start, model) <= CLASS_HEAD
    assert torch.allclose(model.bbox_head.cls_score.bias, torch.tensor(-4.595), atol=1e-3), "the prior of 1 %"
    assert "a new class head" in said.lines[0] and "bbox_head.cls_score.weight" in said.lines[0]


def test_backbone_only(tiny: Path, said: Any) -> None:
    start = Start.read(tiny, "backbone")
    model = model_of(start, CLASS_NAMES, said)
    assert not any(key.startswith("backbone.") for key in differing(start, model))
    assert any(key.startswith("neck.") for key in differing(Start.read(tiny), model))
    assert "the backbone of" in said.lines[0]


def test_a_checkpoint_of_a_backbone_alone(tiny: Path, said: Any, tmp_path: Path) -> None:
    whole = Start.read(tiny)
    assert whole.state_dict is not None
    (tmp_path / "config.py").write_text((tiny / "tiny.py").read_text())
    alone = {key.removeprefix("backbone."): value for key, value in whole.state_dict.items() if "backbone." in key}
    torch.save({**alone, "fc.weight": torch.zeros(1)}, tmp_path / "resnet.pth")
    model = model_of(Start.read(tmp_path, "backbone"), CLASS_NAMES, said)
    assert not any(key.startswith("backbone.") for key in differing(whole, model))


def test_from_scratch_needs_a_config_alone(tiny: Path, said: Any) -> None:
    start = Start.read(tiny / "tiny.py", "nothing")
    model = model_of(start, ("cup",), said)
    again = start.model_for(("cup",), start.config_for(("cup",)), said, seed=1)
    assert all(torch.equal(one, other) for one, other in zip(model.parameters(), again.parameters(), strict=True))
    assert said.lines[0] == "weights: all new"


def test_weights_that_the_classes_do_not_explain(tiny: Path, said: Any, tmp_path: Path) -> None:
    start = Start.read(tiny)
    assert start.state_dict is not None
    (tmp_path / "config.py").write_text((tiny / "tiny.py").read_text())
    lacking = {key: value for key, value in start.state_dict.items() if key != "bbox_head.bbox_pred.bias"}
    torch.save({"state_dict": lacking, "meta": {}}, tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match="1 missing: bbox_head.bbox_pred.bias"):
        model_of(Start.read(tmp_path), ("cup",), said)


def zoo(name: str) -> Start:
    """A config of MMDetection's, without weights."""
    import mmdet

    path = Path(mmdet.__file__).parent / ".mim" / "configs" / name
    return Start(path, read_config(path), None, None, None)


# Where each of a config's models counts classes, and how often.
COUNTED = {
    "faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py": 1,
    "cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco.py": 3,
    "mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py": 2,
    "ms_rcnn/ms-rcnn_r50_fpn_1x_coco.py": 3,
    "htc/htc_r50_fpn_1x_coco.py": 6,
    "scnet/scnet_r50_fpn_1x_coco.py": 5,
    "point_rend/point-rend_r50-caffe_fpn_ms-1x_coco.py": 3,
    "queryinst/queryinst_r50_fpn_1x_coco.py": 12,
    "solo/solo_r50_fpn_1x_coco.py": 1,
    "yolact/yolact_r50_1xb8-55e_coco.py": 2,
    "seesaw_loss/mask-rcnn_r50_fpn_seesaw-loss_random-ms-2x_lvis-v1.py": 3,
    "dino/dino-4scale_r50_8xb2-12e_coco.py": 1,
}


@pytest.mark.parametrize("name", COUNTED)
def test_every_head_gets_the_classes(name: str) -> None:
    start = zoo(name)
    said: list[str] = []
    model = start.config_for(("a", "b", "c"), said.append).model.to_dict()
    counts = [node["num_classes"] for node in class_nodes(model) if "num_classes" in node]
    assert counts == [3] * COUNTED[name]
    assert "semantic_head" not in (model.get("roi_head") or {})
    assert len(said) == ("htc" in name or "scnet" in name), "that a branch is left out"
    assert model.get("rpn_head", {}).get("num_classes", 1) == 1


def test_queries_of_masks_forget_what_is_stuff() -> None:
    head = zoo("mask2former/mask2former_r50_8xb2-lsj-50e_coco-panoptic.py").config_for(("a", "b")).model.panoptic_head
    assert (head.num_things_classes, head.num_stuff_classes) == (2, 0)
    assert head.loss_cls.class_weight == [1.0, 1.0, 0.1], "the last is the background's"


def test_from_scratch_nothing_is_frozen_and_with_weights_it_stays() -> None:
    start = zoo("mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py")
    assert start.config_for(("a",)).model.backbone.frozen_stages == -1
    kept = replace(start, checkpoint=Path("weights.pth")).config_for(("a",)).model.backbone
    assert kept.frozen_stages == 1 and kept.norm_eval


def test_images_of_a_batch_are_not_resized_again() -> None:
    preprocessor = zoo("yolox/yolox_s_8xb8-300e_coco.py").config_for(("a",)).model.data_preprocessor
    assert "batch_augments" not in preprocessor


@pytest.mark.parametrize(
    ("sizes", "scale"),
    [((None, None), (64, 64)), ((96, None), (96, 96)), ((None, 48), (48, 48)), ((32, 128), (128, 32))],
)
def test_sizes(tiny: Path, sizes: tuple[int | None, int | None], scale: tuple[int, int]) -> None:
    steps = pipeline_steps(Start.read(tiny).config, tiny, *sizes)
    assert [step["type"] for step in steps] == ["LoadImageFromFile", "Resize", "PackDetInputs"]
    assert steps[1]["scale"] == scale


def test_what_is_padded_to_a_size_is_padded_to_the_new_one() -> None:
    start = zoo("rtmdet/rtmdet-ins_tiny_8xb32-300e_coco.py")
    steps = {step["type"]: step for step in pipeline_steps(start.config, start.path, 96, 128)}
    assert steps["Resize"]["scale"] == (128, 96) and steps["Pad"]["size"] == (128, 128)


@pytest.mark.parametrize("several", [False, True])
def test_a_model_is_built_without_fetching_anything(tiny: Path, several: bool) -> None:
    config = Start.read(tiny).config
    fetched = {"type": "Pretrained", "checkpoint": "https://127.0.0.1:9/none.pth"}
    config.model.backbone.init_cfg = [fetched] if several else fetched
    build_trainable(config, tiny).init_weights()


def test_shares_of_the_learning_rate_are_the_configs(tiny: Path) -> None:
    import mmdet

    path = Path(mmdet.__file__).parent / ".mim" / "configs" / "yolof" / "yolof_r50-c5_8xb8-1x_coco.py"
    yolof = Start(path, read_config(path), None, None, None)
    assert yolof.factors == {"backbone": {"lr_mult": pytest.approx(1 / 3)}}
    assert Start.read(tiny).factors == {}
