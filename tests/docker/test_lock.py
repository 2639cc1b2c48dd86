"""The lock files agree with what they are made from."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
LOCKS = sorted((REPOSITORY / "docker").glob("*.lock"))
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
# Replaced by the build without windows.
OPENCV = "opencv-python"


def canonical(name: str) -> str:
    """A package's name as PyPI compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(text: str) -> dict[str, str]:
    """Versions by canonical name, of lines that begin with `name==version`."""
    return {canonical(name): version for name, version in re.findall(r"^([\w.-]+)==(\S+)", text, re.MULTILINE)}


def locked(name: str) -> dict[str, str]:
    return pins((REPOSITORY / "docker" / f"{name}.lock").read_text())


def test_every_direct_dependency_is_locked_at_its_version() -> None:
    direct = pins("\n".join(PROJECT["dependencies"]))
    assert len(direct) == len(PROJECT["dependencies"])
    found = locked("requirements")
    assert {name: found.get(name) for name in direct} == direct


def test_what_these_bring_along_has_the_versions_of_the_constraints() -> None:
    known = pins((REPOSITORY / "constraints.txt").read_text()) | pins("\n".join(PROJECT["dependencies"]))
    found = locked("requirements")
    assert OPENCV not in found
    assert found.pop(f"{OPENCV}-headless") == known[OPENCV]
    assert {name: known.get(name) for name in found} == found


def test_tools_of_development_stay_out_of_the_image() -> None:
    extras = [line for lines in PROJECT["optional-dependencies"].values() for line in lines]
    assert not set(pins("\n".join(extras))) & set(locked("requirements"))


def test_cudas_libraries_are_in_a_file_of_their_own() -> None:
    cuda = locked("requirements-cuda")
    assert "triton" in cuda and any(name.startswith("nvidia-") for name in cuda)
    assert not set(cuda) & set(locked("requirements"))


def test_azures_server_is_the_one_whose_behaviour_is_known() -> None:
    assert locked("requirements-azureml")["azureml-inference-server-http"] == "1.5.1"


def test_azures_batch_runner_finds_what_it_wants() -> None:
    assert {"azureml-core", "azureml-dataset-runtime", "fusepy"} <= set(locked("requirements-azureml"))


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.stem)
def test_every_package_has_hashes_and_no_index_is_named(lock: Path) -> None:
    text = lock.read_text()
    blocks = re.findall(r"^\S.*(?:\n .*)*", text, re.MULTILINE)
    assert blocks.pop(0).startswith("# Made by `python docker/lock.py`")
    assert blocks and "://" not in text
    for block in blocks:
        assert re.fullmatch(r"[\w.-]+==\S+(?: \\\n    --hash=sha256:[0-9a-f]{64})+", block), block


def test_torch_may_be_the_cpu_build() -> None:
    hashes = re.findall(r'^CPU_TORCH = \{"(\S+)": "(\w+)"\}$', (REPOSITORY / "docker" / "lock.py").read_text(), re.M)
    ((version, sha256),) = hashes
    assert locked("requirements")["torch"] == version
    assert sha256 in (REPOSITORY / "docker" / "requirements.lock").read_text()
