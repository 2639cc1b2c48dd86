"""Fine-tunes a detector by MMEngine's Runner: builds its parts, runs it, goes on where it was, keeps the best."""

from __future__ import annotations

import gc
import importlib.util
import os
import uuid
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import torch
from mmengine.dist import barrier, broadcast_object_list, get_world_size, is_main_process

from models.data import DataError, Dataset, data_hash
from models.detector import mmcv_ops
from models.detector.pipelines import unknown
from models.finetuning import curve, images, result
from models.finetuning.checkpoint_files import BEST, LATEST, OutOfTime, TrainingError
from models.finetuning.checkpointing import Checkpointing
from models.finetuning.history import History
from models.finetuning.loop import RejoinableLoop
from models.finetuning.options import OptionError, TrainingOptions
from models.finetuning.photos import files
from models.finetuning.preparation import prepared
from models.finetuning.processes import joined
from models.finetuning.progress import Progress
from models.finetuning.record import Record, check_apart
from models.finetuning.schedule import optimizer_config, schedule_config
from models.finetuning.start import Start, Take
from models.finetuning.validation import BoxFigures, StartValidation, ValidationLoss
from models.model_errors import MissingOpError, ModelFilesError
from models.training_process import prepare_process

Say = Callable[[str], None]
# What already says what is wrong.
_EXPLAINED = (DataError, ModelFilesError, OptionError, TrainingError, MissingOpError, OSError)


@dataclass(frozen=True)
class Finetuned:
    """What came out. folder: the detector's. figures: of its validation. finished: False when time ran out before the
    last epoch; the same call then goes on."""

    folder: Path
    class_names: tuple[str, ...]
    figures: dict[str, Any]
    finished: bool


def finetune(
    training: Dataset,
    validation: Dataset,
    start: Path,
    out: Path,
    options: TrainingOptions,
    *,
    take: Take = "all",
    student: str | None = None,
    name: str | None = None,
    minutes: float | None = None,
    say: Say = print,
    stream: TextIO | None = None,
) -> Finetuned:
    """Train the detector in `start` on `training` and write the best of it, by `validation`, as a detector folder.

    out: gets config, weights and metadata, and everything of the training in `training/`. take: what is taken of the
    weights in `start`. student: what to train on its backbone, one of STUDENTS. name: of the config and weights; None
    for the start's. minutes: after which to stop, with the best so far as the result. say: takes lines for people.
    stream: for a progress bar, or None.

    A detector that knows these very classes is a candidate itself, as "epoch" 0. The same call on the same folder goes
    on with an unfinished training. Run by torchrun, the processes share the work.
    Raises DataError, ModelFilesError, OptionError, TrainingError, or MissingOpError where mmcv has an op not compiled.
    """
    prepare_process()
    with _quiet(), joined():
        if not is_main_process():
            say, stream = _silent, None
        metric = options.metric_for_best_model
        training, validation, begun = prepared(training, validation, start, take, student, metric, say)
        name = begun.name if name is None else name
        result.check_folder(out, name, begun.path)
        check_apart(out / "training", (start, *files(training), *files(validation)))
        optimizer_config(options, None)  # refuses arguments that the optimiser lacks before anything is written
        config = result.deployed_config(begun, training.class_names, options, say)
        task = _Task(begun, training, validation, out, options, config, name)
        asked = {
            **options.deciding(),
            "start": result.file_hash(begun.checkpoint) or str(begun.path),
            "take": take,
            "student": student,
            "training data": data_hash(training),
            "validation data": data_hash(validation),
            "processes": get_world_size(),
        }
        record = _opened(out / "training", asked, options)
        if record.finished:
            say(f"{out} is finished already; --resume_from_checkpoint false would train it anew")
        while not record.finished:
            fits = True
            try:
                record.finished = _Run(task, record, minutes, say, stream).train()
            except torch.OutOfMemoryError as error:
                _halve(record, options, say, error)
                fits = False
            if fits:
                break
            gc.collect()  # not before the error is gone, whose traceback holds all that did not fit
            torch.cuda.empty_cache()
        if is_main_process():
            record.save()
        barrier()  # the main process has written what the others read next
        history = _history(record.folder, metric)
        assert history.best is not None
        if is_main_process():
            curve.draw(history, record.folder / "curve.png")
            _write_result(task, record, history)
        barrier()
        return Finetuned(out, training.class_names, history.best, record.finished)


