"""Files of all images, of which a cluster's processes make the parts."""

from __future__ import annotations

from collections.abc import Iterator
from io import StringIO

import numpy as np
import pytest
import ray

from app.cluster.folders import texts
from app.prediction import PredictedObject
from app.results import azureml_jsonl, cvat, label_studio, whole_file
from app.results.image_result import ImageResult
from models.rle import encode_rle


@pytest.fixture(scope="module")
def one_machine() -> Iterator[None]:
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=2**27)
    yield
    ray.shutdown()


def a_result(number: int) -> ImageResult:
    """Of 0, 1 or 2 objects, one of them now and then of no pixel."""
    masks = np.zeros((2, 20, 30), bool)
    masks[0, number % 7 : 9, 3:12] = True
    masks[1, 12:, : number % 5] = True
    objects = (PredictedObject("can", 0.5, (1.0, 2.0, 9.0, 8.0), encode_rle(mask), 0.9) for mask in masks)
    return ImageResult(f"{number:03}.png", (20, 30), tuple(objects)[: number % 3])


@pytest.mark.parametrize(
    "form",
    [azureml_jsonl.Lines(str), label_studio.Tasks(str, "model"), cvat.Images(("can",))],
    ids=lambda form: type(form).__name__,
)
def test_they_are_those_of_one_process(one_machine: None, form: whole_file.Form) -> None:
    results = [a_result(number) for number in range(3 * texts._IMAGES_AT_ONCE + 1)]
    alone, together = StringIO(), StringIO()
    lacking = whole_file.write(alone, form, results, lambda name: int(name[:3]) / 1000)
    assert whole_file.write(together, form, results, lambda name: int(name[:3]) / 1000, texts.make) == lacking
    assert together.getvalue() == alone.getvalue()
    assert lacking == sum(form.text(result, number, 0.0)[1] for number, result in enumerate(results))
