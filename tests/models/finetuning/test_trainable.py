"""What is trained here, what asks for masks, and the sentences for the rest."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from models.detector.configs import read_config
from models.finetuning import trainable
from models.finetuning.trainable import learns_masks, why_not

REFUSED = {
    "rpn/rpn_r50_fpn_1x_coco.py": "RPN is not trained here: it proposes boxes of no class: train the Faster R-CNN",
    "glip/glip_atss_swin-t_a_fpn_dyhead_pretrain_obj365.py": "GLIP is not trained here: it finds what a text names",
    "grounding_dino/grounding_dino_swin-t_finetune_16xb2_1x_coco.py": "GroundingDINO is not trained here",
    "soft_teacher/soft-teacher_faster-rcnn_r50-caffe_fpn_180k_semi-0.1-coco.py": "images without annotations too",
    "crowddet/crowddet-rcnn_r50_fpn_8xb2-30e_crowdhuman.py": "objects of one class .* the data has 2 classes",
}
MASKS = {
    "atss/atss_r50_fpn_1x_coco.py": False,
    "boxinst/boxinst_r50_fpn_ms-90k_coco.py": False,
    "dino/dino-4scale_r50_8xb2-12e_coco.py": False,
    "rtmdet/rtmdet_tiny_8xb32-300e_coco.py": False,
    "bytetrack/bytetrack_yolox_x_8xb4-80e_crowdhuman-mot17halftrain_test-mot17halfval.py": False,
    "lad/lad_r50-paa-r101_fpn_2xb8_coco_1x.py": False,
    "condinst/condinst_r50_fpn_ms-poly-90k_coco_instance.py": True,
    "mask2former/mask2former_r50_8xb2-lsj-50e_coco.py": True,
    "maskformer/maskformer_r50_ms-16xb1-75e_coco.py": True,
    "panoptic_fpn/panoptic-fpn_r50_fpn_1x_coco.py": True,
    "rtmdet/rtmdet-ins_tiny_8xb32-300e_coco.py": True,
    "solov2/solov2_r50_fpn_1x_coco.py": True,
    "yolact/yolact_r50_1xb8-55e_coco.py": True,
}


def config(name: str) -> Any:
    import mmdet

    return read_config(Path(mmdet.__file__).parent / ".mim" / "configs" / name)


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_training_here_is_said_in_a_sentence(name: str) -> None:
    reason = why_not(config(name), 2)
    assert reason is not None and re.search(REFUSED[name], reason)


@pytest.mark.parametrize("name", MASKS)
def test_who_needs_masks(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainable, "find_spec", lambda package: package)
    assert why_not(config(name), 2) is None
    assert learns_masks(config(name)) == MASKS[name]


def test_a_package_that_only_training_asks_for_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainable, "find_spec", lambda package: None)
    assert why_not(config("paa/paa_r50_fpn_1x_coco.py")) == (
        "PAA needs scikit-learn for its training: pip install scikit-learn"
    )


def test_a_model_without_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    own = config("atss/atss_r50_fpn_1x_coco.py")
    del own.model.bbox_head["num_classes"]
    assert why_not(own) == "found no head with num_classes in ATSS, which fine-tuning sets for the data"
