"""The network of a Hugging Face detector: built by its config.json, filled from its files, with nothing fetched."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError

from models.checkpoints import CheckpointError, ModelFilesError, check_fit, load_state_dict, read_json_object
from models.detector.huggingface import timm_resnet
from models.detector.huggingface.model_types import OPEN
from models.model_errors import say_once
from models.wrappers import StateDict, unwrapped

# What transformers raises for values in a config.json that make no network.
CONFIG_ERRORS = (
    TypeError, ValueError, KeyError, IndexError, AttributeError, ArithmeticError, RuntimeError, ImportError, OSError,
    MemoryError, StrictDataclassError,
)  # fmt: skip


def load_network(folder: Path, weights: Path) -> Any:
    """The folder's network in float32 on the CPU, in eval mode. weights: a file, or the folder.

    Raises ModelFilesError where its config makes none, and CheckpointError where the weights are unsafe or do not fit.
    """
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    path = folder / "config.json"
    content = read_json_object(path)
    model_type = str(content["model_type"])
    is_timm = _settle_backbone(content, path)
    if content.pop("quantization_config", None):
        raise ModelFilesError(f"{path}: its weights are quantised (quantization_config): take those that are not")
    with quiet(), explained(path, model_type):
        config = CONFIG_MAPPING[model_type].from_dict(content)
        network_class = _network_class(model_type, type(config))
        with torch.device("meta"):
            empty = network_class(config)
    class_names(config, path)  # before the weights, which take longer
    state_dict, _ = load_state_dict(weights)
    state_dict = unwrapped(state_dict, _names_in_files(empty) | set(empty.state_dict()), weights, say_once)
    if is_timm:
        state_dict = timm_resnet.renamed(state_dict)
    return filled(network_class, config, state_dict, weights).eval().requires_grad_(False)


def class_names(config: Any, path: Path) -> tuple[str, ...]:
    """The names of the classes, in the order of the network's outputs. Raises ModelFilesError."""
    names = config.id2label or {}
    if sorted(names) != list(range(len(names))) or not all(isinstance(name, str) for name in names.values()):
        raise ModelFilesError(f"{path}: id2label: expected a name for each of 0, 1, …, got {names!r:.80}")
    return tuple(names[index] for index in range(len(names)))


def _network_class(model_type: str, config_class: type) -> Any:
    from transformers.models.auto import modeling_auto

    kind = "ZERO_SHOT_OBJECT_DETECTION" if model_type in OPEN else "OBJECT_DETECTION"
    return getattr(modeling_auto, f"MODEL_FOR_{kind}_MAPPING")[config_class]


def _settle_backbone(content: dict[str, Any], path: Path) -> bool:
    """Name the backbone by a config of its own, so that nobody looks for one elsewhere.

    Returns whether it was a ResNet of timm's, whose weights have timm's names. Raises ModelFilesError where it takes
    timm, which is not here, or another repository's config.
    """
    name, backbone = content.pop("backbone", None), content.get("backbone_config")
    uses_timm = content.pop("use_timm_backbone", None)
    content.pop("use_pretrained_backbone", None)
    if backbone is not None and not isinstance(backbone, dict):
        raise ModelFilesError(f"{path}: backbone_config: expected a JSON object, got {type(backbone).__name__}")
    if isinstance(backbone, dict):
        is_timm = backbone.get("model_type") == "timm_backbone"
    elif content["model_type"] in _TIMM_BY_DEFAULT:
        is_timm = uses_timm is not False
        name = name or "resnet50" if is_timm else name
    else:
        is_timm = bool(uses_timm)
    if not isinstance(backbone, dict):
        if name is None:  # the model's own default, which is built without looking anywhere
            return False
        if not is_timm:
            raise ModelFilesError(
                f"{path}: its backbone is {name!r}, of another repository: bring that one's config.json into it as "
                "backbone_config"
            )
        given = content.pop("backbone_kwargs", None) or {}
        several = [2, 3, 4] if content["model_type"] == "deformable_detr" else [1, 2, 3, 4]
        if content["model_type"] == "deformable_detr" and content.get("num_feature_levels", 4) == 1:
            several = [4]
        backbone = {
            "model_type": "timm_backbone",
            "backbone": name,
            "num_channels": given.get("num_channels") or content.get("num_channels") or 3,
            "out_indices": given.get("out_indices") or several,
            "features_only": True,
            "output_stride": given.get("output_stride") or (16 if content.get("dilation") else None),
        }
    backbone.pop("use_pretrained_backbone", None)
    content["backbone_config"] = backbone
    if not is_timm:
        return False
    ours = timm_resnet.as_transformers(backbone)
    if ours is not None:
        content["backbone_config"] = ours
        return True
    if find_spec("timm") is None:
        raise ModelFilesError(
            f"{path}: its backbone is {backbone.get('backbone')!r} of timm, and there is no timm here: install it by "
            "`pip install timm`"
        )
    return False


# Their config means timm's ResNet-50 where it says nothing of a backbone.
_TIMM_BY_DEFAULT = ("conditional_detr", "dab-detr", "deformable_detr", "detr", "table-transformer")


def _names_in_files(network: Any) -> set[str]:
    """The names that the weights have in a file that transformers writes, which are those of its earlier versions."""
    from transformers.core_model_loading import revert_weight_conversion

    try:
        return set(revert_weight_conversion(network, network.state_dict()))
    except CONFIG_ERRORS:  # a conversion that needs the values
        return set()


def filled(network_class: Any, config: Any, state_dict: StateDict, source: Path) -> Any:
    """The network with these weights, by transformers' own renaming of older ones. Raises CheckpointError."""
    with quiet(), explained(source, config.model_type, CheckpointError):
        network, found = network_class.from_pretrained(
            None,
            config=config,
            state_dict=state_dict,
            dtype=torch.float32,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are told with the others below
        )
    reshaped = [
        f"{key} (checkpoint {tuple(theirs)}, model {tuple(own)})" for key, theirs, own in found["mismatched_keys"]
    ]
    check_fit(
        source,
        state_dict,
        network.state_dict(),
        missing=found["missing_keys"],
        unexpected=found["unexpected_keys"],
        reshaped=reshaped,
        ignore=["*num_batches_tracked"],
    )
    return network


@contextmanager
def explained(path: Path, model_type: str, kind: type[ModelFilesError] = ModelFilesError) -> Iterator[None]:
    """What transformers raises, as a sentence."""
    try:
        yield
    except CONFIG_ERRORS as error:
        lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()] or [type(error).__name__]
        raise kind(f"{path}: cannot build the model ({model_type}): {' '.join(lines)[:400]}") from error


@contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' bar and report, which say on several lines what the errors here say in a sentence."""
    from transformers.utils import logging as their_logging

    logger = logging.getLogger("transformers")
    level, bars = logger.level, their_logging.is_progress_bar_enabled()
    logger.setLevel(logging.ERROR)
    their_logging.disable_progress_bar()
    try:
        yield
    finally:
        logger.setLevel(level)
        if bars:
            their_logging.enable_progress_bar()
