"""Detectors' configs in the styles of MMDetection's versions and users, and the reading that is expected of each."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import save_file

from app.cli import main
from models.checkpoints import ModelFilesError
from models.detector.mmdetection import MMDetector
from models.finetuning.start import Start, pipeline_steps
from tests.models.tiny_config import tiny_config
from tests.strangers.tiny_models import detector_weights

pytestmark = pytest.mark.filterwarnings("ignore")  # mmdet's own

REPOSITORY = Path(__file__).parents[2]
PREPROCESSOR = """    data_preprocessor=dict(
        type="DetDataPreprocessor",
        mean=[103.530, 116.280, 123.675],
        std=[57.375, 57.120, 58.395],
        bgr_to_rgb=False,
        pad_size_divisor=32,
    ),
"""
PACK = """    dict(type="PackDetInputs", meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")),
"""


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    save_file(detector_weights(folder), folder / "weights.safetensors")
    return folder / "weights.safetensors"


@pytest.fixture
def make(tmp_path: Path, weights: Path) -> Callable[[str], Path]:
    """A detector's folder with this config."""

    def written(config: str) -> Path:
        (tmp_path / "config.py").write_text(config)
        if not (tmp_path / "weights.safetensors").exists():
            (tmp_path / "weights.safetensors").symlink_to(weights)
        return tmp_path

    return written


def found_by(folder: Path) -> list[np.ndarray]:
    """What the detector's head says of a picture."""
    image = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    detector = MMDetector.load(folder)
    (raw,) = detector.forward([detector.preprocess(image)])
    assert raw.head is not None
    levels = [level.numpy() for output in raw.head for level in output]
    assert all(np.isfinite(level).all() and np.ptp(level) > 0 for level in levels)
    return levels


def replaced(old: str, new: str, config: str | None = None) -> str:
    config = config or tiny_config()
    assert old in config
    return config.replace(old, new)


# --- what is refused, and how -------------------------------------------------------------------------------

OLD_PIPELINE = """
img_norm_cfg = dict(mean=[103.53, 116.28, 123.675], std=[1.0, 1.0, 1.0], to_rgb=False)
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='MultiScaleFlipAug', img_scale=(1333, 800), flip=False, transforms=[
        dict(type='Resize', keep_ratio=True), dict(type='RandomFlip'), dict(type='Normalize', **img_norm_cfg),
        dict(type='Pad', size_divisor=32), dict(type='ImageToTensor', keys=['img']), dict(type='Collect', keys=['img']),
    ]),
]
"""
OLD_DATA = "data = dict(samples_per_gpu=2, workers_per_gpu=2, test=dict(type='CocoDataset', pipeline=test_pipeline))\n"
_MODEL = "model = dict(type='YOLOF', backbone=dict(type='ResNet', depth=18))\n"
WITHOUT_TEST = tiny_config().split("test_pipeline = [")[0]
OF_2 = r"config\.py: this config is of MMDetection 2\.x: it has "

REFUSED: dict[str, tuple[Callable[[], str], str]] = {
    "MMDetection 2": (
        lambda: _MODEL + OLD_PIPELINE + OLD_DATA, OF_2 + "the step 'MultiScaleFlipAug'.*Take the 3.x config",
    ),
    "MMDetection 2, with 3's other parts": (lambda: WITHOUT_TEST + OLD_PIPELINE, OF_2 + "the step 'MultiScaleFlipAug'"),
    "MMDetection 2's data alone": (
        lambda: tiny_config() + "data = dict(samples_per_gpu=2, test=dict(classes=('a',)))\n",
        OF_2 + r"data = dict\(samples_per_gpu=…\)",
    ),
    "MMDetection 2 on bases that 3 has too": (
        lambda: "_base_ = '../yolof/yolof_r50-c5_8xb8-1x_coco.py'\ndata = dict(train=dict(ann_file='a.json'))\n",
        OF_2 + r"data = dict\(train=…\)",
    ),
    "MMDetection 2's end of a pipeline": (
        lambda: replaced(PACK, "    dict(type='DefaultFormatBundle'), dict(type='Collect', keys=['img']),\n"),
        OF_2 + "the step 'DefaultFormatBundle'",
    ),
    "no data_preprocessor": (lambda: replaced(PREPROCESSOR, ""), "its model has no data_preprocessor.*DetDataPre"),
    "a data_preprocessor of another task": (
        lambda: replaced(PREPROCESSOR, "    data_preprocessor=dict(type='BaseDataPreprocessor'),\n"),
        "its data_preprocessor: expected a DetDataPreprocessor, got BaseDataPreprocessor",
    ),
    "an unknown data_preprocessor": (
        lambda: replaced("DetDataPreprocessor", "Unheard"), "cannot build the model: .*has no 'Unheard'",
    ),
    "an unknown model": (lambda: replaced('type="YOLOF"', 'type="YOLOv9"'), "has no 'YOLOv9'.*custom_imports"),
    "an unknown backbone": (lambda: replaced('type="ResNet"', 'type="CSPNeXt9"'), "has no 'CSPNeXt9'.*custom_imports"),
    "another package's name": (lambda: replaced('"YOLOF"', '"mmyolo.YOLODetector"'), "cannot build the model"),
    "another package's scope": (
        lambda: replaced('default_scope = "mmdet"', 'default_scope = "mmrotate"').replace('"YOLOF"', '"RotatedYOLOF"'),
        "has no 'RotatedYOLOF'",
    ),
    "an argument that is unknown": (lambda: replaced("depth=18", "depth=18, heads=8"), "cannot build.*'heads'"),
    "a value that is impossible": (lambda: replaced("depth=18", "depth=19"), "cannot build the model: .*invalid depth"),
    "a backbone that is not installed": (
        lambda: replaced('type="ResNet"', 'type="timm.ResNet"'), "cannot build the model",
    ),
    "another task": (
        lambda: "model = dict(type='FPN', in_channels=[4], out_channels=4, num_outs=1)\n",
        "expected a detector, but its model is a FPN",
    ),
    "an unknown step": (lambda: replaced('"Resize"', '"Letterbox"'), "the step 'Letterbox' .*has no 'Letterbox'"),
    "a step with another version's argument": (
        lambda: replaced("scale=(64, 64)", "img_scale=(64, 64)"), "the step 'Resize' of its test pipeline does not",
    ),
    "a step that fails": (lambda: replaced("scale=(64, 64)", "scale='big'"), "the step 'Resize' of its test pipeline"),
    "no last step": (lambda: replaced(PACK, ""), "ends with 'Resize': expected PackDetInputs"),
    "no test pipeline": (lambda: WITHOUT_TEST, "neither a test_dataloader with a pipeline nor a test_pipeline"),
    "no test data": (lambda: WITHOUT_TEST + "test_dataloader = None\n", "neither a test_dataloader with a"),
    "a pipeline of text": (lambda: WITHOUT_TEST + "test_pipeline = ['Resize']\n", r"expected a list of dict\(type=…\)"),
    "no model": (lambda: "optimizer = dict(type='SGD')\n", "not an MMDetection config: it has no 'model'"),
    "a model by name": (lambda: "model = 'yolof'\n", "model: expected a dict, got str"),
    "no Python": (lambda: "model = dict(\n", "cannot read the config: SyntaxError"),
    "tabs and a page": (lambda: "<!DOCTYPE html>\n<html></html>\n", "cannot read the config: SyntaxError"),
    "a module that is not there": (
        lambda: tiny_config() + "custom_imports = dict(imports=['my_own_heads'])\n",
        "cannot read the config: ImportError: Failed to import my_own_heads.*PYTHONPATH",
    ),
    "classes by file": (
        lambda: replaced("metainfo=metainfo,", "metainfo=dict(classes='classes.txt'),"), "names 1 classes, but .* 4",
    ),
    "classes as numbers": (
        lambda: replaced("metainfo=metainfo,", "metainfo=dict(classes=(1, 2, 3, 4)),"), "expected the names of classes",
    ),
    "a base that is nowhere": (
        lambda: "_base_ = ['../_base_/models/mine.py']\n",
        r"'\.\./_base_/models/mine\.py' is neither beside it .*Config\.fromfile\('config\.py'\)\.dump\('full\.py'\)",
    ),
    "a base of a package that is not there": (
        lambda: "_base_ = 'mmyolo::yolov5/yolov5_s.py'\n", r"cannot read the config.*mmyolo.*\.dump\('full\.py'\)",
    ),
    "read_base: a relative base that is nowhere": (
        lambda: "from mmengine.config import read_base\nwith read_base():\n    from .._base_.models.mine import *\n",
        r"cannot read the config: ConfigParsingError.*_base_/models/mine\.py.*\.dump\('full\.py'\)",
    ),
    "read_base: a base of mmdet.configs, which its package lacks": (
        lambda: "from mmengine.config import read_base\n"
        "with read_base():\n    from mmdet.configs._base_.default_runtime import *\n",
        r"cannot read the config: ConfigParsingError.*default_runtime\.py.*\.dump\('full\.py'\)",
    ),
    "read_base: a package that is not there": (
        lambda: "from mmengine.config import read_base\nwith read_base():\n    from mmyolo.configs.a import *\n",
        r"cannot read the config.*mmyolo.*\.dump\('full\.py'\)",
    ),
    "another with": (lambda: "with open('a'):\n    model = 1\n", "cannot read the config"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_says_why_and_what_to_do(make: Callable[[str], Path], name: str) -> None:
    config, message = REFUSED[name]
    folder = make(config())
    for load in (MMDetector.load, _finetuning):
        with pytest.raises(ModelFilesError, match=message) as raised:
            load(folder)
        assert "config.py" in str(raised.value) or "weights" in str(raised.value)
        assert "\n" not in str(raised.value), raised.value


def _finetuning(folder: Path) -> None:
    """What `finetune --from` reads of a detector before it trains."""
    start = Start.read(folder)
    start.model_for(("a",), start.config_for(("a",)), lambda line: None, seed=0)
    pipeline_steps(start.config, start.path, None, None)
    if start.class_names is None:  # training makes a new head; of what there is, the service's reading says more
        MMDetector.load(folder)


# --- what is read ---------------------------------------------------------------------------------------------


def test_a_data_preprocessor_of_the_whole_config_is_the_models(make: Callable[[str], Path]) -> None:
    """As MMEngine's Runner reads it: the model is trained with it."""
    expected = found_by(make(tiny_config()))
    top = "data_preprocessor = " + PREPROCESSOR.strip().removeprefix("data_preprocessor=").rstrip(",") + "\n"
    folder = make(replaced(PREPROCESSOR, "") + top)
    for one, other in zip(found_by(folder), expected, strict=True):
        np.testing.assert_array_equal(one, other)
    assert Start.read(folder).config.model["data_preprocessor"]["mean"][0] == 103.53


READ_BASE = """\
from mmdet.models import YOLOF
from mmengine.config import read_base

with read_base():
    from .base import *

model.update(dict(type=YOLOF))
"""


def as_classes(config: str) -> str:
    """The same config in the style of mmdet/configs: classes in the place of names."""
    for name, module in {
        "YOLOF": "mmdet.models.detectors", "DetDataPreprocessor": "mmdet.models.data_preprocessors",
        "ResNet": "mmdet.models.backbones", "DilatedEncoder": "mmdet.models.necks",
        "YOLOFHead": "mmdet.models.dense_heads", "Resize": "mmdet.datasets.transforms",
        "PackDetInputs": "mmdet.datasets.transforms", "LoadImageFromFile": "mmcv.transforms",
        "AnchorGenerator": "mmdet.models.task_modules.prior_generators",
    }.items():  # fmt: skip
        config = f"from {module} import {name}\n" + replaced(f'type="{name}"', f"type={name}", config)
    return config


@pytest.mark.parametrize("with_pkg_resources", [True, False])
@pytest.mark.parametrize("base", [tiny_config, lambda: as_classes(tiny_config())])
def test_read_base_and_classes(
    make: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, with_pkg_resources: bool, base: Callable[[], str]
) -> None:
    expected = found_by(make(tiny_config()))
    # Where there is one, it is not asked either: on newer Pythons it may be there and fail.
    broken = None if not with_pkg_resources else type(sys)("pkg_resources")
    monkeypatch.setitem(sys.modules, "pkg_resources", broken)
    (make(READ_BASE) / "base.py").write_text(base())
    folder = make(READ_BASE)
    config = folder / "config.py"
    with pytest.raises(ModelFilesError, match=r"found 2 and 1 .*Name the config that you mean"):
        MMDetector.load(folder)
    for one, other in zip(found_by(config), expected, strict=True):
        np.testing.assert_array_equal(one, other)
    # What is hashed and exported holds the base too, and is the same detector by itself.
    written = MMDetector.files(config)["config.py"]
    assert isinstance(written, bytes)
    (folder / "base.py").unlink()
    config.write_bytes(written)
    for one, other in zip(found_by(folder), expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_base_counts_in_the_hash(make: Callable[[str], Path]) -> None:
    written = set()
    for size in ("scale=(64, 64)", "scale=(96, 96)"):
        folder = make(READ_BASE)
        (folder / "base.py").write_text(replaced("scale=(64, 64)", size))
        written.add(MMDetector.files(folder / "config.py")["config.py"])
    assert len(written) == 2


def test_classes_that_fetch_weights_do_not(make: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    init = "init_cfg=dict(type=PretrainedInit, checkpoint='torchvision://resnet18')"
    folder = make(
        "from mmengine.model.weight_init import PretrainedInit\n" + replaced("depth=18,", f"depth=18, {init},")
    )
    start = Start.read(folder)
    start.model_for(("a",), start.config_for(("a",)), lambda line: None, seed=0)


# --- the commands ----------------------------------------------------------------------------------------------


COMMANDS = [
    ("serve", "MMDetection 2"),
    ("run", "MMDetection 2"),
    ("run", "no data_preprocessor"),
    ("finetune", "MMDetection 2"),
    ("finetune", "no data_preprocessor"),
]


@pytest.mark.parametrize(("command", "name"), COMMANDS)
def test_each_command_says_it_in_a_sentence(
    make: Callable[[str], Path],
    tmp_path_factory: pytest.TempPathFactory,
    capsys: pytest.CaptureFixture[str],
    command: str,
    name: str,
) -> None:
    config, message = REFUSED[name]
    folder, photos = make(config()), tmp_path_factory.mktemp("photos")
    for number in range(2):
        Image.new("RGB", (64, 48)).save(photos / f"{number}.png")
        (photos / f"{number}.xml").write_text(
            f"<annotation><filename>{number}.png</filename><size><width>64</width><height>48</height></size>"
            "<object><name>can</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></object>"
            "</annotation>"
        )
    here, out = [str(photos), "--out", str(photos / "out")], str(folder)
    if command == "serve":
        status, said = _served(folder)
    elif command == "run":
        status = main(["run", *here, "--detector", out, "--segmenter", "none"])
        said = capsys.readouterr().err
    else:
        status = main(["finetune", *here, "--from", out, "--quiet"])
        said = capsys.readouterr().err
    assert status not in (0, None) and "Traceback" not in said
    assert len([line for line in said.splitlines() if re.search(message, line)]) == 1, said


def _served(folder: Path) -> tuple[int, str]:
    settings = {"BOX2MASK_DETECTOR": str(folder), "BOX2MASK_SEGMENTER": "none", "BOX2MASK_PORT": "0"}
    ended = subprocess.run(
        [sys.executable, "-c", "from app.cli import main; raise SystemExit(main(['serve']))"],
        cwd=REPOSITORY,
        env={**os.environ, "BOX2MASK_DEVICE": "cpu", **settings},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return ended.returncode, ended.stderr
