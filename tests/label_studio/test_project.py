"""A project in a real Label Studio, from photos to pre-labels, clicks, annotations and exports, and back."""

from __future__ import annotations

import base64
import json
import re
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from models.data import DataError, Dataset, load, read
from models.data.parsing.brush import unpack
from tests.app.conftest import Service
from tests.label_studio.conftest import KEY, LONGER, SIZE_HW
from tests.label_studio.real_server import LabelStudio

# A class by its name, one by other letters, one that `predicted_values` names, one by an alias.
CONFIG = """\
<View>
  <Image name="photo" value="$image" zoom="true"/>
  <BrushLabels name="brush" toName="photo">
    <Label value="can"/><Label value="Carton"/><Label value="Milk" predicted_values="milk_bottle,milk"/>
    <Label value="Water" alias="water bottle"/>
  </BrushLabels>
  <RectangleLabels name="bbox" toName="photo" model_score_threshold="0.3">
    <Label value="can"/><Label value="Carton"/><Label value="Milk" predicted_values="milk_bottle,milk"/>
    <Label value="Water" alias="water bottle"/>
  </RectangleLabels>
  <KeyPointLabels name="click" toName="photo" smart="true"><Label value="can"/><Label value="Milk"/></KeyPointLabels>
  <RectangleLabels name="frame" toName="photo" smart="true" smartOnly="true" model_skip="true">
    <Label value="can"/>
  </RectangleLabels>
</View>
"""
WRITTEN = {"can": "can", "carton": "Carton", "milk_bottle": "Milk", "water_bottle": "water bottle"}


@pytest.fixture(scope="module")
def pre_labelled(studio: LabelStudio, service: Service, photos: list[Path]) -> tuple[int, int, list[dict[str, Any]]]:
    """A project, its backend, and its tasks in the order of the photos."""
    project = studio.project(CONFIG)
    tasks = studio.upload(project, photos)
    backend = studio.connect(project, f"{service.url}/label-studio", KEY)
    studio.act(project, "retrieve_tasks_predictions")
    tasks = [studio.task(one["id"]) for one in sorted(tasks, key=lambda one: one["id"])]
    assert [len(one["predictions"]) for one in tasks] == [1, 1, 1], service.log()
    return project, backend, tasks


def mask_of(value: dict[str, Any], size_hw: tuple[int, int] = SIZE_HW) -> np.ndarray:
    return unpack(value["rle"], size_hw, "rle")


def asked(service: Service, route: str, columns: dict[str, Any], **params: Any) -> Any:
    body = {"input_data": {"columns": list(columns), "data": [list(columns.values())]}, "params": params}
    answer = httpx.post(f"{service.url}{route}", json=body, headers={"authorization": f"Bearer {KEY}"}, timeout=120)
    assert answer.status_code == 200, answer.text
    return answer.json()[0]


def png(mask: dict[str, Any]) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(base64.b64decode(mask["encoded_binary_mask"])))) > 0


def test_pre_labels_are_what_the_service_finds(pre_labelled: Any, studio: LabelStudio, service: Service) -> None:
    _, _, tasks = pre_labelled
    for task in tasks:
        with studio.client() as client:
            photo = client.get(task["data"]["image"]).content  # as Label Studio has it
        found = asked(service, "/pipeline/score", {"image": base64.b64encode(photo).decode()}, exif_orientation=True)[
            "boxes"
        ]
        assert len(found) >= 3
        (prediction,) = task["predictions"]
        assert re.fullmatch("box2mask-[0-9a-f]{10}", prediction["model_version"])
        assert prediction["score"] == pytest.approx(np.mean([one["score"] for one in found]))
        boxes = [one for one in prediction["result"] if one["from_name"] == "bbox"]
        strokes = [one for one in prediction["result"] if one["from_name"] == "brush"]
        assert len(boxes) == len(strokes) == len(found) and len(prediction["result"]) == 2 * len(found)
        for box, stroke, one in zip(boxes, strokes, found, strict=True):
            assert box["value"]["rectanglelabels"] == stroke["value"]["brushlabels"] == [WRITTEN[one["label"]]]
            assert (box["original_height"], box["original_width"]) == SIZE_HW  # upright, for the photo on its side too
            assert box["value"]["x"] == pytest.approx(100 * one["box"]["topX"], abs=1e-4)
            assert box["score"] == stroke["score"] == one["score"]
            assert stroke["parentID"] == box["id"]
            assert np.array_equal(mask_of(stroke["value"]), png(one["mask_per_prediction"][0]))


def test_what_has_a_prediction_of_this_version_is_not_asked_again(
    pre_labelled: Any, studio: LabelStudio, service: Service
) -> None:
    project, backend, _ = pre_labelled
    before = service.log().count("POST /label-studio/predict")
    studio.act(project, "retrieve_tasks_predictions")
    assert service.log().count("POST /label-studio/predict") == before
    versions = studio.ask("GET", f"/api/ml/{backend}/versions")["versions"]
    assert versions == [studio.ask("GET", f"/api/ml/{backend}")["model_version"]]


