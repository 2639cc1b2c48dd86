"""Checkpoints as trainers, wrappers and downloads leave them, and the reading that is expected of each."""

from __future__ import annotations

import argparse
import collections
import datetime
import io
import json
import logging
import os
import pathlib
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from models.checkpoints import CheckpointError, ModelFilesError, load_state_dict
from models.detector.mmdetection import MMDetector
from models.finetuning.start import Start
from models.model_errors import say_once
from models.segmenter.sam import Sam
from models.wrappers import unwrapped
from tests.models.tiny_config import tiny_config
from tests.strangers.tiny_models import (
    StateDict,
    detector_weights,
    sam_weights,
    write_sam_configs,
)

pytestmark = pytest.mark.filterwarnings("ignore")  # mmdet's own


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, StateDict]:
    return {"detector": detector_weights(tmp_path_factory.mktemp("config")), "sam": sam_weights()}


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    say_once.cache_clear()
    caplog.set_level(logging.WARNING, logger="box2mask")
    return lambda: [record.getMessage() for record in caplog.records if record.name == "box2mask"]


def write(folder: Path, kind: str, content: object, name: str = "weights.pth") -> Path:
    """A model's folder with its config and this checkpoint."""
    if kind == "sam":
        write_sam_configs(folder)
    else:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.py").write_text(tiny_config())
    path = folder / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif name.endswith(".safetensors"):
        save_file({key: tensor.clone() for key, tensor in content.items()}, path)  # type: ignore[attr-defined]
    else:
        torch.save(content, path)
    return folder


def loaded(folder: Path, kind: str) -> StateDict:
    model = Sam.load(folder, fast=False) if kind == "sam" else MMDetector.load(folder, fast=False)
    return model._model.state_dict()


def read(folder: Path, own: StateDict) -> StateDict:
    """As every model reads its checkpoint, without the seconds that building the model takes."""
    (path,) = (path for path in folder.iterdir() if path.suffix in (".pth", ".safetensors"))
    return unwrapped(load_state_dict(path)[0], own.keys(), path, say_once)


def assert_same(found: StateDict, expected: StateDict) -> None:
    assert found.keys() == expected.keys()
    assert [key for key in expected if not torch.equal(found[key], expected[key])] == []


def optimizer() -> dict[str, Any]:
    layer = nn.Linear(2, 2)
    stepped = torch.optim.AdamW(layer.parameters())
    layer(torch.ones(1, 2)).sum().backward()
    stepped.step()
    return stepped.state_dict()


# --- what wraps a network's keys -----------------------------------------------------------------------

PREFIXES = {
    "DataParallel": "module.",
    "torch.compile": "_orig_mod.",
    "torch.compile of DataParallel": "_orig_mod.module.",
    "DataParallel of torch.compile": "module._orig_mod.",
    "a trainer's model": "model.",
    "a Lightning module's detector": "detector.",
    "FSDP": "_fsdp_wrapped_module.",
    "several": "model.net.module._orig_mod.module.",
    "twice": "model.model.",
}


@pytest.mark.parametrize("kind", ["detector", "sam"])
@pytest.mark.parametrize("name", PREFIXES)
def test_prefixes(tmp_path: Path, weights: dict[str, StateDict], said: Any, kind: str, name: str) -> None:
    wrapped = {PREFIXES[name] + key: tensor for key, tensor in weights[kind].items()}
    suffix = "safetensors" if len(name) % 2 else "pth"
    assert_same(read(write(tmp_path, kind, wrapped, f"model.{suffix}"), weights[kind]), weights[kind])
    (line,) = said()
    assert "its keys are those of a wrapper" in line and repr(PREFIXES[name])[1:-1] in line


@pytest.mark.parametrize("inner", ["_orig_mod", "module", "_checkpoint_wrapped_module"])
def test_a_part_that_is_wrapped(tmp_path: Path, weights: dict[str, StateDict], said: Any, inner: str) -> None:
    own = weights["detector"]
    wrapped = {key.replace("backbone.layer1.", f"backbone.layer1.{inner}."): tensor for key, tensor in own.items()}
    assert wrapped.keys() != own.keys()
    assert_same(read(write(tmp_path, "detector", wrapped), own), own)
    assert len(said()) == 1


