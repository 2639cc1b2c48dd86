"""A function of tensors as CUDA graphs: one for each size of its batch, replayed in a single launch.

Knows tensors and streams, nothing of models. A network of hundreds of small kernels takes the processor longer to
launch than the GPU to compute; a graph is launched at once, but for fixed shapes and addresses only.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import torch
from torch import Tensor

log = logging.getLogger("box2mask")

Function = Callable[..., tuple[Tensor, ...]]
# Runs a function on these very tensors, now and whenever it is called again; returns the same outputs each time.
Replay = Callable[[], tuple[Tensor, ...]]
# The first runs load kernels, compile them, and take workspaces, none of which a capture may do.
WARM_UPS = 2
# PyTorch captures one graph at a time in a process.
_CAPTURING = threading.Lock()


class CaptureError(RuntimeError):
    """The function, or this machine, does not let itself be captured."""


class Graphs:
    """A function whose batch has one of a few sizes, each captured when it first comes.

    function: rows and shared tensors -> tensors with a row for each of `rows`; it must depend on nothing else that
    changes and not wait for the device. What is given is copied to where the graph reads it, and what comes out is
    a copy. A batch is filled up to the next of `sizes` with rows of earlier calls; one larger than all of them is
    not captured. Where a capture fails, that is logged once, and all calls are plain calls from then on.

    Belongs to one thread at a time, and captures and replays on its current stream.
    """

    def __init__(
        self,
        function: Function,
        sizes: Sequence[int],
        limit: int = 8,
        capture: Callable[[Function, tuple[Tensor, ...]], Replay] | None = None,
    ) -> None:
        """limit: graphs kept; the one used longest ago goes first.

        capture: makes a graph. By default one of CUDA's, and what is on a CPU is not captured.
        """
        self._function = function
        self._sizes = sorted(sizes)
        self._limit = limit
        self._capture = capture
        self._graphs: OrderedDict[Hashable, tuple[tuple[Tensor, ...], Replay]] = OrderedDict()
        self._captures: dict[tuple[torch.device, int], StreamCapture] = {}
        self._broken = False

    @torch.inference_mode()
    def __call__(self, rows: tuple[Tensor, ...], shared: tuple[Tensor, ...] = ()) -> tuple[Tensor, ...]:
        """function(*rows, *shared). rows: tensors of the same length, at least 1. shared: others, for all rows."""
        count, device = len(rows[0]), rows[0].device
        size = next((size for size in self._sizes if size >= count), None)
        on_cuda = device.type == "cuda"
        if size is None or self._broken or not (on_cuda or self._capture):
            return self._function(*rows, *shared)
        # Streams do not wait for each other, so a graph that two of them replayed would run into itself.
        stream = torch.cuda.current_stream(device).cuda_stream if on_cuda else 0
        shapes = tuple((x.dtype, x.shape[1:]) for x in rows) + tuple((x.dtype, x.shape) for x in shared)
        key = (device, stream, size, shapes)
        if key not in self._graphs:
            inputs = tuple(_filled_up(x, size) for x in rows) + tuple(x.clone() for x in shared)
            capture = self._capture or self._captures.get((device, stream))
            if capture is None:
                capture = self._captures[device, stream] = StreamCapture(device)
            try:
                replay = capture(self._function, inputs)
            except CaptureError:
                log.exception("No CUDA graphs: kernels are launched one by one from now on")
                self._broken = True
                if on_cuda:  # they may still run
                    torch.cuda.current_stream(device).synchronize()
                self._graphs.clear()
                return self._function(*rows, *shared)
            self._graphs[key] = inputs, replay
            if len(self._graphs) > self._limit:
                if on_cuda:  # it may still run
                    torch.cuda.current_stream(device).synchronize()
                self._graphs.popitem(last=False)
        self._graphs.move_to_end(key)
        inputs, replay = self._graphs[key]
        for static, given in zip(inputs, (*rows, *shared), strict=True):
            (static if static.shape == given.shape else static[:count]).copy_(given, non_blocking=True)
        return tuple(output[:count].clone() for output in replay())


class StreamCapture:
    """Makes graphs on the stream that is current when it is made, or on a new one where that cannot capture.

    Its graphs share their memory, which is safe since they run one after the other and nothing of an earlier one's
    is needed but its outputs, which are its own.
    """

    def __init__(self, device: torch.device) -> None:
        current = torch.cuda.current_stream(device)
        is_default = current == torch.cuda.default_stream(device)
        self._stream = torch.cuda.Stream(device) if is_default else current
        self._pool: Any = torch.cuda.graph_pool_handle()

    def __call__(self, function: Function, inputs: tuple[Tensor, ...]) -> Replay:
        """The function's kernels on `inputs`, as a graph.

        Raises CaptureError; what the function itself raises before the capture is raised as it is.
        """
        current = torch.cuda.current_stream(self._stream.device)
        self._stream.wait_stream(current)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.device(self._stream.device), torch.cuda.stream(self._stream):
            for _ in range(WARM_UPS):
                function(*inputs)
            try:
                # thread_local: what another thread launches, allocates or waits for meanwhile does no harm.
                with (
                    _CAPTURING,
                    torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"),
                ):
                    outputs = function(*inputs)
            except torch.OutOfMemoryError:
                raise  # for whoever can make room
            except RuntimeError as error:
                raise CaptureError(str(error)) from error
        current.wait_stream(self._stream)

        def replay() -> tuple[Tensor, ...]:
            graph.replay()
            return outputs

        return replay


def _filled_up(rows: Tensor, size: int) -> Tensor:
    """A copy of (n, ...) as (size, ...), its last row repeated: values that the function is used to."""
    return torch.cat([rows, rows[-1:].expand(size - len(rows), *rows.shape[1:])])