@dataclass(frozen=True)
class _Task:
    """What there is to do. config: the trained detector's, as it will be served. name: of its files."""

    begun: Start
    training: Dataset
    validation: Dataset
    out: Path
    options: TrainingOptions
    config: Any
    name: str


class _Run:
    """One life of a training, in one process, from building MMEngine's Runner to its end."""

    def __init__(self, task: _Task, record: Record, minutes: float | None, say: Say, stream: TextIO | None) -> None:
        from mmengine.evaluator import Evaluator
        from mmengine.runner import Runner

        begun, training, options = task.begun, task.training, task.options
        self._start = begun.path
        self._checkpoints = record.folder / "checkpoints"
        self._checkpoints.mkdir(parents=True, exist_ok=True)
        self._history = History(options.metric_for_best_model)
        latest = self._checkpoints / LATEST
        resume = latest.is_file()
        model = begun.model_for(training.class_names, task.config, _silent if resume else say, options.random_seed)
        model.init_weights = _initialised  # the Runner would do it again, and undo what was loaded

        steps, seed, masks = task.config.test_pipeline, options.random_seed, begun.learns_masks
        workers = options.number_of_workers
        if workers is None:
            workers = min(4, os.cpu_count() or 1) if torch.cuda.is_available() else 1
        preprocessor = task.config.model["data_preprocessor"]
        augmented = images.training_pipeline(steps, preprocessor, options.apply_augmentations, masks)
        batches = images.loader(training, augmented, record.batch_size, workers, seed, training=True, masks=masks)
        # Masks to validate on are read by the figures themselves; the loss alone asks for them here.
        masks = masks and options.metric_for_best_model == "loss"
        plain = images.training_pipeline(steps, {}, False, masks)
        size = options.validation_batch_size
        tested = images.loader(task.validation, plain, size, workers, seed, training=False, masks=masks)
        half = _half(options, say)
        total = options.number_of_epochs * len(batches)
        self._progress = Progress(self._history, say, stream)
        hooks: list[Any] = [
            Checkpointing(
                self._checkpoints,
                self._history,
                accumulated=options.gradient_accumulation_step,
                save_steps=options.save_steps,
                limit=options.save_total_limit,
                patience=options.early_stopping_patience if options.early_stopping else None,
                minutes=minutes,
            ),
            self._progress,
        ]
        if options.metric_for_best_model == "loss":
            hooks.append(ValidationLoss())
        if begun.knows(training.class_names):
            hooks.append(StartValidation())
        if get_world_size() > 1:
            hooks.append({"type": "SyncBuffersHook"})
        runner_config: dict[str, Any] = {}
        if get_world_size() > 1:
            runner_config["model_wrapper_cfg"] = {
                "type": "MMDistributedDataParallel",
                "device_ids": [torch.cuda.current_device()] if torch.cuda.is_available() else None,
                "broadcast_buffers": False,
                "find_unused_parameters": False,
            }
        self._runner = Runner(
            model=model,
            work_dir=str(record.folder / "log"),
            train_dataloader=batches,
            val_dataloader=tested,
            train_cfg={"type": RejoinableLoop, "max_epochs": options.number_of_epochs},
            val_cfg={"fp16": half is not None},
            val_evaluator=Evaluator([BoxFigures(task.validation, options.box_score_threshold, begun.learns_masks)]),
            optim_wrapper=optimizer_config(options, half, begun.factors),
            param_scheduler=schedule_config(options, total),
            default_hooks={"checkpoint": None},
            custom_hooks=hooks,
            load_from=str(latest) if resume else None,
            resume=resume,
            launcher="pytorch" if get_world_size() > 1 else "none",
            randomness={"seed": options.random_seed},
            log_level="ERROR",
            default_scope="mmdet",
            visualizer=_visualizer(record.folder, say),
            experiment_name=f"finetune-{uuid.uuid4().hex}",  # MMEngine keeps its parts by this name, process-wide
            cfg=runner_config,
        )

    def train(self) -> bool:
        """Train to the end; False when time runs out before. Leaves best weights and history in the folder."""
        try:
            self._runner.train()
            return True
        except OutOfTime:
            if not self._history.epochs:  # or there would be no result at all
                self._runner.train_loop._iter += 1  # the loop was left before it counted the last batch
                self._runner.val_loop.run()
            return False
        except Exception as error:
            # A config may be of any parts: one that cannot train at all is said; a fault after the first step is ours.
            if self._runner.iter or isinstance(error, (*_EXPLAINED, torch.OutOfMemoryError)):
                raise
            raise TrainingError(
                f"{self._start}: its first training step fails: {unknown(error)}. Its images may be too small for it "
                "(image_min_size, image_max_size), or its config lacks what training asks for, such as train_cfg"
            ) from error
        finally:
            self._progress.close()
            self._runner.visualizer.close()
            while self._runner.logger.handlers:  # MMEngine keeps the logger, and uses it again
                self._runner.logger.handlers.pop().close()


