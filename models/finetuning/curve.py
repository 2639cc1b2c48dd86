"""A training's curves as a picture."""

from __future__ import annotations

from pathlib import Path

from models.finetuning.history import History

SHOWN = {
    "mean_average_precision": "mAP@50",
    "coco_mean_average_precision": "COCO mAP",
    "mask_mean_average_precision": "mask mAP",
    "mask_iou": "mask IoU",
    "box_iou": "by boxes",
    "click_iou": "by clicks",
    "precision": "precision",
    "recall": "recall",
}


def draw(history: History, path: Path) -> None:
    """Write a PNG: losses by step on the left, the figures of every validation on the right."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    if history.losses:
        steps, losses = zip(*history.losses, strict=True)
        left.plot(steps, losses, color="0.8", linewidth=0.8)
        left.plot(steps, _smoothed(losses), label="training")
    validated = [(one["step"], one["loss"]) for one in history.epochs if one.get("loss") is not None]
    if validated:
        left.plot(*zip(*validated, strict=True), marker=".", label="validation")
        left.legend()
    left.set(xlabel="step", ylabel="loss", title="loss")
    left.set_ylim(bottom=0)
    for key, name in SHOWN.items():
        points = [(one["epoch"], one[key]) for one in history.epochs if one.get(key) is not None]
        if points:
            right.plot(*zip(*points, strict=True), marker=".", label=name, alpha=1.0 if key == history.metric else 0.6)
    best = history.best
    if best is not None:
        right.axvline(best["epoch"], color="0.6", linestyle=":", label="best")
    right.set(xlabel="epoch", title="validation", ylim=(0, 1.02))
    if right.get_legend_handles_labels()[0]:
        right.legend(loc="lower right")
    figure.savefig(path, dpi=110)


def _smoothed(values: tuple[float, ...]) -> list[float]:
    """An exponential mean over about a fiftieth of the values."""
    weight = min(1.0, 50 / len(values))
    smooth: list[float] = []
    for value in values:
        smooth.append(value if not smooth else smooth[-1] + weight * (value - smooth[-1]))
    return smooth
