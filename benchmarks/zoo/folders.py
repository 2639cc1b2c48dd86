"""A config of the zoo as the folder that its user would have: written out in full, with a checkpoint beside it.

The weights are random and found by a seed. What a model says about classes is spread, so that it finds something.
"""

from __future__ import annotations

import logging
import shutil
import string
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import nn

from models.checkpoints import ModelFilesError
from models.detector import language
from models.detector.configs import read_config
from models.detector.files import build_model
from models.detector.instance_masks import keep_small
from models.detector.single_image import class_count, name_of

# How much logits of classes vary: enough that some are above a threshold, few enough that it is not thousands.
SPREAD = 1.0
TOKENIZER = "a tokenizer in its folder"
TEXTS = ("can", "carton", "bottle")  # what open-vocabulary detectors are asked to find
ENOUGH = 20  # objects
SMALL = 320  # pixels on the long side, for the pass that spreads them


@dataclass(frozen=True)
class Made:
    """What was written. masks: whether it finds masks with its boxes; None where no model could be built.
    needs: what its folder or its environment must have besides."""

    model: str
    parameters: int = 0
    masks: bool | None = None
    needs: str = ""


def write_folder(
    source: Path, folder: Path, image: np.ndarray, longest: int | None = None, proposals: int | None = None
) -> Made:
    """Write the config and a checkpoint in the official format. image: (H, W, 3) uint8 RGB. longest: the most pixels
    that a side of an image may have after the config's own resizing, which is made to give fewer. proposals: the most
    that a detector in two stages looks at.

    A config that makes no detector is written as well, with a checkpoint of nothing: the service says why.
    """
    from mmengine.config import Config

    target = folder / source.name
    try:
        original = Config.fromfile(source)
        if longest is not None:
            for key in ("test_dataloader", "test_pipeline", "tta_pipeline"):
                _shrink(original.get(key), longest)
        if proposals is not None:
            _propose(original.get("model"), proposals)
        original.dump(target)
    except Exception:  # a base or a package that is not here: its user has the file as it is
        shutil.copy(source, target)
        original = None
    needs = _needs(original, source)
    if needs == TOKENIZER:
        _write_language(folder / Path(original.model.language_model.name).name)
    try:
        config = read_config(target)
        torch.manual_seed(0)
        model = build_model(config, target)
    except ModelFilesError:
        torch.save({"state_dict": {"none": torch.zeros(1)}, "meta": {}}, folder / "random.pth")
        return Made("" if original is None else name_of(original.model.type), needs=needs)
    with _unsaid():
        model.init_weights()
    model.eval()
    try:
        masks = _settle(model, image, SMALL)
    except RuntimeError:  # too small for SSD, which counts on an image of 300 or 512 pixels
        masks = _settle(model, image, 2 * SMALL)
    tracker = original is not None and "detector" in original.model and "tracker" in original.model
    prefix = "detector." if tracker else ""
    weights = {prefix + key: tensor for key, tensor in model.state_dict().items()}
    names = tuple(f"class {number}" for number in range(class_count(model) or 1))
    torch.save({"meta": {"dataset_meta": {"classes": names}}, "state_dict": weights}, folder / "random.pth")
    return Made(type(model).__name__, sum(one.numel() for one in model.parameters()), masks, needs)


