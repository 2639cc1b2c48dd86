"""The files of `box2mask run` in Datumaro, with which CVAT imports and exports, and what Datumaro writes of them."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from app.folders.outputs import Outputs
from models.data import load, read, write
from models.data.dataset import Annotation
from models.demo.scenes import render_scene
from tests.app.conftest import COMMAND, environment
from tests.app.results.test_results import SIZE_HW, result_of, shapes

FORMATS = ("masks", "coco", "cvat", "yolo-seg")
DEMO_WEIGHTS = Path(__file__).parents[3] / "weights" / "demo"
Datumaro = Callable[..., Any]


@pytest.fixture(scope="module")
def datumaro(cvat_python: str, tmp_path_factory: pytest.TempPathFactory) -> Datumaro:
    """Runs datumaro_process.py; what it prints, if it is to read."""

    def run(*arguments: object) -> Any:
        done = subprocess.run(
            [cvat_python, "-W", "ignore", str(Path(__file__).parent / "datumaro_process.py"), *map(str, arguments)],
            env=environment({"HOME": str(tmp_path_factory.mktemp("home"))}),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout) if arguments[0] == "read" else None

    return run


@pytest.fixture(scope="module", params=["every awkward mask", "the command"])
def results(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `photos/`, and `out/` as the command writes it: of masks of every sort, and of what it finds."""
    folder = tmp_path_factory.mktemp("results")
    photos, out = folder / "photos", folder / "out"
    if request.param == "the command":
        (photos / "shelf").mkdir(parents=True)
        for number, name in enumerate(("shelf/a b.jpg", "b.png")):
            scene = render_scene(np.random.default_rng(number + 3), (90, 120), containers=(2, 2)).image
            Image.fromarray(scene).save(photos / name)
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.fromarray(np.rot90(scene)).save(photos / "lying.png", exif=exif)
        subprocess.run(
            [*COMMAND, "run", str(photos), "--out", str(out), "--recursive", "--formats", ",".join(FORMATS)]
            + ["--score-threshold", "0.05"],
            cwd=Path(__file__).parents[3],
            env=environment(
                {
                    "BOX2MASK_DEVICE": "cpu",
                    "BOX2MASK_DETECTOR": str(DEMO_WEIGHTS / "yolof"),
                    "BOX2MASK_SEGMENTER": str(DEMO_WEIGHTS / "sam"),
                }
            ),
            check=True,
            capture_output=True,
        )
        return folder
    out.mkdir()
    masks = list(shapes().values())
    found = [result_of(masks, "shelf/a b.jpg"), result_of(masks[1:5], "b.png"), result_of([], "void.png")]
    outputs = Outputs(out, FORMATS, photos, None, "version")
    for result in found:
        path = photos / result.name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (*SIZE_HW, 3), dtype=np.uint8)).save(path)
        outputs.write_image(result, path)
    outputs.write_all(found, ("class 0", "class 1"))
    return folder


def truth(results: Path) -> dict[str, list[tuple[str, np.ndarray]]]:
    """By image, without its suffix, the label and the mask of each object: by coco.json, and of masks/."""
    document = json.loads((results / "out" / "coco.json").read_text())
    labels = {one["id"]: one["name"] for one in document["categories"]}
    images: dict[str, list[tuple[str, np.ndarray]]] = {}
    for image in document["images"]:
        found = images[image["file_name"].rsplit(".", 1)[0]] = []
        own = [one for one in document["annotations"] if one["image_id"] == image["id"]]
        for number, one in enumerate(own):
            png = Image.open(results / "out" / "masks" / image["file_name"] / f"{number:03}.png")
            found.append((labels[one["category_id"]], np.asarray(png) > 0))
    assert sum(map(len, images.values())) > 10
    return images


def mask_of(one: Any) -> np.ndarray:
    height, width = one["mask"]["size_hw"]
    bits = np.frombuffer(bytes.fromhex(one["mask"]["bits"]), np.uint8)
    return np.unpackbits(bits)[: height * width].reshape(height, width).astype(bool)


def as_coco(results: Path, file: Path, folder: Path) -> Path:
    """A COCO data set laid out as Datumaro wants it."""
    (folder / "annotations").mkdir(parents=True)
    shutil.copy(file, folder / "annotations" / "instances_default.json")
    shutil.copytree(results / "photos", folder / "images" / "default")
    return folder


def as_cvat(results: Path, folder: Path) -> Path:
    folder.mkdir()
    shutil.copy(results / "out" / "cvat.xml", folder / "default.xml")
    shutil.copytree(results / "photos", folder / "images")
    return folder


