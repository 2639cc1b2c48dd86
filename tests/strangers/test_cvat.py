"""CVAT's XML for images, as its releases write it; each with the reading that it means beside it."""

from __future__ import annotations

import pytest

from tests.strangers.data_cases import Case, Photo, thing

CAT = thing("cat", 10, 20, 40, 60)
CAT_MASK = thing("cat", 10, 20, 40, 60, 1200)
BOX = '<box label="cat" source="manual" occluded="0" xtl="10.00" ytl="20.00" xbr="40.00" ybr="60.00" z_order="0"></box>'
POLYGON = '<polygon label="cat" source="manual" occluded="0" points="10,20;40,20;40,60;10,60" z_order="0"></polygon>'
MASK = '<mask label="cat" source="manual" occluded="0" rle="0, 1200" left="10" top="20" width="30" height="40"></mask>'
LABEL = "<label><name>cat</name><color>#fff</color><attributes></attributes></label>"
META = f"<meta><task><labels>{LABEL}</labels></task></meta>"


def xml(*shapes: str, image: str = 'id="0" name="a.jpg" width="100" height="80"', head: str = "") -> str:
    start = head or '<?xml version="1.0" encoding="utf-8"?>'
    return f"{start}<annotations><version>1.1</version>{META}<image {image}>{''.join(shapes)}</image></annotations>"


def one(*shapes: str, **changes: str) -> dict[str, object]:
    return {"annotations.xml": xml(*shapes, **changes), "images/a.jpg": Photo()}


WEB = (
    "<annotation><filename>a.jpg</filename><folder></folder><source><sourceImage></sourceImage></source>"
    "<imagesize><nrows>80</nrows><ncols>100</ncols></imagesize><object><name>cat</name><deleted>0</deleted><id>0</id>"
    "<polygon><pt><x>10.00</x><y>20.00</y></pt><pt><x>40</x><y>20</y></pt><pt><x>40</x><y>60</y></pt></polygon></object>"
    "</annotation>"
)

