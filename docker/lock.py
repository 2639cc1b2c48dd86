"""Writes the image's lock files: every package with its version and the hashes of its files.

    python docker/lock.py

Versions are those of pyproject.toml and constraints.txt, and for AzureML's packages of azureml/constraints.txt, for the
image's Python on Linux x86-64. First every Python that the project is for is asked about: pip would search for what no
pin holds, and want a compiler for what has no wheel. Needs PyPI, and installs nothing.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
import tomllib
from pathlib import Path
from typing import Any

from tool_environment import tool

DOCKER = Path(__file__).parent
REPOSITORY = DOCKER.parent
UV = "uv==0.13.9"
# The scoring server, and what the batch runner wants of its environment.
AZUREML = ["azureml-inference-server-http", "azureml-core", "azureml-dataset-runtime[fuse]"]
# What `make test` installs of it.
AZUREML_TESTS = ["azureml-inference-server-http", "azure-ai-ml", "azure-identity"]
# mmcv asks for the OpenCV that draws windows, which needs the libraries of a desktop.
HEADLESS_FOR = "opencv-python"
# What only the CUDA build of torch asks for.
CUDA = re.compile(r"(nvidia|cuda)-|triton==")
# The CPU build is not on PyPI but on PyTorch's own index, as version 2.13.0+cpu, which `==2.13.0` takes as well. The
# hash is that of torch-2.13.0+cpu-cp311-cp311-manylinux_2_28_x86_64.whl.
CPU_TORCH = {"2.13.0": "6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b"}
# The newest that builds mmcv, whose setup.py imports pkg_resources.
MMCV_BUILD = "setuptools==80.9.0"
PYTHONS = ("3.11.2", "3.12.0", "3.13.0", "3.14.0")
IMAGES_PYTHON = "3.11"
HEADER = "# Made by `python docker/lock.py`; do not edit.\n"


def main() -> None:
    """Write docker/*.lock. Raises CalledProcessError, with the resolver's words on standard error, where none fits."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    constraints = (REPOSITORY / "constraints.txt").read_text().splitlines()
    pinned = dict(line.split("==") for line in project["project"]["dependencies"])
    headless = re.search(rf"^({HEADLESS_FOR})==(.+)$", "\n".join(constraints), re.MULTILINE)
    assert headless is not None, f"constraints.txt has no {HEADLESS_FOR}"
    # setuptools installs the service itself, and tensorboard and torch want it as well.
    wanted = [*project["project"]["dependencies"], f"{HEADLESS_FOR}-headless=={headless[2]}"]
    wanted += project["build-system"]["requires"]
    with tool(UV, "uv") as uv:
        for python in PYTHONS:
            _check_pins(uv, project, constraints, python)
        packages = _resolve(uv, wanted, constraints)
        _write("requirements", [_with_cpu_torch(block) for block in packages if not CUDA.match(block)])
        _write("requirements-cuda", [block for block in packages if CUDA.match(block)])
        # What a node of a Ray cluster has besides.
        base = {_name(block) for block in packages}
        ray = [line for name in ("ray", "remote") for line in project["project"]["optional-dependencies"][name]]
        ray = [line for line in ray if not line.startswith("box2mask[")]
        blocks = _resolve(uv, [*wanted, *ray], constraints)
        _write("requirements-ray", [block for block in blocks if _name(block) not in base])
        # Azure's own pins exclude some of the service's.
        azureml = (DOCKER / "azureml" / "constraints.txt").read_text().splitlines()
        _write("requirements-azureml", _resolve(uv, AZUREML, azureml))
        _write("requirements-mmcv", _resolve(uv, [f"mmcv=={pinned['mmcv-lite']}"], [], "--no-deps"))
        _write("requirements-mmcv-build", _resolve(uv, [MMCV_BUILD], []))


def _check_pins(uv: Path, project: dict[str, Any], constraints: list[str], python: str) -> None:
    """All of pyproject.toml, extras and all, has wheels on this Python, and a pin for each package.

    Raises CalledProcessError, with the resolver's words on standard error, or SystemExit.
    """
    extras = project["project"]["optional-dependencies"]
    wanted = [*project["project"]["dependencies"], *project["build-system"]["requires"]]
    wanted += [line for lines in extras.values() for line in lines if not line.startswith("box2mask[")]
    azureml = (DOCKER / "azureml" / "constraints.txt").read_text().splitlines()
    for packages, pinned in ((wanted, constraints), (AZUREML_TESTS, azureml)):
        known = {_name(line) for line in (*pinned, *packages) if "==" in line}
        blocks = _resolve(uv, packages, pinned, "--only-binary", ":all:", python=python, headless=False)
        loose = [block.split()[0] for block in blocks if _name(block) not in known]
        if loose:
            raise SystemExit(f"docker/lock.py: on Python {python} nothing pins {', '.join(loose)}")


def _name(line: str) -> str:
    """A package's name as PyPI compares it, of a line that begins with `name==version`."""
    return re.sub(r"[-_.]+", "-", line.partition("==")[0]).lower()


def _resolve(
    uv: Path,
    wanted: list[str],
    constraints: list[str],
    *options: str,
    python: str = IMAGES_PYTHON,
    headless: bool = True,
) -> list[str]:
    """One block of text for each package: `name==version` and its hashes, in the order of their names."""
    with tempfile.TemporaryDirectory() as folder:
        files = {
            "wanted": wanted,
            "constraints": constraints,
            # Fulfilled on no Python that there is: a requirement that is left out.
            "overrides": [f'{HEADLESS_FOR}; python_version < "3"'] if headless else [],
        }
        for name, lines in files.items():
            (Path(folder) / name).write_text("\n".join(lines))
        command = [uv, "pip", "compile", "wanted", "--constraint", "constraints", "--override", "overrides", *options]
        command += ["--generate-hashes", "--no-header", "--no-annotate", "--no-config", "--quiet"]
        command += ["--python-version", python, "--python-platform", "x86_64-manylinux_2_28"]
        done = subprocess.run(command, cwd=folder, check=True, stdout=subprocess.PIPE, text=True)
    return re.findall(r"^\S+==.*\n(?:^ .*\n?)*", done.stdout, re.MULTILINE)


def _with_cpu_torch(block: str) -> str:
    found = re.match(r"torch==(\S+)", block)
    if found is None:
        return block
    if found[1] not in CPU_TORCH:
        raise SystemExit(f"docker/lock.py: CPU_TORCH has no hash of torch {found[1]}'s CPU build")
    return f"{block.rstrip()} \\\n    --hash=sha256:{CPU_TORCH[found[1]]}\n"


def _write(name: str, packages: list[str]) -> None:
    (DOCKER / f"{name}.lock").write_text(HEADER + "".join(packages))


if __name__ == "__main__":
    main()
