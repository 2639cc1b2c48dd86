"""batch_score.py, driven as the batch runner does: init once, mini batches of paths, lines appended to a file."""

from __future__ import annotations

import base64
import csv
import io
import json
import sys
from collections.abc import Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pandas
import pytest

from app.contract import schemas
from app.errors import ServiceError
from app.settings import SettingsError
from tests.app.conftest import ModelFolders, Service
from tests.app.same_answers import assert_same
from tests.docker.azureml.conftest import AZUREML, picture, wire

pytestmark = pytest.mark.any_dtype

ROWS: list[list[Any]] = [
    [wire(1), "[[[80, 60]], [[20, 30]]]", "", "", False],
    [wire(1), "", "[[10, 20, 90, 100]]", "", True],
    [wire(2), "[[[80, 60], [20, 30]]]", "[[10, 20, 90, 100]]", "[[1, 0]]", False],
]


@pytest.fixture(scope="module")
def loaded(models_set: dict[str, str]) -> Iterator[ModuleType]:
    """The script after its init(), with both models."""
    with pytest.MonkeyPatch.context() as patch:
        yield from script(patch, models_set)


def script(patch: pytest.MonkeyPatch, environment: dict[str, str]) -> Iterator[ModuleType]:
    for name, value in environment.items():
        patch.setenv(name, value)
    module = load()
    limit = csv.field_size_limit()
    try:
        module.init()
        yield module
    finally:
        csv.field_size_limit(limit)
        if module.batch is not None:
            module.batch._thread.close()


def load() -> ModuleType:
    """As the runner: by its file, and under no name that can be imported."""
    spec = spec_from_file_location("entry_module", AZUREML / "batch_score.py")
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def predictions(module: ModuleType, folder: Path, *mini_batches: list[Path]) -> list[dict[str, str]]:
    """predictions.csv, as append_row writes it, read by pandas."""
    file = folder / "predictions.csv"
    for mini_batch in mini_batches:
        elements = module.run([str(path) for path in mini_batch])
        assert all(isinstance(element, str) and "\n" not in element for element in elements)
        with file.open("a", encoding="utf-8") as out:
            out.writelines(f"{element}\n" for element in elements)
    columns = ["file", "row", "answer", "error"]
    return pandas.read_csv(file, header=None, names=columns, dtype=str, keep_default_na=False).to_dict("records")


def ask(service: Service, route: str, columns: tuple[str, ...], *rows: list[Any], **params: Any) -> list[Any]:
    content = {"input_data": {"columns": columns, "data": rows}, "params": params}
    return httpx.post(f"{service.url}{route}", json=content, timeout=60).raise_for_status().json()


def write_csv(path: Path, columns: tuple[str, ...], rows: list[list[Any]]) -> Path:
    pandas.DataFrame(rows, columns=list(columns)).to_csv(path, index=False)
    return path


def test_image_files_get_what_the_pipeline_answers(loaded: ModuleType, service: Service, tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("c.png", 'a "quoted", name.jpg', "ä.png", "b.webp", "d.png")]
    forms = ("PNG", "JPEG", "PNG", "WEBP", "PNG")
    for seed, (path, form) in enumerate(zip(paths, forms, strict=True)):
        path.write_bytes(picture(seed, form))
    found = predictions(loaded, tmp_path, paths[:2], paths[2:])
    assert [line["file"] for line in found] == [str(path) for path in paths]
    assert {(line["row"], line["error"]) for line in found} == {("", "")}
    for path, line in zip(paths, found, strict=True):
        sent = [base64.b64encode(path.read_bytes()).decode()]
        assert_same([json.loads(line["answer"])], ask(service, "/pipeline/score", ("image",), sent))
    assert any(json.loads(line["answer"])["boxes"] for line in found)


def test_a_bad_file_is_told_in_its_own_line(loaded: ModuleType, tmp_path: Path) -> None:
    good, cut, text, absent = (tmp_path / name for name in ("good.png", "cut.png", "notes.txt", "absent.png"))
    good.write_bytes(picture(1))
    cut.write_bytes(picture(2)[:200])
    text.write_text("no picture")
    found = predictions(loaded, tmp_path, [cut, good, text, absent, good])
    assert [Path(line["file"]) for line in found] == [cut, good, text, absent, good]
    assert [bool(line["answer"]) for line in found] == [False, True, False, False, True]
    assert found[0]["error"].startswith("image: ")
    assert found[2]["error"].startswith("image: expected a JPEG, PNG, ")
    assert found[3]["error"] == "No such file or directory"
    assert_same(json.loads(found[1]["answer"]), json.loads(found[4]["answer"]))


def test_the_catalogs_csv_gets_masks(loaded: ModuleType, service: Service, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "batch.csv", schemas.SEGMENTER_COLUMNS, ROWS)
    found = predictions(loaded, tmp_path, [path])
    assert [(line["file"], line["row"], line["error"]) for line in found] == [(str(path), str(n), "") for n in range(3)]
    expected = ask(service, "/sam/score", schemas.SEGMENTER_COLUMNS, *ROWS)
    assert_same([json.loads(line["answer"]) for line in found], expected)
    masks = [len(one["mask_per_prediction"]) for answer in expected for one in answer["predictions"]]
    assert masks == [1, 1, 3, 1]  # multimask_output came through as a boolean


def test_a_csv_of_images_gets_what_the_pipeline_answers(loaded: ModuleType, service: Service, tmp_path: Path) -> None:
    """One to a line, as also in a file with an index, more columns and a byte order mark."""
    path = tmp_path / "images.CSV"
    table = pandas.DataFrame({"image": [wire(1), wire(2)], "site": ["a", "b"]}, index=[7, 8])
    table.to_csv(path, encoding="utf-8-sig")
    found = predictions(loaded, tmp_path, [path])
    assert [line["row"] for line in found] == ["0", "1"]
    expected = ask(service, "/pipeline/score", ("image",), [wire(1)], [wire(2)])
    assert_same([json.loads(line["answer"]) for line in found], expected)


