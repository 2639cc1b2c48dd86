"""The model inside an MLflow folder: a table of rows in, the service's answers out, by the service's own path.

MLflow imports this module from the folder's `code` and calls `_load_pyfunc` with the folder of weights. Nothing is
pickled. It needs neither MLflow nor a web framework to be imported, and knows nothing of how the folder was written:
that is `app.mlflow.export`.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from app.contract import schemas
from app.engine import loading
from app.errors import BadRequest
from app.scoring.thread import ScorerThread
from app.settings import Settings
from models.images.formats import file_format

if TYPE_CHECKING:
    import pandas

# The folders within the weights; either may be missing.
DETECTOR, SEGMENTER = "detector", "segmenter"


def _load_pyfunc(path: str) -> MlflowModel:
    """What MLflow calls to load the model. path: the folder of weights in the MLflow folder, wherever that lies now.

    Raises ImportError that says what to do where OpenCV is the build for desktops and this is none.
    """
    try:
        import cv2  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"OpenCV cannot be imported ({error}): install the system's libGL.so.1 and libgthread-2.0.so.0, or OpenCV "
            "without windows: pip install --force-reinstall --no-deps opencv-python-headless"
        ) from error
    return MlflowModel(Path(path), Settings.from_environment())


class MlflowModel:
    """A detector, a segmenter or both, ready to answer from any number of threads.

    With a detector alone a row is answered as by `/yolof/score`, with a segmenter alone as by `/sam/score`. With both,
    rows of images alone are answered as by `/pipeline/score`, rows with any of SAM's prompt columns as by `/sam/score`.
    """

    def __init__(self, weights: Path, settings: Settings) -> None:
        """Load the models and run each once.

        weights: has a folder `detector`, `segmenter` or both. settings: device, limits and so on; which models it
        names is ignored. Raises one of `loading.EXPLAINED` where they do not load.
        """
        self._max_rows = settings.max_rows
        self._thread = ScorerThread(settings, chosen(weights), settings.max_prompts)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The detector's, in the order of its outputs, or the texts that it is asked for; () without a detector."""
        detector = self._thread.engine.detector
        if detector is None:
            return ()
        return tuple(self._thread.scorer.texts if detector.takes_texts else detector.class_names)

    @property
    def has_masks(self) -> bool:
        """Whether its detector finds masks with its boxes."""
        detector = self._thread.engine.detector
        return detector is not None and detector.has_masks

    @property
    def lacks_texts(self) -> bool:
        """Whether its detector finds what texts name, and the settings name none."""
        detector = self._thread.engine.detector
        return detector is not None and detector.takes_texts and not self.class_names

    def predict(self, model_input: pandas.DataFrame, params: Mapping[str, Any] | None = None) -> pandas.DataFrame:
        """One row of answer for each row of `model_input`, in order.

        model_input: the columns of the folder's signature, `image` or SAM's five. An image may be the bytes of its
        file, which AzureML's batch endpoints hand over. params: as in a request's `params`.
        Returns a table whose one column is named as the key of the service's answer: `boxes`, `predictions` or
        `response`. Its records are the service's answer, value for value.
        Raises MLflow's exception for a bad request, which MLflow's server answers 400, naming row and column.
        """
        import pandas

        columns = [str(column) for column in model_input.columns]
        try:
            request = schemas.parse_request(_body(columns, model_input, params), self._max_rows)
            answers = self._thread.wait(self._thread.scorer.by_models(request))
        except BadRequest as error:
            from mlflow.exceptions import MlflowException

            raise MlflowException.invalid_parameter_value(error.message) from error
        key = next(iter(answers[0])) if answers else self._key(request)
        return pandas.DataFrame({key: pandas.Series([answer[key] for answer in answers], dtype=object)})

    def close(self) -> None:
        """Wait for what is running, and end the threads."""
        self._thread.close()

    def _key(self, request: schemas.Request) -> str:
        """What the answer to a request without rows would be called."""
        if not self._thread.scorer.is_prompted(request):
            return "boxes"
        live = (request.params.response_schema or self._thread.scorer.response_schema) == "live"
        return "response" if live else "predictions"


def chosen(weights: Path) -> loading.Choice:
    """The models in a folder of weights, by the names of its folders. Raises FileNotFoundError where there is none."""
    found = {kind: weights / kind for kind in (DETECTOR, SEGMENTER) if (weights / kind).is_dir()}
    if not found:
        raise FileNotFoundError(f"{weights}: expected a folder {DETECTOR}, {SEGMENTER} or both")
    models = {kind: loading.Chosen(folder, kind, False) for kind, folder in found.items()}
    return loading.Choice(models.get(DETECTOR), models.get(SEGMENTER))


def _body(columns: list[str], table: pandas.DataFrame, params: Mapping[str, Any] | None) -> bytes:
    """The table as the body of the request that the service would have got. Raises BadRequest."""
    rows = []
    for number, values in enumerate(zip(*(table.iloc[:, place] for place in range(len(columns))), strict=True)):
        row = []
        for column, value in zip(columns, values, strict=True):
            try:
                row.append(_plain(value))
            except TypeError as error:
                raise BadRequest(str(error), row=number, column=column) from error
        rows.append(row)
    return json.dumps({"input_data": {"columns": columns, "data": rows}, "params": dict(params or {})}).encode()


def _plain(value: Any) -> Any:
    """A table's cell as JSON has it: numpy's values are Python's, missing ones null, files base64. Raises TypeError."""
    import pandas

    if isinstance(value, bytes | bytearray | memoryview):
        return _text(bytes(value))
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if value is None or value is pandas.NA or (isinstance(value, float) and math.isnan(value)):
        return None
    if not isinstance(value, str | bool | int | float):
        raise TypeError(f"expected text, bytes, a number, true, false or a list, got {type(value).__name__}")
    return value


def _text(data: bytes) -> str:
    """Bytes as a request has them: a file as its base64; base64, a URL or prompts that were left as bytes as text."""
    if data.isascii() and file_format(data) is None:
        return data.decode("ascii")
    return base64.b64encode(data).decode("ascii")
