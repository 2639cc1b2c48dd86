"""A round of labelling with a Label Studio project: its photos and corrections to a folder, predictions back to it.

A folder of a round has `export.json` with `export.xml` and `images/`, which is a data set of what was corrected;
`open/`, the photos that were not; and `tasks.json`, which task each photo is of.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from app.errors import BadRequest
from app.folders.journal import NAME as JOURNAL
from app.folders.journal import Journal
from app.folders.order import ByUncertainty
from app.images.reading import ImageLimits
from app.label_studio.labeling_config import ImageTag, Interface, parse
from app.label_studio.project import Project, ProjectError, Task
from app.label_studio.regions import pre_labels
from app.label_studio.task_images import TaskImages, image_address
from app.settings import Settings
from models import atomic_files
from models.data.formats.label_studio.writing import prediction
from models.data.parsing.suffixes import IMAGE_SUFFIXES
from models.images.decoding import ImageError, image_size_hw

EXPORT, CONFIG, CORRECTED, OPEN, TASKS = "export.json", "export.xml", "images", "open", "tasks.json"
Say = Callable[[str], None]


@dataclass(frozen=True)
class Pulled:
    """How many photos were corrected, how many were not, and how many could not be had."""

    corrected: int
    left: int
    failed: int


@dataclass(frozen=True)
class Pushed:
    """Predictions that were stored, those that were there, and tasks that somebody has labelled since."""

    stored: int
    already: int
    labelled: int


def pull(project: Project, settings: Settings, out: Path, say: Say) -> Pulled:
    """Bring a project's corrections and photos into the folder; photos that are there are not fetched again.

    A photo that cannot be had is said, and left out. Raises ProjectError, and OSError.
    """
    config = project.labelling_config()
    tag = _image_of(_parsed(config))
    _check_folder(out, project)
    labelled = {int(one["id"]): one for one in project.labelled() if _counts(one)}
    images, limits = TaskImages(settings), ImageLimits.of(settings)
    if limits.urls == "public":  # nobody else sends addresses here: who may see the project has this network anyhow
        limits = replace(limits, urls="any")
    names: dict[str, int] = {}
    failed = left = 0
    for folder in (CORRECTED, OPEN):
        (out / folder).mkdir(parents=True, exist_ok=True)
    for task in project.tasks():
        entry = labelled.get(task.number)
        try:
            name = _photo(out, task, tag, images, limits, corrected=entry is not None)
        except (BadRequest, ImageError) as error:
            failed += 1
            labelled.pop(task.number, None)
            say(f"task {task.number}: {error}; left out")
            continue
        names[name] = task.number
        left += entry is None
        if entry is not None:
            entry["data"] = entry["data"] | {tag.field: f"{CORRECTED}/{name}"}
    with atomic_files.text_file(out / CONFIG) as file:
        file.write(config)
    with atomic_files.text_file(out / EXPORT) as file:
        json.dump(list(labelled.values()), file, ensure_ascii=False)
    with atomic_files.text_file(out / TASKS) as file:
        json.dump({"url": project.url, "project": project.number, "tasks": names}, file, indent=1)
    return Pulled(len(labelled), left, failed)


def push(project: Project, results: Path, say: Say) -> Pushed:
    """Store what `box2mask run` found in a round's open photos as predictions of their tasks, in the project's own
    controls; the least certain first, with their `data.priority`, where the run has an order.

    A task that has a prediction of these models is passed over, so that the same call goes on where it was stopped;
    one that somebody has labelled since the pull stays as it is. Raises ProjectError, JournalError, and OSError.
    """
    try:
        with (results / JOURNAL).open("rb") as file:
            header = json.loads(file.readline())
        settings = dict(header["settings"])
        photos = Path(settings["images"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ProjectError(f"{results}: expected the results of `box2mask run`, found no {JOURNAL} of one") from error
    tasks = _tasks_of(photos, project)
    interface = _parsed(project.labelling_config())
    tag = _image_of(interface)
    version = " + ".join(settings[kind] for kind in ("detector", "segmenter") if settings.get(kind))
    labelled = {task.number for task in project.tasks() if task.is_labelled}
    stored = already = since = nowhere = 0
    journal = Journal(results, header, (), restart=False)
    try:
        order = ByUncertainty(journal) if settings.get("order") else None
        for result in order or journal:
            task = tasks.get(result.name)
            if task is None:
                say(f"{result.name}: no photo of project {project.number}; left out")
                continue
            if task in labelled:
                since += 1
                continue
            if project.has_prediction(task, version):
                already += 1
                continue
            priority = order.priority(result.name) if order else None
            named = [one for one in result.objects if one.label is not None]
            regions, without = pre_labels(named, interface, tag.name, result.size_hw)
            if priority is not None:  # before the prediction, by whose presence a task counts as done
                project.set_data(task, priority=priority)
            project.predict(task, prediction(regions, version, priority))
            stored, nowhere = stored + 1, nowhere + without + len(result.objects) - len(named)
    finally:
        journal.close()
    if nowhere:
        say(f"{nowhere} objects are left out: the project's labelling interface has no label for their classes")
    if stored:
        project.show_predictions(version)
    return Pushed(stored, already, since)


def _photo(out: Path, task: Task, tag: ImageTag, images: TaskImages, limits: ImageLimits, *, corrected: bool) -> str:
    """The photo's name in its folder, fetched if it was not there. Raises BadRequest and ImageError."""
    address = image_address({"id": task.number, "data": task.data}, tag.field)
    own, other = (CORRECTED, OPEN) if corrected else (OPEN, CORRECTED)
    stem, suffix = _name_of(address, task.number)
    there = [path for folder in (own, other) for path in (out / folder).glob(f"{stem}.*")]
    if there:  # perhaps it has been corrected since
        os.replace(there[0], out / own / there[0].name)
        return there[0].name
    file = images.file(address, task.number, limits)
    image_size_hw(file, max_pixels=limits.max_pixels)  # a page that says "log in" is none
    with atomic_files.file_path(out / own / f"{stem}{suffix}") as unfinished:
        unfinished.write_bytes(file)
    return f"{stem}{suffix}"


