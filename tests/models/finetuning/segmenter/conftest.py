"""Pictures of rings, which the demo segmenter takes for discs, and a SAM so small that a step takes milliseconds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from transformers import SamConfig, SamModel

from benchmarks.segmenter_reference import random_weights
from models.data import Annotation, Dataset, LabelledImage
from models.data.parsing.shapes import box_of, encoded


def make_rings(folder: Path, count: int, size: int = 96) -> Dataset:
    """Pictures of one bright ring each, whose hole is no part of it."""
    folder.mkdir(parents=True, exist_ok=True)
    images = []
    for index in range(count):
        rng = np.random.default_rng(index)
        rows, columns = np.mgrid[:size, :size]
        middle, radius, width = rng.uniform(0.38, 0.62, 2) * size, rng.uniform(0.2, 0.3) * size, size / 12
        mask = np.abs(np.hypot(rows - middle[0], columns - middle[1]) - radius) < width / 2
        image = np.full((size, size, 3), rng.uniform(40, 90, 3))
        image[mask] = rng.uniform(150, 250, 3)
        path = folder / f"{index}.png"
        Image.fromarray((image + rng.normal(0, 4, image.shape)).clip(0, 255).astype(np.uint8)).save(path)
        rle = encoded(mask)
        images.append(LabelledImage(path, (size, size), (Annotation("ring", box_of(rle, "ring"), rle=rle),)))
    return Dataset(("ring",), tuple(images))


def tiny_sam(folder: Path) -> Path:
    """A SAM of 64 x 64 pixels, whose random weights let image, place and prompt reach the masks."""
    config = SamConfig(
        vision_config={
            "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "mlp_dim": 48, "image_size": 64,
            "patch_size": 16, "output_channels": 32, "num_pos_feats": 16, "window_size": 0, "global_attn_indexes": [],
            "use_rel_pos": False,
        },
        prompt_encoder_config={"hidden_size": 32, "image_size": 64, "patch_size": 16, "image_embedding_size": 4},
        mask_decoder_config={"hidden_size": 32, "mlp_dim": 64, "iou_head_hidden_dim": 32, "num_attention_heads": 4},
    )  # fmt: skip
    random_weights(SamModel(config)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def rings(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make_rings(tmp_path_factory.mktemp("rings"), 12)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_sam(tmp_path_factory.mktemp("tiny") / "sam")


@pytest.fixture
def said() -> Callable[[str], None]:
    """Takes lines, and has them in `said.lines`."""

    def say(line: str) -> None:
        say.lines.append(line)

    say.lines = []
    return say
