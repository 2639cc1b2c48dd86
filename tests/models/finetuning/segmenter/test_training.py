"""Real trainings of small SAMs: they learn, survive SIGKILL, and leave a folder that is served as it is."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from models.data import Annotation, DataError, Dataset, LabelledImage, data_hash, write
from models.finetuning import curve
from models.finetuning.checkpoint_files import TrainingError
from models.finetuning.options import OptionError
from models.finetuning.segmenter import training
from models.finetuning.segmenter.options import SegmenterOptions
from models.finetuning.segmenter.training import FinetunedSegmenter, finetune_segmenter
from models.segmenter.families import SEGMENTERS
from models.types import Prompts
from tests.models.segmenter.random_sams import random_edgetam, random_sam2, random_sam3_tracker, random_sam_hq

DEMO = Path(__file__).parents[4] / "weights" / "demo" / "sam"
CPU = torch.device("cpu")
QUICK: dict[str, Any] = {
    "number_of_epochs": 2, "training_batch_size": 2, "views_per_image": 3, "clicks": 1, "save_steps": 1,
}  # fmt: skip

SHORT = {**QUICK, "number_of_epochs": 1, "views_per_image": 1, "save_steps": None}

# Dies by SIGKILL in the third of the second epoch's four steps, after two of its checkpoints.
DYING = """
import os, signal, sys
from pathlib import Path
import torch
from models.data import load
from models.finetuning.segmenter import training
from models.finetuning.segmenter.options import SegmenterOptions

learn = training._Run._learn
def dying(self):
    if self._step == 6:
        os.kill(os.getpid(), signal.SIGKILL)
    learn(self)
training._Run._learn = dying
training.LEAST_STEPS = 1

data, start, out, options = sys.argv[1:]
dataset = load(Path(data))
parts = dataset.subset(range(8)), dataset.subset(range(8, 12))
training.finetune_segmenter(
    *parts, Path(start), Path(out), SegmenterOptions(**eval(options)), device=torch.device("cpu"), dtype=torch.float32
)
"""


def parts(dataset: Dataset) -> tuple[Dataset, Dataset]:
    return dataset.subset(range(8)), dataset.subset(range(8, 12))


def trained(
    dataset: Dataset, start: Path, out: Path, options: dict[str, Any], say: Callable[[str], None] = print, **more: Any
) -> FinetunedSegmenter:
    made = SegmenterOptions(**options)
    return finetune_segmenter(*parts(dataset), start, out, made, device=CPU, dtype=torch.float32, say=say, **more)


def history(out: Path) -> dict[str, Any]:
    return torch.load(out / "training" / "checkpoints" / "latest.pth", weights_only=True)["history"]


def box_ious(folder: Path, dataset: Dataset) -> list[float]:
    """Of each image's first object, by its annotated box, as the service has it."""
    segmenter = SEGMENTERS.of(folder).load(folder)
    found = []
    for image in dataset.images:
        truth = image.annotations[0].mask(image.size_hw)
        prompts = Prompts(boxes_xyxy=image.boxes_xyxy[:1])
        mask = segmenter.segment(np.asarray(Image.open(image.path).convert("RGB")), prompts).masks[0, 0]
        found.append(float((mask & truth).sum() / (mask | truth).sum()))
    return found


@pytest.fixture(autouse=True)
def no_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """Curves take longer to draw than a tiny training to run; `learnt`, made before, has its picture."""
    monkeypatch.setattr(curve, "draw", lambda history, path: None)


@pytest.fixture(scope="module", autouse=True)
def after_every_epoch() -> Iterator[None]:
    """Epochs of four steps are measured too."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(training, "LEAST_STEPS", 1)
        yield


@pytest.fixture(scope="module")
def learnt(rings: Dataset, tmp_path_factory: pytest.TempPathFactory) -> tuple[FinetunedSegmenter, list[str]]:
    """The demo segmenter, which has learnt that a ring's hole is no part of it."""
    lines: list[str] = []
    options = {
        "number_of_epochs": 8, "views_per_image": 1, "clicks": 0, "keep_old": 0.0, "old_share": 0.0,
        "learning_rate": 2e-3,
    }  # fmt: skip
    return trained(rings, DEMO, tmp_path_factory.mktemp("learnt") / "out", options, lines.append), lines


