"""A detector's test pipeline: found in its config, and tried on an image before the first request."""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from models.checkpoints import ModelFilesError
from models.detector.configs import test_pipeline_of
from models.detector.single_image import name_of


def inference_pipeline(config: Any, path: Path) -> list[dict[str, Any]]:
    """The test pipeline with its first step, which loads a file, taking the image from memory instead.

    Raises ModelFilesError where there is none, or it does not make a network's input of an image.
    """
    found = copy.deepcopy(test_pipeline_of(config))
    if not found:
        raise ModelFilesError(f"{path}: the config has neither a test_dataloader with a pipeline nor a test_pipeline")
    if not isinstance(found, (list, tuple)) or not all(isinstance(one, Mapping) and "type" in one for one in found):
        raise ModelFilesError(f"{path}: its test pipeline: expected a list of dict(type=…), got {found!r:.80}")
    steps = [inner for step in found for inner in _of_one_image(step)]
    steps[0]["type"] = "LoadImageFromNDArray"
    steps = [step for step in steps if not re.search("Load.*Annotations", name_of(step["type"]))]
    _try(steps, path)
    return steps


def _of_one_image(step: Any) -> Iterator[Any]:
    """A step; or those that it does to each frame of a video."""
    kind = name_of(step["type"])
    if kind == "TransformBroadcaster":
        yield from step["transforms"]
    elif kind == "PackTrackInputs":
        yield {"type": "PackDetInputs"}
    else:
        yield step


def _try(steps: list[dict[str, Any]], path: Path) -> None:
    """Raises ModelFilesError where the steps do not work on a grey image."""
    from mmdet.registry import TRANSFORMS

    results: Any = {"img": np.full((48, 64, 3), 128, np.uint8), "img_id": 0}
    for step in steps:
        kind = step["type"] if isinstance(step["type"], str) else step["type"].__name__
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                results = TRANSFORMS.build(dict(step))(results)
        except Exception as error:  # a config may name any step, of anybody's making; the cause is kept
            raise ModelFilesError(
                f"{path}: the step '{kind}' of its test pipeline does not work on an image: {unknown(error)}"
            ) from error
    if not isinstance(results, Mapping) or not {"inputs", "data_samples"} <= results.keys():
        raise ModelFilesError(
            f"{path}: its test pipeline ends with '{kind}': expected PackDetInputs, which makes the network's input"
        )


def unknown(error: Exception) -> str:
    """An error of a registry in a sentence: a name that it does not have, and the way out; or its own first line."""
    text = " ".join(str(error).split()) or type(error).__name__
    missing = re.search(r"'?([\w.]+) is not in the [\w:. ]*registry", text)
    if missing is None:
        return f"{type(error).__name__}: {text[:300]}"
    return (
        f"MMDetection {version('mmdet')} has no '{missing[1]}'. If it is of another package, such as mmyolo, or your "
        "own, install that and name its modules in the config: custom_imports = dict(imports=['…'])"
    )
