"""What a training is given, checked before anything is written: both data sets, and the detector to start from."""

from __future__ import annotations

from pathlib import Path

from models.data import Dataset
from models.finetuning import images
from models.finetuning.checkpoint_files import TrainingError
from models.finetuning.options import MASK_METRIC
from models.finetuning.photos import check
from models.finetuning.start import Start, Take
from models.images.notes import PhotoNotes
from models.model_errors import Say


def prepared(
    training: Dataset, validation: Dataset, start: Path, take: Take, student: str | None, metric: str, say: Say
) -> tuple[Dataset, Dataset, Start]:
    """Both data sets checked, with the classes in the detector's order, and the detector.

    metric: by which the best is chosen. Raises DataError, ModelFilesError or TrainingError.
    """
    unknown = [name for name in validation.class_names if name not in training.class_names]
    if {one.label for _, one in validation.annotations()} & set(unknown):
        raise TrainingError(f"the validation data has classes that the training data lacks: {', '.join(unknown)}")
    notes = PhotoNotes(training.images[0].page if training.images else 1)
    for dataset, use in ((training, "training"), (validation, "validation")):
        if not any(not one.crowd for _, one in dataset.annotations()):
            raise TrainingError(f"the {use} data has no object in its {len(dataset)} images")
        check(dataset, notes)
    for line in notes.lines():
        say(line)
    begun = Start.read(start, take, student)
    class_names = begun.order(training.class_names)
    training = Dataset(class_names, training.images)
    validation = Dataset(class_names, validation.images)
    if begun.learns_masks:
        _check_masks(training, begun, say)
    if metric == MASK_METRIC and (not begun.learns_masks or images.without_mask(validation)):
        lacking = "the validation data has objects without" if begun.learns_masks else f"{begun.path.name} learns no"
        raise TrainingError(f"metric_for_best_model: {metric} needs a mask of every object, and {lacking} masks")
    say(f"training on {_count(training)}, validating on {_count(validation)}; classes: {', '.join(class_names)}")
    thin = images.too_thin(training)
    if thin:
        say(f"{thin} training boxes are left out: less than a pixel of them is inside their image")
    return training, validation, begun


def _check_masks(dataset: Dataset, begun: Start, say: Say) -> None:
    """Say how many objects have no mask, which leaves them out. Raises TrainingError where none has."""
    lacking = images.without_mask(dataset)
    if not lacking:
        return
    objects = sum(not one.crowd for _, one in dataset.annotations())
    way = (
        "`box2mask run IMAGES --prompts DATA --formats coco --out masks` makes one by SAM for every box, as a data set "
        "to train on: masks/coco.json"
    )
    if len(lacking) == objects:
        raise TrainingError(
            f"{begun.student or begun.path.name} learns masks, and none of the {objects} objects of the training data "
            f"has one: expected a polygon or an RLE for each. {way}; or take a detector of boxes"
        )
    image, first = lacking[0]
    say(
        f"{len(lacking)} of {objects} training objects have no mask and are left out, the first a {first.label} in "
        f"{image.name}. {way}"
    )


def _count(dataset: Dataset) -> str:
    """How many images and objects; regions of many objects are none, and are trained on by leaving them out."""
    crowds = sum(one.crowd for _, one in dataset.annotations())
    objects = sum(1 for _ in dataset.annotations()) - crowds
    return f"{len(dataset)} images with {objects} objects" + (f" and {crowds} crowds" if crowds else "")
