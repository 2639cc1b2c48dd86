"""Which models of transformers are detectors that are served here, by the `model_type` of their config.json."""

from __future__ import annotations

# Detectors that find the classes that they were trained for.
CLOSED = (
    "conditional_detr", "d_fine", "dab-detr", "deformable_detr", "deimv2", "detr", "lw_detr", "rf_detr", "rt_detr",
    "rt_detr_v2", "table-transformer", "yolos",
)  # fmt: skip
# Detectors that find what a request names. Grounding DINO reads all texts as one sentence, OWL-ViT each on its own.
SENTENCE = ("grounding-dino", "mm-grounding-dino")
SEPARATE = ("owlv2", "owlvit")
OPEN = SENTENCE + SEPARATE

# SAM 3's detector, alone or in the folder of a model of videos: see `concepts`.
CONCEPTS = ("sam3", "sam3_video")

MODEL_TYPES = CLOSED + OPEN + CONCEPTS
