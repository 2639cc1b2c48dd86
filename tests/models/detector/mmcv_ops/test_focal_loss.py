"""The focal loss and its gradient."""

from __future__ import annotations

import pytest
import torch

from models.detector.mmcv_ops import focal_loss

pytestmark = pytest.mark.filterwarnings("ignore")  # mmdet's and mmcv's own, on import


@pytest.mark.parametrize("weighted", [False, True])
def test_focal_loss_and_gradient_equal_the_formula(weighted: bool) -> None:
    torch.manual_seed(0)
    count, classes, gamma, alpha = 60, 5, 2.0, 0.25
    logits = (torch.randn(count, classes, dtype=torch.float64) * 5).requires_grad_()
    target = torch.randint(0, classes if weighted else classes + 1, (count,))  # `classes` is the background
    weight = torch.rand(classes, dtype=torch.float64) if weighted else torch.zeros(0, dtype=torch.float64)

    one_hot = torch.nn.functional.one_hot(target, classes + 1)[:, :classes].double()
    p = logits.sigmoid()
    expected = -alpha * one_hot * (1 - p) ** gamma * p.log() - (1 - alpha) * (1 - one_hot) * p**gamma * (1 - p).log()
    if weighted:
        expected = expected * weight[target][:, None]
    expected.sum().backward()

    loss, gradient = torch.zeros(count, classes).double(), torch.zeros(count, classes).double()
    focal_loss.sigmoid_focal_loss_forward(logits.detach(), target, weight, loss, gamma=gamma, alpha=alpha)
    focal_loss.sigmoid_focal_loss_backward(logits.detach(), target, weight, gradient, gamma=gamma, alpha=alpha)
    torch.testing.assert_close(loss, expected.detach(), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(gradient, logits.grad, rtol=1e-9, atol=1e-12)


def test_focal_loss_through_mmcv_equals_mmdets_python_form() -> None:
    """mmdet calls the op for CUDA tensors and its own Python for CPU ones; training must not notice."""
    from mmdet.models.losses.focal_loss import py_sigmoid_focal_loss, sigmoid_focal_loss

    torch.manual_seed(0)
    start = torch.randn(40, 4) * 3
    start[0, 0], start[1, 1] = 60.0, -60.0  # where a sigmoid has rounded to 1 and 0
    target = torch.randint(0, 5, (40,))
    one_hot = torch.nn.functional.one_hot(target, 5)[:, :4]
    ours, theirs = start.clone().requires_grad_(), start.clone().requires_grad_()
    loss = sigmoid_focal_loss(ours, target, reduction="sum")
    expected = py_sigmoid_focal_loss(theirs, one_hot, reduction="sum")
    loss.backward()
    expected.backward()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(ours.grad, theirs.grad)
