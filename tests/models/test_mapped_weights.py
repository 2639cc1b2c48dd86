from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import (
    SamConfig,
    SamImageProcessorPil,
    SamModel,
    YolosConfig,
    YolosForObjectDetection,
    YolosImageProcessorPil,
)

from models.checkpoints import load_into, load_state_dict
from models.detector.huggingface.detector import HuggingFaceDetector
from models.mapped_weights import MappedPages, moved
from models.segmenter.sam import Sam

_LOADED = """
import sys
from pathlib import Path
import torch
from models.segmenter.sam import Sam

def peak():
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024

torch.set_num_threads(1)
before = peak()
sam = Sam.load(sys.argv[1], dtype=torch.bfloat16)
weights = Path(sys.argv[1], "model.safetensors").stat().st_size / 2 / 2**20  # from four bytes to two
print(weights, peak() - before)
"""
# Libraries' pages that loading is the first to read, the largest weight before it is converted, and with AMX what is
# tried to find the fastest products and attention, in MB. A second copy of the weights would be 195.
_ALLOWED = 90
pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux says what memory holds")


@pytest.mark.any_dtype
def test_a_sam_in_bfloat16_takes_little_more_than_its_weights_while_it_is_loaded(tmp_path: Path) -> None:
    """What is measured is a process of its own: what others have freed here would hide it."""
    model = SamModel(SamConfig(vision_config={"hidden_size": 768, "num_hidden_layers": 6, "mlp_dim": 3072}))
    model.save_pretrained(tmp_path)
    SamImageProcessorPil().save_pretrained(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", _LOADED, str(tmp_path)], capture_output=True, text=True, timeout=300, check=True
    )
    weights, grown = map(float, done.stdout.split())
    assert weights > 80
    assert grown < 1.3 * weights + _ALLOWED


def _resident(tensor: torch.Tensor) -> int:
    """How many KB of a mapped file are in memory at a tensor."""
    maps = Path("/proc/self/smaps").read_text().splitlines()
    at = tensor.data_ptr()
    for number, line in enumerate(maps):
        span = line.split()[0].split("-")
        if len(span) == 2 and int(span[0], 16) <= at < int(span[1], 16):
            return next(int(one.split()[1]) for one in maps[number:] if one.startswith("Rss:"))
    return 0


@pytest.fixture(params=["safetensors", "pth"])
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    weights = {"weight": torch.randn(1024, 1024), "bias": torch.randn(1024)}
    path = tmp_path / f"a.{request.param}"
    if request.param == "pth":
        torch.save(weights, path)
    else:
        save_file(weights, path)
    return path


def test_weights_that_a_model_copies_leave_the_file_out_of_memory(file: Path) -> None:
    state_dict, _ = load_state_dict(file)
    model = torch.nn.Linear(1024, 1024)
    load_into(model, state_dict, file)
    assert _resident(state_dict["weight"]) < 512
    assert torch.equal(model.weight, state_dict["weight"])  # which is read again
    assert _resident(state_dict["weight"]) > 2048


def test_weights_that_are_converted_leave_the_file_out_of_memory(file: Path) -> None:
    state_dict, _ = load_state_dict(file)
    with torch.device("meta"):
        model = torch.nn.Linear(1024, 1024)
    load_into(model, state_dict, file, assign=True)
    assert moved(model, "cpu", torch.bfloat16).weight.dtype == torch.bfloat16
    assert _resident(state_dict["weight"]) < 512
    assert torch.equal(model.weight, state_dict["weight"].bfloat16())


def test_memory_that_is_no_files_is_left_as_it_is() -> None:
    tensor = torch.randn(1024, 1024)
    before = tensor.clone()
    MappedPages().give_back(tensor)
    assert torch.equal(tensor, before)


def test_a_loaded_model_is_as_it_was_whatever_its_file_becomes(tmp_path: Path) -> None:
    """A new model is copied over the old one's file: the process that has the old one goes on with it."""
    folders = {"sam": tmp_path / "sam", "detector": tmp_path / "detector"}
    vision = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "mlp_dim": 64}
    SamModel(SamConfig(vision_config=vision)).save_pretrained(folders["sam"])
    SamImageProcessorPil().save_pretrained(folders["sam"])
    config = YolosConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, image_size=[64, 64],
        num_detection_tokens=8, use_mid_position_embeddings=False,
    )  # fmt: skip
    YolosForObjectDetection(config).save_pretrained(folders["detector"])
    YolosImageProcessorPil().save_pretrained(folders["detector"])
    models = Sam.load(folders["sam"]), HuggingFaceDetector.load(folders["detector"])
    networks: list[torch.nn.Module] = [models[0]._model, models[1]._network]
    before = [{name: weight.clone() for name, weight in network.state_dict().items()} for network in networks]
    for folder in folders.values():
        assert str(folder) not in Path("/proc/self/maps").read_text()
        with (folder / "model.safetensors").open("r+b") as file:
            file.write(bytes((folder / "model.safetensors").stat().st_size))
    for network, weights in zip(networks, before, strict=True):
        for name, weight in network.state_dict().items():
            assert torch.equal(weight, weights[name]), name
