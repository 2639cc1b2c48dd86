"""Images of tasks: whose token goes where, tokens that end, and addresses that lead nowhere."""

from __future__ import annotations

import base64
from collections.abc import Iterator

import pytest

from app.images.reading import ImageLimits
from app.images.store import ImageStore
from app.images.urls import OwnServer
from app.label_studio.task_images import TaskImages, image_address
from app.label_studio.tokens import Token
from app.settings import Settings, SettingsError
from models.images.decoding import ImageError
from tests.app.conftest import web_server
from tests.app.label_studio.stub_server import PERSONAL, StubStudio, stub_studio
from tests.app.scoring_requests import PICTURE

FILE = base64.b64decode(PICTURE)
PUBLIC, ANY = ImageLimits(), ImageLimits(urls="any")


@pytest.fixture
def studio() -> Iterator[StubStudio]:
    with stub_studio() as started:
        started.files["/data/upload/1/a.png"] = FILE
        started.files["/data/local-files/?d=photos/a%20b.png"] = FILE
        yield started


def images(studio: StubStudio | None, token: str | None = PERSONAL, path: str = "") -> TaskImages:
    url = None if studio is None else studio.url + path
    return TaskImages(Settings(label_studio_url=url, label_studio_token=token))


@pytest.mark.parametrize("address", ["/data/upload/1/a.png", "/data/local-files/?d=photos/a%20b.png"])
def test_its_own_files_come_by_an_access_token(studio: StubStudio, address: str) -> None:
    mine = images(studio)
    assert mine.file(address, 7, PUBLIC) == FILE  # at an address that is not public
    assert mine.file(studio.url + address, 7, PUBLIC) == FILE  # as a whole URL too
    bearer = f"Bearer {studio.access[0]}"
    assert studio.asked == [("/api/token/refresh/", None), (address, bearer), (address, bearer)]
    assert not any(PERSONAL in (authorization or "") for _, authorization in studio.asked)


def test_a_legacy_token_is_sent_as_it_is(studio: StubStudio) -> None:
    studio.legacy = "0123456789abcdef"
    assert images(studio, studio.legacy).file("/data/upload/1/a.png", 7, PUBLIC) == FILE
    assert studio.asked == [("/data/upload/1/a.png", "Token 0123456789abcdef")]


def test_an_access_token_is_renewed_when_it_ends_and_when_it_is_refused(studio: StubStudio) -> None:
    now = [0.0]
    token = Token(studio.url, PERSONAL, clock=lambda: now[0])
    first = token.authorization()
    assert token.authorization() == first and len(studio.access) == 1
    now[0] = 1e12  # long past what it says
    assert token.authorization() != first and len(studio.access) == 2
    mine = images(studio)
    mine.file("/data/upload/1/a.png", 7, PUBLIC)
    studio.access.append("another")  # it takes no other from now on
    assert mine.file("/data/upload/1/a.png", 7, PUBLIC) == FILE


@pytest.mark.parametrize("mode", ["public", "any", "off"])
def test_the_token_goes_to_no_other_server_also_not_by_a_redirect(studio: StubStudio, mode: str) -> None:
    limits = ImageLimits(urls=mode)  # type: ignore[arg-type]
    with stub_studio() as other, web_server({"/image": FILE}) as store:
        studio.resolved = {"s3://bucket/a.png": f"{store}/image", "gs://b/back.png": f"{other.url}/data/upload/1/a.png"}
        mine = images(studio)
        if mode == "any":
            assert mine.file("s3://bucket/a.png", 7, limits) == FILE  # the store is not public either
            with pytest.raises(ImageError, match="401"):
                mine.file("gs://b/back.png", 7, limits)
            with pytest.raises(ImageError, match="401"):
                mine.file(f"{other.url}/data/upload/1/a.png", 7, limits)
            assert len(other.asked) == 2 and all(authorization is None for _, authorization in other.asked)
        else:
            expected = "public addresses only" if mode == "public" else "does not fetch URLs"
            for address in ("s3://bucket/a.png", f"{other.url}/data/upload/1/a.png"):
                with pytest.raises(ImageError, match=expected):
                    mine.file(address, 7, limits)
            assert other.asked == [] and mine.file("/data/upload/1/a.png", 7, limits) == FILE
    (presigned,) = {path for path, _ in studio.asked if "fileuri" in path and "czM6" in path}
    assert presigned.startswith("/tasks/7/presign/?fileuri=")


def test_another_server_that_leads_back_gets_no_token_for_it(studio: StubStudio) -> None:
    with stub_studio() as other:
        other.is_open = True
        studio.resolved["s3://b/a.png"] = f"{other.url}/tasks/1/presign/?fileuri=czM6Ly9iL2EucG5n"
        other.resolved["s3://b/a.png"] = f"{studio.url}/data/upload/1/a.png"
        with pytest.raises(ImageError, match="the image URL answered 401"):
            images(studio).file("s3://b/a.png", 7, ANY)
        assert len(other.asked) == 1
        assert studio.asked[-1] == ("/data/upload/1/a.png", None)


