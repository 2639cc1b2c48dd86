"""Builds the image and uses it as its users do: `make image-test`; as root, with buildah and debootstrap.

Needs no Docker engine: a Debian by debootstrap stands in for python:3.11-slim, the image runs once by `buildah run`
in a chroot, and once as process 1 of a PID namespace, on a read-only root with a tmpfs on /tmp. Base and images stay in
--cache; with --build-option=--layers so does every step between, at the cost of time and disk.
"""

from __future__ import annotations

import argparse
import base64
import csv
import hashlib
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import cache_from_source
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

REPOSITORY = Path(__file__).parents[1]
BASE_PACKAGES = "ca-certificates,python-is-python3,python3,python3-venv"
USER = 10001
ANYONE = 54321  # as in `docker run --user`: nothing in the image knows this one
STARTS_WITHIN_S = 900.0  # a busy machine takes minutes
STOPS_WITHIN_S = 300.0
COMPILERS = ("cc", "gcc", "g++", "clang", "c++")
NOT_SHIPPED = ("tests", ".git", "benchmarks", "examples", "docs", "constraints.txt", "pyproject.toml", "Dockerfile")


class Failed(Exception):
    """The image is not as it should be; says what was expected and what was found."""


@dataclass(frozen=True)
class Started:
    """A running service: where it answers, its process as this machine sees it and its user, the one to wait for."""

    url: str
    pid: int
    user: int
    process: subprocess.Popen[bytes]
    began: float


class Store:
    """buildah with a storage of its own below `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.command = ["buildah", "--root", str(folder / "storage"), "--runroot", str(folder / "run")]

    def __call__(self, *arguments: str) -> str:
        """Its standard output; what it says besides goes to standard error. Raises Failed."""
        done = subprocess.run([*self.command, *arguments], stdout=subprocess.PIPE, text=True)
        if done.returncode:
            raise Failed(f"buildah {arguments[0]} ended with {done.returncode}")
        return done.stdout.strip()

    def has(self, image: str) -> bool:
        return image in self("images", "--format", "{{.Name}}").replace("localhost/", "").split()

    @contextmanager
    def container(self, image: str) -> Iterator[str]:
        name = self("from", "--pull-never", image)
        try:
            yield name
        finally:
            self("rm", name)

    @contextmanager
    def mounted(self, image: str) -> Iterator[Path]:
        """A fresh container's root directory."""
        with self.container(image) as name:
            try:
                yield Path(self("mount", name))
            finally:
                self("umount", name)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    temporary = Path(tempfile.gettempdir()) / "box2mask-image-test"
    parser.add_argument("--cache", type=Path, default=temporary, help="where base and images are kept (%(default)s)")
    parser.add_argument("--torch", choices=("cpu", "cuda"), default="cpu", help="which wheels go in (%(default)s)")
    parser.add_argument("--torch-index", default="", help="index that has torch's CPU wheels, beside pip's own")
    parser.add_argument("--mmcv", choices=("lite", "full"), default="lite")
    parser.add_argument("--azureml", action="store_true", help="try the target `azureml` as well")
    parser.add_argument("--no-build", action="store_true", help="try the image that the last run has left")
    parser.add_argument("--build-option", action="append", default=[], help="another option of `buildah bud`")
    parser.add_argument(
        "--requests", type=Path, default=REPOSITORY.parent / "shared" / "requests", help="folder of requests to post"
    )
    arguments = parser.parse_args()
    if os.geteuid():
        parser.error("a chroot with a system in it needs root")
    for program in ("buildah", "debootstrap", "unshare"):
        if shutil.which(program) is None:
            parser.error(f"there is no {program}; Debian has it as a package")
    arguments.cache.mkdir(parents=True, exist_ok=True)
    store = Store(arguments.cache)
    try:
        make_base(store, "box2mask-test-base")
        image = build(store, arguments, "service")
        check_configuration(store, image)
        check_files(store, image)
        requests = sample_requests(arguments.requests)
        run_read_only(store, image, requests)
        run_by_buildah(store, image, requests)
        if arguments.mmcv == "full":
            run_other_detector(store, image)
        if arguments.azureml:
            run_azureml(store, build(store, arguments, "azureml"))
    except Failed as failure:
        print(f"image-test: {failure}", file=sys.stderr)
        return 1
    print("image-test: all is as it should be")
    return 0


