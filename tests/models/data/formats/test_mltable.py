"""MLTable folders: the file's own YAML, every JSONL file that it names, and what it may not ask for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from models.data import DataError, load
from tests.models.data.without_photos import read

# As the sample writes it.
SAMPLE = """\
paths:
  - file: ./train_annotations.jsonl
transformations:
  - read_json_lines:
        encoding: utf8
        invalid_lines: error
        include_path_column: false
  - convert_column_types:
      - columns: image_url
        column_type: stream_info
"""


def line(name: str, label: str = "can") -> str:
    box = {"label": label, "topX": 0.0, "topY": 0.0, "bottomX": 1.0, "bottomY": 1.0, "isCrowd": 0}
    return json.dumps({"image_url": name, "image_details": {"width": 4, "height": 4}, "label": [box]}) + "\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "MLTable").write_text(SAMPLE)
    (tmp_path / "train_annotations.jsonl").write_text(line("1.jpg") + line("2.jpg"))
    return tmp_path


def names(folder: Path, **options: dict[str, str]) -> list[str]:
    return [image.name for image in load(folder, **options).images]


def test_the_samples_file_is_read(folder):
    dataset = load(folder)
    assert names(folder) == ["1.jpg", "2.jpg"]
    assert dataset.images[1].path == folder / "2.jpg" and dataset.images[1].place.line == 2


def test_every_file_folder_and_pattern_is_read_in_order(folder):
    (folder / "more").mkdir()
    (folder / "more" / "b.jsonl").write_text(line("b.jpg", "milk"))
    (folder / "more" / "a.jsonl").write_text(line("a.jpg", "beer"))
    (folder / "p1.jsonl").write_text(line("p1.jpg"))
    (folder / "p2.jsonl").write_text(line("p2.jpg"))
    extra = "  - folder: ./more\n  - pattern: ./p[0-9].jsonl\n  - file: azureml://store/paths/far.jsonl\n"
    (folder / "MLTable").write_text(SAMPLE.replace("transformations:", f"{extra}transformations:"))
    (folder / "near").mkdir()
    (folder / "near" / "far.jsonl").write_text(line("far.jpg"))
    prefixes = {"azureml://store/paths/": str(folder / "near")}
    assert names(folder, prefixes=prefixes) == ["1.jpg", "2.jpg", "a.jpg", "b.jpg", "p1.jpg", "p2.jpg", "far.jpg"]
    assert load(folder, prefixes=prefixes).class_names == ("beer", "can", "milk")
    _, [problem] = read(folder)
    assert problem.place.line == 5 and problem.reason.startswith("paths[3]: file: expected a path here")


def test_the_encoding_is_the_one_that_is_named(folder):
    (folder / "MLTable").write_text(SAMPLE.replace("utf8", "utf16"))
    (folder / "train_annotations.jsonl").write_bytes((line("1.jpg") + line("ü.jpg")).encode("utf-16"))
    assert names(folder) == ["1.jpg", "ü.jpg"]


def test_lines_are_dropped_where_the_table_says_so_and_told_all_the_same(folder):
    (folder / "train_annotations.jsonl").write_text(line("1.jpg") + "{\n" + line("3.jpg"))
    with pytest.raises(DataError, match="train_annotations.jsonl:2: not JSON"):
        load(folder)
    (folder / "MLTable").write_text(SAMPLE.replace("invalid_lines: error", "invalid_lines: drop"))
    assert names(folder) == ["1.jpg", "3.jpg"]
    _, [problem] = read(folder)
    assert problem.place.line == 2 and not problem.fatal
    assert problem.reason.startswith("not JSON: ") and problem.reason.endswith(" (dropped, as invalid_lines asks)")


@pytest.mark.parametrize(
    ("old", "new", "line_number", "reason"),
    [
        ("paths:\n", "paths:\n  - [}\n", 2, "not YAML: "),
        ("  - file: ./train_annotations.jsonl\n", "", 1, "paths: expected a list, found nothing"),
        ("  - convert_column_types:", "  - take: 10\n  - convert_column_types:", 8, "found 'take'"),
        ("read_json_lines", "read_delimited", 4, "expected read_json_lines or convert_column_types"),
        ("encoding: utf8", "encoding: ebcdic", 4, "encoding: expected one of utf8, "),
        ("encoding: utf8", "encoding: [utf8]", 4, "encoding: expected one of utf8, "),
        ("invalid_lines: error", "invalid_lines: ignore", 4, "invalid_lines: expected error or drop, found 'ignore'"),
        (SAMPLE[SAMPLE.index("  - read") :], "", 3, "transformations: expected read_json_lines, found none"),
        (SAMPLE, "- 1\n", 1, "expected paths and transformations, found ['1']"),
        (SAMPLE, "", 1, "expected paths and transformations, found nothing"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused_with_its_line(folder, old, new, line_number, reason):
    (folder / "MLTable").write_text(SAMPLE.replace(old, new))
    with pytest.raises(DataError) as caught:
        read(folder)
    [problem] = caught.value.problems
    assert (problem.place.file, problem.place.line) == (folder / "MLTable", line_number)
    assert reason in problem.reason


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ("file: gone.jsonl", "cannot be read"),
        ("folder: empty", "paths[0]: folder: expected JSONL files in 'empty', found none"),
        ("pattern: 'a**'", "paths[0]: pattern: expected a pattern of file names, found 'a**'"),
        ("pattern: '*.none'", "paths[0]: pattern: expected JSONL files in '*.none', found none"),
        ("files: x.jsonl", "paths[0]: expected file, folder or pattern, found {'files': 'x.jsonl'}"),
    ],
)
def test_a_path_that_leads_nowhere_is_named(folder, entry, reason):
    (folder / "MLTable").write_text(SAMPLE.replace("file: ./train_annotations.jsonl", entry))
    dataset, [problem] = read(folder)
    assert len(dataset) == 0 and reason in problem.reason
    assert problem.place.line == 2 or problem.place.file == folder / "gone.jsonl"
