"""Boxes and masks of one image at a time, by the models in this process or by a running service.

Both ways send the service's own request and read its own answer, so that serving, `box2mask run`, `box2mask evaluate`
and the walkthrough are one path. Knows nothing of files of annotations, nor of folders of images.
"""

from __future__ import annotations

import base64
import ipaddress
import json
import re
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Self

import httpx
import numpy as np
from pycocotools import mask as coco_mask

from app.contract import schemas
from app.contract.answers import box_in_pixels, turned_box_in_pixels, without_row
from app.contract.answers import identity as identity_of
from app.contract.schemas import MaskSource
from app.engine import loading
from app.errors import ServiceError
from app.images.reading import ImageLimits
from app.prediction import ANY_IMAGE, ImageSource, PredictedObject, PredictionError, PredictorError, read_image
from app.scoring.description import describe
from app.scoring.scorer import PIPELINE_SCORE_THRESHOLD
from app.scoring.thread import ScorerThread
from app.settings import Settings
from models.images.decoding import ImageError, image_size_hw
from models.rle import Rle

# Prompts in one request, the service's default limit, if it does not have a lower one; of more boxes each part is a
# request, and all but the first find the image's embedding.
PROMPTS_AT_ONCE = 1024
_CONNECT_TIMEOUT_S = 10.0
# How long a service may keep saying that it is busy before an image is given up.
_BUSY_FOR_S = 600.0


