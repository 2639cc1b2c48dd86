"""The whole walk from images with boxes to measured masks: one `box2mask` command after the other.

Each step is the command that anyone could type, in a process of its own, and is printed before it runs. `walk.json` has
the commands that are done; these are not done again, so that a walk that was stopped goes on. With a student it goes
further: SAM's masks of the training photos teach a detector that finds masks itself.

WalkError            a step failed, or cannot be begun
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from app.settings import Settings, SettingsError
from models import atomic_files
from models.finetuning.options import MASK_METRIC, STUDENTS

# The photos of the published walk, with masks to measure against; training sees only their boxes.
PUBLISHED = "odFridgeObjectsMask"
# What a walk writes into its folder, beside the photos and the service's log.
FOLDERS = ("scenes", "split", "detector", "masks", "evaluation", "training-masks", "student", "student-evaluation")
# What a student trains with unless told otherwise: its neck and heads are new, unlike the detector's.
STUDENT_OPTIONS = ("--learning_rate", "0.001")
RECORD = "walk.json"
_SEGMENTER = "Segmenter"  # beside the steps in there
# The largest models load in minutes.
READY_WITHIN_S = 900.0


class WalkError(Exception):
    """Why the walk cannot go on, in a sentence."""


@dataclass(frozen=True)
class Step:
    """What was done in a step and how many seconds it took; `seconds` is None for one that had been done before."""

    title: str
    seconds: float | None


@dataclass(frozen=True)
class MaskFigures:
    """How good one kind of masks is on the validation images: the mean IoU of the objects that were found, and of all,
    with 0 for the others; None where no true masks tell."""

    what: str
    found: float | None
    every: float | None


@dataclass
class Walk:
    """A walk in the folder `out`.

    data: `odFridgeObjects` (pulled; demo scenes where that fails), `demo`, or the path of a data set. scenes: how many
    of the demo. detector: where training starts; None is finetune's own choice. segmenter: of the service; None is its
    own. training_options: given to `box2mask finetune` as they are. say: prints a line. student: what learns SAM's
    masks, one of STUDENTS or a detector's folder to start from; None for no student.
    """

    out: Path
    data: str = "odFridgeObjects"
    scenes: int = 128
    detector: str | None = None
    segmenter: str | None = None
    training_options: Sequence[str] = ()
    say: Callable[[str], None] = print
    student: str | None = None
    steps: list[Step] = field(default_factory=list)
    _done: dict[str, list[str]] = field(default_factory=dict, init=False, repr=False)

    def run(self) -> None:
        """All steps. Raises WalkError; what was done up to there stays, and the next run goes on from it."""
        own = self._own_data()
        if self.student is not None and self.student not in STUDENTS and not Path(self.student).exists():
            raise WalkError(
                f"--student {self.student}: expected {', '.join(STUDENTS)} or the folder of a detector with masks"
            )
        self._begin()
        data = own or self._pulled_or_drawn()
        parts = self.out / "split"
        self._step("Split 80:20", parts, "data", "split", data, parts, "--every", "5", "--to", "coco", whole=True)
        detector = self.out / "detector"
        start = () if self.detector is None else ("--from", self.detector)
        validation = parts / "validation"
        self._step(
            "Fine-tune the detector on the boxes", detector / "model_metadata.json",
            "finetune", parts / "train", "--validation", validation, "--out", detector, *start, *self.training_options,
        )  # fmt: skip
        self._keep_segmenter(validation, detector)
        began = time.monotonic()
        with served(detector, self.out / "service.log", self.segmenter, self.say) as url:
            self.steps.append(Step("Serve", time.monotonic() - began))
            self._step(
                "Request boxes and masks", None,
                "run", validation / "images", "--out", self.out / "masks", "--url", url,
            )  # fmt: skip
            self._step(
                "Measure them", None,
                "evaluate", validation, "--url", url, "--out", self.out / "evaluation",
            )  # fmt: skip

        if self.student is not None:
            self._teach(self.student, parts, detector)

    def _teach(self, student: str, parts: Path, detector: Path) -> None:
        """Train the student on masks that SAM makes by the training photos' true boxes, serve it and measure it."""
        photos, masks, taught = parts / "train" / "images", self.out / "training-masks", self.out / "student"
        segmenter = () if self.segmenter is None else ("--segmenter", self.segmenter)
        self._step(
            "Let SAM make masks by the boxes of the training photos", masks / "coco.json",
            "run", photos, "--prompts", parts / "train" / "annotations.json", "--formats", "coco", "--out", masks,
            *segmenter,
        )  # fmt: skip
        start = ("--from", detector, "--student", student) if student in STUDENTS else ("--from", Path(student))
        self._step(
            "Train the student on these masks", taught / "model_metadata.json",
            "finetune", masks / "coco.json", "--images-root", photos, *start, "--out", taught,
            "--metric_for_best_model", MASK_METRIC, *STUDENT_OPTIONS, *self.training_options,
        )  # fmt: skip
        began = time.monotonic()
        with served(taught, self.out / "student.log", self.segmenter, self.say) as url:
            self.steps.append(Step("Serve the student", time.monotonic() - began))
            self._step(
                "Measure its masks", None,
                "evaluate", parts / "validation", "--url", url, "--masks", "detector",
                "--out", self.out / "student-evaluation",
            )  # fmt: skip

    def figures(self) -> list[MaskFigures]:
        """The walk's masks beside each other: SAM's, the student's, and filled boxes."""
        figures: list[MaskFigures] = []
        floor: dict[str, Any] = {}
        for one in _masks_of(self.out / "evaluation"):
            by = {"detected": "the detector's boxes", "ground-truth": "true boxes"}.get(one["prompts"], one["prompts"])
            figures.append(_figures(f"SAM, by {by}", one))
            if one["prompts"] == "detected":
                floor = one["filled_box"]
        if self.student is not None:
            figures += [_figures("the student", one) for one in _masks_of(self.out / "student-evaluation")[:1]]
        return [*figures, _figures("the detector's boxes, filled", floor)] if figures else []

    def _keep_segmenter(self, validation: Path, detector: Path) -> None:
        """Masks that are there go on by the segmenter that they were begun with. Raises WalkError for another."""
        try:
            now = self.segmenter or Settings.from_environment().segmenter
        except SettingsError as error:
            raise WalkError(str(error)) from error
        if not (self.out / "masks").exists():
            self._done[_SEGMENTER] = [now]
            self._save()
        elif self._done.get(_SEGMENTER, [now]) != [now]:
            (before,) = self._done[_SEGMENTER]
            command = ["evaluate", validation, "--detector", detector, "--segmenter", before, "--segmenter", now]
            raise WalkError(
                f"{self.out / 'masks'} is there, made with the segmenter {before} and not {now}: choose another folder "
                f"with --out; the two are compared by `{shlex.join(['box2mask', *map(str, command)])}`"
            )

    def _own_data(self) -> Path | None:
        """The path that `data` is; None where it is a name."""
        if self.data in ("odFridgeObjects", "demo"):
            return None
        if not Path(self.data).exists():
            raise WalkError(f"--data {self.data}: there is no such data set; expected odFridgeObjects, demo or a path")
        return Path(self.data)

    def _begin(self) -> None:
        """Take the folder: a new one, or that of an earlier walk. Nothing of anyone else's may be replaced in there."""
        record = self.out / RECORD
        try:
            self.out.mkdir(parents=True, exist_ok=True)
            if record.exists():
                self._done = dict(json.loads(record.read_bytes()))
            elif there := [name for name in FOLDERS if (self.out / name).exists()]:
                raise WalkError(f"{self.out}: expected a new folder or an earlier walk's, found {there[0]} in it")
            else:
                self._save()
        except OSError as error:
            raise WalkError(f"{self.out} cannot be used: {error}") from error
        except (ValueError, TypeError) as error:
            raise WalkError(f"{record} is damaged ({error}): choose another folder with --out") from error

    def _save(self) -> None:
        with atomic_files.text_file(self.out / RECORD) as file:
            json.dump(self._done, file, indent=2)

    def _pulled_or_drawn(self) -> Path:
        """Where the data set is."""
        scenes = self.out / "scenes"
        if self.data == "odFridgeObjects" and not scenes.exists():
            try:
                self._step("Pull the photos", self.out / PUBLISHED, "data", "pull", PUBLISHED, "--to", self.out)
                return self.out / PUBLISHED
            except WalkError:
                self.say("The photos cannot be had here; the walk goes on with drawn scenes of the same four classes.")
        self._step("Draw scenes", scenes, "data", "demo", scenes, "--scenes", str(self.scenes), whole=True)
        return scenes

    def _step(self, title: str, makes: Path | None, *arguments: str | Path, whole: bool = False) -> None:
        """Run a command, unless it is done and what it makes is there.

        whole: the command wants a new folder, so what an interrupted one left is removed. Training, masks and downloads
        go on where they were by themselves.
        """
        command = shlex.join(["box2mask", *map(str, arguments)])
        # Paths as seen from the folder: it may be moved, and named from elsewhere.
        lasting = [os.path.relpath(one, self.out) if isinstance(one, Path) else one for one in arguments]
        if makes is not None and makes.exists():
            before = self._done.get(title)
            if before == lasting:
                self.say(f"\n== {title}: {makes} is there already")
                self.steps.append(Step(title, None))
                return
            if before is not None:
                raise WalkError(
                    f"{title}: {makes} is there, made by `{shlex.join(['box2mask', *before])}` and not by `{command}`; "
                    "choose another folder with --out"
                )
            if whole:
                shutil.rmtree(makes)
        self.say(f"\n== {title}\n$ {command}")
        began = time.monotonic()
        status = subprocess.run([*_BOX2MASK, *map(str, arguments)], env=_environment()).returncode
        if status:
            raise WalkError(f"{title}: `{command}` ended with status {status}")
        if makes is not None:
            self._done[title] = lasting
            self._save()
        self.steps.append(Step(title, time.monotonic() - began))


