"""Builds the image and uses it as its users do: `make image-test`; as root, with buildah and debootstrap.

Needs no Docker engine: a Debian by debootstrap stands in for python:3.11-slim, the image runs once by `buildah run`
in a chroot, and once as process 1 of a PID namespace, on a read-only root with a tmpfs on /tmp. Base and images stay in
--cache; with --build-option=--layers so does every step between, at the cost of time and disk.
"""

from __future__ import annotations

import argparse
import csv
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
from importlib.util import cache_from_source
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from chroots import MOUNT_KERNELS, PATH, make_debian, pip_mounts, size_of
from PIL import Image
from trial import Failed, Started, check_answer, descendants, expect, free_port, sample_requests, started

REPOSITORY = Path(__file__).parents[1]
BASE_PACKAGES = ("ca-certificates", "python-is-python3", "python3", "python3-venv")
USER = 10001
ANYONE = 54321  # as in `docker run --user`: nothing in the image knows this one
STOPS_WITHIN_S = 300.0
COMPILERS = ("cc", "gcc", "g++", "clang", "c++")
NOT_SHIPPED = ("tests", ".git", "benchmarks", "examples", "docs", "constraints.txt", "pyproject.toml", "Dockerfile")


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
    parser.add_argument("--ray", action="store_true", help="build it with Ray, and try it as a cluster as well")
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
        requests = sample_requests()
        requests |= {path.name: path.read_bytes() for path in sorted(arguments.requests.glob("*.json"))}
        run_read_only(store, image, requests)
        run_by_buildah(store, image, requests)
        if arguments.ray:
            run_ray(store, image, requests)
            check_launcher(store, build(store, arguments, "launcher"))
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
    make_debian(archive, "bookworm", BASE_PACKAGES, bytecode=False)  # nor has a slim image any
    container = store("from", "scratch")
    store("add", "--quiet", container, str(archive), "/")
    store("config", "--env", f"PATH={PATH}", "--cmd", "python", container)
    store("commit", "--quiet", "--rm", container, name)


def build(store: Store, arguments: argparse.Namespace, target: str) -> str:
    """Build a target of the Dockerfile; returns the image's name."""
    name = f"box2mask-test-{target}-{arguments.torch}-{arguments.mmcv}{'-ray' if arguments.ray else ''}"
    values = {
        "BASE": "localhost/box2mask-test-base",
        "TORCH": arguments.torch,
        "TORCH_INDEX": arguments.torch_index,
        "MMCV": arguments.mmcv,
        "RAY": "yes" if arguments.ray else "no",
    }
    if arguments.no_build and store.has(name):
        return name
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        options = ["--isolation", "chroot", "--format", "docker", "--pull-never", "--tag", name]
        options += [f"--build-arg={key}={value}" for key, value in values.items()]
        options += [f"--volume={here}:{there}:ro" for there, here in pip_mounts(Path(folder)).items()]
        # Without a target: what `docker build .` gives has to be the service.
        options += arguments.build_option + ([] if target == "service" else ["--target", target])
        done = subprocess.run([*store.command, "bud", *options, str(REPOSITORY)], stdout=sys.stderr)
    if done.returncode:
        raise Failed(f"buildah bud ended with {done.returncode}")
    print(f"{target}: built in {time.monotonic() - began:.0f} s (what was cached included)")
    return name


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
        library = (root / "usr" / "lib").glob("python3.*/*.py")
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
MOUNT_KERNELSexec env -i "PATH=$PATH" chroot --userspec=USER:USER --groups=USER "$root" \\
    env -i "$@"
""".replace("USER", str(ANYONE)).replace("MOUNT_KERNELS", MOUNT_KERNELS)


def in_namespaces(root: Path, environment: Sequence[str], folder: str, command: Sequence[str]) -> list[str]:
    """The command line that runs `command` in `root`, in namespaces of its own for mounts and processes."""
    unshare = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", SET_UP, "sh"]
    return [*unshare, str(root), folder, f"--chdir={folder}", *environment, *command]


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


def first_process(pid: int) -> int:
    """Process 1 of the namespace that was made below `pid`."""
    for child in descendants(pid):
        if re.search(r"^NSpid:\t\d+\t1$", Path(f"/proc/{child}/status").read_text(), re.MULTILINE):
            return child
    raise Failed("expected a process 1")


# --- As a cluster -----------------------------------------------------------------------------------------------

# A head without replicas, and a worker.
RAY_NODES = """\
set -eu
ray start --head --port="$HEAD" --num-cpus=0 --num-gpus=0 --dashboard-port="$DASHBOARD" $SHARED \\
    --ray-client-server-port="$CLIENT" --dashboard-agent-listen-port="$AGENT" --disable-usage-stats
ray start --address="127.0.0.1:$HEAD" --num-cpus=2 --num-gpus=0 $SHARED --dashboard-agent-listen-port="$OTHER_AGENT"
serve deploy --address "http://127.0.0.1:$DASHBOARD" serve.yaml
exec sleep infinity
"""


def run_ray(store: Store, image: str, requests: Mapping[str, bytes]) -> None:
    """Head, worker and `serve deploy` of docker/ray/serve.yaml with the demo weights, all in one container."""
    serve = (REPOSITORY / "docker" / "ray" / "serve.yaml").read_text()
    port = free_port()
    changed = {
        "port: 5001": f"port: {port}",
        "DETECTOR: yolof": "DETECTOR: demo-yolof",
        "SEGMENTER: sam-huge": "SEGMENTER: demo-sam",
        'REPLICA_GPUS: "1"': 'REPLICA_GPUS: "0"',
        'REPLICA_CPUS: "4"': 'REPLICA_CPUS: "1"',
    }
    for old, new in changed.items():
        expect(f"how often docker/ray/serve.yaml has {old}", serve.count(old), 1)
        serve = serve.replace(old, new)
    with store.mounted(image) as root:
        (root / "opt" / "box2mask" / "serve.yaml").write_text(serve)
        config = configuration_of(store, image)
        ports = {name: free_port() for name in ("HEAD", "DASHBOARD", "CLIENT", "AGENT", "OTHER_AGENT")}
        environment = [*config["Env"], *(f"{name}={value}" for name, value in ports.items())]
        environment.append("SHARED=--object-store-memory=200000000 --node-ip-address=127.0.0.1")
        command = in_namespaces(root, environment, config["WorkingDir"], ["bash", "-c", RAY_NODES])
        with started(command, port, ANYONE) as service:
            use("ray", service, requests)
            found = httpx.get(f"http://127.0.0.1:{ports['DASHBOARD']}/api/serve/applications/", timeout=60).json()
            expect("the application's state", found["applications"]["box2mask"]["status"], "RUNNING")


def check_launcher(store: Store, image: str) -> None:
    """What Ray's launcher looks for in a login shell of its containers, which are those of a user with a name."""
    wanted = ["ray", "serve", "rsync", "ssh", "whoami"]
    with store.container(image) as name:
        shell = ["bash", "--login", "-c", f"command -v {' '.join(wanted)} && whoami"]
        found = store("run", "--isolation", "chroot", name, "--", *shell).splitlines()
    expect("what a login shell of the launcher's image finds", [Path(one).name for one in found], [*wanted, "root"])
    print("launcher: a login shell finds ray, rsync and ssh")


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
