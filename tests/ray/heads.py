"""What a head can keep its knowledge in, so that it has it when it comes back: RocksDB in a folder, or Redis."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ray.nodes import IP, free_port

STORES = ("rocksdb", "redis")
# Of the other nodes: how long they go on without a head; Ray's own minute is too short for a busy machine.
PATIENT = {"RAY_gcs_rpc_server_reconnect_timeout_s": "600"}


@contextlib.contextmanager
def kept(store: str, folder: Path) -> Iterator[dict[str, str]]:
    """The head's variables. Skips the test where Redis is not installed."""
    if store == "rocksdb":
        yield {"RAY_gcs_storage": "rocksdb", "RAY_gcs_storage_path": str(folder)}
        return
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("needs redis-server; Debian has it as a package")
    port = free_port()
    command = [program, "--port", str(port), "--bind", IP, "--save", "", "--dir", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            while not _listens(port):
                assert process.poll() is None, "redis-server has ended"
            yield {"RAY_REDIS_ADDRESS": f"{IP}:{port}"}
        finally:
            process.kill()


def _listens(port: int) -> bool:
    with socket.socket() as one:
        one.settimeout(1)
        return one.connect_ex((IP, port)) == 0
