"""AzureML's wire format <-> domain values: a request's body to rows and params, results to an answer.

It checks all that can be said of a request without looking at an image. Rows are counted from 0, in the
order of `data`.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from mmap import mmap
from typing import Any, Literal

import numpy as np

from app.contract import causes, hugging_face
from app.contract.exemplars import EXEMPLAR_COLUMNS, read_exemplars
from app.contract.grid_params import read_grid
from app.contract.mask_prompts import MASKS, read_masks, with_masks
from app.contract.masks import MaskFormat
from app.contract.prompts import BOXES, LABELS, POINTS, read_prompts
from app.contract.tile_params import read_tiling
from app.errors import BadRequest
from models.masks.cleaning import Cleaning
from models.segmenter.grid import Grid
from models.tiles import Tiling
from models.types import Detections, Exemplars, Prompts

IMAGE, MULTIMASK = "image", "multimask_output"
# Those that a request to SAM has, and the one that it may have beside them.
PROMPT_COLUMNS, OPTIONAL_COLUMNS = (POINTS, BOXES, LABELS, MULTIMASK), (MASKS,)
DETECTOR_COLUMNS = (IMAGE,)
SEGMENTER_COLUMNS = (IMAGE, *PROMPT_COLUMNS)

ResponseSchema = Literal["card", "live"]
MaskSource = Literal["detector", "segmenter", "none"]

# The params of clean masks that are on or off, and the largest region, in pixels, that may be called small.
MASK_FLAGS = ("fill_holes", "largest_part", "no_overlaps", "class_agnostic_nms", "tight_boxes", "rotated_boxes")
MAX_REGION_AREA = 1_000_000_000
MAX_TOLERANCE, FEWEST_VERTICES, MOST_VERTICES = 1000, 4, 1_000_000  # pixels, and corners of a polygon

# Texts that a request may name for an open-vocabulary detector, and the characters of each.
MAX_TEXTS, MAX_TEXT_LENGTH = 256, 256
_MAX_LITERALS = 8_000_000  # characters of all of them in a request; JSON's own lists have no such limit
# Lists, objects and their entries in a body: 64 bytes of memory each, of which a body of 256 MB could hold 90 million.
_MAX_VALUES = 4_000_000


@dataclass(frozen=True)
class Params:
    """What `params` may ask for; see `parse_params`. None leaves a value to the model or the service.

    texts: what an open-vocabulary detector is to find, each once; None where nothing is named.
    masks: whose masks the boxes get. mask_format: None is "png", and for a detector's own masks "polygon".
    min_region_area and the next two: see `models.masks.cleaning.Cleaning`.
    everything: of rows without prompts all masks, found at this grid; None for the one that needs no prompt.
    tiling: the tiles in which the photo is looked at too; None for the whole photo alone.
    """

    score_threshold: float | None = None
    iou_threshold: float | None = None
    max_detections: int | None = None
    texts: tuple[str, ...] | None = None
    masks: MaskSource | None = None
    multimask_output: bool = False
    return_logits: bool = False
    coordinates: Literal["absolute", "normalized"] | None = (
        None  # None is pixels too, but not where they look like 0..1
    )
    mask_format: MaskFormat | None = None
    exif_orientation: bool = False
    response_schema: ResponseSchema | None = None
    everything: Grid | None = None
    min_region_area: int = 0
    fill_holes: bool = False
    largest_part: bool = False
    no_overlaps: bool = False
    class_agnostic_nms: bool = False
    tight_boxes: bool = False
    rotated_boxes: bool = False
    polygon_tolerance: float | None = None
    max_vertices: int | None = None
    tiling: Tiling | None = None

    @property
    def cleaning(self) -> Cleaning:
        return Cleaning(self.min_region_area, self.fill_holes, self.largest_part)

    @property
    def has_boxes_of_masks(self) -> bool:
        return self.tight_boxes or self.rotated_boxes


@dataclass(frozen=True)
class Row:
    """One row: its image as it was sent and, for SAM, its prompts, whose frame `Params.coordinates` tells.

    prompts: None where the row has an empty list of them, and so wants no prediction; without its masks, which are
    bytes until the image is known. masks: one for each prompt, or None; see `app.contract.mask_prompts`. exemplars: of
    a row for the detector, in the frame of prompts.
    """

    image: object
    prompts: Prompts | None = field(default_factory=Prompts)
    multimask: bool = True
    masks: tuple[bytes | None, ...] | None = None
    exemplars: Exemplars | None = None

    @property
    def is_unprompted(self) -> bool:
        """Whether it leaves open what it wants a mask of."""
        return self.prompts is not None and self.prompts.are_none and not self.masks


@dataclass(frozen=True)
class Request:
    """A request that is well formed. has_prompts: whether it has any of SAM's prompt columns.

    client: who asks, to whom images belong that are named by their hash; "" where nobody is told apart. inputs: what it
    was in Hugging Face's form, with an image in each row; None of AzureML's. best_alone: of three masks for a prompt
    only the best is wanted, which nothing on the wire asks for.
    """

    columns: tuple[str, ...]
    data: list[Any]
    params: Params = field(default_factory=Params)
    client: str = ""
    inputs: hugging_face.Inputs | None = None
    best_alone: bool = False

    @property
    def has_prompts(self) -> bool:
        return any(column in self.columns for column in (*PROMPT_COLUMNS, *OPTIONAL_COLUMNS))


# Requests


def parse_request(body: bytes | bytearray | mmap, max_rows: int, *, inputs: bool = False) -> Request:
    """Read `{"input_data": {"columns", "index", "data"}, "params"}`. Raises BadRequest.

    inputs: whether it may be `{"inputs", "parameters"}` too, in Hugging Face's form.
    A bytearray is emptied and an mmap closed as soon as it is text, so that a large body is not in memory for longer
    than it has to be.
    """
    start = bytes(body[:64])
    try:
        text = str(memoryview(body), json.detect_encoding(body[:4]), "surrogatepass")
        if isinstance(body, bytearray):
            body.clear()
        elif isinstance(body, mmap):
            body.close()
        if not text or text.isspace():
            raise BadRequest('expected a JSON body {"input_data": {"columns": [...], "data": [...]}}, got an empty one')
        if len(text) > _MAX_VALUES and sum(text.count(mark) for mark in ",[{") > _MAX_VALUES:
            raise BadRequest(f"the body: expected at most {_MAX_VALUES} values, got more")
        content = json.loads(text)
        del text
    except (ValueError, RecursionError) as error:  # bad UTF-8 is a ValueError too
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise BadRequest(f"the body is not JSON: {reason}{causes.of_body(start, error)}") from error
    if not isinstance(content, dict):
        raise BadRequest(
            f"expected a JSON object with input_data, got {causes.kind(content)}{causes.of_content(content)}"
        )
    if inputs and "inputs" in content:
        return _of_inputs(hugging_face.read_inputs(content), max_rows)
    if "input_data" not in content:
        found = causes.names(content) or "an empty object"
        raise BadRequest(f"expected input_data in the body, got {found}{causes.of_keys(content)}")
    table = content["input_data"]
    if not isinstance(table, dict):
        raise BadRequest(
            f"input_data: expected an object with columns and data, got {causes.kind(table)}{causes.of_table(table)}"
        )
    for key in ("columns", "data"):
        if key not in table:
            found = causes.names(table) or "an empty object"
            raise BadRequest(f"input_data: expected columns and data, got {found}{causes.of_table(table)}")
        if not isinstance(table[key], list):
            raise BadRequest(
                f"input_data.{key}: expected a list, got {causes.kind(table[key])}{causes.of_table(table[key])}"
            )
    columns, data, index = table["columns"], table["data"], table.get("index")
    for column in columns:
        if not isinstance(column, str):
            cause = causes.of_column_name(column)
            raise BadRequest(f"input_data.columns: expected names, got {causes.kind(column)} among them{cause}")
    twice = [column for column, times in Counter[str](columns).items() if times > 1]
    if twice:
        raise BadRequest(f"input_data.columns: expected every name once, got {causes.names(twice)} more than once")
    if index is not None and (not isinstance(index, list) or len(index) != len(data)):
        found = f"{len(index)} entries" if isinstance(index, list) else causes.kind(index)
        raise BadRequest(f"input_data.index: expected one entry per row ({len(data)}), got {found}")
    if len(data) > max_rows:
        raise BadRequest(f"input_data.data: expected at most {max_rows} rows, got {len(data)}")
    return Request(tuple(columns), data, parse_params(content.get("params")))


def _of_inputs(inputs: hugging_face.Inputs, max_rows: int) -> Request:
    """Images in Hugging Face's form as rows without prompts. They are turned upright, as transformers opens photos."""
    if len(inputs.images) > max_rows:
        raise BadRequest(f"inputs: expected at most {max_rows} images, got {len(inputs.images)}")
    params = Params(
        score_threshold=_fraction(inputs.threshold, "parameters.threshold"),
        texts=_texts(inputs.labels, "parameters.candidate_labels"),
        exif_orientation=True,
        response_schema="card",
        everything=inputs.grid,
    )
    rows = [[image, None, None, None, None] for image in inputs.images]
    return Request(SEGMENTER_COLUMNS, rows, params, inputs=inputs)


