"""YOLO's text files as Ultralytics, Roboflow, labelImg, CVAT, Label Studio and Darknet lay them out; each with the
reading that it means beside it.
"""

from __future__ import annotations

import pytest

from tests.strangers.data_cases import Case, Photo, thing

CAT = thing("cat", 10, 20, 40, 60)
LINE = "0 0.25 0.5 0.3 0.5\n"
OUTLINE = "0 0.1 0.25 0.4 0.25 0.4 0.75 0.1 0.75 0.1 0.5\n"
CAT_MASK = thing("cat", 10, 20, 40, 60, 1200)
YAML = "path: ../datasets/pets\ntrain: images/train\nval: images/val\nnames:\n  0: cat\n  1: dog\n"
TREE = {
    "data.yaml": YAML,
    "images/train/a.jpg": Photo(),
    "labels/train/a.txt": LINE,
    "images/val/b.jpg": Photo(),
    "labels/val/b.txt": LINE,
}


def one(label: str | bytes, **more: object) -> dict[str, object]:
    return {"images/a.jpg": Photo(), "labels/a.txt": label, "classes.txt": "cat\ndog\n", **more}


TRIANGLE = 1000  # half of 50 x 40

CASES = {
    # detect
    "Ultralytics: images/train and labels/train, names by number": Case(
        TREE, {"a.jpg": [CAT], "b.jpg": [CAT]}, noted=("2 parts are read as one data set",)
    ),
    "Ultralytics: one part, by its folder": Case(TREE, {"b.jpg": [CAT]}, at="images/val"),
    "Ultralytics: lists of images": Case(
        {"data.yaml": "train: train.txt\nnames: [cat]\n", "train.txt": "./images/a.jpg\n", **one(LINE)},
        {"a.jpg": [CAT]},
    ),
    "Ultralytics: an empty label file, and none": Case(
        one(LINE, **{"images/b.jpg": Photo(), "labels/b.txt": "", "images/c.jpg": Photo()}),
        {"a.jpg": [CAT], "b.jpg": [], "c.jpg": []},
        noted=("1 images have no label file",),
    ),
    "Ultralytics: the cache of labels": Case(one(LINE, **{"labels.cache": b"\x93NUMPY"}), {"a.jpg": [CAT]}),
    "Ultralytics: save_conf's sixth number": Case(
        one("0 0.25 0.5 0.3 0.5 0.91\n"), {"a.jpg": [CAT]}, noted=("a detector's score",)
    ),
    "Ultralytics: keypoints": Case(
        {"data.yaml": "train: images\nkpt_shape: [1, 3]\nnames: [cat]\n", **one("0 0.25 0.5 0.3 0.5 0.1 0.1 2\n")},
        {"a.jpg": [CAT]},
        noted=("keypoints of 1 objects are left out",),
    ),
    "Ultralytics: turned boxes (OBB)": Case(
        one("0 0.3 0.2 0.5 0.45 0.3 0.7 0.1 0.45\n"), bad=("turned boxes.*write them as class x y width height",)
    ),
    "Roboflow: data.yaml whose ../train/images is train/images": Case(
        {
            "data.yaml": "train: ../train/images\nval: ../valid/images\n\nnc: 1\n"
            "names: ['cat']\nroboflow:\n  version: 1\n",
            "train/images/a_jpg.rf.01.jpg": Photo(),
            "train/labels/a_jpg.rf.01.txt": LINE,
            "README.roboflow.txt": "pets - v1",
        },
        {"a_jpg.rf.01.jpg": [CAT]},
    ),
    "labelImg: beside the photos, with classes.txt": Case(
        {"a.jpg": Photo(), "a.txt": LINE, "classes.txt": "cat\n"}, {"a.jpg": [CAT]}
    ),
    "Label Studio: images/, labels/, classes.txt and notes.json": Case(
        one(LINE, **{"notes.json": {"categories": [{"id": 0, "name": "cat"}], "info": {"year": 2026}}}),
        {"a.jpg": [CAT]},
    ),
    "Darknet: obj_train_data, obj.names and obj.data (CVAT)": Case(
        {
            "obj.data": "classes = 1\ntrain = data/train.txt\nnames = data/obj.names\nbackup = backup/\n",
            "obj.names": "cat\n",
            "train.txt": "data/obj_train_data/a.jpg\n",
            "obj_train_data/a.jpg": Photo(),
            "obj_train_data/a.txt": LINE,
        },
        {"a.jpg": [CAT]},
    ),
    "no names anywhere": Case(
        {"a.jpg": Photo(), "a.txt": "0 0.25 0.5 0.3 0.5\n"},
        {"a.jpg": [thing("0", 10, 20, 40, 60)]},
        noted=("called by their numbers",),
    ),
    # segment
    "Ultralytics segment: an outline": Case(one(OUTLINE), {"a.jpg": [CAT_MASK]}),
    "Ultralytics segment: boxes and outlines in one file": Case(
        one(LINE.replace("0 ", "1 ", 1) + OUTLINE), {"a.jpg": [thing("dog", 10, 20, 40, 60), CAT_MASK]}
    ),
    "Ultralytics segment: an outline that is cut off": Case(
        one("0 0.1 0.2 0.3 0.4 0.5 0.6 0.7\n" + "0 0.1 0.2\n" + LINE),
        {"a.jpg": [CAT]},
        bad=("found 8 numbers", "found 3 numbers"),
    ),
    "Ultralytics segment: a closed ring": Case(
        one("0 0.1 0.25 0.4 0.25 0.4 0.75 0.1 0.75 0.1 0.25\n"), {"a.jpg": [CAT_MASK]}
    ),
    "Ultralytics segment: 1e300": Case(
        one("0 0.1 0.25 1e300 0.25 0.4 0.75\n" + LINE), {"a.jpg": [CAT]}, bad=("labels/a.txt:1: expected fractions",)
    ),
    "Ultralytics segment: an outline without area": Case(
        one("0 0.1 0.25 0.2 0.25 0.4 0.25\n" + LINE), {"a.jpg": [CAT]}, noted=("empty.*left out",)
    ),
    # drifted
    "pandas: 0.0 for the class": Case(one("0.0 0.25 0.5 0.3 0.5\n"), {"a.jpg": [CAT]}),
    "a spreadsheet: commas": Case(one("0,0.25,0.5,0.3,0.5\n"), {"a.jpg": [CAT]}),
    "Windows: CRLF, a mark, tabs and spaces at the end": Case(
        one(b"\xef\xbb\xbf0\t0.25\t0.5\t0.3\t0.5  \r\n\r\n"), {"a.jpg": [CAT]}
    ),
    "Windows: UTF-16 of PowerShell": Case(one(LINE.encode("utf-16")), {"a.jpg": [CAT]}),
    "Windows: backslashes in data.yaml": Case(
        {"data.yaml": "train: .\\images\nnames: [cat]\n", **one(LINE)}, {"a.jpg": [CAT]}
    ),
    "pixels": Case(one("0 25 40 30 40\n"), {"a.jpg": []}, bad=("pixels.*--absolute reads them",)),
    "pixels, where they are asked for": Case(one("0 25 40 30 40\n"), {"a.jpg": [CAT]}, options={"normalized": False}),
    "a name in place of the number": Case(
        one("cat 0.25 0.5 0.3 0.5\n" + LINE), {"a.jpg": [CAT]}, bad=("expected the number of a class",)
    ),
    "a class that is not listed": Case(one("7 0.25 0.5 0.3 0.5\n" + LINE), {"a.jpg": [CAT]}, bad=("2 classes of",)),
    "a box of no height": Case(one("0 0.25 0.5 0.3 0\n" + LINE), {"a.jpg": [CAT]}, noted=("empty.*left out",)),
    "photos called .jfif and .jpe": Case(
        {
            "images/a.jfif": Photo(),
            "labels/a.txt": LINE,
            "images/b.jpe": Photo(),
            "labels/b.txt": LINE,
            "classes.txt": "cat\n",
        },
        {"a.jfif": [CAT], "b.jpe": [CAT]},
    ),
    "macOS: companions": Case(
        one(LINE, **{"labels/._a.txt": b"\0\5\x16", "images/._a.jpg": b"\0\5\x16", "__MACOSX/labels/._a.txt": b"\0"}),
        {"a.jpg": [CAT]},
    ),
    "notebooks: checkpoints": Case(
        one(
            LINE,
            **{
                "labels/.ipynb_checkpoints/a-checkpoint.txt": LINE,
                "images/.ipynb_checkpoints/a-checkpoint.jpg": Photo(),
            },
        ),
        {"a.jpg": [CAT]},
    ),
    # what programs write
    "Ultralytics: a list of folders, and names with gaps": Case(
        {
            "data.yaml": "train:\n  - day/images\n  - night/images\nnames:\n  0: cat\n  5: dog\n",
            "day/images/a.jpg": Photo(),
            "day/labels/a.txt": LINE,
            "night/images/b.jpg": Photo(),
            "night/labels/b.txt": LINE.replace("0 ", "5 ", 1),
        },
        {"a.jpg": [CAT], "b.jpg": [thing("dog", 10, 20, 40, 60)]},
        noted=("2 parts are read as one data set",),
    ),
    "Ultralytics: a sample's data.yaml, with the download's script": Case(
        {
            "coco8.yaml": "# COCO8\npath: coco8 # root\ntrain: images/train\nval: # none\n\nnames:\n  0: cat\n\n"
            "download: |\n  from ultralytics.utils import x\n  names: 3\n",
            "images/train/a.jpg": Photo(),
            "labels/train/a.txt": LINE,
        },
        {"a.jpg": [CAT]},
    ),
    "Ultralytics segment: an outline, and the score of save_conf": Case(
        one("0 0.1 0.25 0.4 0.25 0.4 0.75 0.1 0.75 0.91\n"), {"a.jpg": [CAT_MASK]}, noted=("a detector's score",)
    ),
    "Ultralytics track: a score and the number of the track": Case(
        one("0 0.25 0.5 0.3 0.5 0.91 1\n1 0.6 0.25 0.2 0.25 0.8 7\n"),
        {"a.jpg": [CAT, thing("dog", 50, 10, 70, 30)]},
        noted=("2 lines end with the number of a track", "2 lines end with one more number, a detector's score"),
    ),
    "Ultralytics segment: a triangle with a corner in the image's": Case(
        one("0 0.5 0.5 1 0.5 0.5 1\n"), {"a.jpg": [thing("cat", 50, 40, 100, 80, TRIANGLE)]}
    ),
    "Ultralytics convert_coco: two parts made into one ring": Case(
        one("0 0.1 0.25 0.1 0.75 0.2 0.75 0.2 0.25 0.3 0.25 0.4 0.25 0.4 0.75 0.3 0.75 0.3 0.25 0.2 0.25 0.1 0.25\n"),
        {"a.jpg": [thing("cat", 10, 20, 40, 60, 800)]},
    ),
    "keras-yolo3: one list of images with boxes": Case(
        {"train.txt": "a.jpg 10,20,40,60,0 50,10,70,30,1\n", "classes.txt": "cat\ndog\n", "a.jpg": Photo()},
        bad=("train.txt.*keras-yolo3.*one text file for each image",),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_yolo_s_files_are_read_as_they_are_meant(tmp_path, name):
    CASES[name].check(tmp_path)
