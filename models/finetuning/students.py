"""Students: small instance segmentation models on the backbone of a detector that is there already.

The backbone stays as the detector has it, weights and all, so that a student needs no download and little data; its
neck and heads are new. They are RTMDet-Ins and Mask R-CNN as MMDetection's zoo has them, but narrower.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch

from models.checkpoints import ModelFilesError
from models.detector.files import forget_downloads
from models.detector.pipelines import inference_pipeline
from models.finetuning.options import STUDENTS

WIDTH = 48  # channels of neck and heads
_LEAST_LEVELS = 3
_PROBE = 128  # pixels of the image that tells a backbone's levels


def student_config(name: str, config: Any, path: Path) -> Any:
    """The config of a student, one of STUDENTS, on the backbone of a detector's config.

    path: what to call the detector in an error. Raises ModelFilesError where its backbone has too few levels.
    """
    from mmengine.config import Config

    most, build = dict(zip(STUDENTS, ((3, _rtmdet_ins), (4, _mask_rcnn)), strict=True))[name]
    backbone, channels, strides = _levels(config, path, most)
    preprocessor = copy.deepcopy(config.model.data_preprocessor.to_dict())
    preprocessor |= {"type": "DetDataPreprocessor", "pad_size_divisor": 32, "pad_mask": True}
    pipeline = [dict(step) for step in inference_pipeline(config, path)]
    student: dict[str, Any] = {"default_scope": "mmdet"}
    if config.get("custom_imports"):
        student["custom_imports"] = config.custom_imports.to_dict()
    model = {"data_preprocessor": preprocessor, "backbone": backbone, **build(channels, strides)}
    return Config(student | {"model": model, "test_pipeline": pipeline})


def _levels(config: Any, path: Path, most: int) -> tuple[dict[str, Any], list[int], list[int]]:
    """The backbone with an output for each of its `most` coarsest strides, the finest first, and their channels and
    strides."""
    from mmdet.registry import MODELS
    from mmengine.model.utils import revert_sync_batchnorm
    from mmengine.registry import DefaultScope

    backbone = copy.deepcopy(config.model.backbone.to_dict())
    forget_downloads(backbone)
    if "num_stages" in backbone or "depth" in backbone:  # a ResNet, whose other stages are there as well
        backbone["out_indices"] = tuple(range(backbone.get("num_stages", 4)))
    with DefaultScope.overwrite_default_scope("mmdet"), torch.no_grad():
        built = revert_sync_batchnorm(MODELS.build(copy.deepcopy(backbone)))
        built.eval()  # which returns nothing in MMDetection's backbones
        outputs = built(torch.zeros(1, 3, _PROBE, _PROBE))
    indices = backbone.get("out_indices", range(len(outputs)))
    deepest = {_PROBE // one.shape[-1]: (index, one.shape[1]) for index, one in zip(indices, outputs, strict=True)}
    chosen = sorted(deepest.items())[-most:]
    if len(chosen) < _LEAST_LEVELS or ("out_indices" not in backbone and len(chosen) < len(outputs)):
        raise ModelFilesError(
            f"{path}: its backbone gives maps of {len(deepest)} sizes: expected {_LEAST_LEVELS} at the least, in "
            "which a student finds small and large objects. Name a detector on a ResNet"
        )
    if "out_indices" in backbone:
        backbone["out_indices"] = tuple(index for _, (index, _) in chosen)
    return backbone, [count for _, (_, count) in chosen], [stride for stride, _ in chosen]


def _rtmdet_ins(channels: list[int], strides: list[int]) -> dict[str, Any]:
    """RTMDet-Ins (Lyu et al., 2022) on the three coarsest levels."""
    layers = {"norm_cfg": {"type": "BN"}, "act_cfg": {"type": "SiLU", "inplace": True}}
    return {
        "type": "RTMDet",
        "neck": {
            "type": "CSPNeXtPAFPN",
            "in_channels": channels,
            "out_channels": WIDTH,
            "num_csp_blocks": 1,
            "expand_ratio": 0.5,
            **layers,
        },
        "bbox_head": {
            "type": "RTMDetInsSepBNHead",
            "num_classes": 1,
            "in_channels": WIDTH,
            "stacked_convs": 1,
            "share_conv": True,
            "pred_kernel_size": 1,
            "feat_channels": WIDTH,
            **layers,
            "anchor_generator": {"type": "MlvlPointGenerator", "offset": 0, "strides": strides},
            "bbox_coder": {"type": "DistancePointBBoxCoder"},
            "loss_cls": {"type": "QualityFocalLoss", "use_sigmoid": True, "beta": 2.0, "loss_weight": 1.0},
            "loss_bbox": {"type": "GIoULoss", "loss_weight": 2.0},
            "loss_mask": {"type": "DiceLoss", "loss_weight": 2.0, "eps": 5e-6, "reduction": "mean"},
            "mask_loss_stride": min(4, strides[0]),
        },
        "train_cfg": {
            "assigner": {"type": "DynamicSoftLabelAssigner", "topk": 13},
            "allowed_border": -1,
            "pos_weight": -1,
            "debug": False,
        },
        "test_cfg": {
            "nms_pre": 1000,
            "min_bbox_size": 0,
            "score_thr": 0.05,
            "nms": {"type": "nms", "iou_threshold": 0.6},
            "max_per_img": 100,
            "mask_thr_binary": 0.5,
        },
    }


def _mask_rcnn(channels: list[int], strides: list[int]) -> dict[str, Any]:
    """Mask R-CNN (He et al., 2017) with a feature pyramid of all levels and one more."""
    coder = {"type": "DeltaXYWHBBoxCoder", "target_means": [0.0] * 4}
    cross_entropy = {"type": "CrossEntropyLoss", "loss_weight": 1.0}
    smooth = {"type": "L1Loss", "loss_weight": 1.0}

    def pooled(size: int) -> dict[str, Any]:
        return {
            "type": "SingleRoIExtractor",
            "roi_layer": {"type": "RoIAlign", "output_size": size, "sampling_ratio": 2},
            "out_channels": WIDTH,
            "featmap_strides": strides,
        }

    def assigner(high: float, low: float, low_quality: bool) -> dict[str, Any]:
        return {
            "type": "MaxIoUAssigner",
            "pos_iou_thr": high,
            "neg_iou_thr": low,
            "min_pos_iou": low,
            "match_low_quality": low_quality,
            "ignore_iof_thr": 0.5,
        }

    def sampler(count: int, share: float, add_truth: bool) -> dict[str, Any]:
        return {
            "type": "RandomSampler",
            "num": count,
            "pos_fraction": share,
            "neg_pos_ub": -1,
            "add_gt_as_proposals": add_truth,
        }

    proposal = {"nms_pre": 500, "max_per_img": 200, "nms": {"type": "nms", "iou_threshold": 0.7}, "min_bbox_size": 0}
    return {
        "type": "MaskRCNN",
        "neck": {"type": "FPN", "in_channels": channels, "out_channels": WIDTH, "num_outs": len(strides) + 1},
        "rpn_head": {
            "type": "RPNHead",
            "in_channels": WIDTH,
            "feat_channels": WIDTH,
            "anchor_generator": {
                "type": "AnchorGenerator",
                "scales": [8],
                "ratios": [0.5, 1.0, 2.0],
                "strides": [*strides, 2 * strides[-1]],
            },
            "bbox_coder": {**coder, "target_stds": [1.0] * 4},
            "loss_cls": {**cross_entropy, "use_sigmoid": True},
            "loss_bbox": smooth,
        },
        "roi_head": {
            "type": "StandardRoIHead",
            "bbox_roi_extractor": pooled(7),
            "bbox_head": {
                "type": "Shared2FCBBoxHead",
                "in_channels": WIDTH,
                "fc_out_channels": 4 * WIDTH,
                "roi_feat_size": 7,
                "num_classes": 1,
                "bbox_coder": {**coder, "target_stds": [0.1, 0.1, 0.2, 0.2]},
                "reg_class_agnostic": False,
                "loss_cls": {**cross_entropy, "use_sigmoid": False},
                "loss_bbox": smooth,
            },
            "mask_roi_extractor": pooled(14),
            "mask_head": {
                "type": "FCNMaskHead",
                "num_convs": 4,
                "in_channels": WIDTH,
                "conv_out_channels": WIDTH,
                "num_classes": 1,
                "loss_mask": {**cross_entropy, "use_mask": True},
            },
        },
        "train_cfg": {
            "rpn": {
                "assigner": assigner(0.7, 0.3, True),
                "sampler": sampler(128, 0.5, False),
                "allowed_border": -1,
                "pos_weight": -1,
                "debug": False,
            },
            "rpn_proposal": proposal,
            "rcnn": {
                "assigner": assigner(0.5, 0.5, False),
                "sampler": sampler(64, 0.25, True),
                "mask_size": 28,
                "pos_weight": -1,
                "debug": False,
            },
        },
        "test_cfg": {
            "rpn": proposal,
            "rcnn": {
                "score_thr": 0.05,
                "nms": {"type": "nms", "iou_threshold": 0.5},
                "max_per_img": 100,
                "mask_thr_binary": 0.5,
            },
        },
    }