def parse_params(params: object) -> Params:
    """Read `params`; null and {} are the same, and what is not known is ignored. Raises BadRequest."""
    if params is None:
        return Params()
    if not isinstance(params, dict):
        raise BadRequest(f"params: expected an object, got {causes.kind(params)}")

    def choice(name: str, *allowed: str) -> Any:
        value = params.get(name)
        if value is not None and value not in allowed:
            raise _bad_param(f"params.{name}", " or ".join(f'"{one}"' for one in allowed), value)
        return value

    def fraction(name: str) -> float | None:
        return _fraction(params.get(name), f"params.{name}")

    def tolerance(name: str) -> float | None:
        value = params.get(name)
        if value is not None and (not _is_number(value) or not 0 <= value <= MAX_TOLERANCE):
            raise _bad_param(f"params.{name}", f"a number from 0 to {MAX_TOLERANCE}", value)
        return value

    def flag(name: str) -> bool:
        value = params.get(name)
        if value is not None and not isinstance(value, bool):
            raise _bad_param(f"params.{name}", "true or false", value)
        return bool(value)

    def count(name: str, least: int, most: int) -> int | None:
        value = params.get(name)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most):
            raise _bad_param(f"params.{name}", f"a whole number from {least} to {most}", value)
        return value

    if flag("no_overlaps") and flag("multimask_output"):
        raise BadRequest(
            "params.multimask_output: expected false with params.no_overlaps, got true: three masks of one "
            "object overlap"
        )
    return Params(
        score_threshold=fraction("score_threshold"),
        iou_threshold=fraction("iou_threshold"),
        max_detections=count("max_detections", 1, 1000),
        texts=_texts(params.get("texts")),
        masks=choice("masks", "detector", "segmenter", "none"),
        multimask_output=flag("multimask_output"),
        return_logits=flag("return_logits"),
        coordinates=choice("coordinates", "absolute", "normalized"),
        mask_format=choice("mask_format", "png", "rle", "polygon"),
        exif_orientation=flag("exif_orientation"),
        response_schema=choice("response_schema", "card", "live"),
        min_region_area=count("min_region_area", 0, MAX_REGION_AREA) or 0,
        **{name: flag(name) for name in MASK_FLAGS},
        everything=read_grid(params),
        polygon_tolerance=tolerance("polygon_tolerance"),
        max_vertices=count("max_vertices", FEWEST_VERTICES, MOST_VERTICES),
        tiling=read_tiling(params),
    )


