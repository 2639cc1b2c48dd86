"""SAM 2's prepared encoder against Hugging Face's own forward: the same function, whatever the configuration."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import Sam2Model

from models.segmenter import hiera
from models.segmenter.encoder import UnknownEncoder
from models.segmenter.hiera import HieraEncoder
from models.segmenter.sam2 import Sam2
from tests.models.segmenter.random_sams import random_weights, sam2_config


def random_model(image_size: int = 128, seed: int = 0, **backbone: Any) -> Sam2Model:
    """See `random_sams`: grids of 32, 16, 8 and 4 places, unless `backbone` or `image_size` says otherwise."""
    config = sam2_config(image_size)
    for name, value in backbone.items():
        setattr(config.vision_config.backbone_config, name, value)
    return random_weights(Sam2Model(config), seed)


def random_pixels(batch: int = 1, size: int = 128) -> Tensor:
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(1))


def plain(model: Sam2Model, pixels: Tensor) -> Tensor:
    """What the plain twin's embeddings hold: transformers' own backbone, neck and first convolutions."""
    with torch.no_grad():
        return Sam2(model, dtype=model.dtype, fast=False).published_features(pixels)


def relative_error(got: Tensor, expected: Tensor) -> float:
    return float((got.double() - expected.double()).norm() / expected.double().norm())


CONFIGS: dict[str, dict[str, Any]] = {
    "windows cut by the edges": {},
    "as tiny": {"window_size_per_stage": [8, 4, 14, 7], "global_attention_blocks": [4], "image_size": 256},
    "windows of one stage become those of the next": {"window_size_per_stage": [8, 4, 2, 1]},
    "every window whole": {"window_size_per_stage": [8, 4, 4, 2], "global_attention_blocks": []},
    "windows larger than the grid": {"window_size_per_stage": [32, 32, 32, 32]},
    "cut windows are pooled": {"window_size_per_stage": [4, 10, 6, 3]},
    "all global but where stages begin": {"global_attention_blocks": [0, 2, 4, 5]},
    "a layer in each stage": {"blocks_per_stage": [1, 1, 1, 1], "global_attention_blocks": []},
    "another activation": {"hidden_act": "relu"},
    "one head": {"num_attention_heads_per_stage": [1, 1, 1, 1]},
    "a grid of 6 x 6": {"image_size": 96},
}


def test_positions_of_the_configs_matter() -> None:
    """Else they would say nothing of the embedding of places, nor of the order of tokens."""
    model, pixels = random_model(), random_pixels()
    turned = plain(model, pixels.flip(3)).flip(3)
    assert relative_error(turned[:, :32], plain(model, pixels)[:, :32]) > 0.1


@pytest.mark.parametrize("name", CONFIGS)
def test_equals_hugging_face(name: str) -> None:
    model = random_model(**CONFIGS[name])
    pixels = random_pixels(2, CONFIGS[name].get("image_size", 128))
    expected = plain(model, pixels)
    got = HieraEncoder(model)(pixels)
    assert got.shape == expected.shape and got.dtype == expected.dtype
    assert relative_error(got, expected) < 1e-5
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4 * float(expected.std()))


@pytest.mark.parametrize("on_cpu", [True, False])
@pytest.mark.parametrize("numbers", [1, 5000, 40000])
def test_pieces_of_any_size_give_the_same(numbers: int, on_cpu: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few windows, tokens or queries at a time, or, as on a GPU, all of them."""
    model, pixels = random_model(), random_pixels(3)
    monkeypatch.setattr(hiera, "_NUMBERS", max(numbers, 400))
    monkeypatch.setattr(hiera, "_SCORES", numbers)
    encoder = HieraEncoder(model)
    encoder._on_cpu = on_cpu
    assert relative_error(encoder(pixels), plain(model, pixels)) < 1e-5


def test_a_batch_equals_its_images_alone() -> None:
    model, pixels = random_model(), random_pixels(3)
    encoder = HieraEncoder(model)
    alone = torch.cat([encoder(one[None]) for one in pixels])
    assert torch.equal(encoder(pixels), alone)


@pytest.mark.parametrize("name", ["windows cut by the edges", "as tiny"])
def test_bfloat16_is_as_close_to_float32_as_hugging_face_is(name: str) -> None:
    model, pixels = random_model(**CONFIGS[name]), random_pixels(2, CONFIGS[name].get("image_size", 128))
    expected = plain(model, pixels)
    reduced = model.bfloat16()
    own = relative_error(plain(reduced, pixels.bfloat16()), expected)
    got = HieraEncoder(reduced)(pixels.bfloat16())
    assert got.dtype == torch.bfloat16
    assert relative_error(got, expected) < 1.1 * own < 0.2


def test_other_calls_run_between_the_pieces() -> None:
    model, pixels = random_model(), random_pixels(2)
    encoder = HieraEncoder(model)
    expected, inner = encoder(pixels), []

    def between() -> None:
        if len(inner) < 3:
            inner.append(encoder(pixels))

    assert torch.equal(encoder(pixels, between), expected)
    assert len(inner) == 3 and all(torch.equal(one, expected) for one in inner)


def test_what_between_raises_ends_the_call() -> None:
    def between() -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        HieraEncoder(random_model())(random_pixels(), between)


def test_other_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="expected 128 x 128 pixels"):
        HieraEncoder(random_model())(random_pixels(size=96))


class Louder(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


@pytest.mark.parametrize(
    ("path", "module", "message"),
    [
        ("blocks.3.attn.qkv", Louder(32, 144), r"blocks\.3\.attn\.qkv: expected Linear, found Louder"),
        ("blocks.0.layer_norm2", nn.Identity(), r"blocks\.0\.layer_norm2: expected LayerNorm, found Identity"),
    ],
)
def test_unknown_parts_run_as_published(
    path: str, module: nn.Module, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    model = random_model()
    parent, _, name = path.rpartition(".")
    setattr(model.vision_encoder.backbone.get_submodule(parent), name, module)
    with pytest.raises(UnknownEncoder, match=message):
        HieraEncoder(model)
    image = torch.zeros(128, 128, 3, dtype=torch.uint8).numpy()
    fast, published = Sam2(model), Sam2(model, fast=False)
    assert "runs as published" in caplog.text
    features = [one.embed([one.preprocess(image)])[0].features for one in (fast, published)]
    assert torch.equal(*features)


@pytest.mark.parametrize(
    ("backbone", "message"),
    [
        ({"window_size_per_stage": [4, 4, 5, 2]}, "odd side"),
        ({"global_attention_blocks": [3]}, "expected windows where a stage begins"),
    ],
)
def test_layers_that_transformers_itself_may_not_run_are_refused(backbone: dict[str, Any], message: str) -> None:
    with pytest.raises(UnknownEncoder, match=message):
        HieraEncoder(random_model(**backbone))


@pytest.mark.parametrize("fast", [True, False])
def test_the_setting_chooses(fast: bool) -> None:
    """`fast` takes the prepared encoder, without it transformers' own runs: its layers are called."""
    segmenter = Sam2(random_model(), fast=fast)
    called = []
    segmenter._model.vision_encoder.backbone.blocks[0].register_forward_hook(lambda *_: called.append(1))
    segmenter.embed([segmenter.preprocess(torch.zeros(9, 9, 3, dtype=torch.uint8).numpy())])
    assert bool(called) != fast
