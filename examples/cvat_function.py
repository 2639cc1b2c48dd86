"""box2mask as a function of CVAT: objects of whole tasks, and a mask for every click. Copy this file freely.

    cvat-cli --server-host HOST task auto-annotate 137 --function-file cvat_function.py -p url=str:http://localhost:5001

cvat-cli finds the labels of the task by their names, so the task has the classes of the detector as its labels. The
parameters, each as `-p NAME=TYPE:VALUE`, are those of `create`. An agent clicks as well:

    cvat-cli ... function create-native "box2mask" --function-file cvat_function.py -p kind=str:interactor
    cvat-cli ... function run-agent ID --function-file cvat_function.py -p kind=str:interactor

`pip install cvat-cli numpy` brings all that the file needs; it knows nothing of the models. Points and boxes are in
pixels of the upright image, as CVAT shows it. Whatever goes wrong is a BadFunctionError, whose text cvat-cli prints and
an agent passes on to whoever clicked.

cvat-cli runs this file without a place among Python's modules, so nothing of its own may be a dataclass, or leave the
agent's worker process: no errors but cvat-sdk's.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import random
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from typing import Any

import cvat_sdk.auto_annotation as cvataa
import numpy as np
import urllib3
from cvat_sdk import models
from cvat_sdk.masks import encode_mask
from PIL import Image, ImageOps

_SHAPE_TYPES = {"masks": "mask", "boxes": "rectangle", "polygons": "polygon"}
_KINDS = ("detector", "interactor")
_MOST_GROUPS = 2**31 - 1  # what CVAT's database has room for
_LOG = logging.getLogger("box2mask")


def create(
    *,
    url: str = "http://localhost:5001",
    key: str | None = None,
    kind: str = "detector",
    shapes: str = "masks",
    score: float = 0.3,
    texts: str = "",
    polygon_tolerance: float = 1.0,
    params: str = "{}",
    skip_bad: bool = False,
    timeout_s: float = 180.0,
) -> Detector | Interactor:
    """What cvat-cli works with.

    url: of the service. key: its API key; None takes the environment's SCORING_KEY, which other users of this machine
        do not see in its list of processes.
    kind: "detector" finds the objects of whole images; "interactor" makes masks of clicks and boxes, for an agent.
    shapes: "masks", "boxes" or "polygons". score: leave out objects that score less, unless CVAT asks for a threshold.
    texts: what an open-vocabulary detector is to find, with commas between; "" is what the service has been set to.
    polygon_tolerance: pixels by which a polygon may stray from the mask's outline; 0 gives exact ones.
    params: further params of the service's requests, as JSON: {"tiles": 1024, "min_region_area": 100}, say.
    skip_bad: whether images that the service refuses are left without shapes; otherwise the first one ends the run,
        and nothing is uploaded.
    timeout_s: without a sign of life from the service.

    Raises BadFunctionError for values that mean nothing, and where the service is not there or lacks the model.
    """
    for name, value, known in (("kind", kind, _KINDS), ("shapes", shapes, tuple(_SHAPE_TYPES))):
        if value not in known:
            raise cvataa.BadFunctionError(
                f"parameter {name}: expected {', '.join(known[:-1])} or {known[-1]}, got {value!r}"
            )
    if not 0 <= score <= 1:
        raise cvataa.BadFunctionError(f"parameter score: expected 0 to 1, got {score}")
    try:
        further = json.loads(params)
    except ValueError as error:
        raise cvataa.BadFunctionError(f"parameter params: expected JSON, got {params!r} ({error})") from error
    if not isinstance(further, dict):
        raise cvataa.BadFunctionError(f"parameter params: expected an object in JSON, got {params!r}")
    if not re.match(r"https?://[^/?#]", url):
        raise cvataa.BadFunctionError(f"parameter url: expected http://HOST:PORT, got {url!r}")
    service = Service(url, key if key is not None else os.environ.get("SCORING_KEY"), timeout_s)
    with _told():
        served = service.describe()
    if kind == "interactor":
        return Interactor(service, served, further)
    names = [name.strip() for name in texts.split(",") if name.strip()]
    if names:
        further["texts"] = names
    return Detector(service, served, shapes, score, polygon_tolerance, further, skip_bad)


class Detector:
    """Finds the objects of whole images: CVAT's DetectionFunction."""

    def __init__(
        self,
        service: Service,
        served: Mapping[str, Any],
        shapes: str,
        score: float,
        polygon_tolerance: float,
        params: Mapping[str, Any],
        skip_bad: bool,
    ) -> None:
        detector = served.get("detector")
        if detector is None:
            raise cvataa.BadFunctionError(f"{service.url} serves no detector, only clicks: -p kind=str:interactor")
        if shapes != "boxes" and served.get("segmenter") is None and not detector["has_masks"]:
            raise cvataa.BadFunctionError(f"{service.url} serves a detector of boxes alone: -p shapes=str:boxes")
        names = params.get("texts") or detector["classes"]
        if not names:
            raise cvataa.BadFunctionError(
                f"the detector of {service.url} finds what texts name: -p texts=str:'can,milk carton', say"
            )
        self._service, self._shapes, self._score, self._skip_bad = service, shapes, score, skip_bad
        self._polygons: dict[str, Any] = {"mask_format": "polygon"}
        if polygon_tolerance:
            self._polygons["polygon_tolerance"] = polygon_tolerance
        self._params = dict(params)
        self._label_ids = {name: number for number, name in enumerate(names)}
        self.spec = cvataa.DetectionFunctionSpec(
            labels=[
                cvataa.label_spec(name, number, type=_SHAPE_TYPES[shapes]) for name, number in self._label_ids.items()
            ]
        )

    def detect(self, context: cvataa.DetectionFunctionContext, image: Image.Image) -> list[models.LabeledShapeRequest]:
        """The objects of an image, best first. Raises BadFunctionError, with the name of the image."""
        threshold = self._score if context.conf_threshold is None else context.conf_threshold
        shapes = "polygons" if self._shapes == "masks" and context.conv_mask_to_poly else self._shapes
        route = "/yolof/score" if shapes == "boxes" else "/pipeline/score"
        params = self._params | {"score_threshold": threshold}
        if shapes == "boxes":
            params["masks"] = "none"
        elif shapes == "polygons":
            params |= self._polygons
        else:
            params["mask_format"] = "png"
        with _told(context.frame_name):
            try:
                upright = ImageOps.exif_transpose(image)
                answer = self._service.score(route, {"image": _base64(_file_of(upright))}, params)
            except RefusedError as error:
                if not self._skip_bad:
                    raise
                _LOG.warning("%s is left without shapes: %s", context.frame_name, error)
                return []
        found = []
        for one in answer["boxes"]:
            if one["label"] not in self._label_ids:
                raise cvataa.BadFunctionError(
                    f"{context.frame_name}: found {one['label']!r}, which is none of {', '.join(self._label_ids)}; "
                    "if the service has been given another model, start anew"
                )
            found += _shapes_of(one, self._label_ids[one["label"]], shapes, upright.size)
        return found