def detector_rows(request: Request) -> list[Row]:
    """The rows of a request to the detector, with its image column and its exemplars. Raises BadRequest."""
    table = _values(request, DETECTOR_COLUMNS, EXEMPLAR_COLUMNS)
    return [Row(values[IMAGE], exemplars=read_exemplars(values, number)) for number, values in enumerate(table)]


def segmenter_rows(request: Request, max_prompts: int) -> list[Row]:
    """The rows of a request to SAM, with their prompts. Raises BadRequest that says which row and column."""
    rows, masks_in_all = [], 0
    table = _values(request, SEGMENTER_COLUMNS, OPTIONAL_COLUMNS)
    written = sum(
        len(row[column]) for row in table for column in (POINTS, BOXES, LABELS) if isinstance(row[column], str)
    )
    if written > _MAX_LITERALS:
        raise BadRequest(f"prompts as text: expected at most {_MAX_LITERALS} characters in a request, got {written}")
    for number, values in enumerate(table):
        prompts, masks = with_masks(read_prompts(values, number), read_masks(values.get(MASKS), number), number)
        count = max(0 if prompts is None else len(prompts), len(masks or ()))
        if count > max_prompts:
            alone = prompts is None or prompts.points_xy is None
            column = POINTS if not alone else MASKS if prompts is None or prompts.boxes_xyxy is None else BOXES
            raise BadRequest(f"expected at most {max_prompts} prompts, got {count}", row=number, column=column)
        if masks and request.params.tiling is not None:
            found = f"{len(masks)}, which are of the whole photo: send them without tiles"
            raise BadRequest(f"expected none with params.tiles, got {found}", row=number, column=MASKS)
        masks_in_all += sum(one is not None for one in masks or ())
        if masks_in_all > max_prompts:  # a small PNG file is large as logits
            raise BadRequest(f"{MASKS}: expected at most {max_prompts} masks in a request, got more")
        multimask = values[MULTIMASK]
        if request.params.no_overlaps and prompts is not None and multimask is not False:
            found = f"{causes.shown(multimask)}, which asks for three masks: those of one object overlap"
            raise BadRequest(f"expected false with params.no_overlaps, got {found}", row=number, column=MULTIMASK)
        rows.append(Row(values[IMAGE], prompts, multimask if isinstance(multimask, bool) else True, masks))
    return rows


