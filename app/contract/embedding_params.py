"""What an address may ask of an image's embedding: `/images/{reference}/embedding?dtype=float16`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from app.errors import BadRequest

# By name the values that there are; the first stands where nothing is asked.
PARAMS: dict[str, tuple[str, ...]] = {"dtype": ("float32", "float16"), "exif_orientation": ("false", "true")}


@dataclass(frozen=True)
class EmbeddingParams:
    """dtype: of the numbers in the file. exif_orientation: whether the image is turned as its EXIF says."""

    dtype: str
    exif_orientation: bool

    @classmethod
    def read(cls, query: Mapping[str, str]) -> EmbeddingParams:
        """Raises BadRequest for another name or value."""
        for name, value in query.items():
            if name not in PARAMS:
                raise BadRequest(f"{name[:40]}: expected {' or '.join(PARAMS)} in the address, got another name")
            if value not in PARAMS[name]:
                raise BadRequest(f"{name}: expected {' or '.join(PARAMS[name])}, got {value[:40]!r}")
        asked = {name: query.get(name, values[0]) for name, values in PARAMS.items()}
        return cls(asked["dtype"], asked["exif_orientation"] == "true")
