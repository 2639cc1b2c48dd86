"""Which library multiplies an encoder's tokens: the faster one here, and torch's own way where it hardly matters."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import pytest
import torch

from models.segmenter import products
from models.segmenter.products import Product, fastest, ways


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    fastest.cache_clear()
    yield
    fastest.cache_clear()


def seconds(monkeypatch: pytest.MonkeyPatch, **of_way: float) -> list[str]:
    """Let ways of a layer of 8 to 8 take these seconds; returns what was tried."""
    tried: list[str] = []
    monkeypatch.setattr(products, "_LEAST_WEIGHTS", 64)

    def timed(made: Mapping[str, Callable[[], object]]) -> dict[str, float]:
        tried.extend(made)
        return {name: of_way[name] for name in made}

    monkeypatch.setattr(products, "least_seconds", timed)
    return tried


@pytest.mark.parametrize(
    ("taken", "expected"),
    [
        ({"plain": 1.0, "packed": 0.5, "fused": 0.6}, "packed"),
        ({"plain": 1.0, "packed": 0.6, "fused": 0.5}, "fused"),
        ({"plain": 1.0, "packed": 0.95, "fused": 2.0}, "plain"),
    ],
)
def test_the_fastest_way_is_taken_if_it_is_clearly_so(
    taken: dict[str, float], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = seconds(monkeypatch, **taken)
    assert fastest(8, 8, torch.float32, True, 1) == expected
    assert fastest(8, 8, torch.float32, True, 1) == expected and len(tried) == 3  # the second time is remembered


def test_a_way_that_the_processor_has_not_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("not on this processor")

    monkeypatch.setattr(torch.ops.mkldnn, "_reorder_linear_weight", refuse)
    assert seconds(monkeypatch, plain=1.0) == []
    assert fastest(8, 8, torch.float32, True, 1) == "plain"


def test_small_layers_and_those_off_the_processor_are_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = seconds(monkeypatch, plain=1.0, packed=0.1)
    assert fastest(8, 8, torch.float32, False, 0) == fastest(4, 8, torch.float32, False, 1) == "plain"
    assert tried == []


@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("gelu", [True, False])
def test_all_ways_give_the_layers_numbers_into_what_is_given_or_something_new(gelu: bool, has_bias: bool) -> None:
    torch.manual_seed(0)
    linear, x = torch.nn.Linear(48, 80, bias=has_bias).requires_grad_(False), torch.randn(33, 48)
    expected = torch.nn.functional.gelu(linear(x)) if gelu else linear(x)
    for way in ways(linear, 33, gelu):
        product, out = Product(linear, 33, gelu=gelu, way=way), torch.full((33, 80), torch.nan)
        assert product.way == way
        torch.testing.assert_close(product(x), expected, rtol=1e-4, atol=1e-5)
        assert product(x, out).data_ptr() == out.data_ptr()
        torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)
