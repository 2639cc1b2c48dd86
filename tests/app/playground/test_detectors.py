"""The playground on detectors that do more than find boxes of their classes: masks of their own, texts to look for."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Route, expect
from pycocotools import mask as coco_mask

from tests.app.conftest import Service, serving
from tests.app.playground.conftest import SAMPLES, Visit, api, encoded, mask_of
from tests.app.playground.test_looks import assert_accessible
from tests.app.playground.test_results_out import downloaded
from tests.models.detector.huggingface import tiny_detectors
from tests.models.detector.test_zoo import TWO_STAGES, folder_of

pytestmark = pytest.mark.filterwarnings("ignore")  # mmdet's own, and pycocotools'

WALL = SAMPLES / "wall.jpg"
PERCENT = 35


@pytest.fixture(scope="module")
def with_masks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("mask_rcnn")
    folder_of(folder, "mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py", TWO_STAGES)
    settings = {"BOX2MASK_DEVICE": "cpu", "BOX2MASK_DETECTOR": str(folder)}
    with serving(tmp_path_factory.mktemp("log") / "service.log", settings) as started:
        yield started


@pytest.fixture(scope="module")
def with_texts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tiny_detectors.write(tmp_path_factory.mktemp("owlv2") / "owlv2", "owlv2")
    settings = {"BOX2MASK_DEVICE": "cpu", "BOX2MASK_DETECTOR": str(folder)}
    with serving(tmp_path_factory.mktemp("log") / "service.log", settings) as started:
        yield started


def coco_of(visit: Visit) -> dict[str, Any]:
    return json.loads(downloaded(visit, "COCO (JSON)")[1])


def test_masks_are_sams_or_the_detectors(visiting: Callable[..., Any], with_masks: Service) -> None:
    with visiting(with_masks) as visit:
        visit.open(WALL)
        visit.page.get_by_label("Score at least").fill(str(PERCENT))
        visit.click_button("Detect")
        assert visit.last_body()["params"]["masks"] == "none"
        for source in ("SAM", "Detector"):
            visit.page.get_by_label(source, exact=True).check(force=True)
            visit.click_button("Segment all")
            asked = visit.last_body()["params"]
            assert asked["masks"] == {"SAM": "segmenter", "Detector": "detector"}[source]
            assert ("multimask_output" in asked) is (source == "SAM")
        params = {"score_threshold": PERCENT / 100, "masks": "detector", "exif_orientation": True}
        boxes = api(with_masks, "pipeline/score", {"image": encoded(WALL)}, **params)["boxes"]
        masks = [mask_of(box["mask_per_prediction"][0]) for box in boxes]
        assert len(boxes) > 1 and visit.names() == [box["label"] for box in boxes]
        assert np.array_equal(visit.shown_masks(), np.logical_or.reduce(masks))
        visit.take("masks-of-the-detector")
        assert_accessible(visit)
        shown = visit.page.locator("#things .figures").all_inner_texts()
        assert shown == [f"{100 * box['score']:.0f}% · mask" for box in boxes]  # and nothing that only SAM guesses

        for annotation, mask in zip(coco_of(visit)["annotations"], masks, strict=True):
            assert np.array_equal(coco_mask.decode(annotation["segmentation"]), mask) and "iou_score" not in annotation
        ((row,),) = (json.loads(downloaded(visit, "Polygons (JSON)")[1]),)
        for entry, mask in zip(row["boxes"], masks, strict=True):
            flat = [(np.reshape(ring, (-1, 2)) * (1024, 768)).ravel().tolist() for ring in entry["polygon"]]
            filled = coco_mask.decode(coco_mask.frPyObjects(flat, 768, 1024)).any(axis=2) if flat else 0 * mask
            assert np.array_equal(filled, mask)

        visit.page.locator("#things .name").first.click()
        visit.page.mouse.click(*visit.at(0.55, 0.5))
        visit.settle()  # it is SAM's from now on, of the detector's box and the point
        table = visit.last_body()["input_data"]
        columns = dict(zip(table["columns"], table["data"][0], strict=True))
        x1, y1, x2, y2 = (boxes[0]["box"][key] for key in ("topX", "topY", "bottomX", "bottomY"))
        assert np.allclose(columns["input_boxes"], [[x1 * 1024, y1 * 768, x2 * 1024, y2 * 768]])
        assert columns["input_labels"] == [[1]]
        expect(visit.page.locator("#things .figures").first).to_contain_text("· mask ")
        assert ["iou_score" in one for one in coco_of(visit)["annotations"]] == [True] + [False] * (len(boxes) - 1)
        visit.take("masks-of-both")


def test_without_a_segmenter_the_masks_are_the_detectors(visiting: Callable[..., Any], with_masks: Service) -> None:
    def alone(route: Route) -> None:
        answer = route.fetch()
        route.fulfill(response=answer, json=answer.json() | {"segmenter": None})

    with visiting(with_masks) as visit:
        visit.page.route("**/version", alone)
        visit.open(WALL)
        visit.page.get_by_text("so all masks are the detector's own").wait_for()
        assert visit.page.get_by_label("Detector", exact=True).is_hidden()
        visit.page.get_by_label("Score at least").fill(str(PERCENT))
        visit.click_button("Segment all")
        assert visit.last_body()["params"]["masks"] == "detector"
        assert visit.shown_masks().any() and len(visit.answers) == 1
        visit.page.locator("#things .name").first.click()
        expect(visit.page.locator("#things li.selected")).to_have_count(1)


def test_a_detector_looks_for_what_somebody_writes(visiting: Callable[..., Any], with_texts: Service) -> None:
    with visiting(with_texts, expected="400") as visit:
        visit.open(WALL)
        asked = len(visit.answers)
        field = visit.page.get_by_label("What to find")
        visit.page.get_by_text("The detector has no classes of its own").wait_for()
        visit.click_button("Detect")
        expect(field).to_be_focused()
        assert len(visit.answers) == asked
        zoom = visit.page.inner_text("#zoom")
        field.press_sequentially("can, milk carton,can, 1-0,")
        assert visit.page.inner_text("#zoom") == zoom  # its keys are the field's
        field.press("Enter")
        visit.settle()
        texts = ["can", "milk carton", "1-0"]
        assert visit.last_body()["params"]["texts"] == texts
        visit.page.get_by_label("Score at least").fill("5")
        image = {"image": encoded(WALL)}
        boxes = api(with_texts, "yolof/score", image, texts=texts, score_threshold=0.05, exif_orientation=True)["boxes"]
        found = [box["label"] for box in boxes]
        assert found and set(found) <= set(texts) and visit.names() == found
        visit.click_button("Detect")  # boxes may be there twice, each is an object
        assert visit.names() == found
        visit.take("texts")
        assert_accessible(visit)

        visit.click_button("Segment all")
        assert visit.last_body()["params"]["texts"] == texts
        coco = coco_of(visit)
        categories = {one["id"]: one["name"] for one in coco["categories"]}
        assert [categories[one["category_id"]] for one in coco["annotations"]] == found
        field.fill("milk " * 50)
        visit.click_button("Detect")
        visit.page.get_by_role("alert").get_by_text("params.texts: expected at most").wait_for()
        assert visit.names() == found
