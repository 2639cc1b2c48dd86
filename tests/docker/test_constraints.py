"""constraints.txt pins whatever pip may meet, on each Python that the project is for.

Read from the metadata of what is installed here, so that it needs no network; `make lock` asks the index itself.
"""

from __future__ import annotations

import importlib.metadata
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

REPOSITORY = Path(__file__).parents[2]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
PYTHONS = ("3.11.2", "3.12.0", "3.13.0", "3.14.0")
MACHINES = {
    "linux": {"sys_platform": "linux", "platform_system": "Linux", "platform_machine": "x86_64"},
    "linux on arm": {"sys_platform": "linux", "platform_system": "Linux", "platform_machine": "aarch64"},
    "macos": {"sys_platform": "darwin", "platform_system": "Darwin", "platform_machine": "arm64"},
}
# `make` puts the one build in the other's place.
INSTALLED_AS = {"opencv-python": "opencv-python-headless"}


def pins(text: str) -> dict[str, Version]:
    """Versions by canonical name, of lines that begin with `name==version`, or `name[extra]==version`."""
    return {
        str(canonicalize_name(name)): Version(version)
        for name, version in re.findall(r"^([\w.-]+)(?:\[[\w,]+\])?==(\S+)", text, re.MULTILINE)
    }


def wanted(extra: str = "") -> list[Requirement]:
    """pyproject.toml's requirements: those of an extra, or by default of the service itself."""
    project = PROJECT["project"]
    lines = project["optional-dependencies"][extra] if extra else project["dependencies"]
    return [Requirement(line) for line in lines]


def requirements_of(name: str) -> list[Requirement]:
    """What an installed package asks for; nothing of what is not installed here."""
    try:
        lines = importlib.metadata.requires(INSTALLED_AS.get(name, name))
    except importlib.metadata.PackageNotFoundError:
        return []
    return [Requirement(line) for line in lines or []]


def closure(python: str, machine: str) -> dict[str, list[Requirement]]:
    """All that pip meets, with every extra: requirements by the canonical name of the package that they are for."""
    environment = MACHINES[machine] | {
        "python_full_version": python,
        "python_version": python.rpartition(".")[0],
        "os_name": "posix",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
    }
    found: dict[str, list[Requirement]] = {}
    seen: set[tuple[str, str]] = set()
    extras = PROJECT["project"]["optional-dependencies"]
    waiting = [one for extra in ("", *extras) for one in wanted(extra)]
    waiting += [Requirement(line) for line in PROJECT["build-system"]["requires"]]
    while waiting:
        requirement = waiting.pop()
        name = str(canonicalize_name(requirement.name))
        if name == "box2mask":  # an extra that has others in it; they are all there already
            continue
        found.setdefault(name, []).append(requirement)
        for extra in ("", *requirement.extras):
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            for further in requirements_of(name):
                if further.marker is None or further.marker.evaluate(environment | {"extra": extra}):
                    waiting.append(further)
    return found


CONSTRAINTS = pins((REPOSITORY / "constraints.txt").read_text())
DIRECT = pins(
    "\n".join(str(one) for extra in ("", *PROJECT["project"]["optional-dependencies"]) for one in wanted(extra))
)


def test_the_pythons_are_those_of_the_project() -> None:
    allowed = SpecifierSet(PROJECT["project"]["requires-python"])
    assert all(python in allowed for python in PYTHONS)
    assert not {"3.10.99", "3.11.1", "3.15.0"} & set(allowed.filter(["3.10.99", "3.11.1", "3.15.0"]))


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("python", PYTHONS)
def test_every_package_is_pinned_at_a_version_that_all_take(python: str, machine: str) -> None:
    known = CONSTRAINTS | DIRECT
    found = closure(python, machine)
    assert len(found) > 150
    assert not found.keys() - known.keys()
    for name, requirements in found.items():
        for requirement in requirements:
            assert requirement.specifier.contains(known[name], prereleases=True), f"{requirement}, and {known[name]}"


@pytest.mark.parametrize("python", PYTHONS)
def test_every_version_is_for_every_python(python: str) -> None:
    for name in CONSTRAINTS | DIRECT:
        try:
            metadata = importlib.metadata.metadata(INSTALLED_AS.get(name, name))
        except importlib.metadata.PackageNotFoundError:
            continue
        assert python in SpecifierSet(metadata.get("Requires-Python", "")), name


def test_what_is_installed_here_has_the_versions_that_are_pinned() -> None:
    """Else the two tests before this one have read other packages' metadata."""
    known = CONSTRAINTS | DIRECT
    for name in closure(PYTHONS[0], "linux"):
        try:
            version = Version(importlib.metadata.version(INSTALLED_AS.get(name, name)))
        except importlib.metadata.PackageNotFoundError:
            continue
        assert version.public == str(known[name]), name


def test_cudas_libraries_have_the_images_versions() -> None:
    """torch's CPU build, which may be what is installed here, asks for none of them."""
    locked = pins((REPOSITORY / "docker" / "requirements-cuda.lock").read_text())
    assert locked and {name: CONSTRAINTS.get(name) for name in locked} == locked
