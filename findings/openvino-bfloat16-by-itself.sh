#!/usr/bin/env bash
# One would guess: a model of float32 weights that gets float32 and gives float32 is computed in float32 on a processor,
# whichever processor it is, as in PyTorch and ONNX Runtime.
# Instead: on one with instructions for bfloat16 (AVX512-BF16 or AMX: AMD from Zen 4, Intel's servers from Cooper Lake)
# OpenVINO computes in bfloat16, unless told otherwise; inputs and outputs are float32 still. A product of two matrices is
# off by 2 in 1000, where float32 is off by 1 in a million.
# Why it matters: a model that was compared with its original on one machine is three digits less exact on the next one,
# and nothing of the model, the code or the versions differs.
# compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}) computes in float32 everywhere.
# Seen with: openvino 2026.4.1, numpy 2.4.6, on an AMD processor with AVX512-BF16; it needs such a one.
set -euo pipefail
grep -qE 'avx512_bf16|amx_bf16' /proc/cpuinfo || { echo "this processor has no bfloat16: nothing can be seen here" >&2; exit 2; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet openvino==2026.4.1 numpy==2.4.6
OPENVINO_TELEMETRY=0 "$work/venv/bin/python" - <<'PY'
import sys

import numpy as np
import openvino
from openvino import opset13

random = np.random.default_rng(0)
weights = random.standard_normal((512, 512), np.float32)
rows = random.standard_normal((64, 512), np.float32)
exact = rows.astype(np.float64) @ weights.astype(np.float64)
given = opset13.parameter([64, 512], np.float32)
model = openvino.Model([opset13.matmul(given, opset13.constant(weights), False, False)], [given])
print("openvino", openvino.__version__)
error = {}
for name, options in (("as it is", {}), ("told f32", {"INFERENCE_PRECISION_HINT": "f32"})):
    compiled = openvino.Core().compile_model(model, "CPU", options)
    (product,) = compiled([rows]).values()
    error[name] = float(np.abs(product - exact).max() / np.abs(exact).max())
    precision = compiled.get_property("INFERENCE_PRECISION_HINT")
    print(f"  {name}: computed in {precision.get_type_name()}, {product.dtype} comes out, off by {error[name]:.1e}")
if not (error["as it is"] > 1e-3 and error["told f32"] < 1e-5):
    sys.exit("no longer so: float32 is computed in float32")
print("as stated: a float32 model is computed in bfloat16")
PY