# --- Building ---------------------------------------------------------------------------------------------------


def make_base(store: Store, name: str) -> None:
    """An image that stands in for python:3.11-slim: Debian 12, whose Python is 3.11."""
    if store.has(name):
        return
    archive = store.folder / "base.tar"
    if not archive.exists():
        with tempfile.TemporaryDirectory(dir=store.folder) as folder:
            system, part = Path(folder) / "system", Path(folder) / "base.tar"
            # In a mount namespace of its own, so that an interrupted one leaves no /proc behind in there.
            command = ["unshare", "--mount", "debootstrap", "--variant=minbase", f"--include={BASE_PACKAGES}"]
            subprocess.run([*command, "bookworm", str(system)], check=True, stdout=sys.stderr)
            # None of it is in a slim image.
            for cache in ("var/cache/apt/archives", "var/lib/apt/lists"):
                shutil.rmtree(system / cache)
                (system / cache).mkdir()
            for bytecode in list((system / "usr" / "lib").rglob("__pycache__")):
                shutil.rmtree(bytecode)
            subprocess.run(["tar", "--directory", str(system), "--create", "--file", str(part), "."], check=True)
            part.rename(archive)
    container = store("from", "scratch")
    store("add", "--quiet", container, str(archive), "/")
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    store("config", "--env", f"PATH={path}", "--cmd", "python", container)
    store("commit", "--quiet", "--rm", container, name)


def build(store: Store, arguments: argparse.Namespace, target: str) -> str:
    """Build a target of the Dockerfile; returns the image's name."""
    name = f"box2mask-test-{target}-{arguments.torch}-{arguments.mmcv}"
    values = {
        "BASE": "localhost/box2mask-test-base",
        "TORCH": arguments.torch,
        "TORCH_INDEX": arguments.torch_index,
        "MMCV": arguments.mmcv,
    }
    if arguments.no_build and store.has(name):
        return name
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        options = ["--isolation", "chroot", "--format", "docker", "--pull-never", "--tag", name]
        options += [f"--build-arg={key}={value}" for key, value in values.items()]
        options += [f"--volume={volume}" for volume in pip_volumes(Path(folder))]
        # Without a target: what `docker build .` gives has to be the service.
        options += arguments.build_option + ([] if target == "service" else ["--target", target])
        done = subprocess.run([*store.command, "bud", *options, str(REPOSITORY)], stdout=sys.stderr)
    if done.returncode:
        raise Failed(f"buildah bud ended with {done.returncode}")
    print(f"{target}: built in {time.monotonic() - began:.0f} s (what was cached included)")
    return name


def pip_volumes(folder: Path) -> list[str]:
    """Mounts by which pip in the build finds packages as pip on this machine does.

    Its settings become the build's /etc/pip.conf, written to `folder`; local files that they name come along. Of a
    folder of wheels it is a page with their hashes: among equals pip prefers a link that has one.
    """
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], check=True, stdout=subprocess.PIPE, text=True
    ).stdout
    settings: dict[str, str] = {}
    volumes: dict[Path, Path] = {}
    for key, quoted in re.findall(r"^(?:global|install|:env:)\.([\w-]+)=(['\"].*['\"])$", listed, re.MULTILINE):
        words = quoted[1:-1].replace("\\n", " ").split()
        for i, word in enumerate(words):
            path = Path(word.removeprefix("file://"))
            if not path.is_absolute() or not path.exists():
                continue
            volumes[path] = path
            if key == "find-links" and path.is_dir():
                page = Path("/etc", f"pip-links-{path.name}.html")
                volumes[page] = folder / page.name
                volumes[page].write_text(links_page(path))
                words[i] = str(page)
            elif path.name == "simple":  # an index, which may link to files beside it
                volumes[path.parent] = path.parent
        settings[key] = " ".join(words)
    if not settings:
        return []
    configuration = folder / "pip.conf"
    configuration.write_text("[global]\n" + "".join(f"{key} = {value}\n" for key, value in settings.items()))
    volumes[Path("/etc/pip.conf")] = configuration
    return [f"{source}:{target}:ro" for target, source in volumes.items()]


