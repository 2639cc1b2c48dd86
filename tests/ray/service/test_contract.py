"""A service on a cluster of this machine answers as the one without: the most telling tests of the contract, and keys.

All of them: `BOX2MASK_TEST_SERVICE=ray pytest tests/app`, which `make ray-test` runs.
"""

from __future__ import annotations

import base64
import io
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from tests.app.conftest import ModelFolders, Service, answers_of, model_folders, serving
from tests.app.contract.test_bad_input import test_every_scoring_route_explains_bad_input
from tests.app.http.test_routes import (
    test_every_answer_has_the_scoring_servers_headers,
    test_identifiers_that_could_do_harm_are_not_echoed,
    test_the_routers_errors_have_the_same_form,
    test_version_says_what_is_served,
)
from tests.app.same_answers import assert_same
from tests.app.scoring_requests import OTHER, PICTURE, encoded, picture, row, to_sam, to_yolof
from tests.app.test_service import (
    test_boxes_are_azures,
    test_concurrent_requests_get_their_own_answers,
    test_rows_of_one_image_are_answered_as_if_sent_alone,
    test_the_pipeline_is_yolof_then_sam,
)

__all__ = [
    "model_folders",
    "test_boxes_are_azures",
    "test_concurrent_requests_get_their_own_answers",
    "test_every_answer_has_the_scoring_servers_headers",
    "test_every_scoring_route_explains_bad_input",
    "test_identifiers_that_could_do_harm_are_not_echoed",
    "test_rows_of_one_image_are_answered_as_if_sent_alone",
    "test_the_pipeline_is_yolof_then_sam",
    "test_the_routers_errors_have_the_same_form",
    "test_version_says_what_is_served",
]

REPLICAS = 2


