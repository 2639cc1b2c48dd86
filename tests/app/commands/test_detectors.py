"""`box2mask detectors`: the list, one family, and JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from app.cli import main
from models.detector.huggingface.model_types import CONCEPTS, MODEL_TYPES
from models.detector.zoo import families

DOCUMENT = Path(__file__).parents[3] / "docs" / "detectors.md"


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["detectors", *arguments]) == 0
    return capsys.readouterr().out


def test_every_family_has_a_line_and_each_that_is_not_served_its_reason(capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys)
    ours, theirs = text.split("Hugging Face's, by")
    lines = {line.split()[0]: line.split() for line in ours.splitlines() if line.strip()}
    for one in families():
        if one.served:
            assert lines[one.name][1:4] == ["yes", one.masks, "yes" if one.trained else "no"]
        else:
            assert f"{one.name}: {one.why_not_served}" in text
    lines = {line.split()[0]: line.split() for line in theirs.splitlines() if line.strip()}
    for name in MODEL_TYPES:
        assert lines[name][1:4] == ["yes", "yes" if name in CONCEPTS else "no", "no"]
    served = sum(one.served for one in families())
    assert f": {served} of {len(families())} are served\n" in text


def test_one_family_is_told_in_full(capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys, "fast_rcnn").startswith(
        "fast_rcnn, MMDetection's\n  served: no: FastRCNN has no part that proposes boxes: it classifies those that "
        "another program has found, and a request has none. Serve the Faster R-CNN of the same backbone\n"
        "  asked with: fast_rcnn/fast-rcnn_r50_fpn_1x_coco.py\n"
    )
    text = said(capsys, "rtmdet", "owlv2")
    assert "rtmdet, MMDetection's\n  served: yes\n" in text and "  masks: some\n" in text
    assert "owlv2, Hugging Face's\n  served: yes\n" in text and "  needs: a tokenizer in its folder\n" in text


def test_json_has_a_family_in_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    found = [json.loads(line) for line in said(capsys, "--json").splitlines()]
    assert [one["name"] for one in found] == [*(one.name for one in families()), *MODEL_TYPES]
    [atss] = [one for one in found if one["name"] == "atss"]
    assert (atss["source"], atss["served"], atss["masks"], atss["config"]) == (
        "mmdetection", True, "no", "atss/atss_r50_fpn_1x_coco.py",
    )  # fmt: skip


def test_an_unknown_family_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["detectors", "atss", "yolov11"]) == 1
    assert capsys.readouterr().err == "box2mask: there is no family 'yolov11': `box2mask detectors` lists all\n"


def test_the_document_has_hugging_faces_too() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert all(f"| `{name}` |" in text for name in MODEL_TYPES)
