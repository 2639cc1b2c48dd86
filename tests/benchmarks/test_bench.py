"""The yardstick itself: its table is complete, its two sides agree, and what it compares it compares rightly."""

from __future__ import annotations

import ast
import base64
import io
import json
import operator
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks import load, reference, workload
from benchmarks.__main__ import main
from benchmarks.accuracy import compare_boxes, compare_masks, measure
from benchmarks.cases import ALL_CASES, CASES, models_of
from benchmarks.child import Child, ChildFailed
from benchmarks.machine import Machine
from benchmarks.report import Comparison, Limit, document
from benchmarks.run import alternate
from benchmarks.service import ServiceFailed

MACHINE = Machine(
    date="2026-01-31",
    cpu="Intel(R) Xeon(R) Platinum 8480+ CPU @ 2.00GHz",
    cores=2,
    features=("amx_bf16", "avx512_bf16", "avx512f", "avx2"),
    memory_gb=15.6,
    load=0.1,
    gpu=None,
    python="3.11.7",
    packages={"torch": "2.13.0"},
    commit="abc1234",
)


def test_a_quick_run_writes_a_complete_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "result.md"
    assert main(["--quick", "--cases", "png", "--out", str(out)]) == 0
    text = out.read_text()
    table = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    header, _, row = ([cell.strip() for cell in line] for line in table)
    cells = dict(zip(header, row, strict=True))
    assert list(cells) == list(Comparison.header)
    assert all(cells.values())
    assert cells["accuracy"] == "same pixels"
    assert float(cells["ratio"].rstrip("×")) > 0
    assert float(cells["ours, peak memory"].removesuffix(" MB")) > 20  # ten such masks alone take as much
    assert f"CPU: {Machine.this().cpu}" in text
    assert row[0] in capsys.readouterr().out
    assert str(tmp_path) not in text
    assert socket.gethostname() not in text


def test_the_services_answers_on_the_demo_weights_are_the_references() -> None:
    accuracy = measure("float32", "cpu", scene_count=2)
    assert len(accuracy.ious) >= 2
    assert accuracy.ious.min() > 0.99
    assert accuracy.scores_off.max() < 1e-3
    assert len(accuracy.boxes_px) >= 2
    assert accuracy.boxes_px.max() < 0.5
    assert accuracy.box_scores_off.max() < 0.01


def test_an_unknown_case_is_refused_with_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--cases", "encoed"])
    assert stopped.value.code == 2
    message = capsys.readouterr().err
    assert "encoed" in message
    assert all(name in message for name in CASES)


