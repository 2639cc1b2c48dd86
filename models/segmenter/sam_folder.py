"""A folder of one of Hugging Face's SAMs: found by its config.json, and read as a network."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError

from models.checkpoints import ModelFilesError, load_into, load_state_dict, read_json_object
from models.huggingface_folder import find_folder, is_of, weights_at
from models.model_errors import say_once
from models.wrappers import StateDict, unwrapped

# By family, the `model_type` in config.json. What is published of SAM 2 and 2.1 calls itself a model of videos, whose
# image part is the model of images.
SAM, SAM_HQ, SAM2 = ("sam",), ("sam_hq",), ("sam2", "sam2_video")
# SAM 3 is published as one of videos too, in which a detector by texts and a tracker share the backbone: see `sam3`.
SAM3 = ("sam3_tracker", "sam3_tracker_video", "sam3_video")
EDGETAM = ("edgetam", "edgetam_video")
MODEL_TYPES = (*SAM, *SAM_HQ, *SAM2, *EDGETAM, *SAM3)
# Those that are near to them and not served as segmenters: what to do.
_OTHERS = {
    "sam3": "this part of SAM 3 finds by texts: name it as the detector. Points and boxes take the whole folder "
    "facebook/sam3, whose model_type is sam3_video",
    "sam3_lite_text": "SAM 3 LiteText is not served: take the folder facebook/sam3",
}
_PLACE = "shared_image_embedding.positional_embedding"
_TIED_PLACE = "prompt_encoder.shared_embedding.positional_embedding"
# What transformers raises for values in a config.json that make no network.
_CONFIG_ERRORS = (
    TypeError, ValueError, KeyError, AttributeError, ArithmeticError, RuntimeError, StrictDataclassError,
)  # fmt: skip


def find(path: Path, model_types: Collection[str]) -> Path:
    """The folder of a SAM at `path` or further in, which must be of one of these types.

    Raises ModelFilesError, see `models.huggingface_folder.find_folder`: the same for all families where there is no
    SAM at all.
    """
    try:
        folder = find_folder(path, MODEL_TYPES, "SAM")
    except ModelFilesError as error:
        config = (path if path.is_dir() else path.parent) / "config.json"
        way = _OTHERS.get(str(read_json_object(config).get("model_type"))) if config.is_file() else None
        raise ModelFilesError(f"{error}. {way}" if way else str(error)) from error
    if not is_of(folder / "config.json", model_types):
        raise ModelFilesError(f"{folder}: expected a config.json whose model_type is one of {', '.join(model_types)}")
    return folder


def load_network(
    path: Path,
    folder: Path,
    config_class: Any,
    model_class: Any,
    *,
    part: Callable[[dict[str, Any]], dict[str, Any]] = lambda config: config,
    named: Callable[[StateDict], StateDict] = lambda weights: weights,
) -> Any:
    """The network in `folder`, of transformers' `model_class`, with the weights that `path` names.

    part: what of config.json is the network's. named: gives weights their names in it. Weights of a video model's
    memory are left out. Raises ModelFilesError if the files make no such network, and its
    CheckpointError if the weights are unsafe or do not fit.
    """
    try:
        config = config_class.from_dict(part(read_json_object(folder / "config.json")))
        with torch.device("meta"):  # random weights that are overwritten at once take longer than reading
            model = model_class(config)
    except _CONFIG_ERRORS as error:
        raise ModelFilesError(f"{folder / 'config.json'}: cannot build a SAM: {error}") from error
    weights = weights_at(path, folder)
    state_dict = named(load_state_dict(weights)[0])
    own = model.state_dict()
    others = [re.compile(pattern) for pattern in model_class._keys_to_ignore_on_load_unexpected or ()]
    state_dict = {
        name: tensor
        for name, tensor in state_dict.items()
        if name in own or not any(pattern.search(name) for pattern in others)
    }
    state_dict = unwrapped(state_dict, own, weights, say_once)
    # The two names of the one positional encoding; files of different ages hold either or both.
    for name, other in ((_PLACE, _TIED_PLACE), (_TIED_PLACE, _PLACE)):
        if other in state_dict:
            state_dict.setdefault(name, state_dict[other])
    load_into(model, state_dict, weights, assign=True)
    return model
