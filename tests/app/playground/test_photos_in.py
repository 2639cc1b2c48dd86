"""How photos get into the playground: chosen, pasted, dropped, a sample, fetched from an address."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Route, expect

from tests.app.conftest import web_server
from tests.app.playground.conftest import SAMPLES, Visit, encoded

GIVEN_BY_SCRIPT = """([kind, base64, name]) => {
    const bytes = Uint8Array.from(atob(base64), character => character.charCodeAt(0));
    const data = new DataTransfer();
    data.items.add(new File([bytes], name, {type: "image/jpeg"}));
    const event = kind === "paste" ? new ClipboardEvent(kind, {clipboardData: data, bubbles: true, cancelable: true})
        : new DragEvent(kind, {dataTransfer: data, bubbles: true, cancelable: true});
    document.body.dispatchEvent(event);
}"""

SENT = re.compile(r"/images(\?|$)")


@pytest.fixture
def photo_server() -> Iterator[str]:
    """The address of a server that has one photo, and does not let pages of others have it."""
    with web_server({"/photos/shelf.jpg": (SAMPLES / "shelf.jpg").read_bytes()}) as url:
        yield url


def shown(visit: Visit) -> tuple[str, str]:
    visit.settle()
    return visit.page.inner_text("#picture-name"), visit.page.inner_text("#picture-size").partition(" pixels")[0]


def test_a_sample_is_opened_and_seen_by_the_service_before_the_first_click(visit: Visit) -> None:
    visit.open()
    visit.take("empty")
    visit.page.get_by_role("button", name="Shelf").click()
    assert shown(visit) == ("shelf.jpg", "768 × 1024")
    assert [answer.url.removeprefix(visit.service.url) for answer in visit.answers] == ["/sam/score"]
    assert visit.page.inner_text("#status") == "Ready: click on something"
    assert visit.last_body()["input_data"]["data"][0][0].startswith("sha256:")
    visit.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    visit.click_button("Detect")
    visit.page.get_by_role("button", name="curl", exact=True).click()
    visit.page.get_by_text("Copied. It reads shelf.jpg").wait_for()
    program = visit.page.evaluate("() => navigator.clipboard.readText()")
    assert f"shelf.jpg is at {visit.service.url}/playground/samples/shelf.jpg\n" in program


@pytest.mark.parametrize("kind", ["paste", "drop"])
def test_a_photo_is_pasted_or_dropped(visit: Visit, kind: str) -> None:
    visit.open()
    visit.page.evaluate(GIVEN_BY_SCRIPT, [kind, encoded(SAMPLES / "wall.jpg"), "mine.jpg"])
    assert shown(visit) == ("mine.jpg", "1024 × 768")


def test_a_photo_is_turned_upright_as_its_exif_says(visit: Visit, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(SAMPLES / "wall.jpg") as image:
        image.rotate(90, expand=True).save(tmp_path / "turned.jpg", exif=exif, quality=90)
    visit.open(tmp_path / "turned.jpg")
    assert shown(visit) == ("turned.jpg", "1024 × 768")
    visit.click_button("Detect")
    boxes = visit.answers[-1].json()[0]["boxes"]
    assert boxes[0]["box"]["bottomX"] < 1 and visit.last_body()["params"]["exif_orientation"] is True


def test_a_photo_whose_orientation_the_browser_reads_differently_is_refused(visit: Visit, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(SAMPLES / "wall.jpg") as image:
        image.save(tmp_path / "turned.webp", exif=exif)
    visit.open(tmp_path / "turned.webp")
    if shown(visit)[1] == "768 × 1024":
        pytest.skip("this browser reads the EXIF of WebP")
    visit.page.get_by_role("alert").get_by_text("the service sees 768 × 1024").wait_for()


def test_an_address_is_fetched_by_the_service_and_by_nobody_else(
    visit: Visit, photo_server: str, tmp_path: Path
) -> None:
    visit.open()
    visit.page.get_by_label("Address of a photo").fill(f"{photo_server}/photos/shelf.jpg")
    visit.page.get_by_role("button", name="Fetch").click()
    assert shown(visit) == ("shelf.jpg", "768 × 1024")
    visit.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    visit.click_button("Detect")
    for language in ("curl", "Python"):  # which need no file, as there is none
        visit.page.get_by_role("button", name=language, exact=True).click()
        visit.page.get_by_text("Copied. It has the service fetch").wait_for()
        program = visit.page.evaluate("() => navigator.clipboard.readText()")
        command = ["bash", "-c"] if language == "curl" else [sys.executable, "-c"]
        done = subprocess.run([*command, program], cwd=tmp_path, capture_output=True, text=True, timeout=120)
        assert json.loads(done.stdout) == visit.answers[-1].json(), done.stderr


def test_a_photo_that_comes_late_does_not_replace_a_newer_one(visit: Visit, photo_server: str) -> None:
    waiting: list[Route] = []

    def hold(route: Route) -> None:
        if route.request.headers["content-type"] == "application/json":
            waiting.append(route)
        else:
            route.continue_()

    visit.page.route(SENT, hold)
    visit.open()
    visit.page.get_by_label("Address of a photo").fill(f"{photo_server}/photos/shelf.jpg")
    for _ in range(2):
        visit.page.get_by_role("button", name="Fetch").click()
    expect(visit.page.locator("#status")).to_have_text("Fetching…")
    visit.page.wait_for_timeout(3500)  # longer than what the page tells in passing
    assert visit.page.inner_text("#status") == "Fetching…" and len(waiting) == 1
    visit.page.get_by_role("button", name="Table").click()
    assert shown(visit) == ("wall.jpg", "1024 × 768")
    visit.page.mouse.click(*visit.at(0.55, 0.5))
    visit.settle()
    waiting[0].continue_()
    visit.page.wait_for_timeout(1500)
    assert shown(visit) == ("wall.jpg", "1024 × 768") and visit.names() == ["object 1"]


def test_a_photo_that_is_slow_to_read_does_not_replace_a_newer_one(visit: Visit) -> None:
    visit.page.add_init_script(
        """const read = window.createImageBitmap;
        window.createImageBitmap = async (file, options) => {
            if (file.name === "slow.jpg") await new Promise(resolve => (window.goOn = resolve));
            return read(file, options);
        };"""
    )
    visit.open()
    visit.page.evaluate(GIVEN_BY_SCRIPT, ["paste", encoded(SAMPLES / "shelf.jpg"), "slow.jpg"])
    visit.page.evaluate(GIVEN_BY_SCRIPT, ["paste", encoded(SAMPLES / "wall.jpg"), "quick.jpg"])
    assert shown(visit) == ("quick.jpg", "1024 × 768")
    visit.page.evaluate("async () => { window.goOn(); await new Promise(resolve => setTimeout(resolve, 500)); }")
    assert shown(visit) == ("quick.jpg", "1024 × 768")


def test_a_photo_is_sent_once_however_many_wait_for_it(visit: Visit) -> None:
    sent: list[Route] = []
    visit.page.route(SENT, lambda route: sent.append(route))
    visit.open()
    visit.page.get_by_role("button", name="Table").click()
    visit.page.wait_for_selector("#view:not([hidden])")
    for x in (0.2, 0.55, 0.8):
        visit.page.mouse.click(*visit.at(x, 0.7))
        visit.page.locator("#marks").press("Escape")
    visit.page.locator("#marks").press("Control+z")
    visit.page.wait_for_timeout(500)
    assert len(sent) == 1
    assert sent[0].request.url.endswith("/images?embed=true&exif_orientation=true")  # encoded before the first click
    sent[0].continue_()
    visit.settle()
    assert visit.names() == ["object 1", "object 2"]
    assert all(answer.json()[0]["predictions"] for answer in visit.answers)


def test_nothing_is_left_of_the_photo_before(visit: Visit) -> None:
    visit.page.add_init_script(
        """const read = window.createImageBitmap;
        window.bitmaps = [];
        window.createImageBitmap = async (...given) => {
            window.bitmaps.push(await read(...given));
            return window.bitmaps.at(-1);
        };"""
    )
    visit.open(SAMPLES / "wall.jpg")
    visit.click_button("Detect")
    assert visit.page.locator("#last").is_visible()
    visit.page.get_by_role("button", name="New photo").click()
    visit.page.get_by_role("button", name="Shelf").click()
    assert shown(visit)[0] == "shelf.jpg"
    assert visit.page.locator("#last").is_hidden()
    assert visit.page.evaluate("() => window.bitmaps.map(({ width }) => width)") == [0, 768]


def test_what_is_wrong_is_said_in_the_services_words(visiting: Callable[..., Any], photo_server: str) -> None:
    with visiting(expected="400") as visit:
        visit.open()
        visit.page.get_by_label("Address of a photo").fill(f"{photo_server}/photos/none.jpg")
        visit.page.get_by_role("button", name="Fetch").click()
        alert = visit.page.get_by_role("alert")
        alert.get_by_text("the image URL answered 404").wait_for()
        visit.take("error")
        alert.get_by_role("button", name="Dismiss").click()
        alert.get_by_text("the image URL answered 404").wait_for(state="hidden")
        expect(visit.page.locator("#file")).to_be_focused()


def test_a_file_that_is_no_photo_is_named(visit: Visit, tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no image")
    visit.open()
    with visit.page.expect_file_chooser() as chooser:
        visit.page.get_by_text("Choose a file").click()
    chooser.value.set_files(broken)
    visit.page.get_by_role("alert").get_by_text("broken.jpg: this browser cannot show it").wait_for()
