"""The families of detectors, in the order in which they are asked whether a folder is theirs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from models.families import Families

if TYPE_CHECKING:
    from models.detector.protocol import Detector

DETECTORS: Families[type[Detector[Any, Any]]] = Families(
    "models.detector.mmdetection:MMDetector",
    "models.detector.huggingface.detector:HuggingFaceDetector",
    "models.detector.huggingface.concepts:ConceptDetector",
)