@pytest.fixture(scope="module")
def service(model_folders: ModelFolders, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """With two replicas, in place of the one of all tests."""
    settings = {
        "BOX2MASK_DEVICE": "cpu",
        "BOX2MASK_DETECTOR": str(model_folders.detector),
        "BOX2MASK_SEGMENTER": str(model_folders.segmenter),
        "BOX2MASK_RAY_MIN_REPLICAS": str(REPLICAS),
        "BOX2MASK_RAY_REPLICA_CPUS": "0.1",
    }
    with serving(tmp_path_factory.mktemp("service") / "service.log", settings, on_ray=True) as started:
        yield started


@pytest.fixture(scope="module")
def http(service: Service) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service.url, timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def answer(http: httpx.Client) -> Callable[..., Any]:
    return answers_of(http)


def in_work(figures: str) -> float:
    """Requests that the edges have let in."""
    samples = [one for family in text_string_to_metric_families(figures) for one in family.samples]
    return sum(one.value for one in samples if one.name == "box2mask_requests_in_work")


def counted(http: httpx.Client, name: str) -> dict[str, float]:
    """A counter of each replica."""
    families = text_string_to_metric_families(http.get("/metrics").text)
    found: dict[str, float] = {}
    for family in families:
        for sample in family.samples:
            if sample.name == name and sample.labels["process"].startswith("replica-"):
                process = sample.labels["process"]
                found[process] = found.get(process, 0) + sample.value
    return found


def test_a_photo_and_its_clicks_are_with_one_replica(http: httpx.Client, answer: Callable[..., Any]) -> None:
    """By its bytes, its base64 in any wrapping, and its reference: it is encoded once."""
    before = counted(http, "box2mask_embedding_cache_misses_total")
    photos = [base64.b64decode(image) for image in (PICTURE, OTHER)]
    references = [http.post("/images", content=photo).json()["image"] for photo in photos]
    wrapped = "data:image/png;base64," + PICTURE[:40] + "\n" + PICTURE[40:]
    for image in (references[0], PICTURE, wrapped, references[1], OTHER):
        answer(to_sam(row(image, points="[[[20, 20]]]")))
    for reference in references:
        assert http.get(f"/images/{reference}").content == photos[references.index(reference)]
        assert http.get(f"/images/{reference}/embedding").status_code == 200
    after = counted(http, "box2mask_embedding_cache_misses_total")
    assert len(after) == REPLICAS
    # Two photos, of which other tests may have had one encoded already.
    assert sum(after.values()) - sum(before.values()) <= 2


def test_a_request_may_name_photos_that_different_replicas_have(
    http: httpx.Client, answer: Callable[..., Any], photos: list[bytes]
) -> None:
    references = [http.post("/images", content=photo).json()["image"] for photo in photos]
    rows = [row(reference, points="[[[20, 20]]]") for reference in references]
    together = answer(to_sam(*rows))
    assert_same(together, [answer(to_sam(one))[0] for one in rows])
    gone = "sha256:" + 64 * "0"
    response = http.post("/score", json=to_sam(rows[0], row(gone, points="[[[20, 20]]]")))
    assert response.status_code == 410 and response.json()["message"].startswith("row 1, image: ")


def test_a_large_photo_comes_and_goes(http: httpx.Client) -> None:
    """gRPC's own limit, and Ray Serve's, is 4 MB for a message."""
    noise = np.random.default_rng(0).integers(0, 256, (1300, 1300, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "PNG", compress_level=0)
    photo = file.getvalue()
    assert len(photo) > 4 * 2**20
    reference = http.post("/images", content=photo).json()["image"]
    assert http.get(f"/images/{reference}").content == photo
    assert http.post("/yolof/score", json=to_yolof(base64.b64encode(photo).decode())).status_code == 200


@pytest.fixture
def photos() -> list[bytes]:
    """So many that no ring has them all at one replica."""
    return [base64.b64decode(encoded(picture(64, 48, seed=seed))) for seed in range(16)]


def test_keys_limits_and_the_end(model_folders: ModelFolders, tmp_path: Path) -> None:
    """Who has no key is refused; who comes too much is told when to come again; what was begun is answered."""
    settings = {
        "BOX2MASK_DEVICE": "cpu",
        "BOX2MASK_DETECTOR": str(model_folders.detector),
        "BOX2MASK_SEGMENTER": "none",
        "BOX2MASK_API_KEYS": "a-key-that-a-machine-has-drawn",
        "BOX2MASK_ADMIN_KEY": "another-key-that-a-machine-has-drawn",
        "BOX2MASK_MAX_REQUESTS": "2",
        "BOX2MASK_MAX_BODY_MB": "1",
        "BOX2MASK_RAY_REPLICA_CPUS": "0.1",
    }
    headers = {"authorization": "Bearer a-key-that-a-machine-has-drawn"}
    with serving(tmp_path / "service.log", settings, on_ray=True) as started:
        with httpx.Client(base_url=started.url, timeout=60) as client:
            assert client.post("/score", json=to_yolof(PICTURE)).status_code == 401
            assert client.post("/score", json=to_yolof(PICTURE), headers=headers).status_code == 200
            large = client.post("/score", content=b" " * 2**21, headers=headers)
            assert large.status_code == 413 and "at most" in large.json()["message"]
            reload = client.post(
                "/models/reload", headers={"authorization": "Bearer another-key-that-a-machine-has-drawn"}
            )
            assert reload.status_code == 404 and "deploy it anew" in reload.json()["message"]

            def ask(number: int) -> httpx.Response:
                return httpx.post(f"{started.url}/score", json=to_yolof(*[PICTURE] * 32), headers=headers, timeout=60)

            with ThreadPoolExecutor(12) as pool:
                responses = list(pool.map(ask, range(36)))
            statuses = {response.status_code for response in responses}
            assert statuses == {200, 429}
            for response in responses:
                if response.status_code == 429:
                    assert int(response.headers["retry-after"]) >= 1 and response.json()["message"]
            begun: list[httpx.Response] = []
            asking = threading.Thread(target=lambda: begun.append(ask(0)))
            asking.start()
            while not begun and not in_work(client.get("/metrics", headers=headers).text):
                pass
            started.process.send_signal(signal.SIGTERM)
            asking.join()
            assert begun[0].status_code == 200
        assert started.process.wait(60) == 0
