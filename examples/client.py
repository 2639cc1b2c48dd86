"""A client for box2mask and for every endpoint of the same contract, Azure's own among them. Copy this file freely.

    with Client("http://localhost:5001") as client:
        for found in client.detect_and_segment("photo.jpg"):
            print(found.label, found.score, found.box_xyxy, found.masks[0].pixels.sum())

`python client.py photo.jpg --out overlay.png` draws what was found. It needs httpx, numpy and Pillow, and knows nothing
of the models. `Client` waits and `AsyncClient` awaits; all but the sending they share. For many images send many
requests at a time, as in `await asyncio.gather(*map(client.detect, photos))`: the service makes batches by itself.

ScoringError               what all of them are, with `message`, `status`, and the `request_id` that the server logs
├── Unreachable            no answer: no connection, one that broke, or nothing in time; its `status` is None
├── Busy                   429, for as long as the client was willing to come back
├── RequestRejected        another 4xx: the request is at fault, and the message says where
├── ServiceFailed          5xx, and Azure's 408 and 424: the service is at fault
└── UnexpectedAnswer       an answer, but none of this contract
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import re
import sys
import time
import uuid
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import Any, Self, TypeVar

import httpx
import numpy as np
from PIL import ExifTags, Image, ImageDraw, ImageOps, UnidentifiedImageError

# A file's path, a file's content, an http(s) URL for the service to fetch, RGB (H, W, 3) uint8, or a Pillow image.
ImageSource = str | Path | bytes | np.ndarray | Image.Image
Numbers = np.ndarray | Sequence[Any]

T = TypeVar("T")
# What sending came to: an answer, or the reason why there is none. None before the first step and after a pause.
Outcome = httpx.Response | httpx.RequestError | None
# A talk with the service, whoever does the sending: it yields requests to send and seconds to pause, and ends in T.
Talk = Generator[httpx.Request | float, Outcome, T]

_ROUTES = {"detect": "/yolof/score", "segment": "/sam/score", "detect_and_segment": "/pipeline/score"}
_CONNECT_TIMEOUT_S = 10.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 30.0  # doubled from try to try, where the service names none
_WORTH_A_RETRY = (httpx.NetworkError, httpx.RemoteProtocolError, httpx.ConnectTimeout)
_COLORS = ((230, 57, 70), (29, 137, 228), (46, 178, 92), (244, 162, 40), (140, 82, 200), (0, 170, 170))


class ScoringError(Exception):
    """There is no answer to work with. status: the model's own, where Azure's front end put 424 in its place."""

    def __init__(self, message: str, status: int | None, request_id: str) -> None:
        super().__init__(f"{'' if status is None else f'{status}: '}{message} (request {request_id})")
        self.message = message
        self.status = status
        self.request_id = request_id


class Unreachable(ScoringError):
    """No answer came."""


class Busy(ScoringError):
    """The service has too much to do, and kept saying so."""


class RequestRejected(ScoringError):
    """The request is at fault."""


class ServiceFailed(ScoringError):
    """The service is at fault."""


class UnexpectedAnswer(ScoringError):
    """What came back is no answer of this contract."""


@dataclass(frozen=True, eq=False)
class Mask:
    """pixels: (H, W) bool, of the image's size. iou_score: the segmenter's own guess of the mask's quality.

    There is none (None) of a mask that the detector found itself.
    """

    pixels: np.ndarray
    iou_score: float | None


@dataclass(frozen=True, eq=False)
class Segment:
    """The masks of one prompt: one, or three, in the answer's order."""

    masks: tuple[Mask, ...]


