"""A detector's config for the data's classes: their number in every head, and no part that learns from anything but
boxes and masks of things."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from models.detector.single_image import name_of
from models.finetuning.trainable import class_nodes

# Parts that learn which stuff (sky, road) each pixel is of, from maps that data sets of objects do not have.
SEMANTIC = ("semantic_head", "semantic_roi_extractor")
SEMANTIC_WEIGHTS = ("roi_head.semantic_head.*",)


def set_classes(model: Any, count: int) -> None:
    """Let every head of a model's config tell `count` classes of things apart, and none of stuff."""
    for node in list(class_nodes(model)):
        for key in ("num_classes", "num_things_classes"):
            if key in node:
                node[key] = count
        if "num_stuff_classes" in node:
            node["num_stuff_classes"] = 0
        weights = node.get("class_weight")
        if isinstance(weights, (list, tuple)) and weights:  # of the classes, and of the background behind them
            node["class_weight"] = [1.0] * count + [weights[-1]]


def leave_out_stuff(model: Any, say: Callable[[str], None]) -> None:
    """Take the semantic branch out of a model's config (HTC, SCNet, DetectoRS): its maps of stuff are not here."""
    roi_head = model.get("roi_head") or {}
    if roi_head.get("semantic_head"):
        say("the semantic branch is left out: it learns from maps of stuff (sky, road), which the data has none of")
    for key in SEMANTIC:
        roi_head.pop(key, None)


def has_stuff(model: Any) -> bool:
    """Whether it tells classes of stuff apart too."""
    return any(node.get("num_stuff_classes") for node in class_nodes(model))


def train_all(model: Any) -> None:
    """Let all of a model's backbone learn: what is frozen in a pretrained one would be random for good in a new one."""
    backbone = model.get("backbone")
    if not isinstance(backbone, dict):
        return
    if "frozen_stages" in backbone:
        backbone["frozen_stages"] = 0 if name_of(backbone.get("type")) == "EfficientNet" else -1  # its word for none
    if backbone.get("norm_eval"):
        backbone["norm_eval"] = False
    norm = backbone.get("norm_cfg")
    if isinstance(norm, dict) and norm.get("requires_grad") is False:
        norm["requires_grad"] = True
