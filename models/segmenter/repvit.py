"""RepViT-M1, EdgeTAM's image backbone, without timm: as published, and with its branches and norms folded.

As published (Wang et al., 2023, arXiv:2307.09283): modules have the names that their weights have in timm's feature
extractor, so that weights load as they are. `folded` gives the same network for inference: every batch norm becomes
part of the convolution before it, and the three branches of a depthwise step become one convolution.

Knows modules and tensors, nothing of images, prompts or files.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

# Of RepViT-M1, by stage: channels, and how many blocks come after the step that makes the grid coarser.
CHANNELS = (48, 96, 192, 384)
BLOCKS = (2, 2, 14, 2)
# Of a block's hidden channels, and of those that weigh channels, which are rounded to a multiple of eight.
_WIDER, _WEIGHED, _MULTIPLE = 2, 4, 8


@dataclass(frozen=True)
class Stages:
    """What a backbone gives to the neck of a `Sam2Model`: the grids (B, h, w, C) of all stages, from fine to coarse."""

    intermediate_hidden_states: tuple[Tensor, ...]
    last_hidden_state: Tensor
    hidden_states: None = None
    attentions: None = None


class RepViT(nn.Module):
    """The backbone as timm names its parts: `timm_model.stem`, `timm_model.stages_0` to `timm_model.stages_3`."""

    def __init__(self) -> None:
        super().__init__()
        parts = {"stem": _stem(CHANNELS[0]), "stages_0": _Stage(CHANNELS[0], CHANNELS[0], BLOCKS[0], coarser=False)}
        for number, (before, after) in enumerate(pairwise(CHANNELS), start=1):
            parts[f"stages_{number}"] = _Stage(before, after, BLOCKS[number], coarser=True)
        self.timm_model = nn.ModuleDict(parts)

    def forward(self, pixels: Tensor, **_: object) -> Stages:
        """(B, 3, S, S) -> grids with sides of S / 4, S / 8, S / 16 and S / 32."""
        grids = []
        for part in self.timm_model.values():
            pixels = part(pixels)
            grids.append(pixels.permute(0, 2, 3, 1))
        return Stages(tuple(grids[1:]), grids[-1])


class _Normed(nn.Sequential):
    """A convolution and its batch norm."""

    c: nn.Conv2d
    bn: nn.BatchNorm2d

    def __init__(self, before: int, after: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.add_module("c", nn.Conv2d(before, after, kernel, stride, kernel // 2, groups=groups, bias=False))
        self.add_module("bn", nn.BatchNorm2d(after))

    def folded(self) -> nn.Conv2d:
        return _convolution(self.c, *_normed(self.c.weight, self.bn))


class _Depthwise(nn.Module):
    """A depthwise step of three branches: 3 x 3, 1 x 1 and the input itself."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = _Normed(channels, channels, 3, groups=channels)
        self.conv1 = _Normed(channels, channels, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) + self.conv1(x) + x

    def folded(self) -> nn.Conv2d:
        weight, bias = _normed(self.conv.c.weight, self.conv.bn)
        middle, more_bias = _normed(self.conv1.c.weight, self.conv1.bn)
        weight[:, :, 1:2, 1:2] += middle + 1
        return _convolution(self.conv.c, weight, bias + more_bias)


class _Weighed(nn.Module):
    """Channels times what their means say of them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        wanted = channels // _WEIGHED
        hidden = max(_MULTIPLE, (wanted + _MULTIPLE // 2) // _MULTIPLE * _MULTIPLE)
        hidden += _MULTIPLE * (hidden < 0.9 * wanted)
        self.fc1 = nn.Conv2d(channels, hidden, 1)
        self.fc2 = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.fc2(self.fc1(x.mean((2, 3), keepdim=True)).relu()).sigmoid()


class _Mlp(nn.Sequential):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.add_module("conv1", _Normed(channels, _WIDER * channels))
        self.add_module("act", nn.GELU())
        self.add_module("conv2", _Normed(_WIDER * channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


class _Block(nn.Module):
    def __init__(self, channels: int, *, weighs: bool) -> None:
        super().__init__()
        self.token_mixer = _Depthwise(channels)
        self.se = _Weighed(channels) if weighs else nn.Identity()
        self.channel_mixer = _Mlp(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.channel_mixer(self.se(self.token_mixer(x)))


class _Downsample(nn.Module):
    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.pre_block = _Block(before, weighs=False)
        self.spatial_downsample = _Normed(before, before, 3, 2, groups=before)
        self.channel_downsample = _Normed(before, after)
        self.ffn = _Mlp(after)

    def forward(self, x: Tensor) -> Tensor:
        return self.ffn(self.channel_downsample(self.spatial_downsample(self.pre_block(x))))


class _Stage(nn.Module):
    """Blocks, of which the first and every second one after it weigh their channels."""

    def __init__(self, before: int, after: int, blocks: int, *, coarser: bool) -> None:
        super().__init__()
        self.downsample = _Downsample(before, after) if coarser else nn.Identity()
        self.blocks = nn.Sequential(*(_Block(after, weighs=number % 2 == 0) for number in range(blocks)))

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(self.downsample(x))


def _stem(channels: int) -> nn.Sequential:
    stem = nn.Sequential()
    stem.add_module("conv1", _Normed(3, channels // 2, 3, 2))
    stem.add_module("act1", nn.GELU())
    stem.add_module("conv2", _Normed(channels // 2, channels, 3, 2))
    return stem


@torch.no_grad()
def folded(backbone: RepViT) -> RepViT:
    """The same network for inference alone, with new weights where something was folded, in channels-last order."""
    copy: RepViT = _folded(backbone).eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return copy


def _folded(module: nn.Module) -> nn.Module:
    if isinstance(module, _Normed | _Depthwise):
        return module.folded()
    children = dict(module.named_children())
    if not children:
        return module
    copy = module.__new__(type(module))
    copy.__dict__ = {**module.__dict__, "_modules": {name: _folded(child) for name, child in children.items()}}
    return copy


def _normed(weight: Tensor, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Weight and bias, in float64, of a convolution that a batch norm follows."""
    assert norm.running_mean is not None and norm.running_var is not None
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    return weight.double() * scale.view(-1, 1, 1, 1), norm.bias.double() - norm.running_mean.double() * scale


def _convolution(like: nn.Conv2d, weight: Tensor, bias: Tensor) -> nn.Conv2d:
    (kernel, _), (stride, _), groups = like.kernel_size, like.stride, like.groups
    with torch.device("meta"):
        made = nn.Conv2d(like.in_channels, like.out_channels, kernel, stride, kernel // 2, groups=groups)
    made.weight = nn.Parameter(weight.to(like.weight.dtype), requires_grad=False)
    made.bias = nn.Parameter(bias.to(like.weight.dtype), requires_grad=False)
    return made