def test_it_is_said_once(tmp_path: Path, weights: dict[str, StateDict], said: Any) -> None:
    folder = write(tmp_path, "detector", {f"module.{key}": value for key, value in weights["detector"].items()})
    for _device in range(3):
        MMDetector.load(folder)
    assert len(said()) == 1


def test_own_keys_are_left_alone(tmp_path: Path, weights: dict[str, StateDict], said: Any) -> None:
    for kind, own in weights.items():
        assert_same(loaded(write(tmp_path / kind, kind, own), kind), own)
    assert said() == []


def test_a_network_whose_own_part_is_called_module() -> None:
    own = {"module.weight": torch.ones(1), "bias": torch.ones(1)}
    lines: list[str] = []
    assert unwrapped(dict(own), own, "a.pth", lines.append) == own and lines == []
    assert unwrapped({f"model.{key}": value for key, value in own.items()}, own, "a.pth", lines.append) == own


# --- what trainers put around a state dict --------------------------------------------------------------


def lightning(own: StateDict) -> dict[str, Any]:
    return {
        "epoch": 3,
        "global_step": 120,
        "pytorch-lightning_version": "2.4.0",
        "state_dict": {**{f"model.{key}": value for key, value in own.items()}, "criterion.weight": torch.ones(4)},
        "loops": {"fit_loop": {"state_dict": {}}},
        "callbacks": {"ModelCheckpoint": {"best_model_score": torch.tensor(0.5), "best_model_path": "a.ckpt"}},
        "optimizer_states": [optimizer()],
        "lr_schedulers": [],
        "hyper_parameters": {"lr": 0.1, "out": pathlib.PurePosixPath("runs"), "args": argparse.Namespace(lr=0.1)},
    }


def as_averaged(own: StateDict) -> StateDict:
    return {key: value + 1 if value.is_floating_point() else value for key, value in own.items()}


NESTED: dict[str, Callable[[StateDict], dict[str, Any]]] = {
    "a bare state dict": dict,
    "an OrderedDict": collections.OrderedDict,
    "MMDetection": lambda own: {"meta": {"epoch": 1}, "state_dict": own, "optimizer": optimizer()},
    "PyTorch's tutorial": lambda own: {"epoch": 1, "model_state_dict": own, "optimizer_state_dict": optimizer()},
    "DETR": lambda own: {"model": own, "optimizer": optimizer(), "args": argparse.Namespace(lr=0.1), "epoch": 1},
    "a defaultdict beside it": lambda own: {"net": own, "counts": collections.defaultdict(int, a=1)},
    "two dicts deep": lambda own: {"model": {"state_dict": own}, "epoch": 1},
    "a name of its own": lambda own: {"detector": own, "epoch": 1, "best": torch.tensor(0.5)},
    "Lightning": lightning,
    "mmengine's EMA": lambda own: {
        "state_dict": own,
        "ema_state_dict": {f"module.{key}": value for key, value in as_averaged(own).items()}
        | {"steps": torch.tensor(9)},
    },
    "mmcv 1's EMA": lambda own: {
        "state_dict": {
            **own, **{f"ema_{key.replace('.', '_')}": value for key, value in as_averaged(own).items()},
        }
    },
    "timm": lambda own: {"state_dict": own, "state_dict_ema": as_averaged(own), "arch": "yolof"},
    "a model and its EMA": lambda own: {"model": own, "ema": {"module": as_averaged(own), "updates": 3}},
    "an EMA by prefix": lambda own: {
        **{f"model.{key}": value for key, value in own.items()},
        **{f"model_ema.{key}": value for key, value in as_averaged(own).items()},
    },
    "an EMA within a module": lambda own: {
        **{f"net.student.{key}": value for key, value in own.items()},
        **{f"net.ema.{key}": value for key, value in as_averaged(own).items()},
    },
    "the EMA alone": lambda own: {"ema": {"module": own, "updates": 3}},
    "averaged alone": lambda own: {
        "n_averaged": torch.tensor(3), **{f"module.{key}": value for key, value in own.items()},
    },
    "parameters": lambda own: {
        key: nn.Parameter(value) if value.is_floating_point() else value for key, value in own.items()
    },
    "numbers beside it": lambda own: {**own, "epoch": 3, "name": "yolof"},
}  # fmt: skip
SAYS_NOTHING = {
    "a bare state dict", "an OrderedDict", "MMDetection", "PyTorch's tutorial", "DETR", "two dicts deep",
    "a defaultdict beside it", "a name of its own", "the EMA alone", "parameters",
}  # fmt: skip