def _shrink(part: Any, longest: int) -> None:
    """Bound every size that a pipeline's steps give an image, with its ratio kept; where that is not kept, as SSD does,
    the size is the model's own."""
    if isinstance(part, dict):
        for key in ("scale", "img_scale", "size") if part.get("keep_ratio", True) else ():
            value = part.get(key)
            if isinstance(value, (tuple, list)) and all(isinstance(one, int) for one in value) and max(value) > longest:
                part[key] = tuple(max(32, round(longest * one / max(value)) // 32 * 32) for one in value)
        for value in part.values():
            _shrink(value, longest)
    elif isinstance(part, (list, tuple)):
        for value in part:
            _shrink(value, longest)


def _propose(part: Any, most: int) -> None:
    """Bound what the first stage of a detector hands on, wherever in its config it says so."""
    if isinstance(part, dict):
        stage = (part.get("test_cfg") or {}).get("rpn") if isinstance(part.get("test_cfg"), dict) else None
        if isinstance(stage, dict):
            stage["max_per_img"] = min(most, stage.get("max_per_img", most))
        for value in part.values():
            _propose(value, most)


@contextmanager
def _unsaid() -> Iterator[None]:
    """Without mmengine's lines of how each layer begins."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def _needs(original: Any, source: Path) -> str:
    """What a config says that its user must bring besides."""
    if "TIMMBackbone" in source.read_text(encoding="utf-8"):
        return "mmpretrain, timm, torchvision"
    return TOKENIZER if original is not None and "language_model" in original.model else ""


def _write_language(folder: Path) -> None:
    """BERT's files as they are published, but for its words: here every word is read by its letters."""
    folder.mkdir()
    letters = [*string.ascii_lowercase, *string.digits]
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *".?-,", *letters, *(f"##{letter}" for letter in letters)]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer", "do_lower_case": true}')
    (folder / "config.json").write_text('{"model_type": "bert"}')  # whose defaults are those of bert-base-uncased


@torch.inference_mode()
def _settle(model: Any, image: np.ndarray, longest: int) -> bool:
    """Set batch norms' statistics and the spread of classes by a pass over a small picture, and more of it while
    too little is found; whether it finds masks."""
    from mmdet.structures import DetDataSample

    height, width = (round(longest * side / max(image.shape[:2]) / 32) * 32 for side in image.shape[:2])
    small = cv2.resize(image, (width, height))[..., ::-1]
    inputs = torch.from_numpy(np.ascontiguousarray(small.transpose(2, 0, 1)))
    size_hw = small.shape[:2]
    told: dict[str, Any] = language.asked(model, TEXTS) if language.takes_texts(model) else {}
    told["border"] = (0, height, 0, width)  # where CenterNet's own padding put the image: top, bottom, left, right
    sample = DetDataSample(metainfo={"ori_shape": size_hw, "img_shape": size_hw, "scale_factor": (1.0, 1.0), **told})
    batch = model.data_preprocessor({"inputs": [inputs], "data_samples": [sample]}, False)
    keep_small(model)  # MMDetection's pasting fails for boxes outside of the image, which random weights find
    with warnings.catch_warnings(), _settling(model):
        warnings.simplefilter("ignore")
        model(**batch, mode="predict")
    for _ in range(5):
        [found] = model(**batch, mode="predict")
        if len(found.pred_instances) >= ENOUGH:
            break
        for module in model.modules():
            if hasattr(module, "_is_spread"):
                module.weight.mul_(2)
    return "masks" in found.pred_instances


@contextmanager
def _settling(model: Any) -> Iterator[None]:
    hooks = []
    for name, module in model.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            hooks.append(module.register_forward_pre_hook(_measure))
        elif isinstance(module, (nn.Linear, nn.Conv2d)) and _is_of_classes(name):
            hooks.append(module.register_forward_hook(_spread))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _is_of_classes(name: str) -> bool:
    """Whether a layer is the last one of a head's branch for classes, by MMDetection's names."""
    own = [part for part in name.split(".") if not part.isdigit()]
    return "backbone" not in own and any(word in own[-1] for word in ("cls", "score", "class_embed"))


def _measure(module: nn.BatchNorm2d, inputs: tuple[torch.Tensor, ...]) -> None:
    [values] = inputs
    if values.numel() > values.shape[1] and module.running_mean is not None and module.running_var is not None:
        module.running_mean.copy_(values.mean((0, 2, 3)))
        module.running_var.copy_(values.var((0, 2, 3)))


def _spread(module: Any, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor | None:
    """The first time that it runs: scale its weights, and what it said."""
    if hasattr(module, "_is_spread"):
        return None
    module._is_spread = True
    deviation = float(output.std())
    if not np.isfinite(deviation) or deviation < 1e-12:
        return None
    if module.bias is None:
        module.weight.mul_(SPREAD / deviation)
        return output * (SPREAD / deviation)
    bias = module.bias.view(1, -1, *[1] * (output.ndim - 2)) if output.ndim == 4 else module.bias
    module.weight.mul_(SPREAD / deviation)
    return (output - bias) * (SPREAD / deviation) + bias
