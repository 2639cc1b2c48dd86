"""What MMEngine 0.10.7 asks of libraries that no longer have it; `mend()` answers in their place.

MMEngine, MMDetection and mmcv have had no release since 2024. What newer Pythons and packages took away from them, as
far as it stands in a way here, is mended in this one place.
"""

from __future__ import annotations

import importlib.metadata
from importlib.util import find_spec
from pathlib import Path


def mend() -> None:
    """Let MMEngine's configs name packages without setuptools' `pkg_resources`; comes before reading one.

    MMEngine looks for a package by it where a config has `_base_ = "mmdet::…"`, or under `read_base()` an import from a
    package by its full name. Newer setuptools have none, older ones fail on newer Pythons or warn: so here it is never
    asked.
    """
    import mmengine.utils.package_utils
    from mmengine.config import config

    for module in (mmengine.utils.package_utils, mmengine.utils, config):
        module.is_installed = is_installed
        module.get_installed_path = get_installed_path


def is_installed(package: str) -> bool:
    """Whether there is such a distribution, or a package of this name to import."""
    try:
        importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError:
        spec = find_spec(package)
        return spec is not None and spec.origin is not None
    return True


def get_installed_path(package: str) -> str:
    """The folder of a package, by its name in imports or by its distribution's.

    Raises PackageNotFoundError where there is none, RuntimeError where it has no folder of its own.
    """
    spec = find_spec(package)
    if spec is None:
        names = importlib.metadata.distribution(package).read_text("top_level.txt") or ""
        spec = find_spec(names.split()[0]) if names.split() else None
    if spec is None or spec.origin is None:
        raise RuntimeError(f"{package}: not a package with a folder of its own")
    return str(Path(spec.origin).parent)
