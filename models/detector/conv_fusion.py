"""Batch normalisation, residual sums and ReLUs folded into the convolutions of the network parts it knows.

Those are MMDetection's ResNet and YOLOF's encoder and head, recognised by their exact types, since whether a
normalisation follows a convolution is known only from a module's `forward`. All else in a model stays as it is.
This module knows nothing of images or boxes.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from models.detector import winograd

# With AVX512 direct convolutions are as fast (YOLOF R50: 0.85 s beside 0.87 s), without the memory of the filters.
WINOGRAD_PAYS = torch.backends.cpu.get_cpu_capability() != "AVX512"
# Fewer channels than this, and Winograd's transforms cost more than the products they save (measured with AVX2).
WINOGRAD_CHANNELS = 128
# Fewer tiles than this in a batch, and there are too few products for what is done around them.
WINOGRAD_TILES = 32


class FusedConv(nn.Module):
    """A convolution with its bias, an optional sum and an optional ReLU in one pass, channels-last.

    It is made from a Conv2d and the BatchNorm2d after it, if any, on its device; `dtype` is what it computes in,
    whatever comes in. Folding is done in float64.
    """

    def __init__(
        self,
        conv: nn.Conv2d,
        norm: nn.Module | None = None,
        relu: bool = False,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """Raises ValueError for layers that `foldable` refuses."""
        super().__init__()
        if not foldable(conv, norm):
            raise ValueError(f"cannot fold {norm} into {conv}")
        weight = conv.weight.detach().double()
        bias = weight.new_zeros(len(weight)) if conv.bias is None else conv.bias.detach().double()
        if isinstance(norm, nn.BatchNorm2d):
            assert norm.running_var is not None and norm.running_mean is not None
            scale = torch.rsqrt(norm.running_var.double() + norm.eps)
            shift = -norm.running_mean.double() * scale
            if norm.affine:
                scale, shift = scale * norm.weight.detach(), shift * norm.weight.detach() + norm.bias.detach()
            weight, bias = weight * scale[:, None, None, None], bias * scale + shift
        self.relu = relu
        self.stride, self.padding, self.dilation, self.groups = conv.stride, conv.padding, conv.dilation, conv.groups
        self.weight: torch.Tensor
        self.bias: torch.Tensor
        self.filters: torch.Tensor | None
        self.register_buffer("weight", weight.to(dtype, memory_format=torch.channels_last))
        self.register_buffer("bias", bias.to(dtype))
        suits_winograd = (
            WINOGRAD_PAYS
            and dtype == torch.float32
            and weight.device.type == "cpu"
            and conv.kernel_size == (3, 3)
            and (conv.stride, conv.padding, conv.dilation, conv.groups) == ((1, 1), (1, 1), (1, 1), 1)
            and min(conv.in_channels, conv.out_channels) >= WINOGRAD_CHANNELS
        )
        self.register_buffer("filters", winograd.transform_filters(weight) if suits_winograd else None)
        self._onednn = weight.device.type == "cpu" and _onednn_computes(dtype)
        self._packed = False

    def forward(self, x: torch.Tensor, residual: torch.Tensor | None = None) -> torch.Tensor:
        """(B, C, H, W) -> (B, K, H', W'), channels-last, in its own dtype.

        residual: of the result's shape and dtype, added before the ReLU; its memory may become the result's.
        """
        x = x.to(self.weight.dtype)
        if self.filters is not None and winograd.tile_count(x) >= WINOGRAD_TILES:
            if residual is None:
                return winograd.convolve(x, self.filters, self.bias, self.relu)
            out = winograd.convolve(x, self.filters, self.bias).add_(residual)
            return out.relu_() if self.relu else out
        if self._onednn:
            return self._in_onednn(x, residual)
        out = F.conv2d(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)
        if residual is not None:
            out = out.add_(residual)
        return out.relu_() if self.relu else out

    def _in_onednn(self, x: torch.Tensor, residual: torch.Tensor | None) -> torch.Tensor:
        """By the operators that torch.compile's CPU backend calls, which write each value once."""
        shape = [*self.padding], [*self.stride], [*self.dilation], self.groups
        if not self._packed:
            # In oneDNN's own order, which the image's size may change: packed for the first, they are put in another at
            # each call that wants one, as they would be at every call if they were not packed.
            self.weight = torch.ops.mkldnn._reorder_convolution_weight(self.weight.contiguous(), *shape, [*x.shape])
            self._packed = True
        parameters = x, self.weight, self.bias, *shape
        if residual is None:
            return torch.ops.mkldnn._convolution_pointwise(*parameters, "relu" if self.relu else "none", [], "")
        after = "relu" if self.relu else None
        return torch.ops.mkldnn._convolution_pointwise_(residual, *parameters, "add", 1.0, after, [], "")


