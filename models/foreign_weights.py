"""Whose weights these are, told by their keys, where they are not this model's; and the way out."""

from __future__ import annotations

import re
from collections.abc import Iterable

# By patterns of keys that must all be there: whose weights, and what to do.
_KNOWN: tuple[tuple[tuple[str, ...], str, str], ...] = (
    (
        (r"lora_(A|B|embedding)",),
        "LoRA adapters (PEFT)",
        "merge them first: model.merge_and_unload().save_pretrained(…)",
    ),
    (
        (r"\.(SCB|absmax|quant_state\b.*|weight_format)$",),
        "a network quantised by bitsandbytes",
        "take the weights that are not quantised",
    ),
    (
        (r"image_encoder\.trunk\.", r"sam_mask_decoder\."),
        "Meta's SAM 2 (or 3)",
        "this service reads Hugging Face's form. `box2mask weights pull sam2.1-tiny` (-small, -base-plus, -large) "
        "fetches the published weights in it; those of SAM 3 are fetched by `box2mask weights pull sam3`",
    ),
    (
        (r"image_encoder\.", r"mask_decoder\.(hf_token|hf_mlp)"),
        "SAM-HQ as its authors publish it",
        "this service reads Hugging Face's form. `box2mask weights pull sam-hq-base` (-large, -huge) fetches the "
        "published weights in it",
    ),
    (
        (r"image_encoder\.(patch_embed\.seq|layers\.0\.blocks)", r"mask_decoder\."),
        "MobileSAM",
        "this service reads Hugging Face's SAM: `box2mask weights pull sam-base`",
    ),
    (
        (r"image_encoder\.blocks\.", r"prompt_encoder\.", r"mask_decoder\."),
        "Meta's own SAM (segment-anything)",
        "this service reads Hugging Face's form. `box2mask weights pull sam-base` (sam-large, sam-huge) fetches the "
        "published weights in it. For your own, rename the keys with `replace_keys` of convert_sam_to_hf.py, in "
        "src/transformers/models/sam of transformers' repository, load them into a SamModel of the same size, and use "
        "its save_pretrained(FOLDER)",
    ),
    ((r"vision_encoder\.", r"mask_decoder\."), "Hugging Face's SAM", "name its folder as the segmenter"),
    ((r"backbone\.bottom_up\.",), "a detector of Detectron2", "this service reads MMDetection's"),
    (
        (r"(^|\.)backbone\.body\.|(^|\.)roi_heads\.box_predictor\.|head\.classification_head\.",),
        "a detector of torchvision",
        "this service reads MMDetection's",
    ),
    (
        (r"class_labels_classifier|bbox_predictor\.layers|backbone\.conv_encoder|decoder\.(class|bbox)_embed\.\d",),
        "a detector of Hugging Face",
        "name its folder, with config.json and preprocessor_config.json, as the detector",
    ),
    ((r"^(model\.)*\d+\.(conv|cv1|m\.0)\b",), "a YOLO of Ultralytics", "this service reads MMDetection's detectors"),
    ((r"(^|\.)bbox_head\.|(^|\.)roi_head\.",), "a detector of MMDetection", "take the config of this very detector"),
)


def whose(keys: Iterable[str]) -> str | None:
    """`these are the weights of …: what to do`, or None for weights that nobody here knows."""
    several = list(keys)
    for patterns, name, way in _KNOWN:
        if all(any(re.search(pattern, key) for key in several) for pattern in patterns):
            return f"these are the weights of {name}: {way}"
    return None
