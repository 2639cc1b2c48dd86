"""The cases beside other runtimes: every runtime in turns with ours, on the same inputs, with as many threads."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.child import Child
from benchmarks.peers import networks
from benchmarks.peers.peer import (
    ONNX_RUNTIME,
    OPENVINO,
    OPENVINO_BFLOAT16,
    OPENVINO_WEIGHTS,
    Kind,
    Peer,
)
from benchmarks.report import PeerComparison
from benchmarks.run import Run, alternate, standing

# Beside which numbers of ours a runtime stands.
_BESIDE = {
    OPENVINO: "float32",
    ONNX_RUNTIME: "float32",
    OPENVINO_BFLOAT16: "bfloat16",
    OPENVINO_WEIGHTS: "bfloat16",
}


def encode(run: Run, model: str) -> list[PeerComparison]:
    """SAM's image encoder beside OpenVINO and ONNX Runtime."""
    folder = run.segmenter(model)
    out = _exported(run, folder, networks.write_segmenter)
    kinds = list(_BESIDE) if model != "huge" else [OPENVINO, OPENVINO_BFLOAT16, ONNX_RUNTIME]
    ours = _ours(run, lambda dtype: Child(networks.our_encoder, folder, dtype))
    return _compare(run, f"SAM {model}: encode", ours, kinds, out / "encoder", run.how_often(model, 3))


def decode(run: Run, model: str) -> list[PeerComparison]:
    """SAM's decoder for 1, 16 and 100 boxes beside OpenVINO and ONNX Runtime."""
    folder = run.segmenter(model)
    out = _exported(run, folder, networks.write_segmenter)
    rows: list[PeerComparison] = []
    for count, usual in zip(networks.BOXES, (20, 5, 3), strict=True):
        ours = _ours(run, lambda dtype, count=count: Child(networks.our_decoder, folder, dtype, count))  # type: ignore[misc]
        case = f"SAM {model}: decode {count} box{'es' * (count > 1)}"
        kinds = [OPENVINO, ONNX_RUNTIME, OPENVINO_BFLOAT16]
        repeats = run.how_often(model, usual)
        rows += _compare(run, case, ours, kinds, out / "decoder", repeats, inputs=out / f"decoder-{count}.npz")
    return rows


def yolof(run: Run, model: str) -> list[PeerComparison]:
    """YOLOF's network beside OpenVINO and ONNX Runtime."""
    folder = run.detector(model)
    out = _exported(run, folder, networks.write_detector)
    ours = _ours(run, lambda dtype: Child(networks.our_detector, folder, dtype))
    kinds = [OPENVINO, ONNX_RUNTIME, OPENVINO_BFLOAT16]
    return _compare(run, f"YOLOF {model}: the network", ours, kinds, out / "network", run.how_often(model, 5))


def sam2(run: Run, model: str) -> list[PeerComparison]:
    """SAM 2.1's image encoder beside OpenVINO and ONNX Runtime."""
    folder = run.scratch / f"sam2-{model}"
    if not folder.exists():
        from benchmarks.random_models import make_sam2

        make_sam2(folder, model)
    out = _exported(run, folder, networks.write_segmenter)
    ours = _ours(run, lambda dtype: Child(networks.our_encoder, folder, dtype))
    kinds = [OPENVINO, ONNX_RUNTIME, OPENVINO_BFLOAT16]
    return _compare(run, f"SAM 2.1 {model}: encode", ours, kinds, out / "encoder", run.how_often(model, 3))


def _exported(run: Run, folder: Path, write: Callable[..., Any]) -> Path:
    """The folder with a model's ONNX and inputs, which is made once."""
    out = run.scratch / f"peers-{folder.name}"
    if not out.exists():
        run.say(f"exporting {folder.name} as ONNX")
        out.mkdir()
        child = Child(write, folder, out)
        try:
            child.ready()
        finally:
            child.close()
    return out


def _ours(run: Run, child: Callable[[str], Child]) -> dict[str, Child]:
    return {dtype: child(dtype) for dtype in run.dtypes}


def _compare(
    run: Run,
    case: str,
    ours: Mapping[str, Child],
    kinds: Sequence[Kind],
    network: Path,
    repeats: int,
    *,
    inputs: Path | None = None,
) -> list[PeerComparison]:
    """A row for each runtime; numbers that are not served here are left out."""
    threads = int(os.environ.get("OMP_NUM_THREADS") or len(os.sched_getaffinity(0)))
    model, inputs = network.with_suffix(".onnx"), inputs or network.with_suffix(".npz")
    served = [kind for kind in kinds if kind.numbers == "float32" or "bfloat16" in ours]
    peers = {kind.name: Peer(kind, threads, model, inputs) for kind in served}
    sides: dict[str, Child | Peer] = {**ours, **peers}
    with standing(list(sides.values())):
        expected = ours["float32"].answer()
        found = {name: side.outputs() if isinstance(side, Peer) else side.answer() for name, side in sides.items()}
        far = {name: _distance(outputs, expected) for name, outputs in found.items()}
        seconds = alternate(sides, None, [None] * repeats)
        peaks = {name: side.peak_mb() for name, side in sides.items()}
    rows = []
    for kind in served:
        theirs, dtype = kind.name, _BESIDE[kind] if _BESIDE[kind] in ours else "float32"
        rows.append(
            PeerComparison(
                case,
                theirs,
                dtype,
                seconds[theirs],
                seconds[dtype],
                peaks[theirs],
                peaks[dtype],
                far[theirs],
                far[dtype],
            )
        )
    return rows


def _distance(found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> float:
    """The largest of the outputs' relative errors; of a decoder's masks the first ones, the only ones of ours."""
    errors = []
    for name, ours in expected.items():
        theirs = found[name].astype(np.float64)
        if theirs.shape != ours.shape and theirs.ndim == ours.ndim:
            theirs = theirs[:, : ours.shape[1]]
        errors.append(np.linalg.norm(theirs - ours) / np.linalg.norm(ours))
    return float(max(errors))
