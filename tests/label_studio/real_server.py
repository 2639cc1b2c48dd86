"""A real Label Studio, from `.venv-label-studio`, as a process of its own with a database of its own."""

from __future__ import annotations

import io
import os
import shutil
import signal
import socket
import subprocess
import time
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

REPOSITORY = Path(__file__).parents[2]
ENVIRONMENT = REPOSITORY / ".venv-label-studio"
# `make` has this account in the database that it prepares.
USER, PASSWORD = "labels@example.com", "label-studio-tests"
STARTS_WITHIN_S = 300


@dataclass
class LabelStudio:
    """A Label Studio at `url`; `token`: a personal access token of its only account; `files`: its document root."""

    url: str
    token: str
    files: Path
    log_file: Path

    def client(self) -> httpx.Client:
        """With an access token, which lasts for five minutes."""
        access = httpx.post(f"{self.url}/api/token/refresh/", json={"refresh": self.token}).json()["access"]
        return httpx.Client(base_url=self.url, timeout=120, headers={"authorization": f"Bearer {access}"})

    def ask(self, method: str, path: str, **more: Any) -> Any:
        """The JSON of an answer, which must be a success."""
        with self.client() as client:
            response = client.request(method, path, **more)
        assert response.is_success, f"{method} {path}: {response.status_code} {response.text[:2000]}"
        return response.json() if response.content else None

    def project(self, config: str, title: str = "photos") -> int:
        return self.ask("POST", "/api/projects", json={"title": title, "label_config": config})["id"]

    def upload(self, project: int, files: Sequence[Path]) -> list[dict[str, Any]]:
        """Import photos as tasks; the tasks in the order of the files."""
        for path in files:
            self.ask("POST", f"/api/projects/{project}/import", files={"file": (path.name, path.read_bytes())})
        return self.tasks(project)

    def tasks(self, project: int) -> list[dict[str, Any]]:
        return self.ask("GET", "/api/tasks", params={"project": project, "fields": "all", "page_size": 1000})["tasks"]

    def task(self, task: int) -> dict[str, Any]:
        return self.ask("GET", f"/api/tasks/{task}")

    def connect(self, project: int, url: str, password: str | None = None) -> int:
        """Add an ML backend with interactive pre-annotations."""
        asked = {"project": project, "url": url, "title": "box2mask", "is_interactive": True}
        if password is not None:
            asked |= {"auth_method": "BASIC_AUTH", "basic_auth_user": "any", "basic_auth_pass": password}
        return self.ask("POST", "/api/ml", json=asked)["id"]

    def act(self, project: int, action: str) -> Any:
        """One of the Data Manager's actions, on all tasks."""
        chosen = {"selectedItems": {"all": True, "excluded": []}}
        return self.ask("POST", "/api/dm/actions", params={"id": action, "project": project}, json=chosen)

    def smart(self, backend: int, task: int, *drawn: dict[str, Any]) -> Any:
        """What a smart tool is answered with, by way of Label Studio's own API."""
        body = {"task": task, "context": {"result": list(drawn)}}
        return self.ask("POST", f"/api/ml/{backend}/interactive-annotating", json=body)

    def export(self, project: int, kind: str, folder: Path) -> Path:
        """A file, or of a zip a folder."""
        with self.client() as client:
            response = client.get(f"/api/projects/{project}/export", params={"exportType": kind})
        assert response.is_success, response.text[:2000]
        folder.mkdir(parents=True)
        if response.content[:2] == b"PK":
            zipfile.ZipFile(io.BytesIO(response.content)).extractall(folder)
            return folder
        (folder / "export.json").write_bytes(response.content)
        return folder / "export.json"


@contextmanager
def label_studio(folder: Path, files: Path) -> Iterator[LabelStudio]:
    """Start one with an empty database. files: its document root for local files."""
    shutil.copytree(ENVIRONMENT / "data", folder / "data")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    own = {name: value for name, value in os.environ.items() if not name.startswith(("LABEL_STUDIO_", "BOX2MASK_"))}
    settings = {
        "LABEL_STUDIO_BASE_DATA_DIR": str(folder / "data"),
        "LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED": "true",
        "LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT": str(files),
        # As docs/labelling.md says: without it no backend on this machine can be added.
        "USE_DEFAULT_BANNED_SUBNETS": "false",
        "COLLECT_ANALYTICS": "false",
        "LATEST_VERSION_CHECK": "0",
        "SENTRY_DSN": "",
        "FRONTEND_SENTRY_DSN": "",
    }
    log_file = folder / "label_studio.log"
    program = str(ENVIRONMENT / "bin" / "label-studio")
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            [program, "start", "--no-browser", "--internal-host", "127.0.0.1", "--port", str(port)],
            env=own | settings,
            cwd=folder,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        url = f"http://127.0.0.1:{port}"
        _wait(url, process, log_file)
        yield LabelStudio(url, _token(url), files, log_file)
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(timeout=60)
        finally:
            process.kill()
            process.wait()


def _wait(url: str, process: subprocess.Popen[bytes], log_file: Path) -> None:
    deadline = time.monotonic() + STARTS_WITHIN_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(f"{url}/health", timeout=10).is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    raise AssertionError(f"Label Studio did not start; it ended with {process.poll()}: {log_file.read_text()[-4000:]}")


def _token(url: str) -> str:
    """A personal access token, made as the account page makes one."""
    with httpx.Client(base_url=url, follow_redirects=True, timeout=60) as page:
        page.get("/user/login/")
        form = {"email": USER, "password": PASSWORD, "csrfmiddlewaretoken": page.cookies["csrftoken"]}
        page.post("/user/login/", data=form, headers={"referer": url})
        made = page.post("/api/token/", headers={"referer": url, "x-csrftoken": page.cookies["csrftoken"]})
    assert made.is_success, made.text
    return made.json()["token"]
