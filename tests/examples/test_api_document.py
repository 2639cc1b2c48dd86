"""docs/api.md: every example is run against a service, and what it shows is what comes."""

from __future__ import annotations

import json
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from starlette.routing import Route

from app import errors
from app.http import openapi
from app.main import create_app
from app.settings import Settings
from tests.app.conftest import environment, ready_url
from tests.examples.fences import REPOSITORY, Block, blocks_of, differences, lines_missing, run

DOCUMENT = REPOSITORY / "docs" / "api.md"
BLOCKS = blocks_of(DOCUMENT)
PRELUDE = BLOCKS[0].text
# The commands that start the other services: one with small limits, one with a key.
LIMITED, KEYED = (
    next(block for block in BLOCKS if block.text.startswith(f"BOX2MASK_PORT={port} ")) for port in (5002, 5003)
)
# What is asked, and what the document shows to come; `None` where it shows nothing.
EXAMPLES = [
    (block, BLOCKS[number + 1] if number + 1 < len(BLOCKS) and BLOCKS[number + 1].language != "bash" else None)
    for number, block in enumerate(BLOCKS)
    if number and block.language == "bash" and block not in (LIMITED, KEYED)
]
# Answers without an example before them: of failures that nobody can ask for.
FAILURES = [
    block
    for before, block in zip(BLOCKS, BLOCKS[1:], strict=False)
    if block.language == "http" and before.language != "bash"
]

# A service whose networks fail once it is ready, as memory and programs do.
BROKEN = """
import sys
from app.engine.engine import Engine
from app.scoring.scorer import Scorer
warm_up = Engine.warm_up

def no_memory(*_):
    raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

async def warm_up_and_break(self):
    await warm_up(self)
    self.segmenter.embed = no_memory

def bug(*_):
    raise ValueError("the secret of the pipeline")

Engine.warm_up, Scorer.detect_and_segment = warm_up_and_break, bug
from app.cli import main
sys.exit(main(["serve"]))
"""
SOUND = 'import sys; from app.cli import main; sys.exit(main(["serve"]))'


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of the second service, with the settings that the document gives it; and it is broken, see above."""
    # URLs of this machine are fetched, so that a request can be kept at work.
    with another(LIMITED, BROKEN, tmp_path_factory.mktemp("limited"), {"BOX2MASK_IMAGE_URLS": "any"}) as url:
        yield url


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of the third service, which wants a key."""
    with another(KEYED, SOUND, tmp_path_factory.mktemp("keyed"), {}) as url:
        yield url


@contextmanager
def another(command: Block, program: str, folder: Path, more: dict[str, str]) -> Iterator[str]:
    """The URL of a service with the settings of a command in the document."""
    settings = dict(word.split("=") for word in shlex.split(command.text) if "=" in word)
    own = {"BOX2MASK_HOST": "127.0.0.1", "BOX2MASK_PORT": "0", "BOX2MASK_SEGMENTER": "demo-sam", **more}
    log_file = folder / "service.log"
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", program],
            cwd=REPOSITORY,
            env=environment({"BOX2MASK_DEVICE": "cpu"} | settings | own),
            stdout=subprocess.DEVNULL,
            stderr=log,
        )
    try:
        yield ready_url(process, log_file)
    finally:
        process.terminate()
        process.wait(timeout=60)