def _opened(folder: Path, asked: dict[str, Any], options: TrainingOptions) -> Record:
    """The folder's record, opened by the main process for all of them."""
    box: list[Any] = [None]
    if is_main_process():
        try:
            box = [Record.open(folder, asked, options.training_batch_size, options.resume_from_checkpoint)]
        except TrainingError as error:
            box = [error]
    broadcast_object_list(box)
    if isinstance(box[0], TrainingError):
        raise box[0]
    record: Record = box[0]
    return record


def _halve(record: Record, options: TrainingOptions, say: Say, error: Exception) -> None:
    """Begin again with half the batch. Raises TrainingError where that is not wanted or not possible, or where the
    batch did fit before and there is progress to lose."""
    size = record.batch_size
    if (record.folder / "checkpoints" / LATEST).exists():
        raise TrainingError(
            "the device's memory ran out; the training is kept as of its last checkpoint. The same command goes on "
            "with it once there is more memory; --resume_from_checkpoint false begins anew, as with a smaller "
            "training_batch_size"
        ) from error
    if not options.auto_find_batch_size or size == 1 or get_world_size() > 1:
        raise TrainingError(
            f"a batch of {size} does not fit into the device's memory: choose a smaller training_batch_size or "
            "image_max_size, or precision 16"
        ) from error
    record.batch_size = size // 2
    for path in (record.folder / "checkpoints").glob("*"):
        path.unlink()
    record.save()
    say(f"a batch of {size} does not fit into the device's memory: beginning again with {record.batch_size}")


def _half(options: TrainingOptions, say: Say) -> torch.dtype | None:
    """What to compute in beside float32."""
    if options.precision == "32":
        return None
    if not torch.cuda.is_available():
        say("precision 16 needs a GPU, and there is none: training in 32 bits")
        return None
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


def _visualizer(folder: Path, say: Say) -> dict[str, Any]:
    """MMEngine's, which writes TensorBoard's files where TensorBoard is installed."""
    backends: list[dict[str, Any]] = []
    if importlib.util.find_spec("tensorboard") is None:
        say("no TensorBoard logs: the package tensorboard is not installed")
    else:
        backends.append({"type": "TensorboardVisBackend", "save_dir": str(folder / "tensorboard")})
    return {"type": "Visualizer", "vis_backends": backends}


def _history(folder: Path, metric: str) -> History:
    """The history in the latest checkpoint."""
    kept = torch.load(folder / "checkpoints" / LATEST, map_location="cpu", weights_only=True, mmap=True)["history"]
    return History(metric, [(step, loss) for step, loss in kept["losses"]], kept["epochs"])


def _write_result(task: _Task, record: Record, history: History) -> None:
    begun, options = task.begun, task.options
    metadata = {
        "started_from": {
            "config": begun.path.name,
            "checkpoint": begun.checkpoint.name if begun.checkpoint else None,
            "sha256": result.file_hash(begun.checkpoint),
            "taken": record.asked["take"] if begun.student is None else "backbone" if begun.checkpoint else "nothing",
        },
        "metrics": history.best,
        "finished": record.finished,
        "data": {
            use: {
                "hash": record.asked[f"{use} data"],
                "images": len(dataset),
                "objects": sum(1 for _ in dataset.annotations()),
            }
            for use, dataset in (("training", task.training), ("validation", task.validation))
        },
        "options": {
            **options.plain(),
            "training_batch_size": record.batch_size,
            "learning_rate": options.highest_learning_rate,
        },
    }
    weights = record.folder / "checkpoints" / BEST
    result.write(task.out, task.name, task.config, weights, task.training.class_names, metadata)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what MMDetection's parts say, about which their user can do nothing, from the console."""
    from mmengine.logging import MMLogger

    mmcv_ops.install()
    logger = MMLogger.get_current_instance()  # tells how every layer was initialised
    level = logger.level
    logger.setLevel("ERROR")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _silent(_: str) -> None:
    pass


def _initialised() -> None:
    pass
