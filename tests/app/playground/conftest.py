"""The playground as people meet it: Debian's Chromium on the service with the demo weights.

`PLAYGROUND_SCREENSHOTS=folder` keeps the pictures that the tests take.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request, Response, sync_playwright

from tests.app.conftest import Service, serving

REPOSITORY = Path(__file__).parents[3]
SAMPLES = REPOSITORY / "app" / "playground" / "samples"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE_MS = 120_000


@dataclass
class Visit:
    """Somebody on the page. answers: of the scoring routes, in order. problems: what the browser complained of."""

    page: Page
    service: Service
    screenshots: Path
    answers: list[Response] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    hosts: set[str] = field(default_factory=set)

    def open(self, photo: Path | None = None) -> None:
        """Go to the page and, with a photo, choose it as a file; ready when the service has seen it."""
        self.page.goto(f"{self.service.url}/playground")
        self.page.wait_for_selector("#models:not(:empty)", state="attached")  # hidden on phones
        if photo is not None:
            with self.page.expect_file_chooser() as chooser:
                self.page.get_by_text("Choose a file").click()
            chooser.value.set_files(photo)
            self.settle()

    def settle(self) -> None:
        """Until nothing is waited for any more."""
        self.page.wait_for_selector("#view:not([hidden])")
        self.page.wait_for_selector("#view[aria-busy=false]")

    def click_button(self, name: str) -> None:
        self.page.get_by_role("button", name=name, exact=True).click()
        self.settle()

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Where a place in the picture, 0..1 of its width and height, is on the screen."""
        left, top, right, bottom = self.photo_bounds()
        box = self.page.locator("#marks").bounding_box()
        assert box is not None
        return box["x"] + left + x * (right - left), box["y"] + top + y * (bottom - top)

    def photo_bounds(self) -> tuple[int, int, int, int]:
        """x1, y1, x2, y2 of the picture on its canvas, whose pixels are those of the screen."""
        bounds = Image.fromarray(self.canvas("photo")[..., 3]).getbbox()
        assert bounds is not None
        return bounds

    def canvas(self, name: str) -> np.ndarray:
        """RGBA (H, W, 4) of a canvas, as it is drawn next."""
        url = self.page.evaluate(
            """name => new Promise(resolve => requestAnimationFrame(() => requestAnimationFrame(
                () => resolve(document.getElementById(name).toDataURL()))))""",
            name,
        )
        with Image.open(BytesIO(base64.b64decode(url.partition(",")[2]))) as image:
            return np.array(image.convert("RGBA"))

    def shown_masks(self) -> np.ndarray:
        """(H, W) bool: what of the picture's pixels is under a mask, at 100 % and without boxes and names."""
        for part in ("Boxes", "Names"):
            self.page.get_by_label(part, exact=True).uncheck()
        self.page.locator("#marks").press("Escape")
        self.page.get_by_role("button", name="Zoom to 100%").click()
        x1, y1, x2, y2 = self.photo_bounds()
        drawn = self.canvas("marks")[y1:y2, x1:x2, 3] > 0
        for part in ("Boxes", "Names"):
            self.page.get_by_label(part, exact=True).check()
        return drawn

    def names(self) -> list[str]:
        return self.page.locator("#things .label").all_inner_texts()

    def last_body(self) -> dict[str, Any]:
        """What the page asked last."""
        return json.loads(self.answers[-1].request.post_data or "")

    def take(self, name: str) -> None:
        self.page.screenshot(path=self.screenshots / f"{name}.png")


def mask_of(answered: dict[str, Any]) -> np.ndarray:
    """(H, W) bool of a mask's PNG in an answer."""
    with Image.open(BytesIO(base64.b64decode(answered["encoded_binary_mask"]))) as image:
        return np.array(image) > 0


def api(service: Service, route: str, columns: dict[str, Any], **params: Any) -> dict[str, Any]:
    """The service's own answer to one row, as any client gets it."""
    body = {"input_data": {"columns": list(columns), "data": [list(columns.values())]}, "params": params}
    answered = httpx.post(f"{service.url}/{route}", json=body, timeout=120)
    assert answered.status_code == 200, answered.text
    (row,) = answered.json()
    return row


def encoded(photo: Path) -> str:
    return base64.b64encode(photo.read_bytes()).decode()


@pytest.fixture(scope="session")
def demo_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    settings = {"BOX2MASK_DEVICE": "cpu", "BOX2MASK_IMAGE_URLS": "any"}  # the tests' own addresses are on this machine
    with serving(tmp_path_factory.mktemp("playground") / "service.log", settings) as started:
        yield started


# For each module anew: while Playwright runs, its event loop is this thread's, and others' asyncio.run would fail.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip("there is no Chromium (Debian's package: chromium)")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=found, args=ARGUMENTS)
        yield started
        started.close()


@pytest.fixture(scope="session")
def screenshots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = os.environ.get("PLAYGROUND_SCREENSHOTS")
    path = Path(folder) if folder else tmp_path_factory.mktemp("screenshots")
    path.mkdir(parents=True, exist_ok=True)
    return path


@pytest.fixture
def visiting(browser: Browser, demo_service: Service, screenshots: Path) -> Callable[..., Any]:
    """A visit with these options of a browser's context, in which nothing may go wrong but what `expected` matches."""

    @contextmanager
    def visit(service: Service = demo_service, *, expected: str | None = None, **options: Any) -> Iterator[Visit]:
        context: BrowserContext = browser.new_context(**({"viewport": {"width": 1600, "height": 1000}} | options))
        context.set_default_timeout(PATIENCE_MS)
        page = context.new_page()
        visit = Visit(page, service, screenshots)

        def heard(message: ConsoleMessage) -> None:
            if message.type in ("error", "warning"):
                visit.problems.append(message.text)

        def asked(request: Request) -> None:
            if urlsplit(request.url).scheme not in ("blob", "data"):
                visit.hosts.add(urlsplit(request.url).netloc)

        def answered(response: Response) -> None:
            if urlsplit(response.url).path.endswith("/score"):
                visit.answers.append(response)

        page.on("console", heard)
        page.on("pageerror", lambda error: visit.problems.append(str(error)))
        page.on("request", asked)
        page.on("response", answered)
        yield visit
        context.close()
        unexpected = [text for text in visit.problems if expected is None or not re.search(expected, text)]
        assert not unexpected
        assert visit.hosts <= {urlsplit(service.url).netloc}

    return visit


@pytest.fixture
def visit(visiting: Callable[..., Any]) -> Iterator[Visit]:
    with visiting() as one:
        yield one
