from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.evaluation.answers import ask
from app.evaluation.document import evaluate
from app.evaluation.tables import tables
from models.data import Dataset

REPOSITORY = Path(__file__).parents[3]


def test_filled_boxes_as_masks_reach_the_floor_and_no_more(dataset: Dataset, box_filler: Any) -> None:
    document = evaluate(ask(dataset, [lambda: box_filler]), "things", 0.3).document
    truth, detected, points = document["masks"]
    assert (truth["objects"], truth["matched"]) == (4, 4)
    assert 0.7 < truth["average_iou"] < 0.85  # a disc in its square covers pi / 4 of it
    for row in (truth, detected):
        floor = row["filled_box"]
        assert {key: row[key] for key in floor} == floor
    assert points["average_iou"] != points["filled_box"]["average_iou"] == truth["average_iou"]
    # the carton and one can are found; a detection of each is too unsure, or in a picture where there is none
    assert (detected["objects"], detected["matched"]) == (4, 2)
    assert document["average_of"] == {"segmenter": "filler", "prompts": "detected"}
    for key in ("average_iou", "average_accuracy", "average_boundary_iou", "average_iou_all_objects"):
        assert document[key] == detected[key]
    assert detected["average_iou_all_objects"] == pytest.approx(detected["average_iou"] / 2)
    boxes = document["boxes"]
    assert (boxes["objects"], boxes["detections"], boxes["right"]) == (4, 6, 2)
    assert (boxes["precision"], boxes["recall"]) == (pytest.approx(1 / 3), 0.5)
    assert boxes["per_class"]["can"]["voc_AP50"] > 0.2  # the unsure can too, of score 0.1
    assert document["data"] == {
        "name": "things",
        "images": 3,
        "objects": 4,
        "objects_with_masks": 4,
        "crowd_regions": 0,
        "classes": {"can": 2, "carton": 1, "<b>&\"'": 1},
    }
    assert document["notes"] == [
        "The detector does not know <b>&\"': all of these objects count as not found.",
        "1 image without objects: what is found there is wrong.",
    ]
    json.dumps(document, allow_nan=False)


def test_the_top_figures_are_of_the_first_segmenter_and_of_what_there_is(dataset: Dataset, box_filler: Any) -> None:
    box_filler.classes = ()
    document = evaluate(ask(dataset, [lambda: box_filler], ["points", "ground-truth"]), "things", 0.3).document
    assert document["boxes"] is None and document["average_of"] == {"segmenter": "filler", "prompts": "ground-truth"}
    assert document["notes"][0].startswith("There is no detector")
    box_filler.name, box_filler.classes = "", ("can",)
    answers = ask(dataset, [lambda: replace(box_filler, finds=())])
    document = evaluate(replace(answers, detector="finder"), "things", 0.3).document
    assert document["masks"] == [] and document["average_iou"] is None and document["average_of"] is None
    assert document["boxes"]["recall"] == 0 and document["boxes"]["precision"] is None
    assert "There are no predicted masks: only boxes are measured." in document["notes"]


def test_what_the_data_cannot_tell_is_said(dataset: Dataset, box_filler: Any) -> None:
    first, empty, last = dataset.images
    bare = replace(last.annotations[0], rle=None)
    crowd = replace(last.annotations[1], crowd=True)
    images = (
        first,
        replace(first, annotations=(*first.annotations, first.annotations[0])),
        replace(last, annotations=(bare, crowd)),
    )
    box_filler.finds = [*box_filler.finds, replace(box_filler.finds[0], label="dog")]
    document = evaluate(ask(Dataset(dataset.class_names, images), [lambda: box_filler]), "things", 0.3).document
    assert document["notes"] == [
        "1 annotation with a box only: the masks' figures leave them out, and mask AP their images.",
        "The detector does not know <b>&\"': all of these objects count as not found.",
        "3 detections of dog left out: the data set does not name them.",
        "1 crowd region: they count neither for nor against.",
        "1 annotation more than once: a detection stands for one of them only.",
    ]
    assert document["masks"][0]["objects"] == 5 and document["data"]["objects"] == 6
    boxes_only = tuple(
        replace(image, annotations=tuple(replace(one, rle=None) for one in image.annotations)) for image in images
    )
    document = evaluate(ask(Dataset(dataset.class_names, boxes_only), [lambda: box_filler]), "things", 0.3).document
    assert document["notes"][0] == "The data set has boxes and no masks: it cannot tell how good masks are."
    assert document["masks"] == [] and document["boxes"]["objects"] == 6


def test_tables_have_the_floor_and_the_published_figures_beside_ours(dataset: Dataset, box_filler: Any) -> None:
    document = evaluate(ask(dataset, [lambda: box_filler, lambda: replace(box_filler)]), "things", 0.3).document
    boxes, masks, classes = tables(document)
    assert boxes.rows[0][:5] == ["finder", "4", "6", "0.333", "0.500"]
    assert [row[:2] for row in masks.rows] == [
        ["filler", "ground-truth"],
        ["filler", "detected"],
        ["filler", "points"],
        ["filler (2)", "ground-truth"],
        ["filler (2)", "detected"],
        ["filler (2)", "points"],
        ["filled boxes", "ground-truth"],
        ["filled boxes", "detected"],
        ["published, SAM ViT-H", "detected"],
    ]
    assert masks.rows[0][4] == masks.rows[6][4] == f"{document['masks'][0]['average_iou']:.3f}"
    assert masks.rows[-1][4:6] == ["0.951", "0.928"]
    assert [row[0] for row in classes.rows] == ["can", "carton", "<b>&\"'"]
    lines = str(masks).splitlines()
    assert lines[0] == "Masks" and len({len(line) for line in lines[1:]}) == 1


def test_every_key_is_documented(dataset: Dataset, box_filler: Any) -> None:
    document = evaluate(ask(dataset, [lambda: box_filler]), "things", 0.3).document
    described = (REPOSITORY / "docs" / "evaluation.md").read_text()

    def keys(value: Any, names: frozenset[str]) -> set[str]:
        if isinstance(value, list):
            return {key for one in value for key in keys(one, names)}
        if not isinstance(value, dict):
            return set()
        return {key for name, one in value.items() for key in {name, *keys(one, names)}} - names

    missing = {key for key in keys(document, frozenset(dataset.class_names)) if f"`{key}`" not in described}
    assert not missing
