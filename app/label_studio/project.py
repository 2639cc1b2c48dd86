"""A project of a Label Studio, by that server's API: its tasks, what people made of them, and predictions for them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from app.label_studio.tokens import Token
from app.settings import Settings
from models.images.decoding import ImageError

_TIMEOUT_S = 300.0  # of an export of thousands of tasks, which is one answer
_PAGE = 500


class ProjectError(Exception):
    """What was wanted of Label Studio cannot be had; says what to do."""


@dataclass(frozen=True)
class Task:
    """number: its id. data: what was imported. is_labelled: whether it has an annotation that counts."""

    number: int
    data: dict[str, Any]
    is_labelled: bool


class Project:
    """One project. Its methods wait for Label Studio, and raise ProjectError."""

    def __init__(self, settings: Settings, number: int) -> None:
        """number: as in the address of its page, /projects/NUMBER."""
        if settings.label_studio_url is None:
            raise ProjectError("expected the address of Label Studio in BOX2MASK_LABEL_STUDIO_URL, found none")
        self.number = number
        self.url = settings.label_studio_url.rstrip("/")
        self._token = Token(self.url, settings.label_studio_token, settings.url_timeout_s)
        self._client = httpx.Client(timeout=httpx.Timeout(_TIMEOUT_S, connect=10), trust_env=False)

    def close(self) -> None:
        self._client.close()

    def labelling_config(self) -> str:
        """The labelling interface, as XML."""
        return str(self._object("GET", f"/api/projects/{self.number}").get("label_config") or "")

    def tasks(self) -> Iterator[Task]:
        """All of them, in the order of their numbers."""
        page, seen = 1, 0
        while True:
            asked = {"project": self.number, "fields": "task_only", "page": page, "page_size": _PAGE}
            answer = self._object("GET", "/api/tasks", params=asked)
            found = answer.get("tasks")
            if not isinstance(found, list):
                raise ProjectError(f"{self.url} answered /api/tasks without tasks: expected Label Studio 1.10 or newer")
            for one in found:
                yield Task(int(one["id"]), dict(one["data"]), bool(one.get("is_labeled")))
            seen, page = seen + len(found), page + 1
            if not found or seen >= int(answer.get("total", 0)):
                return

    def labelled(self) -> list[dict[str, Any]]:
        """Label Studio's own JSON export: every task with an annotation, and its annotations."""
        answer = self._asked("GET", f"/api/projects/{self.number}/export", params={"exportType": "JSON"})
        if not isinstance(answer, list):
            raise ProjectError(f"{self.url}: expected a JSON export, a list of tasks, found another answer")
        return answer

    def has_prediction(self, task: int, model_version: str) -> bool:
        answer = self._asked("GET", "/api/predictions", params={"task": task})
        found = answer.get("results", []) if isinstance(answer, dict) else answer
        return any(one.get("model_version") == model_version for one in found)

    def predict(self, task: int, prediction: Mapping[str, Any]) -> None:
        """Store a prediction: `result`, `model_version` and perhaps `score`."""
        self._asked("POST", "/api/predictions", json={"task": task, **prediction})

    def set_data(self, task: int, **values: Any) -> None:
        """Add to a task's data; what else is in it stays."""
        data = dict(self._object("GET", f"/api/tasks/{task}")["data"])
        if data | values != data:
            self._object("PATCH", f"/api/tasks/{task}", json={"data": data | values})

    def show_predictions(self, model_version: str) -> None:
        """Let people see the predictions of this version."""
        self._object("PATCH", f"/api/projects/{self.number}", json={"model_version": model_version})

    def _object(self, method: str, path: str, **more: Any) -> dict[str, Any]:
        answer = self._asked(method, path, **more)
        if not isinstance(answer, dict):
            raise ProjectError(f"{self.url}: expected an object from {path}, found another answer")
        return answer

    def _asked(self, method: str, path: str, **more: Any) -> Any:
        try:
            authorization = self._token.authorization()
            answer = self._sent(method, path, authorization, more)
            if answer.status_code == httpx.codes.UNAUTHORIZED and self._token.is_personal:
                answer = self._sent(method, path, self._token.authorization(refused=authorization), more)
        except ImageError as error:  # what Token raises
            raise ProjectError(str(error)) from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ProjectError(f"{self.url} cannot be asked ({error}): expected Label Studio there") from error
        if answer.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            raise ProjectError(
                f"{self.url} answered {answer.status_code}: expected in BOX2MASK_LABEL_STUDIO_TOKEN the token of an "
                "account that may see the project"
            )
        if answer.status_code == httpx.codes.NOT_FOUND:
            raise ProjectError(f"{self.url} has no project {self.number} that this account may see ({path}: 404)")
        if not answer.is_success:
            raise ProjectError(f"{self.url} answered {answer.status_code} to {method} {path}: {answer.text[:300]}")
        try:
            return answer.json() if answer.content else None
        except ValueError as error:
            raise ProjectError(f"{self.url} answered {path} without JSON: expected Label Studio there") from error

    def _sent(self, method: str, path: str, authorization: str | None, more: dict[str, Any]) -> httpx.Response:
        headers = {} if authorization is None else {"authorization": authorization}
        return self._client.request(method, self.url + path, headers=headers, **more)
