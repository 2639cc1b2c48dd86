"""A real Ray cluster on this machine: a head and workers as processes of their own, which a test may kill."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import psutil

REPOSITORY = Path(__file__).parents[2]
RAY = Path(sys.executable).with_name("ray")
STARTS_WITHIN_S = 120
IP = "127.0.0.1"
# Of nodes and of who joins them. What tasks import is this checkout, wherever they run. A token that an earlier cluster
# has left in the home folder is asked for by a head, and not given by a worker, unless both are told.
# On a busy machine a node's agents need longer than the 15 s after which it gives up.
VARIABLES = {
    "PYTHONPATH": str(REPOSITORY),
    "RAY_AUTH_MODE": "disabled",
    "RAY_agent_register_timeout_ms": "120000",
}


@dataclass
class Node:
    """What `ray start --block` runs: one raylet, and on the head the GCS too. log: what it has printed."""

    process: subprocess.Popen[bytes]
    log: Path

    def raylet(self) -> psutil.Process:
        """The process whose end is that of a machine. Raises LookupError where it has ended."""
        return self._child("raylet")

    def gcs(self) -> psutil.Process:
        """The head's store of what the cluster knows. Raises LookupError where it has ended."""
        return self._child("gcs_server")

    def workers(self) -> list[psutil.Process]:
        """The processes in which tasks and actors run."""
        return [one for one in _descendants(self.process.pid) if _name(one).startswith("ray::")]

    def kill(self) -> None:
        """As a machine that loses its power: SIGKILL to the raylet and to all that runs under it."""
        everything = _descendants(self.process.pid)
        for one in everything:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        psutil.wait_procs(everything, timeout=30)
        self.process.wait(30)

    def _child(self, name: str) -> psutil.Process:
        for one in _descendants(self.process.pid):
            if _name(one) == name:
                return one
        raise LookupError(f"no {name} under {self.process.pid}")


@dataclass
class Cluster:
    """A head at `address` (host:port) and workers.

    head: also runs tasks where `head_cpus` is not 0. folder: Ray's own files; a short path, as sockets lie in it.
    dashboard: its address, to which `serve deploy` turns; None if there is none.
    """

    folder: Path
    address: str
    dashboard: str | None
    head: Node
    head_options: list[str]
    head_variables: Mapping[str, str]
    workers: list[Node] = field(default_factory=list)

    def add(
        self,
        *,
        cpus: float = 1,
        memory_mb: int = 200,
        resources: str = "{}",
        ip: str = IP,
        variables: Mapping[str, str] = MappingProxyType({}),
    ) -> Node:
        """One more machine. memory_mb: of its object store. resources: JSON, Ray's custom ones. ip: its address."""
        node = _start(
            self.folder,
            f"worker{len(self.workers)}",
            ["--address", self.address, *_size(cpus, memory_mb), "--resources", resources],
            ip,
            variables,
        )
        self.workers.append(node)
        return node

    def head_comes_back(self) -> None:
        """Start the head again, which has been killed: it knows what its store has kept, and nothing else."""
        # Ray takes the other machines' processes, which are on this one here, for a head that runs at this address.
        (self.folder / "ray" / "ray_current_cluster").unlink(missing_ok=True)
        # As a supervisor would: Ray gives a node 30 s to start, which a busy machine does not always.
        for left in reversed(range(3)):
            try:
                self.head = _start(self.folder, "head", self.head_options, IP, self.head_variables)
                return
            except RuntimeError:
                if not left:
                    raise


@contextlib.contextmanager
def cluster(
    *,
    head_cpus: float = 1,
    head_memory_mb: int = 200,
    workers: int = 0,
    cpus: float = 1,
    dashboard: bool = False,
    head_variables: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[Cluster]:
    """A cluster of a head and so many workers, which ends with all its processes.

    Ports are free ones, so that several clusters can be there at once. head_variables: of the head's environment alone.
    """
    folder = Path(tempfile.mkdtemp(prefix="ray", dir="/tmp"))
    address = f"{IP}:{free_port()}"
    started: Cluster | None = None
    head = None
    try:
        asked = ["--head", "--port", address.rpartition(":")[2], *_size(head_cpus, head_memory_mb)]
        asked += ["--ray-client-server-port", str(free_port()), "--temp-dir", str(folder / "ray")]
        port = free_port()
        asked += ["--dashboard-port", str(port)] if dashboard else ["--include-dashboard=false"]
        head = _start(folder, "head", asked, IP, head_variables)
        shown = f"http://{IP}:{port}" if dashboard else None
        started = Cluster(folder, address, shown, head, asked, head_variables)
        for _ in range(workers):
            started.add(cpus=cpus)
        yield started
    finally:
        for node in [*started.workers, started.head] if started else [head] if head else []:
            node.kill()


def _start(folder: Path, name: str, options: list[str], ip: str, variables: Mapping[str, str]) -> Node:
    log = folder / f"{name}.log"
    command = [str(RAY), "start", "--block", "--disable-usage-stats", "--node-ip-address", ip]
    command += ["--dashboard-agent-listen-port", str(free_port()), "--dashboard-agent-grpc-port", str(free_port())]
    environment = os.environ | VARIABLES | variables
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, *options],
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=environment,
            cwd=REPOSITORY,
            start_new_session=True,
        )
    node = Node(process, log)
    end = time.monotonic() + STARTS_WITHIN_S
    while b"Ray runtime started" not in log.read_bytes():
        if process.poll() is not None or time.monotonic() > end:
            node.kill()
            raise RuntimeError(f"{name} did not start: {log.read_text(errors='replace')}")
        time.sleep(0.1)
    return node


def _size(cpus: float, memory_mb: int) -> list[str]:
    return ["--num-cpus", f"{cpus:g}", "--num-gpus", "0", "--object-store-memory", str(memory_mb * 2**20)]


def _descendants(pid: int) -> list[psutil.Process]:
    """A process, and all that it has started."""
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _name(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.NoSuchProcess, IndexError):
        title = process.cmdline()[0]
        return title if title.startswith("ray::") else os.path.basename(title)
    return ""


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