def _shapes_of(
    found: Mapping[str, Any], label_id: int, shapes: str, size: tuple[int, int]
) -> Iterator[models.LabeledShapeRequest]:
    """One object as CVAT's shapes: none of an empty mask, several of a polygon in parts, which then are a group.

    size: (width, height) of the image.
    """
    if shapes == "boxes":
        corners = np.array([found["box"][side] for side in ("topX", "topY", "bottomX", "bottomY")])
        yield cvataa.rectangle(label_id, (corners * np.tile(size, 2)).tolist())
    elif shapes == "masks":
        mask = _pixels(found["mask_per_prediction"][0])
        if mask.any():
            yield cvataa.mask(label_id, encode_mask(mask))
    else:
        parts = found["polygon"]
        # CVAT's COCO export makes one object of a group. No number is known to be free, so that it is drawn.
        group = {"group": random.randint(1, _MOST_GROUPS)} if len(parts) > 1 else {}
        for part in parts:
            corners = np.reshape(part, (-1, 2)) * size
            yield cvataa.polygon(label_id, corners.round(2).ravel().tolist(), **group)  # 2 digits, as CVAT's own files


class Frame:
    """An image that people click in: as a file that is gone with this object, and by what name the service has it.

    reference: None where the service keeps no images. The image itself is in no memory, as an agent keeps all frames of
    the last ten minutes.
    """

    def __init__(self, content: bytes, reference: str | None) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  # it lives as long as the frame
        self._file.write(content)
        self.reference = reference

    def content(self) -> bytes:
        self._file.seek(0)
        return self._file.read()


class Interactor:
    """Makes a mask of points and a box: CVAT's InteractionFunction, for agents.

    A frame is sent once, when it is opened by its first click; the service then has its embedding ready for the others.
    """

    def __init__(self, service: Service, served: Mapping[str, Any], params: Mapping[str, Any]) -> None:
        if served.get("segmenter") is None:
            raise cvataa.BadFunctionError(f"{service.url} serves no segmenter: there is nothing to click with")
        self._service, self._params = service, dict(params)
        self.spec = cvataa.InteractionFunctionSpec(min_pos_points=0, min_neg_points=0, min_bounding_boxes=0)

    def preprocess_image(self, context: cvataa.InteractionFunctionContext, image: Image.Image) -> Frame:
        """Sends the image, which the service begins to encode. Raises BadFunctionError."""
        with _told("the frame"):
            content = _file_of(ImageOps.exif_transpose(image))
            return Frame(content, self._service.keep(content))

    def detect(
        self, context: cvataa.InteractionFunctionContext, pp_image: Frame, prompts: cvataa.InteractionPrompts
    ) -> list[cvataa.InteractionResultShape]:
        """The mask of the one object that all prompts are about; [] where they say nothing, or the mask is empty."""
        box = [value for corner in prompts.bounding_box or () for value in corner]
        if not prompts.pos_points and not box:
            return []  # negative points alone say what it is not
        points = [*prompts.pos_points, *prompts.neg_points]
        labels = [1] * len(prompts.pos_points) + [0] * len(prompts.neg_points)
        row = {
            "image": pp_image.reference or _base64(pp_image.content()),
            "input_points": [points] if points else "",
            "input_boxes": [box] if box else "",
            "input_labels": [labels] if points else "",
            "multimask_output": False,
        }
        params = self._params | {"coordinates": "absolute", "mask_format": "png"}
        with _told():
            try:
                answer = self._service.score("/sam/score", row, params)
            except GoneError:  # other images have taken its place
                row["image"] = self._service.keep(pp_image.content()) or _base64(pp_image.content())
                answer = self._service.score("/sam/score", row, params)
        mask = _pixels(answer["predictions"][0]["mask_per_prediction"][0])
        return [cvataa.InteractionResultShape(type="mask", points=encode_mask(mask))] if mask.any() else []