@pytest.fixture(scope="module")
def folder(photo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("api")
    (path / "photo.jpg").write_bytes(photo.read_bytes())
    return path


def answer_of(script: str, folder: Path, url: str, limited: str, keyed: str = "") -> str:
    text = f"{PRELUDE}\n{script}".replace("http://localhost:5001", url).replace("http://localhost:5002", limited)
    text = text.replace("http://localhost:5003", keyed)
    assert "localhost:" not in text
    done = run(text, folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def silent_host() -> Iterator[tuple[str, socket.socket]]:
    """The URL of an image that never comes, and the socket where it is asked for."""
    with socket.create_server(("127.0.0.1", 0)) as host:
        host.settimeout(60)
        yield f"http://127.0.0.1:{host.getsockname()[1]}/photo.jpg", host


def sam_request(image: str) -> str:
    columns = ["image", "input_points", "input_boxes", "input_labels", "multimask_output"]
    return json.dumps({"input_data": {"columns": columns, "data": [[image, "", "", "", False]]}})


def beside_another(url: str, ask: Callable[[], str]) -> str:
    """What is answered while another request is at work, on an image that does not come."""
    where = httpx.URL(url)
    for _ in range(10):  # the other one ends after its four seconds, in which a slow machine may not have asked yet
        with (
            silent_host() as (image_url, host),
            socket.create_connection((where.host, where.port), timeout=60) as other,
        ):
            body = sam_request(image_url).encode()
            other.sendall(b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
            with host.accept()[0]:  # it is let in, and its image is asked for
                answer = ask()
        if "429" in answer:
            break
    return answer


@pytest.mark.parametrize(("example", "shown"), EXAMPLES, ids=lambda one: f"line {one.line}" if one else "nothing")
def test_the_example_gives_what_is_shown(
    example: Block, shown: Block | None, folder: Path, service: Any, request: pytest.FixtureRequest
) -> None:
    limited = request.getfixturevalue("limited") if "5002" in example.text else ""
    keyed = request.getfixturevalue("keyed") if "5003" in example.text else ""
    if shown is not None and "429" in shown.text:
        answer = beside_another(limited, lambda: answer_of(example.text, folder, service.url, limited))
    else:
        answer = answer_of(example.text, folder, service.url, limited, keyed)
    if shown is None:
        with Image.open(folder / "mask.png") as mask:
            assert mask.mode == "L" and mask.size == (480, 360) and set(np.unique(np.asarray(mask))) == {0, 255}
    elif shown.language == "json":
        assert differences(shown.text, answer) == []
    elif shown.language == "http":
        assert lines_missing(shown.text, answer.replace("\r", "")) == []
    else:
        assert shown.language == "text" and answer == shown.text.strip()


def test_the_failures_that_nobody_can_ask_for_look_as_they_are_shown(folder: Path, service: Any, limited: str) -> None:
    asked = {
        "504": f"curl -si http://localhost:5002/sam/score --data-binary @- <<< '{sam_request('IMAGE')}'",
        "503": f"curl -si http://localhost:5002/sam/score --data-binary @- <<END\n{sam_request('$image')}\nEND",
        "500": 'curl -si http://localhost:5002/pipeline/score --data \'{"input_data": {"columns": [], "data": []}}\'',
    }
    assert [block.text.split()[1] for block in FAILURES] == list(asked)
    for block in FAILURES:
        with silent_host() as (image_url, _):
            script = asked[block.text.split()[1]].replace("IMAGE", image_url)
            answer = answer_of(script, folder, service.url, limited)
        assert lines_missing(block.text, answer.replace("\r", "")) == [] and "secret" not in answer


def test_every_route_is_documented() -> None:
    app = create_app(Settings(detector="demo-yolof", segmenter="demo-sam"))
    paths = {route.path for route in app.routes if isinstance(route, Route)}
    assert {"/score", "/version", "/health/ready"} <= paths
    documents = "".join(path.read_text() for path in (REPOSITORY / "docs").glob("*.md"))
    for path in paths - {"/docs/oauth2-redirect"}:
        assert re.search(
            rf"[ `\w]{re.escape(path.split('{')[0].rstrip('/'))}\b" if path != "/" else "`GET /`", documents
        ), path
    asked = "".join(example.text for example, _ in EXAMPLES)
    for path in ("/yolof/score", "/sam/score", "/pipeline/score", "ask /score"):
        assert path in asked


def test_every_param_is_in_an_example_that_is_answered() -> None:
    # The service of the examples has classes of its own, so that texts are shown with its refusal of them.
    answered = "".join(
        example.text
        for example, shown in EXAMPLES
        if shown and ("message" not in shown.text or '"message": "params.texts: this detector finds' in shown.text)
    )
    params = openapi.document("1")["components"]["schemas"]["Request"]["properties"]["params"]["properties"]
    assert len(params) >= 8
    for name, schema in params.items():
        assert f'"{name}": ' in answered, name
        assert f"`{name}`" in DOCUMENT.read_text()
        for value in schema.get("enum", ()):
            assert f'"{value}"' in DOCUMENT.read_text()


def test_every_error_class_is_in_an_example() -> None:
    def below(kind: type[errors.ServiceError]) -> list[type[errors.ServiceError]]:
        return [kind, *(one for sub in kind.__subclasses__() for one in below(sub))]

    shown = {block.text.split()[1] for block in BLOCKS if block.language == "http"}
    for kind in below(errors.ServiceError):
        # Whom there is nobody to show it to; and what takes two at the same time (tests/app/serving).
        if kind not in (errors.ClientGone, errors.Conflict):
            assert str(kind.status) in shown, kind.__name__


def test_an_answer_of_another_form_is_told() -> None:
    shown = '[{"boxes": [{"score": 0.5, "label": "can", "mask": "iVBORw0…"}]}]'
    assert differences(shown, '[{"boxes": [{"score": 1, "label": "x", "mask": "iVBORw0KG"}]}]') == []
    for other in (
        '[{"boxes": [{"score": "1", "label": "x", "mask": "iVBORw0"}]}]',
        '[{"boxes": [{"score": 1, "label": "x", "mask": "other"}]}]',
        '[{"boxes": [{"score": 1, "label": "x"}]}]',
        '[{"boxes": [{"score": 1, "label": "x", "mask": "iVBORw0", "more": 1}]}]',
        '[{"boxes": []}]',
        "[]",
        "{}",
    ):
        assert differences(shown, other) != [], other
    assert differences('{"message": "got …"}', '{"message": "got it"}') == []
    assert differences('{"message": "got …"}', '{"message": "had it"}') != []
    assert differences('[{"a": 1}, …]', '[{"a": 1}, {"a": 2}]') == []
    assert differences('{"a": {…}, "b": […], …}', '{"a": 1, "b": 2, "c": 3}') == []
    assert lines_missing("HTTP/1.1 200 OK\nx: …", "HTTP/1.1 200 OK\nx: 1\ny: 2") == []
    assert lines_missing("HTTP/1.1 200 OK", "HTTP/1.1 404 Not Found") == ["HTTP/1.1 200 OK"]
