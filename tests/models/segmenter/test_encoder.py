"""The prepared encoder against Hugging Face's own forward: the same function, whatever the configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import SamConfig, SamModel, SamVisionConfig
from transformers.models.sam.modeling_sam import SamVisionAttention, SamVisionEncoder, SamVisionLayer

from models.segmenter import attention as attention_module
from models.segmenter import encoder as encoder_module
from models.segmenter.attention import Attend, Relative, attend_folded, attend_fused, attend_in_steps
from models.segmenter.encoder import ImageEncoder, UnknownEncoder
from models.segmenter.sam import Sam
from models.segmenter.window_layout import Layout

DEMO = Path(__file__).parents[3] / "weights" / "demo" / "sam"
ATTENDS = pytest.mark.parametrize("attend", [attend_in_steps, attend_fused, attend_folded])


def random_encoder(implementation: str = "eager", **config: Any) -> SamVisionEncoder:
    """A small encoder in which every parameter matters: biases and relative positions are far from zero."""
    values = {
        "hidden_size": 24, "num_hidden_layers": 4, "num_attention_heads": 3, "mlp_dim": 40, "image_size": 64,
        "patch_size": 4, "output_channels": 10, "window_size": 5, "global_attn_indexes": [1, 3], **config,
    }  # fmt: skip
    built = SamVisionConfig(**values)
    built._attn_implementation = implementation
    encoder = SamVisionEncoder(built).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in encoder.parameters():
            fan_in = parameter[0].numel() if parameter.ndim > 1 else 4
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / fan_in**0.5)
        for module in encoder.modules():
            if isinstance(module, nn.LayerNorm):
                module.weight.add_(1)
            elif isinstance(module, SamVisionAttention) and module.use_rel_pos:
                module.rel_pos_h.mul_(2)
                module.rel_pos_w.mul_(2)
    return encoder


def random_pixels(encoder: SamVisionEncoder, batch: int = 1) -> Tensor:
    config = encoder.config
    shape = (batch, config.num_channels, config.image_size, config.image_size)
    return torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(encoder.dtype)


def plain(encoder: SamVisionEncoder, pixels: Tensor) -> Tensor:
    with torch.no_grad():
        return encoder(pixels).last_hidden_state


def relative_error(got: Tensor, expected: Tensor) -> float:
    return float((got.double() - expected.double()).norm() / expected.double().norm())


# The grid is 16 x 16 unless said otherwise.
CONFIGS: dict[str, dict[str, Any]] = {
    "windows cut by the edges": {},
    "every window whole": {"window_size": 4},
    "one window, the grid itself": {"window_size": 16},
    "one window, larger than the grid": {"window_size": 20},
    "windows of one token": {"window_size": 1},
    "a last window of one token": {"window_size": 15},
    "all global": {"window_size": 0},
    "all windows": {"global_attn_indexes": []},
    "grid of one token": {"image_size": 4},
    "grid with an odd size": {"image_size": 36},
    "pixels left over": {"image_size": 66},
    "no relative positions": {"use_rel_pos": False},
    "no absolute positions": {"use_abs_pos": False},
    "no bias": {"qkv_bias": False},
    "one head": {"num_attention_heads": 1},
    "another activation": {"hidden_act": "relu"},
    "no layers": {"num_hidden_layers": 0, "global_attn_indexes": []},
}


@ATTENDS
@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("name", CONFIGS)
def test_equals_hugging_face(name: str, implementation: str, attend: Attend) -> None:
    encoder = random_encoder(implementation, **CONFIGS[name])
    pixels = random_pixels(encoder, batch=2)
    expected = plain(encoder, pixels)
    got = ImageEncoder(encoder, attend)(pixels)
    assert got.shape == expected.shape and got.dtype == expected.dtype
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


@ATTENDS
def test_pieces_of_any_size_give_the_same(attend: Attend, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores of a few queries of one head at a time, and a few tokens that do not divide the image's."""
    encoder = random_encoder()
    pixels = random_pixels(encoder, batch=3)
    expected = plain(encoder, pixels)
    for scores, tokens in ((1, 7), (3 * 16 * 256, 100), (2 * 256 * 256, 256)):
        monkeypatch.setattr(attention_module, "_SCORES_IN_STEPS", scores)
        monkeypatch.setattr(attention_module, "_SCORES_FUSED", scores)
        monkeypatch.setattr(encoder_module, "_TOKENS", tokens)
        torch.testing.assert_close(ImageEncoder(encoder, attend)(pixels), expected, rtol=1e-4, atol=1e-5)


