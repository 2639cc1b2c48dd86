"""Labelled images for MMEngine's data loaders: decoded, augmented by seed, in an order that can be rejoined."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dataset import BaseDataset, DefaultSampler
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from pycocotools import mask as coco_mask
from torch.utils.data import DataLoader

from models.data import Annotation, Dataset, LabelledImage
from models.detector.single_image import name_of
from models.evaluation import Rle, filled_box
from models.finetuning.centre_pad import CentrePad
from models.finetuning.crop import SafeCrop
from models.finetuning.photos import photo

LEAST_PART = 0.6  # of an image's sides, that a crop leaves
_META_KEYS = ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor", "flip", "flip_direction")
LEAST_SIDE = 1.0  # pixels; losses of boxes that are thinner have no meaning


class TrainingImages(BaseDataset):
    """A Dataset for MMEngine.

    pipeline: MMDetection's transforms. seed: for training; an index is then `epoch * len + image`, and what is random
    about a sample depends on the seed, the epoch and the image alone: not on the worker that makes it, and not on what
    was made before. None: for validation, with plain indices and nothing random. masks: whether objects have theirs;
    an object that has none is then left out of the training like a crowd.
    """

    def __init__(self, dataset: Dataset, pipeline: Sequence[Any], seed: int | None, masks: bool = False) -> None:
        self._dataset = dataset
        self._seed = seed
        self._masks = masks
        super().__init__(
            metainfo={"classes": tuple(dataset.class_names)}, pipeline=list(pipeline), test_mode=seed is None
        )

    def load_data_list(self) -> list[dict[str, Any]]:
        labels = {name: label for label, name in enumerate(self._dataset.class_names)}
        return [
            {
                "img_path": str(image.path),
                "img_page": image.page,
                "img_id": index,
                "height": image.size_hw[0],
                "width": image.size_hw[1],
                "instances": [
                    {
                        "bbox": box,
                        "bbox_label": labels[one.label],
                        "ignore_flag": int(one.crowd or (self._masks and usable_mask(one, image) is None)),
                        **({"mask": usable_mask(one, image) or filled_box(box, image.size_hw)} if self._masks else {}),
                    }
                    for one in image.annotations
                    if (box := usable_box(one, image)) is not None
                ],
            }
            for index, image in enumerate(self._dataset.images)
        ]

    def __getitem__(self, index: int) -> dict[str, Any]:
        if self._seed is None:
            return super().__getitem__(index)
        epoch, image = divmod(index, len(self))
        with _seeded(self._seed, epoch, image):
            return super().__getitem__(image)


class RejoinableSampler(DefaultSampler):
    """MMEngine's sampler, whose next epoch may leave out its first `skip` samples. Indices tell the epoch too."""

    skip = 0

    def __iter__(self) -> Iterator[int]:
        indices = list(super().__iter__())[self.skip :]
        self.skip = 0
        return iter([self.epoch * len(self.dataset) + index for index in indices])


class LoadImage:
    """The first transform: an image file as (H, W, 3) uint8 BGR, in the frame that its annotations are in.

    That is upright by EXIF; or as stored, where the size that the data set states is only that of the stored pixels.
    Raises DataError for a file that cannot be decoded, or has another size.
    """

    def __init__(self, to_float32: bool = False) -> None:
        self._to_float32 = to_float32

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        size_hw = (results["height"], results["width"])
        pixels = photo(Path(results["img_path"]), size_hw, results.get("img_page", 1))
        results["img"] = np.ascontiguousarray(pixels[..., ::-1], np.float32 if self._to_float32 else np.uint8)
        results["img_shape"] = results["ori_shape"] = size_hw
        return results