def test_help_explains_every_case(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    for name, case in ALL_CASES.items():
        assert f"{name:<12} {case.measure.__doc__}" in text


def test_the_reference_imports_nothing_of_ours() -> None:
    names = set()
    for node in ast.walk(ast.parse(Path(reference.__file__).read_text())):
        if isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    assert {name for name in names if name.split(".")[0] in ("app", "models", "benchmarks")} == {
        "models.detector.mmcv_ops"
    }


# Taking turns


class Recorder:
    """A side that takes no time and notes when it was run."""

    def __init__(self, name: str, journal: list[tuple[str, Any]]) -> None:
        self.name, self.journal = name, journal

    def ready(self) -> None: ...
    def close(self) -> None: ...

    def peak_mb(self) -> float:
        return 1.0

    def run(self, work: Any) -> float:
        self.journal.append((self.name, work))
        return float(len(self.journal))


def test_both_sides_take_turns_on_the_same_work_after_a_warm_up() -> None:
    journal: list[tuple[str, Any]] = []
    seconds = alternate({name: Recorder(name, journal) for name in "AB"}, 0, [1, 2])
    assert journal == [("A", 0), ("B", 0), ("A", 1), ("B", 1), ("A", 2), ("B", 2)]
    assert seconds == {"A": [3.0, 5.0], "B": [4.0, 6.0]}


def test_the_ratio_is_that_of_the_medians_and_the_least_that_of_the_worst_pair() -> None:
    row = Comparison("case", "float32", [8.0, 6.0, 4.0], [1.0, 2.0, 4.0], 10, 5, "same")
    cells = dict(zip(row.header, row.cells(), strict=True))
    assert (cells["ratio"], cells["least ratio"], cells["repeats"]) == ("3.00×", "1.00×", "3")


def test_models_are_each_cases_own_or_those_chosen() -> None:
    assert models_of("encode", []) == ("base", "huge")
    assert models_of("encode", ["demo"]) == ["demo"]
    assert models_of("png", ["demo"]) == ("none",)
    assert models_of("yolof", ["demo"]) == ["demo"]
    assert models_of("yolof", ["base", "demo"]) == ("r50",)


# Children


def test_a_child_runs_its_task_and_tells_its_memory() -> None:
    child = Child(operator.itemgetter, "a")
    child.ready()
    try:
        assert child.answer({"a": 5}) == 5
        assert 0 <= child.run({"a": 5}) < 1
        assert child.peak_mb() > 1
    finally:
        child.close()


def test_a_childs_failure_is_raised_with_its_reason() -> None:
    broken, failing = Child(divmod, 1, 0), Child(operator.itemgetter, "a")
    try:
        with pytest.raises(ChildFailed, match="ZeroDivisionError"):
            broken.ready()
        failing.ready()
        with pytest.raises(ChildFailed, match="KeyError: 'a'"):
            failing.run({})
    finally:
        broken.close()
        failing.close()


# Accuracy


def prediction(mask: np.ndarray, score: float) -> dict[str, Any]:
    """An answer of one row with one mask, as the reference writes it."""
    return {"predictions": [{"mask_per_prediction": one} for one in reference.encode_all(mask[None, None], [[score]])]}


def test_masks_are_compared_by_overlap_and_score() -> None:
    left, half, nothing = (np.zeros((8, 10), bool) for _ in range(3))
    left[:, :4] = True
    half[:, :2] = True
    answers = [prediction(left, 0.9), prediction(left, 0.9), prediction(nothing, 0.9)]
    ours = [prediction(left, 0.9), prediction(half, 0.8), prediction(nothing, 0.9)]
    found = np.array(compare_masks(answers, ours))
    np.testing.assert_allclose(found, [[1, 0], [0.5, 0.1], [1, 0]], atol=1e-9)
    with pytest.raises(ValueError, match="shorter"):
        compare_masks(answers, ours[:2])


def test_boxes_are_compared_with_those_of_the_same_label_near_them() -> None:
    def found(label: str, score: float, *sides: float) -> dict[str, Any]:
        names = ("topX", "topY", "bottomX", "bottomY")
        return {"box": dict(zip(names, sides, strict=True)), "label": label, "score": score}

    truth = [found("can", 0.9, 0.1, 0.1, 0.5, 0.5), found("can", 0.2, 0.7, 0.7, 0.9, 0.9)]
    ours = [found("carton", 0.9, 0.1, 0.1, 0.5, 0.5), found("can", 0.8, 0.1, 0.1, 0.5, 0.51)]
    ((px, score),) = compare_boxes(truth, ours, (200, 100))  # the one below the threshold does not count
    assert px == pytest.approx(2)
    assert score == pytest.approx(0.1)
    assert compare_boxes(truth, ours[:1], (200, 100)) == [(np.inf, np.inf)]


# Workload and load


def test_versions_of_the_picture_differ_also_as_jpeg() -> None:
    bodies = [json.loads(workload.click_request(version)) for version in (0, 1, 2, 255, 256)]
    images = [base64.b64decode(body["input_data"]["data"][0][0]) for body in bodies]
    pixels = {np.asarray(Image.open(io.BytesIO(image)))[:32, :64].tobytes() for image in images}
    assert len(pixels) == len(images)


class Endpoint(BaseHTTPRequestHandler):
    """Notes every body; answers 500 to "bad"."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.bodies.append(body)  # type: ignore[attr-defined]
        self.server.connections.add(self.client_address)  # type: ignore[attr-defined]
        self.send_response(500 if body == b"bad" else 200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None: ...


@pytest.fixture
def endpoint() -> Iterator[Any]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
    server.bodies, server.connections = [], set()  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield SimpleNamespace(url=f"http://127.0.0.1:{server.server_port}", server=server)
    server.shutdown()
    thread.join()
    server.server_close()


def test_saturating_clients_post_every_body_once_and_keep_their_connections(endpoint: Any) -> None:
    bodies = [str(number).encode() for number in range(20)]
    found = load.saturate(endpoint, "/score", bodies, clients=3)
    assert sorted(endpoint.server.bodies) == sorted(bodies)
    assert len(endpoint.server.connections) <= 3
    assert found.requests == 20
    assert found.per_second == pytest.approx(20 / found.seconds)


def test_a_refused_request_is_not_counted_as_fast(endpoint: Any) -> None:
    with pytest.raises(ServiceFailed, match="500"):
        load.saturate(endpoint, "/score", [b"good", b"bad"], clients=1)
    with pytest.raises(ServiceFailed, match="500"), load.Busy(endpoint, "/score", iter([b"good", b"bad"])) as busy:
        busy._thread.join()
    assert len(busy.seconds) == 1


# The file


def test_a_machine_is_named_after_what_matters() -> None:
    assert MACHINE.name == "intel-xeon-platinum-8480-2-cores-amx-bf16"
    assert MACHINE.best_dtype == "bfloat16"
    plain = replace(MACHINE, cpu="AMD EPYC 7763 64-Core Processor", features=("avx2",))
    assert plain.name == "amd-epyc-7763-2-cores-avx2"
    assert plain.best_dtype == "float32"
    assert replace(plain, gpu="NVIDIA H200").name == "amd-epyc-7763-2-cores-avx2-nvidia-h200"
    assert replace(plain, gpu="NVIDIA H200").best_dtype == "bfloat16"


def test_both_kinds_of_rows_have_their_table() -> None:
    rows = [
        Comparison("SAM encode", "bfloat16", [2.0], [1.0], 10, 5, "mask IoU 0.9990"),
        Limit("SAM click", "bfloat16", "p50 9 ms", "5 ms", "+4 ms", "20 clicks"),
    ]
    text = document(MACHINE, "python -m benchmarks", rows, [])
    assert all(cell in text for row in rows for cell in row.cells())
    assert "Platinum 8480" in text
    assert "abc1234" in text