@pytest.fixture(scope="module")
def whole(rings: Dataset, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> FinetunedSegmenter:
    """A training that nothing interrupts, of two epochs of four steps each."""
    return trained(rings, tiny, tmp_path_factory.mktemp("whole") / "out", QUICK)


def test_what_it_learnt_is_served(rings: Dataset, learnt: tuple[FinetunedSegmenter, list[str]]) -> None:
    done, lines = learnt
    _, held_out = parts(rings)
    before, after = (np.array(box_ious(folder, held_out)) for folder in (DEMO, done.folder))
    assert (after > 0.9).all() and after.mean() > before.mean() + 0.2, (before, after)
    assert after.mean() == pytest.approx(done.figures["box_iou"], abs=0.01), "as its training said"
    assert done.finished
    assert lines[0] == (
        "training on 8 images with 8 objects, validating on 4 images with 4 objects; classes count for nothing"
    )
    assert lines[1].startswith("before the training: mask IoU 0.") and "filled boxes 0." in lines[1]
    assert lines[-1].startswith("epoch 8/8: loss ")


def test_the_folder_is_hugging_faces(learnt: tuple[FinetunedSegmenter, list[str]], rings: Dataset) -> None:
    from transformers import SamModel

    folder = learnt[0].folder
    assert (folder / "preprocessor_config.json").read_bytes() == (DEMO / "preprocessor_config.json").read_bytes()
    theirs = SamModel.from_pretrained(folder, dtype=torch.float32).state_dict()
    before, after = (load_file(one / "model.safetensors") for one in (DEMO, folder))
    changed = {name for name in before if not torch.equal(before[name].float(), after[name].float())}
    assert changed and all(name.startswith(("mask_decoder.", "prompt_encoder.")) for name in changed)
    assert not any("positional_embedding" in name for name in changed)
    assert all(torch.equal(theirs[name], after[name].float()) for name in after)
    metadata = json.loads((folder / "model_metadata.json").read_text())
    assert metadata["metrics"]["box_iou"] == learnt[0].figures["box_iou"]
    assert metadata["data"]["training"] == {"hash": data_hash(parts(rings)[0]), "images": 8, "objects": 8}
    assert metadata["started_from"]["family"] == "Sam" and metadata["options"]["clicks"] == 0


def test_it_leaves_a_curve_and_no_embeddings(learnt: tuple[FinetunedSegmenter, list[str]]) -> None:
    left = learnt[0].folder / "training"
    assert (left / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in left.iterdir()) == ["checkpoints", "curve.png", "training.json"]
    assert [one["step"] for one in history(learnt[0].folder)["epochs"]] == list(range(0, 17, 2))


def test_killed_and_resumed_is_as_if_never_killed(
    rings: Dataset, tiny: Path, whole: FinetunedSegmenter, tmp_path: Path, said: Any
) -> None:
    write(rings, tmp_path / "data", "coco", images="reference")
    out = tmp_path / "killed"
    command = [sys.executable, "-c", DYING, tmp_path / "data", tiny, out, repr(QUICK)]
    killed = subprocess.run(command, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert trained(rings, tiny, out, QUICK, said).figures == whole.figures
    assert any("going on at step 6 of 8, in epoch 2" in line for line in said.lines)
    assert_same(out, whole.folder)


def test_what_is_encoded_is_not_encoded_again(
    rings: Dataset, tiny: Path, whole: FinetunedSegmenter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from models.segmenter.sam import Sam

    encode = training.Encoding._encode

    def interrupted(self: Any, sam: Sam, use: str, number: int, count: int) -> None:
        if (use, number) == ("training", 6):
            raise KeyboardInterrupt
        encode(self, sam, use, number, count)

    with monkeypatch.context() as patched:
        patched.setattr(training.Encoding, "_encode", interrupted)
        with pytest.raises(KeyboardInterrupt):
            trained(rings, tiny, tmp_path / "out", QUICK)
    encoded: list[int] = []
    embed = Sam.embed

    def counted(self: Sam, samples: Any, *args: Any) -> Any:
        encoded.append(len(samples))
        return embed(self, samples, *args)

    monkeypatch.setattr(Sam, "embed", counted)
    trained(rings, tiny, tmp_path / "out", QUICK)
    assert sum(encoded) == 1 + 2 * 3 + 4, "one that tells how large an embedding is, two images' views, to validate on"
    assert_same(tmp_path / "out", whole.folder)


def assert_same(out: Path, other: Path) -> None:
    """That two trainings have left the same weights, and the same losses and figures of every step."""
    ours, theirs = load_file(out / "model.safetensors"), load_file(other / "model.safetensors")
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert history(out) == history(other)


def test_time_is_over_and_the_next_run_goes_on(rings: Dataset, tiny: Path, tmp_path: Path) -> None:
    stopped = trained(rings, tiny, tmp_path, QUICK, minutes=1e-9)
    assert not stopped.finished and [one["step"] for one in history(tmp_path)["epochs"]] == [0, 1]
    assert SEGMENTERS.of(tmp_path).__name__ == "Sam"
    done = trained(rings, tiny, tmp_path, QUICK)
    assert done.finished and [one["step"] for one in history(tmp_path)["epochs"]] == [0, 1, 4, 8]
    assert [step for step, _ in history(tmp_path)["losses"]] == list(range(1, 9))


def test_it_stops_early(rings: Dataset, tiny: Path, tmp_path: Path) -> None:
    options = {**QUICK, "number_of_epochs": 30, "learning_rate": 1e-9, "early_stopping_patience": 2}
    done = trained(rings, tiny, tmp_path, options)
    assert done.finished and len(history(tmp_path)["epochs"]) == 4


def test_epochs_of_few_steps_are_measured_together(
    rings: Dataset, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "LEAST_STEPS", 5)
    monkeypatch.setattr(training, "USUAL_STEPS", 9)
    monkeypatch.setattr(training, "LEAST_EPOCHS", 1)
    done = trained(rings, tiny, tmp_path, {**QUICK, "number_of_epochs": None})
    assert done.finished and [one["step"] for one in history(tmp_path)["epochs"]] == [0, 8, 12]


def test_another_training_in_the_folder_is_not_mixed_with_this_one(
    rings: Dataset, tiny: Path, whole: FinetunedSegmenter, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(whole.folder, out)
    other = {**QUICK, "clicks": 0, "number_of_epochs": 1}
    with pytest.raises(TrainingError, match=r"clicks 1 there, 0 here; number_of_epochs 2 there, 1 here"):
        trained(rings, tiny, out, other)
    assert trained(rings, tiny, out, {**other, "resume_from_checkpoint": False}).finished


@pytest.mark.parametrize("family", ["sam_hq", "sam2", "edgetam"])
def test_other_families_learn_by_the_same_decoder(rings: Dataset, tmp_path: Path, family: str) -> None:
    model = {"sam_hq": random_sam_hq, "sam2": random_sam2, "edgetam": random_edgetam}[family]()
    model.save_pretrained(tmp_path / "start")
    done = trained(rings, tmp_path / "start", tmp_path / "out", {**SHORT, "learning_rate": 1e-3})
    before, after = (load_file(tmp_path / one / "model.safetensors") for one in ("start", "out"))
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert any(name.startswith("mask_decoder.") for name in changed)
    frozen = ("vision_encoder", "mask_decoder.encoder_", "mask_decoder.compress", "mask_decoder.conv_s")
    assert not any(name.startswith(frozen) for name in changed), "what embeddings are made by"
    ious = box_ious(tmp_path / "out", parts(rings)[1])
    assert done.figures["step"] == 0 or np.mean(ious) == pytest.approx(done.figures["box_iou"], abs=0.02)


def test_the_head_alone_learns_unless_more_is_asked_for(rings: Dataset, tiny: Path, tmp_path: Path) -> None:
    before = load_file(tiny / "model.safetensors")
    changed = {}
    for train in ("decoder", "whole-decoder"):
        trained(rings, tiny, tmp_path / train, {**SHORT, "train": train})
        state = torch.load(tmp_path / train / "training" / "checkpoints" / "latest.pth", weights_only=True)["weights"]
        own = {name.removeprefix("learner."): one for name, one in state.items()}
        changed[train] = {name for name, one in own.items() if not torch.equal(one, before[name])}
    assert "mask_decoder.upscale_conv1.weight" in changed["decoder"]
    assert not any("transformer.layers" in name or name.startswith("prompt_encoder.") for name in changed["decoder"])
    more = changed["whole-decoder"] - changed["decoder"]
    assert "mask_decoder.transformer.layers.0.mlp.lin1.weight" in more and "prompt_encoder.no_mask_embed.weight" in more


def test_sam_3_is_refused(rings: Dataset, tmp_path: Path) -> None:
    random_sam3_tracker().save_pretrained(tmp_path / "start")
    with pytest.raises(TrainingError, match="Sam3 has no training here: expected a SAM, SAM-HQ, SAM 2 or EdgeTAM"):
        trained(rings, tmp_path / "start", tmp_path / "out", QUICK)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("family", ["sam", "sam2"])
def test_an_encoder_learns_and_is_served_merged(rings: Dataset, tiny: Path, tmp_path: Path, family: str) -> None:
    start = tiny
    if family != "sam":
        start = tmp_path / "start"
        random_sam2().save_pretrained(start)
    options = {
        **SHORT,
        "train": "encoder-lora",
        "encoder_on_cpu": True,
        "lora_rank": 2,
        "learning_rate": 1e-2,
        "old_share": 0.0,
    }
    done = trained(rings, start, tmp_path / "out", {**options, "metric_for_best_model": "click_iou"})
    assert done.finished
    state = torch.load(tmp_path / "out" / "training" / "checkpoints" / "latest.pth", weights_only=True)
    assert any(one.abs().max() > 0 for name, one in state["weights"].items() if name.endswith(".up"))
    # The last epoch's weights, whether or not they are the best, as they would be written.
    trainee = training.Trainee(SEGMENTERS.of(start), start, SegmenterOptions(**options), CPU)
    trainee.restore(state["average"])
    training.result.write(tmp_path / "out", SEGMENTERS.of(start), start, trainee.weights(), {})
    before, after = (load_file(one / "model.safetensors") for one in (start, tmp_path / "out"))
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    encoder = {name for name in changed if name.startswith("vision_encoder.")}
    assert encoder and all(name.endswith(("qkv.weight", "proj.weight")) for name in encoder)
    last = history(tmp_path / "out")["epochs"][-1]
    assert np.mean(box_ious(tmp_path / "out", parts(rings)[1])) == pytest.approx(last["box_iou"], abs=0.02)


def test_an_encoder_without_attention_is_refused(rings: Dataset, tmp_path: Path) -> None:
    random_edgetam().save_pretrained(tmp_path / "start")
    with pytest.raises(TrainingError, match="EdgeTam has no attention for encoder-lora to learn in: expected decoder"):
        trained(rings, tmp_path / "start", tmp_path / "out", {"train": "encoder-lora", "encoder_on_cpu": True})


def test_an_encoder_is_not_trained_on_a_processor_unless_asked_for(rings: Dataset, tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="encoder-lora .* there is no GPU here: expected decoder, or encoder_on_cpu"):
        trained(rings, tiny, tmp_path / "out", {"train": "encoder-lora"})
    assert not (tmp_path / "out").exists()


def test_weights_that_a_trainer_has_wrapped_are_written_plainly(rings: Dataset, tiny: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny, tmp_path / "start")
    file = tmp_path / "start" / "model.safetensors"
    save_file({f"module.{name}": one for name, one in load_file(file).items()}, file)
    trained(rings, tmp_path / "start", tmp_path / "out", SHORT)
    assert load_file(tmp_path / "out" / "model.safetensors").keys() >= load_file(tiny / "model.safetensors").keys()
    assert SEGMENTERS.of(tmp_path / "out").load(tmp_path / "out")


def test_boxes_alone_teach_no_masks(rings: Dataset, tiny: Path, tmp_path: Path) -> None:
    bare = Dataset(
        rings.class_names,
        tuple(
            LabelledImage(one.path, one.size_hw, tuple(Annotation(a.label, a.box_xyxy) for a in one.annotations))
            for one in rings.images
        ),
    )
    with pytest.raises(TrainingError, match="none of its 8 objects has a mask: expected a polygon or an RLE .* run"):
        trained(bare, tiny, tmp_path / "out", QUICK)
    assert not (tmp_path / "out").exists()


def test_objects_without_masks_and_crowds_are_left_out(rings: Dataset, tiny: Path, tmp_path: Path, said: Any) -> None:
    first, *others = rings.images
    more = (Annotation("ring", (1.0, 1.0, 9.0, 9.0)), Annotation("ring", first.annotations[0].box_xyxy, crowd=True))
    mixed = LabelledImage(first.path, first.size_hw, (*first.annotations, *more))
    trained(Dataset(rings.class_names, (mixed, *others)), tiny, tmp_path, {**QUICK, "number_of_epochs": 1}, said)
    assert said.lines[0] == "1 of 9 training objects have no mask and are left out, the first a ring in 0.png"
    assert said.lines[1].startswith("training on 8 images with 8 objects, ")


def test_a_photo_that_cannot_be_read_is_named(rings: Dataset, tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    broken = LabelledImage(tmp_path / "broken.png", (96, 96), rings.images[0].annotations)
    with pytest.raises(DataError, match=r"broken\.png"):
        trained(Dataset(rings.class_names, (broken, *rings.images[1:])), tiny, tmp_path / "out", QUICK)


def test_embeddings_stay_within_their_limit(rings: Dataset, tiny: Path, tmp_path: Path, said: Any) -> None:
    one = 2 * 32 * 4 * 4 * 1.05 / 2**30  # GB of an embedding and its masks
    room = (4 + 2 * 8.5) * one  # those of 4 images to validate on, and 2 of each of 8 to train on
    trained(rings, tiny, tmp_path / "out", {**QUICK, "embeddings_gb": room}, said)
    assert "2 views of each image in place of 3, to stay within embeddings_gb" in said.lines
    with pytest.raises(TrainingError, match="embeddings_gb: expected at least .* for 12 images"):
        trained(rings, tiny, tmp_path / "less", {**QUICK, "embeddings_gb": 11 * one})


def test_other_models_files_are_not_mixed_with_the_result(rings: Dataset, tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="holds the segmenter to start from"):
        trained(rings, tiny, tiny, QUICK)
    shutil.copytree(DEMO, tmp_path / "other")
    with pytest.raises(TrainingError, match=r"holds another model's files: config\.json, model\.safetensors"):
        trained(rings, tiny, tmp_path / "other", QUICK)


def test_photos_that_are_stored_on_their_side_are_learnt_upright(tiny: Path, tmp_path: Path) -> None:
    from models.finetuning.segmenter.examples import examples

    image = np.zeros((40, 60, 3), np.uint8)
    image[:, :10] = 255  # which is on top once it is turned
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(image).save(tmp_path / "turned.png", exif=exif)
    mask = np.zeros((60, 40), bool)
    mask[:10] = True
    from models.data.parsing.shapes import encoded

    one = LabelledImage(
        tmp_path / "turned.png", (60, 40), (Annotation("top", (0.0, 0.0, 40.0, 10.0), rle=encoded(mask)),)
    )
    dataset = Dataset(("top",), (one,))
    (example,), _ = examples(dataset, dataset, lambda line: None)
    photo = example.photo()
    assert photo.shape == (60, 40, 3) and (photo[mask] == 255).all() and (photo[~mask] == 0).all()
