"""What the masks of one request may cost, and what they have cost so far."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from app.errors import BadRequest
from models.tiles import Tiling

if TYPE_CHECKING:
    from app.settings import Settings


@dataclass(frozen=True)
class AnswerLimits:
    """What the masks of one request may cost.

    mask_pixels: of all masks, prompts x masks x H x W, known before they are made. It bounds work, for of the masks
    themselves only those in the pool's hands are in memory (see docs/reliability.md). bytes: of all masks as encoded.
    tiles: of all images, each of which a network sees as an image of its own.
    """

    mask_pixels: int = 50_000_000_000
    bytes: int = 256 * 2**20
    tiles: int = 1024

    @classmethod
    def of(cls, settings: Settings) -> AnswerLimits:
        """As the settings have them."""
        return cls(settings.max_mask_pixels, int(settings.max_response_mb * 2**20))


@dataclass(eq=False)
class AnswerCost:
    """What the masks of one request cost so far."""

    limits: AnswerLimits
    mask_pixels: int = 0
    bytes: int = 0
    tiles: int = 0

    def plan(self, prompts: int, multimask: bool, size_hw: tuple[int, int]) -> None:
        """Count masks that will be made. Raises BadRequest."""
        masks_of_each = 3 if multimask else 1
        self.mask_pixels += prompts * masks_of_each * size_hw[0] * size_hw[1]
        if self.mask_pixels > self.limits.mask_pixels:
            raise BadRequest(
                f"expected at most {self.limits.mask_pixels} pixels in all masks of a request, got more with {prompts} "
                f"prompts x {masks_of_each} masks x {size_hw[1]} x {size_hw[0]} (width x height)"
            )

    def plan_tiles(self, tiling: Tiling | None, size_hw: tuple[int, int], row: int) -> None:
        """Count the tiles of the image of that row, in which it will be looked at. Raises BadRequest."""
        if tiling is None:
            return
        count, before = tiling.count(size_hw), self.tiles
        self.tiles += count
        if self.tiles > self.limits.tiles:
            limit, size = self.limits.tiles, f"{size_hw[1]} x {size_hw[0]}"
            more = f" after {before} of other images" if before else ""
            raise BadRequest(
                f"params.tiles: expected at most {limit} tiles in all images of a request, got {count}{more}, with a "
                f"side of {tiling.side} and an overlap of {tiling.overlap:g} in an image of {size} (width x height): "
                f"take tiles of {_smallest(tiling, size_hw, limit)} pixels or larger, or send fewer images at once",
                row=row,
            )

    def plan_prompts(self, tiles: int, row: int) -> None:
        """Count the tiles of that row's image in which there are prompts for small things. Raises BadRequest."""
        self.tiles += tiles
        if self.tiles > self.limits.tiles:
            raise BadRequest(
                f"params.tiles: expected prompts in at most {self.limits.tiles} tiles in a request, got {self.tiles}: "
                "take larger tiles, or send fewer prompts at once",
                row=row,
            )

    def add(self, encoded: list[dict[str, Any]]) -> None:
        """Count masks as they are encoded. Raises BadRequest."""
        self.bytes += sum(_size(value) for mask in encoded for value in mask.values())
        if self.bytes > self.limits.bytes:
            raise BadRequest(
                f"expected at most {self.limits.bytes} bytes of masks in a response, got more: ask for fewer at once, "
                'or for params.mask_format "rle"'
            )

    def take_back(self, encoded: list[dict[str, Any]]) -> None:
        """Count masks no more that others take the place of."""
        self.bytes -= sum(_size(value) for mask in encoded for value in mask.values())


def _smallest(tiling: Tiling, size_hw: tuple[int, int], most: int) -> int:
    """The smallest side, at this overlap, of which no more tiles are needed."""
    fewest, enough = 1, max(size_hw)
    while fewest < enough:
        middle = (fewest + enough) // 2
        if replace(tiling, side=middle).count(size_hw) > most:
            fewest = middle + 1
        else:
            enough = middle
    return enough


def _size(encoded: object) -> int:
    """What an encoded mask or score takes in memory, where that is more than a few bytes."""
    if isinstance(encoded, str):
        return len(encoded)
    if isinstance(encoded, dict):
        return sum(map(_size, encoded.values()))
    if isinstance(encoded, list):  # polygons: Python's floats, and the list's references to them
        return sum(32 * len(one) if isinstance(one, list) else 0 for one in encoded)
    return 0
