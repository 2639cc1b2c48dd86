"""Boxes of photos that are stored on their side, in whichever frame a file has them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps
from pycocotools import mask as coco_mask

from models.data import DataError, load, read

STORED_WH, UPRIGHT_WH = (64, 40), (40, 64)


def photo(path: Path, orientation: int, spot: tuple[int, int, int, int] = (0, 0, 0, 0)) -> None:
    """64 x 40 stored pixels, and a white spot."""
    pixels = np.zeros((40, 64), np.uint8)
    pixels[spot[1] : spot[3], spot[0] : spot[2]] = 255
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(pixels).save(path, exif=exif)


def coco(folder: Path, size_wh: tuple[int, int], *objects: dict) -> Path:
    image = {"id": 1, "file_name": "a.png", "width": size_wh[0], "height": size_wh[1]}
    found = [{"id": at, "image_id": 1, "category_id": 1} | one for at, one in enumerate(objects)]
    content = {"images": [image], "annotations": found, "categories": [{"id": 1, "name": "can"}]}
    path = folder / "x.json"
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
@pytest.mark.parametrize(
    ("kind", "stated_wh"),  # a mask has the size that is stated
    [(kind, wh) for kind in ("box", "polygon", "mask") for wh in (STORED_WH, UPRIGHT_WH)][:-1],
)
def test_boxes_of_the_stored_photo_are_turned_with_it(tmp_path, orientation, kind, stated_wh):
    spot = (45, 10, 60, 17)  # beyond the upright photo's width
    photo(tmp_path / "a.png", orientation, spot)
    x1, y1, x2, y2 = spot
    one = {"bbox": [x1, y1, x2 - x1, y2 - y1]}
    if kind == "polygon":
        one = {"segmentation": [[x1, y1, x2, y1, x2, y2, x1, y2]]}
    elif kind == "mask":
        mask = np.zeros((40, 64), np.uint8)
        mask[y1:y2, x1:x2] = 1
        rle = coco_mask.encode(np.asfortranarray(mask))
        one = {"segmentation": {"size": rle["size"], "counts": rle["counts"].decode()}}
    dataset, problems = read(coco(tmp_path, stated_wh, one))
    [(image, found)] = dataset.annotations()
    assert image.size_hw == (64, 40) and not any(problem.fatal for problem in problems)
    assert "turned upright" in problems[0].reason
    with Image.open(tmp_path / "a.png") as opened:
        shown = np.asarray(ImageOps.exif_transpose(opened)) > 0
    ys, xs = np.nonzero(shown)
    assert found.box_xyxy == (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
    if kind != "box":
        assert np.array_equal(found.mask(image.size_hw), shown)


def test_boxes_of_the_upright_photo_beside_the_size_of_the_stored_one(tmp_path):
    photo(tmp_path / "a.png", 6)
    dataset, [problem] = read(coco(tmp_path, STORED_WH, {"bbox": [5, 45, 10, 15]}))
    [(image, found)] = dataset.annotations()
    assert image.size_hw == (64, 40) and found.box_xyxy == (5, 45, 15, 60)
    assert "the boxes fit the upright one" in problem.reason and not problem.fatal


def test_what_fits_both_ways_is_asked(tmp_path):
    photo(tmp_path / "a.png", 6)
    path = coco(tmp_path, STORED_WH, {"bbox": [1, 2, 10, 10]})
    with pytest.raises(DataError, match="a.png: stored as 64 x 40 pixels.*--orientation upright or"):
        load(path)
    assert load(path, orientation="upright").images[0].annotations[0].box_xyxy == (1, 2, 11, 12)
    assert load(path, orientation="stored").images[0].annotations[0].box_xyxy == (28, 1, 38, 11)
    assert load(path, orientation="stored").images[0].size_hw == (64, 40)


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_the_upright_size_with_boxes_that_fit_is_as_it_says(tmp_path, orientation):
    photo(tmp_path / "a.png", orientation)
    size_wh = UPRIGHT_WH if orientation == 6 else STORED_WH
    dataset, problems = read(coco(tmp_path, size_wh, {"bbox": [1, 2, 10, 10]}))
    assert problems == [] and dataset.images[0].size_hw == size_wh[::-1]


def test_a_photo_without_objects_is_upright(tmp_path):
    photo(tmp_path / "a.png", 8)
    dataset, problems = read(coco(tmp_path, STORED_WH))
    assert problems == [] and dataset.images[0].size_hw == (64, 40)


def test_a_box_that_is_turned_keeps_its_score(tmp_path):
    photo(tmp_path / "a.png", 6)
    path = coco(tmp_path, STORED_WH, {"bbox": [45, 10, 15, 7], "score": 0.4}, {"bbox": [1, 2, 10, 10]})
    assert [one.score for _, one in load(path, scores=True).annotations()] == [0.4, None]
    assert [one.score for _, one in load(path).annotations()] == [None, None]  # a data set has none