class ServiceError(Exception):
    """There is no answer to work with; its text says why."""


class RefusedError(ServiceError):
    """The service has refused a request, in its own words: the image or the parameters are at fault."""


class GoneError(RefusedError):
    """The service no longer has the image that the request names."""


@contextmanager
def _told(what: str = "") -> Iterator[None]:
    """What goes wrong inside is a BadFunctionError, which begins with `what` it was about."""
    try:
        yield
    except (ServiceError, OSError) as error:  # OSError: of an image that cannot be read
        raise cvataa.BadFunctionError(f"{what}: {error}" if what else str(error)) from error


class Service:
    """A running box2mask. It is asked again, for a minute or two, where it is busy or has gone.

    Its methods raise ServiceError.
    """

    def __init__(self, url: str, key: str | None, timeout_s: float) -> None:
        self.url = url.rstrip("/")
        self._headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        self._again = urllib3.Retry(
            total=8,
            backoff_factor=0.5,
            backoff_max=30,
            status_forcelist=(429, 502, 503),
            allowed_methods=None,  # scoring changes nothing, so that each of its POSTs may be sent again
            raise_on_status=False,
        )
        self._http = urllib3.PoolManager(timeout=urllib3.Timeout(connect=10, read=timeout_s))

    def describe(self) -> dict[str, Any]:
        """What the service says of its models. One that is not there at the start is not waited for."""
        return self._answer(self._request("GET", "/version", retries=self._again.new(connect=0)))

    def keep(self, content: bytes) -> str | None:
        """Sends an image file, and has it encoded; how requests name it now. None where the service keeps no images, or
        not this one: what is wrong with it is said best where it is used."""
        answer = self._request("POST", "/images?embed=true", content, "application/octet-stream")
        return None if answer.status in (400, 404, 413) else str(self._answer(answer)["image"])

    def score(self, route: str, row: Mapping[str, Any], params: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to one row."""
        table = {"columns": list(row), "data": [list(row.values())]}
        body = json.dumps({"input_data": table, "params": params}).encode()
        return self._answer(self._request("POST", route, body, "application/json"))[0]

    def _request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        content_type: str | None = None,
        retries: urllib3.Retry | None = None,
    ) -> urllib3.BaseHTTPResponse:
        headers = self._headers if content_type is None else self._headers | {"Content-Type": content_type}
        try:
            return self._http.request(
                method, self.url + path, body=body, headers=headers, retries=retries or self._again
            )
        except urllib3.exceptions.HTTPError as error:
            reason = getattr(error, "reason", None) or error
            raise ServiceError(f"no answer from box2mask at {self.url}: {reason}") from error

    def _answer(self, answer: urllib3.BaseHTTPResponse) -> Any:
        """Its JSON."""
        try:
            content = json.loads(answer.data)
            message = "" if answer.status == 200 else content["message"]
        except (ValueError, LookupError, TypeError):
            content, message = None, answer.data[:200].decode(errors="replace")
        if answer.status == 200 and content is not None:
            return content
        said = f"box2mask at {self.url} answered {answer.status}: {message}"
        if answer.status == 410:
            raise GoneError(said)
        if 400 <= answer.status < 500 and answer.status not in (401, 403, 404, 408, 429):
            raise RefusedError(said)
        raise ServiceError(said)


def _file_of(image: Image.Image) -> bytes:
    """An image file of the same pixels: of 8-bit colours, or of the samples as they are where there are more bits.

    Through an array, so that nothing of the file's metadata comes along that would turn it once more.
    """
    file = BytesIO()
    if image.mode == "F":
        image.save(file, "TIFF")
    elif image.mode.startswith("I"):
        image.save(file, "PNG", compress_level=1)
    else:
        Image.fromarray(np.asarray(image.convert("RGB"))).save(file, "PNG", compress_level=1)
    return file.getvalue()


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


def _pixels(mask: Mapping[str, Any]) -> np.ndarray:
    """(H, W) bool."""
    with Image.open(BytesIO(base64.b64decode(mask["encoded_binary_mask"]))) as png:
        return np.asarray(png.convert("L")) > 0
