"""API keys: who is let in, who is not, and how keys change while the service runs."""

from __future__ import annotations

import asyncio
import gc
import gzip
import json
import os
import zlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from app.errors import Unauthorized
from app.http.access import ApiKeys
from app.main import create_app
from app.settings import Settings, SettingsError

KEY, OTHER = "k" * 32, "3f1c" * 16
NOTHING = {"input_data": {"columns": ["image"], "data": []}}


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def refusal(keys: ApiKeys, headers: dict[str, str]) -> str:
    with pytest.raises(Unauthorized) as refused:
        keys.client_of(headers)
    assert refused.value.status == 401 and refused.value.headers == {"www-authenticate": "Bearer"}
    return refused.value.message


@pytest.fixture
def converse(model_folders: Any) -> Callable[..., None]:
    """Hold a conversation with a service that has these settings, over a real connection."""

    def start(conversation: Callable[[httpx.AsyncClient, FastAPI], Awaitable[None]], **settings: Any) -> None:
        async def all_of_it() -> None:
            app = create_app(
                Settings(detector="none", segmenter=str(model_folders.segmenter), device="cpu", **settings)
            )
            server = uvicorn.Server(
                uvicorn.Config(app, port=0, http="h11", log_config=None, log_level="error", lifespan="on")
            )
            serving = asyncio.create_task(server.serve())
            while not server.started:
                assert not serving.done()
                await asyncio.sleep(0.01)
            port = server.servers[0].sockets[0].getsockname()[1]
            try:
                async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
                    await conversation(client, app)
            finally:
                server.should_exit = True
                await serving

        asyncio.run(all_of_it())

    return start


def test_every_key_lets_in_and_tells_its_client_apart() -> None:
    keys = ApiKeys([KEY, OTHER])
    assert keys.wanted and keys.count == 2
    first, second = (keys.client_of(bearer(key)) for key in (KEY, OTHER))
    assert first != second and len(first) == 12
    assert KEY not in first
    assert keys.client_of({"authorization": f"bearer   {KEY} "}) == first  # the scheme's case does not matter


@pytest.mark.parametrize(
    ("headers", "told"),
    [
        ({}, "got none"),
        ({"authorization": ""}, "got none"),
        ({"authorization": f"Basic {KEY}"}, "got another form"),
        ({"authorization": "Bearer"}, "got another form"),
        ({"authorization": KEY}, "got another form"),
        (bearer(KEY[:-1]), "not one of this service's"),
        (bearer(KEY + "k"), "not one of this service's"),
        (bearer("é" * 32), "not one of this service's"),
        (bearer("\u20ac" * 32), "not one of this service's"),
    ],
)
def test_whoever_brings_no_key_is_told_what_is_wanted(headers: dict[str, str], told: str) -> None:
    message = refusal(ApiKeys([KEY]), headers)
    assert told in message and KEY[:-1] not in message


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        (["short"], "BOX2MASK_API_KEYS: expected at least 16 characters, got 5 in key 1"),
        ([KEY, "ü" * 20], "BOX2MASK_API_KEYS: expected visible ASCII characters, got others in key 2"),
    ],
)
def test_keys_that_are_no_good_are_refused_and_not_shown(keys: list[str], told: str) -> None:
    with pytest.raises(SettingsError) as error:
        ApiKeys(keys)
    assert str(error.value).startswith(told)
    assert keys[-1] not in str(error.value)


def test_a_file_rotates_keys_while_the_service_runs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file, now = tmp_path / "keys", [0.0]
    file.write_text(f"# ours\n{KEY}   # until Friday\n\n")
    keys = ApiKeys(file=file, clock=lambda: now[0])
    keys.client_of(bearer(KEY))
    refusal(keys, bearer(OTHER))

    def replace(text: str) -> None:
        new = tmp_path / "new"
        new.write_text(text)
        os.replace(new, file)
        now[0] += 2

    replace(f"{KEY}\n{OTHER}\n")
    assert keys.client_of(bearer(KEY)) != keys.client_of(bearer(OTHER))
    replace(f"{OTHER}\n")
    refusal(keys, bearer(KEY))
    for broken in ("", "short\n"):  # a mistake locks nobody out, and lets nobody in
        replace(broken)
        keys.client_of(bearer(OTHER))
        refusal(keys, bearer(KEY))
    file.unlink()
    now[0] += 2
    keys.client_of(bearer(OTHER))
    assert "the API keys stay as they were" in caplog.text and OTHER not in caplog.text


