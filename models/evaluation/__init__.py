"""Measures boxes and masks against annotated images; docs/evaluation.md defines every figure."""

from models.evaluation.boxes import box_figures
from models.evaluation.coco import coco_figures
from models.evaluation.masks import (
    MaskScores,
    Rle,
    ScoredObject,
    compare,
    fill_boxes,
    filled_box,
    mask_figures,
    middle_point,
    score_detected,
    score_prompted,
    truth_masks,
)
from models.evaluation.matching import IOU_THRESHOLD, Found, Matching, match
from models.evaluation.predicted import Predicted, Predictions
from models.evaluation.predictions import read_predictions
from models.evaluation.readings import Options

__all__ = [
    "IOU_THRESHOLD",
    "Found",
    "MaskScores",
    "Matching",
    "Options",
    "Predicted",
    "Predictions",
    "Rle",
    "ScoredObject",
    "box_figures",
    "coco_figures",
    "compare",
    "fill_boxes",
    "filled_box",
    "mask_figures",
    "match",
    "middle_point",
    "read_predictions",
    "score_detected",
    "score_prompted",
    "truth_masks",
]
