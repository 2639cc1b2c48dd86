from __future__ import annotations

import pytest
import torch

from models.segmenter import attention
from models.segmenter.attention import Relative, attend_folded, attend_fused, fastest_reduced


def case(keys_hw: tuple[int, int], query_hw: tuple[int, int], dim: int) -> tuple[list[torch.Tensor], Relative]:
    torch.manual_seed(0)
    tokens = keys_hw[0] * keys_hw[1]
    query = torch.randn(2, 3, *query_hw, dim)
    key, value = torch.randn(2, 2, 3, tokens, dim)
    table = torch.randn(dim, 2 * sum(keys_hw) - 2)
    return [query, key, value], Relative(table, keys_hw)


@pytest.mark.parametrize(
    ("keys_hw", "query_hw", "dim"), [((14, 14), (14, 14), 80), ((14, 14), (8, 5), 64), ((5, 9), (5, 9), 16)]
)
def test_bias_in_longer_heads_is_the_bias(keys_hw: tuple[int, int], query_hw: tuple[int, int], dim: int) -> None:
    tensors, relative = case(keys_hw, query_hw, dim)
    expected, folded, unbiased = torch.full((3, 2, *query_hw, 3, dim), torch.nan)
    attend_fused(*tensors, relative, expected, lambda: None)
    attend_folded(*tensors, relative, folded, lambda: None)
    attend_folded(*tensors, None, unbiased, lambda: None)
    torch.testing.assert_close(folded, expected, rtol=1e-4, atol=1e-5)
    assert (unbiased - expected).abs().max() > 0.1


def test_no_bias_over_all_pairs_is_handed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    tensors, relative = case((14, 14), (14, 14), 80)
    out = torch.empty(2, 14, 14, 3, 80)
    seen = []

    def fused(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **how: object) -> torch.Tensor:
        seen.append((query.shape[-1], key.shape[-1], value.shape[-1], "attn_mask" in how))
        return torch.zeros(query.shape)

    monkeypatch.setattr(attention.F, "scaled_dot_product_attention", fused)
    attend_folded(*tensors, relative, out, lambda: None)
    assert seen == [(128, 128, 128, False)]  # 80 + 14 + 14, and up to the next multiple of 32


def test_heads_that_would_be_too_long_keep_their_bias() -> None:
    tensors, relative = case((100, 60), (3, 60), 104)  # 264
    expected, folded = torch.full((2, 2, 3, 60, 3, 104), torch.nan)
    attend_fused(*tensors, relative, expected, lambda: None)
    attend_folded(*tensors, relative, folded, lambda: None)
    torch.testing.assert_close(folded, expected)


def test_the_faster_way_is_one_that_there_is() -> None:
    assert fastest_reduced(12, 16, (14, 14), torch.bfloat16, 1) in (attend_fused, attend_folded)
    assert fastest_reduced(3, 16, (5, 9), torch.bfloat16, 1) is attend_fused  # too small to tell
    assert fastest_reduced(3, 16, None, torch.bfloat16, 1) is attend_fused  # nothing is to be folded
    assert fastest_reduced(3, 104, (100, 60), torch.bfloat16, 1) is attend_fused  # too long