@dataclass(frozen=True, eq=False)
class Detection:
    """One object that was found.

    box_normalized: x1, y1, x2, y2 in 0..1 of the image's width and height, as the answer has it.
    size_hw: the image's; None where only the service has seen the image. masks: () unless they were asked for.
    """

    label: str
    score: float
    box_normalized: tuple[float, float, float, float]
    size_hw: tuple[int, int] | None
    masks: tuple[Mask, ...] = ()

    @property
    def box_xyxy(self) -> tuple[float, float, float, float]:
        """x1, y1, x2, y2 in absolute pixels. Raises ValueError where the image's size is not known."""
        if self.size_hw is None:
            raise ValueError("the image was given as a URL, so that its size is not known here; take box_normalized")
        height, width = self.size_hw
        x1, y1, x2, y2 = self.box_normalized
        return x1 * width, y1 * height, x2 * width, y2 * height


@dataclass(eq=False)
class _Endpoint:
    """Where the service is, how it is asked, and what its answers mean: all that the two clients share.

    url: the service's address, http://localhost:5001 say; or, with a path, the scoring route that is to get every
        request, as in https://NAME.REGION.inference.ml.azure.com/score.
    key: a key or token for `Authorization: Bearer`. deployment: the one to ask, of an Azure endpoint's several.
    params: goes along with every request: {"mask_format": "rle"} or {"exif_orientation": True}, say.
    timeout_s: without a sign of life. deadline_s: for all tries of a request, with the pauses in between.
    retries: after a broken connection, 502 or 503; after 429 there are as many as the deadline allows.

    The methods raise ScoringError, ValueError for what cannot be sent, and OSError for a file that cannot be read.
    """

    url: str
    _: KW_ONLY
    key: str | None = field(default=None, repr=False)
    deployment: str | None = None
    params: Mapping[str, object] = field(default_factory=dict)
    timeout_s: float = 180.0
    deadline_s: float = 600.0
    retries: int = 3

    def __post_init__(self) -> None:
        if not re.match(r"https?://[^/?#]", self.url):
            raise ValueError(f"expected the URL of a service, such as http://localhost:5001, got {self.url!r}")
        if self.params.get("mask_format") == "polygon":
            raise ValueError("params.mask_format: expected png or rle, the forms that are read here, got polygon")

    def _detect(self, image: ImageSource, score_threshold: float | None) -> Talk[list[Detection]]:
        return self._boxes("detect", image, {"score_threshold": score_threshold})

    def _segment(
        self,
        image: ImageSource,
        boxes_xyxy: Numbers | None,
        points_xy: Numbers | None,
        labels: Numbers | None,
        multimask: bool,
    ) -> Talk[list[Segment]]:
        columns = prompt_columns(boxes_xyxy, points_xy, labels)
        if "[]" in columns.values():  # no boxes, no masks
            return []
        row = {"image": _on_the_wire(read_image(image)), **columns, "multimask_output": multimask}
        return (yield from self._ask("segment", row, {}, read_segments))

    def _detect_and_segment(self, image: ImageSource, score_threshold: float, multimask: bool) -> Talk[list[Detection]]:
        params = {"score_threshold": score_threshold, "multimask_output": multimask}
        found = yield from self._boxes("detect_and_segment", image, params)
        if all(one.masks for one in found):
            return found
        # A route without the pipeline, such as box2mask's /score, where the columns say which model is meant.
        masks = yield from self._segment(image, [one.box_xyxy for one in found], None, None, multimask)
        return [replace(one, masks=segment.masks) for one, segment in zip(found, masks, strict=True)]

    def _boxes(self, kind: str, image: ImageSource, params: Mapping[str, object]) -> Talk[list[Detection]]:
        data = read_image(image)
        size_hw = size_of(data, upright=bool(self.params.get("exif_orientation")))
        return self._ask(kind, {"image": _on_the_wire(data)}, params, lambda row: read_detections(row, size_hw))

    def _ask(
        self, kind: str, row: Mapping[str, object], params: Mapping[str, object], read: Callable[[Any], T]
    ) -> Talk[T]:
        """One row in, what `read` makes of its answer out; over again where that may help."""
        wanted = {name: value for name, value in {**self.params, **params}.items() if value is not None}
        table = {"columns": list(row), "index": [0], "data": [list(row.values())]}
        body = json.dumps({"input_data": table, "params": wanted}).encode()
        headers = {"Content-Type": "application/json", "X-Request-ID": str(uuid.uuid4())}
        if self.key is not None:
            headers["Authorization"] = f"Bearer {self.key}"
        if self.deployment is not None:
            headers["azureml-model-deployment"] = self.deployment
        address = httpx.URL(self.url)
        route = address.copy_with(path=_ROUTES[kind]) if address.path in ("", "/") else address

        deadline = time.monotonic() + self.deadline_s
        tries = broken = 0
        while True:
            seconds = max(0.001, min(self.timeout_s, deadline - time.monotonic()))
            timeout = httpx.Timeout(seconds, connect=min(seconds, _CONNECT_TIMEOUT_S), pool=None)
            extensions = {"timeout": timeout.as_dict()}
            outcome = yield httpx.Request("POST", route, headers=headers, content=body, extensions=extensions)
            assert outcome is not None
            if isinstance(outcome, httpx.Response) and outcome.status_code == 200:
                return _read_answer(outcome, read, headers["X-Request-ID"])
            error = _failure(outcome, headers["X-Request-ID"])
            if not isinstance(error, Busy):
                broken += 1
                if broken > self.retries or not (isinstance(outcome, _WORTH_A_RETRY) or error.status in (502, 503)):
                    raise error
            pause = _asked_pause(outcome)
            if pause is None:
                pause = min(_FIRST_PAUSE_S * 2**tries, _LONGEST_PAUSE_S)
            if time.monotonic() + pause >= deadline:
                raise error
            tries += 1
            yield pause


