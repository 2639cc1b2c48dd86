from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.evaluation.answers import ask
from app.evaluation.document import evaluate
from app.prediction import PredictorError
from models.data import Annotation, Dataset, LabelledImage


def test_each_kind_of_prompt_has_its_masks(dataset: Dataset, box_filler: Any) -> None:
    steps: list[None] = []
    answers = ask(dataset, [lambda: box_filler], progress=lambda: steps.append(None))
    assert len(steps) == 3 and box_filler.closed
    assert (answers.detector, answers.class_names) == ("finder", ("can", "carton"))
    assert answers.detections is not None and [len(one) for one in answers.detections] == [3, 3, 3]
    truth, detected, points = answers.masks
    assert [one.prompts for one in answers.masks] == ["ground-truth", "detected", "points"]
    assert [[one.label for one in of_image] for of_image in truth.found] == [["can", "carton"], [], ["can", "<b>&\"'"]]
    assert [one.score for one in detected.found[1]] == [0.9, 0.6, 0.1]  # the detector's
    assert [one.score for one in truth.found[0]] == [0.5, 0.5]  # SAM's own
    for masks in answers.masks:
        assert all(one.rle is not None for of_image in masks.found for one in of_image)
    assert points.found[0][0].box_xyxy == dataset.images[0].annotations[0].box_xyxy
    # one request for all boxes of an image, and detections of low scores too
    assert (
        sorted(box_filler.asked)
        == ["0 points", "2 points", "2 points", "3 boxes", "5 boxes", "5 boxes"] + ["detect from 0.05"] * 3
    )


def test_segmenters_stand_beside_each_other_with_the_first_ones_detections(dataset: Dataset, box_filler: Any) -> None:
    second = replace(box_filler, finds=(), classes=(), asked=[])
    third = replace(box_filler, name="other", asked=[])
    answers = ask(dataset, [lambda: box_filler, lambda: second, lambda: third], ["detected"])
    assert [one.segmenter for one in answers.masks] == ["filler", "filler (2)", "other"]
    assert answers.masks[0].found == answers.masks[1].found == answers.masks[2].found
    assert answers.class_names == ("can", "carton")
    assert second.asked == third.asked == ["3 boxes"] * 3
    assert second.closed and third.closed


def test_images_that_cannot_be_answered_are_in_no_figure(dataset: Dataset, box_filler: Any, tmp_path: Path) -> None:
    first, second, third = dataset.images
    box_filler.broken = Path(first.path).read_bytes()
    images = (first, replace(second, size_hw=(61, 80)), replace(third, path=tmp_path / "missing.png"), second)
    answers = ask(Dataset(dataset.class_names, images), [lambda: box_filler])
    assert answers.dataset.images == (second,)
    assert len(answers.truths) == 1 and all(len(one.found) == 1 for one in answers.masks)
    (_, broken), (_, resized), (path, missing) = answers.failures
    assert broken == "this one is broken"
    assert resized == "expected an image of width 80 and height 61, as in the annotations, got 80 and 60"
    assert path.endswith("missing.png") and missing == "cannot be read: No such file or directory"


def test_a_predictor_that_stops_ends_it_and_is_closed(dataset: Dataset, box_filler: Any, monkeypatch: Any) -> None:
    def gone(*args: object) -> None:
        raise PredictorError("it is gone")

    monkeypatch.setattr(box_filler, "segment", gone)
    with pytest.raises(PredictorError, match="it is gone"):
        ask(dataset, [lambda: box_filler])
    assert box_filler.closed


def test_without_true_masks_none_are_asked_for(dataset: Dataset, box_filler: Any) -> None:
    images = tuple(
        replace(image, annotations=tuple(replace(one, rle=None) for one in image.annotations))
        for image in dataset.images
    )
    answers = ask(Dataset(dataset.class_names, images), [lambda: box_filler])
    assert answers.masks == [] and answers.detections is not None
    assert set(box_filler.asked) == {"detect from 0.05"}


def test_a_box_outside_its_image_is_no_prompt_and_costs_nobody_else(dataset: Dataset, box_filler: Any) -> None:
    first = dataset.images[0]
    width = float(first.size_hw[1])
    outside = Annotation("can", (width, 10, width + 20, 30), polygons=((width, 10, width + 20, 10, width + 20, 30),))
    image = replace(first, annotations=(outside, *first.annotations))
    answers = ask(Dataset(("can", "carton"), (image,)), [lambda: box_filler])
    assert "5 boxes" in box_filler.asked and "2 points" in box_filler.asked and not answers.failures
    document = evaluate(answers, "data", 0.3).document
    assert [one["objects"] for one in document["masks"]] == [2, 3, 2]
    assert [one["average_iou"] is not None for one in document["masks"]] == [True] * 3
    assert any(note.startswith("1 annotation with a box wholly outside the image") for note in document["notes"])


def test_a_mask_of_no_pixels_is_pointed_at_in_its_boxs_middle(dataset: Dataset, box_filler: Any) -> None:
    first = dataset.images[0]
    sliver = Annotation("can", (10, 10, 30, 10.2), polygons=((10, 10, 30, 10, 30, 10.2, 10, 10.2),))
    answers = ask(
        Dataset(("can",), (LabelledImage(first.path, first.size_hw, (sliver,)),)), [lambda: box_filler], ["points"]
    )
    assert [len(one) for one in answers.masks[0].found] == [1] and not answers.failures
