from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from models.segmenter.cuda.cuda_graphs import CaptureError, Graphs

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")


class Recorder:
    """Stands in for a GPU: what it captures runs on the very same tensors each time, into the same outputs."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.replays = 0

    def __call__(
        self, function: Callable[..., tuple[Tensor, ...]], inputs: tuple[Tensor, ...]
    ) -> Callable[[], tuple[Tensor, ...]]:
        self.sizes.append(len(inputs[0]))
        outputs = function(*inputs)

        def replay() -> tuple[Tensor, ...]:
            self.replays += 1
            for output, new in zip(outputs, function(*inputs), strict=True):
                output.copy_(new)
            return outputs

        return replay


def scaled(x: Tensor, y: Tensor, factor: Tensor) -> tuple[Tensor, Tensor]:
    return x * factor, (x + y).sum(1)


def inputs(count: int, width: int = 3, seed: int = 0) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(2, count, width, generator=generator)), (torch.randn(1, generator=generator),)


def test_every_call_gets_its_own_rows_from_few_graphs() -> None:
    recorder = Recorder()
    graphs = Graphs(scaled, sizes=(8, 1, 4), capture=recorder)
    cases = [inputs(count, seed=seed) for seed, count in enumerate((1, 2, 4, 3, 1, 5, 8))]
    results = [graphs(*case) for case in cases]  # all kept until the last one has run
    for (rows, shared), result in zip(cases, results, strict=True):
        torch.testing.assert_close(result, scaled(*rows, *shared))
    assert recorder.sizes == [1, 4, 8]
    assert recorder.replays == len(cases)


def test_what_is_too_many_or_on_a_cpu_runs_plainly() -> None:
    recorder = Recorder()
    rows, shared = inputs(9)
    torch.testing.assert_close(Graphs(scaled, (1, 8), capture=recorder)(rows, shared), scaled(*rows, *shared))
    torch.testing.assert_close(Graphs(scaled, (16,))(rows, shared), scaled(*rows, *shared))
    assert not recorder.sizes


def test_other_shapes_and_dtypes_are_other_graphs_and_the_oldest_go() -> None:
    recorder = Recorder()
    graphs = Graphs(scaled, (1, 4), limit=2, capture=recorder)
    narrow, wide = inputs(1), inputs(1, width=5)
    double = tuple(tuple(x.double() for x in part) for part in narrow)
    for case in (narrow, wide, narrow, double, narrow, wide):  # `double` drives out `wide`, and is driven out by it
        rows, shared = case
        torch.testing.assert_close(graphs(rows, shared), scaled(*rows, *shared))
    assert len(recorder.sizes) == 4


def test_a_failed_capture_is_said_once_and_leaves_plain_calls(caplog: pytest.LogCaptureFixture) -> None:
    attempts = []

    def fail(*_: Any) -> Any:
        attempts.append(1)
        raise CaptureError("operation not permitted when stream is capturing")

    graphs = Graphs(scaled, (1, 4), capture=fail)
    with caplog.at_level(logging.ERROR, "box2mask"):
        for count in (1, 2, 1):
            rows, shared = inputs(count)
            torch.testing.assert_close(graphs(rows, shared), scaled(*rows, *shared))
    assert len(attempts) == len(caplog.records) == 1
    assert "not permitted" in str(caplog.records[0].exc_info)


def test_what_the_function_itself_raises_is_raised() -> None:
    def refuse(x: Tensor) -> tuple[Tensor]:
        raise ValueError("too wide")

    graphs = Graphs(refuse, (1,), capture=Recorder())
    for _ in range(2):
        with pytest.raises(ValueError, match="too wide"):
            graphs((torch.ones(1),))


@needs_cuda
@pytest.mark.parametrize("own_stream", [False, True])
def test_replays_on_a_gpu_are_the_function(own_stream: bool) -> None:
    calls = 0

    def counted(x: Tensor, y: Tensor, factor: Tensor) -> tuple[Tensor, Tensor]:
        nonlocal calls
        calls += 1
        return scaled(x, y, factor)

    graphs = Graphs(counted, (1, 4))
    stream = torch.cuda.Stream() if own_stream else torch.cuda.default_stream()
    with torch.cuda.stream(stream):
        for round_ in range(3):
            for count in (1, 3, 4):
                rows, shared = (tuple(x.cuda() for x in part) for part in inputs(count, seed=10 * round_ + count))
                torch.testing.assert_close(graphs(rows, shared), scaled(*rows, *shared))
    assert calls == 6  # two sizes, each warmed up twice and captured once


@needs_cuda
def test_what_waits_for_the_gpu_cannot_be_captured(caplog: pytest.LogCaptureFixture) -> None:
    def waits(x: Tensor) -> tuple[Tensor]:
        return (x * float(x.sum()),)

    graphs = Graphs(waits, (2,))
    x = torch.tensor([1.0, 2.0], device="cuda")
    for _ in range(2):
        torch.testing.assert_close(graphs((x,))[0], 3 * x)
    assert len(caplog.records) == 1
