"""A detector's figures on the validation images, for MMEngine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.dist import all_reduce
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook

from models.data import Dataset
from models.detector.instance_masks import InstanceMasks, boxes_of
from models.evaluation import Predicted, Rle, box_figures, coco_figures, truth_masks
from models.finetuning.images import without_mask
from models.finetuning.options import MASK_METRIC

SCORE_THRESHOLD = 0.3  # from which score on a box counts for precision and recall, where the user sets none


class BoxFigures(BaseMetric):
    """`models.evaluation.box_figures`, under the names that Azure gives them.

    score_threshold: for precision and recall; None for SCORE_THRESHOLD. masks: whether the detector finds masks, which
    are then measured too, where every object has one.
    """

    default_prefix = ""

    def __init__(self, dataset: Dataset, score_threshold: float | None, masks: bool = False) -> None:
        super().__init__(collect_device="gpu")  # by messages; "cpu" means files in the working directory
        self._dataset = dataset
        self._truths = truth_masks(dataset) if masks and not without_mask(dataset) else None
        self._score_threshold = SCORE_THRESHOLD if score_threshold is None else score_threshold

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        for sample in data_samples:
            found = sample["pred_instances"]
            boxes = boxes_of(found["bboxes"], found.get("masks"))
            self.results.append(
                (
                    sample["img_id"],
                    boxes.float().cpu().tolist(),
                    found["scores"].float().cpu().tolist(),
                    found["labels"].cpu().tolist(),
                    None if self._truths is None else self._rles(found["masks"], sample["img_id"]),
                )
            )

    def _rles(self, masks: Any, index: int) -> list[Rle]:
        """(N, h, w) bool masks as COCO's compressed RLEs of the image's size; some heads encode theirs themselves."""
        if not isinstance(masks, torch.Tensor):
            return list(masks)
        size_hw = self._dataset.images[index].size_hw
        of_image = InstanceMasks(masks.cpu(), masks.new_zeros((len(masks), 4)), size_hw)
        return [of_image.rle(place, size_hw, (1, 1)) for place in range(len(masks))]

    def compute_metrics(self, results: list[Any]) -> dict[str, float | None]:
        names = self._dataset.class_names
        found: list[list[Predicted]] = [[] for _ in self._dataset.images]
        for index, boxes, scores, labels, rles in results:
            height, width = self._dataset.images[index].size_hw
            rles = rles or [None] * len(boxes)
            found[index] = [  # clipped, as they are served
                Predicted(
                    names[label],
                    score,
                    (min(max(x1, 0), width), min(max(y1, 0), height), min(max(x2, 0), width), min(max(y2, 0), height)),
                    rle,
                )
                for (x1, y1, x2, y2), score, label, rle in zip(boxes, scores, labels, rles, strict=True)
            ]
        figures = box_figures(self._dataset, found, self._score_threshold)
        masks: dict[str, float | None] = {}
        if self._truths is not None:
            masks[MASK_METRIC] = coco_figures(self._dataset, found, "segm", self._truths)["mAP"]
        return {
            "mean_average_precision": figures["voc_mAP50"],
            "coco_mean_average_precision": figures["coco"]["mAP"],
            "precision": figures["precision"] if figures["precision"] is not None else 0.0,
            "recall": figures["recall"],
            **masks,
            **{f"average_precision/{name}": one["voc_AP50"] for name, one in figures["per_class"].items()},
        }


class StartValidation(Hook):
    """Validates a detector that knows the classes already before it is trained, as that may only make it worse."""

    priority = "LOWEST"

    def before_train(self, runner: Any) -> None:
        if not runner.iter:
            runner.val_loop.run()


class ValidationLoss(Hook):
    """Adds the mean loss over the validation images to their figures; it takes a second pass of each."""

    priority = "HIGHEST"  # before those who read the figures

    def before_val_epoch(self, runner: Any) -> None:
        self._sum = torch.zeros(2, dtype=torch.float64)

    def after_val_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        model = getattr(runner.model, "module", runner.model)
        with torch.no_grad():
            data = model.data_preprocessor(data_batch, True)
            loss, _ = model.parse_losses(model.loss(data["inputs"], data["data_samples"]))
        count = len(data["data_samples"])
        self._sum += torch.tensor([float(loss) * count, count], dtype=torch.float64)

    def after_val_epoch(self, runner: Any, metrics: dict[str, Any] | None = None) -> None:
        total = self._sum.to(next(runner.model.parameters()).device)
        all_reduce(total)
        assert metrics is not None
        metrics["loss"] = float(total[0] / total[1])
