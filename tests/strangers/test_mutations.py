"""Valid files of every format, broken at random: each is read, or refused in a sentence, whatever has become of it.

BOX2MASK_MUTATIONS=2000 tries as many for each format in place of a few; BOX2MASK_MUTATIONS_SEED begins elsewhere.
"""

from __future__ import annotations

import os
import random
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from app.contract.masks import encode_polygons
from models.data import WRITTEN, Annotation, Dataset, LabelledImage, check, read, shortened, write

COUNT = int(os.environ.get("BOX2MASK_MUTATIONS", "25"))
SEED = int(os.environ.get("BOX2MASK_MUTATIONS_SEED", "0"))
# What takes the place of a value; some are no JSON, XML or number at all.
HOSTILE = [
    "1e300", "-1", "NaN", "Infinity", "-1e-300", "1" + "0" * 400, '""', "null", "true", "[]", "{}", "[[]]", "[[[]]]",
    '"x"', "0", "0.5", "2000000", "999999999", '"\\ud800"', '"' + "a" * 5000 + '"', "[" * 300, "<a>", "&#x110000;", "é",
    "\x00", "\ufeff", "../../etc", "C:\\a\\b.jpg", "http://h/%2e%2e%2fa", "b'eJw='", "[1, 2", "65536", "-0.0", "1_0",
]  # fmt: skip
TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?|[A-Za-z_]+|[\[\]{}<>,:/=]')


def data_set(folder: Path) -> Dataset:
    """Two photos with boxes, polygons and run-length encoded masks."""
    folder.mkdir()
    mask = np.zeros((24, 32), np.uint8)
    mask[4:10, 5:20] = 1
    mask[6, 8] = 0
    rle = coco_mask.encode(np.asfortranarray(mask))
    objects = (
        Annotation("can", (1.0, 2.0, 11.5, 12.25)),
        Annotation("carton", (2.0, 2.0, 12.0, 20.0), polygons=((2.0, 2.0, 12.0, 2.0, 12.0, 20.0),)),
        Annotation("can", (5.0, 4.0, 20.0, 10.0), rle={"size": [24, 32], "counts": rle["counts"].decode()}),
    )
    images = []
    for name in ("a.png", "b.png"):
        Image.new("RGB", (32, 24)).save(folder / name)
        images.append(LabelledImage(folder / name, (24, 32), objects))
    return Dataset(("can", "carton"), tuple(images))


def mutated(content: bytes, rng: random.Random) -> bytes:
    """The file with one to four places changed: bytes, spans, or values that make sense to its parser."""
    for _ in range(rng.randint(1, 4)):
        if rng.random() < 0.6:
            text = content.decode("utf-8", "replace")
            tokens = list(TOKEN.finditer(text))
            if tokens:
                one = rng.choice(tokens)
                other = rng.choice(tokens)[0] if rng.random() < 0.3 else rng.choice(HOSTILE)
                text = text[: one.start()] + other + text[one.end() :]
            content = text.encode("utf-8", "replace")
            continue
        at = rng.randrange(len(content) + 1)
        until = min(len(content), at + rng.choice([1, 1, 2, 8, 60]))
        how = rng.randrange(4)
        if how == 0:
            content = content[:at] + bytes(rng.randrange(256) for _ in range(until - at)) + content[until:]
        elif how == 1:
            content = content[:at] + content[until:]
        elif how == 2:
            content = content[:until] + content[at:until] * rng.choice([1, 2, 50]) + content[until:]
        else:
            content = content[:at]
    return content


@pytest.mark.parametrize("format", WRITTEN)
def test_files_that_are_broken_at_random(tmp_path, format):
    sound = tmp_path / "sound"
    write(data_set(tmp_path / "photos"), sound, format, outline=encode_polygons)
    files = [path for path in sorted(sound.rglob("*")) if path.is_file() and path.suffix != ".png"]
    whole = {path: path.read_bytes() for path in files}
    rng = random.Random(f"{SEED} {format}")
    outcomes = {"read": 0, "refused": 0}
    for _ in range(COUNT):
        broken = rng.choice(files)
        broken.write_bytes(mutated(whole[broken], rng))
        content = broken.read_bytes()
        try:
            dataset, problems = read(sound, format=rng.choice([None, format]))
            problems += check(dataset)
            assert all(str(one) and one.kind for one in problems) and list(shortened(problems, 3)) is not None
            write(dataset, tmp_path / "again", rng.choice(["coco", "jsonl", "voc"]), outline=encode_polygons)
            outcomes["read"] += 1
        except ValueError as error:  # DataError, or what the other format cannot hold
            assert type(error).__name__ in ("DataError", "ValueError") and len(str(error)) > 0, (broken.name, content)
            outcomes["refused"] += 1
        except Exception as error:
            raise AssertionError(f"{broken.name}: {content!r}") from error
        finally:
            shutil.rmtree(tmp_path / "again", ignore_errors=True)
        broken.write_bytes(whole[broken])
    assert all(outcomes.values()), outcomes
