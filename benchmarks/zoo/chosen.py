"""Which configs of MMDetection's zoo are asked: one of each family, or all that differ in their model."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from models.detector.single_image import name_of

# Folders of the tree that are no family: what others are based on.
BASES = ("_base_", "common")
# What of a model's config is of its data set or its schedule, at any depth.
_OF_DATA = frozenset({"num_classes", "num_things_classes", "num_stuff_classes"})
_OF_TRAINING = frozenset({"train_cfg", "init_cfg", "pretrained", "batch_augments"})


def tree() -> Path:
    """Where the installed MMDetection has the configs of its zoo."""
    import mmdet

    return Path(mmdet.__file__).parent / ".mim" / "configs"


def configs(root: Path) -> dict[str, list[str]]:
    """By family, a folder of the tree, the configs in it as paths below `root`."""
    found: dict[str, list[str]] = {}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).parts
        if len(parts) > 1 and not set(parts) & set(BASES):
            found.setdefault(parts[0], []).append("/".join(parts))
    return found


def one_of_each(root: Path, known: dict[str, str]) -> list[str]:
    """For each family the config that stands for it. known: those that were chosen by hand, by family."""
    return [
        known[family] if known.get(family) in of_family else of_family[0] for family, of_family in configs(root).items()
    ]


def all_that_differ(root: Path, first: Sequence[str] = ()) -> tuple[list[str], int]:
    """One config for each model in the zoo, and how many configs have one. first: those that are preferred.

    Two models are the same if they differ only in the number of classes, in the weights that they begin with and in
    what only training looks at. A config that cannot be read is one for itself. What has no model is no detector's.
    """
    chosen: dict[str, str] = {}
    count = 0
    preferred = set(first)
    every = [config for of_family in configs(root).values() for config in of_family]
    for config in sorted(every, key=lambda one: (one not in preferred, one)):
        kind = _model_in(root / config)
        if kind is not None:
            count += 1
            chosen.setdefault(kind, config)
    return sorted(chosen.values(), key=lambda one: (one not in preferred, one)), count


def _model_in(path: Path) -> str | None:
    """A text that is the same for the same model; None for a config without one."""
    from mmengine.config import Config

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            config = Config.fromfile(path)
    except Exception:  # what stops it is what the service will say
        return str(path)
    return json.dumps(_plain(config.model), sort_keys=True) if config.get("model") else None


def _plain(node: Any) -> Any:
    """A config's node without what is of data and training, with classes by their names."""
    if isinstance(node, dict):
        return {str(key): _plain(value) for key, value in node.items() if key not in _OF_DATA | _OF_TRAINING}
    if isinstance(node, (list, tuple)):
        return [_plain(value) for value in node]
    return node if node is None or isinstance(node, (str, int, float)) else name_of(node)
