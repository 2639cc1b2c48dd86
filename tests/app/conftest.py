"""The service as its users meet it: the command itself in a process of its own, with small models of random weights."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.settings import Settings

REPOSITORY = Path(__file__).parents[2]
DETECTOR_CONFIG = REPOSITORY / "weights" / "demo" / "yolof" / "yolof_r18_demo.py"
# What the `box2mask` script does, also where the package is not installed.
COMMAND = (sys.executable, "-c", "import sys; from app.cli import main; sys.exit(main())")
# BOX2MASK_TEST_SERVICE=ray has everything that is asked over HTTP asked of a service on a Ray cluster of its own.
# What does not apply there.
NOT_ON_RAY = {
    "http/test_logs.py": "Ray puts a process's name before each of its lines",
    "http/test_tracing.py": "reads JSON lines of the log, before which Ray puts a process's name",
    "http/test_metrics.py": "each figure has the label `process`: see cluster/test_figures.py",
    "serving/test_reloading.py": "models are replaced by deploying anew",
}
ON_RAY = os.environ.get("BOX2MASK_TEST_SERVICE") == "ray"
STARTS_WITHIN_S = 300


@contextmanager
def web_server(files: dict[str, bytes]) -> Iterator[str]:
    """The address of a server of this machine that has these files, by path; anything else is a 404."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = files.get(self.path)
            self.send_response(404 if content is None else 200)
            self.send_header("Content-Length", str(len(content or b"")))
            self.end_headers()
            self.wfile.write(content or b"")

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@dataclass(frozen=True)
class ModelFolders:
    """Where the models lie that the tests serve."""

    detector: Path
    segmenter: Path


@dataclass(frozen=True)
class Service:
    """A service that answers at `url`; `log()` is all that it has written to standard error."""

    url: str
    process: subprocess.Popen[bytes]
    log_file: Path

    def log(self) -> str:
        return self.log_file.read_text()


def environment(settings: dict[str, str]) -> dict[str, str]:
    """This process's environment with these settings and no others of the service's, but for the tests' numbers."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("BOX2MASK_", "AZUREML_", "OTEL_"))}
    return own | {"OMP_NUM_THREADS": "1", "BOX2MASK_DTYPE": os.environ["BOX2MASK_DTYPE"]} | settings


@contextmanager
def serving(log_file: Path, settings: dict[str, str], *, on_ray: bool = ON_RAY) -> Iterator[Service]:
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            [*COMMAND, "serve", *(("--ray", "local") if on_ray else ())],
            cwd=REPOSITORY,
            env=environment({"BOX2MASK_HOST": "127.0.0.1", "BOX2MASK_PORT": "0"} | settings),
            stdout=subprocess.DEVNULL,  # libraries' own
            stderr=log,
        )
    try:
        yield Service(ready_url(process, log_file), process, log_file)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=120)
        finally:
            process.kill()
            process.wait()


def ready_url(process: subprocess.Popen[bytes], log_file: Path) -> str:
    deadline = time.monotonic() + STARTS_WITHIN_S
    while time.monotonic() < deadline and process.poll() is None:
        announced = re.search(r"http://[^ ]+:\d+", log_file.read_text())
        if announced is not None:
            try:
                if httpx.get(f"{announced[0]}/health/ready", timeout=10).status_code == 200:
                    return announced[0]
            except httpx.TransportError:
                pass
        time.sleep(0.1)
    raise AssertionError(f"the service did not start; it ended with {process.poll()}: {log_file.read_text()}")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """On Ray, only what is asked of a service over HTTP."""
    if ON_RAY:
        asking = [item for item in items if {"service", "serve", "start"} & set(getattr(item, "fixturenames", ()))]
        for item in asking:
            for place, reason in NOT_ON_RAY.items():
                if place in item.nodeid:
                    item.add_marker(pytest.mark.skip(reason=reason))
        config.hook.pytest_deselected(items=[item for item in items if item not in asking])
        items[:] = asking


@pytest.fixture
def run_command() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run `box2mask` with these arguments and settings to its end."""

    def run(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*COMMAND, *arguments],
            cwd=REPOSITORY,
            env=environment(settings),
            capture_output=True,
            text=True,
            timeout=STARTS_WITHIN_S,
        )

    return run


@pytest.fixture(scope="session")
def start() -> Callable[[Path, dict[str, str]], AbstractContextManager[Service]]:
    """As `serve`, for fixtures that outlive a test: given the file for the log, and the settings."""
    return serving


