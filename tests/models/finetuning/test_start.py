"""What is taken of a detector: all that fits, its backbone, or nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from models.checkpoints import CheckpointError, ModelFilesError
from models.demo.things import CLASS_NAMES
from models.detector.configs import read_config
from models.detector.files import build_trainable
from models.finetuning.start import Start, steps_after_loading

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


def test_two_stages_and_cascades_get_their_classes(tmp_path: Path) -> None:
    import mmdet

    configs = Path(mmdet.__file__).parent / ".mim" / "configs"
    for name in ("faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py", "cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco.py"):
        start = Start(configs / name, read_config(configs / name), None, None, None)
        config = start.config_for(("a", "b", "c"))
        heads = config.model.roi_head.bbox_head
        assert [head.num_classes for head in (heads if isinstance(heads, list) else [heads])] == [3] * (
            3 if "cascade" in name else 1
        )


def test_detectors_of_masks_are_refused() -> None:
    import mmdet

    path = Path(mmdet.__file__).parent / ".mim" / "configs" / "mask_rcnn" / "mask-rcnn_r50_fpn_1x_coco.py"
    with pytest.raises(ModelFilesError, match="it learns masks too"):
        Start(path, read_config(path), None, None, None).config_for(("a",))


@pytest.mark.parametrize(
    ("sizes", "scale"),
    [((None, None), (64, 64)), ((96, None), (96, 96)), ((None, 48), (48, 48)), ((32, 128), (128, 32))],
)
def test_sizes(tiny: Path, sizes: tuple[int | None, int | None], scale: tuple[int, int]) -> None:
    steps = steps_after_loading(Start.read(tiny).config, tiny, *sizes)
    assert [step["type"] for step in steps] == ["Resize", "PackDetInputs"]
    assert steps[0]["scale"] == scale


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
