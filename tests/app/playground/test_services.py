"""The playground on services that lack something: a model, the image store, a key, an answer."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from playwright.sync_api import Route, expect

from tests.app.conftest import Service, serving
from tests.app.playground.conftest import SAMPLES, Visit

WALL = SAMPLES / "wall.jpg"


@pytest.fixture(scope="module")
def only_segmenter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    settings = {"BOX2MASK_DEVICE": "cpu", "BOX2MASK_DETECTOR": "none", "BOX2MASK_IMAGE_STORE_MB": "0.2"}
    with serving(tmp_path_factory.mktemp("segmenter") / "service.log", settings) as started:
        yield started


@pytest.fixture(scope="module")
def only_detector(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    settings = {"BOX2MASK_DEVICE": "cpu", "BOX2MASK_SEGMENTER": "none", "BOX2MASK_IMAGE_STORE_MB": "0"}
    with serving(tmp_path_factory.mktemp("detector") / "service.log", settings) as started:
        yield started


def images_sent(visit: Visit) -> list[str]:
    """The image column of each request so far."""
    return [json.loads(one.request.post_data or "")["input_data"]["data"][0][0] for one in visit.answers]


def test_without_a_detector_its_buttons_are_off_and_say_why(
    visiting: Callable[..., Any], only_segmenter: Service
) -> None:
    with visiting(only_segmenter) as visit:
        visit.open(WALL)
        for name in ("Detect", "Segment all"):
            assert visit.page.get_by_role("button", name=name, exact=True).is_disabled()
        visit.page.get_by_text("This service has no detector").wait_for()
        visit.page.mouse.click(*visit.at(0.5, 0.5))
        visit.settle()
        assert visit.names() == ["object 1"]


def test_an_image_that_made_room_for_others_is_sent_again(
    visiting: Callable[..., Any], only_segmenter: Service
) -> None:
    with visiting(only_segmenter, expected="410") as visit:
        visit.open(WALL)
        other = httpx.post(f"{only_segmenter.url}/images", content=(SAMPLES / "bottles.jpg").read_bytes())
        assert other.status_code == 200
        visit.page.mouse.click(*visit.at(0.5, 0.5))
        visit.settle()
        assert visit.names() == ["object 1"]
        assert [answer.status for answer in visit.answers] == [200, 410, 200]
        assert len(set(images_sent(visit))) == 1


def test_without_a_segmenter_and_a_store_there_are_boxes_and_requests_carry_the_photo(
    visiting: Callable[..., Any], only_detector: Service
) -> None:
    with visiting(only_detector, expected="404") as visit:
        visit.open(WALL)
        visit.page.get_by_text("This service has no segmenter").wait_for()
        assert visit.page.get_by_role("button", name="Segment all").is_disabled()
        visit.click_button("Detect")
        assert "can" in visit.names()
        (image,) = images_sent(visit)
        assert len(image) > 100_000
        visit.page.mouse.click(*visit.at(0.58, 0.6))  # selects, as there is nothing to segment with
        expect(visit.page.locator("#things li.selected")).to_have_count(1)
        assert len(visit.answers) == 1


def test_boxes_in_another_frame_are_refused_too(visiting: Callable[..., Any], tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 20)).save(tmp_path / "turned.webp", exif=exif)
    with visiting() as visit:
        visit.open(tmp_path / "turned.webp")
        visit.page.get_by_role("alert").get_by_text("the service sees 20 × 40").wait_for()
        visit.click_button("Detect")
        visit.page.get_by_role("alert").get_by_text("the service sees 20 × 40").wait_for()
        assert visit.answers == [] and visit.names() == []


def test_a_key_is_asked_for_kept_in_the_tab_and_sent(visiting: Callable[..., Any]) -> None:
    seen: list[str | None] = []

    def guard(route: Route) -> None:
        key = route.request.headers.get("authorization")
        seen.append(key)
        if key == "Bearer a-secret-of-mine":
            route.continue_()
        else:
            route.fulfill(status=401, content_type="application/json", body='{"message": "expected a key, got none"}')

    with visiting(expected="401") as visit:
        visit.page.route(re.compile(r"/(version|images|sam/score)(\?|$)"), guard)
        visit.page.goto(f"{visit.service.url}/playground")
        dialog = visit.page.get_by_role("dialog", name="Settings")
        dialog.get_by_text("expected a key, got none").wait_for()
        dialog.get_by_label("API key").fill("a-secret-of-mine")
        dialog.get_by_label("API key").press("Enter")
        visit.page.wait_for_selector("#models:not(:empty)")
        visit.page.get_by_role("button", name="Table").click()
        visit.settle()
        assert seen == [None] + ["Bearer a-secret-of-mine"] * (len(seen) - 1) and len(seen) >= 4
        kept = visit.page.evaluate("() => [JSON.stringify(localStorage), JSON.stringify(sessionStorage)]")
        assert "a-secret" not in kept[0] and "a-secret" in kept[1]


def test_times_of_the_service_are_shown_and_its_refusals_too(visiting: Callable[..., Any]) -> None:
    def timed(route: Route) -> None:
        answer = route.fetch()
        timing = 'queue;dur=1.5, net;dur=20;desc="the network - all of it", masks;dur=3'
        route.fulfill(response=answer, headers=answer.headers | {"server-timing": timing})

    with visiting(expected="429") as visit:
        visit.page.route("**/yolof/score", timed)
        visit.open(WALL)
        visit.click_button("Detect")
        times = visit.page.inner_text("#times")
        for words in ("queue", "1.5 ms", "the network - all of it", "20 ms", "3.0 ms", "models and masks", "in all"):
            assert words in times
        visit.page.unroute("**/yolof/score")
        refusal = '{"message": "64 requests are in work or waiting; try again in 3 s"}'
        visit.page.route(
            "**/yolof/score", lambda route: route.fulfill(status=429, content_type="application/json", body=refusal)
        )
        before = visit.names()
        visit.click_button("Detect")
        visit.page.get_by_role("alert").get_by_text("64 requests are in work or waiting").wait_for()
        assert visit.names() == before


def test_a_mask_that_was_refused_is_asked_for_again(visiting: Callable[..., Any]) -> None:
    def refuse(route: Route) -> None:
        route.fulfill(status=429, content_type="application/json", body='{"message": "too many"}')

    with visiting(expected="429") as visit:
        visit.open(WALL)
        alert = visit.page.get_by_role("alert").get_by_text("too many")
        figures = visit.page.locator("#things .figures")
        for again in (
            lambda: visit.page.locator("#things .name").click(),
            lambda: [visit.page.get_by_role("button", name=name).click() for name in ("Undo", "Redo")],
        ):
            visit.page.route("**/sam/score", refuse)
            visit.page.mouse.click(*visit.at(0.55, 0.5))
            expect(figures).to_have_text("no mask")
            expect(alert).to_be_visible()
            visit.page.unroute("**/sam/score")
            again()
            expect(figures).to_contain_text("%")
            expect(alert).to_be_hidden()
            visit.page.get_by_role("button", name="Remove all objects").click()


def test_one_objects_mask_does_not_hide_what_went_wrong_with_another(visiting: Callable[..., Any]) -> None:
    with visiting(expected="429") as visit:
        visit.open(WALL)
        waiting: list[Route] = []
        visit.page.route("**/sam/score", lambda route: waiting.append(route))
        for x in (0.55, 0.2):
            with visit.page.expect_request("**/sam/score"):
                visit.page.mouse.click(*visit.at(x, 0.7))
            visit.page.locator("#marks").press("Escape")
        waiting[1].fulfill(status=429, content_type="application/json", body='{"message": "too many"}')
        visit.page.get_by_role("alert").get_by_text("too many").wait_for()
        waiting[0].continue_()
        visit.settle()
        assert visit.page.get_by_role("alert").get_by_text("too many").is_visible()


def test_a_start_that_failed_is_made_up_for_with_the_first_photo(visiting: Callable[..., Any]) -> None:
    with visiting(expected="ERR_FAILED") as visit:
        visit.page.add_init_script(
            """Object.defineProperty(window, "sessionStorage", {
                get() { throw new DOMException("denied", "SecurityError"); },
            });"""
        )
        visit.page.route("**/version", lambda route: route.abort())
        visit.page.goto(f"{visit.service.url}/playground")
        visit.page.get_by_role("alert").get_by_text("The service cannot be reached").wait_for()
        visit.page.unroute("**/version")
        visit.page.get_by_role("button", name="Table").click()
        visit.page.wait_for_selector("#models:not(:empty)")
        visit.settle()
        visit.click_button("Detect")
        assert "can" in visit.names()


def test_the_service_may_go_away(visiting: Callable[..., Any]) -> None:
    with visiting(expected="ERR_FAILED") as visit:
        visit.open(WALL)
        visit.page.route("**/yolof/score", lambda route: route.abort())
        visit.click_button("Detect")
        visit.page.get_by_role("alert").get_by_text("The service cannot be reached").wait_for()


def test_the_samples_are_scenes_that_this_repository_draws() -> None:
    import numpy as np

    from models.demo.scenes import render_scene

    for name, seed, size_hw in (("bottles", 300, (768, 1024)), ("shelf", 308, (1024, 768)), ("wall", 321, (768, 1024))):
        path: Path = SAMPLES / f"{name}.jpg"
        assert path.stat().st_size < 150_000
        drawn = render_scene(np.random.default_rng(seed), size_hw, containers=(3, 4), clutter=(0, 1)).image
        with Image.open(path) as image:
            assert np.abs(np.array(image, int) - drawn).mean() < 12
