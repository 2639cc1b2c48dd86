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
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import IterableDataset

from models.demo import training
from models.demo.scenes import scene_stream, tight_boxes
from models.demo.things import CLASS_NAMES, CLUTTER
from models.demo.views import WHOLE_SIZE, Take, View, batches, container_close_up, whole
from models.detector import mmcv_ops
from models.weights import find_places

IMAGE_SIZE = WHOLE_SIZE
Example = tuple[Tensor, Tensor, Tensor, Tensor]


CELL = 16  # pixels, of the feature map
BACKGROUND = len(CLASS_NAMES)


# Less of a thing than this in view is no more told from others, nor asked for.
LEAST_SHOWN = 0.2


class DetectorExamples(IterableDataset):
    """Batches of scenes as a detector's training wants them, each a list of what it is given of every image.

    That is BGR bytes (3, S, S) padded with zeros, boxes (N, 4), labels (N,), and cells (S / 16, S / 16) int64: the
    class that covers most of each cell of the feature map, or BACKGROUND.
    """

    def __init__(self, seed: int, batch: int, near: Take = container_close_up) -> None:
        self.seed, self.batch, self.near = seed, batch, near

    def __iter__(self) -> Iterator[list[Example]]:
        cv2.setNumThreads(1)
        rng = np.random.default_rng(self.seed)
        for views in batches(rng, scene_stream(self.seed, IMAGE_SIZE), self.batch, self.near):
            yield [_example(view) for view in views]


def _example(view: View) -> Example:
    known = (view.labels != CLUTTER) & (view.shown >= LEAST_SHOWN)
    return (
        torch.from_numpy(np.ascontiguousarray(view.image[..., ::-1].transpose(2, 0, 1))),
        torch.from_numpy(tight_boxes(view.cover[known] > 0.5)),
        torch.from_numpy(view.labels[known]),
        torch.from_numpy(_cells(view.cover[known], view.labels[known])),
    )


def _cells(cover: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Of what things cover (N, S, S) and their labels, which class each cell shows."""
    count, size, _ = cover.shape
    grid = size // CELL
    covered = cover.reshape(count, grid, CELL, grid, CELL).mean((2, 4))
    owner = covered.argmax(0) if count else np.zeros((grid, grid), np.int64)
    return np.where(covered.max(0, initial=0) > 0.4, labels[owner] if count else BACKGROUND, BACKGROUND)


def new_model(seed: int) -> nn.Module:
    """The demo config's YOLOF with fresh weights, in training mode."""
    mmcv_ops.install()
    from mmdet.registry import MODELS
    from mmengine.config import Config
    from mmengine.logging import MMLogger
    from mmengine.registry import init_default_scope

    torch.manual_seed(seed)
    MMLogger.get_current_instance().setLevel("WARNING")  # it tells how every layer was initialised
    config = Config.fromfile(_config_file())
    init_default_scope("mmdet")
    model = MODELS.build(config.model)
    model.init_weights()
    # What each cell shows, told from the same features as the boxes; only in training, see detection_loss.
    model.cells = nn.Conv2d(config.model.bbox_head.in_channels, len(CLASS_NAMES) + 1, 1)
    return model.to(memory_format=torch.channels_last).train()  # the layout in which a processor convolves fastest


def detection_loss(model: Any, batch: list[Example]) -> tuple[Tensor, dict[str, Tensor]]:
    """MMDetection's own losses of one batch of examples, and how well cells are told apart by class.

    Finding things is soon learnt, telling them apart is not: the detector's own loss trains classes on the few
    anchors of each thing only, while every cell that a thing covers shows its class.
    """
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData

    samples = []
    for pixels, boxes, labels, _ in batch:
        shape = tuple(pixels.shape[1:])
        sample = DetDataSample(metainfo={"img_shape": shape, "ori_shape": shape, "pad_shape": shape})
        sample.gt_instances = InstanceData(bboxes=boxes, labels=labels)
        samples.append(sample)
    data = model.data_preprocessor({"inputs": [b[0] for b in batch], "data_samples": samples}, training=True)
    features = model.extract_feat(data["inputs"])
    losses = model.bbox_head.loss(features, data["data_samples"])
    cells = F.cross_entropy(model.cells(features[0]), torch.stack([b[3] for b in batch]), weight=_cell_weights())
    loss = 2 * losses["loss_cls"] + losses["loss_bbox"] + 2 * cells
    return loss, {name: value.detach() for name, value in {**losses, "loss_cells": cells}.items()}


def _cell_weights() -> Tensor:
    """Most cells show background."""
    return torch.tensor([1.0] * len(CLASS_NAMES) + [0.3])


def save(model: nn.Module, folder: Path) -> None:
    """Write a detector folder: the config and the weights as float16 safetensors that name their classes."""
    half = {
        name: (value.half() if value.is_floating_point() else value).contiguous() for name, value in _own(model).items()
    }
    save_file(half, folder / "model.safetensors", {"classes": json.dumps(CLASS_NAMES)})
    config = _config_file()
    if folder.resolve() != config.parent.resolve():
        shutil.copy(config, folder)


def _config_file() -> Path:
    """The demo detector's own."""
    return find_places().shipped / "demo" / "yolof" / "yolof_r18_demo.py"


def _own(model: nn.Module) -> dict[str, Tensor]:
    """The weights that are the detector's, without those that only its training needs."""
    return {name: value for name, value in model.state_dict().items() if not name.startswith("cells.")}


def start_from(model: nn.Module, folder: Path) -> nn.Module:
    """Give a new model the weights that `save` wrote to a folder."""
    model.load_state_dict(load_file(folder / "model.safetensors"), strict=False)
    return model


def main() -> None:
    parser = training.argument_parser(__doc__, minutes=40, batch=8)
    # Batch norms remember the statistics of what they saw last, and those of close-ups are of no use for whole scenes.
    parser.add_argument("--whole", action="store_true", help="no close-ups: for the last stretch")
    args = parser.parse_args()
    near = whole if args.whole else container_close_up
    training.train(
        new_model(args.seed) if args.start is None else start_from(new_model(args.seed), args.start),
        lambda seed: training.loaded(DetectorExamples(args.seed + seed, args.batch, near)),
        lambda model, batch, _: detection_loss(model, batch),
        save,
        args.out,
        args.minutes,
        args.lr,
    )


if __name__ == "__main__":
    main()
