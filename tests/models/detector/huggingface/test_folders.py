"""A Hugging Face detector's folder: weights of every form, backbones of timm's, and what may be wrong with it."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from models.checkpoints import CheckpointError, ModelFilesError
from models.detector.files import DetectorFiles
from models.detector.huggingface import network
from models.detector.huggingface.detector import HuggingFaceDetector
from models.detector.huggingface.timm_resnet import as_transformers, renamed
from tests.models.detector.huggingface import tiny_detectors

FolderOf = Callable[[str], Path]


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise AssertionError(f"a connection to {args[1:]}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def change(path: Path, **values: Any) -> None:
    """Set values of a JSON file; None takes one out."""
    content = json.loads(path.read_text()) | values
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def scores(folder: Path, picture: Callable[..., np.ndarray]) -> list[float]:
    (found,) = HuggingFaceDetector.load(folder).detect([picture(50, 70)], score_threshold=0.0)
    return found.scores.tolist()


def as_bin(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def as_shards(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    names = {key: f"model-0000{1 + index % 2}-of-00002.safetensors" for index, key in enumerate(sorted(weights))}
    for name in set(names.values()):
        save_file({key: weights[key] for key in weights if names[key] == name}, folder / name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    (folder / "model.safetensors").unlink()


def as_parallel(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    torch.save({"state_dict": {f"module.{key}": value for key, value in weights.items()}}, folder / "last.pth")
    (folder / "model.safetensors").unlink()


def as_nested_processor(folder: Path) -> None:
    content = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "processor_config.json").write_text(json.dumps({"image_processor": content}))
    (folder / "preprocessor_config.json").unlink()


def as_older_processor(folder: Path) -> None:
    path = folder / "preprocessor_config.json"
    name = json.loads(path.read_text())["image_processor_type"].removesuffix("Pil")
    change(path, image_processor_type=f"{name}Fast", processor_class="SomeProcessor")


def as_without_processor_type(folder: Path) -> None:
    change(folder / "preprocessor_config.json", image_processor_type=None)


@pytest.mark.parametrize("kind", ["rt_detr_v2", "detr", "d_fine", "rf_detr"])
@pytest.mark.parametrize(
    "form", [as_bin, as_shards, as_parallel, as_nested_processor, as_older_processor, as_without_processor_type]
)
def test_every_form_of_a_folder_gives_the_same(
    kind: str,
    form: Callable[[Path], None],
    folder_of: FolderOf,
    copy_of: FolderOf,
    picture: Callable[..., np.ndarray],
    caplog: pytest.LogCaptureFixture,
) -> None:
    if kind in ("rt_detr_v2", "d_fine") and form is as_without_processor_type:
        pytest.skip("transformers knows no image processor of the model's own")
    folder = copy_of(kind)
    form(folder)
    expected = scores(folder_of(kind), picture)
    assert scores(folder, picture) == pytest.approx(expected, abs=1e-5)
    if form in (as_bin, as_shards):
        (weights,) = {*folder.glob("*.bin"), *folder.glob("*.index.json")}
        assert scores(weights, picture) == pytest.approx(expected, abs=1e-5)
        assert weights.name in HuggingFaceDetector.files(folder)


def test_weights_of_other_numbers_become_float32(copy_of: FolderOf, picture: Callable[..., np.ndarray]) -> None:
    folder = copy_of("rt_detr")
    expected = scores(folder, picture)
    weights = load_file(folder / "model.safetensors")
    half = {key: value.bfloat16() if value.is_floating_point() else value for key, value in weights.items()}
    save_file(half, folder / "model.safetensors")
    change(folder / "config.json", dtype="bfloat16")
    detector = HuggingFaceDetector.load(folder)
    assert detector.dtype == torch.float32
    assert {parameter.dtype for parameter in detector._network.parameters()} == {torch.float32}
    assert scores(folder, picture) == pytest.approx(expected, abs=0.1)


def test_training_says_that_it_takes_none_of_them(folder_of: FolderOf) -> None:
    with pytest.raises(ModelFilesError, match="This is one of Hugging Face's detectors, which are served, but not tr"):
        DetectorFiles.find(folder_of("rt_detr"))


# timm's names of a ResNet's layers, written out; the backbone of DETR's published folders.
TIMM = {
    "embedder.embedder.convolution.": "conv1.",
    "embedder.embedder.normalization.": "bn1.",
    **{
        f"encoder.stages.{stage}.layers.{block}.{ours}": f"layer{stage + 1}.{block}.{theirs}"
        for stage in range(4)
        for block in range(3)
        for ours, theirs in {
            "layer.0.convolution.": "conv1.", "layer.0.normalization.": "bn1.", "layer.1.convolution.": "conv2.",
            "layer.1.normalization.": "bn2.", "layer.2.convolution.": "conv3.", "layer.2.normalization.": "bn3.",
            "shortcut.convolution.": "downsample.0.", "shortcut.normalization.": "downsample.1.",
        }.items()
    },
}  # fmt: skip


@pytest.mark.parametrize("kind", ["detr", "conditional_detr", "deformable_detr"])
def test_a_resnet_of_timms_needs_no_timm(kind: str, tmp_path: Path, picture: Callable[..., np.ndarray]) -> None:
    resnet = as_transformers({"backbone": "resnet18", "out_indices": [1, 2, 3, 4]})
    assert resnet is not None
    stages = resnet["out_features"][1:] if kind == "deformable_detr" else resnet["out_features"]
    folder = tmp_path / "ours"
    tiny_detectors.build(kind, backbone_config=resnet | {"out_features": stages}).save_pretrained(folder)
    tiny_detectors.processor(kind).save_pretrained(folder)
    expected = scores(folder, picture)
    # As they are published: the backbone by its name, and the weights by timm's.
    change(folder / "config.json", backbone_config=None, backbone="resnet18", use_timm_backbone=True)
    weights = load_file(folder / "model.safetensors")
    theirs = {}
    for key, value in weights.items():
        start, found, name = key.partition("backbone.conv_encoder.model.")
        for ours, timms in TIMM.items():
            if found and name.startswith(ours):
                name = timms + name.removeprefix(ours)
                break
        theirs[start + found + name] = value
    assert sum(key.endswith("model.layer1.0.conv1.weight") for key in theirs) == 1
    save_file(theirs, folder / "model.safetensors")
    assert scores(folder, picture) == pytest.approx(expected, abs=1e-5)
    # As transformers 5 writes them.
    again = {"model_type": "timm_backbone", "backbone": "resnet18.tv_in1k", "use_pretrained_backbone": True}
    indices = [2, 3, 4] if kind == "deformable_detr" else [1, 2, 3, 4]
    change(folder / "config.json", backbone=None, backbone_config=again | {"out_indices": indices})
    assert scores(folder, picture) == pytest.approx(expected, abs=1e-5)


def test_other_names_are_left_alone() -> None:
    kept = {"model.decoder.layer1.0.conv1.weight", "model.backbone.model.layer1.0.fancy1.weight", "conv1.weight"}
    assert set(renamed(dict.fromkeys(kept, torch.zeros(1)))) == kept


def test_a_backbone_that_is_elsewhere_is_told(copy_of: FolderOf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "find_spec", lambda name: None)
    path = copy_of("detr") / "config.json"
    change(path, backbone_config=None, backbone="microsoft/resnet-50", use_timm_backbone=False)
    with pytest.raises(ModelFilesError, match=r"config\.json: its backbone is 'microsoft/resnet-50', of another repo"):
        HuggingFaceDetector.load(path.parent)
    for other in ({"backbone": "swin_tiny"}, {"backbone": "resnet50", "dilation": True}):
        change(path, use_timm_backbone=True, **other)
        with pytest.raises(
            ModelFilesError, match="of timm, and there is no timm here: install it by `pip install timm`"
        ):
            HuggingFaceDetector.load(path.parent)


def without(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def with_config(**values: Any) -> Callable[[Path], None]:
    return lambda folder: change(folder / "config.json", **values)


def with_processor(**values: Any) -> Callable[[Path], None]:
    return lambda folder: change(folder / "preprocessor_config.json", **values)


def with_text(name: str, text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(text)


def with_weights(edit: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def act(folder: Path) -> None:
        weights = load_file(folder / "model.safetensors")
        edit(weights)
        save_file(weights, folder / "model.safetensors")

    return act


def cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("kind", "spoil", "message"),
    [
        ("detr", without("preprocessor_config.json"), "expected a preprocessor_config.json"),
        ("detr", with_text("preprocessor_config.json", "{"), r"preprocessor_config.json is not JSON"),
        ("detr", with_processor(size={"banana": 3}), r"preprocessor_config\.json: no image can be prepared by it: "),
        ("detr", with_processor(image_mean="red"), r"preprocessor_config\.json: no image can be prepared by it: "),
        ("detr", with_processor(image_std=[0, 0, 0]), "expected values by which an image becomes numbers"),
        (
            "detr",
            with_processor(image_processor_type="ViTImageProcessor"),
            "image_processor_type: expected the image processor of a",
        ),
        ("detr", with_processor(image_processor_type=7), "expected the image processor of a detector, got 7"),
        ("owlv2", with_processor(size={"height": 96, "width": 96}), "size: expected 64 x 64 pixels, .*, got 96 x 96"),
        (
            "d_fine",
            with_processor(size={"height": 50, "width": 64}),
            "sides that are multiples of 32 pixels, .* 64 x 50",
        ),
        ("rt_detr", with_processor(size={"shortest_edge": 64, "longest_edge": 96}), "got sizes in proportion to the"),
        (
            "lw_detr",
            with_processor(size={"height": 64, "width": 80}),
            "sides that are multiples of 32 pixels, .* 80 x 64",
        ),
        ("detr", with_text("config.json", "[1]"), "expected a JSON object, got list"),
        ("detr", with_config(model_type="clip"), r"looked for a config.json whose model_type is one of .*'clip'"),
        ("detr", with_config(d_model="wide"), r"config\.json: cannot build the model \(detr\): "),
        ("detr", with_config(d_model=48), r"\d+ of another shape: bbox_predictor"),
        ("detr", with_config(backbone_config={"model_type": "none_such"}), r"cannot build the model \(detr\): "),
        ("detr", with_config(backbone_config=[1]), r"config\.json: backbone_config: expected a JSON object, got list"),
        ("detr", with_config(id2label={"0": "can", "2": "carton"}), "id2label: expected a name for each of 0, 1, …"),
        ("detr", with_config(id2label={"0": "can", "1": 3}), "id2label: expected a name for each of 0, 1, …"),
        ("detr", with_config(id2label={"x": "can"}), r"cannot build the model \(detr\): "),
        ("detr", with_config(id2label={"0": "can"}), r"of another shape: .*\(checkpoint \(4, 64\), model \(2, 64\)\)"),
        ("detr", with_config(quantization_config={"load_in_8bit": True}), "its weights are quantised"),
        ("rt_detr_v2", with_config(decoder_layers=3), "does not fit the model: .* missing: "),
        ("detr", with_config(decoder_layers=1), "does not fit the model: .* unexpected: "),
        ("detr", without("model.safetensors"), "looked for model.safetensors, "),
        ("detr", cut, "is not a safetensors file, or is truncated"),
        (
            "detr",
            with_weights(lambda w: w.pop("bbox_predictor.layers.1.bias")),
            "1 missing: bbox_predictor.layers.1.bias",
        ),
        ("detr", with_weights(lambda w: w.update(more=torch.ones(1))), "1 unexpected: more"),
        ("owlv2", without("tokenizer.json"), "expected the tokenizer by which it reads texts"),
        ("owlv2", with_text("tokenizer.json", "{}"), r"its tokenizer \(.*\) cannot be read: "),
        ("grounding-dino", with_text("tokenizer.json", "x"), r"its tokenizer \(.*\) cannot be read: "),
    ],
)
def test_what_is_wrong_is_told_in_a_sentence(
    kind: str, spoil: Callable[[Path], object], message: str, copy_of: FolderOf
) -> None:
    folder = copy_of(kind)
    spoil(folder)
    with pytest.raises(ModelFilesError) as raised:
        HuggingFaceDetector.load(folder)
    assert re.search(message, str(raised.value)), str(raised.value)
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 1200


def test_a_pickle_that_brings_code_is_refused(copy_of: FolderOf, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return open, (str(tmp_path / "proof"), "w")

    folder = copy_of("yolos")
    (folder / "model.safetensors").unlink()
    torch.save({"evil": Evil()}, folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError):
        HuggingFaceDetector.load(folder)
    assert not (tmp_path / "proof").exists()


def test_weights_of_another_model_are_named(copy_of: FolderOf, folder_of: FolderOf) -> None:
    folder = copy_of("yolos")
    (folder / "model.safetensors").write_bytes((folder_of("rt_detr") / "model.safetensors").read_bytes())
    with pytest.raises(CheckpointError, match="these are the weights of a detector of Hugging Face: name its folder"):
        HuggingFaceDetector.load(folder)
