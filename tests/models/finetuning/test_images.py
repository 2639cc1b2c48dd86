"""Images for training: in their annotations' frame, at random by seed, in an order that can be rejoined."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from models.data import Annotation, DataError, Dataset, LabelledImage
from models.detector import mmcv_ops
from models.finetuning.images import (
    LoadImage,
    RejoinableSampler,
    TrainingImages,
    too_thin,
    training_pipeline,
    without_mask,
)
from models.finetuning.photos import check

STEPS = [
    {"type": "LoadImageFromFile"},
    {"type": "Resize", "scale": (64, 64), "keep_ratio": True},
    {"type": "PackDetInputs"},
]


def loaded(
    dataset: Dataset, augment: bool, seed: int | None = 3, masks: bool = False, steps: list[dict[str, Any]] = STEPS
) -> TrainingImages:
    mmcv_ops.install()
    import mmdet.datasets.transforms  # noqa: F401 (registers them)
    from mmengine.registry import DefaultScope

    with DefaultScope.overwrite_default_scope("mmdet"):
        return TrainingImages(dataset, training_pipeline(steps, {"mean": [1, 2, 3]}, augment, masks), seed, masks)


def test_a_sample_depends_on_seed_epoch_and_image_alone(scenes: Dataset) -> None:
    images = loaded(scenes, augment=True)
    count = len(scenes)
    np.random.seed(0)
    first = images[5]
    drawn = np.random.random()
    _ = images[3], images[count + 5]
    again = images[5]
    assert np.array_equal(first["inputs"], again["inputs"])
    later = [images[epoch * count + 5] for epoch in range(1, 5)]
    assert any(
        one["inputs"].shape != first["inputs"].shape or not np.array_equal(one["inputs"], first["inputs"])
        for one in later
    )
    np.random.seed(0)
    assert drawn == np.random.random(), "what is random elsewhere is left as it was"


def test_nothing_is_random_without_augmentation(scenes: Dataset) -> None:
    images = loaded(scenes, augment=False)
    assert np.array_equal(images[2]["inputs"], images[len(scenes) + 2]["inputs"])
    instances = images[2]["data_samples"].gt_instances
    assert np.allclose(np.asarray(instances.bboxes.tensor), scenes.images[2].boxes_xyxy, atol=1e-4)
    assert [scenes.class_names[label] for label in instances.labels] == [
        one.label for one in scenes.images[2].annotations
    ]


def test_images_reach_the_network_as_bgr(tmp_path: Path) -> None:
    Image.new("RGB", (64, 64), (250, 100, 10)).save(tmp_path / "red.png")
    one = LabelledImage(tmp_path / "red.png", (64, 64), (Annotation("a", (0, 0, 20, 20)),))
    inputs = loaded(Dataset(("a",), (one,)), augment=False)[0]["inputs"]
    assert inputs[:, 0, 0].tolist() == [10, 100, 250]


def test_crowds_are_set_apart(tmp_path: Path) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    annotations = Annotation("a", (0, 0, 20, 20)), Annotation("a", (30, 30, 60, 60), crowd=True)
    sample = loaded(Dataset(("a",), (LabelledImage(tmp_path / "a.png", (64, 64), annotations),)), augment=False)[0]
    assert len(sample["data_samples"].gt_instances) == len(sample["data_samples"].ignored_instances) == 1


def pictures(folder: Path, *annotations: Annotation) -> Dataset:
    """One photo of 64 x 48 pixels, white where its objects' boxes are."""
    pixels = np.zeros((48, 64, 3), np.uint8)
    for one in annotations:
        x1, y1, x2, y2 = map(int, one.box_xyxy)
        pixels[y1:y2, x1:x2] = 255
    Image.fromarray(pixels).save(folder / "a.png")
    return Dataset(("a",), (LabelledImage(folder / "a.png", (48, 64), annotations),))


SQUARE = Annotation("a", (10, 8, 30, 20), polygons=((10, 8, 30, 8, 30, 20, 10, 20),))
AROUND = {
    "type": "RandomCenterCropPad", "ratios": None, "border": None, "mean": [0, 0, 0], "std": [1, 1, 1],
    "to_rgb": True, "test_mode": True, "test_pad_mode": ["logical_or", 31], "test_pad_add_pix": 1,
}  # fmt: skip


