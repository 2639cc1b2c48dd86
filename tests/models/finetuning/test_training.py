"""Real trainings of a tiny detector: they learn, survive SIGKILL, and leave a folder that can be served."""

from __future__ import annotations

import gc
import json
import shutil
import signal
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from models.data import Annotation, DataError, Dataset, LabelledImage, data_hash, write
from models.demo.things import CLASS_NAMES
from models.detector.mmdetection import MMDetector
from models.finetuning import checkpointing, curve, training
from models.finetuning.checkpoint_files import TrainingError
from models.finetuning.options import TrainingOptions
from models.finetuning.start import Start
from models.finetuning.training import Finetuned, finetune

QUICK = {"number_of_epochs": 2, "number_of_workers": 0, "learning_rate": 0.005, "save_steps": 1}
HALVED = {**QUICK, "training_batch_size": 2}

# Dies by SIGKILL after the third of the second epoch's four batches, before its checkpoint.
DYING = """
import os, signal, sys, warnings
from pathlib import Path
warnings.simplefilter("ignore")
from models.detector import mmcv_ops
mmcv_ops.install()
from models.data import load
from models.finetuning.checkpointing import Checkpointing
from models.finetuning.options import TrainingOptions
from models.finetuning.training import finetune

add = Checkpointing.after_train_iter
def dying(self, runner, *args, **kwargs):
    if runner.iter == 6:
        os.kill(os.getpid(), signal.SIGKILL)
    add(self, runner, *args, **kwargs)
Checkpointing.after_train_iter = dying

data, start, out, options = sys.argv[1:]
dataset = load(Path(data))
parts = dataset.subset(range(8)), dataset.subset(range(8, 12))
finetune(*parts, Path(start), Path(out), TrainingOptions(**eval(options)))
"""

SHARED = """
import sys, warnings
warnings.simplefilter("ignore")
from models.detector import mmcv_ops
mmcv_ops.install()
from app.cli import main
from models.finetuning import training

finetune = training.finetune
def shown(*args, **kwargs):
    done = finetune(*args, **kwargs)
    # In one write, or two processes' lines run into one another.
    sys.stdout.write(f"figures {done.figures['mean_average_precision']}\\n")
    sys.stdout.flush()
    return done
training.finetune = shown
sys.exit(main(sys.argv[1:]))
"""


def parts(scenes: Dataset) -> tuple[Dataset, Dataset]:
    return scenes.subset(range(8)), scenes.subset(range(8, 12))


@pytest.fixture(autouse=True)
def no_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """Curves take longer to draw than a tiny training to run; `learnt`, made before, has its picture."""
    monkeypatch.setattr(curve, "draw", lambda history, path: None)


