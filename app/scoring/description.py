"""What a service, or a process that has the models itself, says of versions and models: `/version`'s answer."""

from __future__ import annotations

import platform
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

from app.engine import loading
from app.scoring.scorer import Scorer
from app.settings import Settings


def describe(scorer: Scorer, choice: loading.Choice, settings: Settings) -> dict[str, Any]:
    """What `/version` says: versions, models with hashes of their files, device, number format, limits."""
    from models.detector import mmcv_ops

    engine = scorer.engine
    devices = ",".join(dict.fromkeys(map(str, engine.devices)))
    served: dict[str, Any] = {"detector": None, "segmenter": None}
    for kind, model, chosen in (
        ("detector", engine.detector, choice.detector),
        ("segmenter", engine.segmenter, choice.segmenter),
    ):
        if model is not None and chosen is not None:
            served[kind] = {
                "name": chosen.name,
                "demo_weights": chosen.demo,
                "sha256": choice.hashes[kind],
                "device": devices,
                "dtype": str(model.dtype).removeprefix("torch."),
                "fast": settings.fast,
            }
    if engine.detector is not None:
        served["detector"] |= {
            "classes": list(scorer.texts if engine.detector.takes_texts else engine.detector.class_names),
            "input_scale": engine.detector.input_scale,
            "channel_order": engine.detector.channel_order,
            "takes_texts": engine.detector.takes_texts,
            "has_masks": engine.detector.has_masks,
        }
    if engine.segmenter is not None:
        served["segmenter"] |= {"image_size": engine.segmenter.image_size}
    packages = ("torch", "transformers", "mmdet", "mmengine", "numpy", "pillow", "fastapi", "uvicorn")
    return {
        "box2mask": version("box2mask"),
        "python": platform.python_version(),
        "packages": {package: version(package) for package in packages},
        "mmcv_ops": "plain torch" if mmcv_ops.install() else "compiled",
        "demo_weights": choice.demo,
        "response_schema": settings.response_schema,
        "max_prompts": scorer.max_prompts,
        "embedding_cache": asdict(engine.cache.stats()),
        **served,
    }