def test_a_click_a_second_one_and_a_rectangle_give_masks(
    pre_labelled: Any, studio: LabelStudio, service: Service
) -> None:
    _, backend, tasks = pre_labelled
    task = tasks[2]  # the photo on its side
    with studio.client() as client:
        photo = base64.b64encode(client.get(task["data"]["image"]).content).decode()
    sides = {"original_width": SIZE_HW[1], "original_height": SIZE_HW[0], "image_rotation": 0, "to_name": "photo"}
    box = next(one["value"] for one in task["predictions"][0]["result"] if one["from_name"] == "bbox")
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    def click(x: float, y: float, positive: bool) -> dict[str, Any]:
        value = {"x": x, "y": y, "width": 0.3, "keypointlabels": ["Milk"]}
        return {
            "id": "k",
            "type": "keypointlabels",
            "from_name": "click",
            "is_positive": positive,
            "value": value,
            **sides,
        }

    def masks(**prompts: Any) -> list[dict[str, Any]]:
        columns = {"image": photo, "input_points": None, "input_boxes": None, "input_labels": None} | prompts
        params = {"exif_orientation": True, "coordinates": "normalized"}
        answer = asked(service, "/sam/score", {"multimask_output": False} | columns, **params)
        return answer["predictions"][0]["mask_per_prediction"]

    def region_of(*drawn: dict[str, Any]) -> dict[str, Any]:
        answer = studio.smart(backend, task["id"], *drawn)
        (one,) = answer["data"]["result"]
        assert (one["type"], one["from_name"], one["to_name"]) == ("brushlabels", "brush", "photo")
        return one

    first = region_of(click(x, y, True))
    best = max(
        masks(input_points=[[[x / 100, y / 100]]], input_labels=[[1]], multimask_output=True),
        key=lambda one: one["iou_score"],
    )
    assert first["value"]["brushlabels"] == ["Milk"] and first["score"] == best["iou_score"]
    assert np.array_equal(mask_of(first["value"]), png(best)) and mask_of(first["value"]).any()

    corner = box["x"] + 1, box["y"] + 1
    both = region_of(click(x, y, True), click(*corner, False))
    (expected,) = masks(input_points=[[[x / 100, y / 100], [corner[0] / 100, corner[1] / 100]]], input_labels=[[1, 0]])
    assert np.array_equal(mask_of(both["value"]), png(expected))

    frame = {name: box[name] for name in ("x", "y", "width", "height")} | {"rotation": 0, "rectanglelabels": ["can"]}
    framed = region_of({"id": "r", "type": "rectanglelabels", "from_name": "frame", "value": frame, **sides})
    sides_of = [box["x"], box["y"], box["x"] + box["width"], box["y"] + box["height"]]
    (expected,) = masks(input_boxes=[[side / 100 for side in sides_of]])
    assert framed["value"]["brushlabels"] == ["can"]
    assert np.array_equal(mask_of(framed["value"]), png(expected))

    # Nothing but what is not of the object: there is nothing to find, and no error either.
    assert studio.smart(backend, task["id"], click(x, y, False))["data"]["result"] == []
    # A fault comes to the page as a text, and the next click is answered.
    wrong = studio.smart(backend, task["id"], click(x, y, True) | {"type": "textarea"})
    assert "400" in wrong["errors"][0]
    assert studio.smart(backend, task["id"], click(x, y, True))["data"]["result"]


def test_a_photo_that_is_gone_keeps_no_other_from_its_prediction(
    studio: LabelStudio, service: Service, photos: list[Path]
) -> None:
    project = studio.project(CONFIG)
    gone = [{"data": {"image": f"/data/upload/{project}/none.jpg"}}, {"data": {"image": "s3://bucket/none.jpg"}}]
    studio.ask("POST", f"/api/projects/{project}/import", json=gone)
    studio.upload(project, photos[:1])
    studio.connect(project, f"{service.url}/label-studio", KEY)
    studio.act(project, "retrieve_tasks_predictions")
    tasks = sorted(studio.tasks(project), key=lambda one: one["id"])
    assert [one["total_predictions"] for one in tasks] == [0, 0, 1]
    for one in tasks[:2]:
        assert f"Label Studio's task {one['id']} has no prediction: " in service.log()


