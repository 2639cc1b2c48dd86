"""The families of promptable segmenters, in the order in which they are asked whether a folder is theirs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from models.families import Families

if TYPE_CHECKING:
    from models.segmenter.protocol import Segmenter

SEGMENTERS: Families[type[Segmenter[Any]]] = Families(
    "models.segmenter.sam:Sam",
    "models.segmenter.sam_hq:SamHQ",
    "models.segmenter.sam2:Sam2",
    "models.segmenter.edgetam:EdgeTam",
    "models.segmenter.sam3:Sam3",
)
