"""What is written comes back: every format, exactly, for all that it can hold."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app.contract.masks import encode_polygons
from models.data import Annotation, DataError, Dataset, LabelledImage, data_hash, find, load, read, write
from models.data.formats.data_set import WRITTEN

SEEDS = range(12)
ALL_BOXES = ("coco", "voc", "jsonl", "mltable")  # that hold every box: a crowd, one that reaches outside its image


def said(dataset: Dataset) -> list[tuple[str, tuple[int, int], tuple[Annotation, ...]]]:
    return [(image.name, image.size_hw, image.annotations) for image in dataset.images]


@pytest.mark.parametrize("seed", SEEDS)
def test_coco_holds_everything(scatter, tmp_path, seed):
    dataset = scatter(seed)
    assert write(dataset, tmp_path / "out", "coco") == ()
    again = load(tmp_path / "out")
    assert again.class_names == dataset.class_names
    assert said(again) == said(dataset)
    assert data_hash(again) == data_hash(dataset)


@pytest.mark.parametrize("format", ["jsonl", "mltable"])
@pytest.mark.parametrize("seed", SEEDS)
def test_jsonl_holds_everything_but_run_lengths_which_become_polygons_of_the_same_pixels(
    scatter, tmp_path, seed, format
):
    dataset = scatter(seed)
    notes = write(dataset, tmp_path / "out", format, outline=encode_polygons)
    again = load(tmp_path / "out")
    assert again.class_names == dataset.class_names
    traced = 0
    for before, after in zip(dataset.images, again.images, strict=True):
        assert (after.name, after.size_hw) == (before.name, before.size_hw)
        for one, other in zip(before.annotations, after.annotations, strict=True):
            if one.rle is None:
                assert other == one
            else:
                traced += 1
                assert dataclasses.replace(other, polygons=None) == dataclasses.replace(one, rle=None)
                if one.mask(before.size_hw).any():
                    assert np.array_equal(other.mask(after.size_hw), one.mask(before.size_hw))
    assert len(notes) == (traced > 0)
    if traced:
        assert notes[0].startswith(f"{traced} run-length encoded masks")


@pytest.mark.parametrize("seed", SEEDS)
def test_voc_holds_boxes_crowds_and_images_without_objects_and_counts_the_masks(scatter, tmp_path, seed):
    dataset = scatter(seed)
    notes = write(dataset, tmp_path / "out", "voc")
    again = load(tmp_path / "out")
    assert again.class_names == dataset.class_names
    boxes = tuple(
        dataclasses.replace(
            image,
            annotations=tuple(dataclasses.replace(one, polygons=None, rle=None) for one in image.annotations),
        )
        for image in dataset.images
    )
    assert said(again) == said(Dataset(dataset.class_names, boxes))
    masks = sum(one.has_mask for _, one in dataset.annotations())
    assert notes == ((f"{masks} masks left out: VOC holds boxes only",) if masks else ())


@pytest.mark.parametrize("second", ALL_BOXES)
@pytest.mark.parametrize("first", ALL_BOXES)
def test_boxes_survive_every_pair_of_formats_and_back(scatter, tmp_path, first, second):
    dataset = scatter(99, boxes_only=True)
    write(dataset, tmp_path / "a", first)
    write(load(tmp_path / "a"), tmp_path / "b", second)
    write(load(tmp_path / "b"), tmp_path / "c", first, images="reference")
    assert data_hash(load(tmp_path / "c")) == data_hash(dataset)
    assert said(load(tmp_path / "c")) == said(dataset)


@pytest.mark.parametrize("format", WRITTEN)
@pytest.mark.parametrize("images", ["copy", "link", "reference"])
def test_images_are_where_they_were_asked_for(scatter, tmp_path, format, images):
    dataset = scatter(3, boxes_only=True)
    write(dataset, tmp_path / "deep" / "out", format, images=images)
    for before, after in zip(dataset.images, load(tmp_path / "deep" / "out").images, strict=True):
        assert after.path.read_bytes() == before.path.read_bytes()
        inside = tmp_path / "deep" / "out" / "images" / before.name
        assert inside.is_symlink() == (images == "link")
        assert inside.exists() == (images != "reference")
        assert (after.path.resolve() == before.path) == (images != "copy")


@pytest.mark.parametrize("format", WRITTEN)
def test_no_link_leads_to_a_photo_that_ultralytics_would_encode_anew(tmp_path, format):
    Image.new("RGB", (20, 10), "red").save(tmp_path / "whole.jpg")
    whole = (tmp_path / "whole.jpg").read_bytes()
    assert whole.endswith(b"\xff\xd9")
    photos = {"cut.jpg": whole[:-1], "trailing.JPG": whole + b"\0", "whole.jpg": whole, "short.jpg": whole[:2]}
    photos["other.png"] = b"no JPEG, and read by nobody here"
    for name, content in photos.items():
        (tmp_path / name).write_bytes(content)
    box = (Annotation("cat", (0.0, 0.0, 9.0, 9.0)),)
    dataset = Dataset(("cat",), tuple(LabelledImage(tmp_path / name, (10, 20), box) for name in photos))
    notes = write(dataset, tmp_path / "out", format, images="link")
    assert notes == ("3 JPEG files copied, not linked: without their end marker, Ultralytics rewrites them",)
    inside = tmp_path / "out" / "images"
    assert {path.name for path in inside.iterdir() if path.is_symlink()} == {"whole.jpg", "other.png"}
    assert {path.name: path.read_bytes() for path in inside.iterdir()} == photos
    (inside / "cut.jpg").write_bytes(b"changed")
    assert (tmp_path / "cut.jpg").read_bytes() == photos["cut.jpg"]


@pytest.mark.parametrize("format", ALL_BOXES)
def test_urls_stay_urls_with_the_size_that_the_data_set_states(tmp_path, format):
    url = "https://example.org/images/fridge%201.jpg?version=2"
    dataset = Dataset(("can",), (LabelledImage(url, (30, 40), (Annotation("can", (1.0, 2.0, 3.0, 4.0)),)),))
    write(dataset, tmp_path / "out", format)
    assert load(tmp_path / "out").images == dataset.images


@pytest.mark.parametrize("format", WRITTEN)
def test_images_of_one_name_all_stay(tmp_path, format):
    images = []
    for index, name in enumerate(("a/cat.png", "b/cat.png", "b/cat.jpg")):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (10 + index, 10)).save(path)
        images.append(LabelledImage(path, (10, 10 + index), (Annotation("cat", (0.0, 0.0, 1.0 + index, 1.0)),)))
    notes = write(Dataset(("cat",), tuple(images)), tmp_path / "out", format)
    first = tmp_path / "b" / "cat.png"
    note = f"2 images renamed, as another has the same name: {first} is cat_2.png"
    assert notes == (note,)
    if format in ("jsonl", "mltable"):  # whose addresses are to be uploaded under these names
        options = {"images": "reference", "url_prefix": "azureml://here"}
        assert write(Dataset(("cat",), tuple(images)), tmp_path / "up", format, **options) == (note,)
    again = load(tmp_path / "out")
    assert sorted(image.name for image in again.images) == ["cat.png", "cat_2.png", "cat_3.jpg"]
    for image in again.images:
        with Image.open(image.path) as opened:
            assert opened.size == image.size_hw[::-1]


def test_a_class_list_is_kept_in_order_and_without_it_the_classes_are_sorted(scatter, tmp_path):
    dataset = scatter(1, boxes_only=True)
    write(dataset, tmp_path / "x.jsonl", "jsonl")
    (tmp_path / "x.classes.txt").unlink()
    assert load(tmp_path / "x.jsonl").class_names == tuple(sorted({one.label for _, one in dataset.annotations()}))


@pytest.mark.parametrize("format", ["jsonl", "mltable"])
def test_a_url_prefix_makes_addresses_that_a_prefix_reads_back(scatter, tmp_path, format):
    dataset = scatter(4, boxes_only=True)
    start = "azureml://subscriptions/s/datastores/d/paths/fridge"
    write(dataset, tmp_path / "out", format, images="reference", url_prefix=f"{start}/")
    line = (tmp_path / "out" / "annotations.jsonl").read_text(encoding="utf-8").splitlines()[0]
    assert json.loads(line)["image_url"] == f"{start}/{dataset.images[0].name}"
    again = load(tmp_path / "out", prefixes={"azureml://": "/elsewhere", start: str(tmp_path / "source")})
    assert again.images == dataset.images


def test_a_prefix_ends_at_a_slash(scatter, tmp_path):
    line = {"image_url": "AmlDatastore://fridge2/1.jpg", "image_details": {"width": 4, "height": 4}, "label": []}
    (tmp_path / "x.jsonl").write_text(json.dumps(line))
    _, problems = read(tmp_path / "x.jsonl", prefixes={"AmlDatastore://fridge": str(tmp_path)})
    assert len(problems) == 1 and "--prefix" in problems[0].reason
    dataset = load(tmp_path / "x.jsonl", prefixes={"AmlDatastore://": "https://example.org/store"})
    assert dataset.images[0].path == "https://example.org/store/fridge2/1.jpg"


def test_nothing_is_overwritten_and_missing_images_are_told_before_anything_is_written(scatter, tmp_path):
    dataset = scatter(5, boxes_only=True)
    write(dataset, tmp_path / "out.json", "coco", images="reference")
    with pytest.raises(DataError, match="there already"):
        write(dataset, tmp_path / "out.json", "coco")
    with pytest.raises(DataError, match="there already"):
        write(dataset, tmp_path, "voc")
    dataset.images[1].path.unlink()
    with pytest.raises(DataError, match="is missing") as caught:
        write(dataset, tmp_path / "new", "coco")
    assert len(caught.value.problems) == 1
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("images", ["copy", "link"])
def test_images_beside_a_new_file_are_never_overwritten(scatter, tmp_path, images):
    first, second = scatter(5, boxes_only=True), type(scatter)(tmp_path / "other")(5, boxes_only=True)
    for image in second.images:
        Image.new("RGB", (3, 3)).save(image.path)
    write(first, tmp_path / "a.jsonl", "jsonl", images=images)
    before = {path: path.read_bytes() for folder in ("images", "source") for path in (tmp_path / folder).iterdir()}
    with pytest.raises(DataError, match="images are never overwritten") as caught:
        write(second, tmp_path / "b.jsonl", "jsonl", images=images)
    assert len(caught.value.problems) == len(second)
    assert {path: path.read_bytes() for path in before} == before
    assert not (tmp_path / "b.jsonl").exists()
    write(second, tmp_path / "b.jsonl", "jsonl", images="reference")
    with pytest.raises(DataError, match="c.classes.txt: is there already"):
        (tmp_path / "c.classes.txt").write_text("mine\n")
        write(second, tmp_path / "c.jsonl", "jsonl", images="reference")


def test_a_link_that_leads_nowhere_is_not_written_through(scatter, tmp_path):
    dataset = scatter(5, boxes_only=True)
    for name in ("x.json", f"images/{dataset.images[0].name}"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).symlink_to(tmp_path / "nowhere")
    for name in ("x.json", "y.json"):
        with pytest.raises(DataError, match="is there already"):
            write(dataset, tmp_path / name, "coco")
    assert not (tmp_path / "nowhere").exists() and not (tmp_path / "y.json").exists()


RLE = {"size": [2, 2], "counts": "04"}


@pytest.mark.parametrize(
    ("format", "label", "name", "options", "reason"),
    [
        ("voc", "two\nlines", "1.png", {}, "one line of text"),
        ("jsonl", "two\nlines", "1.png", {"outline": encode_polygons}, "one line of text"),
        ("mltable", "two\nlines", "1.png", {"outline": encode_polygons}, "one line of text"),
        ("voc", "a", "two\nlines.png", {}, "the file name 'two"),
        ("voc", "a", ".1.png", {}, "the file name '.1.png' is hidden"),
        ("coco", "half \udc80", "1.png", {}, "cannot be written as UTF-8"),
        ("jsonl", "a", "1.png", {}, "needs an outline"),
        ("mltable", "a", "1.png", {}, "needs an outline"),
        ("coco", "a", "1.png", {"url_prefix": "azureml://x"}, "coco has no image_url"),
        ("voc", "a", "1.png", {"url_prefix": "azureml://x"}, "voc has no image_url"),
    ],
)
def test_what_a_format_cannot_hold_is_refused_before_anything_is_written(
    tmp_path, format, label, name, options, reason
):
    path = tmp_path / name
    Image.new("RGB", (2, 2)).save(path)
    one = Annotation(label, (0.0, 0.0, 2.0, 2.0), rle=RLE)
    with pytest.raises(ValueError, match=reason):
        write(Dataset((label,), (LabelledImage(path, (2, 2), (one,)),)), tmp_path / "out", format, **options)
    assert not (tmp_path / "out").exists()


def test_suffixes_may_be_capital(scatter, tmp_path):
    dataset = scatter(6, boxes_only=True)
    for format in (formats := ("coco", "voc", "jsonl")):
        write(dataset, tmp_path / format, format)
    for file in [*tmp_path.glob("voc/annotations/*.xml"), *tmp_path.glob("coco/*.json"), *tmp_path.glob("jsonl/*l")]:
        file.rename(file.with_suffix(file.suffix.upper()))
    for format in formats:
        again, problems = read(tmp_path / format)
        assert said(again) == said(dataset) and problems == []


@pytest.mark.parametrize(
    "url", ["http://h/a.jpg?sig=ab/cd", "http://h/x/a.jpg#b/c?d", "https://h/a.jpg", "http://h/a.jpg?x#/y"]
)
def test_the_name_of_an_address_is_the_last_part_of_its_path(url):
    assert LabelledImage(url, (1, 1)).name == "a.jpg"


def test_the_format_is_seen_from_what_is_there(scatter, tmp_path):
    dataset = scatter(6, boxes_only=True)
    for format in WRITTEN:
        write(dataset, tmp_path / format, format)
        assert find(tmp_path / format)[0] == format
    assert find(tmp_path / "mltable", "jsonl") == ("jsonl", tmp_path / "mltable" / "annotations.jsonl")
    assert find(tmp_path / "mltable" / "MLTable") == ("mltable", tmp_path / "mltable")
    write(dataset, tmp_path / "coco" / "more.jsonl", "jsonl", images="reference")
    with pytest.raises(DataError, match="found several: .*annotations.json.*more.jsonl"):
        find(tmp_path / "coco")
    assert find(tmp_path / "coco", "coco")[0] == "coco"
    for path, reason in ((tmp_path / "source", "expected COCO"), (tmp_path / "none", "no such file")):
        with pytest.raises(DataError, match=reason):
            load(path)
    with pytest.raises(DataError, match="expected voc there"):
        load(tmp_path / "coco", format="voc")


def test_the_hash_knows_content_and_neither_place_nor_order(scatter, tmp_path):
    dataset = scatter(7)
    assert data_hash(dataset) == data_hash(dataset.subset(range(len(dataset))[::-1]))
    write(dataset, tmp_path / "out", "coco")
    assert data_hash(load(tmp_path / "out")) == data_hash(dataset)
    first = dataset.images[0]
    one = first.annotations[0]
    x1, y1, x2, y2 = one.box_xyxy
    changed = (
        Dataset(dataset.class_names[::-1], dataset.images),
        Dataset(dataset.class_names, dataset.images[1:]),
        *(
            Dataset(dataset.class_names, (other, *dataset.images[1:]))
            for other in (
                dataclasses.replace(first, path=first.path.with_name("other.png")),
                dataclasses.replace(first, size_hw=(5, 5)),
                dataclasses.replace(first, annotations=()),
                *(
                    dataclasses.replace(first, annotations=(new, *first.annotations[1:]))
                    for new in (
                        dataclasses.replace(one, box_xyxy=(x1, y1, x2, y2 + 1e-5)),
                        dataclasses.replace(one, crowd=not one.crowd),
                        dataclasses.replace(one, label="without objects"),
                        dataclasses.replace(one, rle=None, polygons=((0.0, 0.0, 1.0, 0.0, 1.0, 1.5),)),
                    )
                ),
            )
        ),
    )
    hashes = [data_hash(dataset), *map(data_hash, changed)]
    assert len(set(hashes)) == len(hashes)


def test_the_photos_with_polygons_survive_every_format(tmp_path):
    source = Path(__file__).parents[4] / "shared" / "data" / "fridge"
    if not source.is_dir():
        pytest.skip("the photos are not here")
    dataset = load(source)
    assert len(dataset) == 3 and sum(1 for _ in dataset.annotations()) == 6
    for format in ("coco", "jsonl", "mltable"):
        write(dataset, tmp_path / format, format)
        assert said(load(tmp_path / format)) == said(dataset)
