from __future__ import annotations

import base64
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from app.evaluation.answers import ask
from app.evaluation.document import Evaluation, evaluate
from app.evaluation.pictures import FOUND_RGB, TRUE_RGB, cutout, ranked
from app.evaluation.report import report, save
from models.data import Dataset
from models.evaluation import MaskScores, ScoredObject


@pytest.fixture
def evaluation(dataset: Dataset, box_filler: Any) -> Evaluation:
    return evaluate(ask(dataset, [lambda: box_filler]), "<script>alert(1)</script>", 0.3)


class Page(HTMLParser):
    """The page's tags, text and addresses; every element that is opened must be closed in turn."""

    VOID = {"meta", "img", "br"}

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_holds_everything_and_escapes_every_name(evaluation: Evaluation) -> None:
    page = Page(report(evaluation))
    assert not {"script", "i", "link"} & set(page.tags)
    assert set(page.addresses) and all(address.startswith("data:image/jpeg;base64,") for address in page.addresses)
    assert "http" not in page.text
    for name in (
        "<script>alert(1)</script>",
        "<b>&\"' in <i>2.png",
        "filler, points prompts",
        "0.951",
        "best",
        "worst",
    ):
        assert name in page.text
    assert "url(" not in page.text and "@import" not in page.text
    for address in page.addresses:
        with Image.open(BytesIO(base64.b64decode(address.partition(",")[2]))) as picture:
            assert max(picture.size) == 320


def test_figures_and_page_are_saved(evaluation: Evaluation, tmp_path: Path) -> None:
    document, page = save(evaluation, tmp_path / "new" / "folder")
    assert json.loads(document.read_text()) == evaluation.document
    assert page.read_text() == report(evaluation)


def test_images_that_are_gone_are_grey(evaluation: Evaluation) -> None:
    for image in evaluation.answers.dataset.images:
        Path(image.path).unlink()
    page = Page(report(evaluation))
    picture = np.asarray(Image.open(BytesIO(base64.b64decode(page.addresses[0].partition(",")[2]))))
    assert np.abs(np.median(picture, axis=(0, 1)) - 128).max() <= 2


def test_failures_are_on_the_page(evaluation: Evaluation) -> None:
    document = evaluation.document | {"failures": [{"image": "<x>.jpg", "reason": "it is <broken>"}]}
    page = Page(report(replace(evaluation, document=document)))
    assert "<x>.jpg" in page.text and "it is <broken>" in page.text


def test_both_outlines_are_drawn_where_the_masks_end(evaluation: Evaluation) -> None:
    row = next(row for row in evaluation.rows if row.prompts == "ground-truth")
    white = np.full((60, 80, 3), 255, np.uint8)
    picture = np.asarray(Image.open(BytesIO(cutout(white, row.objects[0])))).astype(int)
    truth, found = (np.abs(picture - colour).sum(-1) < 60 for colour in (TRUE_RGB, FOUND_RGB))
    assert truth.sum() > 200 and found.sum() > 200
    rows, columns = np.nonzero(found)  # a square, as this segmenter fills its box
    assert 0.9 < np.ptp(rows) / np.ptp(columns) < 1.1
    corner = (slice(rows.min(), rows.min() + 20), slice(columns.min(), columns.min() + 20))
    assert found[corner].any() and not truth[corner].any()  # where the disc is not


def thing(iou: float | None) -> ScoredObject:
    scores = None if iou is None else MaskScores(iou, iou, iou, iou, iou)
    return ScoredObject(0, 0, "can", {"size": [1, 1], "counts": "1"}, scores=scores)


@pytest.mark.parametrize(
    ("count", "best", "median", "worst"),
    [
        (9, [9, 8], [5, 4], [2, 1]),
        (7, [7, 6], [4, 3], [2, 1]),
        (3, [3], [2], [1]),
        (2, [2], [], [1]),
        (1, [1], [], []),
        (0, [], [], []),
    ],
)
def test_best_median_and_worst(count: int, best: list[int], median: list[int], worst: list[int]) -> None:
    things = [thing(value / 10) for value in np.random.default_rng(0).permutation(count) + 1]
    chosen = ranked([*things, thing(None)], 2)
    ious = {
        name: [round(one.scores.iou * 10) for one in objects if one.scores is not None]
        for name, objects in chosen.items()
    }
    assert ious["best"] == best and ious["worst"] == worst
    assert ious["median"] == median


def test_no_address_leads_out(evaluation: Evaluation) -> None:
    html = report(evaluation)
    assert not re.search(r"https?://|//[a-z]", re.sub(r"base64,[^\"]+", "", html))
    assert "default-src 'none'" in html and "prefers-color-scheme: dark" in html
