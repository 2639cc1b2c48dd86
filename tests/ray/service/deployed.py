"""A service of sleeping models on a real cluster, and a hand on its processes."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psutil

from app.cluster.service import proxy
from tests.ray.nodes import REPOSITORY, Cluster, Node, free_port

# Far more than anything here takes on a machine that has nothing else to do.
PATIENCE_S = 240
REPLICA, EDGE, PROXY = "ray::ServeReplica:box2mask:replica", "ray::ServeReplica:box2mask:edge", "ray::ProxyActor"


@dataclass
class Deployed:
    """A service at `url`."""

    url: str
    cluster: Cluster
    process: subprocess.Popen[str]
    said: queue.Queue[str]

    def tell(self, line: str) -> None:
        """Have it do something, and return when it is done."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        self.hear("stopped" if line == "stop" else "ready")

    def hear(self, word: str) -> None:
        said = self.said.get(timeout=PATIENCE_S)
        assert said == word, said

    def processes(self, title: str, node: Node | None = None) -> list[psutil.Process]:
        """The service's processes of this title, of all nodes or of one."""
        nodes = [self.cluster.head, *self.cluster.workers] if node is None else [node]
        return [one for each in nodes for one in each.workers() if _titled(one, title)]


@contextlib.contextmanager
def deployed(cluster: Cluster, **wanted: Any) -> Iterator[Deployed]:
    """See `benchmarks.ray_service.deployed` for what is wanted."""
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.ray_service.deployed", cluster.address, str(port)]
    log = cluster.folder / "deployed.log"
    with (
        log.open("w") as errors,
        subprocess.Popen(
            [*command, json.dumps({"fewest": 1, "most": 1, **wanted})],
            cwd=REPOSITORY,
            env=os.environ | environment() | {"PYTHONPATH": str(REPOSITORY)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        ) as process,
    ):
        said: queue.Queue[str] = queue.Queue()

        def read() -> None:
            assert process.stdout is not None
            for line in process.stdout:
                if line.strip() in ("ready", "stopped"):
                    said.put(line.strip())
            said.put(f"it has ended: {log.read_text()[-2000:]}")

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        service = Deployed(f"http://127.0.0.1:{port}", cluster, process, said)
        try:
            service.hear("ready")
            yield service
        finally:
            process.kill()
            process.wait()
            reader.join()


def environment() -> dict[str, str]:
    """What every node has to have in its environment."""
    return {**proxy.ENVIRONMENT, "RAY_AUTH_MODE": "disabled"}  # whatever token lies in the home folder


def _titled(process: psutil.Process, title: str) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess, IndexError):
        return process.cmdline()[0].startswith(title)
    return False
