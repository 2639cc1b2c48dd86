"""Backbones that configs take from MMPretrain: ConvNeXt is here too, so that it need not be installed."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

from models.model_errors import ModelFilesError

# MMPretrain, and by its former name.
PACKAGES = ("mmpretrain", "mmcls")
OURS = "ConvNeXt"


def import_modules(config: Any, path: object) -> None:
    """Import what the config's custom_imports name, without MMPretrain where nothing of it is missed.

    path: what to call the config in an error. Raises ModelFilesError where it is missed, ImportError for others.
    """
    from mmengine.utils import import_modules_from_strings

    wanted = dict(config.get("custom_imports") or {})
    names = wanted.get("imports") or []
    names = [names] if isinstance(names, str) else list(names)
    absent = [name for name in names if name.split(".")[0] in PACKAGES and find_spec(name.split(".")[0]) is None]
    missed = sorted({kind for _, kind in _of_packages(config.get("model")) if kind.split(".")[1] != OURS})
    if absent and missed:
        raise ModelFilesError(
            f"{path}: '{missed[0]}' is of MMPretrain, which is not installed: pip install mmpretrain timm, and the "
            f"torchvision that fits your torch, which both need; of MMPretrain, {OURS} alone is here without them"
        )
    names = [name for name in names if name not in absent]
    if names:
        import_modules_from_strings(**{**wanted, "imports": names})


def use_ours(model: Any) -> None:
    """Put our ConvNeXt in the place of MMPretrain's in a model's config, where MMPretrain is not installed."""
    for node, kind in _of_packages(model):
        package, name = kind.split(".", 1)
        if name == OURS and find_spec(package) is None:
            from models.detector.convnext import ConvNeXt

            node["type"] = ConvNeXt


def _of_packages(node: Any) -> Iterator[tuple[Any, str]]:
    """The nodes whose type is of MMPretrain, with it."""
    if isinstance(node, dict):
        kind = node.get("type")
        if isinstance(kind, str) and kind.split(".")[0] in PACKAGES and "." in kind:
            yield node, kind
    for value in node.values() if isinstance(node, dict) else node if isinstance(node, (list, tuple)) else ():
        yield from _of_packages(value)
