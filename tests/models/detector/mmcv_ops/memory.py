"""How much memory a call takes, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[4]


def peak_memory(program: str) -> int:
    """Bytes by which a process grows at most while it runs `call`, a function that the program defines.

    The program has torch and `mmcv.ops`' functions. Memory that is freed goes back at once, so that what the program
    itself took meanwhile hides nothing.
    """
    lines = f"""
import sys, warnings
warnings.simplefilter("ignore")
import torch
torch.set_num_threads(1)
from models.detector.mmcv_ops import install
install()
from mmcv.ops import deform_conv2d, modulated_deform_conv2d, roi_align
{program}
def memory(name):
    return int(open("/proc/self/status").read().split(name + ":")[1].split()[0]) * 1024
open("/proc/self/clear_refs", "w").write("5")
before = memory("VmRSS")
result = call()
print(memory("VmHWM") - before)
"""
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True, env=environment, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)