@dataclass(eq=False)
class Client(_Endpoint):
    """Asks and waits; what it is made of is said at _Endpoint. Any number of threads may share one.

    `close`, or the end of a `with`, lets go of its connections.
    """

    _http: httpx.Client = field(default_factory=httpx.Client, init=False, repr=False)

    def detect(self, image: ImageSource, score_threshold: float | None = None) -> list[Detection]:
        """The detector's boxes, best first. score_threshold: None is the model's own."""
        return self._run(self._detect(image, score_threshold))

    def segment(
        self,
        image: ImageSource,
        boxes_xyxy: Numbers | None = None,
        points_xy: Numbers | None = None,
        labels: Numbers | None = None,
        multimask: bool = False,
    ) -> list[Segment]:
        """The masks of every prompt, in the prompts' order, all prompts in absolute pixels.

        boxes_xyxy: (N, 4). points_xy: (N, P, 2), P points to each of N prompts; or (N, 2), a prompt each.
        labels: of the points, (N, P) or (N,): 1 the object, 0 not the object; None is 1 for all. Boxes and points
        together: the N-th box belongs to the N-th prompt. multimask: three masks to a prompt in place of one.
        """
        return self._run(self._segment(image, boxes_xyxy, points_xy, labels, multimask))

    def detect_and_segment(
        self, image: ImageSource, score_threshold: float = 0.3, multimask: bool = False
    ) -> list[Detection]:
        """The detector's boxes with their masks: one request at a service's address, or at a route of the pipeline;
        at a route where the columns tell which model is meant, two."""
        return self._run(self._detect_and_segment(image, score_threshold, multimask))

    def _run(self, talk: Talk[T]) -> T:
        outcome: Outcome = None
        while True:
            try:
                step = talk.send(outcome)
            except StopIteration as end:
                return end.value
            if isinstance(step, httpx.Request):
                try:
                    outcome = self._http.send(step)
                except httpx.RequestError as error:
                    outcome = error
            else:
                time.sleep(step)
                outcome = None

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


