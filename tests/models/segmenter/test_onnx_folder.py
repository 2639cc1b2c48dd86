"""SAM-HQ and SAM 2 as ONNX: ONNX Runtime, following model.json alone, against the segmenter that the service has.

`tests/examples/test_onnx_decoder.py` does the same with the demo SAM, by the command and beside a service.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models.segmenter import onnx_folder
from models.segmenter.families import SEGMENTERS
from models.segmenter.onnx_folder import DECODER, DESCRIPTION, ENCODER, OnnxError, write_onnx
from models.segmenter.protocol import DecodeRequest
from models.segmenter.sam2 import Sam2
from models.types import Prompts
from tests.models.segmenter.random_sams import random_edgetam, random_sam2, random_sam_hq

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from examples.onnx_decoder import Model  # noqa: E402

# Some of whose single masks are stable, so that others make way for one of three.
FAMILIES: dict[str, Callable[[], Any]] = {
    "sam_hq": random_sam_hq,
    "sam2": lambda: random_sam2(1, dynamic_multimask_stability_thresh=0.9),
    "edgetam": lambda: random_edgetam(3),
}


@pytest.fixture(scope="module", params=FAMILIES)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """A fast segmenter, and the folder that was exported from the same files: SAM 2's as that of a large model."""
    folder = tmp_path_factory.mktemp(request.param)
    FAMILIES[request.param]().save_pretrained(folder / "hugging_face")
    family = SEGMENTERS.of(folder / "hugging_face")
    plain = family.load(folder / "hugging_face", "cpu", torch.float32, fast=False)
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "sam2":
            patch.setattr(onnx_folder, "MOST_INSIDE", 0)
        write_onnx(plain, folder / "onnx", {"name": request.param, "sha256": "0"})
    return family.load(folder / "hugging_face", "cpu", torch.float32, fast=True), folder / "onnx"


def picture(height: int, width: int) -> np.ndarray:
    rng = np.random.default_rng(height * width)
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    image[height // 4 : height // 2, width // 4 : width // 2] = (220, 200, 40)
    return image


def kinds(height: int, width: int, side: int) -> dict[str, Prompts]:
    """Every kind of prompt, one and many, on an image of this size."""
    rng = np.random.default_rng(0)
    low, high = rng.uniform(0, 0.4, (7, 2)), rng.uniform(0.6, 1, (7, 2))
    boxes = np.concatenate([low, high], axis=1) * (width, height, width, height)
    points = rng.uniform(0, 1, (7, 2, 2)) * (width, height)
    labels = rng.integers(0, 2, (7, 2))
    logits = tuple(rng.normal(0, 4, (7, side, side)).astype(np.float32))
    return {
        "a point": Prompts(points[:1, :1], np.ones((1, 1), np.int64)),
        "many prompts of points": Prompts(points, labels),
        "a box": Prompts(boxes_xyxy=boxes[:1]),
        "many boxes": Prompts(boxes_xyxy=boxes),
        "boxes and points": Prompts(points, labels, boxes),
        "boxes and masks": Prompts(boxes_xyxy=boxes, mask_logits=logits),
        "a mask": Prompts(mask_logits=logits[:1]),
    }


@pytest.mark.parametrize("size_hw", [(90, 120), (128, 128), (301, 77)])
def test_onnx_runtime_gives_the_masks_of_the_service(exported: tuple[Any, Path], size_hw: tuple[int, int]) -> None:
    segmenter, folder = exported
    model, image = Model(folder), picture(*size_hw)
    (embedding,) = segmenter.embed([segmenter.preprocess(image)])
    features = model.encode(image)
    for name, expected in segmenter.named_features(embedding.features[None]).items():
        assert np.abs(features[name] - expected.numpy()).max() < 1e-3 * expected.abs().max()
    seen = []
    for kind, prompts in kinds(*size_hw, segmenter.mask_side).items():
        logits = None if prompts.mask_logits is None else np.stack(prompts.mask_logits)
        given = (prompts.points_xy, prompts.point_labels, prompts.boxes_xyxy, logits)
        for multimask in (False, True):
            (raw,) = segmenter.decode_batch([DecodeRequest(embedding, prompts, multimask)])
            expected = np.stack([segmenter.postprocess(raw, index) for index in range(len(prompts))])
            masks, scores, low = model.decode(features, size_hw, *given, multimask=multimask)
            assert masks.shape == expected.shape, kind
            iou = (masks & expected).sum() / (masks | expected).sum()
            assert iou >= 0.99, (kind, multimask)
            assert np.abs(scores - raw.iou_scores).max() < 1e-3, kind
            assert np.abs(low - raw.logits.numpy()).max() < 1e-2 * raw.logits.abs().max(), kind
            seen.append(masks[0, 0])
    assert 0.01 < np.mean(seen) < 0.99 and any((seen[0] != other).any() for other in seen)


def test_the_folder_says_all_that_is_to_be_known(exported: tuple[Any, Path]) -> None:
    segmenter, folder = exported
    weights = [f"{one}.data" for one in (ENCODER, DECODER) if type(segmenter) is Sam2]
    assert sorted(path.name for path in folder.iterdir()) == sorted([DECODER, ENCODER, DESCRIPTION, *weights])
    about = json.loads((folder / DESCRIPTION).read_text())
    for part in ("encoder", "decoder"):
        session = onnxruntime.InferenceSession(folder / about[part]["file"])
        assert [one.name for one in session.get_inputs()] == about[part]["inputs"]
        assert [one.name for one in session.get_outputs()] == about[part]["outputs"]
    assert about["image"]["size"] == segmenter.image_size and len(about["image"]["mean"]) == 3
    assert about["sha256"] == "0"


class NotExported:
    """A segmenter of a family that has no graphs."""

    def graphs(self) -> None:
        return None


def test_what_cannot_be_written_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    segmenter: Any = NotExported()
    with pytest.raises(OnnxError, match=r"tiny: expected a SAM, SAM-HQ or SAM 2 \(2.1\), found NotExported"):
        write_onnx(segmenter, tmp_path / "new", {"name": "tiny"})
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(OnnxError, match=r"no onnxscript here.*pip install .*'\.\[onnx\]'"):
        write_onnx(segmenter, tmp_path / "new", {"name": "tiny"})
    assert not list(tmp_path.iterdir())
