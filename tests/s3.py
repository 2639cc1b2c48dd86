"""Servers of object stores in processes of their own, for tests of what is kept in a store: S3's, and Google's."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

SERVER = Path(__file__).parents[1] / ".venv-s3" / "bin" / "python"
# moto_server, on a port that nobody has; it says which.
_PROGRAM = """
import sys
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server
server = make_server("127.0.0.1", 0, DomainDispatcherApplication(create_backend_app), threaded=True)
print(server.server_port, flush=True)
server.serve_forever()
"""

# The same for Google's.
_GOOGLE = """
import sys
from gcp_storage_emulator.server import create_server
server = create_server("127.0.0.1", 0, in_memory=True)
server.start()
print(server._api._httpd.server_port, flush=True)
sys.stdin.read()
"""


@contextmanager
def s3_server() -> Iterator[dict[str, str]]:
    """The environment variables by which the server is found. Skips the test without the server's environment."""
    with _running("moto", _PROGRAM) as port:
        yield {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_ACCESS_KEY_ID": "tests",
            "AWS_SECRET_ACCESS_KEY": "tests",
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }


@contextmanager
def google_server() -> Iterator[dict[str, str]]:
    """The same of one that speaks as Google Cloud Storage does. It is slow: tens of files, not thousands."""
    with _running("gcp_storage_emulator", _GOOGLE) as port:
        yield {"CLOUD_STORAGE_EMULATOR_ENDPOINT": f"http://127.0.0.1:{port}"}


@contextmanager
def _running(package: str, program: str) -> Iterator[str]:
    """The port on which it listens, which it says itself. Skips the test where the package is not installed."""
    if not any(SERVER.parents[1].glob(f"lib/python*/site-packages/{package}")):
        pytest.skip(f"needs {package} in .venv-s3, which `make test` makes and brings up to date")
    process = subprocess.Popen(
        [SERVER, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        port = process.stdout.readline().strip()
        if not port:
            pytest.fail("the store's server did not start")
        yield port
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdin.close()
        process.stdout.close()


def make_bucket(name: str) -> None:
    """In the S3 server of this process's environment."""
    from pyarrow import fs

    fs.S3FileSystem(
        endpoint_override=os.environ["AWS_ENDPOINT_URL"], allow_bucket_creation=True, region="us-east-1"
    ).create_dir(name)


def make_google_bucket(name: str) -> None:
    """The same in Google's."""
    answer = httpx.post(f"{os.environ['CLOUD_STORAGE_EMULATOR_ENDPOINT']}/storage/v1/b?project=p", json={"name": name})
    answer.raise_for_status()


if __name__ == "__main__":
    with s3_server() as variables:
        print("\n".join(f"export {name}={value}" for name, value in variables.items()), flush=True)
        sys.stdin.read()
