"""Images that clients have sent before, so that a request may name one by its hash in place of its content.

Knows nothing of HTTP. An image belongs to the client that sent it: to everybody else it is as if it were not there.
"""

from __future__ import annotations

import hashlib
import re
from collections import OrderedDict
from dataclasses import dataclass, field

_REFERENCE = re.compile(r"sha256:[0-9a-f]{64}")


def reference_of(image: bytes) -> str:
    """What stands for an image's file in a request: "sha256:" and the SHA-256 of its bytes, 64 hex digits."""
    return f"sha256:{hashlib.sha256(image).hexdigest()}"


def is_reference(value: object) -> bool:
    """Whether a request's image is such a name, known or not; no base64 text and no URL can be one."""
    return isinstance(value, str) and _REFERENCE.fullmatch(value) is not None


@dataclass(eq=False)
class StoredImage:
    """A file that a client has sent, and what was computed of it.

    keys: what stands for its pixels, as stored and turned by its EXIF; see `app.engine.keys.content_key`.
    """

    file: bytes
    keys: dict[bool, str] = field(default_factory=dict)


class ImageStore:
    """The encoded files used last, of all clients together, as many as fit. All calls are made in one event loop.

    client: whoever asks, "" where nobody is told apart.
    """

    def __init__(self, budget_bytes: int) -> None:
        """budget_bytes: of the files; 0 keeps none."""
        self.budget_bytes = budget_bytes
        self._images: OrderedDict[tuple[str, str], StoredImage] = OrderedDict()  # used longest ago first
        self._bytes = 0

    def put(self, client: str, reference: str, image: bytes) -> None:
        """Keep a file under its `reference_of`, and let go of others for it. Raises ValueError where it never fits."""
        if len(image) > self.budget_bytes:
            raise ValueError(f"expected at most {self.budget_bytes} bytes, got {len(image)}")
        stored = self._images.setdefault((client, reference), StoredImage(b""))
        self._bytes += len(image) - len(stored.file)
        stored.file = image
        self._images.move_to_end((client, reference))
        while self._bytes > self.budget_bytes:
            self._bytes -= len(self._images.popitem(last=False)[1].file)

    def get(self, client: str, reference: str) -> StoredImage | None:
        """The image, if this client has sent it and it is still here; it counts as used."""
        stored = self._images.get((client, reference))
        if stored is not None:
            self._images.move_to_end((client, reference))
        return stored
