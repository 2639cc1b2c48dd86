"""Students stand on any backbone that has maps of three sizes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from models.checkpoints import ModelFilesError
from models.detector.configs import read_config
from models.finetuning.start import Start
from models.finetuning.students import student_config

pytestmark = pytest.mark.filterwarnings("ignore")  # mmdet's and mmcv's own


def zoo(name: str) -> Any:
    import mmdet

    return read_config(Path(mmdet.__file__).parent / ".mim" / "configs" / name)


@pytest.mark.parametrize(
    ("name", "config", "strides"),
    [
        ("rtmdet-ins", "yolof/yolof_r50-c5_8xb8-1x_coco.py", [8, 16, 32]),
        ("mask-rcnn", "yolof/yolof_r50-c5_8xb8-1x_coco.py", [4, 8, 16, 32]),
        ("mask-rcnn", "yolox/yolox_tiny_8xb8-300e_coco.py", [8, 16, 32]),
    ],
)
def test_strides_are_the_backbones(name: str, config: str, strides: list[int]) -> None:
    model = student_config(name, zoo(config), Path(config)).model
    if name == "rtmdet-ins":
        assert model.bbox_head.anchor_generator.strides == strides
    else:
        assert model.roi_head.mask_roi_extractor.featmap_strides == strides
        assert model.rpn_head.anchor_generator.strides == [*strides, 2 * strides[-1]]
    assert len(model.neck.in_channels) == len(strides)


def test_a_dilated_last_stage_stays_dilated(tiny: Path) -> None:
    start = Start.read(tiny)
    model = student_config("rtmdet-ins", start.config, start.path).model
    assert model.bbox_head.anchor_generator.strides == [4, 8, 16]
    assert model.backbone.out_indices == (0, 1, 3), "of two stages of one stride, the deeper"
    assert model.backbone.dilations == (1, 1, 1, 2)


def test_a_backbone_with_too_few_maps_is_refused() -> None:
    config = zoo("atss/atss_r50_fpn_1x_coco.py")
    config.model.backbone.update(num_stages=2, strides=(1, 2), dilations=(1, 1), out_indices=(0, 1))
    with pytest.raises(ModelFilesError, match="a.py: its backbone gives maps of 2 sizes: expected 3"):
        student_config("rtmdet-ins", config, Path("a.py"))