class FusedBlock(nn.Module):
    """A residual block of ResNet: convolutions one after the other, plus what came in, then a ReLU."""

    def __init__(self, convs: list[FusedConv], downsample: nn.Module | None, keeps_input: bool) -> None:
        """convs: the last one with the block's ReLU. keeps_input: whether the input is still read after the block."""
        super().__init__()
        *first, self.last = convs
        self.first = nn.Sequential(*first)
        self.downsample = downsample
        self.keeps_input = keeps_input

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.first(x)
        if self.downsample is not None:
            return self.last(out, self.downsample(x))
        return self.last(out, x.clone() if self.keeps_input else x)


def foldable(conv: Any, norm: Any) -> bool:
    """Whether this is a plain convolution, and the norm, if any, an affine map per channel that nothing changes."""
    if type(conv) is not nn.Conv2d or conv.padding_mode != "zeros" or isinstance(conv.padding, str):
        return False
    if _watched(conv) or (norm is not None and _watched(norm)):
        return False
    return norm is None or (
        type(norm) is nn.BatchNorm2d
        and not norm.training
        and norm.running_mean is not None
        and norm.running_var is not None
        and norm.num_features == conv.out_channels
    )


def fuse(model: Any, dtype: torch.dtype = torch.float32) -> bool:
    """Fuse what is known of an MMDetection detector, in place; return whether its results are in `dtype` thereby.

    model: in eval mode, on its device, float32. A YOLOF of known parts is fused as a whole and computes in `dtype`,
    but for its last convolutions, which stay in float32, as do its results. Of another detector a ResNet is fused,
    only at float32: with False returned for another dtype, nothing was changed.
    """
    whole = _known_yolof(model)
    if not whole and dtype != torch.float32:
        return False
    if _known_resnet(getattr(model, "backbone", None)):
        _fuse_resnet(model.backbone, dtype)
        if not whole:
            # Layers that are not known here may `view` their input, which channels-last tensors do not allow.
            model.backbone.register_forward_hook(lambda _, __, outs: tuple(out.contiguous() for out in outs))
    if whole:
        _fuse_encoder(model.neck, dtype)
        _fuse_head(model.bbox_head, dtype)
    return True


def first_convolution(model: Any) -> FusedConv | None:
    """What a fused ResNet does first to the image, in any memory layout; None for other backbones."""
    first = getattr(getattr(model, "backbone", None), "conv1", None)
    return first if isinstance(first, FusedConv) else None


def _known_yolof(model: Any) -> bool:
    from mmdet.models.dense_heads import YOLOFHead
    from mmdet.models.detectors import YOLOF
    from mmdet.models.necks import DilatedEncoder

    if type(model) is not YOLOF or type(model.neck) is not DilatedEncoder or type(model.bbox_head) is not YOLOFHead:
        return False
    neck, head = model.neck, model.bbox_head
    modules = [module for block in neck.dilated_encoder_blocks for module in block.children()]
    return (
        _known_resnet(model.backbone)
        and all(_plain(module) for module in [*modules, *head.cls_subnet, *head.bbox_subnet])
        and foldable(neck.lateral_conv, neck.lateral_norm)
        and foldable(neck.fpn_conv, neck.fpn_norm)
        and all(foldable(conv, None) for conv in (head.cls_score, head.bbox_pred, head.object_pred))
    )


def _known_resnet(backbone: Any) -> bool:
    from mmdet.models.backbones.resnet import ResNet

    # Its blocks decide for themselves; the variants of ResNet have other types.
    return type(backbone) is ResNet and (backbone.deep_stem or type(backbone.relu) is nn.ReLU)