@pytest.fixture
def serve(tmp_path: Path) -> Callable[..., AbstractContextManager[Service]]:
    """Start `box2mask serve` with these settings, on a free port; the context ends it with SIGTERM."""
    return lambda **settings: serving(tmp_path / "service.log", settings)


@pytest.fixture(scope="session")
def model_folders(tmp_path_factory: pytest.TempPathFactory) -> ModelFolders:
    return write_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def service(model_folders: ModelFolders, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One service for all tests, with both models and the default settings."""
    settings = {
        "BOX2MASK_DEVICE": "cpu",
        "BOX2MASK_DETECTOR": str(model_folders.detector),
        "BOX2MASK_SEGMENTER": str(model_folders.segmenter),
    }
    with serving(tmp_path_factory.mktemp("service") / "service.log", settings) as started:
        yield started


@pytest.fixture(scope="session")
def http(service: Any) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service.url, timeout=60) as client:
        yield client


def answers_of(http: httpx.Client) -> Callable[..., Any]:
    """The JSON that a request is answered with, which must be a 200."""

    def post(content: dict[str, Any], path: str = "/score") -> Any:
        response = http.post(path, json=content)
        assert response.status_code == 200, response.text
        return response.json()

    return post


@pytest.fixture(scope="session")
def answer(http: httpx.Client) -> Callable[..., Any]:
    return answers_of(http)


@pytest.fixture
def sam_only(model_folders: Any) -> Callable[..., Settings]:
    """Settings of a service with a segmenter and no detector."""
    return partial(Settings, detector="none", segmenter=str(model_folders.segmenter), device="cpu")


def write_models(folder: Path) -> ModelFolders:
    """Both models, in folders of their own below `folder`."""
    folders = ModelFolders(folder / "detector", folder / "segmenter")
    write_detector(folders.detector)
    write_segmenter(folders.segmenter)
    return folders


def write_detector(folder: Path) -> None:
    """The demo detector's architecture with random weights, which find things of every score in any picture."""
    import torch

    from models.detector import mmcv_ops

    mmcv_ops.install()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MMDetection's own
        from mmdet.registry import MODELS
        from mmengine.config import Config
        from mmengine.registry import DefaultScope

        torch.manual_seed(0)
        with DefaultScope.overwrite_default_scope("mmdet"):
            model = MODELS.build(Config.fromfile(DETECTOR_CONFIG).model)
    for module in model.modules():  # one pass sets the statistics, so that signals neither vanish nor explode
        if isinstance(module, torch.nn.BatchNorm2d):
            module.train().momentum = 1.0
    with torch.no_grad():
        model(torch.randn(2, 3, 320, 320), mode="tensor")
    for name, spread, bias in (("cls_score", 1.5, -3.0), ("object_pred", 1.5, 0.0), ("bbox_pred", 0.4, 0.0)):
        convolution = getattr(model.bbox_head, name)
        torch.nn.init.normal_(convolution.weight, std=spread / convolution.weight[0].numel() ** 0.5)
        torch.nn.init.constant_(convolution.bias, bias)
    folder.mkdir()
    shutil.copy(DETECTOR_CONFIG, folder / "config.py")
    torch.save({"meta": {}, "state_dict": model.state_dict()}, folder / "weights.pth")


def write_segmenter(folder: Path) -> None:
    """A tiny SAM whose random weights let image, place and prompt all reach the masks."""
    import torch
    from torch import nn
    from transformers import SamConfig, SamModel

    config = SamConfig(
        vision_config={
            "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "mlp_dim": 64, "image_size": 128,
            "output_channels": 32, "num_pos_feats": 16, "window_size": 0, "initializer_range": 0.5,
        },
        prompt_encoder_config={"hidden_size": 32, "image_size": 128, "image_embedding_size": 8},
        mask_decoder_config={"hidden_size": 32, "num_attention_heads": 2, "mlp_dim": 64, "iou_head_hidden_dim": 32},
    )  # fmt: skip
    torch.manual_seed(0)
    model = SamModel(config)
    with torch.no_grad():
        model.shared_image_embedding.positional_embedding.normal_()
    for module in (*model.mask_decoder.modules(), *model.prompt_encoder.modules()):
        if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d | nn.Embedding):
            module.reset_parameters()
    model.save_pretrained(folder)
