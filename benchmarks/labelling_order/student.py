"""The detector that learns from corrected photos, and what it and SAM say of a photo."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.accuracy import DEMO_DETECTOR
from benchmarks.labelling_order.photos import Photo
from models import evaluation, uncertainty
from models.data import Dataset
from models.demo.evaluation import SURE
from models.demo.things import CLASS_NAMES
from models.detector import mmcv_ops
from models.detector.mmdet_values import Sample
from models.detector.mmdetection import MMDetector, RawDetections
from models.evaluation import Predicted
from models.rle import encode_rle
from models.segmenter.sam import Sam
from models.types import Detections, Embedding, Prompts
from models.uncertainty import Doubts

BATCH, LEARNING_RATE = 4, 1e-4
Detect = Callable[[Photo], Detections]


@dataclass(frozen=True, eq=False)
class Answer:
    """What the models say of a photo: every box with its score, and of the sure ones the mask and the doubts."""

    boxes: list[Predicted]
    sure: list[Predicted]
    doubts: list[Doubts]


class Student:
    """The demo detector, of which neck and head learn and the backbone does not, so that its features are kept.

    The whole detector's fine-tuning takes too long on a processor to be repeated for each point of the figure.
    """

    def __init__(self) -> None:
        self.detector = MMDetector.load(DEMO_DETECTOR, fast=False)
        self._model = self.detector._model
        self._start = copy.deepcopy(self._model.state_dict())
        self._known: dict[Path, tuple[Sample, Any]] = {}

    def train(self, photos: Sequence[Photo], steps: int, seed: int) -> None:
        """Begin anew with the demo's weights, and train on the truth of these photos."""
        from mmdet.structures import DetDataSample
        from mmengine.structures import InstanceData

        self._model.load_state_dict(self._start)
        rng, head = np.random.default_rng(seed), self._model.bbox_head
        learning = [one for part in (self._model.neck, head) for one in part.parameters()]
        for one in learning:
            one.requires_grad_(True)
        optimizer = torch.optim.AdamW(learning, lr=LEARNING_RATE, weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        for _ in range(steps):
            chosen = [photos[place] for place in rng.integers(len(photos), size=BATCH)]
            features, samples = [], []
            for photo in chosen:
                sample, feature = self._features(photo)
                features.append(feature)
                truth = photo.labelled.annotations
                scale = np.array(sample.metainfo["scale_factor"] * 2)
                boxes = torch.tensor(np.array([one.box_xyxy for one in truth]).reshape(-1, 4) * scale).float()
                labels = torch.tensor([CLASS_NAMES.index(one.label) for one in truth], dtype=torch.long)
                padded = tuple(sample.inputs.shape[1:])
                shape = {"pad_shape": padded, "batch_input_shape": padded}
                samples.append(DetDataSample(metainfo=sample.metainfo | shape))
                samples[-1].gt_instances = InstanceData(bboxes=boxes, labels=labels)
            with mmcv_ops.using(fast=False):
                losses = head.loss(self._model.neck((torch.cat(features),)), samples)
            optimizer.zero_grad()
            sum(losses.values()).backward()
            torch.nn.utils.clip_grad_norm_(learning, 10)
            optimizer.step()
            schedule.step()

    @torch.inference_mode()
    def detect(self, photo: Photo) -> Detections:
        """As MMDetector.detect, from the kept features."""
        sample, feature = self._features(photo)
        with mmcv_ops.using(fast=False):
            outputs = self._model.bbox_head(self._model.neck((feature,)))
        return self.detector.postprocess(RawDetections(sample, head=tuple(outputs)))

    def _features(self, photo: Photo) -> tuple[Sample, Any]:
        key = Path(photo.labelled.path)
        if key not in self._known:
            sample = self.detector.preprocess(photo.pixels)
            with torch.no_grad():
                pixels = self._model.data_preprocessor({"inputs": [sample.inputs], "data_samples": None}, False)
                self._known[key] = sample, self._model.backbone(pixels["inputs"])[-1]
        return self._known[key]


def answers(
    detect: Detect, segmenter: Sam, photos: Sequence[Photo], known: dict[Path, Embedding] | None = None
) -> list[Answer]:
    """As `box2mask run --order uncertainty` asks the models.

    known: embeddings by the photo's file, kept from one detector to the next; without doubts then.
    """
    found = []
    for photo in photos:
        ours = detect(photo)
        boxes = [
            Predicted(CLASS_NAMES[label], float(score), tuple(box))
            for box, label, score in zip(ours.boxes_xyxy.tolist(), ours.labels, ours.scores, strict=True)
        ]
        sure, doubts = [one for one in boxes if (one.score or 0) >= SURE], []
        if sure:
            embedding = None if known is None else known.get(Path(photo.labelled.path))
            if embedding is None:
                (embedding,) = segmenter.embed([segmenter.preprocess(photo.pixels)])
            if known is not None:
                known[Path(photo.labelled.path)] = embedding
            prompts = Prompts(boxes_xyxy=np.array([one.box_xyxy for one in sure], np.float32))
            single = segmenter.decode(embedding, prompts, multimask=False)
            several = segmenter.decode(embedding, prompts, multimask=True) if known is None else None
            for index, one in enumerate(sure):
                mask = encode_rle(segmenter.postprocess(single, index)[0])
                sure[index] = Predicted(one.label, one.score, one.box_xyxy, mask)
                if several is not None:
                    three = [encode_rle(np.ascontiguousarray(each)) for each in segmenter.postprocess(several, index)]
                    agreement = uncertainty.mask_agreement(three)
                    doubts.append(uncertainty.of_object(one.score, one.box_xyxy, mask, agreement))
        found.append(Answer(boxes, sure, doubts))
    return found


def figures(photos: Sequence[Photo], found: Sequence[Answer]) -> tuple[float, float]:
    """COCO's mAP of the boxes, and the mean IoU of all objects' masks by the detector's boxes, 0 where it is missed."""
    dataset = Dataset(tuple(CLASS_NAMES), tuple(photo.labelled for photo in photos))
    boxes = evaluation.box_figures(dataset, [one.boxes for one in found], SURE)["coco"]["mAP"]
    scored = evaluation.score_detected(dataset, evaluation.truth_masks(dataset), [one.sure for one in found], SURE)
    masks = evaluation.mask_figures(scored, dataset.class_names)["average_iou_all_objects"]
    return float(boxes), float(masks)


def lacking(photos: Sequence[Photo], found: Sequence[Answer]) -> np.ndarray:
    """For each photo what a person has to do: 1 - IoU of each true object's mask, and 1 for each wrong detection."""
    work = []
    for photo, answer in zip(photos, found, strict=True):
        dataset = Dataset(tuple(CLASS_NAMES), (photo.labelled,))
        scored = evaluation.score_detected(dataset, evaluation.truth_masks(dataset), [answer.sure], SURE)
        right = [one.scores.iou for one in scored if one.scores is not None]
        work.append(len(scored) - sum(right) + len(answer.sure) - len(right))
    return np.array(work)