def _fuse_resnet(backbone: Any, dtype: torch.dtype) -> None:
    if backbone.deep_stem:
        _fuse_sequence(backbone.stem, dtype)
    elif foldable(backbone.conv1, backbone.norm1):
        backbone.conv1 = FusedConv(backbone.conv1, backbone.norm1, relu=True, dtype=dtype)
        setattr(backbone, backbone.norm1_name, nn.Identity())
        backbone.relu = nn.Identity()
    for name in backbone.res_layers:
        stage = getattr(backbone, name)
        for index, block in enumerate(stage):
            # A stage's input may be one of the backbone's outputs; a block's, within a stage, is read by it alone.
            fused = _fused_block(block, dtype, keeps_input=index == 0)
            if fused is not None:
                stage[index] = fused
            elif dtype != torch.float32:
                stage[index] = block.to(dtype)


def _fused_block(block: Any, dtype: torch.dtype, keeps_input: bool) -> FusedBlock | None:
    from mmdet.models.backbones.resnet import BasicBlock, Bottleneck

    count = {BasicBlock: 2, Bottleneck: 3}.get(type(block))
    if count is None or getattr(block, "with_plugins", False) or type(block.relu) is not nn.ReLU:
        return None
    pairs = [(getattr(block, f"conv{i}"), getattr(block, f"norm{i}")) for i in range(1, count + 1)]
    if not all(foldable(*pair) for pair in pairs):
        return None
    downsample = block.downsample
    if downsample is not None:
        _fuse_sequence(downsample, dtype)
        if not isinstance(downsample, nn.Sequential) or not any(isinstance(m, FusedConv) for m in downsample):
            return None
    return FusedBlock([FusedConv(*pair, relu=True, dtype=dtype) for pair in pairs], downsample, keeps_input)


def _fuse_sequence(sequence: nn.Module, dtype: torch.dtype) -> None:
    """Fuse every `Conv2d, BatchNorm2d[, ReLU]` in an nn.Sequential; Identity takes the places that become free."""
    if type(sequence) is not nn.Sequential:
        return
    modules = [*sequence, None, None]
    for index, (conv, norm, act) in enumerate(zip(modules, modules[1:], modules[2:], strict=False)):
        if isinstance(conv, nn.Conv2d) and norm is not None and foldable(conv, norm):
            relu = type(act) is nn.ReLU
            sequence[index] = FusedConv(conv, norm, relu, dtype)
            sequence[index + 1] = nn.Identity()
            if relu:
                sequence[index + 2] = nn.Identity()


def _plain(module: Any) -> bool:
    """Whether it is mmcv's ConvModule of a foldable convolution, BatchNorm2d or no norm, and ReLU or nothing."""
    from mmcv.cnn import ConvModule

    return (
        type(module) is ConvModule
        and module.order == ("conv", "norm", "act")
        and not module.with_explicit_padding
        and not module.with_spectral_norm
        and not _watched(module)
        and foldable(module.conv, module.norm)
        and (not module.with_activation or type(module.activate) is nn.ReLU)
    )


def _fused_module(module: Any, dtype: torch.dtype) -> FusedConv:
    return FusedConv(module.conv, module.norm, module.with_activation, dtype)


def _fuse_encoder(neck: Any, dtype: torch.dtype) -> None:
    neck.lateral_conv = FusedConv(neck.lateral_conv, neck.lateral_norm, dtype=dtype)
    neck.fpn_conv = FusedConv(neck.fpn_conv, neck.fpn_norm, dtype=dtype)
    neck.lateral_norm, neck.fpn_norm = nn.Identity(), nn.Identity()
    for block in neck.dilated_encoder_blocks:
        for name, module in list(block.named_children()):
            setattr(block, name, _fused_module(module, dtype))


def _fuse_head(head: Any, dtype: torch.dtype) -> None:
    for subnet in (head.cls_subnet, head.bbox_subnet):
        for index, module in enumerate(subnet):
            subnet[index] = _fused_module(module, dtype)
    # What they say is exponentiated or multiplied by an anchor's side: there, 8 bits would be whole pixels.
    for name in ("cls_score", "bbox_pred", "object_pred"):
        setattr(head, name, FusedConv(getattr(head, name)))


def _watched(module: nn.Module) -> bool:
    """Whether something else takes part in what the module computes (hooks, pruning, parametrisations)."""
    return bool(module._forward_hooks or module._forward_pre_hooks or hasattr(module, "parametrizations"))


def _onednn_computes(dtype: torch.dtype) -> bool:
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_convolution_pointwise_"):
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported())