def links_page(wheels: Path) -> str:
    links = []
    for wheel in sorted(wheels.glob("*.whl")):
        with wheel.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        links.append(f'<a href="{wheel.as_uri()}#sha256={sha256}">{wheel.name}</a>\n')
    return f"<!DOCTYPE html>\n<html><body>\n{''.join(links)}</body></html>\n"


# --- What is in it ----------------------------------------------------------------------------------------------


def check_configuration(store: Store, image: str) -> None:
    config = configuration_of(store, image)
    entry, health = config["Entrypoint"], config.get("Healthcheck", {}).get("Test", [])
    expect("USER", config["User"], f"{USER}:{USER}")
    expect("ENTRYPOINT", entry, ["box2mask"])
    expect("CMD", config["Cmd"], ["serve"])
    expect("EXPOSE", list(config["ExposedPorts"]), ["5001/tcp"])
    expect("HEALTHCHECK", health[:3], ["CMD", "python", "-c"])
    expect("the title's label", config["Labels"].get("org.opencontainers.image.title"), "box2mask")


def configuration_of(store: Store, image: str) -> dict[str, Any]:
    return json.loads(store("inspect", "--type", "image", image))["Docker"]["config"]


def check_files(store: Store, image: str) -> None:
    """No compiler, nothing of development, nothing that a stranger may change; prints the size."""
    with store.mounted(image) as root:
        for folder in ("bin", "usr/bin", "usr/local/bin", "opt/box2mask/venv/bin"):
            for compiler in COMPILERS:
                if os.path.lexists(root / folder / compiler):
                    raise Failed(f"/{folder}/{compiler}: expected no compiler in the image")
        home = root / "opt" / "box2mask"
        for name in NOT_SHIPPED:
            if (home / name).exists():
                raise Failed(f"/opt/box2mask/{name}: expected it to stay out of the image")
        expect("the folders", {"app", "models", "venv", "weights"} - {path.name for path in home.iterdir()}, set())
        expect("the demo weights", (home / "weights" / "demo" / "sam" / "model.safetensors").is_file(), True)
        expect("pip's settings", (root / "etc" / "pip.conf").exists(), False)
        writable = [path for path in home.rglob("*") if path.lstat().st_uid == USER or path.lstat().st_mode & 0o002]
        writable = [path for path in writable if not path.is_symlink()]
        expect("files that the service may change", writable, [])
        library = (root / "usr" / "lib" / "python3.11").glob("*.py")
        for sources in (library, *((home / folder).rglob("*.py") for folder in ("venv", "app", "models"))):
            bare = [source for source in sources if not has_lasting_bytecode(source)]
            if bare:
                raise Failed(f"{bare[0].relative_to(root)} and {len(bare) - 1} more would be compiled at every start")
        sizes = {"image": size_of(root), "venv": size_of(home / "venv"), "weights": size_of(home / "weights")}
    with store.mounted("box2mask-test-base") as root:
        sizes["base"] = size_of(root)
    print(", ".join(f"{name} {size / 1e6:.0f} MB" for name, size in sizes.items()))


def has_lasting_bytecode(source: Path) -> bool:
    """Whether there is bytecode that is valid whatever the source's date (PEP 552), or can be none."""
    compiled = Path(cache_from_source(str(source)))
    if compiled.exists():
        with compiled.open("rb") as file:
            return int.from_bytes(file.read(8)[4:], "little") == 1
    try:
        compile(source.read_bytes(), source, "exec")
    except SyntaxError:  # a newer Python's
        return True
    return False


def size_of(folder: Path) -> int:
    """Bytes, links and all."""
    done = subprocess.run(["du", "-sxb", str(folder)], check=True, stdout=subprocess.PIPE, text=True)
    return int(done.stdout.split()[0])


def expect(what: str, found: object, expected: object) -> None:
    if found != expected:
        raise Failed(f"{what}: expected {expected!r}, found {found!r}")


# --- Running it -------------------------------------------------------------------------------------------------


def run_by_buildah(store: Store, image: str, requests: Mapping[str, bytes]) -> None:
    """As `buildah run` runs it: the image's own user and environment, in a chroot, on this machine's network."""
    config = configuration_of(store, image)
    with store.container(image) as name:
        port = free_port()
        command = [*store.command, "run", "--isolation", "chroot", name, "--", "env", f"BOX2MASK_PORT={port}"]
        with started([*command, *config["Entrypoint"], *config["Cmd"]], port, USER) as service:
            use("buildah run", service, requests)
            health = config["Healthcheck"]["Test"][1:]
            done = subprocess.run([*command, *health])
            expect("the health check's status", done.returncode, 0)
            stop(service, requests["pipeline"])
        done = subprocess.run([*command, *health], stderr=subprocess.DEVNULL)
        expect("whether the health check passes without a service", done.returncode == 0, False)


