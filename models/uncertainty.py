"""How much a person's look at a photo would teach: from what detector and SAM say of it, and where they disagree.

Three doubts, each from 0 (none) to 1, say how likely an object needs correction. They are joined as if each were the
chance of a fault of its own; docs/labelling.md has the formula and what it was measured to be worth.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import prod

from pycocotools import mask as coco_mask

from models.rle import Rle

# Of a photo in which nothing was found: it may be empty, or all in it was missed, and nobody knows which.
NOTHING_FOUND = 0.5


@dataclass(frozen=True)
class Doubts:
    """The doubts about one object, each in 0..1, or None where nothing tells.

    score: of the detector's score, `score_doubt`. masks: 1 - `mask_agreement`. box: 1 - `box_agreement`.
    """

    score: float | None = None
    masks: float | None = None
    box: float | None = None

    def joined(self) -> float:
        """0..1: the chance that at least one of the doubts is right, were they independent chances."""
        return 1 - prod(1 - one for one in (self.score, self.masks, self.box) if one is not None)


def score_doubt(score: float) -> float:
    """1 at a score of 0.5, where the detector cannot tell object from background, and 0 at scores of 0 and 1.

    One minus the margin between the two best answers, which are here the class and "no object": the 1-vs-2 measure of
    Brust, Käding and Denzler, "Active Learning for Deep Object Detection" (VISAPP 2019).
    """
    return 1 - abs(2 * score - 1)


def mask_agreement(masks: Sequence[Rle]) -> float:
    """The mean IoU, 0..1, of every two of the masks that one prompt was given, all of one size; 1 of fewer than two.

    SAM answers a prompt with three masks where it may mean several things ("Segment Anything", 2023, section 3): a
    committee whose members disagree about what is hard, as in Seung, Opper and Sompolinsky, "Query by Committee"
    (1992). Two empty masks agree.
    """
    pairs = list(combinations(range(len(masks)), 2))
    if not pairs:
        return 1.0
    areas = coco_mask.area(list(masks))
    ious = coco_mask.iou(list(masks), list(masks), [0] * len(masks))
    return float(sum(ious[i, j] if areas[i] or areas[j] else 1.0 for i, j in pairs) / len(pairs))


def box_agreement(box_xyxy: Sequence[float], mask: Rle) -> float:
    """IoU, 0..1, of a box x1, y1, x2, y2 in absolute pixels, and the tight one of the mask that it prompted; 0 of none.

    The tightness of Kao et al., "Localization-Aware Active Learning for Object Detection" (ACCV 2018), with SAM in
    place of the detector's second stage.
    """
    x1, y1, x2, y2 = box_xyxy
    tight = coco_mask.toBbox(mask)
    if not tight[2:].all():
        return 0.0
    return float(coco_mask.iou([[x1, y1, x2 - x1, y2 - y1]], tight[None], [0])[0, 0])


def of_object(
    score: float | None, box_xyxy: Sequence[float], mask: Rle | None, agreement: float | None = None
) -> Doubts:
    """The doubts about one object. score: the detector's, in 0..1, or None of a box from elsewhere. mask: the one that
    the box got, or None. agreement: `mask_agreement` of all that it might have got, or None."""
    return Doubts(
        None if score is None else score_doubt(score),
        None if agreement is None else 1 - agreement,
        None if mask is None else 1 - box_agreement(box_xyxy, mask),
    )


def of_photo(objects: Iterable[Doubts]) -> float:
    """0..1: the mean of its objects' doubts; NOTHING_FOUND without objects.

    A sum would go by how many objects there are, and put last the photos of a kind in which few are found.
    """
    joined = [one.joined() for one in objects]
    return sum(joined) / len(joined) if joined else NOTHING_FOUND
