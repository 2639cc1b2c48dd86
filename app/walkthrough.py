"""The whole walk from images with boxes to measured masks: one `box2mask` command after the other.

Each step is the command that anyone could type, in a process of its own, and is printed before it runs. Steps that are
done already are not done again, so that a walk that was stopped goes on.

WalkError            a step failed, or cannot be begun
"""

from __future__ import annotations

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

import httpx

# The photos of the published walk, with masks to measure against; training sees only their boxes.
PUBLISHED = "odFridgeObjectsMask"
# The largest models load in minutes.
READY_WITHIN_S = 900.0


class WalkError(Exception):
    """Why the walk cannot go on, in a sentence."""


@dataclass(frozen=True)
class Step:
    """What was done in a step and how many seconds it took; `seconds` is None for one that had been done before."""

    title: str
    seconds: float | None


@dataclass
class Walk:
    """A walk in the folder `out`.

    data: `odFridgeObjects` (pulled; demo scenes where that fails), `demo`, or the path of a data set. scenes: how many
    of the demo. detector: where training starts; None is finetune's own choice. segmenter: of the service; None is its
    own. training_options: given to `box2mask finetune` as they are. say: prints a line.
    """

    out: Path
    data: str = "odFridgeObjects"
    scenes: int = 128
    detector: str | None = None
    segmenter: str | None = None
    training_options: Sequence[str] = ()
    say: Callable[[str], None] = print
    steps: list[Step] = field(default_factory=list)

    def run(self) -> None:
        """All steps. Raises WalkError; what was done up to there stays, and the next run goes on from it."""
        self.out.mkdir(parents=True, exist_ok=True)
        data = self._images()
        parts = self.out / "split"
        # Half of a split or of the scenes is of no use; training, masks and downloads go on where they were.
        self._clear(parts, unless=parts / "validation" / "annotations.json")
        self._step("Split 80:20", parts, "data", "split", str(data), str(parts), "--every", "5", "--to", "coco")
        detector = self.out / "detector"
        start = () if self.detector is None else ("--from", self.detector)
        validation = str(parts / "validation")
        self._step(
            "Fine-tune the detector on the boxes", detector / "model_metadata.json",
            "finetune", str(parts / "train"), "--validation", validation, "--out", str(detector), *start,
            *self.training_options,
        )  # fmt: skip
        with self._served(detector) as url:
            self._step(
                "Request boxes and masks", None,
                "run", str(parts / "validation" / "images"), "--out", str(self.out / "masks"), "--url", url,
            )  # fmt: skip
            self._step(
                "Measure them", None,
                "evaluate", validation, "--url", url, "--out", str(self.out / "evaluation"),
            )  # fmt: skip

    def _images(self) -> Path:
        """Where the data set is."""
        if self.data not in ("odFridgeObjects", "demo"):
            path = Path(self.data)
            if not path.exists():
                raise WalkError(
                    f"--data {self.data}: there is no such data set; expected odFridgeObjects, demo or a path"
                )
            return path
        if self.data == "odFridgeObjects" and not (self.out / "scenes").exists():
            try:
                self._step("Pull the photos", self.out / PUBLISHED, "data", "pull", PUBLISHED, "--to", str(self.out))
                return self.out / PUBLISHED
            except WalkError:
                self.say("The photos cannot be had here; the walk goes on with drawn scenes of the same four classes.")
        scenes = self.out / "scenes"
        self._clear(scenes, unless=scenes / "annotations.json")
        self._step("Draw scenes", scenes, "data", "demo", str(scenes), "--scenes", str(self.scenes))
        return scenes

    def _clear(self, folder: Path, unless: Path) -> None:
        """Remove what an interrupted step left in a folder of the walk's own."""
        if folder.exists() and not unless.exists():
            shutil.rmtree(folder)

    def _step(self, title: str, done: Path | None, *arguments: str) -> None:
        """Run a command, unless what it makes is there."""
        if done is not None and done.exists():
            self.say(f"\n== {title}: {done} is there already")
            self.steps.append(Step(title, None))
            return
        self.say(f"\n== {title}\n$ box2mask {shlex.join(arguments)}")
        began = time.monotonic()
        status = subprocess.run([*_box2mask(), *arguments]).returncode
        if status:
            raise WalkError(f"{title}: `box2mask {shlex.join(arguments)}` ended with status {status}")
        self.steps.append(Step(title, time.monotonic() - began))

    @contextmanager
    def _served(self, detector: Path) -> Iterator[str]:
        """The URL of a service of this detector, which ends with the block."""
        settings = {"BOX2MASK_DETECTOR": str(detector), "BOX2MASK_HOST": "127.0.0.1", "BOX2MASK_PORT": "0"}
        if self.segmenter is not None:
            settings["BOX2MASK_SEGMENTER"] = self.segmenter
        shown = " ".join(f"{name}={shlex.quote(value)}" for name, value in settings.items())
        self.say(f"\n== Serve\n$ {shown} box2mask serve")
        log = self.out / "service.log"
        began = time.monotonic()
        with log.open("wb") as stream:
            process = subprocess.Popen(
                [*_box2mask(), "serve"], env=os.environ | settings, stdout=stream, stderr=subprocess.STDOUT
            )
        try:
            url = _ready(process, log)
            self.say(f"ready at {url}; its log is {log}")
            self.steps.append(Step("Serve", time.monotonic() - began))
            yield url
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _box2mask() -> list[str]:
    return [sys.executable, "-m", "app"]


def _ready(process: subprocess.Popen[bytes], log: Path) -> str:
    """The service's address, once it answers that it is ready."""
    deadline = time.monotonic() + READY_WITHIN_S
    while process.poll() is None and time.monotonic() < deadline:
        announced = re.search(r"http://\S+:\d+", log.read_text())
        if announced is not None:
            try:
                if httpx.get(f"{announced[0]}/health/ready", timeout=10).status_code == 200:
                    return announced[0]
            except httpx.TransportError:
                pass  # it is not listening yet
        time.sleep(0.2)
    raise WalkError(f"Serve: the service did not become ready; {log} says why")
