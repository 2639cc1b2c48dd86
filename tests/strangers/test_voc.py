"""Pascal VOC trees as labelImg, CVAT, Roboflow, Label Studio, programs on Windows and macOS archives write them; by
the tool, each with the reading that it means beside it.
"""

from __future__ import annotations

import pytest

from tests.strangers.data_cases import Case, Photo, thing

CAT = thing("cat", 10, 20, 40, 60)
BOX = "<bndbox><xmin>10</xmin><ymin>20</ymin><xmax>40</xmax><ymax>60</ymax></bndbox>"
OBJECT = (
    f"<object><name>cat</name><pose>Unspecified</pose><truncated>0</truncated><difficult>0</difficult>{BOX}</object>"
)
SIZE = "<size><width>100</width><height>80</height><depth>3</depth></size>"


def xml(name: str | None = "a.jpg", objects: str = OBJECT, size: str = SIZE, more: str = "", head: str = "") -> str:
    filename = "" if name is None else f"<filename>{name}</filename>"
    return (
        f"{head}<annotation><folder>images</folder>{filename}{more}{size}<segmented>0</segmented>{objects}</annotation>"
    )


def one(content: str | bytes) -> dict[str, object]:
    return {"Annotations/a.xml": content, "JPEGImages/a.jpg": Photo()}


def difficult(value: str) -> str:
    return OBJECT.replace("<difficult>0<", f"<difficult>{value}<")


BAD = one(xml(head='<?xml version="1.0" encoding="klingon"?>')) | {
    "Annotations/b.xml": xml("b.jpg"),
    "JPEGImages/b.jpg": Photo(),
}
CHINESE = xml(head='<?xml version="1.0" encoding="gb2312"?>').replace("cat", "猫").encode("gb2312")
JAPANESE = xml(head='<?xml version="1.0" encoding="shift_jis"?>').replace("cat", "猫").encode("shift_jis")

OUTLINE = "<polygon><x1>10</x1><y1>20</y1><x2>40</x2><y2>20</y2><x3>40</x3><y3>60</y3><x4>10</x4><y4>60</y4></polygon>"

