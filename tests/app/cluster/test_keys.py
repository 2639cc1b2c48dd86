"""What stands for a photo when a replica is chosen."""

from __future__ import annotations

import base64

import pytest

from app.cluster.service import keys
from app.contract.schemas import Request
from app.images.reading import ImageLimits
from app.images.store import reference_of
from app.label_studio.asked import Asked
from app.label_studio.labeling_config import parse
from tests.app.scoring_requests import OTHER, PICTURE

LIMITS = ImageLimits()
FILE = base64.b64decode(PICTURE)
BRUSH = '<BrushLabels name="b" toName="photo"><Label value="a"/></BrushLabels>'
CONFIG = f'<View><Image name="photo" value="$url"/>{BRUSH}</View>'


@pytest.mark.parametrize(
    "image",
    [
        PICTURE,
        f"data:image/png;base64,{PICTURE}",
        "\n".join(PICTURE[at : at + 76] for at in range(0, len(PICTURE), 76)),
        PICTURE.replace("+", "-").replace("/", "_").rstrip("="),
        reference_of(FILE),
    ],
)
def test_a_photo_has_one_key_however_it_is_named(image: str) -> None:
    assert keys.of_image(image, LIMITS) == reference_of(FILE) != keys.of_image(OTHER, LIMITS)


@pytest.mark.parametrize("image", [None, 3, "no base64!", [PICTURE], "data:image/png,x"])
def test_what_is_no_photo_goes_anywhere(image: object) -> None:
    assert keys.of_image(image, LIMITS) == keys.ANY


def test_a_url_goes_by_itself_and_is_not_fetched() -> None:
    one, other = (keys.of_image(f"http://host.invalid/{name}", LIMITS) for name in "ab")
    assert one != other
    assert keys.of_image(" http://host.invalid/a ", LIMITS) == one


def test_the_images_of_a_request_in_any_form() -> None:
    assert keys.images(Request(("image",), ["a", ["b"]])) == ["a", "b"]
    assert keys.images(Request(("x", "image"), [[1, "a"], [2]])) == ["a", None]
    assert keys.images(Request(("x",), [[1]])) == []


def test_label_studios_tasks_go_by_the_address_of_their_photo() -> None:
    def key(address: object) -> str:
        return keys.of_label_studio(Asked([{"id": 1, "data": {"url": address}}], parse(CONFIG), None))

    assert key("/data/upload/1/a.jpg") == key("/data/upload/1/a.jpg") != key("/data/upload/1/b.jpg")
    assert key(None) == keys.ANY