@dataclass(eq=False)
class AsyncClient(_Endpoint):
    """Client's methods, to be awaited, any number of them at a time."""

    _http: httpx.AsyncClient = field(default_factory=httpx.AsyncClient, init=False, repr=False)

    async def detect(self, image: ImageSource, score_threshold: float | None = None) -> list[Detection]:
        return await self._run(self._detect(image, score_threshold))

    async def segment(
        self,
        image: ImageSource,
        boxes_xyxy: Numbers | None = None,
        points_xy: Numbers | None = None,
        labels: Numbers | None = None,
        multimask: bool = False,
    ) -> list[Segment]:
        return await self._run(self._segment(image, boxes_xyxy, points_xy, labels, multimask))

    async def detect_and_segment(
        self, image: ImageSource, score_threshold: float = 0.3, multimask: bool = False
    ) -> list[Detection]:
        return await self._run(self._detect_and_segment(image, score_threshold, multimask))

    async def _run(self, talk: Talk[T]) -> T:
        outcome: Outcome = None
        while True:
            try:
                step = talk.send(outcome)
            except StopIteration as end:
                return end.value
            if isinstance(step, httpx.Request):
                try:
                    outcome = await self._http.send(step)
                except httpx.RequestError as error:
                    outcome = error
            else:
                await asyncio.sleep(step)
                outcome = None

    async def aclose(self) -> None:
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.aclose()


# Requests


def read_image(image: ImageSource) -> bytes | str:
    """A file's content, or the URL as it is. Raises OSError, and ValueError for an array that is no image."""
    if isinstance(image, str) and image.startswith(("http://", "https://")):
        return image
    if isinstance(image, str | Path):
        return Path(image).read_bytes()
    if isinstance(image, bytes):
        return image
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(f"image: expected (H, W, 3) uint8, got {image.shape} {image.dtype}")
        image = Image.fromarray(image)
    if image.mode.startswith(("I", "F")):
        raise ValueError(f"image: expected 8 bits to a channel, got Pillow's mode {image.mode}; give the file instead")
    file = BytesIO()
    # Through an array, so that nothing of another file's metadata, such as the camera's turn, comes along.
    Image.fromarray(np.asarray(image.convert("RGB"))).save(file, "PNG", compress_level=1)
    return file.getvalue()


def size_of(image: bytes | str, *, upright: bool = False) -> tuple[int, int] | None:
    """(H, W) from the file's header, after the turn that EXIF asks for if `upright`; None where it cannot be told."""
    if isinstance(image, str):
        return None
    try:
        with Image.open(BytesIO(image)) as opened:
            width, height = opened.size
            stated_upright = opened.format == "TIFF"  # Pillow states the size of this format alone after the turn
            try:
                sideways = opened.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
            except Exception:  # the EXIF is damaged, which the service takes for none
                sideways = False
            turned = sideways and (upright or opened.format == "AVIF") != stated_upright  # AVIF's turn is made always
    except UnidentifiedImageError:  # the service says better what is wrong with it
        return None
    return (width, height) if turned else (height, width)


def prompt_columns(boxes_xyxy: Numbers | None, points_xy: Numbers | None, labels: Numbers | None) -> dict[str, str]:
    """The prompts as strings that hold lists, "" for none: Azure's wrapper does not see real lists."""

    def fault(name: str, expected: str, got: tuple[int, ...]) -> ValueError:
        return ValueError(f"{name}: expected {expected}, got {got}")

    columns = dict.fromkeys(("input_points", "input_boxes", "input_labels"), "")
    if boxes_xyxy is not None:
        boxes = np.asarray(boxes_xyxy, np.float64)
        if boxes.size and (boxes.ndim != 2 or boxes.shape[1] != 4):
            raise fault("boxes_xyxy", "(N, 4)", boxes.shape)
        columns["input_boxes"] = json.dumps(boxes.tolist()) if boxes.size else "[]"
    if points_xy is not None:
        points = np.asarray(points_xy, np.float64)
        if points.size and (points.ndim not in (2, 3) or points.shape[-1] != 2):
            raise fault("points_xy", "(N, P, 2) or (N, 2)", points.shape)
        columns["input_points"] = json.dumps(points.reshape(len(points), -1, 2).tolist()) if points.size else "[]"
    if labels is not None:
        of_points = np.asarray(labels, np.int64)
        shape = () if points_xy is None else points.shape[:-1]
        if of_points.shape != shape:
            raise fault("labels", f"one for each point, {shape}", of_points.shape)
        columns["input_labels"] = json.dumps(of_points.reshape(len(points), -1).tolist())
    return columns


