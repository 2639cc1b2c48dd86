"""A stand-in for a CVAT server, so far as cvat-cli asks one: a task with photos and labels, functions, their queue."""

from __future__ import annotations

import io
import json
import threading
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

VERSION = "2.80.0"
TASK, FUNCTION = 7, 3
WHEN = "2026-11-29T10:00:00Z"


@dataclass
class Cvat:
    """What the server has, and what came to it.

    photos: name -> file, the frames of the task in their order. labels: name -> type of the task's labels, whose ids
    are 101, 102, ... requests: what an agent is to do, by category. uploaded: what was written to the task's
    annotations. functions: those that were registered. results, failures: what an agent made of each request, by its
    id. frames_fetched: the numbers of those that were sent one by one.
    """

    photos: Mapping[str, bytes]
    labels: Mapping[str, str]
    requests: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    url: str = ""
    uploaded: list[dict[str, Any]] = field(default_factory=list)
    functions: list[dict[str, Any]] = field(default_factory=list)
    results: dict[str, Any] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    frames_fetched: list[int] = field(default_factory=list)

    def label_of(self, shape: Mapping[str, Any]) -> str:
        return list(self.labels)[shape["label_id"] - 101]

    def label_list(self) -> list[dict[str, Any]]:
        return [
            {"id": 101 + number, "name": name, "type": kind, "color": "#ff0000", "attributes": [], "sublabels": []}
            for number, (name, kind) in enumerate(self.labels.items())
        ]

    def answer(self, method: str, path: str, query: Mapping[str, Sequence[str]], body: Any) -> Any:
        """JSON, or bytes, or None where there is no such thing."""
        if path == "/api/server/about":
            about = {"name": "CVAT", "description": "", "version": VERSION, "logo_url": "", "subtitle": ""}
            return about
        if path == f"/api/tasks/{TASK}":
            return {
                "id": TASK,
                "url": f"{self.url}{path}",
                "name": "photos",
                "size": len(self.photos),
                "mode": "annotation",
                "dimension": "2d",
                "data_chunk_size": 2,
                "data_original_chunk_type": "imageset",
                "data_compressed_chunk_type": "imageset",
                "created_date": WHEN,
                "updated_date": WHEN,
                "organization": None,
                "labels": {"url": f"{self.url}/api/labels?task_id={TASK}"},
                "jobs": {"url": f"{self.url}/api/jobs?task_id={TASK}", "count": 1, "completed": 0, "validation": 0},
            }
        if path == "/api/labels":
            found = self.label_list()
            return {"count": len(found), "next": None, "previous": None, "results": found}
        if path == f"/api/tasks/{TASK}/data/meta":
            frames = [{"width": 1, "height": 1, "name": name, "related_files": 0} for name in self.photos]
            return {"frames": frames, "deleted_frames": [], "chunks_updated_date": WHEN, "size": len(frames)}
        if path == f"/api/tasks/{TASK}/data":
            assert query["quality"] == ["original"]
            number = int(query["number"][0])
            if query["type"] == ["frame"]:
                self.frames_fetched.append(number)
                return list(self.photos.values())[number]
            return self.chunk(number)
        if path == f"/api/tasks/{TASK}/annotations":
            how = "replace" if method == "PUT" else query["action"][0]
            self.uploaded.append({"how": how, **body})
            return {"version": 0, "tags": [], "shapes": [], "tracks": []}
        if path == "/api/functions":
            self.functions.append(body)
            return self.function()
        if path == f"/api/functions/{FUNCTION}":
            return self.function()
        return self.answer_of_queue(path, body)

    def chunk(self, number: int) -> bytes:
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as chunk:
            for place, (name, content) in list(enumerate(self.photos.items()))[2 * number : 2 * number + 2]:
                chunk.writestr(f"{place:06}{name[name.rindex('.') :]}", content)
        return file.getvalue()

    def function(self) -> dict[str, Any]:
        plain = {"startswith_box": False, "startswith_box_optional": False, "min_neg_points": -1}
        return {"id": FUNCTION, **plain, **self.functions[-1]}

    def answer_of_queue(self, path: str, body: Any) -> Any:
        queue = f"/api/functions/queues/function:{FUNCTION}/requests/"
        if not path.startswith(queue):
            return None
        if path == f"{queue}acquire":
            waiting = self.requests.get(body["request_category"])
            return {"ar_assignment": waiting.pop(0) if waiting else None}
        request, what = path.removeprefix(queue).split("/")
        if what == "complete":
            self.results[request] = {name: value for name, value in body.items() if name != "agent_id"}
        elif what == "fail":
            self.failures[request] = body["exc_info"]
        return {}


@contextmanager
def cvat_server(
    photos: Mapping[str, bytes], labels: Mapping[str, str], requests: dict[str, list[dict[str, Any]]] | None = None
) -> Iterator[Cvat]:
    cvat = Cvat(photos, labels, requests or {})

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            address = urlsplit(self.path)
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            path = unquote(address.path).rstrip("/")
            content = cvat.answer(self.command, path, parse_qs(address.query), body)
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(404 if content is None else 200)
            kind = "application/octet-stream" if isinstance(content, bytes) else "application/vnd.cvat+json"
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_POST = do_PATCH = do_PUT = do_GET

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        cvat.url = f"http://127.0.0.1:{http.server_port}"
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield cvat
        finally:
            http.shutdown()
            thread.join()
