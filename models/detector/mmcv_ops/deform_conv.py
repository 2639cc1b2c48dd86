"""Deformable convolutions: each tap of the kernel looks where its offset says, and as much as its mask says.

Dai et al., "Deformable Convolutional Networks"; Zhu et al., "Deformable ConvNets v2" (the mask).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from models.detector.mmcv_ops.sampling import AT_ONCE, bilinear, weighted_rows, widened


@dataclass(frozen=True)
class _Shape:
    """A convolution's: (height, width) each. deform_groups: how many groups of channels have offsets of their own."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int
    deform_groups: int


def deform_conv_forward(
    input: torch.Tensor,
    weight: torch.Tensor,
    offset: torch.Tensor,
    output: torch.Tensor,
    columns: torch.Tensor,
    ones: torch.Tensor,
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    im2col_step: int,
) -> None:
    """Write the deformable convolution into `output` (B, O, H', W').

    input: (B, C, H, W). weight: (O, C / group, kH, kW). offset: (B, deformable_group * kH * kW * 2, H', W'), y before
    x.
    `columns`, `ones` and `im2col_step` are the compiled op's; they are not used.
    """
    shape = _Shape((kH, kW), (dH, dW), (padH, padW), (dilationH, dilationW), group, deformable_group)
    _convolve(input, weight, offset, None, None, output, shape)


def deform_conv_backward_input(
    input: torch.Tensor,
    offset: torch.Tensor,
    grad_output: torch.Tensor,
    grad_input: torch.Tensor,
    grad_offset: torch.Tensor,
    weight: torch.Tensor,
    columns: torch.Tensor,
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    im2col_step: int,
) -> None:
    """Write the gradients by the input and by the offsets."""
    shape = _Shape((kH, kW), (dH, dW), (padH, padW), (dilationH, dilationW), group, deformable_group)
    _differentiate(input, weight, offset, None, grad_output, shape, grad_input, None, grad_offset, None)


def deform_conv_backward_parameters(
    input: torch.Tensor,
    offset: torch.Tensor,
    grad_output: torch.Tensor,
    grad_weight: torch.Tensor,
    columns: torch.Tensor,
    ones: torch.Tensor,
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    scale: float,
    im2col_step: int,
) -> None:
    """Add the gradient by the weights, times `scale`."""
    shape = _Shape((kH, kW), (dH, dW), (padH, padW), (dilationH, dilationW), group, deformable_group)
    found = torch.zeros_like(widened(grad_weight))
    _differentiate(input, grad_weight, offset, None, grad_output, shape, None, found, None, None)
    grad_weight += (found * scale).to(grad_weight)


def modulated_deform_conv_forward(
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    ones: torch.Tensor,
    offset: torch.Tensor,
    mask: torch.Tensor,
    output: torch.Tensor,
    columns: torch.Tensor,
    kernel_h: int,
    kernel_w: int,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    group: int,
    deformable_group: int,
    with_bias: bool,
) -> None:
    """`deform_conv_forward` with a mask (B, deformable_group * kernel_h * kernel_w, H', W') and a bias (O,)."""
    shape = _Shape(
        (kernel_h, kernel_w), (stride_h, stride_w), (pad_h, pad_w), (dilation_h, dilation_w), group, deformable_group
    )
    _convolve(input, weight, offset, mask, bias if with_bias else None, output, shape)


def modulated_deform_conv_backward(
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    ones: torch.Tensor,
    offset: torch.Tensor,
    mask: torch.Tensor,
    columns: torch.Tensor,
    grad_input: torch.Tensor,
    grad_weight: torch.Tensor,
    grad_bias: torch.Tensor,
    grad_offset: torch.Tensor,
    grad_mask: torch.Tensor,
    grad_output: torch.Tensor,
    kernel_h: int,
    kernel_w: int,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    group: int,
    deformable_group: int,
    with_bias: bool,
) -> None:
    """Write the gradients by all of its arguments."""
    shape = _Shape(
        (kernel_h, kernel_w), (stride_h, stride_w), (pad_h, pad_w), (dilation_h, dilation_w), group, deformable_group
    )
    found = torch.zeros_like(widened(grad_weight))
    _differentiate(input, weight, offset, mask, grad_output, shape, grad_input, found, grad_offset, grad_mask)
    grad_weight += found.to(grad_weight)
    if with_bias:
        grad_bias += grad_output.sum((0, 2, 3)).to(grad_bias)


