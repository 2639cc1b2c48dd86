"""The products of tokens with an encoder's weights on a processor, each by the library that is the fastest there.

torch gives float32 products to MKL, which takes the weights as they are. oneDNN wants them in an order of its own,
which is made once. Which of the two is faster depends on the processor, by a factor of two either way, and is measured
when an encoder is made: some milliseconds for each shape, once in a process.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache, partial

import torch
from torch import Tensor, nn

from models.mapped_weights import MappedPages
from models.segmenter.trials import least_seconds

# Weights of a layer from which on it is worth trying; where layers are smaller, every start rounds alike.
_LEAST_WEIGHTS = 1 << 20
# Tokens that are multiplied to compare the libraries.
_TRIED_TOKENS = 256
# Of the plain way's time, what another way may take at most. In an encoder, where plain products write into memory that
# is there, packed ones that took 0.85 of their time alone were no faster; where packing helps, they take half.
_WORTH = 0.75

Way = Callable[[Tensor, Tensor | None], Tensor]


class Product:
    """x (N, in) -> (N, out) of a linear layer, and GELU of it where that is wanted.

    Computes on the weights as they are when it is made. Its numbers are the layer's up to rounding.
    """

    def __init__(
        self,
        linear: nn.Linear,
        rows: int,
        *,
        gelu: bool = False,
        way: str | None = None,
        frees: MappedPages | None = None,
    ) -> None:
        """rows: how many tokens come at once, mostly. way: one of `ways`, in place of the fastest.

        Without GELU, "fused" is "packed". frees: given if the layer is not called any more; packed weights then replace
        its own, and a file's pages that those were in are given back.
        """
        self.out_features = linear.out_features
        self.way = way or fastest(linear.in_features, linear.out_features, linear.weight.dtype, gelu, _threads(linear))
        if self.way == "fused" and not gelu:
            self.way = "packed"
        self._compute = ways(linear, rows, gelu)[self.way]()
        if frees is not None and self.way != "plain":
            frees.give_back(linear.weight)
            linear.weight.data = linear.weight.new_empty(0)

    def __call__(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        """out: (N, out) to write, in place of a new one."""
        return self._compute(x, out)


def ways(linear: nn.Linear, rows: int, gelu: bool) -> Mapping[str, Callable[[], Way]]:
    """What makes the ways to compute a layer's product, by their names; making one may raise RuntimeError.

    plain: as torch does it. packed: by oneDNN, on weights in its order. fused: likewise, with GELU in the product.
    """

    def activated(value: Tensor) -> Tensor:
        return torch.ops.aten.gelu_(value) if gelu else value

    def plain() -> Way:
        weight, bias = linear.weight.t(), linear.bias

        def compute(x: Tensor, out: Tensor | None) -> Tensor:
            value = torch.mm(x, weight, out=out) if bias is None else torch.addmm(bias, x, weight, out=out)
            return activated(value)

        return compute

    def by_onednn(post: str) -> Way:
        packed, bias = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), rows), linear.bias

        def compute(x: Tensor, out: Tensor | None) -> Tensor:
            value = torch.ops.mkldnn._linear_pointwise(x, packed, bias, post, [], "none")
            if post == "none":
                value = activated(value)
            return value if out is None else out.copy_(value)

        return compute

    found: dict[str, Callable[[], Way]] = {"plain": plain}
    if torch.backends.mkldnn.is_available() and linear.weight.device.type == "cpu":
        found["packed"] = lambda: by_onednn("none")
        if gelu:
            found["fused"] = lambda: by_onednn("gelu")
    return found


@lru_cache(maxsize=64)
def fastest(inside: int, outside: int, dtype: torch.dtype, gelu: bool, threads: int) -> str:
    """The way that takes the least time here for a layer of this size; "plain" unless another one clearly does.

    threads: that torch computes with; 0 for what is not on a processor, where nothing is tried.
    """
    if not threads or inside * outside < _LEAST_WEIGHTS:
        return "plain"
    generator = torch.Generator().manual_seed(0)  # the process's own is not touched
    with torch.no_grad():
        linear = nn.utils.skip_init(nn.Linear, inside, outside, dtype=dtype)
        linear.weight.copy_(torch.randn(outside, inside, generator=generator))
        linear.bias.zero_()
        x = torch.randn(_TRIED_TOKENS, inside, generator=generator).to(dtype)
        out = x.new_empty(_TRIED_TOKENS, outside)
        made = {}
        for name, make in ways(linear, _TRIED_TOKENS, gelu).items():
            try:
                made[name] = make()
            except RuntimeError:  # oneDNN has no such product for this processor
                continue
        seconds = least_seconds({name: partial(compute, x, out) for name, compute in made.items()})
    best = min(seconds, key=lambda name: seconds[name])
    return best if seconds[best] < _WORTH * seconds["plain"] else "plain"


def _threads(linear: nn.Linear) -> int:
    return torch.get_num_threads() if linear.weight.device.type == "cpu" else 0
