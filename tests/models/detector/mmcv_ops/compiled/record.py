"""Writes `answers.npz` beside itself: `python record.py`, where mmcv 2.1.0 has its ops compiled for the CPU.

`pip install --no-build-isolation mmcv==2.1.0` builds them beside torch, in half an hour on two cores (with torch 2.13:
-std=c++20 in place of c++17 in its setup.py). The file in this folder was made so, with torch 2.13.0 and numpy 2.4.6.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import torch
from cases import CASES, answers


def main() -> None:
    from mmcv import _ext  # the ops themselves, not what stands in for them

    assert _ext.__file__.endswith(".so"), _ext
    torch.set_num_threads(1)
    kept: dict[str, np.ndarray] = {}
    for name, case in CASES.items():
        inputs = case.inputs()
        for key, value in inputs.items():
            as_kept = value.half() if value.is_floating_point() else value
            assert torch.equal(as_kept.to(value.dtype), value), f"{name}: {key} is not exact in float16"
            kept[f"{name}|inputs|{key}"] = as_kept.numpy()
        for dtype in case.dtypes:
            for key, value in answers(case, inputs, dtype).items():
                of_indices = value.dtype == torch.int64
                kept[f"{name}|{str(dtype).removeprefix('torch.')}|{key}"] = (
                    value.to(torch.int16) if of_indices else value
                ).numpy()
    path = Path(__file__).parent / "answers.npz"
    np.savez_compressed(path, allow_pickle=False, **kept)
    print(f"{len(CASES)} cases, {path.stat().st_size / 1000:.0f} KB")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
