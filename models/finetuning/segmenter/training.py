"""Fine-tunes a SAM: encodes once, trains its decoder on simulated prompts, goes on where it was, keeps the best."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from models.data import Dataset, data_hash
from models.finetuning import curve
from models.finetuning.checkpoint_files import BEST, LATEST, SECONDS, TrainingError, install
from models.finetuning.history import History
from models.finetuning.learning_rates import factor
from models.finetuning.options import OptionError
from models.finetuning.photos import files
from models.finetuning.record import EMBEDDINGS, Record, check_apart
from models.finetuning.segmenter import result
from models.finetuning.segmenter.averaging import AveragedWeights
from models.finetuning.segmenter.embeddings import KeptView
from models.finetuning.segmenter.encoding import Encoding
from models.finetuning.segmenter.examples import Example, examples
from models.finetuning.segmenter.options import SegmenterOptions
from models.finetuning.segmenter.report import Report
from models.finetuning.segmenter.steps import Batch, add_gradients, rules_of_step
from models.finetuning.segmenter.trainee import Trainee
from models.finetuning.segmenter.validation import asked, figures, filled_box_iou, ious
from models.model_errors import Say
from models.segmenter.families import SEGMENTERS
from models.segmenter.sam import Sam
from models.segmenter.sam3 import Sam3
from models.training_process import prepare_process
from models.types import Embedding

# Where nobody says how many epochs: so many steps, and of many images so many epochs.
USUAL_STEPS, LEAST_EPOCHS = 500, 10
LEAST_STEPS = 20  # between validations


@dataclass(frozen=True)
class FinetunedSegmenter:
    """What came out. folder: the SAM's. figures: of its validation. finished: False when time ran out before the last
    epoch; the same call then goes on."""

    folder: Path
    figures: dict[str, Any]
    finished: bool


def finetune_segmenter(
    training: Dataset,
    validation: Dataset,
    start: Path,
    out: Path,
    options: SegmenterOptions,
    *,
    device: torch.device,
    dtype: torch.dtype,
    minutes: float | None = None,
    say: Say = print,
    stream: TextIO | None = None,
) -> FinetunedSegmenter:
    """Train the SAM in `start` on the masks of `training` and write the best of it, by `validation`, as a SAM folder.

    out: gets weights, configs and metadata, and everything of the training in `training/`. device, dtype: of the
    encoder; what learns does so in float32. minutes: after which to stop, with the best so far as the result. say:
    takes lines for people. stream: for progress bars, or None.

    The same call on the same folder goes on with an unfinished training. Raises DataError, ModelFilesError, OptionError
    or TrainingError.
    """
    prepare_process()
    report = Report(say, stream)
    family = _family(start, options, device)
    result.check_folder(out, family.find(start))
    learnt, measured = examples(training, validation, say)
    check_apart(out / "training", (start, *files(training), *files(validation)))
    asked_for = {
        **options.deciding(),
        "start": result.start_hash(family, start),
        "training data": data_hash(training),
        "validation data": data_hash(validation),
    }
    record = Record.open(out / "training", asked_for, options.training_batch_size, options.resume_from_checkpoint)
    if record.finished:
        say(f"{out} is finished already; --resume_from_checkpoint false would train it anew")
    else:
        try:
            encoding = Encoding(record.folder / EMBEDDINGS, learnt, measured, options)
            encoding.run(family, start, device, dtype, report)
            run = _Run(
                record.folder, Trainee(family, start, options, device), encoding, learnt, measured, options, report
            )
            record.finished = run.train(minutes)
        finally:
            report.close()
        record.save()
    trainee = Trainee(family, start, options, device)
    trainee.restore(load_file(record.folder / "checkpoints" / BEST))
    history = _history(record.folder, options.metric_for_best_model)
    assert history.best is not None
    curve.draw(history, record.folder / "curve.png")
    result.write(out, family, start, trainee.weights(), _metadata(record, history, learnt, measured, options, family))
    if record.finished:
        shutil.rmtree(record.folder / EMBEDDINGS, ignore_errors=True)
    return FinetunedSegmenter(out, history.best, record.finished)


def _family(start: Path, options: SegmenterOptions, device: torch.device) -> type[Sam]:
    """The family of the SAM in `start`. Raises ModelFilesError, TrainingError or OptionError."""
    family = SEGMENTERS.of(start)
    if not issubclass(family, Sam) or issubclass(family, Sam3):
        raise TrainingError(
            f"{start}: {family.__name__} has no training here: expected a SAM, SAM-HQ, SAM 2 or EdgeTAM"
        )
    if options.train == "encoder-lora" and device.type == "cpu" and not options.encoder_on_cpu:
        raise OptionError(
            "train: encoder-lora runs the whole encoder forward and backward in every step, and there is no GPU here: "
            "expected decoder, or encoder_on_cpu to do it all the same"
        )
    return family


class _Run:
    """One life of a training, from its last checkpoint to its end."""

    def __init__(
        self,
        folder: Path,
        trainee: Trainee,
        encoding: Encoding,
        learnt: Sequence[Example],
        measured: Sequence[Example],
        options: SegmenterOptions,
        report: Report,
    ) -> None:
        self._checkpoints = folder / "checkpoints"
        self._checkpoints.mkdir(parents=True, exist_ok=True)
        self._trainee, self._encoding, self._options, self._report = trainee, encoding, options, report
        self._images = [number for number in range(len(learnt)) if encoding.training.count(number)]
        self._asked = [asked(example) for example in measured]
        self._filled_box_iou = filled_box_iou(measured)
        if not self._images:
            raise TrainingError("all objects of the training data are too small for the segmenter to see")
        self._epoch_steps = math.ceil(len(self._images) / options.training_batch_size)
        self._epochs = options.number_of_epochs or max(LEAST_EPOCHS, math.ceil(USUAL_STEPS / self._epoch_steps))
        self._steps = self._epochs * self._epoch_steps
        # Of few images, epochs are too short to measure after each.
        self._validation_steps = self._epoch_steps * math.ceil(LEAST_STEPS / self._epoch_steps)
        self._optimizer = torch.optim.AdamW(trainee.groups(options.weight_decay), lr=options.highest_learning_rate)
        self._warmup = self._steps // 20 if options.warmup_steps is None else options.warmup_steps
        self._history = History(options.metric_for_best_model)
        self._average = AveragedWeights(trainee.state(), options.old_share)
        self._step = 0
        self._saved = time.monotonic()
        latest = self._checkpoints / LATEST
        if latest.is_file():
            state = torch.load(latest, map_location="cpu", weights_only=True)
            trainee.restore(state["weights"])
            self._average.mean = state["average"]
            self._optimizer.load_state_dict(state["optimizer"])
            self._step = state["step"]
            self._history = _history(folder, options.metric_for_best_model)
            epoch = self._step // self._epoch_steps + 1
            report.say(f"going on at step {self._step} of {self._steps}, in epoch {epoch}")

    def train(self, minutes: float | None) -> bool:
        """Train to the end; False when time runs out before. Leaves best weights and history in the folder."""
        ends = math.inf if minutes is None else time.monotonic() + 60 * minutes
        self._report.begin("training", "step", self._steps, self._step)
        patience = self._options.early_stopping_patience if self._options.early_stopping else None
        every = self._options.save_steps
        while True:
            is_over = time.monotonic() > ends and self._step > 0
            if self._step % self._validation_steps == 0 or self._step == self._steps or is_over:
                self._validate()
            if self._step == self._steps or (patience is not None and self._history.stalled(patience)):
                return True
            if is_over:
                return False
            self._learn()
            self._step += 1
            if self._step % every == 0 if every else time.monotonic() - self._saved > SECONDS:
                self._save()

    def _learn(self) -> None:
        options, rng = self._options, np.random.default_rng([self._options.random_seed, 2, self._step])
        rate = options.highest_learning_rate * factor("warmup_cosine", self._step, self._steps, self._warmup)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.zero_grad(set_to_none=True)
        rules = rules_of_step(self._step, options.clicks, options.keep_old)
        loss = add_gradients(self._trainee.learner, self._trainee.old, self._batch(rng), rules, rng)
        if not math.isfinite(loss):
            raise TrainingError(f"the loss is {loss} at step {self._step + 1}: choose a lower learning_rate")
        if options.max_grad_norm:
            nn.utils.clip_grad_norm_(self._trainee.learnt().values(), options.max_grad_norm)
        self._optimizer.step()
        self._average.add(self._trainee.state(), self._step + 1)
        self._history.add_loss(self._step + 1, loss, self._steps)
        self._report.step(self._history.recent_loss())

    def _batch(self, rng: np.random.Generator) -> Batch:
        """The next images, of each one of its views and some of its objects."""
        epoch, step = divmod(self._step, self._epoch_steps)
        order = np.random.default_rng([self._options.random_seed, 3, epoch]).permutation(self._images)
        size = self._options.training_batch_size
        chosen: list[KeptView] = []
        image_of: list[int] = []
        boxes, truths = [], []
        for image in order[step * size : (step + 1) * size].tolist():
            views = self._encoding.training
            view = views.view(image, int(rng.integers(views.count(image))))
            objects = rng.permutation(len(view.truths))[: self._options.objects_per_image]
            image_of += [len(chosen)] * len(objects)
            chosen.append(view)
            boxes.append(view.boxes_xyxy[objects])
            truths.append(view.truths[objects].astype(np.float32) / 255)
        trainee = self._trainee
        return Batch(
            trainee.features(chosen),
            trainee.old_features(chosen),
            [view.resized_hw for view in chosen],
            torch.tensor(image_of, device=trainee.device),
            np.concatenate(boxes),
            np.concatenate(truths),
        )

    def _validate(self) -> None:
        """Measure and save, unless that is done."""
        if any(one["step"] == self._step for one in self._history.epochs):
            return
        weights = self._average.result()
        with self._trainee.with_weights(weights):
            found = self._ious()
        since = max((one["step"] for one in self._history.epochs), default=0)
        told: dict[str, Any] = {
            "epoch": round(self._step / self._epoch_steps, 3),
            "step": self._step,
            "training_loss": self._history.loss_since(since) if self._step else None,
            **figures(found),
            "filled_box_iou": self._filled_box_iou,
        }
        if self._history.add_epoch(told):
            part = self._checkpoints / (BEST + ".part")
            save_file(weights, part)
            install(part, self._checkpoints / BEST)
        self._save()
        self._report.validated(self._history, self._epochs)

    def _ious(self) -> list[np.ndarray]:
        """Of each image to validate on."""
        found = []
        views = self._encoding.validation
        for number, one in enumerate(self._asked):
            if views.count(number):
                view = views.view(number, 0)
                with torch.no_grad():
                    (features,) = self._trainee.features([view])
                embedding = Embedding(features, view.size_hw, view.resized_hw)
                found.append(ious(self._trainee.learner, embedding, one))
        if not found:
            raise TrainingError("all objects of the validation data are too small for the segmenter to see")
        return found

    def _save(self) -> None:
        part = self._checkpoints / (LATEST + ".part")
        state = {
            "step": self._step,
            "weights": self._trainee.state(),
            "average": self._average.mean,
            "optimizer": self._optimizer.state_dict(),
            "history": self._history.plain(),
        }
        torch.save(state, part)
        install(part, self._checkpoints / LATEST)
        self._saved = time.monotonic()


def _history(folder: Path, metric: str) -> History:
    """The history in the latest checkpoint."""
    kept = torch.load(folder / "checkpoints" / LATEST, map_location="cpu", weights_only=True, mmap=True)["history"]
    return History(metric, [(step, loss) for step, loss in kept["losses"]], kept["epochs"], kept["pending"])


def _metadata(
    record: Record,
    history: History,
    learnt: Sequence[Example],
    measured: Sequence[Example],
    options: SegmenterOptions,
    family: type[Sam],
) -> dict[str, Any]:
    return {
        "started_from": {"family": family.__name__, "sha256": record.asked["start"]},
        "metrics": history.best,
        "finished": record.finished,
        "data": {
            use: {
                "hash": record.asked[f"{use} data"],
                "images": len(found),
                "objects": sum(len(one.rles) for one in found),
            }
            for use, found in (("training", learnt), ("validation", measured))
        },
        "options": {**options.plain(), "learning_rate": options.highest_learning_rate},
    }
