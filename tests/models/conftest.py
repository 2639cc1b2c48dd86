"""Small detectors with random weights that find something, and pictures for them."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from models.detector import mmcv_ops

DEMO_CONFIG = Path(__file__).parents[2] / "weights" / "demo" / "yolof" / "yolof_r18_demo.py"
CLASSES = ("can", "carton", "milk_bottle", "water_bottle")


def make_picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """(height, width, 3) uint8: coloured blocks, so that neither channels nor places look alike."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 256, (-(-height // 24), -(-width // 24), 3), dtype=np.uint8)
    return blocks.repeat(24, axis=0).repeat(24, axis=1)[:height, :width]


def make_random_detector(config: Path) -> torch.nn.Module:
    """A YOLOF config's model with random weights whose scores and boxes are well spread."""
    mmcv_ops.install()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mmdet.registry import MODELS
        from mmengine.config import Config
        from mmengine.registry import DefaultScope

        torch.manual_seed(0)
        with DefaultScope.overwrite_default_scope("mmdet"):
            model = MODELS.build(Config.fromfile(config).model)
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm in norms:  # one pass sets the statistics, so that signals neither vanish nor explode
        norm.train().momentum = 1.0
    with torch.no_grad():
        images = [torch.from_numpy(make_picture(512, 512, seed)).permute(2, 0, 1) for seed in range(2)]
        model(model.data_preprocessor({"inputs": images})["inputs"], mode="tensor")
        for name, spread, bias in (("cls_score", 1.5, -4.0), ("object_pred", 1.5, 0.0), ("bbox_pred", 0.4, 0.0)):
            convolution = getattr(model.bbox_head, name)
            torch.nn.init.normal_(convolution.weight, std=spread / convolution.weight[0].numel() ** 0.5)
            torch.nn.init.constant_(convolution.bias, bias)
    return model.eval()


@pytest.fixture(scope="session")
def picture() -> Callable[..., np.ndarray]:
    return make_picture


@pytest.fixture(scope="session")
def random_detector() -> Callable[[Path], torch.nn.Module]:
    return make_random_detector


@pytest.fixture(scope="session")
def demo_model() -> torch.nn.Module:
    return make_random_detector(DEMO_CONFIG)


@pytest.fixture
def make_folder(tmp_path: Path, demo_model: torch.nn.Module) -> Callable[..., Path]:
    """Write a folder with the small config and its checkpoint; `meta` goes into the checkpoint."""

    def make(name: str = "detector", meta: dict | None = None) -> Path:
        folder = tmp_path / name
        folder.mkdir(parents=True)
        shutil.copy(DEMO_CONFIG, folder / "config.py")
        torch.save({"meta": meta or {}, "state_dict": demo_model.state_dict()}, folder / "weights.pth")
        return folder

    return make


@pytest.fixture(scope="session")
def trained_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What mmengine's Runner itself saves after one training iteration, message hub and all."""
    mmcv_ops.install()
    folder = tmp_path_factory.mktemp("training")
    Image.fromarray(make_picture(96, 128)).save(folder / "0.png")
    annotations = {
        "images": [{"id": 0, "file_name": "0.png", "height": 96, "width": 128}],
        "annotations": [
            {"id": 1, "image_id": 0, "category_id": 1, "bbox": [10, 10, 60, 50], "area": 3000, "iscrowd": 0}
        ],
        "categories": [{"id": i + 1, "name": name} for i, name in enumerate(CLASSES)],
    }
    (folder / "train.json").write_text(json.dumps(annotations))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mmengine.config import Config
        from mmengine.runner import Runner

        config = Config.fromfile(DEMO_CONFIG)
        dataset = {
            "type": "CocoDataset",
            "metainfo": {"classes": CLASSES},
            "ann_file": str(folder / "train.json"),
            "data_prefix": {"img": str(folder) + "/"},
            "pipeline": [
                {"type": "LoadImageFromFile"},
                {"type": "LoadAnnotations", "with_bbox": True},
                {"type": "Resize", "scale": (128, 128), "keep_ratio": True},
                {"type": "PackDetInputs"},
            ],
        }
        sampler = {"type": "DefaultSampler", "shuffle": False}
        config.merge_from_dict(
            {
                "work_dir": str(folder / "work"),
                "log_level": "ERROR",
                "train_cfg": {"type": "IterBasedTrainLoop", "max_iters": 1},
                "train_dataloader": {"batch_size": 1, "num_workers": 0, "dataset": dataset, "sampler": sampler},
                "optim_wrapper": {"optimizer": {"type": "SGD", "lr": 0.001, "momentum": 0.9}},
                "default_hooks": {"checkpoint": {"type": "CheckpointHook", "interval": 1, "by_epoch": False}},
            }
        )
        config.pop("test_dataloader")
        Runner.from_cfg(config).train()
    return folder / "work" / "iter_1.pth"