def test_a_file_that_can_be_read_at_last_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rotated without the rights to read it, which `chmod` then gives; the content and its time stay as they are."""
    file, now = tmp_path / "keys", [0.0]
    file.write_text(KEY)
    keys = ApiKeys(file=file, clock=lambda: now[0])
    new = tmp_path / "new"
    new.write_text(OTHER)
    os.replace(new, file)
    now[0] += 2
    with monkeypatch.context() as unreadable:  # root, who may run the tests, can read everything

        def read_text(*_: object) -> str:
            raise PermissionError(13, "Permission denied")

        unreadable.setattr(Path, "read_text", read_text)
        refusal(keys, bearer(OTHER))
    file.chmod(0o444)
    now[0] += 2
    keys.client_of(bearer(OTHER))
    refusal(keys, bearer(KEY))


@pytest.mark.parametrize("keys", [",", " , ", "  "])
def test_a_setting_that_lists_no_key_is_no_open_door(monkeypatch: pytest.MonkeyPatch, keys: str) -> None:
    """As `"$OLD,$NEW"` is with neither of them set."""
    monkeypatch.setenv("BOX2MASK_API_KEYS", keys)
    with pytest.raises(SettingsError, match="BOX2MASK_API_KEYS.*expected keys, separated by commas or spaces"):
        Settings.from_environment()


def test_a_file_without_keys_is_no_open_door(tmp_path: Path) -> None:
    for content, told in ((b"", "got none"), (b"# nothing\n", "got none"), (b"\xff\xfe", "it is not a text")):
        (tmp_path / "keys").write_bytes(content)
        with pytest.raises(SettingsError, match=f"BOX2MASK_API_KEYS_FILE: .*{told}"):
            ApiKeys(file=tmp_path / "keys")
    with pytest.raises(SettingsError, match="BOX2MASK_API_KEYS_FILE: cannot read .*: No such file"):
        ApiKeys(file=tmp_path / "missing")


def test_a_service_with_keys_answers_probes_and_nobody_else_without_one(converse: Callable[..., None]) -> None:
    async def conversation(client: httpx.AsyncClient, app: FastAPI) -> None:
        for path in ("/", "/health/live", "/health/ready", "/openapi.json", "/swagger.json", "/docs"):
            assert (await client.get(path)).status_code == 200, path
        for path in ("/", "/score", "/sam/score", "/pipeline/score", "/score/", "/nowhere"):
            for headers in ({}, bearer("no-such-key-" * 3), bearer(KEY[:-1])):
                refused = await client.post(path, json=NOTHING, headers=headers)
                assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer"), path
                assert refused.headers["x-ms-request-id"] and refused.json()["message"]
        assert (await client.get("/version")).status_code == 401
        assert (await client.get("/version", headers=bearer(OTHER))).status_code == 200
        for key in (KEY, OTHER):
            answered = await client.post("/sam/score", json=NOTHING, headers=bearer(key))
            assert answered.status_code == 400 and "input_points" in answered.text

    converse(conversation, api_keys=f"{KEY}, {OTHER}")


def test_no_key_is_wanted_where_there_are_none(converse: Callable[..., None]) -> None:
    async def conversation(client: httpx.AsyncClient, app: FastAPI) -> None:
        for headers in ({}, bearer("whatever it is")):
            assert (await client.get("/version", headers=headers)).status_code == 200

    converse(conversation)


def test_pages_of_listed_origins_and_no_others_may_use_the_service(converse: Callable[..., None]) -> None:
    async def conversation(client: httpx.AsyncClient, app: FastAPI) -> None:
        async def preflight(origin: str) -> httpx.Response:
            asked = {"access-control-request-method": "POST", "access-control-request-headers": "authorization"}
            return await client.options("/score", headers={"origin": origin, **asked})

        listed = await preflight("https://labels.example")
        assert listed.status_code == 200
        assert listed.headers["access-control-allow-origin"] == "https://labels.example"
        assert "access-control-allow-origin" not in (await preflight("https://evil.example")).headers
        refused = await client.get("/version", headers={"origin": "https://labels.example"})
        assert refused.status_code == 401  # which the page is allowed to read
        assert refused.headers["access-control-allow-origin"] == "https://labels.example"
        assert "server-timing" in refused.headers["access-control-expose-headers"]

    converse(conversation, api_keys=KEY, cors_origins="https://labels.example https://other.example:8443")


def test_no_origin_may_unless_it_is_listed(converse: Callable[..., None]) -> None:
    async def conversation(client: httpx.AsyncClient, app: FastAPI) -> None:
        answered = await client.get("/version", headers={"origin": "https://labels.example"})
        assert answered.status_code == 200 and "access-control-allow-origin" not in answered.headers

    converse(conversation)


@pytest.mark.parametrize("origins", ["labels.example", "https://labels.example/", "https://a.example,nonsense"])
def test_origins_that_no_browser_sends_are_refused(monkeypatch: pytest.MonkeyPatch, origins: str) -> None:
    monkeypatch.setenv("BOX2MASK_CORS_ORIGINS", origins)
    with pytest.raises(SettingsError, match="BOX2MASK_CORS_ORIGINS: .*expected origins such as"):
        Settings.from_environment()


def test_one_key_cannot_take_all_places(converse: Callable[..., None]) -> None:
    async def conversation(client: httpx.AsyncClient, app: FastAPI) -> None:
        first, second = (ApiKeys([key]).client_of(bearer(key)) for key in (KEY, OTHER))
        admission = app.state.admission
        with admission.admit(first), admission.admit(first):
            refused = await client.post("/sam/score", json=NOTHING, headers=bearer(KEY))
            assert refused.status_code == 429 and "2 requests with this key are in work" in refused.json()["message"]
            assert (await client.post("/sam/score", json=NOTHING, headers=bearer(OTHER))).status_code == 400
            with admission.admit(second), admission.admit(second):
                refused = await client.post("/sam/score", json=NOTHING, headers=bearer(OTHER))
                assert refused.status_code == 429 and refused.json()["message"].startswith("4 requests are in work")
        assert (await client.post("/sam/score", json=NOTHING, headers=bearer(KEY))).status_code == 400

    converse(conversation, api_keys=f"{KEY} {OTHER}", max_requests=4)


def test_a_keys_share_is_that_of_the_keys_there_are(converse: Callable[..., None], tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(KEY)

    async def conversation(client: httpx.AsyncClient, app: FastAPI) -> None:
        first = ApiKeys([KEY]).client_of(bearer(KEY))
        admission = app.state.admission
        with admission.admit(first), admission.admit(first):
            assert (await client.post("/sam/score", json=NOTHING, headers=bearer(KEY))).status_code == 400
            file.write_text(f"{KEY}\n{OTHER}\n")
            await asyncio.sleep(1.1)  # it is looked at once a second
            assert (await client.post("/sam/score", json=NOTHING, headers=bearer(KEY))).status_code == 429
            assert (await client.post("/sam/score", json=NOTHING, headers=bearer(OTHER))).status_code == 400

    converse(conversation, api_keys_file=file, max_requests=4)


# Bodies


def packed(content: bytes, encoding: str) -> bytes:
    return gzip.compress(content) if encoding == "gzip" else zlib.compress(content)


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_compressed_body_is_unpacked_within_its_limit(converse: Callable[..., None], encoding: str) -> None:
    async def conversation(client: httpx.AsyncClient, app: FastAPI) -> None:
        async def post(content: bytes) -> httpx.Response:
            return await client.post("/sam/score", content=content, headers={"content-encoding": encoding})

        text = json.dumps(NOTHING).encode()
        plain = await client.post("/sam/score", content=text)
        assert (await post(packed(text, encoding))).json() == plain.json()
        limit = 3 * 2**20
        assert (await post(packed(text.ljust(limit), encoding))).json() == plain.json()
        for bomb in (text.ljust(limit + 1), b" " * 2**28):
            refused = await post(packed(bomb, encoding))
            assert refused.status_code == 413
            assert refused.json() == {"message": f"expected a body of at most {limit} bytes, got more"}
        for broken, told in ((packed(text, encoding)[:-3], "ends before"), (text, f"is not {encoding}")):
            refused = await post(broken)
            assert refused.status_code == 400 and told in refused.json()["message"]
        assert (await post(packed(text, encoding))).json() == plain.json()

    converse(conversation, max_body_mb=3)


def test_a_gzip_of_several_members_is_one_body(converse: Callable[..., None]) -> None:
    async def conversation(client: httpx.AsyncClient, app: FastAPI) -> None:
        text = json.dumps(NOTHING).encode()
        content = gzip.compress(text[:20]) + gzip.compress(text[20:])
        answered = await client.post("/sam/score", content=content, headers={"content-encoding": "gzip"})
        assert answered.json() == (await client.post("/sam/score", content=text)).json()

    converse(conversation)


def test_an_unknown_compression_is_a_415(converse: Callable[..., None]) -> None:
    async def conversation(client: httpx.AsyncClient, app: FastAPI) -> None:
        refused = await client.post("/sam/score", content=b"x", headers={"content-encoding": "br"})
        assert refused.status_code == 415
        assert refused.json() == {"message": "content-encoding: expected gzip, deflate or none, got 'br'"}

    converse(conversation)


def test_a_declared_length_over_the_limit_is_refused_unread(converse: Callable[..., None]) -> None:
    async def conversation(client: httpx.AsyncClient, app: FastAPI) -> None:
        reader, writer = await asyncio.open_connection(client.base_url.host, client.base_url.port)
        writer.write(b"POST /score HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999\r\n\r\n")  # and nothing follows
        assert b" 413 " in await reader.readline()
        writer.close()
        await writer.wait_closed()

    converse(conversation)


@pytest.mark.parametrize("declared", [2**20, 2**22])
def test_what_comes_in_chunks_has_no_other_length(converse: Callable[..., None], declared: int) -> None:
    """HTTP has the chunks count where both are there."""
    text = json.dumps(NOTHING).encode().ljust(2**21)

    async def conversation(client: httpx.AsyncClient, app: FastAPI) -> None:
        reader, writer = await asyncio.open_connection(client.base_url.host, client.base_url.port)
        writer.write(b"POST /sam/score HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n")
        writer.write(b"content-length: %d\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (declared, len(text), text))
        plain = await client.post("/sam/score", json=NOTHING)
        assert b" %d " % plain.status_code in await reader.readline()
        writer.close()
        await writer.wait_closed()

    converse(conversation)


def test_a_large_body_is_read_whole_and_given_back(converse: Callable[..., None]) -> None:
    """Also where its request fails: no error keeps it until the garbage collector comes by."""
    broken = b'{"input_data": ' + b" " * (48 * 2**20)

    async def conversation(client: httpx.AsyncClient, app: FastAPI) -> None:
        small = await client.post("/sam/score", json=NOTHING)
        large = await client.post("/sam/score", content=json.dumps(NOTHING).encode().ljust(3 * 2**20))
        assert (large.status_code, large.json()) == (small.status_code, small.json())
        gc.collect()
        gc.disable()
        try:
            await client.post("/sam/score", content=broken)  # after which the process has the memory for one
            before = resident_mb()
            for _ in range(5):
                assert (await client.post("/sam/score", content=broken)).status_code == 400
            assert resident_mb() - before < 100
        finally:
            gc.enable()

    converse(conversation)


def resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 2**20