@ATTENDS
@pytest.mark.parametrize("name", ["windows cut by the edges", "all global", "no bias"])
def test_bfloat16_is_as_close_to_float32_as_hugging_face_is(name: str, attend: Attend) -> None:
    encoder = random_encoder("sdpa", **CONFIGS[name])
    pixels = random_pixels(encoder, batch=2)
    expected = plain(encoder, pixels)
    reduced = encoder.bfloat16()
    own = relative_error(plain(reduced, pixels.bfloat16()), expected)
    got = ImageEncoder(reduced, attend)(pixels.bfloat16())
    assert got.dtype == torch.bfloat16
    # In steps, scores are rounded to bfloat16 before softmax, as in Hugging Face's eager attention.
    assert relative_error(got, expected) < (1.05 if attend is attend_fused else 1.2) * own < 0.1


@pytest.mark.parametrize("activation", ["gelu", "relu"])
@pytest.mark.parametrize("way", ["plain", "packed", "fused"])
@pytest.mark.parametrize("frees", [False, True])
def test_every_library_gives_the_same(way: str, activation: str, frees: bool) -> None:
    if not torch.backends.mkldnn.is_available():
        pytest.skip("torch was built without oneDNN")
    encoder = random_encoder(hidden_act=activation)
    pixels = random_pixels(encoder, batch=2)
    expected = plain(encoder, pixels)
    prepared = ImageEncoder(encoder, way=way, frees=frees)
    torch.testing.assert_close(prepared(pixels), expected, rtol=1e-4, atol=1e-5)
    weights = [weight.numel() for name, weight in encoder.named_parameters() if name.endswith("lin1.weight")]
    assert all(weights) != (frees and way != "plain")
    if not frees:
        torch.testing.assert_close(plain(encoder, pixels), expected)


def test_bfloat16_weights_are_replaced_by_packed_ones() -> None:
    if not torch.backends.mkldnn.is_available():
        pytest.skip("torch was built without oneDNN")
    encoder = random_encoder("sdpa")
    pixels = random_pixels(encoder)
    expected = plain(encoder, pixels)
    prepared = ImageEncoder(encoder.bfloat16(), way="packed", frees=True)
    assert relative_error(prepared(pixels.bfloat16()), expected) < 0.1
    assert not any(layer.attn.qkv.weight.numel() for layer in encoder.layers)


@ATTENDS
def test_a_batch_equals_its_images_alone(attend: Attend) -> None:
    encoder = random_encoder()
    prepared = ImageEncoder(encoder, attend)
    pixels = random_pixels(encoder, batch=3)
    alone = torch.cat([prepared(one[None]) for one in pixels])
    torch.testing.assert_close(prepared(pixels), alone, rtol=1e-4, atol=1e-5)
    assert prepared(pixels[:0]).shape == (0, *alone.shape[1:])