def _values(request: Request, needed: tuple[str, ...], optional: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """Each row's values of the needed columns, and of those of the optional ones that are there, by name."""
    missing = [column for column in needed if column not in request.columns]
    if missing:
        raise BadRequest(
            f"input_data.columns: expected {', '.join(needed)}, got {causes.names(request.columns) or 'none'}: "
            f"{', '.join(missing)} missing{causes.of_missing(missing, request.columns)}"
        )
    there = [*needed, *(column for column in optional if column in request.columns)]
    places = [(column, request.columns.index(column)) for column in there]
    rows = []
    for number, row in enumerate(request.data):
        if len(request.columns) == 1 and not isinstance(row, list):
            row = [row]  # pandas takes the flat form for a single column
        if not isinstance(row, list) or len(row) != len(request.columns):
            found = len(row) if isinstance(row, list) else causes.kind(row)
            expected = f"expected one value per column ({len(request.columns)})"
            raise BadRequest(f"{expected}, got {found}{causes.of_row(row)}", row=number)
        rows.append({column: row[place] for column, place in places})
    return rows


# Answers


def detected_boxes(found: Detections, names: Sequence[str]) -> list[dict[str, Any]]:
    """The detector's answer for one image: boxes normalised to 0..1 of its width and height. names: by label."""
    return [
        {"box": normalized_box(box, found.size_hw), "label": names[label], "score": score}
        for box, label, score in zip(
            found.boxes_xyxy.astype(np.float64),
            found.labels.tolist(),
            found.scores.astype(np.float64).tolist(),
            strict=True,
        )
    ]


def normalized_box(box_xyxy: np.ndarray | Sequence[int], size_hw: tuple[int, int]) -> dict[str, float]:
    """A box in absolute pixels as answers have it, in 0..1 of the image's width and height."""
    height, width = size_hw
    x1, y1, x2, y2 = (np.asarray(box_xyxy, np.float64) / (width, height, width, height)).clip(0, 1).tolist()
    return {"topX": x1, "topY": y1, "bottomX": x2, "bottomY": y2}


def predictions(masks: list[list[dict[str, Any]]], schema: ResponseSchema) -> dict[str, Any]:
    """SAM's answer for one row. masks: for each prompt its encoded masks, each with its iou_score."""
    if schema == "live":
        return {"response": {"predictions": [{"masks_per_prediction": one} for one in masks]}}
    return {"predictions": [{"mask_per_prediction": one} for one in masks]}


def _fraction(value: Any, name: str) -> float | None:
    if value is not None and (not _is_number(value) or not 0 <= value <= 1):
        raise _bad_param(name, "a number from 0 to 1", value)
    return value


def _texts(value: object, name: str = "params.texts") -> tuple[str, ...] | None:
    """What is to be found, without blanks around the texts. Raises BadRequest."""
    if value is None:
        return None
    expected = 'a list of texts, as ["can", "milk carton"]'
    if not isinstance(value, list):
        raise _bad_param(name, expected, value)
    if not 0 < len(value) <= MAX_TEXTS:
        raise BadRequest(f"{name}: expected 1 to {MAX_TEXTS} texts, got {len(value)}")
    for text in value:
        if not isinstance(text, str):
            raise BadRequest(f"{name}: expected {expected}, got {causes.kind(text)} among them")
        if not 0 < len(text.strip()) <= MAX_TEXT_LENGTH:
            found = f"{len(text)} characters" if text.strip() else "an empty one"
            raise BadRequest(f"{name}: expected texts of 1 to {MAX_TEXT_LENGTH} characters, got {found}")
    texts = tuple(text.strip() for text in value)
    twice = [text for text, times in Counter(texts).items() if times > 1]
    if twice:
        raise BadRequest(f"{name}: expected every text once, got {causes.names(twice)} more than once")
    return texts


def _bad_param(name: str, expected: str, found: object) -> BadRequest:
    return BadRequest(f"{name}: expected {expected}, got {causes.shown(found)}")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < math.inf
