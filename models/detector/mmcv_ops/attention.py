"""Multi-scale deformable attention on devices other than the CPU, where mmcv asks for its compiled op.

mmcv has the same in plain torch, which it takes on the CPU.
"""

from __future__ import annotations

import torch


def ms_deform_attn_forward(
    value: torch.Tensor,
    value_spatial_shapes: torch.Tensor,
    value_level_start_index: torch.Tensor,
    sampling_locations: torch.Tensor,
    attention_weights: torch.Tensor,
    im2col_step: int,
) -> torch.Tensor:
    """(B, V, heads, D) values of all levels, (B, Q, heads, L, P, 2) locations in 0..1 -> (B, Q, heads * D)."""
    from mmcv.ops.multi_scale_deform_attn import multi_scale_deformable_attn_pytorch  # mmcv.ops imports this package

    found: torch.Tensor = multi_scale_deformable_attn_pytorch(
        value, value_spatial_shapes, sampling_locations, attention_weights
    )
    return found


def ms_deform_attn_backward(
    value: torch.Tensor,
    value_spatial_shapes: torch.Tensor,
    value_level_start_index: torch.Tensor,
    sampling_locations: torch.Tensor,
    attention_weights: torch.Tensor,
    grad_output: torch.Tensor,
    grad_value: torch.Tensor,
    grad_sampling_loc: torch.Tensor,
    grad_attn_weight: torch.Tensor,
    im2col_step: int,
) -> None:
    """Write the gradients by the values, the locations and the weights."""
    inputs = [one.detach().requires_grad_() for one in (value, sampling_locations, attention_weights)]
    with torch.enable_grad():
        found = ms_deform_attn_forward(
            inputs[0], value_spatial_shapes, value_level_start_index, inputs[1], inputs[2], im2col_step
        )
    gradients = torch.autograd.grad(found, inputs, grad_output)
    for to, gradient in zip((grad_value, grad_sampling_loc, grad_attn_weight), gradients, strict=True):
        to.copy_(gradient)
