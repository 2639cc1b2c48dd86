"""New models while the service runs: nothing lost, nothing of both, and the old ones go on where the new are none."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import pytest
import safetensors.torch
import torch
from fastapi import FastAPI

from app.settings import Settings
from tests.app.same_answers import assert_same
from tests.app.scoring_requests import OTHER, PICTURE, converse, row, to_sam, to_yolof

KEY = "the key of whoever runs it"
ADMIN = "a-key-that-a-machine-has-drawn"
HEADERS = {"authorization": f"Bearer {ADMIN}"}
PICTURE_FILE = base64.b64decode(PICTURE)
CLICK = to_sam(row(points="[[[40, 30]]]", labels="[[1]]"))


def another_segmenter(folder: Path, into: Path, *, encoder: bool = True) -> Path:
    """The same SAM with other weights, its image encoder's too if `encoder`."""
    shutil.copytree(folder, into)
    weights = safetensors.torch.load_file(into / "model.safetensors")
    torch.manual_seed(1)
    for name, tensor in weights.items():
        if encoder or not name.startswith("vision_encoder"):
            tensor += 0.3 * tensor.abs().mean() * torch.randn_like(tensor)
    safetensors.torch.save_file(weights, into / "model.safetensors", {"format": "pt"})
    return into


def settings_of(model_folders: Any) -> dict[str, str]:
    return {
        "BOX2MASK_DEVICE": "cpu",
        "BOX2MASK_DETECTOR": str(model_folders.detector),
        "BOX2MASK_SEGMENTER": str(model_folders.segmenter),
        "BOX2MASK_ADMIN_KEY": ADMIN,
    }


def test_under_load_nothing_is_lost_and_every_answer_is_of_one_set_of_models(
    model_folders: Any, serve: Callable[..., AbstractContextManager[Any]], tmp_path: Path
) -> None:
    """Clicks on a photo that is known, photos that are new, and pipelines, through reloads to and fro."""
    folders = [model_folders.segmenter, another_segmenter(model_folders.segmenter, tmp_path / "other")]
    requests = [
        ("/sam/score", CLICK),
        ("/sam/score", to_sam(row(boxes="[[10, 10, 90, 50]]"), row(OTHER, boxes="[[5, 5, 60, 60]]"))),
        ("/pipeline/score", to_yolof(PICTURE)),
    ]
    with serve(**settings_of(model_folders)) as service, httpx.Client(base_url=service.url, timeout=120) as http:
        reference = http.post("/images", content=PICTURE_FILE).json()["image"]
        requests.append(("/sam/score", to_sam(row(reference, points="[[[40, 30]]]", labels="[[1]]"))))

        def ask(index: int) -> Any:
            path, content = requests[index]
            response = http.post(path, json=content)
            assert response.status_code == 200, response.text
            return response.json()

        def reload(folder: Path) -> Any:
            response = http.post("/models/reload", json={"segmenter": str(folder)}, headers=HEADERS)
            assert response.status_code == 200, response.text
            return response.json()

        versions = [http.get("/version").json()]
        truth = [[ask(index) for index in range(len(requests))]]
        versions.append(reload(folders[1]))
        truth.append([ask(index) for index in range(len(requests))])
        hashes = [version["segmenter"]["sha256"] for version in versions]
        assert hashes[0] != hashes[1] and versions[0]["detector"] == versions[1]["detector"]
        assert all(which(one, truths) == new for new in (0, 1) for one, *truths in zip(truth[new], *truth, strict=True))

        over, seen = threading.Event(), [set[int](), set[int](), set[int](), set[int]()]

        def keep_asking(index: int) -> int:
            asked = 0
            while not over.is_set():
                seen[index].add(which(ask(index), [truth[0][index], truth[1][index]]))
                asked += 1
            return asked

        with ThreadPoolExecutor(len(requests)) as clients:
            asked = [clients.submit(keep_asking, index) for index in range(len(requests))]
            try:
                for turn in range(4):
                    new = turn % 2
                    assert reload(folders[new])["segmenter"]["sha256"] == hashes[new]
                    # What is asked from now on is answered by them, embeddings that the others made included.
                    for index in range(len(requests)):
                        assert which(ask(index), [truth[0][index], truth[1][index]]) == new
            finally:
                over.set()
            assert all(one.result() for one in asked)
        assert seen == [{0, 1}] * len(requests)
        assert service.log().count("the models before have ended") == 5
        assert " 5" not in "".join(line.split(" in ")[0] for line in service.log().splitlines() if "POST" in line)


def which(answer: Any, truths: list[Any]) -> int:
    """The only one of the answers that this is, but for rounding: what shares a batch is chance."""

    def is_it(truth: Any) -> bool:
        try:
            assert_same(answer, truth)
        except AssertionError:
            return False
        return True

    (found,) = [index for index, truth in enumerate(truths) if is_it(truth)]
    return found


