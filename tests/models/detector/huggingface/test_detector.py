"""Hugging Face's detectors against transformers itself: its image processor, its model, its post-processing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from models.detector.families import DETECTORS
from models.detector.huggingface.detector import HuggingFaceDetector
from models.detector.huggingface.square import resized_square
from models.types import Detections, TextsError
from tests.models.detector.huggingface import tiny_detectors
from tests.models.detector.huggingface.tiny_detectors import KINDS, OPEN_KINDS, RF_DETR_PROCESSOR

FolderOf = Callable[[str], Path]
SIZES = ((101, 67), (50, 133), (7, 40), (64, 96), (31, 29))
TEXTS = ("milk carton", "can", "bottle")
_PROCESSORS = {
    "grounding-dino": "GroundingDinoProcessor",
    "mm-grounding-dino": "GroundingDinoProcessor",
    "owlv2": "Owlv2Processor",
    "owlvit": "OwlViTProcessor",
}


@pytest.fixture(scope="module")
def pictures(picture: Callable[..., np.ndarray]) -> list[np.ndarray]:
    return [picture(*size, seed=seed) for seed, size in enumerate(SIZES)]


def by_transformers(kind: str, folder: Path, image: np.ndarray) -> dict[str, torch.Tensor]:
    """The boxes of one image, by transformers alone."""
    network = transformers.AutoModelForObjectDetection.from_pretrained(folder)
    size_hw = image.shape[:2]
    if kind == "rf_detr":  # its image processor is there only for torchvision; this is what that does
        pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
        pixels = torch.nn.functional.interpolate(pixels, (56, 56), mode="bilinear", align_corners=False)
        mean, std = (torch.tensor(RF_DETR_PROCESSOR[f"image_{name}"]).view(3, 1, 1) for name in ("mean", "std"))
        with torch.no_grad():
            outputs = network(pixel_values=(pixels - mean) / std)
        scores, places = outputs.logits[0].sigmoid().flatten().topk(12)
        centre, extent = outputs.pred_boxes[0][places // 3].chunk(2, dim=1)
        boxes = torch.cat([centre - extent / 2, centre + extent / 2], dim=1) * torch.tensor([*size_hw[::-1]] * 2)
        return {"scores": scores, "labels": places % 3, "boxes": boxes}
    processor = tiny_detectors.processor(kind)
    inputs = processor(images=[Image.fromarray(image)], return_tensors="pt")
    if kind == "yolos":  # takes no mask
        inputs = {"pixel_values": inputs["pixel_values"]}
    with torch.no_grad():
        outputs = network(**inputs)
    (found,) = processor.post_process_object_detection(outputs, threshold=0.0, target_sizes=[size_hw])
    return found


def check_same(found: Detections, theirs: dict[str, Any], *, labels: bool = True) -> None:
    order = torch.argsort(theirs["scores"], descending=True, stable=True)
    height, width = found.size_hw
    sides = np.array([width, height] * 2)
    np.testing.assert_allclose(found.scores, theirs["scores"][order], atol=1e-4)
    np.testing.assert_allclose(found.boxes_xyxy / sides, (theirs["boxes"][order].numpy() / sides).clip(0, 1), atol=1e-4)
    if labels:
        assert found.labels.tolist() == theirs["labels"][order].tolist()


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        ("grounding-dino", {"num_queries": 100}),
        ("mm-grounding-dino", {"num_queries": 100}),
        ("deformable_detr", {"two_stage": True, "with_box_refine": True, "two_stage_num_proposals": 100}),
    ],
)
def test_an_image_may_have_fewer_places_than_there_are_queries(
    tmp_path: Path, kind: str, config: dict[str, Any]
) -> None:
    """transformers 5.23 fails for it: it takes the best queries of all places, and there are not as many."""
    detector = HuggingFaceDetector.load(tiny_detectors.write(tmp_path, kind, config=config))
    texts = ("can",) if detector.takes_texts else ()
    for size in ((2, 150), (150, 2)):
        [found] = detector.detect([np.zeros((*size, 3), np.uint8)], texts=texts, score_threshold=0.0)
        assert len(found) and np.isfinite(found.boxes_xyxy).all()


@pytest.mark.parametrize("kind", KINDS)
def test_boxes_are_those_of_transformers(kind: str, folder_of: FolderOf, pictures: list[np.ndarray]) -> None:
    detector = HuggingFaceDetector.load(folder_of(kind))
    assert detector.class_names == ("can", "carton", "milk bottle") and not detector.takes_texts
    for found, image in zip(detector.detect(pictures, score_threshold=0.0), pictures, strict=True):
        check_same(found, by_transformers(kind, folder_of(kind), image))
        assert len(found) >= 12 and found.boxes_xyxy.std(axis=0).max() > 0.1  # or the test would see nothing


@pytest.mark.parametrize("kind", OPEN_KINDS)
def test_what_texts_name_is_found_as_by_transformers(
    kind: str, folder_of: FolderOf, pictures: list[np.ndarray]
) -> None:
    detector = HuggingFaceDetector.load(folder_of(kind))
    assert detector.class_names == () and detector.takes_texts
    network = transformers.AutoModelForZeroShotObjectDetection.from_pretrained(folder_of(kind))
    processor = getattr(transformers, _PROCESSORS[kind])(tiny_detectors.processor(kind), tiny_detectors.tokenizer(kind))
    for found, image in zip(detector.detect(pictures, texts=TEXTS, score_threshold=0.0), pictures, strict=True):
        inputs = processor(images=Image.fromarray(image), text=[list(TEXTS)], return_tensors="pt")
        with torch.no_grad():
            outputs = network(**inputs)
        more: dict[str, Any] = {"input_ids": inputs.input_ids} if "dino" in kind else {}
        (theirs,) = processor.post_process_grounded_object_detection(
            outputs, threshold=0.0, target_sizes=[image.shape[:2]], **more
        )
        check_same(found, theirs, labels="dino" not in kind)
        if "dino" in kind:  # theirs is every token that is likely enough; ours the text with the likeliest token
            order = torch.argsort(theirs["scores"], descending=True, stable=True)
            tokens = outputs.logits[0].sigmoid()[order]
            spans = {"milk carton": slice(1, 3), "can": slice(4, 5), "bottle": slice(6, 7)}
            best = torch.stack([tokens[:, span].amax(dim=1) for span in spans.values()], dim=1).argmax(dim=1)
            assert found.labels.tolist() == best.tolist()


@pytest.mark.parametrize("kind", ["rt_detr_v2", "rf_detr", "deformable_detr", "yolos", "grounding-dino", "owlv2"])
def test_a_batch_gives_what_each_image_would_alone(kind: str, folder_of: FolderOf, pictures: list[np.ndarray]) -> None:
    texts = TEXTS if kind in OPEN_KINDS else ()
    detector = HuggingFaceDetector.load(folder_of(kind))
    images = [*pictures, pictures[0][:, ::-1].copy()]
    together = detector.detect(images, texts=texts, score_threshold=0.0)
    for found, image in zip(together, images, strict=True):
        (alone,) = detector.detect([image], texts=texts, score_threshold=0.0)
        np.testing.assert_allclose(found.scores, alone.scores, atol=1e-4)
        np.testing.assert_allclose(found.boxes_xyxy, alone.boxes_xyxy, atol=0.02)
    assert abs(together[0].boxes_xyxy - together[-1].boxes_xyxy).max() > 0.1
    (plain,) = HuggingFaceDetector.load(folder_of(kind), fast=False).detect(
        images[:1], texts=texts, score_threshold=0.0
    )
    np.testing.assert_allclose(plain.scores, together[0].scores, atol=1e-4)


def test_texts_of_different_requests_may_share_a_batch(folder_of: FolderOf, pictures: list[np.ndarray]) -> None:
    for kind in OPEN_KINDS:
        detector = HuggingFaceDetector.load(folder_of(kind))
        asked: list[Sequence[str]] = [("can", "bottle"), ("bottle", "can"), ("milk carton",)]
        raws = detector.forward([detector.preprocess(pictures[0], texts) for texts in asked])
        for raw, texts in zip(raws, asked, strict=True):
            (alone,) = detector.detect([pictures[0]], texts=texts, score_threshold=0.0)
            found = detector.postprocess(raw, score_threshold=0.0)
            np.testing.assert_allclose(found.scores, alone.scores, atol=1e-4)
            assert found.labels.tolist() == alone.labels.tolist() and max(found.labels) < len(texts)


def test_thresholds_select(folder_of: FolderOf, pictures: list[np.ndarray]) -> None:
    detector = HuggingFaceDetector.load(folder_of("conditional_detr"))
    (raw,) = detector.forward([detector.preprocess(pictures[0])])
    everything = detector.postprocess(raw, score_threshold=0.0)
    own = detector.postprocess(raw)  # transformers' default
    assert 0 < len(own) < len(everything) and own.scores.min() > 0.5 >= everything.scores[len(own)]
    assert (
        detector.postprocess(raw, score_threshold=0.0, max_detections=4).scores.tolist()
        == everything.scores[:4].tolist()
    )
    at = float(everything.scores[5])
    assert len(detector.postprocess(raw, score_threshold=at)) == 5  # strictly above
    # Every query has a box for each of the three classes; those of one class overlap.
    apart = detector.postprocess(raw, score_threshold=0.0, iou_threshold=0.0)
    assert len(set(apart.labels.tolist())) == 3 and len(apart) < len(everything)
    for label in range(3):
        boxes = apart.boxes_xyxy[apart.labels == label]
        for index, (x1, y1, x2, y2) in enumerate(boxes):
            rest = boxes[index + 1 :]
            wide = np.minimum(x2, rest[:, 2]) - np.maximum(x1, rest[:, 0])
            high = np.minimum(y2, rest[:, 3]) - np.maximum(y1, rest[:, 1])
            assert not ((wide > 1e-3) & (high > 1e-3)).any()


@pytest.mark.parametrize("kind", OPEN_KINDS)
def test_a_threshold_keeps_boxes_and_texts_together(kind: str, folder_of: FolderOf, pictures: list[np.ndarray]) -> None:
    detector = HuggingFaceDetector.load(folder_of(kind))
    (raw,) = detector.forward([detector.preprocess(pictures[1], TEXTS)])
    noise = 2 * torch.randn(raw.logits.shape, generator=torch.Generator().manual_seed(0)) - 4
    raw = replace(raw, logits=torch.where(raw.logits.isinf(), -torch.inf, noise))  # texts of all kinds
    assert len(set(detector.postprocess(raw, score_threshold=0.0).labels.tolist())) == 3
    everything = detector.postprocess(raw, score_threshold=0.0)
    for threshold in (None, float(everything.scores[4])):
        own = 0.25 if "dino" in kind else 0.1
        count = int((everything.scores > (own if threshold is None else threshold)).sum())
        found = detector.postprocess(raw, score_threshold=threshold)
        assert found.scores.tolist() == everything.scores[:count].tolist()
        assert found.labels.tolist() == everything.labels[:count].tolist()
        assert found.boxes_xyxy.tolist() == everything.boxes_xyxy[:count].tolist()


def test_images_of_any_shape_are_read(folder_of: FolderOf) -> None:
    for kind in ("detr", "yolos", "rf_detr", "owlv2"):  # sides in proportion, in steps of 16, none, a square
        detector = HuggingFaceDetector.load(folder_of(kind))
        texts = ("can",) if detector.takes_texts else ()
        for size in ((1, 1), (1, 2000), (2000, 1), (3, 3)):
            (found,) = detector.detect([np.full((*size, 3), 90, np.uint8)], texts=texts, score_threshold=0.0)
            assert len(found) and found.size_hw == size
            assert (found.boxes_xyxy >= 0).all() and (found.boxes_xyxy <= [*size[::-1]] * 2).all()
        with pytest.raises(ValueError, match=r"expected \(H, W, 3\) uint8"):
            detector.preprocess(np.zeros((8, 8), np.uint8), texts)


@pytest.mark.parametrize("kind", ["rt_detr_v2", "deformable_detr", "rf_detr", "grounding-dino", "owlv2"])
def test_other_numbers_are_for_who_asks_for_them(kind: str, folder_of: FolderOf, pictures: list[np.ndarray]) -> None:
    texts = TEXTS if kind in OPEN_KINDS else ()
    plain = HuggingFaceDetector.load(folder_of(kind))
    kept = HuggingFaceDetector.load(folder_of(kind), dtype=torch.bfloat16, autocast=False)
    assert kept.dtype == torch.float32
    coarse = HuggingFaceDetector.load(folder_of(kind), dtype=torch.bfloat16)
    assert coarse.dtype == torch.bfloat16
    exact, same, near = (
        one.detect([pictures[0]], texts=texts, score_threshold=0.0)[0] for one in (plain, kept, coarse)
    )
    assert same.scores.tolist() == exact.scores.tolist()
    assert near.scores.dtype == np.float32 and near.scores.tolist() != exact.scores.tolist()
    assert abs(near.scores.mean() - exact.scores.mean()) < 0.1


def test_other_work_runs_between_the_layers(folder_of: FolderOf, pictures: list[np.ndarray]) -> None:
    detector = HuggingFaceDetector.load(folder_of("rt_detr"))
    samples = [detector.preprocess(image) for image in pictures[:2]]
    modes = []
    found = detector.forward(samples, lambda: modes.append(torch.is_inference_mode_enabled()))
    assert len(modes) > 50 and not any(modes)
    assert torch.equal(found[1].logits, detector.forward(samples)[1].logits)


def test_nan_is_told_from_what_was_not_found(folder_of: FolderOf, pictures: list[np.ndarray]) -> None:
    detector = HuggingFaceDetector.load(folder_of("grounding-dino"))
    (raw,) = detector.forward([detector.preprocess(pictures[0], TEXTS)])
    assert raw.logits.isinf().any() and raw.is_numbers  # what is no token
    assert not replace(raw, boxes=raw.boxes * torch.nan).is_numbers
    assert not replace(raw, logits=raw.logits * torch.nan).is_numbers


@pytest.mark.parametrize(
    ("kind", "texts", "message"),
    [
        ("owlv2", ("can", "a" * 200), "expected at most 16 tokens for the text 'aaa"),
        ("grounding-dino", ("milk " * 40,), "expected at most 32 tokens for all texts together, got 43"),
        ("grounding-dino", ("can. bottle",), r"expected texts without \. and \?"),
        ("grounding-dino", ("can", "\u200b"), "expected texts that the detector's tokenizer can tell apart"),
    ],
)
def test_texts_that_cannot_be_read_are_told(
    kind: str, texts: tuple[str, ...], message: str, folder_of: FolderOf, pictures: list[np.ndarray]
) -> None:
    detector = HuggingFaceDetector.load(folder_of(kind))
    with pytest.raises(TextsError, match=message):
        detector.preprocess(pictures[0], texts)


def test_the_square_is_that_of_transformers() -> None:
    theirs = transformers.Owlv2ImageProcessorPil(size={"height": 48, "width": 48}, do_normalize=False, do_rescale=False)
    rng = np.random.default_rng(0)
    for size in ((48, 48), (7, 31), (300, 17), (200, 201), (1, 5), (1000, 400)):
        image = rng.random((*size, 3)).astype(np.float32)
        expected = theirs.resize(theirs.pad(image.transpose(2, 0, 1)), {"height": 48, "width": 48})
        np.testing.assert_allclose(resized_square(image, (48, 48)).transpose(2, 0, 1), expected, atol=1e-5)


def test_a_folder_is_known_by_its_config_json(copy_of: FolderOf) -> None:
    folder = copy_of("rt_detr_v2")
    (folder / "handler.py").write_text("# what Hugging Face's endpoints run")
    assert DETECTORS.of(folder) is HuggingFaceDetector
    assert DETECTORS.of(folder / "model.safetensors") is HuggingFaceDetector
    assert DETECTORS.of(folder.parent) is HuggingFaceDetector
    assert DETECTORS.folders_below(folder.parent) == {folder}
    assert set(DETECTORS.files(folder)) == {"config.json", "preprocessor_config.json", "model.safetensors"}