CASES = {
    # labelImg
    "labelImg: beside the photos": Case({"a.xml": xml(), "a.jpg": Photo()}, {"a.jpg": [CAT]}),
    "labelImg: a path of another machine": Case(
        one(xml(more="<path>C:\\Users\\Ann\\Pictures\\a.jpg</path>")), {"a.jpg": [CAT]}
    ),
    "labelImg: Unspecified in difficult": Case(one(xml(objects=difficult("Unspecified"))), {"a.jpg": [CAT]}),
    'labelImg: "true" in difficult': Case(
        one(xml(objects=difficult("true"))), {"a.jpg": [thing("cat", 10, 20, 40, 60, crowd=True)]}
    ),
    "labelImg: an empty difficult": Case(one(xml(objects=difficult(""))), {"a.jpg": [CAT]}),
    "labelImg: no difficult": Case(one(xml(objects=OBJECT.replace("<difficult>0</difficult>", ""))), {"a.jpg": [CAT]}),
    "labelImg: sizes of 0": Case(
        one(xml(size="<size><width>0</width><height>0</height><depth>0</depth></size>")), {"a.jpg": [CAT]}
    ),
    "labelImg: no size": Case(one(xml(size="")), {"a.jpg": [CAT]}),
    "labelImg: a size without numbers": Case(one(xml(size="<size><width/><height/></size>")), {"a.jpg": [CAT]}),
    "labelImg: decimals": Case(
        one(xml(objects=OBJECT.replace("10<", "10.0<").replace("60<", "60.0<"))), {"a.jpg": [CAT]}
    ),
    "labelImg: a filename without suffix": Case(one(xml("a")), {"a.jpg": [CAT]}, noted=("found by name",)),
    "labelImg: a filename that is wrong": Case(one(xml("IMG_0001.jpg")), {"a.jpg": [CAT]}, noted=("found by name",)),
    "labelImg: no filename": Case(one(xml(None)), {"a.jpg": [CAT]}, noted=("found by name",)),
    "labelImg: an empty filename": Case(one(xml("")), {"a.jpg": [CAT]}, noted=("found by name",)),
    "labelImg: classes.txt beside the files": Case(
        {"a.xml": xml(), "a.jpg": Photo(), "classes.txt": "dog\ncat\n"}, {"a.jpg": [CAT]}
    ),
    "labelImg: another suffix and capitals": Case(
        {"Annotations/a.xml": xml("A.JPG"), "JPEGImages/a.jpeg": Photo()}, {"a.jpeg": [CAT]}, noted=("found by name",)
    ),
    "labelImg: .jfif": Case({"a.xml": xml("a.jfif", size=""), "a.jfif": Photo()}, {"a.jfif": [CAT]}),
    "labelImg: .jpe": Case({"a.xml": xml("a.jpg"), "a.jpe": Photo()}, {"a.jpe": [CAT]}, noted=("found by name",)),
    "labelImg: a box of no height among others": Case(
        one(xml(objects=OBJECT + OBJECT.replace("<ymax>60<", "<ymax>20<"))),
        {"a.jpg": [CAT]},
        noted=("empty.*left out",),
    ),
    "labelImg: a coordinate of 1e300": Case(
        one(xml(objects=OBJECT + OBJECT.replace("60<", "1e300<"))), {"a.jpg": [CAT]}, bad=("at most 1000000 pixels",)
    ),
    "labelImg: a photo that is not there": Case(
        {f"Annotations/{n}.xml": xml(f"{n}.jpg") for n in range(20)},
        {f"{n}.jpg": [CAT] for n in range(20)},
        noted=("20 images were not found.*--images-root",),
        lost=True,
    ),
    # encodings
    "an encoding that only Python has: gb2312": Case(one(CHINESE), {"a.jpg": [thing("猫", 10, 20, 40, 60)]}),
    "an encoding that only Python has: shift_jis": Case(one(JAPANESE), {"a.jpg": [thing("猫", 10, 20, 40, 60)]}),
    "an encoding that nobody has": Case(BAD, {"b.jpg": [CAT]}, bad=("a.xml:1: .*'klingon': save the file as UTF-8",)),
    "gb2312 that is none": Case(
        BAD | {"Annotations/a.xml": b'<?xml version="1.0" encoding="gb2312"?><annotation>\xff\xff</annotation>'},
        {"b.jpg": [CAT]},
        bad=("not gb2312, which the file declares",),
    ),
    "Windows: UTF-16": Case(
        one(xml(head='<?xml version="1.0" encoding="utf-16"?>').encode("utf-16")), {"a.jpg": [CAT]}
    ),
    "Windows: UTF-8 with a mark": Case(one(b"\xef\xbb\xbf" + xml().encode()), {"a.jpg": [CAT]}),
    "Windows: backslashes in filename": Case(one(xml("JPEGImages\\a.jpg")), {"a.jpg": [CAT]}),
    # trees
    "VOCdevkit: trees that nest, with ImageSets/Main": Case(
        {
            "VOC2012/Annotations/a.xml": xml(),
            "VOC2012/JPEGImages/a.jpg": Photo(),
            "VOC2012/ImageSets/Main/train.txt": "a\n",
        },
        {"a.jpg": [CAT]},
        noted=("ImageSets/Main: all XML files are read",),
    ),
    "CVAT: Annotations/<subset>/ and JPEGImages/<subset>/": Case(
        {
            "Annotations/train/a.xml": xml("train/a.jpg"),
            "JPEGImages/train/a.jpg": Photo(),
            "ImageSets/Main/train.txt": "train/a\n",
            "labelmap.txt": "# label:color_rgb:parts:actions\nbackground:0,0,0::\ncat:1,2,3::\n",
        },
        {"a.jpg": [CAT]},
        noted=("ImageSets/Main: all XML files are read",),
    ),
    "CVAT: attributes of an object": Case(
        one(
            xml(
                objects=OBJECT.replace(
                    "</object>",
                    "<attributes><attribute><name>rotation</name><value>0.0</value></attribute></attributes></object>",
                )
            )
        ),
        {"a.jpg": [CAT]},
    ),
    "Roboflow: train/ with both": Case(
        {
            "train/a_jpg.rf.01.xml": xml("a_jpg.rf.01.jpg", more="<path>a_jpg.rf.01.jpg</path>"),
            "train/a_jpg.rf.01.jpg": Photo(),
            "README.dataset.txt": "# pets",
        },
        {"a_jpg.rf.01.jpg": [CAT]},
    ),
    "Roboflow: polygons beside the boxes": Case(
        one(xml(objects=OBJECT.replace("</object>", "<polygon><x1>10</x1><y1>20</y1></polygon></object>"))),
        {"a.jpg": [CAT]},
    ),
    "Label Studio: Annotations/ and images/": Case(
        {"Annotations/3f2a-a.xml": xml("3f2a-a"), "images/3f2a-a.jpg": Photo()},
        {"3f2a-a.jpg": [CAT]},
        noted=("found by name",),
    ),
    "VOC 2007: parts of a person": Case(
        one(xml(objects=OBJECT.replace("</object>", f"<part><name>head</name>{BOX}</part></object>"))), {"a.jpg": [CAT]}
    ),
    "labelImg2: a turned box": Case(
        one(xml(objects=OBJECT + "<object><name>cat</name><robndbox><cx>1</cx></robndbox></object>")),
        {"a.jpg": [CAT]},
        bad=("robndbox.*export boxes",),
    ),
    "fractions in bndbox": Case(
        one(
            xml(
                objects=OBJECT.replace("10<", "0.1<")
                .replace("20<", "0.25<")
                .replace("40<", "0.4<")
                .replace("60<", "0.75<")
            )
        ),
        {"a.jpg": []},
        bad=("are these fractions.*--normalized",),
    ),
    "macOS: companions": Case(
        one(xml())
        | {
            "Annotations/._a.xml": b"\0\5\x16\7",
            "__MACOSX/Annotations/._a.xml": b"\0\5",
            "JPEGImages/._a.jpg": b"\0\5",
        },
        {"a.jpg": [CAT]},
        noted=("hidden file: passed over",),
    ),
    "notebooks: checkpoints": Case(
        one(xml()) | {"Annotations/.ipynb_checkpoints/a-checkpoint.xml": xml("other.jpg")}, {"a.jpg": [CAT]}
    ),
    # exports
    "VOC 2012: masks in SegmentationObject": Case(
        one(xml()) | {"SegmentationClass/a.png": Photo(), "SegmentationObject/a.png": Photo()},
        {"a.jpg": [CAT]},
        noted=("SegmentationObject.*masks are not read.*export",),
    ),
    "labelImg: verified, a filename without suffix, another machine's path, a class with &": Case(
        {
            "a.xml": xml(
                "a", objects=OBJECT.replace(">cat<", ">cat &amp; dog<"), more="<path>C:\\Users\\Ann\\a.jpg</path>"
            ).replace("<annotation>", '<annotation verified="yes">'),
            "a.jpg": Photo(),
        },
        {"a.jpg": [thing("cat & dog", 10, 20, 40, 60)]},
        noted=("found by name",),
    ),
    "ImageNet: Annotations/ and Data/ with a folder for each class": Case(
        {
            "Annotations/CLS-LOC/train/n01/n01_18.xml": xml("n01_18"),
            "Data/CLS-LOC/train/n01/n01_18.JPEG": Photo(),
            "ImageSets/CLS-LOC/train_cls.txt": "n01/n01_18 1\n",
        },
        {"n01_18.JPEG": [CAT]},
        noted=("found by name",),
    ),
    "supervision: the outline of a mask beside its box": Case(
        {
            "annotations/a.xml": xml(objects=OBJECT.replace("</object>", f"{OUTLINE}</object>")),
            "images/a.jpg": Photo(),
        },
        {"a.jpg": [thing("cat", 10, 20, 40, 60, 1200)]},
    ),
    "supervision: an outline of two points": Case(
        one(
            xml(
                objects=OBJECT.replace(
                    "</object>", "<polygon><x1>1</x1><y1>2</y1><x2>3</x2><y2>4</y2></polygon></object>"
                )
            )
        ),
        {"a.jpg": [CAT]},
        noted=("polygon.*at least 3 points.*left out",),
    ),
    "labelme2voc: data_dataset_voc/ with class_names.txt": Case(
        {
            "data_dataset_voc/Annotations/a.xml": xml(),
            "data_dataset_voc/JPEGImages/a.jpg": Photo(),
            "data_dataset_voc/AnnotationsVisualization/a.jpg": Photo(shade=9),
            "data_dataset_voc/class_names.txt": "_background_\ncat\n",
        },
        {"a.jpg": [CAT]},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_voc_trees_are_read_as_they_are_meant(tmp_path, name):
    CASES[name].check(tmp_path)