def test_sighup_takes_over_what_the_folder_has_become(
    model_folders: Any, serve: Callable[..., AbstractContextManager[Any]], tmp_path: Path
) -> None:
    served = tmp_path / "served"
    shutil.copytree(model_folders.segmenter, served)
    new = another_segmenter(model_folders.segmenter, tmp_path / "new")
    settings = settings_of(model_folders) | {"BOX2MASK_SEGMENTER": str(served), "BOX2MASK_DETECTOR": "none"}
    with serve(**settings) as service, httpx.Client(base_url=service.url, timeout=120) as http:
        before = http.get("/version").json()["segmenter"]["sha256"]
        served.rename(tmp_path / "old")
        new.rename(served)
        service.process.send_signal(signal.SIGHUP)
        wait_for(lambda: "new models answer" in service.log())
        assert http.get("/version").json()["segmenter"]["sha256"] != before
        (served / "model.safetensors").write_bytes(b"no weights")
        service.process.send_signal(signal.SIGHUP)
        wait_for(lambda: "SIGHUP: the models stay as they are" in service.log())
        assert "model.safetensors" in service.log().splitlines()[-1]
        assert http.post("/score", json=CLICK).status_code == 200
        assert service.process.poll() is None


def wait_for(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_what_cannot_be_loaded_is_explained_and_the_models_stay(
    sam_only: Callable[..., Settings], model_folders: Any, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(model_folders.segmenter, broken)
    (broken / "model.safetensors").write_bytes(b"no weights")

    async def conversation(client: httpx.AsyncClient, app: FastAPI) -> None:
        before = (await client.post("/score", json=CLICK)).json()
        stays = "the models stay as they are: "
        for content, expected in (
            (b"{", 'the body is not JSON: expected {"detector": ..., "segmenter": ...} or nothing'),
            (b"[]", "expected a JSON object or nothing, got list"),
            (b'{"weights": "x"}', "expected detector or segmenter, got 'weights'"),
            (b'{"segmenter": 3}', "segmenter: expected a folder, a name of weights, auto or none, got 3"),
            (b'{"segmenter": ""}', "segmenter: expected a folder, a name of weights, auto or none, got ''"),
            (json.dumps({"segmenter": str(tmp_path / "gone")}).encode(), stays + f"segmenter: {tmp_path}"),
            (json.dumps({"segmenter": str(broken)}).encode(), stays + str(broken)),
            (json.dumps({"segmenter": "none"}).encode(), stays + "there is nothing to serve"),
        ):
            response = await client.post("/models/reload", content=content, headers=HEADERS)
            assert response.status_code == 400
            assert response.json()["message"].startswith(expected)
            assert (await client.get("/health/ready")).status_code == 200
        assert (await client.post("/score", json=CLICK)).json() == before
        # And a name that was refused is not what the next reload takes.
        assert (await client.post("/models/reload", headers=HEADERS)).status_code == 200
        assert (await client.post("/score", json=CLICK)).json() == before

    converse(sam_only(admin_key=ADMIN), conversation)


def test_only_whoever_runs_the_service_may(sam_only: Callable[..., Settings]) -> None:
    async def conversation(client: httpx.AsyncClient, app: FastAPI) -> None:
        for headers in ({}, {"authorization": f"Bearer {KEY.replace(' ', '-')}"}, {"authorization": "Basic eDp5"}):
            assert (await client.post("/models/reload", headers=headers)).status_code == 401
        assert (await client.post("/score", json=CLICK, headers=HEADERS)).status_code == 401

    converse(sam_only(api_keys=KEY.replace(" ", "-"), admin_key=ADMIN), conversation)


def test_without_a_key_nobody_may(sam_only: Callable[..., Settings]) -> None:
    async def conversation(client: httpx.AsyncClient, app: FastAPI) -> None:
        response = await client.post("/models/reload", headers=HEADERS)
        assert response.status_code == 404 and "BOX2MASK_ADMIN_KEY" in response.json()["message"]

    converse(sam_only(), conversation)


def test_one_at_a_time_and_to_its_end(sam_only: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch) -> None:
    async def conversation(client: httpx.AsyncClient, app: FastAPI) -> None:
        may_load, inner = asyncio.Event(), app.state.reloader._load

        async def load(*args: Any) -> Any:
            await may_load.wait()
            return await inner(*args)

        monkeypatch.setattr(app.state.reloader, "_load", load)
        before = app.state.serving.scorer
        first = asyncio.create_task(client.post("/models/reload", headers=HEADERS))
        while not app.state.reloader._busy:
            await asyncio.sleep(0)
        second = await client.post("/models/reload", headers=HEADERS)
        assert second.status_code == 409
        first.cancel()  # who asked has gone
        with pytest.raises(asyncio.CancelledError):
            await first
        may_load.set()
        while app.state.reloader._busy:
            await asyncio.sleep(0.01)
        assert app.state.serving.scorer is not before
        assert (await client.post("/score", json=CLICK)).status_code == 200
        assert (await client.post("/models/reload", headers=HEADERS)).status_code == 200

    converse(sam_only(admin_key=ADMIN), conversation)


def test_the_models_before_end_with_the_last_who_uses_them(sam_only: Callable[..., Settings]) -> None:
    async def conversation(client: httpx.AsyncClient, app: FastAPI) -> None:
        serving = app.state.serving
        with serving.use() as before:
            assert (await client.post("/models/reload", headers=HEADERS)).status_code == 200
            assert serving.scorer is not before.scorer
            for _ in range(50):
                await asyncio.sleep(0)
            answered = await before.scorer.segment(parsed(CLICK))
            assert answered and before.scorer.engine.healthy
        (ending,) = serving._ending
        await ending
        assert not before.scorer.engine.healthy  # its threads have ended

    converse(sam_only(admin_key=ADMIN), conversation)


def parsed(content: Any) -> Any:
    from app.contract.schemas import parse_request

    return parse_request(bytearray(json.dumps(content).encode()), 100)