class _ByRequests:
    """What the two predictors share: the service's requests, and what its answers say."""

    description: Mapping[str, Any]
    images_apart = False

    def __init__(self, limits: ImageLimits = ANY_IMAGE, mask_params: Mapping[str, Any] | None = None) -> None:
        """mask_params: of every request, how masks are cleaned; or any others, such as tiles."""
        self._limits = limits
        self.mask_params = dict(mask_params or {})

    @property
    def class_names(self) -> tuple[str, ...]:
        detector = self.description["detector"]
        return () if detector is None else tuple(detector["classes"])

    def detect(
        self, image: ImageSource, score_threshold: float | None = None, *, masks: bool = False
    ) -> list[PredictedObject]:
        return self._boxes("/yolof/score", image, score_threshold, "detector" if masks else "none")

    def detect_and_segment(
        self, image: ImageSource, score_threshold: float | None = PIPELINE_SCORE_THRESHOLD
    ) -> list[PredictedObject]:
        return self._boxes("/pipeline/score", image, score_threshold, "segmenter")

    def segment(self, image: ImageSource, boxes_xyxy: np.ndarray) -> list[PredictedObject]:
        boxes = np.asarray(boxes_xyxy, np.float64)
        if boxes.ndim != 2 or boxes.shape[1] != 4:
            raise ValueError(f"expected boxes (N, 4), got {boxes.shape}")
        return self._masks(image, schemas.BOXES, boxes, boxes)

    def three_masks(self, image: ImageSource, boxes_xyxy: np.ndarray) -> list[list[Rle]]:
        boxes = np.asarray(boxes_xyxy, np.float64)
        columns = self._without_prompts(image) if len(boxes) else {}
        found = []
        for start in range(0, len(boxes), self._prompts_at_once):
            part = boxes[start : start + self._prompts_at_once].tolist()
            asked = columns | {schemas.BOXES: part, schemas.MULTIMASK: True}
            # The masks as SAM gives them: what cleaning does to all alike would hide where they differ.
            unclean = {name: value for name, value in self.mask_params.items() if name in ("tiles", "tile_overlap")}
            (row,) = self._asked("/sam/score", asked, unclean | {"coordinates": "absolute"})
            found += [[mask["rle"] for mask in one["mask_per_prediction"]] for one in row["predictions"]]
        return found

    def segment_points(self, image: ImageSource, points_xy: np.ndarray) -> list[PredictedObject]:
        points = np.asarray(points_xy, np.float64)
        if points.ndim != 2 or points.shape[1] != 2:
            raise ValueError(f"expected points (N, 2), got {points.shape}")
        return self._masks(image, schemas.POINTS, points[:, None], np.tile(points, 2))

    def _masks(
        self, image: ImageSource, column: str, prompts: np.ndarray, boxes_xyxy: np.ndarray
    ) -> list[PredictedObject]:
        """A mask for each of the prompts, which are what stands in this column of a request."""
        if not len(prompts):
            return []
        columns = self._without_prompts(image)
        at_once = self._prompts_at_once
        if len(prompts) > at_once and self.mask_params.get("no_overlaps"):
            raise PredictionError(
                f"expected at most {at_once} boxes in an image with no_overlaps, as one request compares their masks, "
                f"got {len(prompts)}"
            )
        objects = []
        for start in range(0, len(prompts), at_once):
            part = slice(start, start + at_once)
            asked = columns | {column: prompts[part].tolist(), schemas.MULTIMASK: False}
            (row,) = self._answer("/sam/score", asked, coordinates="absolute")
            for box, prediction in zip(boxes_xyxy[part].tolist(), row["predictions"], strict=True):
                (mask,) = prediction["mask_per_prediction"]
                objects.append(_of_mask(mask, tuple(box)))
        return objects

    @property
    def _prompts_at_once(self) -> int:
        return int(min(PROMPTS_AT_ONCE, self.description.get("max_prompts", PROMPTS_AT_ONCE)))

    def everything(self, image: ImageSource, **grid: float) -> list[PredictedObject]:
        asked = self._without_prompts(image) | {schemas.MULTIMASK: False}
        (row,) = self._answer("/sam/score", asked, **grid)
        found = [mask for prediction in row["predictions"] for mask in prediction["mask_per_prediction"]]
        return [_of_mask(mask, _box_of(mask["rle"])) for mask in found]

    def _without_prompts(self, image: ImageSource) -> dict[str, Any]:
        """The columns of a request to SAM, but for the one that says how many masks."""
        encoded = base64.b64encode(read_image(image, self._limits)).decode("ascii")
        return {schemas.IMAGE: encoded, schemas.POINTS: None, schemas.BOXES: None, schemas.LABELS: None}

    def identity(self) -> dict[str, str | None]:
        return {kind: identity_of(self.description[kind]) for kind in ("detector", "segmenter")}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        raise NotImplementedError

    def _boxes(
        self, route: str, image: ImageSource, score_threshold: float | None, masks: MaskSource
    ) -> list[PredictedObject]:
        detector = self.description["detector"]
        # A service of an older version has not heard of masks of a detector, and neither has any of its detectors.
        has_masks = detector is not None and detector.get("has_masks", False)
        if masks == "detector" and detector is not None and not has_masks:
            raise PredictorError(f"the detector {detector['name']} finds boxes alone, and no masks")
        if detector is not None and detector.get("takes_texts") and not self.class_names:
            raise PredictorError(
                f"the detector {detector['name']} finds what texts name: expected them in BOX2MASK_TEXTS, such as "
                "BOX2MASK_TEXTS='can,milk carton', where it runs"
            )
        data = read_image(image, self._limits)
        params = {"score_threshold": score_threshold} | ({"masks": masks} if has_masks else {})
        (row,) = self._answer(route, {schemas.IMAGE: base64.b64encode(data).decode("ascii")}, **params)
        try:
            size_hw = image_size_hw(data, exif_orientation=True)
        except ImageError as error:  # where a service of another version read it
            raise PredictionError(str(error)) from error
        objects = []
        for found in row["boxes"]:
            box = box_in_pixels(found["box"], size_hw)
            mask = found.get("mask_per_prediction", [{}])[0]
            objects.append(
                PredictedObject(
                    found["label"],
                    found["score"],
                    box,
                    mask.get("rle"),
                    mask.get("iou_score"),
                    turned_box_in_pixels(found, size_hw),
                )
            )
        return objects

    def _answer(self, route: str, columns: dict[str, Any], **params: Any) -> list[dict[str, Any]]:
        return self._asked(route, columns, self.mask_params | params)

    def _asked(self, route: str, columns: dict[str, Any], params: Mapping[str, Any]) -> list[dict[str, Any]]:
        body = {
            "input_data": {"columns": list(columns), "data": [list(columns.values())]},
            "params": {"mask_format": "rle", "response_schema": "card", "exif_orientation": True, **params},
        }
        return self._score(route, json.dumps(body).encode())

    def _score(self, route: str, body: bytes) -> list[dict[str, Any]]:
        """The answer to a request with one row."""
        raise NotImplementedError


class LocalPredictor(_ByRequests):
    """The models that the settings name, loaded into this process.

    Made, it is ready: weights are loaded and a forward pass has worked. Raises one of `loading.EXPLAINED` where that
    fails. Images larger than the settings' limits cannot be answered.
    """

    def __init__(
        self,
        settings: Settings,
        choice: loading.Choice | None = None,
        mask_params: Mapping[str, Any] | None = None,
        *,
        for_folders: bool = False,
    ) -> None:
        """choice: what `loading.choose` makes of the settings, where that is known already. for_folders: see
        `loading.load`."""
        limits = ImageLimits.of(settings)
        # Nobody else sends images here: who names a URL has this machine's network anyhow.
        super().__init__(limits if limits.urls == "off" else replace(limits, urls="any"), mask_params)
        choice = choice or loading.choose(settings)
        # More prompts than a request may have come in several.
        self._thread = ScorerThread(settings, choice, PROMPTS_AT_ONCE, for_folders=for_folders)
        scorer = self._thread.scorer
        self.images_apart = self._thread.engine.images_apart
        self._routes = {
            "/yolof/score": ("detector", scorer.detect),
            "/sam/score": ("segmenter", scorer.segment),
            "/pipeline/score": ("detector and segmenter", scorer.detect_and_segment),
        }
        self.description = describe(scorer, choice, settings)

    def close(self) -> None:
        self._thread.close()

    def _score(self, route: str, body: bytes) -> list[dict[str, Any]]:
        kind, answer = self._routes[route]
        missing = [one for one in kind.split(" and ") if getattr(self._thread.engine, one) is None]
        if missing:
            raise PredictorError(f"there is no {missing[0]} (BOX2MASK_{missing[0].upper()})")
        try:
            return self._thread.wait(answer(schemas.parse_request(body, max_rows=1)))
        except ServiceError as error:
            if not self._thread.engine.healthy:
                raise PredictorError(f"a device has stopped computing: {error.message}") from error
            raise PredictionError(without_row(error.message)) from error


