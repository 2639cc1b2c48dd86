"""What an address may ask of an embedding: `?dtype=float16` of it, and `?embed=true` of an image that is sent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from app.errors import BadRequest

# By name the values that there are; the first stands where nothing is asked.
PARAMS: dict[str, tuple[str, ...]] = {"dtype": ("float32", "float16"), "exif_orientation": ("false", "true")}
# The same of `POST /images`; other names are ignored there.
AHEAD: dict[str, tuple[str, ...]] = {"embed": ("false", "true"), "exif_orientation": ("false", "true")}


@dataclass(frozen=True)
class EmbeddingParams:
    """dtype: of the numbers in the file. exif_orientation: whether the image is turned as its EXIF says."""

    dtype: str
    exif_orientation: bool

    @classmethod
    def read(cls, query: Mapping[str, str]) -> EmbeddingParams:
        """Raises BadRequest for another name or value."""
        for name in query:
            if name not in PARAMS:
                raise BadRequest(f"{name[:40]}: expected {' or '.join(PARAMS)} in the address, got another name")
        asked = _asked(query, PARAMS)
        return cls(asked["dtype"], asked["exif_orientation"] == "true")


@dataclass(frozen=True)
class AheadParams:
    """Of an image that is sent: whether it is encoded at once, and then whether turned as its EXIF says."""

    embed: bool
    exif_orientation: bool

    @classmethod
    def read(cls, query: Mapping[str, str]) -> AheadParams:
        """Raises BadRequest for another value."""
        if "embed" not in query:
            return cls(False, False)
        asked = _asked(query, AHEAD)
        return cls(asked["embed"] == "true", asked["exif_orientation"] == "true")


def _asked(query: Mapping[str, str], params: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    asked = {name: query.get(name, values[0]) for name, values in params.items()}
    for name, value in asked.items():
        if value not in params[name]:
            raise BadRequest(f"{name}: expected {' or '.join(params[name])}, got {value[:40]!r}")
    return asked