def run_read_only(store: Store, image: str, requests: Mapping[str, bytes]) -> None:
    """As `docker run --read-only --tmpfs /tmp --user 54321:54321`: process 1, which can write below /tmp only."""
    config = configuration_of(store, image)
    with store.mounted(image) as root:
        port = free_port()
        environment = [*config["Env"], f"BOX2MASK_PORT={port}"]
        command = [*config["Entrypoint"], *config["Cmd"]]
        with started(in_namespaces(root, environment, config["WorkingDir"], command), port, ANYONE) as service:
            ids = re.findall(r"^NSpid:\s+\d+\s+(\d+)$", Path(f"/proc/{service.pid}/status").read_text(), re.MULTILINE)
            expect("the service's process id in its namespace", ids, ["1"])
            use("read-only root", service, requests)
            temporary = Path(f"/proc/{service.pid}/root/tmp")
            print(f"  below /tmp: {', '.join(sorted(path.name for path in temporary.iterdir())) or 'nothing'}")
            stop(service, requests["pipeline"])


SET_UP = """\
set -eu
root=$1 folder=$2
shift 2
mount --make-rprivate /
mount --bind "$root" "$root"
mount -o remount,bind,ro "$root"
mount -t tmpfs -o mode=1777,nosuid,nodev,noexec tmpfs "$root/tmp"  # as Docker mounts it
mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for device in null zero full random urandom; do
    touch "$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
mkdir -m 1777 "$root/dev/shm"
exec env -i "PATH=$PATH" chroot --userspec=USER:USER --groups=USER "$root" \\
    env -i "$@"
""".replace("USER", str(ANYONE))


def in_namespaces(root: Path, environment: Sequence[str], folder: str, command: Sequence[str]) -> list[str]:
    """The command line that runs `command` in `root`, in namespaces of its own for mounts and processes."""
    unshare = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", SET_UP, "sh"]
    return [*unshare, str(root), folder, f"--chdir={folder}", *environment, *command]


@contextmanager
def started(command: Sequence[str], port: int, user: int, path: str = "/health/ready") -> Iterator[Started]:
    """Start it, and wait until `path` answers 200; ended by force if it is still there afterwards. Raises Failed."""
    began = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        while not answers(url + path):
            if process.poll() is not None:
                raise Failed(f"the service ended with {process.returncode} as it started")
            if time.monotonic() - began > STARTS_WITHIN_S:
                raise Failed(f"the service was not ready within {STARTS_WITHIN_S:.0f} s")
            time.sleep(0.05)
        yield Started(url, service_below(process.pid, user), user, process, began)
    finally:
        if process.poll() is None:
            for pid in reversed(descendants(process.pid)):
                os.kill(pid, signal.SIGKILL)
            process.wait()


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=10, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def use(how: str, service: Started, requests: Mapping[str, bytes]) -> None:
    """Post the requests, look at the answers, print the figures."""
    first = None
    for name, body in requests.items():
        route = "/pipeline/score" if name == "pipeline" else "/score"
        answer = httpx.post(service.url + route, content=body, timeout=300, trust_env=False)
        first = first or time.monotonic() - service.began
        if answer.status_code != 200:
            raise Failed(f"{name}: expected status 200, found {answer.status_code}: {answer.text[:300]}")
        check_answer(name, json.loads(body), answer.json())
    refused = httpx.post(f"{service.url}/score", content=b"{}", timeout=60, trust_env=False)
    expect("the status of a request without data", refused.status_code, 400)
    status = Path(f"/proc/{service.pid}/status").read_text()
    uids = set(re.findall(r"\d+", re.findall(r"^Uid:(.*)$", status, re.MULTILINE)[0]))
    expect("the service's user", uids, {str(service.user)})
    peak = int(re.findall(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)[0])
    print(f"{how}: {first:.1f} s from start to first answer, at most {peak / 1024:.0f} MiB in memory (VmHWM)")