def training_pipeline(
    steps: Sequence[dict[str, Any]], preprocessor: dict[str, Any], augment: bool, masks: bool = False
) -> list[Any]:
    """The test pipeline's steps with the annotations, and with augmentations like Azure's around them: an image is put
    on a larger canvas, a part with every object whole in it is cut out, and half of the images are mirrored.

    steps: the first of them loads the image, and says whether as float32. masks: whether objects bring theirs along.
    """
    from mmdet.registry import TRANSFORMS

    pipeline: list[Any] = [
        LoadImage(to_float32=bool(steps[0].get("to_float32"))),
        {"type": "LoadAnnotations", "with_bbox": True, "with_mask": masks},
    ]
    if augment:
        mean = list(preprocessor.get("mean") or (0, 0, 0))
        pipeline += [
            {
                "type": "Expand",
                "mean": mean if len(mean) == 3 else mean * 3,
                "to_rgb": bool(preprocessor.get("bgr_to_rgb")),
                "ratio_range": (1, 1.6),
                "prob": 0.4,
            },
            SafeCrop(LEAST_PART),
        ]
    for step in steps[1:]:
        kind = name_of(step["type"])
        if kind == "PackDetInputs":
            if augment:
                pipeline.append({"type": "RandomFlip", "prob": 0.5})
            # What a head asks for, besides what it always gets.
            keys = dict.fromkeys((*_META_KEYS, *step.get("meta_keys", ())))
            pipeline.append({"type": "PackDetInputs", "meta_keys": tuple(keys)})
        elif kind == "RandomCenterCropPad":
            pipeline.append(CentrePad(TRANSFORMS.build(dict(step))))
        else:
            pipeline.append(step)
    return pipeline


def loader(
    dataset: Dataset,
    pipeline: Sequence[Any],
    batch_size: int,
    workers: int,
    seed: int,
    *,
    training: bool,
    masks: bool = False,
) -> DataLoader:
    """MMEngine's data loader: for training in another order in every epoch, for validation in the data set's."""
    with DefaultScope.overwrite_default_scope("mmdet"):
        images = TrainingImages(dataset, pipeline, seed if training else None, masks)
    return Runner.build_dataloader(
        {
            "dataset": images,
            "sampler": (RejoinableSampler if training else DefaultSampler)(images, shuffle=training, seed=seed),
            "batch_size": batch_size,
            "num_workers": workers,
            "persistent_workers": workers > 0,
            # Beginning an epoch draws a number: from torch's own generator, rejoining one would shift all after it.
            "generator": torch.Generator().manual_seed(seed),
        },
        seed=seed,
    )


def usable_box(annotation: Annotation, image: LabelledImage) -> tuple[float, float, float, float] | None:
    """The part of a box inside the image; None where that is thinner than a pixel."""
    height, width = image.size_hw
    x1, y1, x2, y2 = annotation.box_xyxy
    x1, y1, x2, y2 = max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height))
    return (x1, y1, x2, y2) if min(x2 - x1, y2 - y1) >= LEAST_SIDE else None


def usable_mask(annotation: Annotation, image: LabelledImage) -> Rle | None:
    """An object's mask as COCO's compressed RLE; None where it has none, or one without a pixel inside the image."""
    rle = annotation.to_rle(image.size_hw)
    return rle if rle is not None and coco_mask.area(rle) else None


def too_thin(dataset: Dataset) -> int:
    """How many boxes are left out because hardly any of them is inside their image."""
    return sum(usable_box(annotation, image) is None for image, annotation in dataset.annotations())


def without_mask(dataset: Dataset) -> list[tuple[LabelledImage, Annotation]]:
    """The objects that have no mask; crowds need none."""
    return [(image, one) for image, one in dataset.annotations() if not one.crowd and usable_mask(one, image) is None]


@contextmanager
def _seeded(*numbers: int) -> Iterator[None]:
    """Let what is random inside follow from the numbers alone, and leave what is random outside as it was."""
    kept = random.getstate(), np.random.get_state()
    seed = int(np.random.SeedSequence(numbers).generate_state(1)[0])
    random.seed(seed)
    np.random.seed(seed)
    try:
        yield
    finally:
        random.setstate(kept[0])
        np.random.set_state(kept[1])
