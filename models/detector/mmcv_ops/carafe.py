"""CARAFE: features made larger by kernels that differ from pixel to pixel.

Wang et al., "CARAFE: Content-Aware ReAssembly of FEatures", section 3.2.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from models.detector.mmcv_ops.sampling import AT_ONCE, widened


def carafe_forward(
    features: torch.Tensor,
    masks: torch.Tensor,
    rfeatures: torch.Tensor,
    routput: torch.Tensor,
    rmasks: torch.Tensor,
    output: torch.Tensor,
    kernel_size: int,
    group_size: int,
    scale_factor: int,
) -> None:
    """Write the features, made larger, into `output` (B, C, H * scale_factor, W * scale_factor).

    features: (B, C, H, W). masks: (B, group_size * kernel_size^2, H * scale_factor, W * scale_factor), the kernel of
    each output pixel, over the pixels around its source, zeros outside. `routput` and `rmasks` are buffers of the
    compiled op; `rfeatures` is what it keeps for `carafe_backward`.
    """
    carafe_naive_forward(features, masks, output, kernel_size, group_size, scale_factor)
    rfeatures.copy_(features)


def carafe_backward(
    grad_output: torch.Tensor,
    rfeatures: torch.Tensor,
    masks: torch.Tensor,
    rgrad_output: torch.Tensor,
    rgrad_input_hs: torch.Tensor,
    rgrad_input: torch.Tensor,
    rgrad_masks: torch.Tensor,
    grad_input: torch.Tensor,
    grad_masks: torch.Tensor,
    kernel_size: int,
    group_size: int,
    scale_factor: int,
) -> None:
    """Add the gradients by the features and by the masks."""
    carafe_naive_backward(grad_output, rfeatures, masks, grad_input, grad_masks, kernel_size, group_size, scale_factor)


def carafe_naive_forward(
    features: torch.Tensor,
    masks: torch.Tensor,
    output: torch.Tensor,
    kernel_size: int,
    group_size: int,
    scale_factor: int,
) -> None:
    """As `carafe_forward`."""
    for image, rows in _parts(features, kernel_size):
        patches = _patches(features[image], rows, kernel_size, group_size)
        kernels = _kernels(masks[image], rows, scale_factor, group_size)
        _large(output[image], rows, scale_factor).copy_(_reassembled(kernels, patches, rows, scale_factor))


def carafe_naive_backward(
    grad_output: torch.Tensor,
    features: torch.Tensor,
    masks: torch.Tensor,
    grad_input: torch.Tensor,
    grad_masks: torch.Tensor,
    kernel_size: int,
    group_size: int,
    scale_factor: int,
) -> None:
    """As `carafe_backward`."""
    for image, rows in _parts(features, kernel_size):
        its, its_masks = features[image].detach().requires_grad_(), masks[image].detach().requires_grad_()
        with torch.enable_grad():
            patches = _patches(its, rows, kernel_size, group_size)
            kernels = _kernels(its_masks, rows, scale_factor, group_size)
            found = _reassembled(kernels, patches, rows, scale_factor)
        gradient = _large(grad_output[image], rows, scale_factor).to(found)
        by_features, by_masks = torch.autograd.grad(found, [its, its_masks], gradient)
        grad_input[image] += by_features
        grad_masks[image] += by_masks


def _parts(features: torch.Tensor, kernel_size: int) -> list[tuple[int, slice]]:
    """Images and their rows, so many at a time that the patches of none exceed `AT_ONCE`."""
    batch, channels, height, width = features.shape
    step = max(1, AT_ONCE // (channels * width * kernel_size**2))
    return [(image, slice(y, min(y + step, height))) for image in range(batch) for y in range(0, height, step)]


def _large(image: torch.Tensor, rows: slice, scale: int) -> torch.Tensor:
    """(C, H', W') -> the part of it that the rows become."""
    return image[:, rows.start * scale : rows.stop * scale]


def _patches(image: torch.Tensor, rows: slice, kernel_size: int, groups: int) -> torch.Tensor:
    """(C, H, W) -> (G, h * W, K, C / G): what is around each pixel of the rows."""
    reach = (kernel_size - 1) // 2
    above, below = max(0, rows.start - reach), min(image.shape[1], rows.stop + reach)
    lacking = (reach, reach, reach - (rows.start - above), reach - (below - rows.stop))
    around = F.pad(widened(image)[:, above:below], lacking)
    found = around.unfold(1, kernel_size, 1).unfold(2, kernel_size, 1).flatten(3).flatten(1, 2)  # (C, h * W, K)
    return found.reshape(groups, -1, *found.shape[1:]).permute(0, 2, 3, 1)


def _kernels(masks: torch.Tensor, rows: slice, scale: int, groups: int) -> torch.Tensor:
    """(G * K, H', W') -> (G, h * W, scale^2, K): the kernels of the pixels that each pixel of the rows becomes."""
    its = widened(_large(masks, rows, scale))
    its = its.reshape(groups, -1, rows.stop - rows.start, scale, its.shape[2] // scale, scale)
    return its.permute(0, 2, 4, 3, 5, 1).reshape(groups, -1, scale * scale, its.shape[1])


def _reassembled(kernels: torch.Tensor, patches: torch.Tensor, rows: slice, scale: int) -> torch.Tensor:
    """(C, h * scale, W * scale)."""
    found = torch.matmul(kernels, patches)  # (G, h * W, scale^2, C / G)
    height = rows.stop - rows.start
    found = found.view(found.shape[0], height, -1, scale, scale, found.shape[3])
    return found.permute(0, 5, 1, 3, 2, 4).reshape(
        found.shape[0] * found.shape[5], height * scale, found.shape[2] * scale
    )