def check_answer(name: str, request: Any, answer: Any) -> None:
    """One entry for each row, in the form that belongs to the columns."""
    columns, rows = request["input_data"]["columns"], request["input_data"]["data"]
    expect(f"{name}'s number of answers", len(answer), len(rows))
    for entry in answer:
        if "input_boxes" in columns or "input_points" in columns:
            masks = [mask for prediction in entry["predictions"] for mask in prediction["mask_per_prediction"]]
            expect(f"{name} has masks", bool(masks), True)
        elif name == "pipeline":
            masks = [mask for box in entry["boxes"] for mask in box["mask_per_prediction"]]
            expect(f"{name} has masks", bool(masks), True)
        else:
            masks = []
            expect(f"{name}'s kind of answer", list(entry), ["boxes"])
        for mask in masks:
            picture = Image.open(io.BytesIO(base64.b64decode(mask["encoded_binary_mask"])))
            expect(f"{name}'s form of mask", (picture.format, picture.mode), ("PNG", "L"))


def stop(service: Started, body: bytes) -> None:
    """SIGTERM while a request is in flight: it is answered, nothing else is let in, and the status is 0.

    The request's head is there and its body is not when the signal comes, so that it surely is in flight.
    """
    host, port = service.url.removeprefix("http://").split(":")
    address = (host, int(port))
    with socket.create_connection(address, timeout=STOPS_WITHIN_S) as connection:
        head = (
            "POST /pipeline/score HTTP/1.1",
            f"Host: {host}",
            f"Content-Length: {len(body)}",
            "Expect: 100-continue",
        )
        connection.sendall("".join(f"{line}\r\n" for line in (*head, "")).encode())
        expect("the answer to a request's head", connection.recv(1000).split(b"\r\n")[0], b"HTTP/1.1 100 Continue")
        os.kill(service.pid, signal.SIGTERM)
        asked = time.monotonic()
        while listens(address):
            if time.monotonic() - asked > STOPS_WITHIN_S:
                raise Failed("the service still takes connections after SIGTERM")
            time.sleep(0.01)
        connection.sendall(body)
        answered = b"".join(iter(lambda: connection.recv(2**16), b""))
    expect("the answer to a request in flight", answered.split(b"\r\n")[0], b"HTTP/1.1 200 OK")
    check_answer("pipeline", json.loads(body), json.loads(answered.split(b"\r\n\r\n", 1)[1]))
    try:
        status = service.process.wait(timeout=STOPS_WITHIN_S)
    except subprocess.TimeoutExpired:
        raise Failed(f"the service had not ended {STOPS_WITHIN_S:.0f} s after SIGTERM") from None
    expect("the exit status after SIGTERM", status, 0)
    print(f"  SIGTERM: the request in flight was answered, exit status 0 after {time.monotonic() - asked:.1f} s")


def listens(address: tuple[str, int]) -> bool:
    try:
        socket.create_connection(address, timeout=5).close()
    except ConnectionError:
        return False
    return True


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def service_below(pid: int, user: int) -> int:
    """The innermost process of this user among the descendants; what has started it may run as the same user."""
    for child in reversed(descendants(pid)):
        status = Path(f"/proc/{child}/status").read_text()
        if re.search(rf"^Uid:\t{user}\t", status, re.MULTILINE):
            return child
    raise Failed(f"expected a process of user {user}")


def first_process(pid: int) -> int:
    """Process 1 of the namespace that was made below `pid`."""
    for child in descendants(pid):
        if re.search(r"^NSpid:\t\d+\t1$", Path(f"/proc/{child}/status").read_text(), re.MULTILINE):
            return child
    raise Failed("expected a process 1")


def descendants(pid: int) -> list[int]:
    """Parents before their children, without `pid` itself."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue  # has ended
        children.setdefault(parent, []).append(int(stat.parent.name))
    found, new = [], [pid]
    while new:
        new = [child for parent in new for child in children.get(parent, [])]
        found += new
    return found


def sample_requests(folder: Path) -> dict[str, bytes]:
    """Bodies by name: the pipeline's, a detection's, a segmentation's, and those in `folder`, if there is one."""
    from models.demo.scenes import render_scene

    scene = render_scene(np.random.default_rng(3), (320, 240), containers=(3, 3))
    file = io.BytesIO()
    Image.fromarray(scene.image).save(file, "JPEG")
    image = base64.b64encode(file.getvalue()).decode()

    def body(columns: list[str], row: list[Any]) -> bytes:
        return json.dumps({"input_data": {"columns": columns, "index": [0], "data": [row]}, "params": {}}).encode()

    requests = {
        "pipeline": body(["image"], [image]),
        "detection": body(["image"], [image]),
        "segmentation": body(
            ["image", "input_points", "input_boxes", "input_labels", "multimask_output"],
            [image, "", [[20, 20, 200, 180]], "", False],
        ),
    }
    return requests | {path.name: path.read_bytes() for path in sorted(folder.glob("*.json"))}