class ServicePredictor(_ByRequests):
    """A box2mask service that is running at `url`.

    timeout_s: for the whole of one answer. Raises PredictorError where there is no such service.
    """

    def __init__(self, url: str, timeout_s: float = 600.0, mask_params: Mapping[str, Any] | None = None) -> None:
        super().__init__(mask_params=mask_params)
        try:
            host = httpx.URL(url).host if re.match(r"https?://[^/]", url) else ""
        except httpx.InvalidURL:
            host = ""
        if not host:
            raise PredictorError(f"{url}: expected the URL of a service, such as http://localhost:5001")
        self.url = url.rstrip("/")
        self._client = httpx.Client(
            base_url=self.url,
            timeout=httpx.Timeout(timeout_s, connect=_CONNECT_TIMEOUT_S, pool=None),
            limits=httpx.Limits(max_connections=None),
            trust_env=not _is_this_machine(host),  # a proxy knows another machine by this address
        )
        try:
            answer = self._client.get("/version")
            self.description = answer.json() if answer.is_success else {}
        except (httpx.TransportError, ValueError) as error:
            self.close()
            raise PredictorError(f"{self.url}: there is no box2mask service: {error}") from error
        if not isinstance(self.description, dict) or "box2mask" not in self.description:
            self.close()
            raise PredictorError(f"{self.url}: this is no box2mask service: /version answered {answer.status_code}")

    def close(self) -> None:
        self._client.close()

    def _score(self, route: str, body: bytes) -> list[dict[str, Any]]:
        deadline = time.monotonic() + _BUSY_FOR_S
        while True:
            try:
                answer = self._client.post(route, content=body, headers={"Content-Type": "application/json"})
            except httpx.TimeoutException as error:
                raise PredictionError(f"{self.url} did not answer in time") from error
            except httpx.TransportError as error:
                raise PredictorError(f"{self.url} is gone: {error}") from error
            if answer.status_code != httpx.codes.TOO_MANY_REQUESTS or time.monotonic() > deadline:
                break
            time.sleep(_seconds(answer.headers.get("retry-after")))
        if answer.is_success:
            return answer.json()
        try:
            message = str(answer.json()["message"])
        except (ValueError, KeyError, TypeError):  # of a proxy in between
            message = answer.reason_phrase
        if answer.status_code == httpx.codes.NOT_FOUND:
            raise PredictorError(f"{self.url}: {message}")
        raise PredictionError(f"{without_row(message)} ({answer.status_code} from {self.url})")


def open_predictor(
    settings: Settings,
    url: str | None = None,
    choice: loading.Choice | None = None,
    mask_params: Mapping[str, Any] | None = None,
    *,
    for_folders: bool = False,
) -> LocalPredictor | ServicePredictor:
    """The service at `url`, or without one the models that the settings name, in this process: see LocalPredictor.

    mask_params: of every request, how masks are cleaned. for_folders: see `loading.load`.
    """
    if url is None:
        return LocalPredictor(settings, choice, mask_params, for_folders=for_folders)
    return ServicePredictor(url, mask_params=mask_params)


def _of_mask(mask: dict[str, Any], box_xyxy: tuple[float, float, float, float]) -> PredictedObject:
    """An object without a class, of a mask's entry in an answer. box_xyxy: where the entry has no box of its own."""
    size_hw = mask["rle"]["size"][0], mask["rle"]["size"][1]
    tight = box_in_pixels(mask["box"], size_hw) if "box" in mask else box_xyxy
    return PredictedObject(None, None, tight, mask["rle"], mask["iou_score"], turned_box_in_pixels(mask, size_hw))


def _box_of(rle: Rle) -> tuple[float, float, float, float]:
    """The box around a mask's pixels, x2 and y2 at the far side of the last ones; zeros of an empty mask."""
    x, y, width, height = coco_mask.toBbox(rle).tolist()
    return x, y, x + width, y + height


def _is_this_machine(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
    return address.is_loopback or address.is_unspecified


def _seconds(retry_after: str | None) -> float:
    return float(retry_after) if retry_after is not None and retry_after.isdigit() else 1.0
