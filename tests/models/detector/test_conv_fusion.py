from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from models.detector import conv_fusion, mmcv_ops
from models.detector.conv_fusion import FusedConv, foldable, fuse
from tests.models.detector.rounding import rms, rounded_everywhere

pytestmark = pytest.mark.filterwarnings("ignore")  # mmdet's own
NORMED = {"type": "BN", "requires_grad": True}


def lively_norm(channels: int, **settings: Any) -> nn.BatchNorm2d:
    """With statistics as after training, one channel of which never varied."""
    norm = nn.BatchNorm2d(channels, **settings)
    if norm.running_mean is not None and norm.running_var is not None:
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2.0)
        norm.running_var[0] = 0.0
    if norm.affine:
        nn.init.uniform_(norm.weight, -2, 2)
        nn.init.normal_(norm.bias)
    return norm.eval()


def lively(model: Any) -> Any:
    """In eval mode, with statistics that leave signals about as large as they come."""
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.train().momentum = 1.0
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
    with torch.no_grad():
        model(torch.randn(2, 3, 64, 96))
    model.eval()  # some of MMDetection's return nothing here
    return model


def build(config: dict[str, Any]) -> Any:
    mmcv_ops.install()
    from mmdet.registry import MODELS
    from mmengine.registry import DefaultScope

    with DefaultScope.overwrite_default_scope("mmdet"):
        return MODELS.build(config)


def fused_count(model: nn.Module) -> int:
    return sum(isinstance(module, FusedConv) for module in model.modules())


# --- one convolution -----------------------------------------------------------------------------------