@pytest.mark.parametrize("around", [False, True], ids=["usual", "padded around"])
def test_masks_and_boxes_go_where_the_picture_goes(tmp_path: Path, around: bool) -> None:
    loading = {"type": "LoadImageFromFile", "to_float32": around}
    resize = {"type": "Resize", "scale": (96, 96), "keep_ratio": True}
    images = loaded(
        pictures(tmp_path, SQUARE),
        augment=True,
        masks=True,
        steps=[loading, resize, *([AROUND] if around else []), {"type": "PackDetInputs", "meta_keys": ("border",)}],
    )
    shapes = set()
    for index in range(12):  # other augmentations each
        sample = images[index]
        [mask] = sample["data_samples"].gt_instances.masks.masks
        white = sample["inputs"].numpy().min(0) > 127
        assert mask.shape == white.shape
        assert (white & (mask > 0)).sum() / (white | (mask > 0)).sum() > 0.85
        rows, columns = np.nonzero(white)
        box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert np.allclose(sample["data_samples"].gt_instances.bboxes.tensor[0], box, atol=2)
        assert not around or len(sample["data_samples"].border) == 4, "what the head asks for"
        shapes.add((white.shape, tuple(box)))
    assert len(shapes) > 6


def test_what_has_no_mask_is_set_apart_like_a_crowd(tmp_path: Path) -> None:
    bare = Annotation("a", (40, 4, 60, 30))
    empty = Annotation("a", (2, 30, 12, 40), polygons=((2, 30, 2, 30, 2, 30),))
    crowd = Annotation("a", (30, 30, 60, 46), crowd=True)
    dataset = pictures(tmp_path, SQUARE, bare, empty, crowd)
    assert [one for _, one in without_mask(dataset)] == [bare, empty]
    sample = loaded(dataset, augment=False, masks=True)[0]["data_samples"]
    assert len(sample.gt_instances) == len(sample.gt_instances.masks) == 1
    assert len(sample.ignored_instances) == 3


def test_sampler_goes_on_where_it_was(scenes: Dataset) -> None:
    sampler = RejoinableSampler(loaded(scenes, augment=False), seed=1)
    sampler.set_epoch(2)
    whole = list(sampler)
    assert sorted(whole) == list(range(24, 36))
    sampler.skip = 5
    assert list(sampler) == whole[5:]
    assert list(sampler) == whole
    sampler.set_epoch(3)
    assert [index % 12 for index in sampler] != [index % 12 for index in whole]


@pytest.mark.parametrize(
    ("orientation", "size_hw", "corner"),
    [
        (1, (40, 60), (2, 2)),
        (2, (40, 60), (2, -3)),
        (3, (40, 60), (-3, -3)),
        (4, (40, 60), (-3, 2)),
        (5, (60, 40), (2, 2)),
        (6, (60, 40), (2, -3)),
        (7, (60, 40), (-3, -3)),
        (8, (60, 40), (-3, 2)),
        (6, (40, 60), (2, 2)),  # annotated on the stored pixels
        (6, (60, 60), (2, -3)),  # a square tells nothing: upright
    ],
)
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_images_are_upright_unless_annotated_as_stored(
    tmp_path: Path, orientation: int, size_hw: tuple[int, int], corner: tuple[int, int], suffix: str
) -> None:
    pixels = np.zeros((min(size_hw), 60, 3), np.uint8)
    pixels[:10, :10] = 255  # the stored top left corner
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(pixels).save(path, exif=exif)
    dataset = Dataset(("a",), (LabelledImage(path, size_hw, (Annotation("a", (0, 0, 9, 9)),)),))
    check(dataset)
    result = LoadImage()({"img_path": str(path), "height": size_hw[0], "width": size_hw[1]})
    assert result["img"].shape[:2] == size_hw
    assert result["img"][corner].tolist() == [255, 255, 255]


def test_images_that_cannot_be_used_are_all_named(tmp_path: Path) -> None:
    Image.new("RGB", (30, 20)).save(tmp_path / "small.png")
    (tmp_path / "text.png").write_text("no image")
    paths = [tmp_path / "small.png", tmp_path / "text.png", tmp_path / "none.png", "https://example.com/a.jpg"]
    with pytest.raises(DataError) as error:
        check(Dataset((), tuple(LabelledImage(path, (64, 64)) for path in paths)))
    small, text, none, url = str(error.value).splitlines()
    assert "expected an image of 64 x 64 pixels as annotated, found 30 x 20" in small
    assert "text.png cannot be read" in text
    assert "none.png is missing" in none
    assert "expected an image on this machine, found the URL https://example.com/a.jpg" in url


def test_a_damaged_image_is_named(tmp_path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:3000])
    with pytest.raises(DataError, match="a.png: cannot be decoded"):
        LoadImage()({"img_path": str(tmp_path / "a.png"), "height": 64, "width": 64})


def test_boxes_with_hardly_anything_inside_are_counted(tmp_path: Path) -> None:
    boxes = ((0, 0, 20, 20), (63.5, 0, 90, 20), (-5, -5, 3, 3), (10, 10, 10.5, 20))
    image = LabelledImage(tmp_path / "a.png", (64, 64), tuple(Annotation("a", box) for box in boxes))
    dataset = Dataset(("a",), (image,))
    assert too_thin(dataset) == 2
    instances = loaded(dataset, augment=False).get_data_info(0)["instances"]
    assert [one["bbox"] for one in instances] == [(0, 0, 20, 20), (0, 0, 3, 3)]
