"""SAM 3's detector by texts and exemplars, against transformers' `Sam3Model` and what its processor does.

`Sam3Processor` needs torchvision, and so does the model where exemplars are given: what they do with it is computed
here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import Sam3Config, Sam3Model
from transformers.models.sam3 import modeling_sam3

from benchmarks.segmenter_reference import random_weights
from models.checkpoints import ModelFilesError
from models.demo.scenes import render_scene
from models.detector.families import DETECTORS
from models.detector.huggingface import concepts
from models.detector.huggingface.concepts import ConceptDetector
from models.rle import decode_rle
from models.types import Detections, Exemplars, TextsError
from tests.models.detector.huggingface.tiny_detectors import tokenizer
from tests.models.segmenter.random_sams import SAM3_IMAGE_SIZE, random_sam3_video, sam3_config

SIZE_HW = (90, 120)
EXEMPLARS = Exemplars(((10.0, 10, 60, 70), (40, 5, 119, 88), (3, 4, 6, 7)), (1, 0, 1))


def write(folder: Path, network: Any) -> None:
    network.save_pretrained(folder)
    tokenizer("owlv2").save_pretrained(folder)


def text_values() -> dict[str, Any]:
    made = tokenizer("owlv2")
    ids = {f"{name}_token_id": getattr(made, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    return {"vocab_size": 300, **ids}


@pytest.fixture(scope="module")
def network() -> Any:
    torch.manual_seed(0)
    made = random_weights(Sam3Model(Sam3Config(**sam3_config(**text_values()))), 3)
    with torch.no_grad():  # not all objects at one place, nor all certain
        made.detr_decoder.box_head.layer3.weight.mul_(0.3)
    return made


@pytest.fixture(scope="module")
def folder(network: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("sam3")
    write(made, network)
    return made


@pytest.fixture(scope="module")
def detector(folder: Path) -> ConceptDetector:
    return ConceptDetector.load(folder)


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    return render_scene(np.random.default_rng(5), SIZE_HW).image


def slow_roi_align(features: torch.Tensor, boxes: tuple[torch.Tensor, ...], side: int) -> torch.Tensor:
    """torchvision's, with its default arguments: means of bilinear samples, as many as a bin is large."""

    def sample(plane: torch.Tensor, y: float, x: float) -> torch.Tensor:
        height, width = plane.shape[1:]
        if not (-1 <= y <= height and -1 <= x <= width):
            return torch.zeros(len(plane))
        y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
        top, left = int(y), int(x)
        bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
        b, r = y - top, x - left
        above = plane[:, top, left] * (1 - r) + plane[:, top, right] * r
        return above * (1 - b) + (plane[:, bottom, left] * (1 - r) + plane[:, bottom, right] * r) * b

    pooled = []
    for plane, its in zip(features, boxes, strict=True):
        for x1, y1, x2, y2 in its.tolist():
            height, width = max(y2 - y1, 1) / side, max(x2 - x1, 1) / side
            rows, columns = int(np.ceil(height)), int(np.ceil(width))
            bins = [
                torch.stack([
                    sample(plane, y1 + height * (i + (a + 0.5) / rows), x1 + width * (j + (b + 0.5) / columns))
                    for a in range(rows)
                    for b in range(columns)
                ]).mean(0)
                for i in range(side)
                for j in range(side)
            ]  # fmt: skip
            pooled.append(torch.stack(bins, dim=1).view(-1, side, side))
    return torch.stack(pooled)


