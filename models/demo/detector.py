"""Trains the demo detector, a narrow YOLOF, from nothing on demo scenes: `python -m models.demo.detector OUT`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.data import IterableDataset

from models import mmcv_ops
from models.demo import training
from models.demo.scenes import scene_stream
from models.demo.things import CLASS_NAMES, CLUTTER

CONFIG = Path(__file__).parents[2] / "weights" / "demo" / "yolof" / "yolof_r18_demo.py"
IMAGE_SIZE = 256


class DetectorExamples(IterableDataset):
    """Scenes as a detector's training wants them: BGR bytes (3, S, S) padded with zeros, boxes, labels."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        cv2.setNumThreads(1)
        for scene in scene_stream(self.seed, IMAGE_SIZE):
            height, width = scene.image.shape[:2]
            pixels = np.zeros((3, IMAGE_SIZE, IMAGE_SIZE), np.uint8)
            pixels[:, :height, :width] = scene.image[..., ::-1].transpose(2, 0, 1)
            known = scene.labels != CLUTTER
            yield (
                torch.from_numpy(pixels),
                torch.from_numpy(scene.boxes_xyxy[known]),
                torch.from_numpy(scene.labels[known]),
            )


def new_model(seed: int) -> nn.Module:
    """The demo config's YOLOF with fresh weights, in training mode."""
    mmcv_ops.install()
    from mmdet.registry import MODELS
    from mmengine.config import Config
    from mmengine.logging import MMLogger
    from mmengine.registry import init_default_scope

    torch.manual_seed(seed)
    MMLogger.get_current_instance().setLevel("WARNING")  # it tells how every layer was initialised
    config = Config.fromfile(CONFIG)
    init_default_scope("mmdet")
    model = MODELS.build(config.model)
    model.init_weights()
    return model.train()


def detection_loss(model: Any, batch: list[tuple[Tensor, Tensor, Tensor]]) -> tuple[Tensor, dict[str, Tensor]]:
    """MMDetection's own losses of one batch of examples, weighed."""
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData

    samples = []
    for pixels, boxes, labels in batch:
        shape = tuple(pixels.shape[1:])
        sample = DetDataSample(metainfo={"img_shape": shape, "ori_shape": shape, "pad_shape": shape})
        sample.gt_instances = InstanceData(bboxes=boxes, labels=labels)
        samples.append(sample)
    data = model.data_preprocessor({"inputs": [b[0] for b in batch], "data_samples": samples}, training=True)
    losses = model.loss(data["inputs"], data["data_samples"])
    # Finding things is soon learnt; telling them apart is not, so that it weighs double.
    return 2 * losses["loss_cls"] + losses["loss_bbox"], {"cls": losses["loss_cls"].detach()}


def save(model: nn.Module, folder: Path) -> None:
    """Write a detector folder: the config and the weights as float16 safetensors that name their classes."""
    half = {name: value.half() if value.is_floating_point() else value for name, value in model.state_dict().items()}
    save_file(half, folder / "model.safetensors", {"classes": json.dumps(CLASS_NAMES)})
    if folder.resolve() != CONFIG.parent.resolve():
        shutil.copy(CONFIG, folder)


def main() -> None:
    args = training.arguments(__doc__, minutes=40, batch=8)
    training.train(
        new_model(args.seed),
        lambda seed: training.loaded(DetectorExamples(args.seed + seed), args.batch, collate=list),
        lambda model, batch, _: detection_loss(model, batch),
        save,
        args.out,
        args.minutes,
        args.lr,
    )


if __name__ == "__main__":
    main()
