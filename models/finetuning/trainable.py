"""Whether a detector can be trained here, and what its training asks of the data.

Everything is told from the config alone: nothing is built.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import Any

from models.detector.single_image import finds_masks, name_of

# Keys of a model below which no number of classes is the data's: a proposal network tells objects from background.
_NOT_OF_CLASSES = ("backbone", "neck", "rpn_head", "data_preprocessor", "train_cfg", "test_cfg")
_CLASS_KEYS = ("num_classes", "num_things_classes")
_BY_TEXT = (
    "it finds what a text names and learns from texts, which a data set of classes does not have; it is served, with "
    "params.texts. To train, take a detector of classes, such as an rtmdet or a dino config"
)
_WITHOUT_TRAINING = {
    "GLIP": _BY_TEXT,
    "GroundingDINO": _BY_TEXT,
    "RPN": "it proposes boxes of no class: train the Faster R-CNN of the same backbone",
}
# Heads whose training fits mixtures of Gaussians by scikit-learn.
_GAUSSIAN = ("PAAHead", "LADHead")


def why_not(config: Any, count: int = 1) -> str | None:
    """Why a detector of this config, as `models.detector.configs.read_config` gives it, is not trained here for `count`
    classes; None where it is."""
    reason = why_kind_not(config, count)
    if reason is None and not any(key in node for node in class_nodes(config.model) for key in _CLASS_KEYS):
        kind = name_of(config.model.get("type"))
        return f"found no head with num_classes in {kind}, which fine-tuning sets for the data"
    return reason


def why_kind_not(config: Any, count: int = 1) -> str | None:
    """As `why_not`, of kinds that are known not to be trained; what is no detector at all is told when it is built."""
    model = config.model
    kind = name_of(model.get("type"))
    if kind in _WITHOUT_TRAINING:
        return f"{kind} is not trained here: {_WITHOUT_TRAINING[kind]}"
    if "semi_train_cfg" in model:
        return (
            f"{kind} is not trained here: it learns from images without annotations too: train the config of the "
            "detector in it"
        )
    head = model.get("bbox_head")
    if isinstance(head, Mapping) and name_of(head.get("type")) in _GAUSSIAN and find_spec("sklearn") is None:
        return f"{kind} needs scikit-learn for its training: pip install scikit-learn"
    if count > 1 and kind == "CrowdDet":
        return f"{kind} tells objects of one class from the background, and the data has {count} classes"
    return None


def learns_masks(config: Any) -> bool:
    """Whether its training asks for a mask of every object. BoxInst's does not: it makes do with boxes."""
    return name_of(config.model.get("type")) != "BoxInst" and finds_masks(config.model)


def class_nodes(model: Mapping[str, Any]) -> Iterator[Any]:
    """Every dict of a model's config in which a number of classes may be the data's."""
    for key, value in model.items():
        if key not in _NOT_OF_CLASSES:
            yield from _dicts(value)


def _dicts(node: Any) -> Iterator[Any]:
    if isinstance(node, dict):
        yield node
        yield from class_nodes(node)
    elif isinstance(node, (list, tuple)):
        for value in node:
            yield from _dicts(value)
