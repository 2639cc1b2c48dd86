"""The layout: imports go one way, between modules and between folders, and no module is too long to read at once."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
PACKAGES = ("app", "models", "benchmarks")
MOST_LINES = 400


def _modules() -> dict[str, Path]:
    paths = [path for package in PACKAGES for path in (REPOSITORY / package).rglob("*.py")]
    names = [".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__") for path in paths]
    return dict(zip(names, paths, strict=True))


def _imports() -> dict[str, set[str]]:
    """By module those of ours that it imports, at its top or later; what is for a type checker alone is left out."""
    modules = _modules()
    found: dict[str, set[str]] = {}
    for name, path in modules.items():
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
                node.body = []
        imported = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                imported |= {f"{node.module}.{one.name}" for one in node.names} | {str(node.module)}
            elif isinstance(node, ast.Import):
                imported |= {one.name for one in node.names}
        found[name] = imported & modules.keys() - {name}
    return found


def _wing(module: str) -> str:
    """A folder directly in a package, or a module that stands there by itself."""
    return ".".join(module.split(".")[:2])


def test_no_module_and_no_wing_imports_itself_by_way_of_others() -> None:
    imports = _imports()
    # A package's own __init__ gathers what is in it; it is no room of its own.
    faces = {name for name, path in _modules().items() if path.name == "__init__.py"}
    rooms = {name: ours - faces for name, ours in imports.items() if name not in faces}
    assert len(list(TopologicalSorter(rooms).static_order())) > 100  # raises CycleError, which names the circle
    wings: dict[str, set[str]] = {}
    for name, ours in imports.items():
        wings.setdefault(_wing(name), set()).update({_wing(one) for one in ours} - {_wing(name)} - set(PACKAGES))
    assert len(list(TopologicalSorter(wings).static_order())) > 30


@pytest.mark.parametrize(("below", "above"), [("models", "app"), ("models", "benchmarks"), ("app", "benchmarks")])
def test_the_lower_package_knows_nothing_of_the_upper(below: str, above: str) -> None:
    imports = _imports()
    assert not [
        (name, one)
        for name, ours in imports.items()
        for one in ours
        if name.split(".")[0] == below and one.split(".")[0] == above
    ]


def test_rooms_can_be_read_at_once() -> None:
    lengths = {name: len(path.read_text().splitlines()) for name, path in _modules().items()}
    assert {name: lines for name, lines in lengths.items() if lines > MOST_LINES} == {}