@pytest.fixture(scope="module")
def whole(scenes: Dataset, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Finetuned:
    """A training that nothing interrupts, of two epochs of four batches each."""
    out = tmp_path_factory.mktemp("whole")
    return finetune(*parts(scenes), tiny, out, TrainingOptions(**HALVED), say=lambda line: None)


@pytest.fixture(scope="module")
def learnt(scenes: Dataset, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A training that has a chance: of classes by other names, on images that it also is validated on."""
    out = tmp_path_factory.mktemp("learnt")
    names = dict(zip(CLASS_NAMES, ("cup", "plate", "fork", "spoon"), strict=True))
    images = tuple(
        LabelledImage(
            image.path, image.size_hw, tuple(Annotation(names[one.label], one.box_xyxy) for one in image.annotations)
        )
        for image in scenes.images[:4]
    )
    dataset = Dataset(tuple(names.values()), images)
    lines: list[str] = []
    options = TrainingOptions(
        number_of_epochs=12,
        training_batch_size=2,
        number_of_workers=0,
        learning_rate=0.01,
        apply_augmentations=False,
        box_score_threshold=0.04,
        iou_threshold=0.45,
        save_total_limit=2,
        image_max_size=96,
        image_min_size=96,
    )
    return finetune(dataset, dataset, tiny, out, options, say=lines.append, name="cutlery"), dataset, lines


def test_it_learns(learnt: Any) -> None:
    done, _, lines = learnt
    history = torch.load(done.folder / "training" / "checkpoints" / "latest.pth", weights_only=True)["history"]
    first, last = history["epochs"][0], history["epochs"][-1]
    assert last["training_loss"] < 0.6 * first["training_loss"]
    assert done.figures["mean_average_precision"] > max(0.2, first["mean_average_precision"])
    assert done.finished
    assert any(line.startswith("epoch 12/12: loss ") for line in lines)
    assert not any(line.startswith("before the training") for line in lines), "it does not know these classes"


def test_the_result_is_served_with_the_figures_of_its_training(learnt: Any) -> None:
    from PIL import Image

    from models.evaluation import Predicted, box_figures

    done, dataset, _ = learnt
    detector = MMDetector.load(done.folder)
    assert detector.class_names == ("cup", "plate", "fork", "spoon") == done.class_names
    assert detector.input_scale == (96, 96)
    found = []
    for image in dataset.images:
        (result,) = detector.detect([np.asarray(Image.open(image.path))])
        assert (result.scores > 0.04).all()
        found.append(
            [
                Predicted(detector.class_names[label], float(score), tuple(map(float, box)))
                for box, score, label in zip(result.boxes_xyxy, result.scores, result.labels, strict=True)
            ]
        )
    figures = box_figures(dataset, found, 0.04)
    assert figures["voc_mAP50"] == pytest.approx(done.figures["mean_average_precision"], abs=1e-3)
    assert figures["recall"] == pytest.approx(done.figures["recall"], abs=1e-3)


def test_the_result_says_how_it_was_made(learnt: Any) -> None:
    done, dataset, _ = learnt
    metadata = json.loads((done.folder / "model_metadata.json").read_text())
    assert metadata["classes"] == list(done.class_names)
    assert metadata["metrics"]["mean_average_precision"] == done.figures["mean_average_precision"]
    assert metadata["data"]["training"] == {
        "hash": data_hash(dataset),
        "images": 4,
        "objects": sum(1 for _ in dataset.annotations()),
    }
    assert metadata["options"]["learning_rate"] == 0.01
    assert set(metadata["versions"]) >= {"torch", "mmdet", "mmengine", "box2mask"}
    config = (done.folder / "cutlery.py").read_text()
    assert "_base_" not in config and "'cup'" in config and "iou_threshold=0.45" in config


def test_the_training_leaves_logs_and_few_checkpoints(learnt: Any) -> None:
    folder = learnt[0].folder / "training"
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == [
        "best.safetensors",
        "epoch_11.pth",
        "epoch_12.pth",
        "latest.pth",
    ]
    assert (folder / "curve.png").read_bytes().startswith(b"\x89PNG")
    pytest.importorskip("tensorboard")
    (events,) = (folder / "tensorboard").glob("events.*")
    logged = events.read_bytes()
    assert b"mean_average_precision" in logged and b"loss_cls" in logged and b"grad_norm" in logged


def test_a_finished_training_is_left_alone(learnt: Any, tiny: Path) -> None:
    done, dataset, _ = learnt
    before = (done.folder / "cutlery.safetensors").read_bytes()
    metadata = json.loads((done.folder / "model_metadata.json").read_text())
    options = TrainingOptions(**metadata["options"])
    lines: list[str] = []
    again = finetune(dataset, dataset, tiny, done.folder, options, say=lines.append, name="cutlery")
    assert again.figures == done.figures
    assert (done.folder / "cutlery.safetensors").read_bytes() == before
    assert "is finished already" in lines[-1]


def test_killed_and_resumed_is_as_if_never_killed(
    scenes: Dataset, tiny: Path, whole: Finetuned, tmp_path: Path, said: Any
) -> None:
    write(scenes, tmp_path / "data", "coco", images="reference")
    killed = subprocess.run(
        [sys.executable, "-c", DYING, tmp_path / "data", tiny, tmp_path / "killed", repr(HALVED)],
        capture_output=True,
        text=True,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    state = torch.load(tmp_path / "killed" / "training" / "checkpoints" / "latest.pth", weights_only=True)
    assert (state["meta"]["epoch"], state["meta"]["iter"]) == (1, 6), "in the middle of the second epoch"
    resumed = finetune(*parts(scenes), tiny, tmp_path / "killed", TrainingOptions(**HALVED), say=said)
    assert any("going on at step 6 of 8, in epoch 2" in line for line in said.lines)
    assert resumed.figures == whole.figures
    assert_same(tmp_path / "killed", whole.folder)


def test_interrupted_between_accumulated_batches(
    scenes: Dataset, tiny: Path, tmp_path: Path, said: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = TrainingOptions(**QUICK, training_batch_size=2, gradient_accumulation_step=3)
    finetune(*parts(scenes), tiny, tmp_path / "whole", options, say=said)
    add = checkpointing.Checkpointing.after_train_iter

    def interrupted(self: Any, runner: Any, *args: Any, **kwargs: Any) -> None:
        if runner.iter == 4:  # the fifth batch: one into the second epoch, and into the second step
            raise KeyboardInterrupt
        add(self, runner, *args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(checkpointing.Checkpointing, "after_train_iter", interrupted)
        with pytest.raises(KeyboardInterrupt):
            finetune(*parts(scenes), tiny, tmp_path / "out", options, say=said)
    finetune(*parts(scenes), tiny, tmp_path / "out", options, say=said)
    assert any("going on at step 3 of 8" in line for line in said.lines)
    assert_same(tmp_path / "out", tmp_path / "whole")


def assert_same(out: Path, other: Path) -> None:
    """That two trainings have left the same weights, and the same losses and figures of every step."""
    ours, theirs = load_file(out / "tiny.safetensors"), load_file(other / "tiny.safetensors")
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    histories = [
        torch.load(one / "training" / "checkpoints" / "latest.pth", weights_only=True)["history"]
        for one in (out, other)
    ]
    assert histories[0] == histories[1]


def test_models_that_draw_numbers_are_resumed_the_same(
    scenes: Dataset, tiny: Path, tmp_path: Path, said: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mmdet.models.detectors import YOLOF

    options = TrainingOptions(**HALVED)
    extract = YOLOF.extract_feat

    def dropping(self: Any, inputs: torch.Tensor) -> Any:
        return [torch.nn.functional.dropout(one, 0.5, self.training) for one in extract(self, inputs)]

    monkeypatch.setattr(YOLOF, "extract_feat", dropping)
    finetune(*parts(scenes), tiny, tmp_path / "whole", options, say=said)
    add = checkpointing.Checkpointing.after_train_iter

    def interrupted(self: Any, runner: Any, *args: Any, **kwargs: Any) -> None:
        if runner.iter == 6:
            raise KeyboardInterrupt
        add(self, runner, *args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(checkpointing.Checkpointing, "after_train_iter", interrupted)
        with pytest.raises(KeyboardInterrupt):
            finetune(*parts(scenes), tiny, tmp_path / "out", options, say=said)
    finetune(*parts(scenes), tiny, tmp_path / "out", options, say=said)
    assert any("going on at step 6 of 8" in line for line in said.lines)
    assert_same(tmp_path / "out", tmp_path / "whole")


def test_killed_in_validation_repeats_the_validation(
    scenes: Dataset, tiny: Path, whole: Finetuned, tmp_path: Path, said: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = TrainingOptions(**HALVED)
    with monkeypatch.context() as patched:
        patched.setattr(training.BoxFigures, "compute_metrics", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            finetune(*parts(scenes), tiny, tmp_path, options, say=said)
    assert finetune(*parts(scenes), tiny, tmp_path, options, say=said).figures == whole.figures
    assert_same(tmp_path, whole.folder)


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def test_another_training_in_the_folder_is_not_mixed_with_this_one(
    scenes: Dataset, tiny: Path, whole: Finetuned, tmp_path: Path, said: Any
) -> None:
    out = tmp_path / "out"
    shutil.copytree(whole.folder, out)
    other = {**HALVED, "random_seed": 5, "number_of_epochs": 1}
    with pytest.raises(TrainingError, match=r"number_of_epochs 2 there, 1 here; random_seed 42 there, 5 here"):
        finetune(*parts(scenes), tiny, out, TrainingOptions(**other), say=said)
    anew = finetune(*parts(scenes), tiny, out, TrainingOptions(**other, resume_from_checkpoint=False), say=said)
    assert anew.figures["step"] == 4
    assert len(list((out / "training" / "checkpoints").glob("epoch_*"))) == 1


def test_time_is_over_and_the_next_run_goes_on(scenes: Dataset, tiny: Path, tmp_path: Path, said: Any) -> None:
    options = TrainingOptions(**HALVED)
    stopped = finetune(*parts(scenes), tiny, tmp_path, options, take="backbone", minutes=1e-9, say=said)
    assert not stopped.finished and stopped.figures["step"] == 1
    assert MMDetector.load(tmp_path).class_names == CLASS_NAMES
    done = finetune(*parts(scenes), tiny, tmp_path, options, take="backbone", say=said)
    assert done.finished
    history = torch.load(tmp_path / "training" / "checkpoints" / "latest.pth", weights_only=True)["history"]
    assert [one["step"] for one in history["epochs"]] == [1, 4, 8]
    assert [step for step, _ in history["losses"]] == list(range(1, 9))


def test_loss_as_the_metric(scenes: Dataset, tiny: Path, tmp_path: Path, said: Any) -> None:
    options = TrainingOptions(**QUICK | {"metric_for_best_model": "loss"})
    done = finetune(*parts(scenes), tiny, tmp_path, options, say=said)
    epochs = torch.load(tmp_path / "training" / "checkpoints" / "latest.pth", weights_only=True)["history"]["epochs"]
    assert done.figures["loss"] == min(one["loss"] for one in epochs) > 0
    assert len({one["loss"] for one in epochs}) == 3


def test_what_only_got_worse_is_left_as_it_was(
    scenes: Dataset, tiny: Path, tmp_path: Path, said: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also on a file system without hard links."""

    def no_links(*_: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("os.link", no_links)
    spoiling = {"learning_rate": 3.0, "optimizer": "sgd", "metric_for_best_model": "loss", "warmup_steps": 0}
    options = TrainingOptions(**QUICK | spoiling | {"number_of_epochs": 1})
    done = finetune(*parts(scenes), tiny, tmp_path, options, say=said)
    assert done.figures["step"] == 0
    ours, theirs = load_file(tmp_path / "tiny.safetensors"), load_file(tiny / "tiny.safetensors")
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert any(line.startswith("before the training: mAP@50 ") for line in said.lines)
    checkpoints = tmp_path / "training" / "checkpoints"
    assert (checkpoints / "epoch_1.pth").read_bytes() == (checkpoints / "latest.pth").read_bytes()


def test_early_stopping(scenes: Dataset, tiny: Path, tmp_path: Path, said: Any) -> None:
    options = TrainingOptions(
        **QUICK
        | {
            "number_of_epochs": 9,
            "box_score_threshold": 1,  # finds nothing, and gets no better at it
            "early_stopping": True,
            "early_stopping_patience": 2,
        }
    )
    done = finetune(*parts(scenes), tiny, tmp_path, options, say=said)
    epochs = torch.load(tmp_path / "training" / "checkpoints" / "latest.pth", weights_only=True)["history"]["epochs"]
    assert done.finished and [one["epoch"] for one in epochs] == [0, 1, 2, 3]


def test_half_the_batch_when_memory_is_short(
    scenes: Dataset, tiny: Path, tmp_path: Path, said: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = checkpointing.Checkpointing.after_train_iter
    failed: list[weakref.ref[Any]] = []

    def short(self: Any, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        if len(data_batch["inputs"]) > 2:
            failed.append(weakref.ref(runner.model))
            raise torch.OutOfMemoryError("CUDA out of memory")
        add(self, runner, batch_idx, data_batch, outputs)

    build = Start.model_for

    def again(self: Any, *args: Any) -> Any:
        assert not failed or failed[-1]() is None, "the memory of what did not fit is free again"
        return build(self, *args)

    monkeypatch.setattr(checkpointing.Checkpointing, "after_train_iter", short)
    monkeypatch.setattr(Start, "model_for", again)
    options = {**QUICK, "number_of_epochs": 1}
    with pytest.raises(TrainingError, match="a batch of 4 does not fit"):
        finetune(*parts(scenes), tiny, tmp_path / "a", TrainingOptions(**options, auto_find_batch_size=False), say=said)
    failed.clear()
    gc.disable()  # or it might be free by chance
    try:
        finetune(*parts(scenes), tiny, tmp_path / "b", TrainingOptions(**options), say=said)
    finally:
        gc.enable()
    assert any("beginning again with 2" in line for line in said.lines)
    metadata = json.loads((tmp_path / "b" / "model_metadata.json").read_text())
    assert metadata["options"]["training_batch_size"] == 2


def test_memory_that_runs_out_later_costs_no_progress(
    scenes: Dataset, tiny: Path, tmp_path: Path, said: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = checkpointing.Checkpointing.after_train_iter

    def short(self: Any, runner: Any, *args: Any, **kwargs: Any) -> None:
        if runner.iter == 5:
            raise torch.OutOfMemoryError("CUDA out of memory")
        add(self, runner, *args, **kwargs)

    monkeypatch.setattr(checkpointing.Checkpointing, "after_train_iter", short)
    with pytest.raises(TrainingError, match="memory ran out; the training is kept as of its last checkpoint"):
        finetune(*parts(scenes), tiny, tmp_path, TrainingOptions(**HALVED), say=said)
    checkpoints = tmp_path / "training" / "checkpoints"
    assert torch.load(checkpoints / "latest.pth", weights_only=True)["meta"]["iter"] == 5
    assert (checkpoints / "best.safetensors").is_file()


def test_a_folder_that_cannot_take_the_result_is_refused_first(
    scenes: Dataset, tiny: Path, tmp_path: Path, said: Any
) -> None:
    def refused(out: Path, expected: str, **more: Any) -> None:
        with pytest.raises(TrainingError, match=expected):
            finetune(*parts(scenes), tiny, out, TrainingOptions(**QUICK), say=said, **more)
        assert not (out / "training").exists()

    refused(tiny, "holds the detector to start from")
    for name in ("other.py", "other.safetensors", "other.pth"):
        out = tmp_path / name
        out.mkdir()
        (out / name).touch()
        refused(out, f"another detector's files.*: {name}:")
    refused(tmp_path / "new", "name: expected a file's name", name="a/b")
    inside = tmp_path / "project" / "training"
    inside.mkdir(parents=True)
    shutil.copy(scenes.images[0].path, inside / "0.png")
    photo = LabelledImage(inside / "0.png", scenes.images[0].size_hw, scenes.images[0].annotations)
    with pytest.raises(TrainingError, match="0.png lies in .*training, where the training keeps its own files"):
        finetune(
            Dataset(scenes.class_names, (photo,)),
            parts(scenes)[1],
            tiny,
            tmp_path / "project",
            TrainingOptions(**QUICK),
        )
    assert photo.path.is_file()


def test_a_loss_that_is_no_number_ends_it(scenes: Dataset, tiny: Path, tmp_path: Path, said: Any) -> None:
    options = TrainingOptions(**QUICK | {"learning_rate": 1e30, "optimizer": "sgd", "max_grad_norm": 0})
    with pytest.raises(TrainingError, match="the loss is .* at step .*: choose a lower learning_rate"):
        finetune(*parts(scenes), tiny, tmp_path, options, say=said)


def test_data_that_cannot_be_trained_on(scenes: Dataset, tiny: Path, tmp_path: Path, said: Any) -> None:
    train, validation = parts(scenes)
    empty = Dataset(train.class_names, tuple(LabelledImage(one.path, one.size_hw) for one in train.images))
    with pytest.raises(TrainingError, match="the training data has no object in its 8 images"):
        finetune(empty, validation, tiny, tmp_path, TrainingOptions(**QUICK), say=said)
    with pytest.raises(TrainingError, match="the validation data has classes that the training data lacks: bus"):
        bus = LabelledImage(train.images[0].path, (64, 64), (Annotation("bus", (0, 0, 9, 9)),))
        finetune(train, Dataset(("bus",), (bus,)), tiny, tmp_path, TrainingOptions(**QUICK), say=said)
    missing = LabelledImage(tmp_path / "none.png", (64, 64), train.images[0].annotations)
    with pytest.raises(DataError, match="none.png is missing"):
        finetune(Dataset(train.class_names, (missing,)), validation, tiny, tmp_path, TrainingOptions(**QUICK), say=said)


def test_two_processes_share_the_work(scenes: Dataset, tiny: Path, tmp_path: Path) -> None:
    write(scenes, tmp_path / "data", "coco", images="reference")
    (file,) = (tmp_path / "data").glob("*.json")
    content = json.loads(file.read_text())
    content["annotations"][1]["id"] = content["annotations"][0]["id"]
    file.write_text(json.dumps(content))
    (tmp_path / "shared.py").write_text(SHARED)
    options = {**QUICK, "number_of_epochs": 1, "training_batch_size": 2}
    command = [
        *(sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
        *(tmp_path / "shared.py", "finetune", tmp_path / "data", "--every", "3", "--from", tiny),
        *("--out", tmp_path / "out", *(f"--{name}={value}" for name, value in options.items())),
    ]
    root = Path(__file__).parents[3]
    outcome = subprocess.run(command, capture_output=True, text=True, cwd=root, env=_environment(root))
    assert outcome.returncode == 0, outcome.stderr
    lines = outcome.stdout.splitlines()
    figures = [line for line in lines if line.startswith("figures")]
    assert len(figures) == 2 and figures[0] == figures[1]
    assert sum(f"{tmp_path / 'out'}: the detector " in line for line in lines) == 1, "one of them speaks"
    assert outcome.stderr.count("expected each id once") == 1
    state = torch.load(tmp_path / "out" / "training" / "checkpoints" / "latest.pth", weights_only=True)
    assert state["meta"]["iter"] == 2, "8 images in batches of 2 on each of 2 processes"
    assert MMDetector.load(tmp_path / "out").class_names == CLASS_NAMES
    assert not (root / ".dist_test").exists()


def _environment(root: Path) -> dict[str, str]:
    import os

    return {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
