from __future__ import annotations

import importlib.util
import itertools
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import IterableDataset

from models import training_process
from models.demo import detector, mask_prompts, scenes, segmenter, segmenter_examples, training, views
from models.demo.scenes import Scene, render_scene, tight_boxes
from models.demo.segmenter_examples import SegmenterExamples
from models.demo.things import CLASS_NAMES, CLUTTER
from models.detector.mmdetection import MMDetector
from models.segmenter.decoder import WHOLE
from models.segmenter.sam import Sam
from models.types import Prompts

# --- the loop ----------------------------------------------------------------------------------------


def ticking_clock() -> SimpleNamespace:
    """In place of `time`: a second passes at every look, so that a step takes a second."""
    return SimpleNamespace(monotonic=itertools.count().__next__)


class Toy:
    """Fits a line through the points of another line, and keeps a record."""

    def __init__(self, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.out = out
        self.seeds: list[int] = []
        self.steps: list[int] = []
        self.losses: list[float] = []
        self.stop_at: int | None = None
        monkeypatch.setattr(training, "time", ticking_clock())

    def batches(self, seed: int) -> Iterator[Tensor]:
        self.seeds.append(seed)
        generator = torch.Generator().manual_seed(seed)
        while True:
            yield torch.randn(16, 1, generator=generator)

    def loss(self, model: nn.Module, x: Tensor, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        if step == self.stop_at:
            raise KeyboardInterrupt
        error = (model(x) - (3 * x - 1)).square().mean()
        self.steps.append(step)
        self.losses.append(error.item())
        return error, {"half": error.detach() / 2}

    def save(self, model: nn.Module, folder: Path) -> None:
        torch.save(model.state_dict(), folder / "weights.pth")

    def train(self, minutes: float, **arguments: Any) -> nn.Module:
        torch.manual_seed(0)
        model = nn.Linear(1, 1)
        training.train(
            model, self.batches, self.loss, self.save, self.out, minutes, lr=0.05, save_every=10, **arguments
        )
        return model

    def state(self) -> dict[str, Any]:
        return torch.load(self.out / "training.pt", weights_only=True)

    def weights(self) -> dict[str, Tensor]:
        return torch.load(self.out / "weights.pth", weights_only=True)


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Toy:
    return Toy(tmp_path / "new" / "folder", monkeypatch)


def test_a_model_learns_within_the_minutes_given(toy: Toy, capsys: pytest.CaptureFixture[str]) -> None:
    model = toy.train(minutes=5)
    assert 295 <= len(toy.steps) <= 300  # a step a second
    assert np.mean(toy.losses[-10:]) < 0.01 * np.mean(toy.losses[:10])
    assert toy.state()["step"] == len(toy.steps)
    assert toy.state()["optimizer"]["param_groups"][0]["lr"] == pytest.approx(0.05 * 0.02)  # it fell to the end
    # What is saved is the average over the steps, which follows behind.
    average, target = toy.weights()["weight"].item(), model.weight.item()
    assert target == pytest.approx(3, abs=0.1)
    assert torch.equal(toy.state()["model"]["weight"], model.weight)
    assert 0 < abs(target - average) < 3
    printed = capsys.readouterr().out
    assert "/5 min, step 20: loss " in printed and " half " in printed


def test_training_goes_on_where_it_was(toy: Toy) -> None:
    toy.train(minutes=1)
    first = toy.state()
    assert 55 <= first["step"] <= 60 and first["worked"] >= 60
    went_on = toy.train(minutes=2)
    assert toy.steps == list(range(len(toy.steps)))  # no step twice, none left out
    assert 115 <= toy.state()["step"] <= 120 and toy.state()["worked"] >= 120
    assert toy.seeds == [0, 1000 * first["step"]]  # and on other batches
    assert toy.losses[first["step"]] < toy.losses[0]
    assert toy.state()["optimizer"]["state"][0]["step"] == toy.state()["step"]

    toy.train(minutes=2)  # nothing is left to do
    assert len(toy.steps) == toy.state()["step"]
    assert torch.equal(toy.state()["model"]["weight"], went_on.weight)


def test_the_process_is_set_up_by_the_training_before_its_workers_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    monkeypatch.setattr(training_process, "keep_freed_memory", lambda: done.append("memory"))
    monkeypatch.setattr(torch, "set_flush_denormal", lambda flush: done.append(f"denormal {flush}"))
    spec = importlib.util.spec_from_file_location("imported_again", training.__file__)
    assert spec is not None and spec.loader is not None
    again = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(again)
    assert done == [], "not by an import"

    def batches(seed: int) -> Iterator[Tensor]:
        done.append("workers")
        return itertools.repeat(torch.zeros(1))

    again.train(nn.Linear(1, 1), batches, None, lambda model, folder: None, tmp_path, minutes=0, lr=0.1)
    assert done == ["denormal True", "memory", "workers"]


def test_an_interrupted_training_goes_on_from_its_last_state(toy: Toy) -> None:
    toy.stop_at = 37
    with pytest.raises(KeyboardInterrupt):
        toy.train(minutes=2)
    assert toy.state()["step"] == 30
    toy.stop_at = None
    toy.train(minutes=2)
    assert toy.steps[37] == 30


def test_a_death_while_the_state_is_written_leaves_the_one_before(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    save = torch.save

    def dies_half_way(content: object, path: Path) -> None:
        save(content, path)
        if Path(path).parent == toy.out and toy.steps[-1] >= 29:
            Path(path).write_bytes(Path(path).read_bytes()[:300])
            raise OSError("no space left on device")

    monkeypatch.setattr(torch, "save", dies_half_way)
    with pytest.raises(OSError, match="no space"):
        toy.train(minutes=2)
    assert toy.state()["step"] == 20
    monkeypatch.setattr(torch, "save", save)
    toy.train(minutes=2)
    assert toy.state()["step"] > 100
    assert sorted(path.name for path in toy.out.iterdir()) == ["training.pt", "weights.pth"]


def test_parameters_that_do_not_learn_stay(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    linear = nn.Linear

    def frozen(*size: int) -> nn.Module:
        model = linear(*size)
        model.bias.requires_grad_(False)
        return model

    monkeypatch.setattr(nn, "Linear", frozen)
    model = toy.train(minutes=0.5)
    torch.manual_seed(0)
    fresh = linear(1, 1)
    assert torch.equal(model.bias, fresh.bias) and not torch.equal(model.weight, fresh.weight)


class Processes(IterableDataset):
    def __iter__(self) -> Iterator[list[np.ndarray]]:
        return iter([[np.array([os.getpid()]), np.arange(2, dtype=np.float32)]])


def test_batches_are_drawn_in_another_process_and_come_as_tensors() -> None:
    process, numbers = next(training.loaded(Processes()))
    assert process.item() != os.getpid()
    assert torch.equal(numbers, torch.tensor([0.0, 1.0]))


# --- examples ----------------------------------------------------------------------------------------


@pytest.fixture
def one_scene(monkeypatch: pytest.MonkeyPatch) -> Scene:
    """The stream shows this scene alone: red above, blue below; a can at the left, clutter at the right."""
    image = np.full((200, 256, 3), (220, 20, 10), np.uint8)
    image[100:] = (10, 20, 220)
    masks = np.zeros((2, 200, 256), bool)
    masks[0, 40:80, 12:36] = masks[1, 100:180, 200:240] = True
    scene = Scene(image, masks, tight_boxes(masks), np.array([0, CLUTTER]))
    for module in (detector, segmenter_examples):
        monkeypatch.setattr(module, "scene_stream", lambda seed, longest: itertools.repeat(scene))
    return scene


def test_the_detector_learns_from_bgr_and_from_no_clutter(one_scene: Scene) -> None:
    ((pixels, boxes, labels, cells),) = next(itertools.islice(detector.DetectorExamples(0, batch=2), 4, None))
    assert pixels.shape == (3, 256, 256) and pixels.dtype == torch.uint8
    assert pixels[:, 0, 0].tolist() == [10, 20, 220] and pixels[:, 199, 255].tolist() == [220, 20, 10]
    assert not pixels[:, 200:].any()
    assert boxes.tolist() == [[12, 40, 36, 80]] and labels.tolist() == [0]
    # Rows 40 to 80 and columns 12 to 36 fill half or more of these cells of 16 pixels, a quarter of those beside them.
    assert [tuple(place) for place in (cells == 0).nonzero().tolist()] == [(2, 1), (3, 1), (4, 1)]
    assert cells.shape == (16, 16) and (cells[cells != 0] == detector.BACKGROUND).all()


def a_batch(seed: int = 0, number: int = 0, **arguments: int) -> list[Tensor]:
    """Of five batches the fifth, number 4, is of whole scenes."""
    batch = next(itertools.islice(SegmenterExamples(seed, **arguments), number, None))
    return [torch.from_numpy(array) for array in batch]


def test_the_segmenter_learns_from_prompts_that_belong_to_their_targets(one_scene: Scene) -> None:
    examples = SegmenterExamples(0, batch=6, prompts=5)
    seen, second_labels, places = set(), set(), set()
    for number, batch in enumerate(itertools.islice(examples, 10)):
        pixels, targets, boxes, points, labels, facts, place = batch
        images, size = (3, 256) if number % 5 == 4 else (6, 128)
        assert pixels.shape == (images, 3, size, size) and pixels.dtype == np.uint8
        assert targets.shape == (images, 5, size // 2, size // 2) and targets.dtype == np.float16
        assert boxes.shape == (images, 5, 4) and points.shape == (images, 5, 2, 2) and labels.shape == (images, 5, 2)
        assert facts.shape == (images, 7, size // 2, size // 2) and facts.dtype == np.float16
        assert ((place % 8 == 0) & (place >= 0) & (8 * place + size <= 256)).all()
        places.add(tuple(place))
        corner = 8 * place[::-1]
        # Where the scene is red above and blue below, nothing of it is black.
        colors = {tuple(color) for color in pixels.transpose(0, 2, 3, 1).reshape(-1, 3) if color.any()}
        assert max(color[0] for color in colors) > 200 and all(color[0] > 9 for color in colors) or size == 128
        for image, target, box, points_xy, point_labels in zip(
            *(array.reshape(-1, *array.shape[2:]) for array in (np.repeat(pixels[:, None], 5, 1), targets, boxes)),
            points.reshape(-1, 2, 2) - corner, labels.reshape(-1, 2), strict=True,
        ):  # fmt: skip
            rows, columns = (np.flatnonzero((target > 0.5).any(axis)) for axis in (1, 0))
            tight = 2 * np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
            assert np.abs(box - np.tile(corner, 2) - tight).max() <= 14  # only shaken a little
            for (x, y), label in zip(points_xy.astype(int), point_labels, strict=True):
                assert label in (1, 0, -1)
                if label >= 0:
                    assert (target[y // 2, x // 2] > 0) if label == 1 else (target[y // 2, x // 2] < 1)
            assert point_labels[0] == 1
            x, y = points_xy[0].astype(int)
            seen.add("red" if image[0, y, x] > image[2, y, x] else "blue")
            second_labels.add(int(point_labels[1]))
    assert seen == {"red", "blue"} and second_labels == {1, 0, -1} and len(places) > 3


def test_a_whole_scene_is_learnt_from_as_it_is(one_scene: Scene) -> None:
    pixels, targets, _, _, _, facts, place = a_batch(batch=2, number=4)
    np.testing.assert_array_equal(pixels[0, :, :200], one_scene.image.transpose(2, 0, 1))
    assert not pixels[:, :, 200:].any() and place.tolist() == [0, 0]
    wanted = one_scene.masks.reshape(2, 100, 2, 128, 2).mean((2, 4))
    for target in targets[0].numpy():
        assert any(np.array_equal(target[:100], cover) for cover in wanted) and not target[100:].any()
    thing, edge, left, upper, right, lower, owned = facts[0].float()
    np.testing.assert_array_equal(thing[:100], wanted.sum(0))
    assert torch.equal(owned, (thing > 0.5).float())
    # The first thing covers columns 12 to 36 and rows 40 to 80 in pixels; of its cell at (15, 51) these are:
    row, column = 51 // 2, 15 // 2
    assert [side[row, column].item() * 64 for side in (left, upper, right, lower)] == [3, 11, 21, 29]
    assert edge[row, 12 // 2] == edge[row, 12 // 2 - 1] == 1 and edge[row, 12 // 2 + 1] == edge[row, 0] == 0


def test_the_detector_is_not_asked_for_what_is_hardly_in_view(one_scene: Scene) -> None:
    """The can fills a close-up or is cut off; either way its box is that of the pixels that show it."""
    one_scene.image[:] = (90, 90, 90)
    one_scene.image[one_scene.masks[0]] = (250, 250, 250)
    whole_area, asked = one_scene.masks[0].sum(), set()
    for seed in range(8):
        for pixels, boxes, labels, cells in next(iter(detector.DetectorExamples(seed, batch=4))):
            assert pixels.shape == (3, 128, 128) and cells.shape == (8, 8)
            bright = pixels.float().mean(0) > 170
            asked.add(len(boxes))
            if len(boxes):
                rows, columns = bright.any(1).nonzero(), bright.any(0).nonzero()
                tight = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
                assert (boxes[0] - torch.tensor(tight)).abs().max() <= 1 and labels.tolist() == [0]
                assert (cells == 0).any()
            else:
                assert bright.sum() < 0.5 * whole_area and (cells == detector.BACKGROUND).all()
    assert asked == {0, 1}


def test_close_ups_for_the_detector_are_nearly_always_of_containers(one_scene: Scene) -> None:
    rng = np.random.default_rng(0)
    counts = []
    for take in (views.close_up, views.container_close_up):
        counts.append(sum((take(rng, one_scene).labels == CLASS_NAMES.index("can")).any() for _ in range(60)))
    assert counts[0] < 45 < counts[1]
    clutter = Scene(one_scene.image, one_scene.masks[1:], one_scene.boxes_xyxy[1:], one_scene.labels[1:])
    assert (views.container_close_up(rng, clutter).labels == CLUTTER).all()


def test_the_detectors_last_stretch_shows_whole_scenes_only(one_scene: Scene) -> None:
    stretch = detector.DetectorExamples(0, 4, views.whole)
    sizes = {pixels.shape[-1] for batch in itertools.islice(stretch, 6) for pixels, *_ in batch}
    assert sizes == {views.WHOLE_SIZE}


def test_close_ups_are_cut_where_their_masks_are(one_scene: Scene) -> None:
    """Both things differ from what is around them in this scene, so that masks can be told from pixels."""
    one_scene.image[:] = (90, 90, 90)
    one_scene.image[one_scene.masks.any(0)] = (250, 250, 250)
    for seed in range(5):
        pixels, _, _, _, _, facts, _ = a_batch(seed, batch=4)
        bright = pixels.float().mean(1)[:, ::2, ::2]
        sure = (facts[:, 1] == 0) & (bright > 0)  # edges are mixed, and black is outside
        agrees = (bright > 170) == (facts[:, 0] > 0.5)
        assert agrees[sure].float().mean() > 0.995 and sure.float().mean() > 0.5


def test_training_sees_pictures_as_serving_does(tmp_path: Path) -> None:
    scene = render_scene(np.random.default_rng(2), (256, 192))
    image = np.maximum(scene.image, 1)  # exact black is what stands for padding
    padded = np.zeros((3, 256, 256), np.uint8)
    padded[:, :, :192] = image.transpose(2, 0, 1)
    loaded = Sam(segmenter.new_model(segmenter.small_config(32, 4, 16)))
    normalized = segmenter.normalize(torch.from_numpy(padded)[None])[0]
    torch.testing.assert_close(normalized, loaded.pixels([loaded.preprocess(image)])[0], rtol=0, atol=1e-5)


# --- losses and files --------------------------------------------------------------------------------


@pytest.fixture
def no_cutouts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scenes, "system_cutouts", lambda: ())


def assert_learns(model: nn.Module, total: Tensor, unused: tuple[str, ...] = ()) -> None:
    """Every parameter that learns gets a finite gradient, and nearly every one a gradient that moves it."""
    assert total.ndim == 0 and torch.isfinite(total)
    total.backward()
    learnt = {name: p.grad for name, p in model.named_parameters() if p.requires_grad and not name.startswith(unused)}
    without = [name for name, gradient in learnt.items() if gradient is None]
    assert not without
    assert all(torch.isfinite(gradient).all() for gradient in learnt.values())
    assert np.mean([bool(gradient.any()) for gradient in learnt.values()]) > 0.9


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("number", [0, 4])
def test_the_segmenters_loss_reaches_all_of_it(no_cutouts: None, together: bool, number: int) -> None:
    model = segmenter.new_model(segmenter.small_config(32, 4, 16))
    total, figures = segmenter.training_loss(model, a_batch(batch=2, prompts=3, number=number), together=together)
    unused = ("prompt_encoder.mask_embed",) + (("prompt_encoder.not_a_point_embed",) if together else ())
    assert_learns(model, total, unused)
    assert set(figures) == {"box", "point", "facts"} and 0 <= figures["box"] <= 1 and 0 <= figures["point"] <= 1


def test_a_whole_image_is_seen_in_training_as_the_model_sees_it() -> None:
    model = segmenter.new_model(segmenter.small_config(32, 4, 16)).eval()
    images = torch.randint(1, 256, (1, 3, 256, 256), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = model.vision_encoder(segmenter.normalize(images)).last_hidden_state
        torch.testing.assert_close(segmenter.image_features(model, images, WHOLE), expected)


def test_a_new_segmenter_tells_pictures_apart(no_cutouts: None) -> None:
    """Hugging Face's own start, deviations of 1e-10, has every picture look the same, and hardly ever learns."""
    model = segmenter.new_model(segmenter.small_config())
    batch = a_batch(batch=4, number=4)
    with torch.no_grad():
        features = segmenter.image_features(model, batch[0], WHOLE)
    assert (features[0] - features[1]).std() > 0.1
    assert min(p.std() for name, p in model.vision_encoder.named_parameters() if name.endswith("lin1.weight")) > 0.01


def test_the_cells_facts_are_told_best_by_themselves(one_scene: Scene) -> None:
    facts = a_batch(batch=2, number=4)[5].float()
    told = facts[:, :6].clone()
    told[:, :2] = told[:, :2].sub(0.5).sign() * 20
    features = torch.nn.functional.pixel_unshuffle(told, 4)
    model = SimpleNamespace(cells=lambda x: x)
    whole = (facts[:, 0] == 0) | (facts[:, 0] == 1)
    assert whole.all()
    assert segmenter.facts_loss(model, features, facts) < 0.01
    for fact in range(6):
        wrong = told.clone()
        wrong[:, fact] = -wrong[:, fact]
        worse = segmenter.facts_loss(model, torch.nn.functional.pixel_unshuffle(wrong, 4), facts)
        assert worse > 0.01


def test_the_segmenters_loss_is_least_for_the_truth() -> None:
    targets = torch.zeros(2, 8, 8)
    targets[0, 2:6, 1:4] = targets[1, :, 5:] = 1
    truth = (targets * 2 - 1) * 20
    assert segmenter.mask_losses(truth, targets).max() < 0.01
    assert segmenter.mask_losses(-truth, targets).min() > 1
    assert segmenter.hard_iou(truth, targets).tolist() == [1, 1]
    assert segmenter.hard_iou(-truth, targets).tolist() == [0, 0]
    assert segmenter.hard_iou(torch.ones(8, 8), targets[0]).item() == pytest.approx(12 / 64)
    assert segmenter.hard_iou(-torch.ones(8, 8), torch.zeros(8, 8)).item() == 0


@pytest.mark.parametrize("step", [0, 1, 2])
def test_of_masks_as_prompts_only_their_embedding_learns(no_cutouts: None, step: int) -> None:
    model = mask_prompts.begin(segmenter.new_model(segmenter.small_config(32, 4, 16), seed=3))
    encoder = model.prompt_encoder
    seen = encoder.mask_embed(torch.randn(1, 1, 128, 128) * 10)
    assert (seen - encoder.no_mask_embed.weight[0, :, None, None]).abs().max() < 0.3  # at first it is nearly no mask

    batch = a_batch(batch=1, prompts=2)
    loss, figures = mask_prompts.refinement_loss(model, batch, step)
    assert set(figures) == {"before", "round 1", "round 2"} and all(0 <= one <= 1 for one in figures.values())
    loss.backward()
    moved = {name for name, one in model.named_parameters() if one.grad is not None and one.grad.abs().max() > 0}
    assert moved == {name for name, _ in model.named_parameters() if name.startswith("prompt_encoder.mask_embed.")}


def test_a_click_on_what_is_wrong_is_where_it_is_and_has_its_label() -> None:
    truth = torch.zeros(2, 16, 16)
    truth[:, 4:12, 4:8] = 1
    logits = torch.full((2, 16, 16), -5.0)
    logits[0, 4:12, 4:6] = 5  # the right half is missing
    logits[1, 4:12, 4:12] = 5  # as much again is too much
    clicks, labels = mask_prompts._clicks(np.random.default_rng(0), logits, truth)
    cells = (clicks[:, 0] / 2).int().tolist()
    assert labels.tolist() == [[1], [0]]
    assert cells[0][0] in (6, 7) and cells[1][0] in range(8, 12) and all(4 <= y < 12 for _, y in cells)


def test_a_saved_segmenter_is_one_that_loads(tmp_path: Path) -> None:
    model = segmenter.new_model(segmenter.small_config(32, 4, 16), seed=3)
    segmenter.save(model, tmp_path)
    image = render_scene(np.random.default_rng(0), (120, 200)).image
    prompts = Prompts(boxes_xyxy=np.array([[20.0, 30.0, 90.0, 100.0]]))
    outputs = []
    for loaded in (Sam.load(tmp_path), Sam(model.half().float())):
        (embedding,) = loaded.embed([loaded.preprocess(image)])
        outputs.append(loaded.decode(embedding, prompts, multimask=True))
    torch.testing.assert_close(outputs[0].logits, outputs[1].logits, rtol=0, atol=1e-5)


@pytest.mark.filterwarnings("ignore")  # mmdet's own
def test_the_detectors_loss_reaches_all_of_it_and_what_is_saved_loads(no_cutouts: None, tmp_path: Path) -> None:
    model = detector.new_model(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):  # new residual blocks pass nothing on, nor gradients back
            nn.init.ones_(module.weight)
    total, figures = detector.detection_loss(model, next(iter(detector.DetectorExamples(0, batch=2))))
    assert_learns(model, total)
    assert set(figures) == {"loss_cls", "loss_bbox", "loss_cells"} and all(map(torch.isfinite, figures.values()))

    detector.save(model, tmp_path)
    loaded = MMDetector.load(tmp_path, fast=False)
    assert tuple(loaded.class_names) == CLASS_NAMES
    state = loaded._model.state_dict()
    trained = {name: tensor for name, tensor in model.state_dict().items() if name.partition(".")[0] != "cells"}
    assert trained.keys() == state.keys()
    assert all(torch.equal(state[name], tensor.half().to(tensor.dtype)) for name, tensor in trained.items())
    again = detector.start_from(detector.new_model(1), tmp_path).state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in state.items())


@pytest.mark.filterwarnings("ignore")  # mmdet's own
@pytest.mark.parametrize(("trainer", "model"), [(segmenter, Sam), (detector, MMDetector)])
def test_one_step_by_the_command_line(
    no_cutouts: None, tmp_path: Path, trainer: Any, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, minutes = tmp_path / "out", 1.5 / 60
    monkeypatch.setattr(training, "time", ticking_clock())
    monkeypatch.setattr(sys, "argv", ["train", str(out), "--minutes", str(minutes), "--batch", "2", "--seed", "5"])
    trainer.main()
    assert torch.load(out / "training.pt", weights_only=True)["step"] == 1
    model.load(out)
