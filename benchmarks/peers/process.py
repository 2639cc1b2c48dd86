"""`python process.py LIBRARY NUMBERS THREADS MODEL INPUTS`: holds a network in another runtime and runs it when told.

It runs in the peers' own environment, so it imports nothing of this project's. Each line on standard input is a run:
`run` is answered with its seconds, `save FILE` with the same after its outputs have been written there (`.npz`). Before
the first line comes `ready`.

LIBRARY: openvino or onnxruntime. NUMBERS: float32, or of OpenVINO bfloat16 and int8-weights (compressed by NNCF).
INPUTS: an `.npz` with an array for each input.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

Inputs = dict[str, np.ndarray]
Run = Callable[[Inputs], dict[str, np.ndarray]]


def by_openvino(numbers: str, threads: int, model: str, inputs: Inputs) -> Run:
    import openvino

    core = openvino.Core()
    network = core.read_model(model)
    if numbers == "int8-weights":
        import nncf

        network = nncf.compress_weights(network, mode=nncf.CompressWeightsMode.INT8_ASYM)
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        # By itself OpenVINO takes bfloat16 where that is native, whatever the network is in.
        "INFERENCE_PRECISION_HINT": "f32" if numbers == "float32" else "bf16",
    }
    compiled = core.compile_model(network, "CPU", settings)
    request = compiled.create_infer_request()
    names = [output.get_any_name() for output in compiled.outputs]

    def run(inputs: Inputs) -> dict[str, np.ndarray]:
        found = request.infer(inputs, share_inputs=True, share_outputs=True)
        return dict(zip(names, found.to_tuple(), strict=True))

    return run


def by_onnxruntime(numbers: str, threads: int, model: str, inputs: Inputs) -> Run:
    import onnxruntime

    if numbers != "float32":
        raise SystemExit(f"ONNX Runtime on a processor: expected float32, got {numbers}")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda inputs: dict(zip(names, session.run(None, inputs), strict=True))


LIBRARIES: dict[str, Any] = {"openvino": by_openvino, "onnxruntime": by_onnxruntime}


def main(library: str, numbers: str, threads: str, model: str, inputs_at: str) -> None:
    answers = sys.stdout
    sys.stdout = sys.stderr  # what libraries have to say is no answer
    with np.load(inputs_at) as file:
        inputs = dict(file)
    run = LIBRARIES[library](numbers, int(threads), model, inputs)
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        kind, _, path = line.strip().partition(" ")
        began = time.perf_counter()
        found = run(inputs)
        elapsed = time.perf_counter() - began
        if kind == "save":
            np.savez(path, **found)
        print(elapsed, file=answers, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