def test_a_bad_row_is_told_in_its_own_line(loaded: ModuleType, service: Service, tmp_path: Path) -> None:
    rows = [ROWS[0], [wire(1), "", "[[1, 2, 3]]", "", True], ["abc", "", "", "", True], ROWS[1]]
    path = write_csv(tmp_path / "batch.csv", schemas.SEGMENTER_COLUMNS, rows)
    with path.open("a") as file:
        file.write("too,few\n")
    found = predictions(loaded, tmp_path, [path])
    assert [line["row"] for line in found] == ["0", "1", "2", "3", "4"]
    assert [bool(line["answer"]) for line in found] == [True, False, False, True, False]
    assert found[1]["error"] == "input_boxes: expected (num_boxes, 4), got (1, 3)"
    assert found[2]["error"].startswith("image: expected ")
    assert found[4]["error"] == "expected one value per column (5), got 2"
    expected = ask(service, "/sam/score", schemas.SEGMENTER_COLUMNS, ROWS[0], ROWS[1])
    assert_same([json.loads(found[number]["answer"]) for number in (0, 3)], expected)


def test_a_csv_that_breaks_off_keeps_the_rows_before(loaded: ModuleType, tmp_path: Path) -> None:
    path, other, image = tmp_path / "broken.csv", tmp_path / "other.csv", tmp_path / "after.png"
    write_csv(path, ("image",), [[wire(1)]] * 3)
    # Far enough behind the last row that it is read from the disk after that.
    path.write_bytes(path.read_bytes() + b'"' + b"A" * 100_000 + b'\xff"\n')
    other.write_text("picture\nabc\n")
    image.write_bytes(picture(1))
    found = predictions(loaded, tmp_path, [path, other, image])
    assert [(Path(line["file"]), line["row"], bool(line["answer"])) for line in found] == [
        (path, "0", True),
        (path, "1", True),
        (path, "2", True),
        (path, "3", False),
        (other, "", False),
        (image, "", True),
    ]
    assert found[3]["error"].startswith("the file cannot be read on: ")
    assert found[4]["error"].startswith("expected a header with image, ")


def test_rows_without_answers_give_no_lines(loaded: ModuleType, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "empty.csv", ("image",), [])
    assert loaded.run([]) == []
    assert loaded.run([str(path)]) == []


def test_an_unknown_fault_stays_in_the_log(
    loaded: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    scorer = type(loaded.batch._thread.scorer)  # type: ignore[union-attr]
    answer = scorer.by_models

    async def sometimes(self: Any, request: schemas.Request) -> Any:
        if request.data[0][0] == "fail":
            raise RuntimeError("a secret")
        return await answer(self, request)

    monkeypatch.setattr(scorer, "by_models", sometimes)
    path = write_csv(tmp_path / "rows.csv", ("image",), [[wire(1)], ["fail"], [wire(2)]])
    found = predictions(loaded, tmp_path, [path])
    assert [bool(line["answer"]) for line in found] == [True, False, True]
    assert found[1]["error"] == "internal error; the job's log has it"
    assert "a secret" in caplog.text


def test_a_device_that_stops_fails_its_mini_batch(
    loaded: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.png").write_bytes(picture(1))
    monkeypatch.setattr(type(loaded.batch._thread.engine), "healthy", property(lambda engine: False))  # type: ignore[union-attr]
    with pytest.raises(RuntimeError, match="a device has stopped computing"):
        loaded.run([str(tmp_path / "a.png")])


def test_params_are_taken_from_the_environment(
    model_folders: ModelFolders, monkeypatch: pytest.MonkeyPatch, service: Service, tmp_path: Path
) -> None:
    """With a detector alone, which then gives boxes alone."""
    settings = {"BOX2MASK_DETECTOR": str(model_folders.detector), "BOX2MASK_SEGMENTER": "none"}
    asked = {"score_threshold": 0.0, "max_detections": 3}
    (tmp_path / "a.png").write_bytes(picture(1))
    environment = {"BOX2MASK_DEVICE": "cpu", "SCORING_PARAMS": json.dumps(asked)} | settings
    for module in script(monkeypatch, environment):
        (found,) = predictions(module, tmp_path, [tmp_path / "a.png"])
        expected = ask(service, "/yolof/score", ("image",), [wire(1)], **asked)
        assert len(expected[0]["boxes"]) == 3
        assert_same([json.loads(found["answer"])], expected)


@pytest.mark.parametrize("value", ["{", '{"score_threshold": 7}', "[]"])
def test_params_that_cannot_be_used_are_told_at_once(
    value: str, monkeypatch: pytest.MonkeyPatch, models_set: dict[str, str]
) -> None:
    monkeypatch.setenv("SCORING_PARAMS", value)
    with pytest.raises(SettingsError, match="SCORING_PARAMS: "):
        next(script(monkeypatch, models_set))


def test_lines_can_be_read_by_the_csv_module(loaded: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(picture(1))
    (line,) = loaded.run([str(tmp_path / "a.png")])
    ((file, row, answer, error),) = csv.reader(io.StringIO(line))
    assert (file, row, error) == (str(tmp_path / "a.png"), "", "")
    assert json.loads(answer)["boxes"]


def test_it_can_be_loaded_under_a_name_that_nothing_knows() -> None:
    assert "entry_module" not in sys.modules
    module = load()
    assert issubclass(module.ServiceError, ServiceError)
