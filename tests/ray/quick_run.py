"""`box2mask` with models that take no time, here or in a cluster's processes; each of these knows what it is for.

python -m tests.ray.quick_run run photos --out results --ray HOST:PORT
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from app.cluster.folders.models import OpenModels
from app.prediction import ImageSource, PredictedObject, read_image
from app.settings import Settings
from benchmarks.sleeping_models import Sleeping, SleepingPredictor

SCORES = (0.9, 0.6, 0.2)
# A file that ends with this and a path ends the process that looks at it, the first time.
KILLS_ONCE = b"KILLS ONCE "


class Quick(OpenModels):
    """Stands for `OpenModels`, as it can be sent as that can."""

    def __init__(self, settings: Settings, typed: tuple[str, ...], params: dict[str, Any], kinds: str = "both") -> None:
        self.kinds = kinds

    def alone(self, kind: str) -> Quick:
        return Quick(Settings(), (), {}, kind)

    def __call__(self) -> Any:
        return QuickPredictor(self.kinds)


class QuickPredictor(SleepingPredictor):
    """kinds: which of the models it has, `both` or one; it refuses the work of the other."""

    def __init__(self, kinds: str) -> None:
        super().__init__(Sleeping(0, 0, len(SCORES)))
        self._kinds = ("detector", "segmenter") if kinds == "both" else (kinds,)
        self.class_names = ("nothing", "thing") if "detector" in self._kinds else ()
        self.description = {
            kind: SleepingPredictor.description[kind] | {"name": f"quick {kind}"} if kind in self._kinds else None
            for kind in ("detector", "segmenter")
        }

    def identity(self) -> dict[str, str | None]:
        return {kind: f"quick {kind}" if kind in self._kinds else None for kind in ("detector", "segmenter")}

    def detect(
        self, image: ImageSource, score_threshold: float | None = None, *, masks: bool = False
    ) -> list[PredictedObject]:
        self._needs("detector")
        data = read_image(image)
        _, is_there, flag = data.rpartition(KILLS_ONCE)
        if is_there and not (path := Path(os.fsdecode(flag))).exists():
            path.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        found = [PredictedObject("thing", score, box) for score, box in zip(SCORES, self._found(data), strict=True)]
        return [one for one in found if (one.score or 0) >= (score_threshold or 0)]

    def segment(self, image: ImageSource, boxes_xyxy: np.ndarray) -> list[PredictedObject]:
        self._needs("segmenter")
        return super().segment(image, boxes_xyxy)

    def detect_and_segment(self, image: ImageSource, score_threshold: float | None = None) -> list[PredictedObject]:
        boxes = self.detect(image, score_threshold)
        masks = self.segment(image, np.array([one.box_xyxy for one in boxes]).reshape(-1, 4))
        return [
            PredictedObject(box.label, box.score, box.box_xyxy, mask.rle, mask.iou_score)
            for box, mask in zip(boxes, masks, strict=True)
        ]

    def _needs(self, kind: str) -> None:
        assert kind in self._kinds, f"asked for the work of the {kind}"


def main() -> int:
    import app.cluster.folders.models
    import app.predictor
    from app.cli import main
    from tests.ray import quick_run  # so that other processes find its classes by this name

    app.cluster.folders.models.OpenModels = quick_run.Quick  # type: ignore[misc]
    app.predictor.open_predictor = lambda *args, **kwargs: nullcontext(quick_run.QuickPredictor("both"))  # type: ignore[assignment]
    return main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