def same_objects(dataset: Dataset, tasks: list[dict[str, Any]]) -> None:
    """Whether a data set has the pixels, boxes and classes that the tasks' predictions have."""
    assert len(dataset) == len(tasks)
    by_name = {Path(str(image.path)).name: image for image in dataset.images}
    for task, name in zip(tasks, ("scene 0.jpg", "scene 1.jpg", "scene 2.jpg"), strict=True):
        image = by_name[name]
        assert image.size_hw == SIZE_HW
        strokes = [one for one in task["predictions"][0]["result"] if one["type"] == "brushlabels"]
        boxes = {one["id"]: one["value"] for one in task["predictions"][0]["result"] if "brush" not in one["type"]}
        assert len(image.annotations) == len(strokes) > 0
        for annotation, stroke in zip(image.annotations, strokes, strict=True):
            assert [annotation.label] == stroke["value"]["brushlabels"]
            assert np.array_equal(annotation.mask(SIZE_HW), mask_of(stroke["value"]))
            box = boxes[stroke["parentID"]]
            assert annotation.box_xyxy[0] == pytest.approx(box["x"] * SIZE_HW[1] / 100, abs=1e-4)


def test_annotations_come_back_pixel_for_pixel(
    pre_labelled: Any, studio: LabelStudio, photos: list[Path], tmp_path: Path
) -> None:
    project, _, tasks = pre_labelled
    studio.act(project, "predictions_to_annotations")

    exported = studio.export(project, "JSON", tmp_path / "json")
    dataset, problems = read(exported, images=photos[0].parent)
    assert not [one for one in problems if one.fatal]
    same_objects(dataset, tasks)
    with pytest.raises(DataError, match="export a snapshot that includes full predictions"):
        load(exported, images=photos[0].parent, answer="prediction")
    full = tmp_path / "full.json"
    full.write_text(json.dumps([studio.task(task["id"]) for task in tasks]))
    assert all(task["annotations"] for task in json.loads(full.read_text()))
    same_objects(load(full, images=photos[0].parent, answer="prediction"), tasks)

    strokes = {
        (task["id"], number): mask_of(one["value"])
        for task in tasks
        for number, one in enumerate(o for o in task["predictions"][0]["result"] if o["type"] == "brushlabels")
    }
    pictures = list(studio.export(project, "BRUSH_TO_PNG", tmp_path / "png").rglob("*.png"))
    assert len(pictures) == len(strokes)
    drawn: dict[int, list[bytes]] = {}
    for path in pictures:
        with Image.open(path) as picture:
            drawn.setdefault(int(path.name.split("-")[1]), []).append((np.asarray(picture) > 0).tobytes())
    for task in tasks:
        mine = sorted(mask.tobytes() for (number, _), mask in strokes.items() if number == task["id"])
        assert sorted(drawn[task["id"]]) == mine


def test_exports_that_have_no_masks_have_boxes(
    pre_labelled: Any, studio: LabelStudio, photos: list[Path], tmp_path: Path
) -> None:
    """What docs/labelling.md says of Label Studio's COCO and YOLO."""
    project, _, tasks = pre_labelled
    if not tasks[0]["annotations"]:
        studio.act(project, "predictions_to_annotations")
    boxes = sum(one["type"] == "rectanglelabels" for task in tasks for one in task["predictions"][0]["result"])
    coco = json.loads((studio.export(project, "COCO", tmp_path / "coco") / "result.json").read_text())
    assert boxes and not any(one["segmentation"] for one in coco["annotations"])
    dataset, _ = read(studio.export(project, "YOLO", tmp_path / "yolo"), images=photos[0].parent)
    assert not any(one.has_mask for _, one in dataset.annotations())


@LONGER
@pytest.mark.parametrize("kind", ["polygons", "labels beside shapes"])
def test_other_controls_come_back_too(
    studio: LabelStudio, service: Service, photos: list[Path], tmp_path: Path, kind: str
) -> None:
    labels = "".join(f'<Label value="{name}"/>' for name in WRITTEN)
    controls = {
        "polygons": f'<PolygonLabels name="p" toName="i" model_polygon_tolerance="0">{labels}</PolygonLabels>',
        "labels beside shapes": f'<Labels name="l" toName="i">{labels}</Labels><Brush name="b" toName="i"/>',
    }
    project = studio.project(f'<View><Image name="i" value="$image"/>{controls[kind]}</View>')
    tasks = studio.upload(project, photos)
    studio.connect(project, f"{service.url}/label-studio", KEY)
    studio.act(project, "retrieve_tasks_predictions")
    studio.act(project, "predictions_to_annotations")
    back = load(studio.export(project, "JSON", tmp_path / "json"), images=photos[0].parent)
    for task, image in zip(
        sorted(tasks, key=lambda one: one["id"]), sorted(back.images, key=lambda one: one.name), strict=True
    ):
        with studio.client() as client:
            photo = base64.b64encode(client.get(task["data"]["image"]).content).decode()
        found = asked(service, "/pipeline/score", {"image": photo}, exif_orientation=True)["boxes"]
        masks = [(one["label"], png(one["mask_per_prediction"][0])) for one in found]
        expected = sorted((label, mask.tobytes()) for label, mask in masks if mask.any())
        if kind == "polygons":  # holes are cut open by lines without width
            assert sorted(one.label for one in image.annotations) == [label for label, _ in expected]
        else:
            came = sorted((one.label, one.mask(SIZE_HW).tobytes()) for one in image.annotations)
            assert came == expected
