"""The COCO file of `box2mask run` as a data set for Mask R-CNN, as torchvision's detection models train on it.

    python mask_rcnn_set.py results/coco.json photos

prints what is in it. In a training script, with torchvision's own model and loop:

    dataset = MaskRcnnSet("results/coco.json", "photos")
    loader = DataLoader(dataset, batch_size=2, shuffle=True, collate_fn=lambda batch: tuple(zip(*batch)))

It needs torch, numpy, Pillow and pycocotools. MMDetection's `CocoDataset` reads the same file without any of this.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from pycocotools.coco import COCO


class MaskRcnnSet(torch.utils.data.Dataset):
    """Image i as (3, H, W) float32 in 0..1, and its target: boxes (N, 4), labels (N,), masks (N, H, W), area, iscrowd.

    Labels count from 1; 0 is the background. Photos are turned upright, as `box2mask run` takes them. An object whose
    mask is empty has nothing to learn from and is left out.
    """

    def __init__(self, coco_file: str | Path, photos: str | Path, least_iou_score: float = 0.0) -> None:
        """least_iou_score: leave out masks that SAM itself thinks less of."""
        self.data = COCO(str(coco_file))
        self.photos = Path(photos)
        self.least_iou_score = least_iou_score
        self.image_ids = sorted(self.data.getImgIds())
        self.class_names = ["background", *(one["name"] for one in self.data.loadCats(sorted(self.data.getCatIds())))]

    def __len__(self) -> int:
        return len(self.image_ids)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, dict[str, Any]]:
        image_id = self.image_ids[index]
        (entry,) = self.data.loadImgs([image_id])
        with Image.open(self.photos / entry["file_name"]) as file:
            pixels = np.array(ImageOps.exif_transpose(file).convert("RGB"))
        found = [
            one
            for one in self.data.loadAnns(self.data.getAnnIds(imgIds=[image_id]))
            if one["area"] > 0 and one.get("iou_score", 1.0) >= self.least_iou_score
        ]
        masks = [self.data.annToMask(one) for one in found]
        target = {
            "boxes": torch.tensor([box_of(mask) for mask in masks], dtype=torch.float32).reshape(-1, 4),
            "labels": torch.tensor([one["category_id"] for one in found], dtype=torch.int64),
            "masks": torch.from_numpy(np.array(masks, np.uint8).reshape(-1, *pixels.shape[:2])),
            "image_id": image_id,
            "area": torch.tensor([one["area"] for one in found], dtype=torch.float32),
            "iscrowd": torch.zeros(len(found), dtype=torch.int64),
        }
        return torch.from_numpy(pixels).permute(2, 0, 1) / 255, target


def box_of(mask: np.ndarray) -> list[int]:
    """x1, y1, x2, y2 around a mask (H, W). The prompt's box may be another; Mask R-CNN learns the mask's own."""
    ys, xs = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return [int(xs[0]), int(ys[0]), int(xs[-1]) + 1, int(ys[-1]) + 1]


if __name__ == "__main__":
    dataset = MaskRcnnSet(*sys.argv[1:3])
    for index in range(len(dataset)):
        image, target = dataset[index]
        names = [dataset.class_names[label] for label in target["labels"]]
        print(f"{tuple(image.shape)}: {', '.join(names) or 'nothing'}; masks {tuple(target['masks'].shape)}")
