"""Which of the files that COCO puts side by side hold objects: captions do not, nor do those whose masks are PNGs."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

from models.data.formats.protocol import Found, passed_over
from models.data.parsing.contents import Contents, Glance, text_glance

FOLDERS = (".", "annotations")
ROBOFLOW = "_annotations.coco.json"
_LOOK = 8192  # bytes behind the name "annotations"


def is_coco(glance: Glance) -> bool:
    """Whether it has COCO's `images`, `annotations` and `categories`, of whatever kind."""
    if glance.top != "{" or glance.has("items"):
        return False
    return glance.has("images", "annotations") or glance.has_any(
        "images[].file_name", "annotations[].image_id", "annotations[].category_id"
    )


def kind(path: Path, glance: Glance) -> str:
    """What its annotations are: `instances`, `keypoints`, `stuff`, `captions` or `panoptic`; or `labels`, which are
    classes of whole images, or `images`, where there are none.
    """
    if not _is_known(glance):
        glance = _annotations(path)
    if glance.has("annotations[].segments_info"):
        return "panoptic"
    if glance.has("annotations[].caption"):
        return "captions"
    if not _is_known(glance):  # a list without entries, or none
        named = next((one for one in ("captions", "panoptic") if path.name.startswith(one)), None)
        return named or (
            "images" if not glance.has("annotations") or path.name.startswith("image_info") else "instances"
        )
    if glance.has("annotations[].num_keypoints") and "keypoints" in path.name:
        return "keypoints"
    if not glance.has_any("annotations[].bbox", "annotations[].segmentation", "annotations[].keypoints"):
        return "labels"
    return "stuff" if path.name.startswith("stuff") else "instances"


def _is_known(glance: Glance) -> bool:
    return any(one.startswith("annotations[].") for one in glance.paths)


def find(contents: Contents) -> Iterator[Found]:
    """The files with instances; where there are none, those with keypoints, which have boxes and masks too, or stuff.

    A `.json` file that does not look like COCO's may be one that is broken.
    """
    files = list(contents.json_files(FOLDERS))
    coco = [(path, kind(path, glance)) for path, glance in files if is_coco(glance)]
    for wanted in ("instances", "keypoints", "stuff", "labels"):
        if not (chosen := [path for path, its in coco if its == wanted]):
            continue
        others = [path for path, its in coco if its != wanted]
        notes = passed_over(others, f"not read: the objects are in {', '.join(path.name for path in chosen)}")
        yield from (Found(path, notes=notes) for path in chosen)
        break
    yield from (Found(path, certain=False) for path, glance in files if not is_coco(glance))


def _annotations(path: Path) -> Glance:
    """The beginning of the list `annotations`, wherever in the file it is."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            at = content.find(b'"annotations"')
            return (
                text_glance("{" + content[at : at + _LOOK].decode("utf-8", "replace"))
                if at >= 0
                else Glance("", frozenset())
            )
    except (OSError, ValueError):  # ValueError: it is empty
        return Glance("", frozenset())