@pytest.mark.parametrize("kind", ["detector", "sam"])
@pytest.mark.parametrize("name", NESTED)
def test_what_is_around_a_state_dict(
    tmp_path: Path, weights: dict[str, StateDict], said: Any, kind: str, name: str
) -> None:
    folder = write(tmp_path, kind, NESTED[name](weights[kind]))
    assert_same(read(folder, weights[kind]), weights[kind])
    lines = " ".join(said())
    assert (lines == "") == (name in SAYS_NOTHING), lines
    if "EMA" in name and lines:
        assert "passed over" in lines and "ema" in lines


@pytest.mark.parametrize("kind", ["detector", "sam"])
@pytest.mark.parametrize("name", ["Lightning", "mmcv 1's EMA"])
def test_models_are_loaded_of_it(tmp_path: Path, weights: dict[str, StateDict], kind: str, name: str) -> None:
    assert_same(loaded(write(tmp_path, kind, NESTED[name](weights[kind])), kind), weights[kind])


def test_finetuning_reads_the_same_and_says_it(tmp_path: Path, weights: dict[str, StateDict]) -> None:
    own = weights["detector"]
    start = Start.read(write(tmp_path, "detector", NESTED["an EMA by prefix"](own)))
    assert start.state_dict is not None
    assert_same(start.state_dict, own)
    lines: list[str] = []
    names = start.class_names
    assert names is not None
    start.model_for(names, start.config_for(names), lines.append, seed=0)
    assert any("averaged" in line for line in lines) and any("a wrapper" in line for line in lines)


@pytest.mark.parametrize("prefix", ["", "module.", "model.encoder.", "module.backbone."])
def test_finetuning_takes_a_wrapped_backbone(tmp_path: Path, weights: dict[str, StateDict], prefix: str) -> None:
    own = {key: value for key, value in weights["detector"].items() if key.startswith("backbone.")}
    alone = {prefix + key.removeprefix("backbone."): value for key, value in own.items()}
    start = Start.read(write(tmp_path, "detector", alone), "backbone")
    assert start.state_dict is not None
    assert_same(start.state_dict, own)


TWO = {
    "student and teacher": (
        lambda own: {f"{name}.{key}": value for name in ("student", "teacher") for key, value in own.items()},
        r"holds the model 2 times, under 'student\.', 'teacher\.'.*startswith\('student\.'\)",
    ),
    "two networks": (
        lambda own: {"generator": own, "discriminator": {"weight": torch.ones(1)}},
        r"expected the weights of one network, found 2: generator, discriminator.*\['generator'\]",
    ),
}


@pytest.mark.parametrize("name", TWO)
def test_two_readings_are_asked_about(tmp_path: Path, weights: dict[str, StateDict], name: str) -> None:
    content, message = TWO[name]
    with pytest.raises(CheckpointError, match=message):
        loaded(write(tmp_path, "detector", content(weights["detector"])), "detector")


# --- files that are no weights ---------------------------------------------------------------------------


def saved(content: object, **how: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, **how)
    return buffer.getvalue()


def torchscript() -> bytes:
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), buffer)
    return buffer.getvalue()


def zipped(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name.replace("__", "."), content)
    return buffer.getvalue()


def numpy_file() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.ones(3))
    return buffer.getvalue()


def numpy_archive() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, weight=np.ones(3))
    return buffer.getvalue()


class Detector:
    """A class that is pickled whole, as `torch.save(model)` does."""