def _on_the_wire(image: bytes | str) -> str:
    return image if isinstance(image, str) else base64.b64encode(image).decode("ascii")


# Answers


def read_detections(row: Any, size_hw: tuple[int, int] | None) -> list[Detection]:
    """The detector's answer for one row, with masks if it has them."""
    found = []
    for one in row["boxes"]:
        x1, y1, x2, y2 = (float(one["box"][key]) for key in ("topX", "topY", "bottomX", "bottomY"))
        masks = read_masks(one) if "mask_per_prediction" in one else ()
        size = masks[0].pixels.shape if masks else size_hw
        found.append(Detection(str(one["label"]), float(one["score"]), (x1, y1, x2, y2), size, masks))
    return found


def read_segments(row: Any) -> list[Segment]:
    """SAM's answer for one row, as its model card has it or as Azure's live endpoint does."""
    return [Segment(read_masks(one)) for one in row.get("response", row)["predictions"]]


def read_masks(prediction: Any) -> tuple[Mask, ...]:
    key = "mask_per_prediction" if "mask_per_prediction" in prediction else "masks_per_prediction"  # card, live
    return tuple(Mask(_pixels(mask), mask.get("iou_score")) for mask in prediction[key])


def _pixels(mask: Any) -> np.ndarray:
    if "rle" in mask:
        return decode_rle(mask["rle"]["counts"], tuple(mask["rle"]["size"]))
    with Image.open(BytesIO(base64.b64decode(mask["encoded_binary_mask"]))) as png:
        return np.asarray(png.convert("L")) > 0


def decode_rle(counts: str, size_hw: tuple[int, int]) -> np.ndarray:
    """COCO's compressed run-length encoding -> (H, W) bool.

    The runs go down the columns, of 0 first. Each is a number in base 32, the lowest digit first, in characters from
    "0" on; bit 5 says that more digits follow, bit 4 of the last is the sign. From the fourth run on, it is the
    difference to the run two before (COCO API, maskApi.c, rleFrString).
    """
    runs: list[int] = []
    number = shift = 0
    for character in counts:
        digit = ord(character) - 48
        number |= (digit & 31) << shift
        shift += 5
        if not digit & 32:
            if digit & 16:
                number -= 1 << shift
            runs.append(number + (runs[-2] if len(runs) > 2 else 0))
            number = shift = 0
    height, width = size_hw
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(width, height).T


def _read_answer(answer: httpx.Response, read: Callable[[Any], T], request_id: str) -> T:
    try:
        (row,) = answer.json()
        return read(row)
    except (LookupError, TypeError, ValueError, AttributeError, OSError) as error:  # of JSON, its fields, and PNGs
        text = answer.text[:200]
        raise UnexpectedAnswer(
            f"expected a list with one answer, got {text!r}", 200, _id(answer, request_id)
        ) from error


def _failure(outcome: httpx.Response | httpx.RequestError, request_id: str) -> ScoringError:
    """The error that this outcome is."""
    if isinstance(outcome, httpx.RequestError):
        failure = Unreachable(str(outcome) or type(outcome).__name__, None, request_id)
        failure.__cause__ = outcome
        return failure
    stated = outcome.headers.get(
        "ms-azureml-model-error-statuscode", ""
    )  # Azure's front end turns all but 200 into 424
    status = int(stated) if stated.isdecimal() else outcome.status_code
    try:
        message = str(outcome.json()["message"])
    except (ValueError, LookupError, TypeError):  # of a proxy in between
        message = outcome.text[:200] or outcome.reason_phrase
    kind: type[ScoringError] = UnexpectedAnswer
    if status == 429:
        kind = Busy
    elif status >= 500 or status in (408, 424):
        kind = ServiceFailed
    elif status >= 400:
        kind = RequestRejected
    return kind(message, status, _id(outcome, request_id))


