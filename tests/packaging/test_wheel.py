"""The wheel: what is in it, and that it works from any folder, without the repository it was built from."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message
from email.parser import Parser
from pathlib import Path

import httpx
import pytest

from tests.app.conftest import environment, ready_url

REPOSITORY = Path(__file__).parents[2]
REQUESTS = REPOSITORY.parent / "shared" / "requests"
SHIPPED = "models/weights/shipped/"
SAMPLE = REPOSITORY / "app" / "playground" / "samples" / "shelf.jpg"


@dataclass(frozen=True)
class Built:
    """A wheel made of the repository's files, and one made of the sdist of these."""

    direct: Path
    by_sdist: Path


@dataclass(frozen=True)
class Installed:
    """An environment with the wheel in it, and a folder, not the repository's, to type commands in."""

    root: Path
    folder: Path

    @property
    def packages(self) -> Path:
        return next((self.root / "lib").glob("python3*/site-packages"))

    @property
    def data(self) -> Path:
        """The user's folder for data of programs."""
        return self.folder.parent / "data"

    def environment(self, **settings: str) -> dict[str, str]:
        inherited = environment({"XDG_DATA_HOME": str(self.data), "BOX2MASK_DEVICE": "cpu"} | settings)
        return {name: value for name, value in inherited.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}

    def run(self, *command: str, **settings: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(self.root / "bin" / command[0]), *command[1:]],
            cwd=self.folder,
            env=self.environment(**settings),
            capture_output=True,
            text=True,
            timeout=600,
        )

    def box2mask(self, *arguments: str, status: int = 0, **settings: str) -> str:
        """What the installed command prints."""
        done = self.run("box2mask", *arguments, **settings)
        assert done.returncode == status, done.stderr
        return done.stdout