WHOLE = saved({"weight": torch.ones(64, 64)})
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
PAGE = b"<!DOCTYPE html>\n<html><head><title>Sign in</title></head></html>"
NO_WEIGHTS: dict[str, tuple[Callable[[], bytes], str]] = {
    "a Git LFS pointer": (lambda: LFS, "is a Git LFS pointer.*git lfs pull"),
    "a web page": (lambda: PAGE, "is a web page.*download it again"),
    "a page with a byte order mark": (lambda: b"\xef\xbb\xbf\r\n" + PAGE, "is a web page"),
    "an XML error": (lambda: b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "is a web page"),
    "a JSON error": (lambda: b'{"error": "Repository not found"}', r"is text, which begins with '\{\"error\""),
    "a line of text": (lambda: b"Entry not found", "is text, which begins with 'Entry not found'"),
    "nothing": (lambda: b"", "is empty: download it again"),
    "zeros": (lambda: bytes(4096), "begins with zeros only"),
    "half a zip": (lambda: WHOLE[: len(WHOLE) // 2], "is truncated.*download it again"),
    "a zip without its end": (lambda: WHOLE[:-30], "is truncated"),
    "half a pickle": (
        lambda: saved({"w": torch.ones(64)}, _use_new_zipfile_serialization=False)[:-100],
        "is not a checkpoint, or is damaged",
    ),
    "TorchScript": (torchscript, "is a TorchScript program.*state_dict"),
    "numpy": (numpy_file, "is an array of numpy"),
    "numpy's archive": (numpy_archive, "holds arrays of numpy"),
    "a zip around it": (lambda: zipped(model__pth=WHOLE), r"is a zip archive that holds model\.pth: unpack it"),
    "gzip": (lambda: b"\x1f\x8b\x08" + bytes(50), "is a gzip archive: unpack it"),
    "HDF5": (lambda: b"\x89HDF\r\n\x1a\n" + bytes(50), "is an HDF5 file"),
    "a plain pickle": (lambda: b"\x80\x04\x95\x0a\x00\x00\x00\x00\x00\x00\x00}\x94.", "is a pickle of protocol 4"),
    "an optimizer": (lambda: saved(optimizer()), "the state of an optimizer.*the model's own weights"),
    "an optimizer in a dict": (lambda: saved({"optimizer": optimizer(), "epoch": 1}), "the state of an optimizer"),
    "a whole model": (lambda: saved({"model": Detector()}), r"Detector', which is code.*state_dict"),
    "an empty dict": (lambda: saved({}), "expected tensors by key, got dict"),
    "a list": (lambda: saved([torch.ones(1)]), "expected tensors by key, got list"),
    "half of safetensors": (lambda: b"\x40" + bytes(7) + b'{"a":{"dtype"', "is not a safetensors file, or is trunc"),
}  # fmt: skip


@pytest.mark.parametrize(("kind", "suffix"), [("detector", "pth"), ("sam", "safetensors"), ("finetuning", "pth")])
@pytest.mark.parametrize("name", NO_WEIGHTS)
def test_what_is_no_checkpoint_is_called_what_it_is(tmp_path: Path, kind: str, name: str, suffix: str) -> None:
    content, message = NO_WEIGHTS[name]
    folder = write(tmp_path, kind, content(), f"it.{suffix}")
    with pytest.raises(ModelFilesError, match=message) as raised:
        _ = Start.read(folder) if kind == "finetuning" else loaded(folder, kind)
    assert f"it.{suffix}" in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize("kind", ["detector", "sam"])
def test_the_content_decides_and_not_the_suffix(tmp_path: Path, weights: dict[str, StateDict], kind: str) -> None:
    own = weights[kind]
    save_file({key: value.clone() for key, value in own.items()}, tmp_path / "a.safetensors")
    folder = write(tmp_path / "a", kind, (tmp_path / "a.safetensors").read_bytes(), "weights.pth")
    assert_same(loaded(folder, kind), own)
    folder = write(tmp_path / "b", kind, saved(own), "weights.safetensors")
    assert_same(loaded(folder, kind), own)


class Smuggled:
    def __init__(self, function: Any, *args: object) -> None:
        self.call = function, args

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors", "pytorch_model.bin"])
def test_code_is_refused_whatever_it_is_called(tmp_path: Path, name: str) -> None:
    trace = tmp_path / "ran"
    content = {"state_dict": {"a": torch.ones(1)}, "args": Smuggled(os.mkdir, str(trace))}
    (tmp_path / name).write_bytes(saved(content))
    with pytest.raises(CheckpointError, match=r"'posix\.mkdir', which is code"):
        load_state_dict(tmp_path / name)
    assert not trace.exists()


def test_what_is_let_through_keeps_nothing_and_calls_nothing(tmp_path: Path) -> None:
    """A path or a number by its class is read as an object without content."""
    notes = [pathlib.PurePosixPath("x"), argparse.Namespace(a=1), datetime.timedelta(1), Smuggled(int, "7")]
    kept = {
        "queue": collections.deque([1]),
        "counts": collections.defaultdict(int),
        "when": np.datetime64("2020-01-01"),
    }
    content = {"state_dict": {"a": torch.ones(1)}, "meta": {"notes": notes, **kept}}
    (tmp_path / "a.pth").write_bytes(saved(content))
    meta = load_state_dict(tmp_path / "a.pth")[1]
    assert {type(value).__name__ for value in meta["notes"]} == {"_Dropped"}
    assert type(meta["queue"]) is list and type(meta["counts"]) is collections.OrderedDict


def test_a_refusal_does_not_recommend_to_run_code(tmp_path: Path) -> None:
    """torch's own message says that `weights_only=False` will likely succeed."""
    content = {"state_dict": {"a": torch.ones(1)}, "best": np.array([None])}
    (tmp_path / "a.pth").write_bytes(saved(content))
    with pytest.raises(CheckpointError, match="is not a checkpoint, or is damaged") as raised:
        load_state_dict(tmp_path / "a.pth")
    assert "weights_only" not in str(raised.value) and "ObjectDType" in str(raised.value)


# --- whose weights they are -------------------------------------------------------------------------------

FOREIGN = {
    "Meta's SAM": (
        ["image_encoder.blocks.0.norm1.weight", "prompt_encoder.no_mask_embed.weight", "mask_decoder.iou_token.weight"],
        r"Meta's own SAM \(segment-anything\).*weights pull sam-base.*save_pretrained",
    ),
    "Meta's SAM in a wrapper": (
        ["sam.image_encoder.blocks.0.a", "sam.prompt_encoder.a", "sam.mask_decoder.a"], "Meta's own SAM",
    ),
    "SAM 2": (["image_encoder.trunk.blocks.0.a", "sam_mask_decoder.a", "memory_encoder.a"], "SAM 2 .*pull sam2.1-tiny"),
    "SAM-HQ": (
        ["image_encoder.blocks.0.a", "prompt_encoder.a", "mask_decoder.hf_token.weight"], "SAM-HQ .*pull sam-hq-base",
    ),
    "MobileSAM": (["image_encoder.patch_embed.seq.0.c.weight", "mask_decoder.a", "prompt_encoder.a"], "MobileSAM"),
    "LoRA": (["base_model.model.vision_encoder.layers.0.attn.qkv.lora_A.default.weight"], "LoRA adapters.*merge"),
    "torchvision": (["backbone.body.conv1.weight", "roi_heads.box_predictor.cls_score.weight"], "torchvision"),
    "Detectron2": (["backbone.bottom_up.stem.conv1.weight", "roi_heads.box_predictor.a"], "Detectron2"),
    "Ultralytics": (["model.0.conv.weight", "model.2.cv1.conv.weight"], "a YOLO of Ultralytics"),
    "DETR": (["model.backbone.conv_encoder.model.a", "class_labels_classifier.weight"], "of Hugging Face"),
}  # fmt: skip


@pytest.mark.parametrize("kind", ["detector", "sam"])
@pytest.mark.parametrize("name", FOREIGN)
def test_weights_of_another_model_are_named(tmp_path: Path, kind: str, name: str) -> None:
    keys, message = FOREIGN[name]
    with pytest.raises(CheckpointError, match=f"does not fit the model.*{message}"):
        loaded(write(tmp_path, kind, {key: torch.ones(2) for key in keys}), kind)


@pytest.mark.parametrize("named", [True, False])
def test_metas_checkpoint_without_a_config_is_named_too(tmp_path: Path, named: bool) -> None:
    keys = FOREIGN["Meta's SAM"][0]
    torch.save({key: torch.ones(2) for key in keys}, tmp_path / "sam_vit_b_01ec64.pth")
    with pytest.raises(ModelFilesError, match=r"looked for a config\.json.*Meta's own SAM.*weights pull sam-base"):
        Sam.find(tmp_path / "sam_vit_b_01ec64.pth" if named else tmp_path)


def test_a_sam_in_the_place_of_a_detector_and_the_other_way_round(
    tmp_path: Path, weights: dict[str, StateDict]
) -> None:
    with pytest.raises(CheckpointError, match="weights of Hugging Face's SAM"):
        loaded(write(tmp_path / "a", "detector", weights["sam"]), "detector")
    with pytest.raises(CheckpointError, match="weights of a detector of MMDetection"):
        loaded(write(tmp_path / "b", "sam", weights["detector"]), "sam")


# --- where a folder's weights are --------------------------------------------------------------------------

NAMES = ["finetuned.safetensors", "sam.pt", "checkpoint.pth", "my model.bin", "model.fp16.safetensors", "last.ckpt",
         "best.pth.tar"]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_sams_weights_are_found_whatever_their_name(
    tmp_path: Path, weights: dict[str, StateDict], said: Any, name: str
) -> None:
    folder = write(tmp_path, "sam", weights["sam"], name)
    for leftover in ("optimizer.pt", "scheduler.pt", "training_args.bin", "rng_state.pth", "scaler.pt"):
        (folder / leftover).write_bytes(saved({"state": {}}))
    assert_same(loaded(folder, "sam"), weights["sam"])
    assert folder / name in Sam.files(folder).values() and len(Sam.files(folder)) == 2
    assert said() == []


@pytest.mark.parametrize("name", ["weights.pt", "last.ckpt", "pytorch_model.bin", "best.pth.tar"])
def test_a_detectors_weights_may_have_other_suffixes(tmp_path: Path, weights: dict[str, StateDict], name: str) -> None:
    folder = write(tmp_path, "detector", weights["detector"], name)
    assert_same(loaded(folder, "detector"), weights["detector"])
    assert MMDetector.folders_below(tmp_path.parent) >= {folder}
    (folder / "optimizer.pt").write_bytes(b"")
    write(folder, "detector", weights["detector"], "the.pth")  # beside the usual suffixes, others are not asked
    assert MMDetector.files(folder)["the.pth"] == folder / "the.pth"


def test_of_two_files_the_usual_name_is_taken_and_said(
    tmp_path: Path, weights: dict[str, StateDict], said: Any
) -> None:
    other = {key: value * 2 if value.is_floating_point() else value for key, value in weights["sam"].items()}
    folder = write(tmp_path, "sam", weights["sam"], "model.safetensors")
    write(tmp_path, "sam", other, "finetuned.pth")
    assert_same(loaded(folder, "sam"), weights["sam"])
    (line,) = said()
    assert "takes model.safetensors; passed over: finetuned.pth. To take another, name that file" in line
    assert_same(loaded(folder / "finetuned.pth", "sam"), other)  # which is how to ask for the other
    assert set(Sam.files(folder / "finetuned.pth")) == {"config.json", "finetuned.pth"}
    assert set(Sam.files(folder)) == {"config.json", "model.safetensors"}


def test_two_files_of_unusual_names_are_asked_about(tmp_path: Path, weights: dict[str, StateDict]) -> None:
    for name in ("epoch_1.pth", "epoch_2.pth"):
        write(tmp_path, "sam", weights["sam"], name)
    with pytest.raises(
        CheckpointError, match=r"found 2: epoch_1\.pth, epoch_2\.pth\. Name the one you mean: .*epoch_1"
    ):
        Sam.load(tmp_path)
    assert_same(loaded(tmp_path / "epoch_2.pth", "sam"), weights["sam"])


def test_two_checkpoints_of_a_detector_are_asked_about(tmp_path: Path, weights: dict[str, StateDict]) -> None:
    for name in ("epoch_1.pth", "epoch_2.pth"):
        write(tmp_path, "detector", weights["detector"], name)
    with pytest.raises(ModelFilesError, match=r"found 1 and 2 .*Name the checkpoint that you mean.*epoch_2\.pth$"):
        MMDetector.load(tmp_path)
    assert_same(loaded(tmp_path / "epoch_1.pth", "detector"), weights["detector"])


@pytest.mark.parametrize("prefix", ["", "module."])
def test_shards_as_transformers_writes_them(
    tmp_path: Path, weights: dict[str, StateDict], said: Any, prefix: str
) -> None:
    own = weights["sam"]
    names = sorted(own)
    where = {}
    for number, part in enumerate((names[::2], names[1::2]), 1):
        shard = f"sam-{number:05}-of-00002.safetensors"
        write(tmp_path, "sam", {prefix + key: own[key] for key in part}, shard)
        where |= {prefix + key: shard for key in part}
    with pytest.raises(CheckpointError, match="expected the index of the shards"):
        Sam.load(tmp_path)
    (tmp_path / "sam.safetensors.index.json").write_text(
        json.dumps({"metadata": {"total_size": 1}, "weight_map": where})
    )
    assert_same(loaded(tmp_path, "sam"), own)
    assert len(said()) == (prefix != "")
    assert len(Sam.files(tmp_path)) == 4
    (tmp_path / "sam-00002-of-00002.safetensors").write_bytes(LFS)
    with pytest.raises(CheckpointError, match=r"sam-00002-of-00002\.safetensors.*is a Git LFS pointer"):
        Sam.load(tmp_path)
    (tmp_path / "sam-00002-of-00002.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"sam-00002-of-00002\.safetensors: no such file"):
        Sam.load(tmp_path)


# --- how a SAM's images are prepared --------------------------------------------------------------------------


def preparation(mean: list[float], longest: int = 64) -> dict[str, Any]:
    return {"image_mean": mean, "image_std": [0.5, 0.25, 0.125], "size": {"longest_edge": longest}}


def test_a_processor_config_alone_counts_and_is_hashed(tmp_path: Path, weights: dict[str, StateDict]) -> None:
    """transformers 5 writes no preprocessor_config.json any more; what it saves and reads itself is the reference."""
    from transformers import SamProcessor
    from transformers.models.sam.image_processing_pil_sam import SamImageProcessorPil

    from app.engine.loading import Choice, Chosen

    hashes = set()
    for mean in ([0.1, 0.2, 0.3], [0.4, 0.2, 0.3]):
        folder = write(tmp_path / str(mean[0]), "sam", weights["sam"], "model.safetensors")
        processor = SamImageProcessorPil(**preparation(mean), pad_size={"height": 64, "width": 64})
        SamProcessor(processor).save_pretrained(folder)
        assert not (folder / "preprocessor_config.json").exists()
        loaded_sam = Sam.load(folder, fast=False)
        image = np.full((64, 64, 3), 51, np.uint8)  # 0.2
        ours = loaded_sam.pixels([loaded_sam.preprocess(image)])[0]
        theirs = SamImageProcessorPil.from_pretrained(folder)(image, return_tensors="pt")["pixel_values"][0]
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
        assert "processor_config.json" in Sam.files(folder)
        hashes.add(Choice(None, Chosen(folder, "sam", False)).hashes["segmenter"])
    assert len(hashes) == 2


def test_of_both_files_the_one_that_transformers_takes(
    tmp_path: Path, weights: dict[str, StateDict], said: Any
) -> None:
    from transformers.models.sam.image_processing_pil_sam import SamImageProcessorPil

    folder = write(tmp_path, "sam", weights["sam"], "model.safetensors")
    (folder / "preprocessor_config.json").write_text(json.dumps(preparation([0.9, 0.9, 0.9])))
    nested = folder / "processor_config.json"
    for content, mean in (({"image_processor": preparation([0.1, 0.2, 0.3])}, 0.1), ({"processor_class": "x"}, 0.9)):
        nested.write_text(json.dumps(content))
        assert Sam.load(folder)._mean.tolist()[0] == pytest.approx(mean)
        assert SamImageProcessorPil.from_pretrained(folder).image_mean[0] == mean
    assert len([line for line in said() if "differ; the former counts" in line]) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"image_processor": preparation([0.1, 0.2, 0.3], 1024)}, "resizes images to 1024 pixels, but the model"),
        ({"image_processor": []}, "image_processor: expected a JSON object, got list"),
        ({"image_processor": {"image_std": [1, 0, 1]}}, "image_std: expected numbers above 0"),
        ({"image_processor": {"rescale_factor": 1}}, "rescale_factor: expected 1/255, got 1"),
        ([], "expected a JSON object, got list"),
    ],
)  # fmt: skip
def test_a_processor_config_that_does_not_fit(
    tmp_path: Path, weights: dict[str, StateDict], content: object, message: str
) -> None:
    folder = write(tmp_path, "sam", weights["sam"], "model.safetensors")
    (folder / "processor_config.json").write_text(json.dumps(content))
    with pytest.raises(ModelFilesError, match=rf"processor_config\.json:? .*{message}|{message}"):
        Sam.load(folder)
