"""The sweep over MMDetection's zoo: what it chooses, what it says of each config, and the list that it makes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.machine import Machine
from benchmarks.zoo import __main__ as command
from benchmarks.zoo import asked, listed
from benchmarks.zoo.asked import Limits, Outcome
from benchmarks.zoo.chosen import all_that_differ, configs, one_of_each, tree
from benchmarks.zoo.report import document
from models.detector.old_libraries import mend
from models.detector.zoo import families

pytestmark = pytest.mark.filterwarnings("ignore")  # mmdet's and mmcv's own


def test_the_list_has_every_family_of_the_installed_mmdetection() -> None:
    there = configs(tree())
    assert {one.name for one in families()} == set(there) and len(there) > 110
    assert all(one.config in there[one.name] for one in families())


def test_the_document_has_the_list() -> None:
    text = listed.DOCUMENT.read_text(encoding="utf-8")
    assert text.partition(listed.BEGIN)[2].partition(listed.END)[0].strip() == listed.documented(list(families()))


@pytest.mark.parametrize("name", ["atss", "fast_rcnn", "mask_rcnn", "rtmdet", "sparse_rcnn", "rpn", "yolact"])
def test_the_list_says_what_is_trained(name: str) -> None:
    mend()
    [family] = [one for one in families() if one.name == name]
    assert family.why_not_trained == (listed.why_not_trained(tree() / family.config) if family.served else "")


def zoo(folder: Path) -> Path:
    """Three families: two configs of one model for other data, another model, one that is not readable; and bases."""
    for name, text in {
        "a/first.py": "model = dict(type='A', head=dict(num_classes=80), train_cfg=dict(x=1))",
        "a/second.py": "model = dict(type='A', head=dict(num_classes=7), init_cfg=dict(type='Pretrained'))\nx = 1",
        "b/deep/one.py": "model = dict(type='B', head=dict(num_classes=80))",
        "c/broken.py": "_base_ = ['missing.py']",
        "c/tta.py": "tta_model = dict(type='T')",
        "_base_/models/a.py": "model = dict(type='Z')",
        "common/data.py": "x = 1",
    }.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def test_one_of_each_family_is_the_one_chosen_by_hand(tmp_path: Path) -> None:
    root = zoo(tmp_path)
    assert one_of_each(root, {"a": "a/second.py", "b": "b/gone.py"}) == ["a/second.py", "b/deep/one.py", "c/broken.py"]


def test_all_that_differ_are_the_models(tmp_path: Path) -> None:
    root = zoo(tmp_path)
    assert all_that_differ(root, ["a/second.py"]) == (["a/second.py", "b/deep/one.py", "c/broken.py"], 4)


def test_a_run_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, report = tmp_path / "out.jsonl", tmp_path / "report.md"
    states = {"a/first.py": "served", "b/deep/one.py": "failed"}
    asked_for: list[str] = []

    def ask(root: Path, config: str, image: object, limits: Limits) -> Outcome:
        asked_for.append(config)
        return Outcome(config, states[config], "it broke" * (states[config] == "failed"), starts_s=2.0, peak_mb=900)

    monkeypatch.setattr(command, "ask", ask)
    monkeypatch.setattr(command, "_prepare", lambda threads: None)
    arguments = ["--configs", *states, "--out", str(out)]
    assert command.main(arguments) == 1
    assert command.main([*arguments, "--report", str(report)]) == 1
    assert asked_for == ["a/first.py", "b/deep/one.py"]
    states["b/deep/one.py"] = "refused"
    assert command.main([*arguments, "--again", "--report", str(report)]) == 0
    assert asked_for[2:] == ["b/deep/one.py"]
    text = report.read_text()
    assert "| a/first.py" in text and "2.0 s" in text and "900 MB" in text and "## Refused" in text
    assert "## Failed" not in text and str(tmp_path) not in text


@pytest.mark.parametrize(
    ("log", "sentence"),
    [
        (
            "2026-11-29 07:10:06 INFO uvicorn.error: Started\nERROR uvicorn.error: /tmp/x/c.py: no boxes\n",
            "c.py: no boxes",
        ),
        ("box2mask: /tmp/x/c.py: no boxes\n", "c.py: no boxes"),
        ("INFO uvicorn.error: Started\n", ""),
    ],
)
def test_a_refusals_sentence_is_found_in_the_log(log: str, sentence: str) -> None:
    assert asked._sentence(log, Path("/tmp/x")) == sentence


def test_what_a_config_makes_of_a_process_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object) -> None:
        raise ZeroDivisionError("of a model")

    monkeypatch.setattr(asked, "write_folder", broken)
    outcome = asked.ask(tmp_path, "a/first.py", None, Limits())  # type: ignore[arg-type]
    assert outcome.state == "failed" and "ZeroDivisionError: of a model" in outcome.said
    assert Outcome.of(outcome.line()) == outcome


def test_a_family_that_failed_makes_no_list(tmp_path: Path) -> None:
    failed = Outcome("a/first.py", "failed", "it broke")
    with pytest.raises(ValueError, match="these failed: a/first.py"):
        listed.families(zoo(tmp_path), {"a/first.py": failed}, ["a/first.py"])


def test_the_report_counts_what_stands_for_how_many() -> None:
    one = Outcome("a/first.py", "served", model="A", masks=True, starts_s=1, answer_s=1, peak_mb=1)
    two = replace(one, config="b/one.py", state="refused", said="b.py: why")
    text = document(Machine.this(), "command", (640, 480), Limits(8, 1), [one, two], 5)
    assert "2 configs, which stand for 5 that differ in no more" in text and "1 configs, 1 of them with masks" in text
    assert "- `b/one.py`: b.py: why" in text and json.loads(one.line())["model"] == "A"


def test_the_list_is_sorted_and_its_configs_differ() -> None:
    names = [one.name for one in families()]
    assert names == sorted(names) and len({one.config for one in families()}) == len(names)