def _name_of(address: str, task: int) -> tuple[str, str]:
    """A name that no other task's photo has, and a suffix that `box2mask run` takes."""
    parts = urlsplit(address[:4096])
    local = parse_qs(parts.query).get("d")
    last = re.split(r"[\\/]", local[0] if local else unquote(parts.path))[-1]
    stem, suffix = os.path.splitext(last)
    if address.startswith("data:") or suffix.lower() not in IMAGE_SUFFIXES:
        stem, suffix = ("" if address.startswith("data:") else stem), ".jpg"
    clean = re.sub(r"[^\w-]", "_", stem)[:80]
    return f"{task:07d}" + (f"-{clean}" if clean else ""), suffix.lower()


def _counts(task: dict[str, Any]) -> bool:
    """Whether somebody labelled it, and did not skip it."""
    annotations = task.get("annotations") or []
    return any(not one.get("was_cancelled") for one in annotations)


def _parsed(config: str) -> Interface:
    try:
        return parse(config)
    except BadRequest as error:
        raise ProjectError(f"the project's labelling interface: {error.message}") from error


def _image_of(interface: Interface) -> ImageTag:
    if len(interface.images) != 1:
        raise ProjectError(
            f"the project's labelling interface: expected one <Image> in it, found {len(interface.images)}"
        )
    return interface.images[0]


def _check_folder(out: Path, project: Project) -> None:
    """Raises ProjectError for a folder of anything else."""
    if not out.exists() or not any(out.iterdir()):
        return
    try:
        known = json.loads((out / TASKS).read_bytes())
        same = known["url"] == project.url and known["project"] == project.number
    except (OSError, ValueError, KeyError, TypeError) as error:
        if {path.name for path in out.iterdir()} <= {CORRECTED, OPEN}:  # stopped before the end
            return
        raise ProjectError(f"{out}: expected a new folder, or one of an earlier pull, found another") from error
    if not same:
        raise ProjectError(
            f"{out} has photos of project {known['project']} at {known['url']}: choose another folder with --out"
        )


def _tasks_of(photos: Path, project: Project) -> dict[str, int]:
    """The task of each photo, by what the pull wrote beside the folder of these photos."""
    path = photos.parent / TASKS
    try:
        known = json.loads(path.read_bytes())
        tasks = {str(name): int(task) for name, task in known["tasks"].items()}
        same = known["url"] == project.url and known["project"] == project.number
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ProjectError(
            f"{path}: expected which task each photo is of: run over the folder `{OPEN}` that "
            "`box2mask label-studio pull` makes"
        ) from error
    if not same:
        raise ProjectError(
            f"{path}: these photos are of project {known['project']} at {known['url']}, not of {project.number} at "
            f"{project.url}"
        )
    return tasks
