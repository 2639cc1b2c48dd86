"""A real S3 server in a process of its own, for tests of what is kept in a store."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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


@contextmanager
def s3_server() -> Iterator[dict[str, str]]:
    """The environment variables by which the server is found. Skips the test without the server's environment."""
    if not SERVER.is_file():
        pytest.skip("needs .venv-s3, which `make test` makes")
    process = subprocess.Popen(
        [SERVER, "-c", _PROGRAM], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True
    )
    assert process.stdout is not None
    try:
        port = process.stdout.readline().strip()
        if not port:
            pytest.fail("the S3 server did not start")
        yield {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_ACCESS_KEY_ID": "tests",
            "AWS_SECRET_ACCESS_KEY": "tests",
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()


def make_bucket(name: str) -> None:
    """In the server of this process's environment."""
    from pyarrow import fs

    fs.S3FileSystem(
        endpoint_override=os.environ["AWS_ENDPOINT_URL"], allow_bucket_creation=True, region="us-east-1"
    ).create_dir(name)


if __name__ == "__main__":
    with s3_server() as variables:
        print("\n".join(f"export {name}={value}" for name, value in variables.items()), flush=True)
        sys.stdin.read()
