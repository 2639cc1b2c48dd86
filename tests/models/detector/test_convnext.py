"""ConvNeXt beside transformers' own, and the configs of the zoo that have it."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from models.checkpoints import ModelFilesError
from models.detector.configs import read_config
from models.detector.mmcv_ops import install
from models.detector.mmdetection import MMDetector
from tests.models.detector.test_zoo import folder_of, picture

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # mmdet's and mmcv's own
    pytest.mark.skipif(find_spec("mmpretrain") is not None, reason="MMPretrain is installed, and used"),
]
install()
# Ours to transformers', in the order in which they are replaced.
NAMES = (
    (r"^downsample_layers\.0\.0", "embeddings.patch_embeddings"),
    (r"^downsample_layers\.0\.1", "embeddings.layernorm"),
    (r"^downsample_layers\.(\d)\.", r"encoder.stages.\1.downsampling_layer."),
    (r"^stages\.(\d)\.", r"encoder.stages.\1.layers."),
    (r"depthwise_conv", "dwconv"),
    (r"pointwise_conv", "pwconv"),
    (r"(layers\.\d+)\.norm", r"\1.layernorm"),
    (r"gamma$", "layer_scale_parameter"),
)
ARCH = {"depths": [1, 2, 1, 1], "channels": [8, 16, 24, 32]}


def test_it_computes_what_transformers_does() -> None:
    from transformers import ConvNextBackbone, ConvNextConfig

    from models.detector.convnext import ConvNeXt

    features = ["stage1", "stage2", "stage4"]
    config = ConvNextConfig(depths=ARCH["depths"], hidden_sizes=ARCH["channels"], out_features=features)
    torch.manual_seed(0)
    theirs = ConvNextBackbone(config).eval()
    ours = ConvNeXt(ARCH, out_indices=[0, 1, 3], layer_scale_init_value=0.5).eval()
    for parameter in ours.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    weights = {}
    for key, tensor in ours.state_dict().items():
        name = re.sub(r"^norm(\d)", lambda found: f"hidden_states_norms.stage{int(found[1]) + 1}", key)
        for pattern, replacement in NAMES:
            name = re.sub(pattern, replacement, name)
        weights[name] = tensor
    theirs.load_state_dict(weights)
    images = torch.randn(2, 3, 64, 96)
    with torch.inference_mode():
        for mine, wanted in zip(ours(images), theirs(images).feature_maps, strict=True):
            torch.testing.assert_close(mine, wanted, rtol=1e-4, atol=1e-4)


def test_blocks_that_compute_twice_learn_the_same() -> None:
    from models.detector.convnext import ConvNeXt

    torch.manual_seed(0)
    once = ConvNeXt(ARCH, frozen_stages=1)
    twice = ConvNeXt(ARCH, frozen_stages=1, with_cp=True)
    twice.load_state_dict(once.state_dict())
    images = torch.randn(1, 3, 64, 64)
    for network in (once, twice):
        sum(one.square().sum() for one in network(images)).backward()
    assert once.stages[0][0].gamma.grad is None
    torch.testing.assert_close(once.stages[1][0].gamma.grad, twice.stages[1][0].gamma.grad)


@pytest.mark.parametrize("package", ["mmpretrain", "mmcls"])
def test_a_detector_with_it_is_served_without_mmpretrain(tmp_path: Path, package: str) -> None:
    small = (
        f"custom_imports = dict(_delete_=True, imports=['{package}.models'], allow_failed_imports=False)\n"
        f"model = dict(backbone=dict(type='{package}.ConvNeXt', arch=dict(_delete_=True, **{ARCH!r})), "
        "neck=dict(in_channels=[8, 16, 24, 32]), test_cfg=dict(rcnn=dict(score_thr=0.001)))"
    )
    folder = folder_of(tmp_path, "convnext/mask-rcnn_convnext-t-p4-w7_fpn_amp-ms-crop-3x_coco.py", small)
    loaded = MMDetector.load(folder)
    assert type(loaded._model.backbone).__module__ == "models.detector.convnext"
    [found] = loaded.detect([picture()])
    assert len(found) and np.isfinite(found.boxes_xyxy).all()


def test_other_backbones_of_it_are_refused_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "config.py").write_text("_base_ = ['../timm_example/retinanet_timm-efficientnet-b1_fpn_1x_coco.py']\n")
    with pytest.raises(
        ModelFilesError, match=r"'mmpretrain.TIMMBackbone' is of MMPretrain.*pip install mmpretrain timm"
    ):
        read_config(tmp_path / "config.py")
