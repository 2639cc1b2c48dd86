from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from models.detector import mmcv_ops

pytestmark = pytest.mark.filterwarnings("ignore")  # mmdet's and mmcv's own, on import
compiled = not mmcv_ops.install()


def greedy_nms(boxes: torch.Tensor, scores: torch.Tensor, threshold: float, offset: int) -> list[int]:
    """The textbook loop, in numpy's float32: take the best box left, drop what overlaps it."""
    x1, y1, x2, y2 = boxes.numpy().T
    areas = (x2 - x1 + np.float32(offset)) * (y2 - y1 + np.float32(offset))
    left = sorted(range(len(boxes)), key=lambda i: -scores[i].item())  # stable
    kept: list[int] = []
    while left:
        best = left.pop(0)
        kept.append(best)
        others = np.array(left, dtype=int)
        width = np.minimum(x2[best], x2[others]) - np.maximum(x1[best], x1[others]) + np.float32(offset)
        height = np.minimum(y2[best], y2[others]) - np.maximum(y1[best], y1[others]) + np.float32(offset)
        intersection = np.where((width > 0) & (height > 0), width * height, np.float32(0))
        with np.errstate(invalid="ignore"):
            iou = intersection / (areas[best] + areas[others] - intersection)
        left = [other for other, value in zip(left, iou, strict=True) if not value > np.float32(threshold)]
    return kept


def random_boxes(count: int, extent: float, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Boxes on a half-pixel grid (many touch, some coincide) with scores of which many are equal."""
    generator = torch.Generator().manual_seed(seed)
    corners = (torch.rand(count, 2, generator=generator) * extent * 2).round() / 2
    sides = (torch.rand(count, 2, generator=generator) * 60).round() / 2
    return torch.cat([corners, corners + sides], 1), torch.rand(count, generator=generator).mul(200).round() / 200


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("threshold", [0.1, 0.5])
def test_nms_equals_the_greedy_loop(threshold: float, offset: int) -> None:
    boxes, scores = random_boxes(1200, extent=300)
    kept = mmcv_ops.nms(boxes, scores, threshold, offset)
    assert kept.dtype == torch.int64
    assert kept.tolist() == greedy_nms(boxes, scores, threshold, offset)
    assert 50 < len(kept) < 1150


def test_nms_does_not_depend_on_the_size_of_its_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    boxes, scores = random_boxes(2500, extent=200)
    whole = mmcv_ops.nms(boxes, scores, 0.3)
    monkeypatch.setattr(mmcv_ops, "BLOCK", 37)
    assert torch.equal(mmcv_ops.nms(boxes, scores, 0.3), whole)


def test_nms_settles_a_chain_in_which_every_second_box_survives() -> None:
    starts = torch.arange(400.0)[:, None]
    boxes = torch.cat([starts, torch.zeros(400, 1), starts + 2, torch.ones(400, 1)], 1)  # neighbours: IoU 1/3
    kept = mmcv_ops.nms(boxes, torch.linspace(1, 0, 400), 0.2)
    assert kept.tolist() == list(range(0, 400, 2))


def test_nms_keeps_touching_boxes_and_an_iou_that_equals_the_threshold() -> None:
    boxes = torch.tensor([[0.0, 0, 2, 2], [2, 0, 4, 2], [0, 0, 2, 1]])  # IoU of the first and the last: 0.5
    scores = torch.tensor([0.9, 0.9, 0.8])
    assert mmcv_ops.nms(boxes, scores, 0.5).tolist() == [0, 1, 2]
    assert mmcv_ops.nms(boxes, scores, 0.499).tolist() == [0, 1]
    assert mmcv_ops.nms(boxes, scores, 0.0).tolist() == [0, 1]
    assert mmcv_ops.nms(boxes, scores, 0.0, offset=1).tolist() == [0]  # there, sharing an edge is overlapping


def test_nms_takes_no_boxes_empty_boxes_and_half_precision() -> None:
    assert mmcv_ops.nms(torch.zeros(0, 4), torch.zeros(0), 0.5).tolist() == []
    assert mmcv_ops.nms(torch.ones(3, 4), torch.tensor([0.1, 0.3, 0.2]), 0.5).tolist() == [1, 2, 0]
    same = torch.tensor([[300.0, 300, 400, 400]] * 2, dtype=torch.bfloat16)
    assert mmcv_ops.nms(same, torch.tensor([0.5, 0.6]), 0.9).tolist() == [1]


def test_mmcv_calls_it_per_class() -> None:
    from mmcv.ops import batched_nms

    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 10]])
    scores, labels = torch.tensor([0.5, 0.9, 0.8]), torch.tensor([0, 0, 1])
    dets, kept = batched_nms(boxes, scores, labels, {"type": "nms", "iou_threshold": 0.6})
    assert kept.tolist() == [1, 2]
    assert torch.equal(dets, torch.cat([boxes[kept], scores[kept, None]], 1))


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
    mmcv_ops.sigmoid_focal_loss_forward(logits.detach(), target, weight, loss, gamma=gamma, alpha=alpha)
    mmcv_ops.sigmoid_focal_loss_backward(logits.detach(), target, weight, gradient, gamma=gamma, alpha=alpha)
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


@pytest.mark.skipif(compiled, reason="this mmcv has its ops compiled")
def test_another_op_names_itself_when_called() -> None:
    from mmcv.ops import roi_align, soft_nms

    with pytest.raises(mmcv_ops.MissingOpError, match=r"'softnms'.*full 'mmcv'"):
        soft_nms(torch.zeros(1, 4), torch.zeros(1))
    with pytest.raises(mmcv_ops.MissingOpError, match="'roi_align_forward'"):
        roi_align(torch.zeros(1, 1, 4, 4), torch.zeros(1, 5), (2, 2))


@pytest.mark.skipif(compiled, reason="this mmcv has its ops compiled")
def test_install_is_idempotent_and_the_module_has_a_spec() -> None:
    extension = importlib.import_module(mmcv_ops.EXTENSION)
    assert mmcv_ops.install()
    assert importlib.import_module(mmcv_ops.EXTENSION) is extension
    assert importlib.util.find_spec(mmcv_ops.EXTENSION).name == mmcv_ops.EXTENSION


def run_with_extension(tmp_path: Path, source: str) -> subprocess.CompletedProcess:
    """In a fresh interpreter: install() where mmcv's folder on the path has this `_ext`."""
    package = tmp_path / "mmcv"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "_ext.py").write_text(source)
    program = f"""
import sys
sys.path[:0] = [{str(tmp_path)!r}, {str(Path(mmcv_ops.__file__).parents[1])!r}]
from models.detector import mmcv_ops
installed = mmcv_ops.install()
import mmcv._ext
print(installed, mmcv._ext.nms)
"""
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)


def test_a_compiled_extension_is_left_alone(tmp_path: Path) -> None:
    outcome = run_with_extension(tmp_path, "nms = 'compiled'")
    assert outcome.stdout.split() == ["False", "compiled"], outcome.stderr


@pytest.mark.parametrize(
    ("source", "reason"),
    [("raise ImportError('undefined symbol: _ZN2at')", "undefined symbol"), ("import absent_part", "absent_part")],
)
def test_a_compiled_extension_that_does_not_load_is_not_hidden(tmp_path: Path, source: str, reason: str) -> None:
    outcome = run_with_extension(tmp_path, source)
    assert outcome.returncode != 0
    assert reason in outcome.stderr