@dataclass(frozen=True)
class _Part:
    """Some of the places of one image's output.

    image: the image's index. places: of its `count` = H' * W' outputs. y, x: (M, D, K) where the taps of each group
    look without their offsets.
    """

    image: int
    places: slice
    count: int
    y: torch.Tensor
    x: torch.Tensor


def _convolve(
    input: torch.Tensor,
    weight: torch.Tensor,
    offset: torch.Tensor,
    mask: torch.Tensor | None,
    bias: torch.Tensor | None,
    output: torch.Tensor,
    shape: _Shape,
) -> None:
    kernels = _kernels(widened(weight), shape)
    for part in _parts(input, output.shape[2:], shape):
        columns = _columns(
            _table(input[part.image], shape),
            *_of_part(part, offset, mask, shape),
            part,
            (input.shape[2], input.shape[3]),
        )
        found = _product(columns, kernels, shape)
        if bias is not None:
            found = found + widened(bias)
        output[part.image].view(output.shape[1], -1)[:, part.places] = found.T.to(output)


def _differentiate(
    input: torch.Tensor,
    weight: torch.Tensor,
    offset: torch.Tensor,
    mask: torch.Tensor | None,
    grad_output: torch.Tensor,
    shape: _Shape,
    grad_input: torch.Tensor | None,
    grad_weight: torch.Tensor | None,
    grad_offset: torch.Tensor | None,
    grad_mask: torch.Tensor | None,
) -> None:
    """Writes or adds those gradients that are asked for; part by part, as `_convolve` goes."""
    in_order = [None if one is None else torch.zeros(one.shape).to(one) for one in (grad_offset, grad_mask)]
    kernels = _kernels(widened(weight), shape)
    size_hw = (input.shape[2], input.shape[3])
    for part in _parts(input, grad_output.shape[2:], shape):
        table = _table(input[part.image], shape)
        gradient = widened(grad_output[part.image]).reshape(grad_output.shape[1], -1)[:, part.places].T  # (M, O)
        its_offset, its_mask = _of_part(part, offset, mask, shape)
        wanted = [table, its_offset] if its_mask is None else [table, its_offset, its_mask]
        moves = grad_input is not None or grad_offset is not None
        for one in wanted:
            one.requires_grad_(moves)
        with torch.enable_grad():
            columns = _columns(table, its_offset, its_mask, part, size_hw)
        if grad_weight is not None:
            grad_weight += _weights(columns.detach(), gradient, shape).reshape_as(grad_weight)
        if not moves:
            continue
        by_columns = _back(gradient, kernels, shape)
        by_table, by_offset, *by_mask = torch.autograd.grad(columns, wanted, by_columns)
        if grad_input is not None:
            back = by_table.view(*size_hw, input.shape[1]).permute(2, 0, 1)
            grad_input[part.image] += back.to(grad_input)
        for gradient_of, found in zip(in_order, (by_offset, *by_mask), strict=False):
            if gradient_of is not None:
                to = found.flatten(1).T
                _own(gradient_of[part.image], len(to), part).copy_(to)
    for gradient_of, own in zip((grad_offset, grad_mask), in_order, strict=True):
        if gradient_of is not None and own is not None:
            gradient_of.copy_(own)