def _id(answer: httpx.Response, request_id: str) -> str:
    return answer.headers.get("x-request-id", request_id)


def _asked_pause(outcome: object) -> float | None:
    """Seconds that the service asks to be left alone; None where it does not say, or says it as a date."""
    stated = outcome.headers.get("retry-after", "") if isinstance(outcome, httpx.Response) else ""
    return float(stated) if stated.isdecimal() else None


# Pictures


def overlay(image: ImageSource, objects: Sequence[Detection | Segment]) -> Image.Image:
    """The picture as RGB with the best mask of every object tinted, its box outlined, its label and score written.

    Raises ValueError for a URL, and for a picture of another size than the masks: one that EXIF turns, say, must be
    upright here if and only if the service saw it so.
    """
    data = image if isinstance(image, Image.Image) else read_image(image)
    if isinstance(data, str):
        raise ValueError("overlay: expected the picture itself, got its URL")
    picture = (data if isinstance(data, Image.Image) else Image.open(BytesIO(data))).convert("RGB")
    line, size = max(2, picture.width // 250), max(12, picture.width // 32)
    for number, one in enumerate(objects):
        color = _COLORS[number % len(_COLORS)]
        if one.masks:
            pixels = max(one.masks, key=lambda mask: mask.iou_score or 0.0).pixels
            if pixels.shape != (picture.height, picture.width):
                raise ValueError(
                    f"overlay: expected a picture of {pixels.shape[::-1]}, as the mask, got {picture.size}"
                )
            tint = Image.blend(picture, Image.new("RGB", picture.size, color), 0.55)
            picture = Image.composite(tint, picture, Image.fromarray(pixels.astype(np.uint8) * np.uint8(255)))
        if isinstance(one, Detection):
            x1, y1, x2, y2 = np.multiply(one.box_normalized, np.tile(picture.size, 2)).tolist()
            pen = ImageDraw.Draw(picture)
            pen.rectangle((x1, y1, x2, y2), outline=color, width=line)
            corner, caption = (x1, max(0.0, y1 - 1.3 * size)), f"{one.label} {one.score:.2f}"
            left, top, right, bottom = pen.textbbox(corner, caption, font_size=size)
            pen.rectangle((left - 2, top - 2, right + 2, bottom + 2), fill=color)
            pen.text(corner, caption, fill="white", font_size=size)
    return picture


def main() -> None:
    """Draw what the service finds in a photo."""
    parser = argparse.ArgumentParser(description="Draw the boxes and masks that the service finds in a photo.")
    parser.add_argument("photo", type=Path)
    parser.add_argument("--url", default="http://localhost:5001", help="the service's address, or its scoring route")
    parser.add_argument("--deployment", help="of an Azure endpoint's several, the one to ask")
    parser.add_argument("--score-threshold", type=float, default=0.3, help="leave out boxes that score less")
    parser.add_argument("--out", type=Path, default=Path("overlay.png"), help="the picture to write")
    parser.epilog = "An endpoint's key is taken from the environment's SCORING_KEY."
    args = parser.parse_args()
    try:
        key, params = os.environ.get("SCORING_KEY"), {"exif_orientation": True}
        with Client(args.url, key=key, deployment=args.deployment, params=params) as client:
            objects = client.detect_and_segment(args.photo, args.score_threshold)
        with Image.open(args.photo) as photo:
            overlay(ImageOps.exif_transpose(photo), objects).save(args.out)
    except (ScoringError, OSError, ValueError) as error:
        sys.exit(f"{args.photo}: {error}")
    print(f"{len(objects)} objects: {', '.join(one.label for one in objects) or 'none'}; drawn in {args.out}")


if __name__ == "__main__":
    main()