def test_relative_positions_of_another_length_are_interpolated() -> None:
    encoder = random_encoder()
    for layer in encoder.layers:
        for name in ("rel_pos_h", "rel_pos_w"):
            table = getattr(layer.attn, name)
            setattr(layer.attn, name, nn.Parameter(table.detach()[: len(table) // 2].clone()))
    pixels = random_pixels(encoder)
    torch.testing.assert_close(ImageEncoder(encoder)(pixels), plain(encoder, pixels), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("first_row", [0, 2])
def test_relative_bias_is_the_query_times_its_distance(first_row: int) -> None:
    """On a 4 x 3 grid whose embeddings are their distances: rows in the first dimension, columns in the second."""
    rows, columns = (torch.arange(size - 1, -size, -1.0) for size in (4, 3))
    table = torch.stack([torch.cat([rows, 0 * columns]), torch.cat([0 * rows, columns])])
    by_row, by_column = Relative(table, (4, 3)).bias(torch.ones(1, 2, 3, 2), first_row)
    for r in range(2):
        for c in range(3):
            assert by_row[0, r, c].tolist() == [first_row + r - key for key in range(4)]
            assert by_column[0, r, c].tolist() == [c - key for key in range(3)]


@pytest.mark.parametrize(("grid", "window"), [((7, 5), (3, 3)), ((6, 6), (3, 3)), ((2, 5), (3, 3)), ((4, 5), (4, 5))])
def test_layouts_hold_every_token_once_window_by_window(grid: tuple[int, int], window: tuple[int, int]) -> None:
    layout = Layout(grid, window)
    height, width = grid
    numbers = torch.arange(2 * height * width).view(2, height, width, 1)
    tokens, back = torch.empty(numbers.numel(), 1, dtype=torch.int64), torch.empty_like(numbers)
    layout.gather(numbers, tokens)
    layout.scatter(tokens, back)
    assert torch.equal(back, numbers)
    start = 0
    for block in layout.blocks:
        for _ in range(2 * block.down * block.across):
            stop = start + block.height * block.width
            place = tokens[start:stop, 0]
            image, rest = place // (height * width), place % (height * width)
            row, column = rest // width, rest % width
            window_of_each = torch.stack([image, row // window[0], column // window[1]])
            assert (window_of_each == window_of_each[:, :1]).all()
            assert place.tolist() == sorted(place.tolist())
            start = stop
    assert start == len(tokens)


def test_between_is_called_within_every_layer_and_may_use_torch_and_the_encoder() -> None:
    encoder = random_encoder("sdpa")
    prepared = ImageEncoder(encoder)
    pixels = random_pixels(encoder, batch=2)
    expected = prepared(pixels)
    inner: list[Tensor] = []
    calls = 0

    def between() -> None:
        nonlocal calls
        calls += 1
        torch.randn(64, 64).softmax(-1)
        if calls in (5, 30):
            inner.append(prepared(pixels.flip(0)))

    assert torch.equal(prepared(pixels, between), expected)
    assert len(inner) == 2 and all(torch.equal(one.flip(0), expected) for one in inner)
    # Per layer: once before it, after projecting, each window or image, after projecting back, twice in the MLP.
    windows, images = 2 * 16, 2
    assert calls == 4 * 5 + 2 * windows + 2 * images + 1


def test_between_may_end_the_call() -> None:
    encoder = random_encoder()

    class Stop(Exception):
        pass

    def between() -> None:
        raise Stop

    with pytest.raises(Stop):
        ImageEncoder(encoder)(random_pixels(encoder), between)


@pytest.mark.parametrize("size", ["base", "large", "huge"])
def test_full_size_layers_of_every_sam(size: str) -> None:
    """A windowed layer and a global one with the head sizes of the real models, on a smaller grid."""
    hidden, heads = {"base": (768, 12), "large": (1024, 16), "huge": (1280, 16)}[size]
    encoder = random_encoder(
        hidden_size=hidden, num_attention_heads=heads, mlp_dim=64, num_hidden_layers=2, global_attn_indexes=[1],
        image_size=20, patch_size=1, window_size=14, output_channels=8,
    )  # fmt: skip
    pixels = random_pixels(encoder)
    expected = plain(encoder, pixels)
    assert relative_error(ImageEncoder(encoder)(pixels), expected) < 1e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_demo_weights(dtype: torch.dtype) -> None:
    encoder = Sam.load(DEMO)._model.vision_encoder
    pixels = random_pixels(encoder, batch=2)
    expected = plain(encoder, pixels)
    reduced = encoder.to(dtype)
    own = plain(reduced, pixels.to(dtype))
    got = ImageEncoder(reduced)(pixels.to(dtype))
    if dtype == torch.float32:
        assert relative_error(got, expected) < 1e-5
    else:
        assert relative_error(got, expected) < 1.1 * relative_error(own, expected)


def test_weights_are_shared_and_need_no_gradients() -> None:
    encoder = random_encoder()
    prepared = ImageEncoder(encoder)
    pixels = random_pixels(encoder)
    before = prepared(pixels)
    assert not before.requires_grad
    with torch.no_grad():
        encoder.layers[0].mlp.lin1.weight.mul_(2)
    after = prepared(pixels)
    assert not torch.equal(after, before)
    torch.testing.assert_close(after, plain(encoder, pixels), rtol=1e-4, atol=1e-5)


def test_dropout_is_never_applied() -> None:
    encoder = random_encoder(attention_dropout=0.5)
    expected = plain(encoder, random_pixels(encoder))
    got = ImageEncoder(encoder.train())(random_pixels(encoder))
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def test_pixels_of_another_size_are_refused() -> None:
    prepared = ImageEncoder(random_encoder())
    with pytest.raises(ValueError, match=r"32\*32"):
        prepared(torch.zeros(1, 3, 32, 32))


def test_encoders_of_other_classes_are_refused() -> None:
    class Adapted(nn.Linear):
        pass

    class OtherLayer(SamVisionLayer):
        pass

    with pytest.raises(UnknownEncoder, match="encoder: expected SamVisionEncoder, found Linear"):
        ImageEncoder(nn.Linear(1, 1))
    encoder = random_encoder()
    encoder.layers[2].attn.qkv = Adapted(24, 72)
    with pytest.raises(UnknownEncoder, match=r"layers\.2\.attn\.qkv: expected Linear, found Adapted"):
        ImageEncoder(encoder)
    encoder = random_encoder()
    encoder.layers[1] = OtherLayer(encoder.config, 5)
    with pytest.raises(UnknownEncoder, match=r"layers\.1: expected SamVisionLayer, found OtherLayer"):
        ImageEncoder(encoder)
    with pytest.raises(UnknownEncoder, match="SamModel"):
        ImageEncoder(SamModel(SamConfig(vision_config=random_encoder().config.to_dict())))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@ATTENDS
def test_equals_hugging_face_on_cuda(attend: Attend) -> None:
    encoder = random_encoder("sdpa").cuda()
    pixels = random_pixels(encoder, batch=2).cuda()
    torch.testing.assert_close(ImageEncoder(encoder, attend)(pixels), plain(encoder, pixels), rtol=1e-3, atol=1e-3)