# --- With compiled ops ------------------------------------------------------------------------------------------

OTHER_DETECTOR = """\
# Faster R-CNN, untrained, by MMDetection's own config: its RoIAlign is among the ops that only a compiled mmcv has.
import tempfile
from pathlib import Path

import mmdet
import numpy
import torch
from mmengine.config import Config

from models.detector import mmcv_ops
from models.detector.files import build_model
from models.detector.mmdetection import MMDetector

assert not mmcv_ops.install(), "mmcv has no compiled ops"
config = Path(mmdet.__file__).parent / ".mim/configs/faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py"
with tempfile.TemporaryDirectory() as folder:
    changed = Config.fromfile(config)
    changed.model.test_cfg.rcnn.score_thr = 0  # it is not sure of anything
    changed.dump(f"{folder}/faster-rcnn.py")
    torch.save({"state_dict": build_model(changed, config).state_dict()}, f"{folder}/faster-rcnn.pth")
    detector = MMDetector.load(folder)
(found,) = detector.detect([numpy.zeros((120, 160, 3), numpy.uint8)], score_threshold=0, max_detections=5)
print(len(found.scores))
"""


def run_other_detector(store: Store, image: str) -> None:
    """A detector beside YOLOF, by the compiled ops of `MMCV=full`."""
    with store.container(image) as name:
        found = store("run", "--isolation", "chroot", name, "--", "python", "-c", OTHER_DETECTOR)
    expect("the boxes of an untrained Faster R-CNN", found.splitlines()[-1:], ["5"])
    print("MMCV=full: Faster R-CNN runs")


# --- With Azure's server ----------------------------------------------------------------------------------------

ENTRY_SCRIPT = """\
import json
import os

import batch_score
import numpy
import pydantic


def init():
    import azureml.core  # what the batch runner imports
    import azureml.dataprep

    batch_score.init()


def run(data):
    (line,) = batch_score.run([json.loads(data)["photo"]])
    return {"pydantic": pydantic.VERSION, "numpy": numpy.__version__, "user": os.getuid(), "line": line}
"""


def run_azureml(store: Store, image: str) -> None:
    """Azure's scoring server runs an entry script that sees our packages, with its own pins before them."""
    with store.mounted(image) as root:
        (root / "var" / "azureml-app").mkdir()
        (root / "var" / "azureml-app" / "score.py").write_text(ENTRY_SCRIPT)
        shutil.copy(REPOSITORY / "docker" / "azureml" / "batch_score.py", root / "var" / "azureml-app")
        photo = "/var/azureml-app/photo.png"
        Image.fromarray(np.zeros((60, 80, 3), np.uint8)).save(f"{root}{photo}")
        config = configuration_of(store, image)
        port = free_port()
        command = [*config["Entrypoint"], "--port", str(port)]
        with started(in_namespaces(root, config["Env"], config["WorkingDir"], command), port, ANYONE, "/") as server:
            answer = httpx.post(f"{server.url}/score", json={"photo": photo}, timeout=60, trust_env=False)
            expect("the entry script's status", answer.status_code, 200)
            (cells,) = csv.reader([answer.json()["line"]])
            expect("the batch script's file, row and error", (*cells[:2], cells[3]), (photo, "", ""))
            expect("what the batch script's answer has", list(json.loads(cells[2])), ["boxes"])
            print(f"azureml: {time.monotonic() - server.began:.1f} s to the first answer, {answer.json()}")
            os.kill(first_process(server.process.pid), signal.SIGTERM)  # its workers are the server's own business
            expect("the exit status after SIGTERM", server.process.wait(timeout=STOPS_WITHIN_S), 0)


if __name__ == "__main__":
    sys.exit(main())