@pytest.mark.parametrize(
    ("base", "url", "has"),
    [
        ("http://ls:8080", "http://ls:8080/data/upload/a.png", True),
        ("http://ls", "http://ls:80/data/a.png", True),
        ("http://LS:8080/", "http://ls:8080/data/a.png", True),
        ("http://ls/prefix", "http://ls/prefix/data/a.png", True),
        ("http://ls/prefix", "http://ls/other/data/a.png", False),
        ("http://ls/prefix", "http://ls/prefixed/a.png", False),
        ("http://ls/prefix", "http://ls/prefix/../data/a.png", False),
        ("http://ls/prefix", "http://ls/prefix/%2e%2e/data/a.png", False),
        ("http://ls:8080", "http://ls:8081/data/a.png", False),
        ("http://ls", "https://ls/data/a.png", False),
        ("http://ls", "http://ls.example/data/a.png", False),
        ("http://ls", "http://x@ls.example/data/a.png", False),
    ],
)
def test_which_urls_are_its_own(base: str, url: str, has: bool) -> None:
    assert OwnServer(base, "secret").has(url) is has


def test_a_path_before_all_its_paths(studio: StubStudio) -> None:
    studio.files["/prefix/data/upload/1/a.png"] = FILE
    studio.legacy = "x"
    for address in ("/data/upload/1/a.png", "/prefix/data/upload/1/a.png"):
        assert images(studio, "x", "/prefix").file(address, 7, PUBLIC) == FILE


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("/data/upload/1/none.png", "Label Studio answered 404: the file is not there"),
        ("photos/a.png", "is this a path?"),
    ],
)
def test_an_address_that_leads_nowhere_is_told(studio: StubStudio, address: str, told: str) -> None:
    with pytest.raises(ImageError) as refused:
        images(studio).file(address, 7, PUBLIC)
    assert told in str(refused.value) and PERSONAL not in str(refused.value)


def test_tokens_that_are_no_good_are_told_and_not_shown(studio: StubStudio) -> None:
    for token, told in (
        (PERSONAL[:-1] + "x", "answered 401 to BOX2MASK_LABEL_STUDIO_TOKEN"),
        ("legacy", "answered 401"),
    ):
        with pytest.raises(ImageError) as refused:
            images(studio, token).file("/data/upload/1/a.png", 7, PUBLIC)
        assert told in str(refused.value) and token not in str(refused.value)
    studio.refuses_tokens = True
    with pytest.raises(ImageError, match="answered 401 to BOX2MASK_LABEL_STUDIO_TOKEN"):
        images(studio).file("/data/upload/1/a.png", 7, PUBLIC)
    with pytest.raises(ImageError, match="could not ask Label Studio for an access token"):
        TaskImages(Settings(label_studio_url="http://127.0.0.1:9", label_studio_token=PERSONAL)).file(
            "/data/upload/1/a.png", 7, PUBLIC
        )


@pytest.mark.parametrize("address", ["/data/upload/1/a.png", "s3://bucket/a.png"])
def test_without_a_server_its_addresses_name_the_settings(address: str) -> None:
    with pytest.raises(ImageError, match="start this service with BOX2MASK_LABEL_STUDIO_URL"):
        images(None, None).file(address, 7, PUBLIC)


def test_base64_is_an_image_too() -> None:
    mine, store = images(None, None), ImageStore(2**20)
    for address in (PICTURE, f"data:image/png;base64,{PICTURE}"):
        assert mine.file(address, 7, PUBLIC) == FILE
        assert mine.keep(store, "", address, FILE).file == FILE and mine.known(store, "", address) is None


def test_images_are_kept_for_their_client_and_a_while(studio: StubStudio) -> None:
    now, store = [0.0], ImageStore(2**20)
    mine = TaskImages(Settings(label_studio_url=studio.url), clock=lambda: now[0])
    kept = mine.keep(store, "a", "/data/upload/1/a.png", FILE)
    assert mine.known(store, "a", "/data/upload/1/a.png") is kept
    assert mine.known(store, "b", "/data/upload/1/a.png") is None
    now[0] = 601.0
    assert mine.known(store, "a", "/data/upload/1/a.png") is None
    assert mine.keep(ImageStore(0), "a", "/data/upload/1/a.png", FILE).file == FILE  # a store that keeps nothing


def test_a_task_names_its_image() -> None:
    assert image_address({"id": 7, "data": {"photo": "/data/upload/a.png"}}, "photo") == "/data/upload/a.png"
    for task in ({"id": 7}, {"id": 7, "data": {"image": "x"}}, {"id": 7, "data": {"photo": ["x"]}}):
        with pytest.raises(Exception, match=r"task 7, data.photo: expected the address of an image, got"):
            image_address(task, "photo")


@pytest.mark.parametrize("url", ["localhost:8080", "ftp://ls", "http://user:x@ls", "http://ls/?a=b"])
def test_a_server_s_address_is_checked(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOX2MASK_LABEL_STUDIO_URL", url)
    with pytest.raises(SettingsError, match="BOX2MASK_LABEL_STUDIO_URL: .*expected the address of a server"):
        Settings.from_environment()
