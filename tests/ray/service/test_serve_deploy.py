"""docker/ray/serve.yaml by Ray Serve's own commands, with the demo weights: with RAY_TESTS=all (`make ray-test`)."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import httpx
import pytest
import yaml

from tests.app.scoring_requests import PICTURE, row, to_sam
from tests.ray.nodes import REPOSITORY, VARIABLES, Cluster, cluster, free_port
from tests.ray.service.deployed import PATIENCE_S, environment

pytestmark = pytest.mark.skipif(os.environ.get("RAY_TESTS") != "all", reason="takes minutes: RAY_TESTS=all")

KEY = "a-key-that-a-machine-has-drawn"
SERVE = Path(sys.executable).with_name("serve")


@pytest.fixture
def machines(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    with cluster(head_cpus=0, workers=1, cpus=3, dashboard=True) as started:
        yield started


def test_deployed_changed_and_shut_down(machines: Cluster, tmp_path: Path) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    config = yaml.safe_load((REPOSITORY / "docker" / "ray" / "serve.yaml").read_text())
    config["http_options"]["port"] = port
    # All proxies share a port here. Where one is taken away because its node has no replica for a while, as each is
    # replaced, its connections end; a load balancer would have passed it over.
    config["proxy_location"] = "HeadOnly"
    variables = config["applications"][0]["runtime_env"]["env_vars"]
    variables |= {
        "BOX2MASK_DETECTOR": "none",
        "BOX2MASK_SEGMENTER": "demo-sam",
        "BOX2MASK_RAY_REPLICA_GPUS": "0",
        "BOX2MASK_RAY_REPLICA_CPUS": "1",
        "BOX2MASK_RAY_MIN_REPLICAS": "2",
        "BOX2MASK_RAY_MAX_REPLICAS": "2",
    }
    path = tmp_path / "serve.yaml"

    def deploy() -> None:
        path.write_text(yaml.safe_dump(config))
        serve(machines, "deploy", str(path))

    deploy()
    until(lambda: status(machines) == "RUNNING" and httpx.get(f"{url}/health/ready").status_code == 200)
    assert asks_for_no_key(url)
    over = Event()

    def click(client: httpx.Client, x: int) -> list[int]:
        found = []
        while not over.is_set():
            response = client.post("/score", json=to_sam(row(PICTURE, points=f"[[[{x}, 20]]]")))
            found.append(response.status_code)
            if response.status_code == 200:
                assert response.json()[0]["predictions"]
        return found

    with (
        httpx.Client(base_url=url, timeout=120, headers={"authorization": f"Bearer {KEY}"}) as client,
        ThreadPoolExecutor(2) as pool,
    ):
        clicks = [pool.submit(click, client, x) for x in (10, 20)]
        try:
            variables["BOX2MASK_API_KEYS"] = KEY
            deployed = details(machines)["last_deployed_time_s"]
            deploy()
            until(lambda: details(machines)["last_deployed_time_s"] > deployed and status(machines) == "RUNNING")
        finally:
            over.set()
        answers = [code for one in clicks for code in one.result()]
    assert set(answers) == {200} and len(answers) > 10
    assert not asks_for_no_key(url)

    serve(machines, "shutdown", "--yes")
    until(lambda: not applications(machines))
    with pytest.raises(httpx.ConnectError):
        httpx.get(url)


def serve(machines: Cluster, *arguments: str) -> None:
    command = [str(SERVE), *arguments, "--address", str(machines.dashboard)]
    done = subprocess.run(command, env=os.environ | VARIABLES, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr


def applications(machines: Cluster) -> dict[str, Any]:
    """What `serve status` shows."""
    found: dict[str, Any] = httpx.get(f"{machines.dashboard}/api/serve/applications/", timeout=60).json()
    return dict(found["applications"])


def details(machines: Cluster) -> dict[str, Any]:
    return dict(applications(machines).get("box2mask", {}))


def status(machines: Cluster) -> object:
    found = details(machines)
    assert found.get("status") not in ("DEPLOY_FAILED", "UNHEALTHY"), found.get("message")
    return found.get("status")


def asks_for_no_key(url: str) -> bool:
    response = httpx.post(f"{url}/score", json=to_sam(row(PICTURE, points="[[[30, 20]]]")), timeout=120)
    assert response.status_code in (200, 401)
    return response.status_code == 200


def until(is_so: Any) -> None:
    end = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < end, "it takes too long"
        time.sleep(0.5)
