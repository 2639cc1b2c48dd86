"""What of a config's model finds objects in one image: a tracker's detector, a student without its teacher.

MMDetection's zoo has models that are more than a detector, or that ask for packages that only their training or their
tracking needs. Here each becomes the detector that is in it; one that holds none is refused in a sentence.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from models.model_errors import ModelFilesError

# Of a video's preprocessor, what an image's has too.
_NORMALISING = (
    "mean",
    "std",
    "bgr_to_rgb",
    "rgb_to_bgr",
    "pad_size_divisor",
    "pad_value",
    "pad_mask",
    "mask_pad_value",
)
_WITHOUT_TEACHER = {
    "KnowledgeDistillationSingleStageDetector": "SingleStageDetector",
    "LAD": "PAA",
    "LDHead": "GFLHead",
    "LADHead": "PAAHead",
}
_NO_DETECTOR = {
    "BaseReID": "it tells persons apart that a detector has found, and finds none itself: serve that detector",
    "Detectron2Wrapper": "it is a model of Detectron2, which runs it: serve MMDetection's own config of the same model",
    "Mask2FormerVideo": "it looks at several frames of a video at once: serve a mask2former config for images",
}
# Weights of the parts that are taken off, where they lie beside the detector's own; the last are DDQ's, whose training
# ties them to its head's.
LEFT_OFF = ("teacher_model.*", "semantic_head.*", "panoptic_fusion_head.*", "decoder.aux_reg_branches.*")


def name_of(kind: Any) -> str:
    """The name of a type in a config: text, perhaps with its package before it, or the class itself."""
    return str(getattr(kind, "__name__", kind)).split(".")[-1]


def reduce(config: Any, path: object) -> None:
    """Leave in `config.model` the detector that finds objects in one image. path: what to call the config in an error.

    Raises ModelFilesError for a model that has none.
    """
    model = config.model
    kind = name_of(model.get("type"))
    if kind in _NO_DETECTOR:
        raise ModelFilesError(f"{path}: {kind} is no detector of images: {_NO_DETECTOR[kind]}")
    if isinstance(model.get("detector"), Mapping) and "tracker" in model:
        _take_detector(config)
    shared = config.model.get("data_preprocessor")
    if isinstance(shared, Mapping) and name_of(shared.get("type")) == "MultiBranchDataPreprocessor":
        config.model["data_preprocessor"] = shared["data_preprocessor"]  # of a semi-supervised training's images
    _take_student(config.model)
    _take_things(config.model)
    if kind == "FastRCNN" or ("roi_head" in config.model and not config.model.get("rpn_head")):
        raise ModelFilesError(
            f"{path}: {kind} has no part that proposes boxes: it classifies those that another program has found, "
            "and a request has none. Serve the Faster R-CNN of the same backbone"
        )
    for node in _nodes(config.model):
        _make_alone(node)


def without_training(node: Any) -> None:
    """Takes out of a model's config what only its training asks for: BoxInst's colours, which need scikit-image."""
    shared = node.get("data_preprocessor")
    if isinstance(shared, Mapping) and name_of(shared.get("type")) == "BoxInstDataPreprocessor":
        node["data_preprocessor"] = _normalising(shared)


def finds_masks(model: Any) -> bool:
    """Whether a model of this config finds masks with its boxes."""
    parts = (model, model.get("roi_head") or {})
    if any(part.get(key) for part in parts for key in ("mask_head", "panoptic_head")):
        return True
    head = model.get("bbox_head")
    return isinstance(head, Mapping) and name_of(head.get("type")).startswith("RTMDetIns")


def class_count(model: Any) -> int | None:
    """How many classes of things a built model tells apart; None where it does not say."""
    if (student := getattr(model, "student", None)) is not None:  # of one that learns from its teacher
        return class_count(student)
    head = getattr(model, "bbox_head", None) or getattr(getattr(model, "roi_head", None), "bbox_head", None)
    head = head or getattr(model, "mask_head", None)  # of one that finds masks and no boxes: SOLO
    if isinstance(head, torch.nn.ModuleList):  # the stages of a cascade
        head = head[-1]
    if head is None:
        return getattr(getattr(model, "panoptic_head", None), "num_things_classes", None)
    return getattr(head, "num_classes", None)


def _take_detector(config: Any) -> None:
    """Of a tracker: its detector, with what the tracker does to images."""
    tracker = config.model
    detector = tracker.detector
    own = detector.get("data_preprocessor") or {}
    shared = tracker.get("data_preprocessor") or {}
    detector["data_preprocessor"] = _normalising({**shared, **own})
    config.model = detector


def _normalising(preprocessor: Mapping[str, Any]) -> dict[str, Any]:
    """MMDetection's own preprocessor, that normalises and pads as this one."""
    its = {key: preprocessor[key] for key in _NORMALISING if key in preprocessor}
    return {"type": "DetDataPreprocessor", **its}


def _take_student(model: Any) -> None:
    """Of a student and its teacher: the student, whose head asks for no teacher."""
    if not any(key.startswith("teacher_") for key in model):
        return
    for key in [key for key in model if key.startswith("teacher_") or key == "eval_teacher"]:
        del model[key]
    for node in (model, model.get("bbox_head") or {}):
        kind = name_of(node.get("type"))
        if kind in _WITHOUT_TEACHER:
            node["type"] = _WITHOUT_TEACHER[kind]
        node.pop("loss_ld", None)


def _take_things(model: Any) -> None:
    """Of a panoptic model: the instances of things. What is stuff (sky, road) has no instances."""
    if name_of(model.get("type")) == "PanopticFPN":
        model["type"] = "MaskRCNN"
        for key in ("semantic_head", "panoptic_fusion_head"):
            model.pop(key, None)
    test = model.get("test_cfg")
    if isinstance(test, dict) and "panoptic_on" in test:
        test.update(panoptic_on=False, semantic_on=False, instance_on=True)


def _make_alone(node: Any) -> None:
    """What asks for other processes, torchvision or fairscale, and is the same without them."""
    if node.get("use_torchvision"):
        node["use_torchvision"] = False
    if node.get("num_cp"):  # layers whose inner values are computed again in training, which saves memory there
        node["num_cp"] = 0
    if name_of(node.get("type")) == "MMSyncBN":
        node["type"] = "BN"
    if name_of(node.get("type")) == "CascadeRPNHead":
        node.setdefault("num_classes", 1)  # which the zoo's configs leave out, and the head asks for
    if name_of(node.get("type")) == "StageCascadeRPNHead":
        node.pop("sampling", None)  # of MMDetection 2.x; 3.x takes it from train_cfg


def _nodes(node: Any) -> Iterator[Any]:
    if isinstance(node, dict):
        yield node
    for value in node.values() if isinstance(node, dict) else node if isinstance(node, (list, tuple)) else ():
        yield from _nodes(value)