@pytest.fixture
def with_torchvision(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    stand_in = SimpleNamespace(ops=SimpleNamespace(roi_align=slow_roi_align))
    monkeypatch.setattr(modeling_sam3, "torchvision", stand_in, raising=False)
    yield


def by_transformers(
    network: Any, image: np.ndarray, text: str, exemplars: Exemplars | None = None, threshold: float = 0.3
) -> dict[str, np.ndarray]:
    """What `Sam3Processor` and `Sam3Model` find, best first."""
    height, width = image.shape[:2]
    resized = np.asarray(Image.fromarray(image).resize((SAM3_IMAGE_SIZE,) * 2, Image.Resampling.BILINEAR))
    pixels = torch.from_numpy((resized / 255.0 - 0.5) / 0.5).permute(2, 0, 1)[None].float()
    inputs = dict(tokenizer("owlv2")(text, return_tensors="pt", padding="max_length", max_length=32))
    if exemplars is not None:
        x1, y1, x2, y2 = (torch.tensor(exemplars.boxes_xyxy) / torch.tensor([width, height] * 2)).unbind(1)
        inputs["input_boxes"] = torch.stack([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1], dim=1)[None]
        inputs["input_boxes_labels"] = torch.tensor([exemplars.labels])
    with torch.inference_mode():
        outputs = network(pixel_values=pixels, **inputs)
        scores = (outputs.pred_logits.sigmoid() * outputs.presence_logits.sigmoid())[0]
        order = scores.argsort(descending=True)
        order = order[scores[order] > threshold]
        boxes = outputs.pred_boxes[0][order] * torch.tensor([width, height] * 2)
        masks = F.interpolate(
            outputs.pred_masks[0][order].sigmoid()[None], SIZE_HW, mode="bilinear", align_corners=False
        )
    limits = np.array([width, height] * 2, np.float32)
    return {"scores": scores[order].numpy(), "boxes": boxes.numpy().clip(0, limits), "masks": masks[0].numpy() > 0.5}


def check_same(found: Detections, theirs: dict[str, np.ndarray]) -> None:
    assert len(found) == len(theirs["scores"])
    np.testing.assert_allclose(found.scores, theirs["scores"], rtol=0, atol=1e-4)
    np.testing.assert_allclose(found.boxes_xyxy, theirs["boxes"], rtol=0, atol=1e-4 * max(SIZE_HW))
    assert found.masks is not None
    ours = np.stack([decode_rle(mask) for mask in found.masks])
    assert (ours == theirs["masks"]).mean() >= 0.999


@pytest.mark.parametrize("text", ["can", "milk carton"])
def test_what_a_text_names_is_found_as_by_transformers(
    text: str, network: Any, detector: ConceptDetector, photo: np.ndarray
) -> None:
    theirs = by_transformers(network, photo, text, threshold=0.0)
    assert len(theirs["scores"]) == 12 and np.ptp(theirs["scores"]) > 0.01
    assert 0.02 < theirs["masks"].mean() < 0.98 and np.ptp(theirs["masks"].mean((1, 2))) > 0.02
    (found,) = detector.detect([photo], texts=[text], score_threshold=0.0)
    check_same(found, theirs)


def test_exemplars_are_read_as_by_transformers(
    with_torchvision: None, network: Any, detector: ConceptDetector, photo: np.ndarray
) -> None:
    seen = []
    for texts, exemplars in (
        (["can"], EXEMPLARS),
        ([], EXEMPLARS),
        ([], Exemplars(EXEMPLARS.boxes_xyxy, (1, 1, 1))),
        ([], Exemplars(EXEMPLARS.boxes_xyxy[:1], (1,))),
    ):
        theirs = by_transformers(network, photo, texts[0] if texts else "visual", exemplars, threshold=0.0)
        (found,) = detector.detect([photo], texts=texts, exemplars=exemplars, score_threshold=0.0)
        check_same(found, theirs)
        seen.append(found.scores)
    for i, first in enumerate(seen):
        assert all(np.abs(first - second).max() > 1e-3 for second in seen[:i]), "nobody reads the exemplars"


def test_several_texts_are_found_each_for_itself(detector: ConceptDetector, photo: np.ndarray) -> None:
    (both,) = detector.detect([photo], texts=["can", "milk carton"], score_threshold=0.0)
    assert (np.diff(both.scores) <= 0).all() and len(both) == 24
    for label, text in enumerate(["can", "milk carton"]):
        (alone,) = detector.detect([photo], texts=[text], score_threshold=0.0)
        np.testing.assert_allclose(both.scores[both.labels == label], alone.scores, rtol=0, atol=1e-6)
        np.testing.assert_allclose(both.boxes_xyxy[both.labels == label], alone.boxes_xyxy, rtol=0, atol=1e-3)


def test_of_many_objects_the_best_are_kept_with_their_masks(
    detector: ConceptDetector, photo: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    (all_of_them,) = detector.detect([photo], texts=["can", "milk carton"], score_threshold=0.0)
    monkeypatch.setattr(concepts, "_MOST", 7)
    (best,) = detector.detect([photo], texts=["can", "milk carton"], score_threshold=0.0)
    np.testing.assert_array_equal(best.scores, all_of_them.scores[:7])
    np.testing.assert_array_equal(best.labels, all_of_them.labels[:7])
    assert best.masks is not None and all_of_them.masks is not None
    for one, other in zip(best.masks, all_of_them.masks, strict=False):
        np.testing.assert_array_equal(decode_rle(one), decode_rle(other))


def test_thresholds_and_numbers(detector: ConceptDetector, photo: np.ndarray) -> None:
    (found,) = detector.detect([photo], texts=["can"], score_threshold=0.0)
    middle = float(np.median(found.scores))
    (few,) = detector.detect([photo], texts=["can"], score_threshold=middle)
    assert 0 < len(few) == (found.scores > middle).sum() < len(found)
    (two,) = detector.detect([photo], texts=["can"], score_threshold=0.0, max_detections=2, masks=False)
    assert len(two) == 2 and two.masks is None
    (raw,) = detector.forward([detector.preprocess(photo, ["can"])])
    assert raw.is_numbers
    assert not replace(raw, masks=raw.masks * torch.nan).is_numbers


def test_bfloat16_finds_what_float32_finds(folder: Path, detector: ConceptDetector, photo: np.ndarray) -> None:
    half = ConceptDetector.load(folder, dtype=torch.bfloat16)
    for texts, exemplars in ((["can"], None), ([], EXEMPLARS)):
        ours, theirs = (
            one.detect([photo], texts=texts, exemplars=exemplars, score_threshold=0.0)[0] for one in (half, detector)
        )
        np.testing.assert_allclose(np.sort(ours.scores), np.sort(theirs.scores), rtol=0, atol=0.1)


def without_text_model(folder: Path) -> None:
    """As some releases of transformers write the text encoder, and the published folder has it."""
    weights = load_file(folder / "model.safetensors")
    assert sum("text_encoder.text_model." in name for name in weights) > 10
    save_file({n.replace(".text_model.", "."): w for n, w in weights.items()}, folder / "model.safetensors")


@pytest.mark.parametrize("change", [lambda folder: None, without_text_model])
def test_the_folder_of_a_model_of_videos(change: Callable[[Path], None], tmp_path: Path, photo: np.ndarray) -> None:
    video = random_sam3_video(**text_values())
    write(tmp_path, video)
    change(tmp_path)
    assert DETECTORS.of(tmp_path) is ConceptDetector
    (found,) = ConceptDetector.load(tmp_path).detect([photo], texts=["can"], score_threshold=0.0)
    check_same(found, by_transformers(video.detector_model, photo, "can", threshold=0.0))


def test_clicks_are_answered_while_an_image_is_looked_at(detector: ConceptDetector, photo: np.ndarray) -> None:
    sample, calls = detector.preprocess(photo, ["can", "milk carton"]), []
    (calm,) = detector.forward([sample])
    (found,) = detector.forward([sample], lambda: calls.append(None))
    assert len(calls) > 50 and torch.equal(found.scores, calm.scores)


def test_what_is_wrong_is_told(folder: Path, detector: ConceptDetector, photo: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(TextsError, match="expected at most 32 tokens for the text 'milk"):
        detector.preprocess(photo, ["milk " * 40])
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    with pytest.raises(ModelFilesError, match="expected the tokenizer by which it reads texts"):
        ConceptDetector.load(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    config["detr_decoder_config"]["num_queries"] = 5
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelFilesError, match="of another shape: detr_decoder.query_embed.weight"):
        ConceptDetector.load(tmp_path)