@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("summed", [True, False])
@pytest.mark.parametrize("onednn", [True, False])
@pytest.mark.parametrize(
    ("conv", "norm"),
    [
        (nn.Conv2d(3, 8, 7, stride=2, padding=3, bias=False), {}),
        (nn.Conv2d(8, 6, 1), {"affine": False}),
        (nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=4), {"eps": 0.1}),
        (nn.Conv2d(8, 8, (3, 1), padding=(1, 0)), None),
        (nn.Conv2d(128, 128, 3, padding=1), {}),  # Winograd's
    ],
)
def test_it_is_the_convolution_and_what_follows(
    conv: nn.Conv2d,
    norm: dict[str, Any] | None,
    relu: bool,
    summed: bool,
    onednn: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not onednn:
        monkeypatch.setattr(conv_fusion, "_onednn_computes", lambda dtype: False)
    monkeypatch.setattr(conv_fusion, "WINOGRAD_PAYS", True)
    torch.manual_seed(0)
    follower = None if norm is None else lively_norm(conv.out_channels, **norm)
    fused = FusedConv(conv, follower, relu)
    assert (fused.filters is not None) == (conv.in_channels == 128)
    with torch.inference_mode():
        x = torch.randn(2, conv.in_channels, 21, 30)
        truth = conv(x) if follower is None else follower(conv(x))
        residual = torch.randn_like(truth).contiguous(memory_format=torch.channels_last) if summed else None
        truth = truth if residual is None else truth + residual
        out = fused(x, residual)
        error = (out - (truth.relu() if relu else truth)).abs().amax(dim=(0, 2, 3))
        assert (error < 1e-4 * truth.abs().amax(dim=(0, 2, 3))).all()  # channels differ in scale
        assert out.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_was_packed_for_one_size_convolves_another(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(64, 96, 3, stride=2, padding=1)
    fused = FusedConv(conv, dtype=dtype)
    if not fused._onednn:
        pytest.skip("oneDNN does not compute in these numbers here")
    with torch.inference_mode():
        for batch, height, width in ((1, 40, 60), (2, 7, 5), (1, 1, 1), (3, 90, 31)):
            x = torch.randn(batch, 64, height, width).to(dtype)
            again = FusedConv(conv, dtype=dtype)
            torch.testing.assert_close(fused(x), again(x))
            torch.testing.assert_close(fused(x).float(), conv(x.float()), atol=0.05, rtol=0.02)


def test_few_tiles_go_without_winograd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conv_fusion, "WINOGRAD_PAYS", True)
    conv, used = nn.Conv2d(128, 128, 3, padding=1), []
    inner = conv_fusion.winograd.convolve
    monkeypatch.setattr(conv_fusion.winograd, "convolve", lambda *args: used.append(len(args[0])) or inner(*args))
    fused = FusedConv(conv)
    with torch.inference_mode():
        for batch in (1, 8):
            x = torch.randn(batch, 128, 9, 8)
            torch.testing.assert_close(fused(x), conv(x), rtol=1e-4, atol=1e-4)
    assert used == [8]


def test_in_bfloat16_it_is_folded_first_and_rounded_then() -> None:
    torch.manual_seed(0)
    conv, norm = nn.Conv2d(16, 16, 3, padding=1), lively_norm(16)
    x = torch.randn(1, 16, 8, 8)
    with torch.inference_mode():
        out, truth = FusedConv(conv, norm, dtype=torch.bfloat16)(x), norm(conv(x))
    assert out.dtype == torch.bfloat16
    assert F.mse_loss(out.float(), truth).sqrt() < 0.01 * truth.std()


def test_what_cannot_be_folded_is_refused() -> None:
    conv, norm = nn.Conv2d(8, 8, 3), lively_norm(8)
    assert foldable(conv, norm) and foldable(conv, None)
    assert not foldable(conv, lively_norm(8).train())
    assert not foldable(conv, lively_norm(8, track_running_stats=False))
    assert not foldable(conv, lively_norm(4))
    assert not foldable(conv, nn.GroupNorm(2, 8))
    assert not foldable(conv, nn.SyncBatchNorm(8).eval())
    assert not foldable(nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect"), norm)
    assert not foldable(nn.Conv2d(8, 8, 3, padding="same"), norm)
    assert not foldable(nn.ConvTranspose2d(8, 8, 3), norm)
    watched = nn.Conv2d(8, 8, 3)
    watched.register_forward_hook(lambda *_: None)
    assert not foldable(watched, norm)
    assert not foldable(nn.utils.parametrizations.weight_norm(nn.Conv2d(8, 8, 3)), norm)
    with pytest.raises(ValueError, match="cannot fold GroupNorm"):
        FusedConv(conv, nn.GroupNorm(2, 8))


# --- backbones -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "fused"),
    [
        ({"depth": 18}, 20),
        ({"depth": 50, "style": "caffe"}, 53),
        ({"depth": 50, "style": "pytorch", "deep_stem": True, "avg_down": True}, 55),
        ({"depth": 18, "strides": (1, 2, 2, 1), "dilations": (1, 1, 1, 2)}, 20),
        ({"depth": 18, "norm_cfg": {"type": "GN", "num_groups": 2}}, 0),
        (
            {"depth": 50, "plugins": [{"cfg": {"type": "ContextBlock", "ratio": 0.25}, "position": "after_conv3"}]},
            1,  # the stem
        ),
    ],
)
def test_a_resnet_gives_the_same_at_every_stage(settings: dict[str, Any], fused: int) -> None:
    backbone = lively(build({"type": "ResNet", "base_channels": 16, "out_indices": (0, 1, 2, 3), **settings}))
    ours = nn.Module()
    ours.backbone = copy.deepcopy(backbone)
    assert fuse(ours) and fused_count(ours) == fused
    exact = copy.deepcopy(backbone).double()
    rounded = rounded_everywhere(copy.deepcopy(exact))
    with torch.inference_mode():
        x = torch.randn(1, 3, 64, 96)
        # Every stage makes the roundings before it larger, 50 layers of random weights several hundred times.
        for out, usual, truth in zip(ours.backbone(x), rounded(x.double()), exact(x.double()), strict=True):
            assert rms(out - truth) < rms(usual - truth) < 1e-3 * rms(truth)
            assert out.is_contiguous()  # what follows is not known here
    assert not fuse(ours, torch.bfloat16)


def test_a_stage_whose_input_is_an_output_leaves_it_alone() -> None:
    """ResNet-18's first stage adds its very input, which another layer may hold."""
    backbone = lively(build({"type": "ResNet", "depth": 18, "base_channels": 16}))
    ours = nn.Module()
    ours.backbone = backbone
    fuse(ours)
    x = torch.randn(1, 16, 9, 9).contiguous(memory_format=torch.channels_last)
    before = x.clone()
    with torch.inference_mode():
        backbone.layer1(x)
    assert torch.equal(x, before)


@pytest.mark.parametrize("kind", ["ResNeXt", "Res2Net", "ResNetV1d"])
def test_relatives_of_resnet_are_left_as_they_are(kind: str) -> None:
    model = nn.Module()
    model.backbone = build({"type": kind, "depth": 50, "base_channels": 16})
    fuse(model.eval())
    assert fused_count(model) == 0


def test_a_detector_without_known_parts_is_left_as_it_is() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU()).eval()
    assert fuse(model) and fused_count(model) == 0
    assert not fuse(model, torch.bfloat16)


