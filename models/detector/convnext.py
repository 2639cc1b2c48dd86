"""ConvNeXt (https://arxiv.org/abs/2201.03545) as a backbone, under the names that MMPretrain's weights have.

The zoo's configs name MMPretrain's, which needs torchvision and half a dozen packages more; this one computes the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmcv.cnn.bricks import DropPath
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

# Blocks and channels of each stage.
SIZES: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "atto": ((2, 2, 6, 2), (40, 80, 160, 320)),
    "femto": ((2, 2, 6, 2), (48, 96, 192, 384)),
    "pico": ((2, 2, 6, 2), (64, 128, 256, 512)),
    "nano": ((2, 2, 8, 2), (80, 160, 320, 640)),
    "tiny": ((3, 3, 9, 3), (96, 192, 384, 768)),
    "small": ((3, 3, 27, 3), (96, 192, 384, 768)),
    "base": ((3, 3, 27, 3), (128, 256, 512, 1024)),
    "large": ((3, 3, 27, 3), (192, 384, 768, 1536)),
    "xlarge": ((3, 3, 27, 3), (256, 512, 1024, 2048)),
    "huge": ((3, 3, 27, 3), (352, 704, 1408, 2816)),
}
EPSILON = 1e-6


class _ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of (N, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=EPSILON)

    def forward(self, values: Tensor) -> Tensor:
        return super().forward(values.permute(0, 2, 3, 1)).permute(0, 3, 1, 2).contiguous()


class _Block(nn.Module):
    """A 7 x 7 convolution of each channel for itself, then two layers over the channels of each place."""

    def __init__(self, channels: int, drop: float, scale: float) -> None:
        super().__init__()
        self.depthwise_conv = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=EPSILON)
        self.pointwise_conv1 = nn.Linear(channels, 4 * channels)
        self.pointwise_conv2 = nn.Linear(4 * channels, channels)
        self.gamma = nn.Parameter(torch.full((channels,), scale)) if scale > 0 else None
        self.drop_path = DropPath(drop)

    def forward(self, values: Tensor) -> Tensor:
        """(N, C, H, W) to the same."""
        inner = self.norm(self.depthwise_conv(values).permute(0, 2, 3, 1))  # (N, H, W, C)
        inner = self.pointwise_conv2(nn.functional.gelu(self.pointwise_conv1(inner)))
        if self.gamma is not None:
            inner = inner * self.gamma
        return values + self.drop_path(inner.permute(0, 3, 1, 2))


class ConvNeXt(BaseModule):
    """The backbone, with the arguments of MMPretrain's that the zoo's configs give.

    arch: a size's name, or its `depths` and `channels`. out_indices: the stages whose (N, C, H, W) are returned, each
    normalised. drop_path_rate: how often the last block is left out in training; the ones before less. with_cp: whether
    training computes inner values twice to keep fewer. frozen_stages: how many are not trained.
    """

    def __init__(
        self,
        arch: str | Mapping[str, Sequence[int]] = "tiny",
        out_indices: Sequence[int] = (0, 1, 2, 3),
        drop_path_rate: float = 0.0,
        layer_scale_init_value: float = 1e-6,
        gap_before_final_norm: bool = False,
        frozen_stages: int = 0,
        with_cp: bool = False,
        init_cfg: Any = None,
    ) -> None:
        super().__init__(init_cfg)
        if gap_before_final_norm:
            raise ValueError("gap_before_final_norm: expected False, as a detector needs a map; True is of classifiers")
        depths, channels = SIZES[arch] if isinstance(arch, str) else (arch["depths"], arch["channels"])
        self.out_indices = tuple(out_indices)
        self.frozen_stages = frozen_stages
        self.with_cp = with_cp
        drops = iter(torch.linspace(0, drop_path_rate, sum(depths)).tolist())
        self.downsample_layers = nn.ModuleList(
            [nn.Sequential(nn.Conv2d(3, channels[0], 4, 4), _ChannelNorm(channels[0]))]
        )
        for before, after in zip(channels, channels[1:], strict=False):
            self.downsample_layers.append(nn.Sequential(_ChannelNorm(before), nn.Conv2d(before, after, 2, 2)))
        self.stages = nn.ModuleList(
            nn.Sequential(*(_Block(width, next(drops), layer_scale_init_value) for _ in range(depth)))
            for depth, width in zip(depths, channels, strict=True)
        )
        for stage in self.out_indices:
            self.add_module(f"norm{stage}", _ChannelNorm(channels[stage]))
        self.train()

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """(N, 3, H, W) to the maps of `out_indices`, of a quarter of the size and less."""
        found, values = [], images
        for number, (downsample, stage) in enumerate(zip(self.downsample_layers, self.stages, strict=True)):
            values = downsample(values)
            for block in stage.children():
                again = self.with_cp and values.requires_grad
                values = checkpoint(block, values, use_reentrant=False) if again else block(values)
            if number in self.out_indices:
                found.append(getattr(self, f"norm{number}")(values))
        return tuple(found)

    def train(self, mode: bool = True) -> ConvNeXt:
        super().train(mode)
        for number in range(self.frozen_stages):
            for part in (self.downsample_layers[number], self.stages[number]):
                part.eval().requires_grad_(False)
        return self