def same(found: list[Any], expected: list[tuple[str, np.ndarray]]) -> None:
    """Whether all masks are there, in any order, pixel for pixel; Datumaro gives boxes beside them."""
    masks = sorted((one["label"], mask_of(one).tobytes()) for one in found if one["mask"])
    assert masks == sorted((label, mask.tobytes()) for label, mask in expected)


def test_datumaro_reads_coco_json_pixel_for_pixel(results: Path, datumaro: Datumaro, tmp_path: Path) -> None:
    expected = truth(results)
    found = datumaro("read", as_coco(results, results / "out" / "coco.json", tmp_path / "set"), "coco")
    assert found.keys() == expected.keys()
    for name, masks in expected.items():
        same(found[name], masks)


def test_datumaro_reads_cvat_xml_pixel_for_pixel(results: Path, datumaro: Datumaro, tmp_path: Path) -> None:
    expected = truth(results)
    found = datumaro("read", as_cvat(results, tmp_path / "set"), "cvat")
    assert found.keys() == expected.keys()
    for name, masks in expected.items():
        same(found[name], [(label, mask) for label, mask in masks if mask.any()])
        boxes = [one for one in found[name] if one["mask"] is None]
        assert len(boxes) == sum(not mask.any() for _, mask in masks)  # of an empty mask there is the box


def test_datumaro_reads_yolo_seg_by_way_of_coco_pixel_for_pixel(
    results: Path, datumaro: Datumaro, tmp_path: Path
) -> None:
    """Its own reader of YOLO knows boxes alone, and leaves out images with outlines; `data convert` is the way."""
    write(load(results / "out" / "yolo_seg"), tmp_path / "converted", "coco")
    annotations = tmp_path / "set" / "annotations"
    annotations.mkdir(parents=True)
    shutil.move(tmp_path / "converted" / "annotations.json", annotations / "instances_default.json")
    shutil.move(tmp_path / "converted" / "images", tmp_path / "set" / "images")
    found = datumaro("read", tmp_path / "set", "coco")
    expected = truth(results)
    flat = {name: f"images/{name.replace('/', '__')}" for name in expected}
    assert found.keys() == set(flat.values())
    for name, masks in expected.items():
        same(found[flat[name]], [(label, mask) for label, mask in masks if mask.any()])


# From COCO to COCO, Datumaro makes polygons of masks, which are not the same pixels.
@pytest.mark.parametrize(
    ("start", "to"),
    [("coco", "datumaro"), ("coco", "cvat"), ("cvat", "coco_instances"), ("cvat", "datumaro"), ("cvat", "cvat")],
)
def test_what_datumaro_writes_of_them_is_read_pixel_for_pixel(
    results: Path, datumaro: Datumaro, tmp_path: Path, start: str, to: str
) -> None:
    if start == "coco":
        source = as_coco(results, results / "out" / "coco.json", tmp_path / "source")
    else:
        source = as_cvat(results, tmp_path / "source")
    datumaro("convert", source, start, to, tmp_path / "out")
    dataset, problems = read(tmp_path / "out")
    crowds = [str(one) for one in problems if "marked iscrowd" in str(one)]
    # Masks without a box of their own, as CVAT's brush makes them, are written as crowds.
    assert bool(crowds) == (to == "coco_instances")
    if crowds:
        assert all(one.crowd for _, one in dataset.annotations() if one.has_mask) and "--crowds as-objects" in crowds[0]
        dataset = load(tmp_path / "out", crowds="as-objects")
    assert not any(one.crowd for _, one in dataset.annotations())
    expected = truth(results)
    assert len(dataset.images) == len(expected)
    for image in dataset.images:
        name = Path(image.path).relative_to(tmp_path / "out").as_posix().rsplit(".", 1)[0]
        (masks,) = (masks for key, masks in expected.items() if name.endswith((f"/{key}", f"/{key.replace('/', '_')}")))
        found = [one for one in image.annotations if one.has_mask and covers(one, image.size_hw)]
        wanted = sorted((label, mask.tobytes()) for label, mask in masks if mask.any())
        assert sorted((one.label, one.mask(image.size_hw).tobytes()) for one in found) == wanted
        others = [one for one in image.annotations if not one.has_mask]
        if to != "cvat":  # whose boxes stand beside the masks, as objects of their own
            assert len(others) <= sum(not mask.any() for _, mask in masks)


def covers(one: Annotation, size_hw: tuple[int, int]) -> bool:
    mask = one.mask(size_hw)
    return mask is not None and bool(mask.any())
