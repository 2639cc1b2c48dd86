"""Label Studio's exports: regions in percent, strokes of the brush, several results of a region, several annotators."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from models.data import Annotation, DataError, Dataset, LabelledImage, find, load, read, write
from models.data.formats.label_studio.writing import prediction
from models.data.parsing.brush import pack, unpack
from models.data.parsing.shapes import encoded, mask_of, ring_of
from models.data.parsing.values import BadValueError

SIZE_HW = (100, 200)
MASK = np.zeros(SIZE_HW, bool)
MASK[10:50, 20:60] = True
MASK[20:30, 30:40] = False
BOX = (20.0, 10.0, 60.0, 50.0)
RECTANGLE = {"x": 10, "y": 10, "width": 20, "height": 40, "rotation": 0, "rectanglelabels": ["can"]}
BRUSH = {"format": "rle", "rle": list(pack(MASK)), "brushlabels": ["can"]}
POINTS = {"points": [[10, 10], [30, 10], [30, 50]], "closed": True, "polygonlabels": ["can"]}
SIZES = {"original_width": 200, "original_height": 100}


def result(value: dict[str, Any], identity: str = "a", **more: Any) -> dict[str, Any]:
    kind = next((name for name in value if name.endswith("labels") or name == "choices"), "rectangle")
    entry = {"id": identity, "type": kind, "from_name": "x", "to_name": "image", "image_rotation": 0, **SIZES}
    return {**entry, "value": value, **more}


def task(*results: Any, **more: Any) -> dict[str, Any]:
    return {
        "id": 7,
        "data": {"image": "/data/upload/1/0a1b2c3d-a.jpg"},
        "annotations": [{"result": list(results)}],
    } | more


@pytest.fixture
def project(tmp_path: Path):
    Image.new("RGB", SIZE_HW[::-1]).save(tmp_path / "a.jpg")

    def make(*tasks: Any) -> Path:
        (tmp_path / "project.json").write_text(json.dumps(tasks))
        return tmp_path

    return make


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (RECTANGLE, Annotation("can", BOX)),
        (BRUSH, Annotation("can", BOX, rle=encoded(MASK))),
        (POINTS, Annotation("can", BOX, ((20.0, 10.0, 60.0, 10.0, 60.0, 50.0),))),
        # A quarter turn about the corner: what was to its right is below it.
        (
            RECTANGLE | {"x": 40, "rotation": 90},
            Annotation("can", (40.0, 10.0, 80.0, 50.0), ((80.0, 10.0, 80.0, 50.0, 40.0, 50.0, 40.0, 10.0),)),
        ),
    ],
)
def test_a_region_of_every_shape(project, value, expected):
    folder = project(task(result(value)))
    assert find(folder) == ("label-studio", folder / "project.json")
    dataset, problems = read(folder)
    (image,) = dataset.images
    assert image.path == folder / "a.jpg" and image.size_hw == SIZE_HW
    assert image.annotations == (expected,)
    assert [one.reason for one in problems if "turned" in one.reason] == (
        ["1 turned rectangles are read as polygons of four corners"] if value.get("rotation") else []
    )
    assert not any(one.fatal for one in problems)


def test_json_min(project):
    values = [{**RECTANGLE, **SIZES}, {**BRUSH, **SIZES}]
    folder = project({"image": "/data/upload/1/0a1b2c3d-a.jpg", "id": 1, "label": values[:1], "brush": values[1:]})
    assert find(folder)[0] == "label-studio"
    # The same object as a rectangle and as a brush stroke is one.
    assert load(folder).images[0].annotations == (Annotation("can", BOX, rle=encoded(MASK)),)


def test_a_shape_and_its_label_may_be_two_results_of_one_region(project):
    shape = {name: value for name, value in RECTANGLE.items() if name != "rectanglelabels"}
    folder = project(
        task(result(shape), result({**shape, "labels": ["can"]}, type="labels"), result({"choices": ["x"]}, "b"))
    )
    dataset, problems = read(folder)
    assert dataset.images[0].annotations == (Annotation("can", BOX),)
    assert ["results of type choices" in one.reason for one in problems if "found by name" not in one.reason] == [True]


def test_of_several_annotations_ground_truth_counts_or_the_last(project):
    def answer(name: str, **more: Any) -> dict[str, Any]:
        return {"result": [result({**RECTANGLE, "rectanglelabels": [name]})], **more}

    first, second = answer("first", created_at="2026-01-01"), answer("second", created_at="2026-02-01")
    truth, skipped = answer("truth", ground_truth=True), answer("skipped", was_cancelled=True, created_at="2027")
    folder = project(
        task(annotations=[second, first, skipped]),
        task(annotations=[first, truth, second]),
        task(annotations=[skipped]),
        task(annotations=[], predictions=[answer("guess")]),
        task(annotations=[{"result": []}]),
    )
    dataset, problems = read(folder)
    assert [[one.label for one in image.annotations] for image in dataset.images] == [["second"], ["truth"], []]
    reasons = " ".join(one.reason for one in problems)
    assert "2 tasks have several annotations" in reasons and "1 tasks were skipped" in reasons
    assert "1 tasks have no annotation" in reasons
    dataset, problems = read(project(task(annotations=[], predictions=[answer("guess")])))
    assert dataset.class_names == ("guess",) and "the predictions are read, of 1 tasks" in problems[0].reason


@pytest.mark.parametrize(
    ("value", "more", "reason"),
    [
        ({**RECTANGLE, "x": "wide"}, {}, "x: expected a number, found 'wide'"),
        ({**RECTANGLE, "x": 1e300}, {}, "expected coordinates of at most"),
        ({**RECTANGLE, "width": -5}, {}, "inverted"),
        ({**RECTANGLE, "rectanglelabels": []}, {}, "expected a label"),
        ({**RECTANGLE, "rectanglelabels": [3]}, {}, "expected the name of a class, found 3"),
        ({**RECTANGLE, "rotation": "x"}, {}, "rotation: expected a number"),
        (RECTANGLE, {"image_rotation": 90}, "image_rotation: expected 0, found 90"),
        (RECTANGLE, {"original_width": -7}, "original_width: expected a whole number"),
        (RECTANGLE, {"original_width": 1e9}, "original_width: expected at most"),
        ({**POINTS, "points": [[1, 2], [1e300, 2], [3, 4]]}, {}, "expected coordinates of at most"),
        ({**POINTS, "points": "x"}, {}, "points: expected a list of polygons"),
        ({**BRUSH, "rle": list(pack(MASK[:50]))}, {}, "rle: expected 80000 values, 4 for each"),
        ({**BRUSH, "rle": list(pack(MASK))[:30]}, {}, "rle: expected runs that fill 80000 values"),
        ({**BRUSH, "rle": [1, 2, 300, 4, 5, 6, 7, 8]}, {}, "rle: expected a list of bytes"),
        ({**BRUSH, "rle": "x"}, {}, "rle: expected a list of bytes"),
        ({**BRUSH, "rle": [255] * 100}, {}, "rle: expected 80000 values, 4 for each of the image's 200 x 100 pixels"),
    ],
)
def test_a_bad_region_is_named_and_takes_no_other_with_it(project, value, more, reason):
    folder = project(task(result(RECTANGLE, "good"), result(value, "bad", **more)), task(result(POINTS)))
    dataset, problems = read(folder)
    assert [len(image.annotations) for image in dataset.images] == [1, 1]
    (problem,) = [one for one in problems if one.fatal]
    assert problem.reason.startswith("[0], region bad (id 7): ") and reason in problem.reason


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        (3, "expected a task, an object, found 3"),
        (task(annotations=[{"result": 5}]), "result: expected a list of regions, found 5"),
        (task("x"), "result: expected regions, which are objects, found 'x'"),
        (task(data={"text": "x"}), "data: expected an image's address, found ['text']"),
        (task(data={"image": "s3://bucket/a.jpg"}), "--prefix s3://...=FOLDER"),
    ],
)
def test_a_bad_task_is_named_and_takes_no_other_with_it(project, entry, reason):
    dataset, problems = read(project(entry, task(result(POINTS))), format="label-studio")
    assert len(dataset) == 1
    (problem,) = [one for one in problems if one.fatal]
    assert problem.place.line == 1 and problem.reason.startswith("[0]") and reason in problem.reason


def test_a_file_that_is_no_list_has_its_line(tmp_path):
    (tmp_path / "x.json").write_text('[\n{"data": }')
    with pytest.raises(DataError, match="x.json:2: not JSON"):
        load(tmp_path / "x.json", format="label-studio")


@pytest.mark.parametrize(
    "address", ["/data/local-files/?d=photos/a%20b.jpg", "http://localhost:8080/data/local-files/?d=a b.jpg"]
)
def test_the_server_s_own_addresses_lead_to_files(tmp_path, address):
    (tmp_path / "photos").mkdir()
    Image.new("RGB", SIZE_HW[::-1]).save(tmp_path / "photos/a b.jpg")
    (tmp_path / "x.json").write_text(json.dumps([task(result(RECTANGLE), data={"image": address})]))
    assert load(tmp_path).images[0].path == tmp_path / "photos/a b.jpg"


@pytest.mark.parametrize("seed", range(8))
def test_a_stroke_is_unpacked_to_the_mask_that_was_packed(seed):
    rng = np.random.default_rng(seed)
    mask = rng.random((seed + 1, 300)) < rng.random()
    assert np.array_equal(unpack(list(pack(mask)), mask.shape, "rle"), mask)
    for end in range(8, len(pack(mask)), 7):
        with pytest.raises(BadValueError, match="runs that fill"):
            unpack(list(pack(mask))[:end], mask.shape, "rle")


@pytest.mark.parametrize("seed", range(6))
def test_what_is_written_comes_back(scatter, tmp_path, seed):
    dataset = scatter(seed)
    notes = write(dataset, tmp_path / "out", "label-studio")
    again = load(tmp_path / "out")
    assert again.class_names == dataset.class_names
    for before, after in zip(dataset.images, again.images, strict=True):
        assert (after.name, after.size_hw) == (before.name, before.size_hw)
        for one, other in zip(before.annotations, after.annotations, strict=True):
            assert (other.label, other.box_xyxy) == (one.label, one.box_xyxy)
            mask = mask_of(one, before.size_hw)
            if ring_of(one) or mask is None:
                assert other.polygons == (one.polygons if ring_of(one) else None)
            else:
                assert np.array_equal(other.mask(after.size_hw), mask)
    crowds = sum(one.crowd for _, one in dataset.annotations())
    assert any(note.startswith(f"{crowds} crowds") for note in notes) == bool(crowds)
    several = any(len(one.polygons or ()) > 1 for _, one in dataset.annotations())
    assert any("outlines of several parts" in note for note in notes) == several


def test_addresses_with_a_prefix_and_classes_without_objects(tmp_path):
    image = LabelledImage("http://host/a.jpg", (3, 4), ())
    write(Dataset(("zebra", "can"), (image,)), tmp_path / "x.json", "label-studio", url_prefix="http://host")
    assert load(tmp_path / "x.json") == Dataset(("zebra", "can"), (image,))


TRIANGLE = ((20.0, 10.0, 60.0, 10.0, 60.0, 50.0),)
WIDE = {**RECTANGLE, "width": 30}
WIDE_BOX = (20.0, 10.0, 80.0, 50.0)


def parts(*regions: Any) -> tuple[Any, ...]:
    """Regions of any controls, of which the first is named "top" and the others lie below it."""
    return tuple(
        result(value, "top" if not number else f"below{number}", **({"parentID": "top"} if number else {}))
        for number, value in enumerate(regions)
    )


def test_a_mask_below_a_box_is_one_object_with_it(project):
    other = {**BRUSH, "brushlabels": ["carton"]}
    (image,) = load(project(task(*parts(WIDE, BRUSH, other)))).images
    assert image.annotations == (
        Annotation("can", WIDE_BOX, rle=encoded(MASK)),
        Annotation("carton", BOX, rle=encoded(MASK)),  # of another class: the tree is its owner's
    )
    # In whatever order, and only the first mask of one box.
    (image,) = load(project(task(*parts(WIDE, BRUSH)[::-1]))).images
    assert image.annotations == (Annotation("can", WIDE_BOX, rle=encoded(MASK)),)
    smaller = {**BRUSH, "rle": list(pack(MASK & (np.arange(200) < 40)))}
    (image,) = load(project(task(*parts(WIDE, BRUSH, smaller)))).images
    assert [one.box_xyxy for one in image.annotations] == [WIDE_BOX, (20.0, 10.0, 40.0, 50.0)]
    # A box that has gone, a box below a box, and a region that is its own parent.
    for regions in (parts(WIDE, BRUSH)[1:], parts(WIDE, WIDE), (result(BRUSH, parentID="a"),)):
        (image,) = load(project(task(*regions))).images
        assert len(image.annotations) == len(regions)


def test_polygons_of_one_parent_are_parts_of_one_mask(project):
    lower = {**POINTS, "points": [[10, 50], [30, 50], [30, 90]]}
    both = (*TRIANGLE, (20.0, 50.0, 60.0, 50.0, 60.0, 90.0))
    (image,) = load(project(task(*parts(WIDE, POINTS, lower)))).images
    assert image.annotations == (Annotation("can", WIDE_BOX, both),)
    (image,) = load(project(task(*parts(POINTS, lower)))).images
    assert image.annotations == (Annotation("can", (20.0, 10.0, 60.0, 90.0), both),)
    (image,) = load(project(task(*parts(POINTS, {**lower, "polygonlabels": ["carton"]})))).images
    assert [one.label for one in image.annotations] == ["can", "carton"]


def test_which_of_several_annotations_is_read(project):
    def answer(name: str, **more: Any) -> dict[str, Any]:
        return {"result": [result({**RECTANGLE, "rectanglelabels": [name]})], **more}

    answers = [
        answer("last", created_at="2026-03-01"),
        answer("first", created_at="2026-01-01"),
        answer("truth", created_at="2026-02-01", ground_truth=True),
    ]
    folder = project(task(annotations=answers, predictions=[answer("guess")]))
    for wanted, label in (("truth", "truth"), ("last", "last"), ("first", "first"), ("prediction", "guess")):
        dataset, problems = read(folder, answer=wanted)
        assert dataset.class_names == (label,)
        assert any("have several" in one.reason for one in problems) == (wanted != "prediction")
    # Exports name predictions by their numbers, unless they are asked to include them.
    dataset, problems = read(project(task(annotations=answers, predictions=[17])), answer="prediction")
    (problem,) = [one for one in problems if one.fatal]
    assert "export a snapshot that includes full predictions" in problem.reason and not dataset.images


def test_an_export_is_known_by_a_stroke_before_its_data(project):
    noise = np.random.default_rng(0).random(SIZE_HW) < 0.5
    stroke = {"format": "rle", "rle": list(pack(noise))}
    results = [result(stroke) | {"type": "brush"}, result({**stroke, "labels": ["can"]}) | {"type": "labels"}]
    last = {"id": 7, "annotations": [{"id": 1, "completed_by": 1, "result": results}], "file_upload": "a.jpg"}
    folder = project(last | {"drafts": [], "data": {"image": "/data/upload/1/0a1b2c3d-a.jpg"}})
    assert find(folder)[0] == "label-studio"
    (image,) = load(folder).images
    assert [one.label for one in image.annotations] == ["can"] and np.array_equal(
        image.annotations[0].mask(SIZE_HW), noise
    )


def test_an_uploaded_file_is_found_by_the_name_that_it_had(tmp_path):
    Image.new("RGB", SIZE_HW[::-1]).save(tmp_path / "my photo (1).jpg")
    uploaded = task(result(RECTANGLE), data={"image": "/data/upload/1/0a1b2c3d-my_photo_1.jpg"})
    (tmp_path / "x.json").write_text(json.dumps([uploaded]))
    assert load(tmp_path).images[0].path == tmp_path / "my photo (1).jpg"


def test_a_predictions_score_is_the_mean_of_its_objects_or_what_its_priority_leaves():
    box = {"id": "box0", "type": "rectanglelabels", "score": 0.9}
    parts = [{"id": f"mask0-{part}", "type": "polygonlabels", "score": 0.9, "parentID": "box0"} for part in range(3)]
    mask = {"id": "mask1", "type": "brush", "score": 0.5}
    label = mask | {"type": "labels"}  # the same region a second time, with its label
    regions = [box, *parts, mask, label]
    assert prediction(regions, "v1") == {"model_version": "v1", "result": regions, "score": pytest.approx(0.7)}
    assert prediction(regions, "v1", 0.25)["score"] == 0.75
    assert prediction([], "v1", 0.5) == {"model_version": "v1", "result": [], "score": 0.5}
    assert "score" not in prediction([], "v1")
    assert "score" not in prediction([{"id": "box0", "type": "rectanglelabels"}], "v1")  # of a person
