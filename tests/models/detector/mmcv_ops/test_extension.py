"""How mmcv finds the ops, and what becomes of those that nobody wrote."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from models.detector import mmcv_ops
from models.detector.mmcv_ops.extension import EXTENSION
from models.model_errors import MissingOpError

pytestmark = pytest.mark.filterwarnings("ignore")  # mmdet's and mmcv's own, on import
compiled = not mmcv_ops.install()


@pytest.mark.skipif(compiled, reason="this mmcv has its ops compiled")
def test_an_op_of_no_detector_names_itself_when_called() -> None:
    from mmcv.ops import box_iou_rotated

    with pytest.raises(MissingOpError, match=r"'box_iou_rotated'.*full 'mmcv'"):
        box_iou_rotated(torch.zeros(1, 5), torch.zeros(1, 5))


@pytest.mark.skipif(compiled, reason="this mmcv has its ops compiled")
def test_install_is_idempotent_and_the_module_has_a_spec() -> None:
    extension = importlib.import_module(EXTENSION)
    assert mmcv_ops.install()
    assert importlib.import_module(EXTENSION) is extension
    assert importlib.util.find_spec(EXTENSION).name == EXTENSION


def run_with_extension(tmp_path: Path, source: str) -> subprocess.CompletedProcess:
    """In a fresh interpreter: install() where mmcv's folder on the path has this `_ext`."""
    package = tmp_path / "mmcv"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "_ext.py").write_text(source)
    program = f"""
import sys
sys.path[:0] = [{str(tmp_path)!r}, {str(Path(mmcv_ops.__file__).parents[3])!r}]
from models.detector import mmcv_ops
from models.detector.mmcv_ops.extension import EXTENSION
installed = mmcv_ops.install()
import mmcv._ext
print(installed, mmcv._ext.nms)
"""
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)


def test_a_compiled_extension_is_left_alone(tmp_path: Path) -> None:
    outcome = run_with_extension(tmp_path, "nms = 'compiled'")
    assert outcome.stdout.split() == ["False", "compiled"], outcome.stderr


@pytest.mark.parametrize(
    ("source", "reason"),
    [("raise ImportError('undefined symbol: _ZN2at')", "undefined symbol"), ("import absent_part", "absent_part")],
)
def test_a_compiled_extension_that_does_not_load_is_not_hidden(tmp_path: Path, source: str, reason: str) -> None:
    outcome = run_with_extension(tmp_path, source)
    assert outcome.returncode != 0
    assert reason in outcome.stderr
