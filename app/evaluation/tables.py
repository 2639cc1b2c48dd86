"""The figures of evaluation.json as tables of text, for the terminal and for the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Table:
    """title: a line. columns: their names; the first `texts` of them hold text, the others numbers. rows: as shown."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    texts: int = 1

    def __str__(self) -> str:
        """For the terminal: columns in line, text to the left and numbers to the right."""
        widths = [max(map(len, column)) for column in zip(self.columns, *self.rows, strict=True)]
        lines = [self.title]
        for row in (self.columns, *self.rows):
            cells = (
                cell.ljust(width) if index < self.texts else cell.rjust(width)
                for index, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
            lines.append(("  " + "  ".join(cells)).rstrip())
        return "\n".join(lines)


def tables(document: dict[str, Any]) -> list[Table]:
    """Boxes, masks and classes, as far as the document has them."""
    made = []
    if document["boxes"] is not None:
        made.append(_boxes(document))
    if document["masks"]:
        made.append(_masks(document))
    if made and len(document["data"]["classes"]) > 1:
        made.append(_classes(document))
    return made


def shown(value: float | int | None) -> str:
    """A figure as people read it: counts as they are, shares with three digits."""
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.3f}"


def _boxes(document: dict[str, Any]) -> Table:
    boxes, coco = document["boxes"], document["boxes"]["coco"]
    columns = {
        "detector": boxes["detector"],
        "objects": boxes["objects"],
        "detections": boxes["detections"],
        "precision": boxes["precision"],
        "recall": boxes["recall"],
        "mAP": coco["mAP"],
        "mAP50": coco["mAP50"],
        "mAP75": coco["mAP75"],
        "VOC mAP50": boxes["voc_mAP50"],
        "small": coco["mAP_small"],
        "medium": coco["mAP_medium"],
        "large": coco["mAP_large"],
        "AR100": coco["AR100"],
    }
    name, *figures = columns.values()
    return Table(
        f"Boxes (precision and recall at IoU {document['iou_threshold']} and score {document['score_threshold']:g})",
        list(columns),
        [[name, *map(shown, figures)]],
    )


def _masks(document: dict[str, Any]) -> Table:
    columns = {
        "objects": "objects",
        "with mask": "matched",
        "average IoU": "average_iou",
        "average accuracy": "average_accuracy",
        "boundary IoU": "average_boundary_iou",
        "IoU, none as 0": "average_iou_all_objects",
    }
    rows = []
    floors: dict[str, list[str]] = {}
    for one in document["masks"]:
        rows.append([one["segmenter"], one["prompts"], *(shown(one[key]) for key in columns.values())])
        rows[-1].append(shown(one["coco"]["mAP"]))
        # A point has no box to fill; its floor is that of the object's own.
        kind = "detected" if one["prompts"] == "detected" else "ground-truth"
        floors[kind] = ["filled boxes", kind, *(shown(one["filled_box"][key]) for key in columns.values()), "-"]
    published = document["published"]
    blank = {"average_iou": shown(published["average_iou"]), "average_accuracy": shown(published["average_accuracy"])}
    rows += floors.values()
    rows.append(["published, SAM ViT-H", "detected", *(blank.get(key, "-") for key in columns.values()), "-"])
    return Table("Masks", ["segmenter", "prompts", *columns, "mask AP"], rows, texts=2)


def _classes(document: dict[str, Any]) -> Table:
    boxes, masks = document["boxes"], document["masks"]
    columns = ["class", "objects"]
    rows = [[name, shown(count)] for name, count in document["data"]["classes"].items()]
    if boxes is not None:
        names = {"precision": "precision", "recall": "recall", "AP": "AP", "AP50": "AP50", "VOC AP50": "voc_AP50"}
        columns += names
        for row in rows:
            row += [shown(boxes["per_class"][row[0]][key]) for key in names.values()]
    filled: set[str] = set()
    for one in masks:
        columns.append(f"IoU {one['segmenter']} {one['prompts']}")
        for row in rows:
            row.append(shown(one["per_class"][row[0]]["average_iou"]))
    for one in masks:
        kind = "detected" if one["prompts"] == "detected" else "ground-truth"
        if kind not in filled:
            filled.add(kind)
            columns.append(f"IoU filled {kind}")
            for row in rows:
                row.append(shown(one["filled_box"]["per_class"][row[0]]["average_iou"]))
    return Table("Classes", columns, rows)