def build(kind: str, source: Path, out: Path) -> Path:
    """By setuptools as it is here: an environment for the build alone would need a network."""
    program = f"import sys; from setuptools import build_meta; build_meta.build_{kind}(sys.argv[1])"
    out.mkdir()
    done = subprocess.run([sys.executable, "-c", program, str(out)], cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (made,) = out.iterdir()
    return made


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    place = tmp_path_factory.mktemp("build")
    source = place / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, source)
    for name in ("app", "models", "weights/demo"):
        shutil.copytree(REPOSITORY / name, source / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(REPOSITORY / "weights" / "manifest.json", source / "weights")
    (source / "weights" / "sam-base").mkdir()  # as where weights have been pulled
    (source / "weights" / "sam-base" / "model.safetensors").write_bytes(b"pulled")
    (source / "weights" / "demo" / "yolof" / "training.pt").write_bytes(b"left by a training")

    direct = build("wheel", source, place / "direct")
    shutil.rmtree(source / "build")
    with tarfile.open(build("sdist", source, place / "sdist")) as sdist:
        # Python 3.11.4 has the filter, and 3.12 to 3.13 warn where there is none.
        sdist.extractall(place / "unpacked", **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    (unpacked,) = (place / "unpacked").iterdir()
    return Built(direct, build("wheel", unpacked, place / "by_sdist"))


@pytest.fixture(scope="module")
def installed(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    place = tmp_path_factory.mktemp("installed")
    there = Installed(place / "environment", place / "folder")
    there.folder.mkdir()
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(there.root)], check=True)
    pip = [sys.executable, "-m", "pip", "--python", str(there.root / "bin" / "python"), "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "--quiet", "--no-deps", "--no-index", str(built.direct)], check=True)
    # Behind the wheel's own: the dependencies, by path, so that no .pth file there brings the repository back.
    there.packages.joinpath("dependencies.pth").write_text(
        "\n".join(dict.fromkeys(sysconfig.get_path(kind) for kind in ("purelib", "platlib")))
    )
    return there


@pytest.fixture(scope="module")
def service(installed: Installed) -> Iterator[str]:
    """The address of `box2mask serve`, with settings that are all the defaults but for the port."""
    log_file = installed.folder.parent / "service.log"
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            [str(installed.root / "bin" / "box2mask"), "serve"],
            cwd=installed.folder,
            env=installed.environment(BOX2MASK_HOST="127.0.0.1", BOX2MASK_PORT="0"),
            stdout=subprocess.DEVNULL,
            stderr=log,
        )
    try:
        yield ready_url(process, log_file)
    finally:
        process.terminate()
        process.wait(timeout=120)
    said = log_file.read_text()
    assert f"  detector: demo-yolof ({installed.packages / SHIPPED / 'demo'}/yolof) - demo weights" in said
    assert f"    {installed.root / 'bin' / 'box2mask'} weights pull yolof sam-huge" in said


def contents(wheel: Path) -> dict[str, int]:
    """The files in it with their checksums."""
    with zipfile.ZipFile(wheel) as opened:
        return {one.filename: one.CRC for one in opened.infolist() if not one.is_dir()}


def test_it_has_every_module_and_all_that_these_read(built: Built) -> None:
    found = contents(built.direct)
    assert {name.split("/")[0] for name in found} == {"app", "models", "box2mask-0.1.0.dist-info"}
    shipped = {name.removeprefix(SHIPPED) for name in found if name.startswith(SHIPPED)}
    assert shipped == {
        "manifest.json",
        "demo/README.md",
        *(
            f"demo/sam/{name}"
            for name in ("SHA256SUMS", "config.json", "model.safetensors", "preprocessor_config.json")
        ),
        *(f"demo/yolof/{name}" for name in ("SHA256SUMS", "model.safetensors", "yolof_r18_demo.py")),
    }
    modules = {name for name in found if name.endswith(".py") and not name.startswith(SHIPPED)}
    paths = [path for top in ("app", "models") for path in (REPOSITORY / top).rglob("*.py")]
    names = {path.relative_to(REPOSITORY).as_posix() for path in paths}
    assert modules == {name for name in names if not name.startswith(SHIPPED)}
    playground = REPOSITORY / "app" / "playground"
    pages = [path for path in playground.rglob("*.*") if path.suffix not in (".py", ".pyc")]
    assert {path.relative_to(REPOSITORY).as_posix() for path in pages} <= found.keys()


def test_the_sdist_makes_the_same_wheel(built: Built) -> None:
    assert contents(built.direct) == contents(built.by_sdist)


def test_its_metadata(built: Built) -> None:
    with zipfile.ZipFile(built.direct) as opened:
        (name,) = (name for name in opened.namelist() if name.endswith(".dist-info/METADATA"))
        metadata: Message = Parser().parsestr(opened.read(name).decode())
    assert metadata["License-Expression"] == "Apache-2.0" and metadata["License-File"] == "LICENSE"
    assert "Programming Language :: Python :: 3.13" in metadata.get_all("Classifier", [])
    assert metadata.get_all("Project-URL") is None
    assert str(metadata.get_payload()) == (REPOSITORY / "README.md").read_text()


def test_what_builds_it_and_what_the_document_installs_have_the_versions_of_the_constraints() -> None:
    pinned = (REPOSITORY / "constraints.txt").read_text().split()
    assert set(tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["build-system"]["requires"]) <= set(pinned)
    (headless,) = re.findall(r"opencv-python-headless(==\S+)", (REPOSITORY / "docs" / "deploy.md").read_text())
    assert f"opencv-python{headless}" in pinned


def test_the_code_is_the_wheels(installed: Installed) -> None:
    code = "import app, models, importlib.metadata as m; print(app.__file__, models.__file__, m.version('box2mask'))"
    packages = installed.packages
    said = installed.run("python", "-c", code).stdout.split()
    assert said == [str(packages / "app" / "__init__.py"), str(packages / "models" / "__init__.py"), "0.1.0"]


def test_the_service_answers(installed: Installed, service: str) -> None:
    image = base64.b64encode(SAMPLE.read_bytes()).decode()
    with httpx.Client(base_url=service, timeout=120, trust_env=False) as client:
        answer = client.post("/pipeline/score", json={"input_data": {"columns": ["image"], "data": [image]}})
        assert answer.status_code == 200, answer.text
        assert answer.json()[0]["boxes"][0]["mask_per_prediction"]
        assert client.get("/version").json()["demo_weights"] is True
        page = client.get("/playground", follow_redirects=True)
        assert page.status_code == 200 and "main.js" in page.text
        sample = client.get("/playground/samples/shelf.jpg")
        assert sample.status_code == 200 and sample.content == SAMPLE.read_bytes()


@pytest.mark.skipif(not REQUESTS.is_dir(), reason="needs the original sample requests")
@pytest.mark.parametrize(("name", "key"), [("sam_card", "predictions"), ("yolof_card", "boxes")])
def test_the_original_sample_requests_are_answered(service: str, name: str, key: str) -> None:
    body = (REQUESTS / f"{name}.json").read_bytes()
    answer = httpx.post(f"{service}/score", content=body, timeout=120, trust_env=False)
    assert answer.status_code == 200, answer.text
    assert [list(row) for row in answer.json()] == [[key]] * len(json.loads(body)["input_data"]["data"])


def test_folders_of_images_are_done_from_any_folder(installed: Installed, service: str) -> None:
    installed.box2mask("data", "demo", "scenes", "--scenes", "2", "--size", "160")
    assert "no problems" in installed.box2mask("data", "check", "scenes")
    said = installed.box2mask("run", "scenes/images", "--out", "results", "--url", service)
    assert said.startswith("2 images, ")
    assert (installed.folder / "results" / "coco.json").is_file()


def test_pulled_weights_go_to_the_users_folder_and_are_found_there(installed: Installed, tmp_path: Path) -> None:
    """Of a mirror that lacks the tensors, which no test has: the rest is pulled, these are put there by hand."""
    demo = installed.packages / SHIPPED / "demo" / "sam"
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    for name in ("config.json", "preprocessor_config.json"):
        shutil.copy(demo / name, mirror)
    users, chosen = installed.data / "box2mask" / "weights", tmp_path / "chosen"
    for settings, folder in (({}, users), ({"BOX2MASK_WEIGHTS_DIR": str(chosen)}, chosen)):
        installed.box2mask("weights", "pull", "sam-large", "--from", str(mirror), status=1, **settings)
        assert {path.name for path in (folder / "sam-large").glob("[!.]*")} == {
            "config.json", "preprocessor_config.json", "SHA256SUMS",
        }  # fmt: skip
        shutil.copy(demo / "model.safetensors", folder / "sam-large")
        said = installed.box2mask("weights", "list", **settings)
        states = {line.split()[0]: line.split()[1] for line in said.splitlines()[1:] if line}
        assert states["yolof"] == "absent" and states["sam-large"] == states["demo-sam"] == "present"
        assert f"pulled weights lie in {folder}\ndemo weights lie in {installed.packages / SHIPPED / 'demo'}\n" in said


def test_nothing_is_written_where_it_is_installed(built: Built, installed: Installed, service: str) -> None:
    """By all of the above. Python's own bytecode is not meant."""
    there = {
        path.relative_to(installed.packages).as_posix()
        for top in ("app", "models")
        for path in (installed.packages / top).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert there == {name for name in contents(built.direct) if ".dist-info/" not in name}
