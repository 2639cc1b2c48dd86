"""The results as files: evaluation.json, and report.html, one page with everything in it and without scripts."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from app.evaluation.document import Evaluation, MaskRow
from app.evaluation.pictures import FOUND_RGB, TRUE_RGB, cutout, ranked
from app.evaluation.tables import Table, shown, tables
from app.prediction import PredictionError, read_image
from models.data import Dataset
from models.evaluation import ScoredObject
from models.images.decoding import ImageError, decode_image

PICTURES = 4  # of the best, of the median and of the worst objects

STYLE = f"""\
:root {{ color-scheme: light dark; --ink: #1c1e21; --paper: #ffffff; --line: #d9dce1; --soft: #5b616b; --tile: #f4f5f7;
  --true: rgb{TRUE_RGB}; --found: rgb{FOUND_RGB}; }}
@media (prefers-color-scheme: dark) {{
  :root {{ --ink: #e7e9ec; --paper: #15171a; --line: #363b42; --soft: #9aa2ad; --tile: #1f2227; }} }}
body {{ margin: 0 auto; max-width: 75rem; padding: 1.5rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }}
h1 {{ font-size: 1.5rem; margin: 0; }} h2 {{ font-size: 1.15rem; margin: 2.2rem 0 .6rem; }}
h3 {{ font-size: 1rem; margin: 1.2rem 0 .4rem; }}
p {{ margin: .3rem 0; }} .soft {{ color: var(--soft); }}
.tiles {{ display: flex; flex-wrap: wrap; gap: .8rem; margin: 1.2rem 0; }}
.tiles div {{ background: var(--tile); border-radius: .5rem; padding: .7rem 1.1rem; min-width: 9rem; }}
.tiles b {{ display: block; font-size: 1.7rem; line-height: 1.2; font-variant-numeric: tabular-nums; }}
.scroll {{ overflow-x: auto; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .92rem; }}
th, td {{ padding: .35rem .8rem; border-bottom: 1px solid var(--line); text-align: right; overflow-wrap: normal; }}
th {{ font-weight: 600; vertical-align: bottom; }} .text {{ text-align: left; }}
.pictures {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(11rem, 1fr)); gap: 1rem; }}
figure {{ margin: 0; }} figure img {{ width: 100%; border-radius: .4rem; display: block; }}
figcaption {{ font-size: .85rem; color: var(--soft); }}
.true, .found {{ font-weight: 600; }}
.true::before, .found::before {{ content: ""; display: inline-block; width: 1.4rem; height: .25rem; margin-right: .4rem;
  vertical-align: middle; background: var(--true); }}
.found::before {{ background: var(--found); }}
"""

DEFINITIONS = (
    ("average IoU", "mean over the objects that have a mask: pixels in both masks over pixels in either"),
    ("average accuracy", "mean over the same objects: share of the image's pixels on which both masks agree"),
    ("boundary IoU", "IoU of the pixels near both outlines, within 2 % of the image's diagonal"),
    ("IoU, none as 0", "average IoU over all objects, with 0 for those that no detection stands for"),
    ("mask AP", "COCO's average precision of the masks; with given prompts the score is SAM's own"),
    ("filled boxes", "what a mask that simply fills the box would have: the floor"),
)


def save(evaluation: Evaluation, folder: Path) -> tuple[Path, Path]:
    """Write evaluation.json and report.html into the folder, made if need be, and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    document, page = folder / "evaluation.json", folder / "report.html"
    content = json.dumps(evaluation.document, indent=2, allow_nan=False, ensure_ascii=False)
    document.write_text(content + "\n", "utf-8")
    page.write_text(report(evaluation), "utf-8")
    return document, page


def report(evaluation: Evaluation) -> str:
    """The page. Where an image cannot be read again, its objects are outlined on grey."""
    document = evaluation.document
    pixels = lru_cache(maxsize=8)(
        partial(_pixels, evaluation.answers.dataset)
    )  # one image holds several of the objects
    data = document["data"]
    parts = [
        f"<h1>{escape(data['name'])}</h1>",
        f'<p class="soft">{data["images"]} images, {data["objects"]} objects of {len(data["classes"])} classes, '
        f"{data['objects_with_masks']} of them with masks</p>",
        _tiles(document),
        *(f"<p>{escape(note)}</p>" for note in document["notes"]),
        *map(_table, tables(document)),
    ]
    if document["failures"]:
        rows = [[one["image"], one["reason"]] for one in document["failures"]]
        parts.append(_table(Table("Images that could not be answered", ("image", "reason"), rows, texts=2)))
    if document["masks"]:
        parts.append("<h2>What the figures are</h2>")
        parts += [f"<p><b>{escape(name)}</b>: {escape(meaning)}.</p>" for name, meaning in DEFINITIONS]
        parts += [_pictures(row, evaluation, pixels) for row in evaluation.rows]
    title = escape(f"Evaluation: {data['name']}")
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'\">\n"
        f"<title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(parts)
        + "\n</body>\n</html>\n"
    )


def _tiles(document: dict[str, Any]) -> str:
    """The few figures that most look for."""
    tiles = []
    if document["average_of"] is not None:
        of = f"{document['average_of']['segmenter']}, {document['average_of']['prompts']} prompts"
        for key, name in (("average_iou", "average IoU"), ("average_accuracy", "average accuracy")):
            tiles.append((shown(document[key]), name, of))
    if document["boxes"] is not None:
        boxes = document["boxes"]
        tiles.append((shown(boxes["coco"]["mAP50"]), "mAP50 of boxes", boxes["detector"]))
        tiles.append(
            (f"{shown(boxes['precision'])} / {shown(boxes['recall'])}", "precision / recall", boxes["detector"])
        )
    cells = (
        f'<div><b>{escape(value)}</b>{escape(name)}<br><span class="soft">{escape(of)}</span></div>'
        for value, name, of in tiles
    )
    return f'<div class="tiles">{"".join(cells)}</div>'


def _table(table: Table) -> str:
    def cells(row: Sequence[str], tag: str) -> str:
        return "".join(
            f"<{tag}{' class=text' if index < table.texts else ''}>{escape(cell)}</{tag}>"
            for index, cell in enumerate(row)
        )

    body = "\n".join(f"<tr>{cells(row, 'td')}</tr>" for row in table.rows)
    return (
        f'<h2>{escape(table.title)}</h2>\n<div class="scroll"><table>\n<tr>{cells(table.columns, "th")}</tr>\n'
        f"{body}\n</table></div>"
    )


def _pictures(row: MaskRow, evaluation: Evaluation, pixels: Callable[[int], np.ndarray]) -> str:
    without = sum(one.scores is None for one in row.objects)
    parts = [
        f"<h2>{escape(row.segmenter)}, {escape(row.prompts)} prompts</h2>",
        '<p><span class="true">true outline</span> &nbsp; <span class="found">predicted outline</span>'
        + (f' &nbsp; <span class="soft">{without} objects without a mask are not shown</span>' if without else "")
        + "</p>",
    ]
    for rank, objects in ranked(row.objects, PICTURES).items():
        if objects:
            figures = "\n".join(_figure(one, evaluation, pixels) for one in objects)
            parts.append(f'<h3>{rank}</h3>\n<div class="pictures">\n{figures}\n</div>')
    return "\n".join(parts)


def _figure(scored: ScoredObject, evaluation: Evaluation, pixels: Callable[[int], np.ndarray]) -> str:
    assert scored.scores is not None
    image = evaluation.answers.dataset.images[scored.image]
    jpeg = base64.b64encode(cutout(pixels(scored.image), scored)).decode("ascii")
    caption = (
        f"{scored.label} in {image.name}: IoU {scored.scores.iou:.3f}, boundary IoU {scored.scores.boundary_iou:.3f}"
    )
    text = escape(caption)
    return f'<figure><img alt="{text}" src="data:image/jpeg;base64,{jpeg}"><figcaption>{text}</figcaption></figure>'


def _pixels(dataset: Dataset, index: int) -> np.ndarray:
    image = dataset.images[index]
    try:
        # What was measured is not too large.
        data = read_image(image.path)
        pixels = decode_image(data, exif_orientation=True, max_pixels=sys.maxsize, page=image.page)
    except (PredictionError, ImageError):
        pixels = np.zeros((0, 0, 3), np.uint8)
    if pixels.shape[:2] != image.size_hw:
        return np.full((*image.size_hw, 3), 128, np.uint8)
    return pixels