def _parts(input: torch.Tensor, output_hw: torch.Size, shape: _Shape) -> Iterator[_Part]:
    """The output's places, so many at a time that the columns of none exceed `AT_ONCE`."""
    height, width = output_hw
    (kernel_h, kernel_w), device = shape.kernel, input.device
    taps = kernel_h * kernel_w
    step = max(1, AT_ONCE // (taps * max(input.shape[1], 8 * shape.deform_groups)))
    tap_y = (torch.arange(kernel_h, device=device) * shape.dilation[0])[:, None].expand(-1, kernel_w).reshape(-1)
    tap_x = (torch.arange(kernel_w, device=device) * shape.dilation[1]).expand(kernel_h, -1).reshape(-1)
    for image in range(len(input)):
        for start in range(0, height * width, step):
            place = torch.arange(start, min(start + step, height * width), device=device)
            y = (place // width) * shape.stride[0] - shape.padding[0]
            x = (place % width) * shape.stride[1] - shape.padding[1]
            yield _Part(
                image,
                slice(start, start + step),
                height * width,
                (y[:, None] + tap_y)[:, None].expand(-1, shape.deform_groups, taps),
                (x[:, None] + tap_x)[:, None].expand(-1, shape.deform_groups, taps),
            )


def _table(image: torch.Tensor, shape: _Shape) -> torch.Tensor:
    """(C, H, W) -> (H * W * D, C / D): a row for each pixel and deformable group."""
    return widened(image).permute(1, 2, 0).reshape(-1, image.shape[0] // shape.deform_groups)


def _of_part(
    part: _Part, offset: torch.Tensor, mask: torch.Tensor | None, shape: _Shape
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Offsets (M, D, K, 2) and mask (M, D, K) of the part's places."""
    groups, taps = part.y.shape[1:]
    its_offset = widened(_own(offset[part.image], 2 * groups * taps, part)).T.reshape(-1, groups, taps, 2)
    if mask is None:
        return its_offset.detach(), None
    its_mask = widened(_own(mask[part.image], groups * taps, part)).T.reshape(-1, groups, taps)
    return its_offset.detach(), its_mask.detach()


def _own(of_image: torch.Tensor, rows: int, part: _Part) -> torch.Tensor:
    """(rows, M): what one image's offsets, mask or gradients (rows, H', W') have for the part's places; a view.

    The compiled op does not look at their height and width: it reads what is there as if it were of the output's size.
    DyHead gives it offsets of a larger level, and its weights are trained with what comes of that.
    """
    if not of_image.is_contiguous():
        of_image = of_image.contiguous()
    flat = of_image.view(-1)
    if len(flat) < rows * part.count:
        raise ValueError(f"expected offsets and masks of {rows} x {part.count} values or more, got {len(flat)}")
    return flat[: rows * part.count].view(rows, part.count)[:, part.places]


def _columns(
    table: torch.Tensor, offset: torch.Tensor, mask: torch.Tensor | None, part: _Part, size_hw: tuple[int, int]
) -> torch.Tensor:
    """(M, D, K, C / D): what each tap sees. Differentiable by the table, the offsets and the mask."""
    groups = part.y.shape[1]
    index, weight = bilinear(part.y + offset[..., 0], part.x + offset[..., 1], size_hw)
    if mask is not None:
        weight = weight * mask[..., None]
    index = index * groups + torch.arange(groups, device=index.device)[:, None, None]
    rows = weighted_rows(table, index.view(-1, 4), weight.view(-1, 4))
    return rows.view(*part.y.shape, table.shape[1])


def _grouped(columns: torch.Tensor, shape: _Shape) -> torch.Tensor:
    """(M, D, K, C / D) -> (G, M, K * C / G); without a copy where there is one group of either kind."""
    count, _, taps, _ = columns.shape
    by_tap = columns.transpose(1, 2).reshape(count, taps, shape.groups, -1)
    return by_tap.permute(2, 0, 1, 3).flatten(2)


def _kernels(weight: torch.Tensor, shape: _Shape) -> torch.Tensor:
    """(O, C / G, kH, kW) -> (G, K * C / G, O / G)."""
    by_group = weight.reshape(shape.groups, weight.shape[0] // shape.groups, weight.shape[1], -1)
    return by_group.permute(0, 3, 2, 1).flatten(1, 2)


def _product(columns: torch.Tensor, kernels: torch.Tensor, shape: _Shape) -> torch.Tensor:
    """(M, O)."""
    return torch.bmm(_grouped(columns, shape), kernels).transpose(0, 1).flatten(1)


def _weights(columns: torch.Tensor, gradient: torch.Tensor, shape: _Shape) -> torch.Tensor:
    """The gradient by the weights, (O, C / G, K)."""
    by_group = gradient.reshape(len(gradient), shape.groups, -1).permute(1, 2, 0)
    found = torch.bmm(by_group, _grouped(columns, shape))  # (G, O / G, K * C / G)
    return found.view(gradient.shape[1], columns.shape[2], -1).transpose(1, 2)


def _back(gradient: torch.Tensor, kernels: torch.Tensor, shape: _Shape) -> torch.Tensor:
    """(M, O) gradient by the output -> by the columns, (M, D, K, C / D)."""
    by_group = gradient.reshape(len(gradient), shape.groups, -1).transpose(0, 1)
    count, taps = len(gradient), shape.kernel[0] * shape.kernel[1]
    by_columns = torch.bmm(by_group, kernels.transpose(1, 2)).view(shape.groups, count, taps, -1)
    by_tap = by_columns.permute(1, 2, 0, 3).reshape(count, taps, shape.deform_groups, -1)
    return by_tap.transpose(1, 2)