def _masks_of(folder: Path) -> list[dict[str, Any]]:
    """What an evaluation says of masks, one entry for each kind."""
    masks: list[dict[str, Any]] = json.loads((folder / "evaluation.json").read_bytes())["masks"]
    return masks


def _figures(what: str, entry: dict[str, Any]) -> MaskFigures:
    return MaskFigures(what, entry.get("average_iou"), entry.get("average_iou_all_objects"))


@contextmanager
def served(
    detector: Path, log: Path, segmenter: str | None = None, say: Callable[[str], None] = print
) -> Iterator[str]:
    """The URL of a service of this detector on a free port of this machine, which ends with the block.

    log: gets what the service writes. segmenter: None is the service's own. Raises WalkError where it does not start.
    """
    settings = {"BOX2MASK_DETECTOR": str(detector), "BOX2MASK_HOST": "127.0.0.1", "BOX2MASK_PORT": "0"}
    if segmenter is not None:
        settings["BOX2MASK_SEGMENTER"] = segmenter
    shown = " ".join(f"{name}={shlex.quote(value)}" for name, value in settings.items())
    say(f"\n== Serve\n$ {shown} box2mask serve")
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [*_BOX2MASK, "serve"], env=_environment() | settings, stdout=stream, stderr=subprocess.STDOUT
        )
    try:
        url = _ready(process, log)
        say(f"ready at {url}; its log is {log}")
        yield url
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


# `-P` and the path in the environment: a folder `app` or `models` where the command was typed is not this package.
_BOX2MASK = (sys.executable, "-P", "-m", "app")


def _environment() -> dict[str, str]:
    """This process's environment, for commands that find this package."""
    packages = [str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
    return dict(os.environ) | {"PYTHONPATH": os.pathsep.join(packages)}


def _ready(process: subprocess.Popen[bytes], log: Path) -> str:
    """The service's address, once it answers that it is ready."""
    deadline = time.monotonic() + READY_WITHIN_S
    while process.poll() is None and time.monotonic() < deadline:
        announced = re.search(r"http://\S+:\d+", log.read_text())
        if announced is not None:
            try:
                if httpx.get(f"{announced[0]}/health/ready", timeout=10, trust_env=False).status_code == 200:
                    return announced[0]
            except httpx.TransportError:
                pass  # it is not listening yet
        time.sleep(0.2)
    raise WalkError(f"Serve: the service did not become ready; {log} says why")
