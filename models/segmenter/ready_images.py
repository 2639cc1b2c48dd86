"""The photos of the last clicks, made ready for prompts: as many as fit, so that people may click in turn.

Knows nothing of clients or clicks: it is called by the one thread that decodes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from models.segmenter.decoder import PROJECT_FROM, Images

# Of all photos that are kept ready: four at SAM's full size in float32, with about 60 MB each. The newest one stays,
# whatever it takes.
READY_BYTES = 256 * 2**20


@dataclass(eq=False)
class ReadyImages:
    """Image embeddings made ready for prompts, and how many prompts they have served."""

    features: list[Tensor]
    images: Images
    prompts: int = 0
    nbytes: int = 0

    def measure(self) -> None:
        """Set `nbytes`, what their tensors take, each storage counted once; it grows as prompts need more of them."""
        own = {name: value for name, value in vars(self.images).items() if name not in ("model", "places")}
        storages = {}
        waiting: list[object] = [self.features, own]
        while waiting:
            value = waiting.pop()
            if isinstance(value, Tensor):
                storages[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
            elif isinstance(value, list | tuple | dict):
                waiting += value.values() if isinstance(value, dict) else value
        self.nbytes = sum(storages.values())


class ReadyPhotos:
    """What prompts on an image share, of the images used last."""

    def __init__(self, make: Callable[[list[Tensor]], Images], most_bytes: int = READY_BYTES) -> None:
        """make: image embeddings (C, h, w) -> ready for prompts."""
        self._make = make
        self._most_bytes = most_bytes
        self._ready: OrderedDict[tuple[int, ...], ReadyImages] = OrderedDict()  # used longest ago first
        self._used: set[tuple[int, ...]] = set()  # since they were measured

    def __len__(self) -> int:
        return len(self._ready)

    def of(self, features: list[Tensor], prompts: int) -> Images:
        """These images together, for so many prompts more."""
        key = tuple(map(id, features))  # of tensors that are kept, so that no other has their ids
        ready = self._ready.get(key)
        if ready is None:
            self._make_room()
            ready = self._ready[key] = ReadyImages(features, self._make(features))
        self._ready.move_to_end(key)
        self._used.add(key)
        ready.prompts += prompts
        ready.images.projected = ready.prompts >= PROJECT_FROM * len(features)
        return ready.images

    def let_go(self) -> None:
        """Between two batches: drop many images at once, which are no row of clicks and large, and what is too much."""
        for key in [key for key in self._ready if len(key) > 1]:
            del self._ready[key]
        self._measure()
        while len(self._ready) > 1 and self._bytes() > self._most_bytes:
            self._ready.popitem(last=False)

    def clear(self) -> None:
        """Drop all."""
        self._ready.clear()

    def _make_room(self) -> None:
        """For one more, before it needs the memory: it will be about as large as the largest of the others."""
        self._measure()
        largest = max((ready.nbytes for ready in self._ready.values()), default=0)
        while self._ready and self._bytes() + largest > self._most_bytes:
            self._ready.popitem(last=False)

    def _measure(self) -> None:
        for key in self._used & self._ready.keys():
            self._ready[key].measure()
        self._used.clear()

    def _bytes(self) -> int:
        return sum(ready.nbytes for ready in self._ready.values())
