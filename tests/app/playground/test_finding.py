"""Detecting, segmenting, clicking: what the page shows is what the service answers to the same question."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
from playwright.sync_api import expect

from tests.app.playground.conftest import SAMPLES, Visit, api, encoded, mask_of

WALL = SAMPLES / "wall.jpg"
FRAME = {"exif_orientation": True}


def test_the_slider_filters_what_was_asked_for_once(visit: Visit) -> None:
    visit.open(WALL)
    visit.click_button("Detect")
    boxes = api(visit.service, "yolof/score", {"image": encoded(WALL)}, score_threshold=0.05, **FRAME)["boxes"]
    asked = len(visit.answers)
    for percent in (30, 60, 5):
        visit.page.get_by_label("Score at least").fill(str(percent))
        assert visit.names() == [box["label"] for box in boxes if box["score"] >= percent / 100]
    visit.page.get_by_label("Score at least").fill("30")
    visit.take("detected")
    assert len(visit.answers) == asked
    assert "Detect" in visit.page.inner_text("#panel")
    assert re.search(r"\d+ ms|\d+\.\d s", visit.page.inner_text("#times"))


def test_all_masks_above_the_slider_are_those_of_the_pipeline(visit: Visit) -> None:
    visit.open(WALL)
    visit.click_button("Detect")
    visit.page.get_by_label("Score at least").fill("50")
    visit.click_button("Segment all")
    visit.take("segmented")
    boxes = api(visit.service, "pipeline/score", {"image": encoded(WALL)}, score_threshold=0.5, **FRAME)["boxes"]
    assert len(boxes) >= 2 and visit.names() == [box["label"] for box in boxes]
    wanted = np.logical_or.reduce([mask_of(box["mask_per_prediction"][0]) for box in boxes])
    assert np.array_equal(visit.shown_masks(), wanted)
    visit.page.get_by_label("Score at least").fill("5")  # those below are still there, as boxes
    assert len(visit.names()) > len(boxes)


def test_masks_are_cleaned_as_the_boxes_say(visit: Visit) -> None:
    visit.open(WALL)
    for name in ("One class each", "No specks", "Fill holes", "Largest part", "No overlaps", "Tight boxes"):
        visit.page.get_by_label(name).check()
    visit.click_button("Segment all")
    visit.take("cleaned")
    on = ("class_agnostic_nms", "fill_holes", "largest_part", "no_overlaps", "tight_boxes")
    asked = {"score_threshold": 0.3, "min_region_area": 100, **dict.fromkeys(on, True)}
    params = visit.last_body()["params"]
    assert asked.items() <= params.items()
    boxes = api(visit.service, "pipeline/score", {"image": encoded(WALL)}, **FRAME, **asked)["boxes"]
    wanted = np.logical_or.reduce([mask_of(box["mask_per_prediction"][0]) for box in boxes])
    assert np.array_equal(visit.shown_masks(), wanted)
    visit.page.get_by_label("Fill holes").uncheck()
    visit.click_button("Detect")
    assert visit.last_body()["params"]["class_agnostic_nms"] and "largest_part" not in visit.last_body()["params"]


def sam(visit: Visit, multimask: bool = False, **prompts: Any) -> list[dict[str, Any]]:
    none = dict.fromkeys(("input_points", "input_boxes", "input_labels"))
    columns = {"image": encoded(WALL), **none, **prompts, "multimask_output": multimask}
    (prediction,) = api(visit.service, "sam/score", columns, **FRAME)["predictions"]
    return prediction["mask_per_prediction"]


def prompts_of(visit: Visit) -> dict[str, Any]:
    """What the page asked SAM last, beside the image."""
    table = visit.last_body()["input_data"]
    columns = dict(zip(table["columns"], table["data"][0], strict=True))
    prompts = ("input_points", "input_boxes", "input_labels", "input_masks")
    return {name: columns[name] for name in prompts if name in columns}


def test_points_make_and_refine_a_mask_and_can_be_undone(visit: Visit) -> None:
    visit.open(WALL)
    x, y = visit.at(0.55, 0.5)
    visit.page.mouse.click(x, y)
    visit.settle()
    first = prompts_of(visit)
    ((px, py),) = first["input_points"][0]
    assert "input_masks" not in first
    (mask,) = visit.answers[-1].json()[0]["predictions"][0]["mask_per_prediction"]
    assert abs(px - 0.55 * 1024) < 2 and abs(py - 0.5 * 768) < 2 and first["input_labels"] == [[1]]
    of_first = visit.shown_masks()
    assert np.array_equal(of_first, mask_of(sam(visit, **first)[0])) and of_first.any()

    visit.page.locator("#things .name").click()  # to go on with it
    visit.page.mouse.click(*visit.at(0.8, 0.5), button="right")  # the bottle beside it
    visit.settle()
    second = prompts_of(visit)
    assert second["input_labels"] == [[1, 0]] and second["input_masks"] == mask["logits"]
    visit.take("refined")
    of_second = visit.shown_masks()
    assert np.array_equal(of_second, mask_of(sam(visit, **second)[0]))
    assert not np.array_equal(of_second, of_first)

    asked = len(visit.answers)
    visit.page.keyboard.press("Control+z")
    assert np.array_equal(visit.shown_masks(), of_first)
    visit.page.keyboard.press("Control+Shift+z")
    assert np.array_equal(visit.shown_masks(), of_second)
    for _ in range(2):
        visit.page.get_by_role("button", name="Undo").click()
    assert visit.names() == [] and visit.page.get_by_role("button", name="Undo").is_disabled()
    assert len(visit.answers) == asked  # whatever was answered once is there


def test_a_dragged_box_becomes_a_mask(visit: Visit) -> None:
    visit.open(WALL)
    visit.page.mouse.move(*visit.at(0.42, 0.13))
    visit.page.mouse.down()
    visit.page.mouse.move(*visit.at(0.6, 0.5))
    visit.page.mouse.move(*visit.at(0.72, 0.88))
    visit.page.mouse.up()
    visit.settle()
    asked = prompts_of(visit)
    (box,) = asked["input_boxes"]
    assert np.allclose(box, [0.42 * 1024, 0.13 * 768, 0.72 * 1024, 0.88 * 768], atol=2)
    assert np.array_equal(visit.shown_masks(), mask_of(sam(visit, **asked)[0]))


def test_one_of_three_masks_is_chosen(visit: Visit) -> None:
    visit.open(WALL)
    visit.page.get_by_label("Three", exact=True).check(force=True)
    visit.page.mouse.click(*visit.at(0.55, 0.5))
    visit.settle()
    masks = sam(visit, multimask=True, **prompts_of(visit))
    scores = [mask["iou_score"] for mask in masks]
    choices = visit.page.locator("#candidates input")
    expect(choices).to_have_count(3)
    assert choices.nth(int(np.argmax(scores))).is_checked()
    for place in range(3):
        assert f"{100 * scores[place]:.0f}%" in (choices.nth(place).get_attribute("aria-label") or "")
    other = int(np.argmin(scores))
    choices.nth(other).check(force=True)
    assert np.array_equal(visit.shown_masks(), mask_of(masks[other]))


def test_a_detected_box_is_refined_by_a_point(visit: Visit) -> None:
    visit.open(WALL)
    visit.click_button("Detect")
    visit.page.locator("#things .name").first.click()
    x1, y1, x2, y2 = (
        visit.answers[-1].json()[0]["boxes"][0]["box"][key] for key in ("topX", "topY", "bottomX", "bottomY")
    )
    visit.page.mouse.click(*visit.at((x1 + x2) / 2, (y1 + y2) / 2))
    visit.settle()
    asked = prompts_of(visit)
    assert np.allclose(asked["input_boxes"], [[x1 * 1024, y1 * 768, x2 * 1024, y2 * 768]])
    assert np.array_equal(visit.shown_masks(), mask_of(sam(visit, **asked)[0]))


def test_masks_per_prompt_says_what_holds_for_the_selected_object(visit: Visit) -> None:
    visit.open(WALL)
    one, three = (visit.page.get_by_label(name, exact=True) for name in ("One", "Three"))
    visit.page.mouse.click(*visit.at(0.55, 0.5))
    visit.settle()
    visit.page.locator("#marks").press("Escape")
    three.check(force=True)
    visit.page.locator("#things .name").click()
    assert one.is_checked()
    visit.page.locator("#marks").press("Escape")
    assert three.is_checked()


def test_work_goes_on_while_an_answer_is_on_its_way(visit: Visit) -> None:
    visit.open(WALL)
    visit.page.mouse.click(*visit.at(0.2, 0.7))
    visit.settle()
    for button in ("Segment all", "Detect"):
        visit.click_button(button)
        assert visit.page.locator("#things li.selected .label").all_inner_texts() == ["object 1"]
    masks = visit.page.locator("#things .figures").filter(has_text="mask").count()
    assert masks > 2  # Detect keeps those that there are
    visit.page.mouse.click(*visit.at(0.25, 0.7))
    visit.settle()
    assert visit.names().count("object 1") == 1 and "object 2" not in visit.names()


def test_what_the_pointer_is_on_is_lit_in_the_list_and_in_the_picture(visit: Visit) -> None:
    visit.open(WALL)
    visit.click_button("Segment all")
    before = visit.canvas("marks")
    visit.page.mouse.move(*visit.at(0.58, 0.6))
    assert visit.page.locator("#things li.lit .label").all_inner_texts() == ["can"]
    lit = visit.canvas("marks")
    assert (lit[..., 3] >= before[..., 3]).all() and (lit[..., 3] > before[..., 3]).sum() > 50_000
    visit.page.locator("#things li").first.hover()
    assert visit.page.locator("#things li.lit .label").all_inner_texts() == [visit.names()[0]]


def test_the_keyboard_alone_does_it_all(visit: Visit) -> None:
    visit.open(WALL)
    marks = visit.page.locator("#marks")
    for key in ("ArrowLeft", "ArrowUp", "Shift+ArrowDown"):
        marks.press(key)
    assert re.match(r"\d+, \d+", visit.page.inner_text("#said"))
    marks.press("Enter")
    visit.settle()
    ((x, y),) = prompts_of(visit)["input_points"][0]
    assert x < 512 and y < 384
    assert re.match(r"object 1, mask \d+%", visit.page.inner_text("#said"))
    marks.press("ArrowRight")
    marks.press("n")
    visit.settle()
    assert prompts_of(visit)["input_labels"] == [[1, 0]]
    marks.press("Delete")
    assert visit.names() == []
    marks.press("Control+z")
    assert visit.names() == ["object 1"]
    marks.press("b")
    for _ in range(8):
        marks.press("ArrowRight")
        marks.press("ArrowDown")
    marks.press("b")
    visit.settle()
    (box,) = prompts_of(visit)["input_boxes"]
    assert box[2] - box[0] > 50 and box[3] - box[1] > 50
    visit.page.get_by_role("button", name="Remove all objects").click()
    assert visit.names() == []


def test_a_screen_reader_is_told_what_came_of_it(visit: Visit) -> None:
    visit.open(WALL)
    marks, said = visit.page.locator("#marks"), visit.page.locator("#said")
    assert visit.page.evaluate("() => document.getElementById('said').closest('[aria-busy]')") is None
    visit.page.get_by_label("Three", exact=True).check(force=True)
    visit.click_button("Detect")
    expect(said).to_have_text(f"{len(visit.names())} objects")
    visit.page.mouse.move(*visit.at(0.58, 0.6))
    marks.press("ArrowRight")
    marks.press("s")
    expect(said).to_have_text(re.compile(".+ selected"))
    marks.press("Escape")
    marks.press("Enter")
    expect(said).to_have_text(re.compile(r"object 1, mask [123] of 3, \d+%"))
    before = visit.page.inner_text("#said")
    marks.press("m")
    expect(said).to_have_text(re.compile(r"object 1, mask [123] of 3, \d+%"))
    assert visit.page.inner_text("#said") != before
    marks.press("Delete")
    expect(said).to_have_text("object 1 removed")


def test_the_focus_stays_on_a_button_that_has_nothing_more_to_do(visit: Visit) -> None:
    visit.open(WALL)
    for name in ("Detect", "Segment all", "Undo", "Undo", "Redo", "Remove all objects"):
        button = visit.page.get_by_role("button", name=name, exact=True)
        button.focus()
        visit.page.keyboard.press("Enter")
        expect(button).to_be_focused()
        visit.settle()
        expect(button).to_be_focused()
    assert visit.page.get_by_role("button", name="Remove all objects").is_disabled()
    states = visit.page.inner_text("#said")
    visit.page.keyboard.press("Enter")
    assert visit.names() == [] and visit.page.inner_text("#said") == states == "no objects"


def test_the_crosshair_stays_in_sight_and_keys_zoom_about_it(visit: Visit) -> None:
    visit.open(WALL)
    marks = visit.page.locator("#marks")
    marks.press("ArrowRight")
    x, y = map(int, visit.page.inner_text("#said").split(",")[:2])
    for _ in range(8):
        marks.press("+")
    for _ in range(60):
        marks.press("ArrowRight")
    x1, y1, x2, y2 = visit.photo_bounds()
    drawn = visit.canvas("marks")[..., 3] > 0
    rows, columns = np.nonzero(drawn)
    assert drawn.any() and columns.max() < drawn.shape[1] - 4
    before = rows.mean(), columns.mean()
    marks.press("-")
    rows, columns = np.nonzero(visit.canvas("marks")[..., 3])
    assert np.allclose((rows.mean(), columns.mean()), before, atol=2)


def test_a_corner_that_was_begun_ends_with_a_click_or_another_photo(visit: Visit) -> None:
    visit.open(WALL)
    marks = visit.page.locator("#marks")
    marks.press("b")
    visit.page.get_by_role("button", name="New photo").click()
    visit.page.get_by_role("button", name="Shelf").click()
    visit.settle()
    visit.page.wait_for_selector("#picture-name:text('shelf.jpg')")
    visit.settle()
    marks.press("ArrowRight")
    marks.press("Enter")
    visit.settle()
    assert prompts_of(visit)["input_boxes"] is None
    marks.press("b")
    visit.page.mouse.click(*visit.at(0.3, 0.3))
    visit.settle()
    marks.press("ArrowRight")
    marks.press("Enter")
    visit.settle()
    assert prompts_of(visit)["input_boxes"] is None


def test_control_and_click_takes_away_and_other_keys_do_not_end_space(visit: Visit) -> None:
    visit.open(WALL)
    visit.page.keyboard.down("Control")
    visit.page.mouse.click(*visit.at(0.55, 0.5))
    visit.page.keyboard.up("Control")
    visit.settle()
    assert prompts_of(visit)["input_labels"] == [[0]]
    view = visit.page.locator("#view")
    visit.page.keyboard.down(" ")
    visit.page.keyboard.press("ArrowRight")
    expect(view).to_have_class("view moving")
    before = visit.photo_bounds()
    visit.page.mouse.move(800, 500)
    visit.page.mouse.down()
    visit.page.mouse.move(760, 500)
    visit.page.mouse.up()
    assert visit.photo_bounds() != before
    visit.page.keyboard.up(" ")
    expect(view).to_have_class("view")


def test_zooming_keeps_what_is_under_the_pointer_there_and_space_moves_the_picture(visit: Visit) -> None:
    visit.open(WALL)
    visit.page.mouse.move(*visit.at(0.25, 0.25))
    visit.page.mouse.wheel(0, -300)
    level = visit.page.inner_text("#zoom")
    visit.page.keyboard.press("+")
    assert int(visit.page.inner_text("#zoom")[:-1]) > int(level[:-1])
    visit.page.keyboard.press("1")
    assert visit.page.inner_text("#zoom") == "100%"
    before = visit.photo_bounds()
    visit.page.mouse.move(800, 500)
    visit.page.keyboard.down(" ")
    visit.page.mouse.down()
    visit.page.mouse.move(760, 470)
    visit.page.mouse.up()
    visit.page.keyboard.up(" ")
    assert np.subtract(visit.photo_bounds(), before).tolist()[2:] == [-40, -30]
    assert len(visit.answers) == 1 and visit.names() == []  # it was no click


def test_fingers_tap_press_and_pinch(visiting: Callable[..., Any]) -> None:
    with visiting(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True) as visit:
        visit.open(WALL)
        x, y = visit.at(0.55, 0.5)
        visit.page.touchscreen.tap(x, y)
        visit.settle()
        assert prompts_of(visit)["input_labels"] == [[1]]
        touch = visit.page.context.new_cdp_session(visit.page)

        def fingers(kind: str, *places: tuple[float, float]) -> None:
            points = [{"x": x, "y": y, "id": number} for number, (x, y) in enumerate(places)]
            touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

        with visit.page.expect_response("**/sam/score"):
            fingers("touchStart", (x + 20, y + 20))  # and stays
        fingers("touchEnd")
        visit.settle()
        assert prompts_of(visit)["input_labels"] == [[1, 0]]
        before = visit.photo_bounds()
        fingers("touchStart", (150, 250), (250, 250))
        fingers("touchMove", (120, 250), (280, 250))
        fingers("touchMove", (100, 250), (300, 250))
        fingers("touchEnd")
        after = visit.photo_bounds()
        assert after[3] - after[1] > 1.5 * (before[3] - before[1])
        asked = len(visit.answers)
        visit.take("phone")
        visit.page.get_by_label("Exclude a point").check(force=True)
        visit.page.touchscreen.tap(*visit.at(0.5, 0.5))
        visit.settle()
        assert len(visit.answers) == asked + 1 and prompts_of(visit)["input_labels"] == [[1, 0, 0]]
