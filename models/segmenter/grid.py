"""The grid of points at which a segmenter is asked for all masks of an image, and which of them are kept.

Knows nothing of networks: a request can be read without PyTorch.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from models.segmenter.crops import Crop, grid_crops


@dataclass(frozen=True)
class Grid:
    """Where SAM is asked, and which masks are kept; the names and defaults are those of transformers' pipeline.

    points_per_side: points along each side of the grid (the pipeline calls it `points_per_crop`). points_per_batch:
    points in work at once, at most; the masks do not depend on it. pred_iou_thresh: SAM's own guess of a mask's
    quality must be above it. stability_score_thresh: the mask's IoU with itself between the thresholds
    `mask_threshold` plus and minus `stability_score_offset` must be above it. 0 of either switches it off.
    crops_nms_thresh: of two masks whose boxes overlap by more than this IoU, the better one stays. crops_n_layers: so
    many times the image is also looked at in parts, 2 x 2, then 4 x 4 and so on, of which neighbours overlap by
    `crop_overlap_ratio` of the shorter side (less in later layers), with points a side that are divided by
    `crop_n_points_downscale_factor` from layer to layer.
    """

    points_per_side: int = 32
    points_per_batch: int = 64
    pred_iou_thresh: float = 0.88
    stability_score_thresh: float = 0.95
    stability_score_offset: float = 1.0
    mask_threshold: float = 0.0
    crops_nms_thresh: float = 0.7
    crops_n_layers: int = 0
    crop_overlap_ratio: float = 512 / 1500
    crop_n_points_downscale_factor: int = 1

    @property
    def points(self) -> int:
        """Of all crops together."""
        return sum(4**layer * self.side(layer) ** 2 for layer in range(self.crops_n_layers + 1))

    def side(self, layer: int) -> int:
        """Points along a side of the crops of a layer; at least one."""
        return max(1, int(self.points_per_side / self.crop_n_points_downscale_factor**layer))

    def crops(self, size_hw: tuple[int, int]) -> list[Crop]:
        """The whole image, then its parts, each with its points."""
        sides = [self.side(layer) for layer in range(self.crops_n_layers + 1)]
        return grid_crops(size_hw, sides, self.crop_overlap_ratio)


NAMES = tuple(one.name for one in fields(Grid))