# --- YOLOF ---------------------------------------------------------------------------------------------


def test_yolof_is_fused_as_a_whole(demo_model: Any) -> None:
    ours, half = copy.deepcopy(demo_model), copy.deepcopy(demo_model)
    assert fuse(ours) and fuse(half, torch.bfloat16)
    assert fused_count(ours) == 20 + 2 + 4 * 3 + 2 + 4 + 3
    assert not any(isinstance(module, nn.BatchNorm2d) for module in ours.modules())
    with torch.inference_mode():
        x = torch.randn(2, 3, 192, 256) * 50
        for out, coarse, truth in zip(ours(x), half(x), demo_model(x), strict=True):
            torch.testing.assert_close(out[0], truth[0], rtol=0, atol=3e-4 * float(truth[0].std()))
            assert coarse[0].dtype == torch.float32
            assert F.mse_loss(coarse[0], truth[0]).sqrt() < 0.05 * truth[0].std()


@pytest.mark.parametrize("part", ["head", "encoder", "backbone"])
def test_yolof_with_an_unknown_part_keeps_its_numbers(demo_model: Any, part: str) -> None:
    ours = copy.deepcopy(demo_model)
    place = {"head": ours.bbox_head.cls_subnet[0], "encoder": ours.neck.dilated_encoder_blocks[0].conv2}
    if part == "backbone":
        ours.backbone.relu = nn.SiLU()
    else:
        place[part].activate = nn.SiLU()
    plain = copy.deepcopy(ours)
    assert not fuse(ours, torch.bfloat16) and fused_count(ours) == 0
    assert fuse(ours) and fused_count(ours) == (0 if part == "backbone" else 20)
    with torch.inference_mode():
        x = torch.randn(1, 3, 64, 96) * 50
        for out, truth in zip(ours(x), plain(x), strict=True):
            torch.testing.assert_close(out[0], truth[0], rtol=0, atol=3e-4 * float(truth[0].std()))


def test_rounding_is_that_of_float32(demo_model: Any) -> None:
    ours, exact = copy.deepcopy(demo_model), copy.deepcopy(demo_model).double()
    fuse(ours)
    rounded = rounded_everywhere(copy.deepcopy(exact))
    with torch.inference_mode():
        x = torch.randn(1, 3, 192, 256) * 50
        for out, usual, truth in zip(ours(x), rounded(x.double()), exact(x.double()), strict=True):
            assert rms(out[0] - truth[0]) < rms(usual[0] - truth[0]) < 1e-3 * rms(truth[0])


def test_no_filters_are_kept_where_they_do_not_pay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conv_fusion, "WINOGRAD_PAYS", False)
    assert FusedConv(nn.Conv2d(128, 128, 3, padding=1)).filters is None