CASES = {
    "a box": Case(one(BOX), {"a.jpg": [CAT]}),
    "a polygon": Case(one(POLYGON), {"a.jpg": [CAT_MASK]}),
    "a brush's mask is no crowd": Case(one(MASK), {"a.jpg": [CAT_MASK]}),
    "a turned box": Case(
        one(BOX.replace('z_order="0"', 'rotation="90.00"')),
        {"a.jpg": [thing("cat", 5, 25, 45, 55, 1200)]},
        noted=("turned boxes are read as polygons",),
    ),
    "an ellipse": Case(
        one('<ellipse label="cat" cx="50" cy="40" rx="10" ry="8"></ellipse>'),
        {"a.jpg": [thing("cat", 40, 32, 60, 48, 254)]},
        noted=("ellipses are read as polygons",),
    ),
    "points, polylines, tags and skeletons": Case(
        one(
            BOX, '<points label="cat" points="1,1"/>', '<polyline label="cat" points="1,1;2,2"/>', '<tag label="cat"/>'
        ),
        {"a.jpg": [CAT]},
        noted=("type points", "type polyline", "type tag"),
    ),
    "a project's subsets": Case(
        {
            "annotations.xml": xml(BOX, image='id="0" name="a.jpg" subset="train" width="100" height="80"'),
            "images/train/a.jpg": Photo(),
            "images/test/a.jpg": Photo(9, 9),
        },
        {"a.jpg": [CAT]},
        noted=("found by name",),
    ),
    "a folder in the name": Case(
        {
            "annotations.xml": xml(BOX, image='id="0" name="day 1/a.jpg" width="100" height="80"'),
            "images/day 1/a.jpg": Photo(),
        },
        {"a.jpg": [CAT]},
    ),
    "backslashes in the name": Case(
        {
            "annotations.xml": xml(BOX, image='id="0" name="day\\a.jpg" width="100" height="80"'),
            "images/day/a.jpg": Photo(),
        },
        {"a.jpg": [CAT]},
    ),
    "no size": Case(one(BOX, image='id="0" name="a.jpg"'), {"a.jpg": [CAT]}),
    "sizes of 0": Case(one(BOX, image='id="0" name="a.jpg" width="0" height="0"'), {"a.jpg": [CAT]}),
    "an image without shapes": Case(one(), {"a.jpg": []}),
    "a polygon of two points": Case(
        one(BOX, '<polygon label="cat" points="1,1;2,2"/>'), {"a.jpg": [CAT]}, bad=("expected x,y of three points",)
    ),
    "a polygon of 1e300": Case(
        one(BOX, POLYGON.replace("40,20", "1e300,20")), {"a.jpg": [CAT]}, bad=("at most 1000000 pixels",)
    ),
    "a box of no height": Case(one(BOX, BOX.replace("60.00", "20.00")), {"a.jpg": [CAT]}, noted=("empty.*left out",)),
    "an encoding that only Python has": Case(
        {
            "annotations.xml": xml(BOX, head='<?xml version="1.0" encoding="gb2312"?>')
            .replace("cat", "猫")
            .encode("gb2312"),
            "images/a.jpg": Photo(),
        },
        {"a.jpg": [thing("猫", 10, 20, 40, 60)]},
    ),
    "an encoding that nobody has": Case(
        one(BOX, head='<?xml version="1.0" encoding="klingon"?>'), bad=("save the file as UTF-8",)
    ),
    "the tracks of a video": Case(
        {"annotations.xml": '<annotations><track id="0" label="cat"><box frame="0"/></track></annotations>'},
        bad=("export the task as CVAT for images 1.1",),
    ),
    "photos that are not there are said once": Case(
        {"annotations.xml": xml(BOX)}, {"a.jpg": [CAT]}, noted=("not found.*--images-root",), lost=True
    ),
    "macOS: companions": Case(one(BOX) | {"._annotations.xml": b"\0\5"}, {"a.jpg": [CAT]}),
    # tasks of other kinds
    "frames of a video, without suffixes": Case(
        {
            "annotations.xml": xml(BOX, image='id="0" name="frame_000000" width="100" height="80"'),
            "images/frame_000000.PNG": Photo(),
        },
        {"frame_000000.PNG": [CAT]},
        noted=("found by name",),
    ),
    "attributes, groups and a job": Case(
        {
            "annotations.xml": xml(BOX.replace("</box>", '<attribute name="color">red</attribute></box>'))
            .replace("<task>", "<job>")
            .replace("</task>", "</job>")
            .replace('z_order="0"', 'z_order="0" group_id="3"'),
            "images/a.jpg": Photo(),
        },
        {"a.jpg": [CAT]},
    ),
    "cuboids and skeletons": Case(
        one(
            BOX,
            '<cuboid label="cat" xtl1="1" ytl1="1" xbl1="1" ybl1="9"/>',
            '<skeleton label="cat" z_order="0"><points label="1" outside="0" points="1,1"></points></skeleton>',
        ),
        {"a.jpg": [CAT]},
        noted=("type cuboid", "type skeleton"),
    ),
    "polygons and masks of a group are one object, as in its own COCO": Case(
        one(
            POLYGON.replace("40,", "20,").replace("z_order", 'group_id="1" z_order'),
            '<mask label="cat" rle="0, 400" left="30" top="20" width="10" height="40" group_id="1"></mask>',
            POLYGON.replace("z_order", 'group_id="2" z_order'),
            BOX.replace("z_order", 'group_id="1" z_order'),
        ),
        {"a.jpg": [thing("cat", 10, 20, 40, 60, 800), CAT_MASK]},
        noted=("1 objects of several shapes, by their group_id", "1 box is there again as a mask"),
    ),
    "a polygon and a box of a group are two objects": Case(
        one(
            POLYGON.replace("z_order", 'group_id="1" z_order'),
            BOX.replace("10.00", "50.00").replace("40.00", "70.00").replace("z_order", 'group_id="1" z_order'),
        ),
        {"a.jpg": [CAT_MASK, thing("cat", 50, 20, 70, 60)]},
    ),
    # its other formats
    "YOLO 1.1: subsets, and folders with a blank": Case(
        {
            "obj.data": "classes = 1\nTrain = data/Train.txt\nnames = data/obj.names\nbackup = backup/\n",
            "obj.names": "cat\n",
            "Train.txt": "data/obj_Train_data/day 1/a.jpg\n",
            "Validation.txt": "data/obj_Validation_data/b.jpg\n",
            "obj_Train_data/day 1/a.jpg": Photo(),
            "obj_Train_data/day 1/a.txt": "0 0.25 0.5 0.3 0.5\n",
            "obj_Validation_data/b.jpg": Photo(),
            "obj_Validation_data/b.txt": "0 0.25 0.5 0.3 0.5\n",
        },
        {"a.jpg": [CAT], "b.jpg": [CAT]},
    ),
    "Ultralytics YOLO Detection 1.0": Case(
        {
            "data.yaml": "names:\n  0: cat\npath: .\ntrain: train.txt\n",
            "train.txt": "data/images/train/a.jpg\n",
            "images/train/a.jpg": Photo(),
            "labels/train/a.txt": "0 0.25 0.5 0.3 0.5\n",
        },
        {"a.jpg": [CAT]},
    ),
    "LabelMe 3.0: XML files of the web's LabelMe": Case(
        {"a.xml": WEB, "b.xml": WEB.replace("a.jpg", "b.jpg"), "a.jpg": Photo(), "b.jpg": Photo()},
        bad=("LabelMe's XML.*export it as COCO",),
    ),
    "Segmentation mask 1.1": Case(
        {
            "SegmentationObject/a.png": Photo(),
            "SegmentationClass/a.png": Photo(),
            "labelmap.txt": "# label:color_rgb:parts:actions\ncat:1,2,3::\n",
            "ImageSets/Segmentation/default.txt": "a\n",
        },
        bad=("masks as PNG files.*export it as COCO",),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_cvat_s_files_are_read_as_they_are_meant(tmp_path, name):
    CASES[name].check(tmp_path)
