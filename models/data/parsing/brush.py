"""Label Studio's brush strokes: masks packed as the npm package @thi.ng/rle-pack does it.

Bits, the first one the highest of a byte. 32 bits: the number of values, 4 for each pixel (RGBA), row by row. 5 bits: a
value's number of bits less one. Four times 4 bits: numbers of bits less one that a block's length may take. Then for
each block a 1 for a run or a 0 for single values, two bits that say which of these four, the length less one in so many
bits, and the value, or the values.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from models.data.parsing.values import BadValueError, shown
from models.masks.boxes import box_around

_WORD_BITS = 8
_LENGTH_BITS = (3, 4, 8, 16)
_CHANNELS = 4  # all four channels of a pixel are 255 or 0
_HALF = 128  # the opacity from which a pixel belongs to the mask


def pack(mask: np.ndarray) -> bytes:
    """A mask (H, W) bool as the bytes of a brush stroke."""
    longest = 1 << _LENGTH_BITS[-1]
    starts, values = _runs(mask)
    lengths = np.diff(starts, append=mask.size) * _CHANNELS
    # Longer runs are several: as many of the longest as there are, and what is left.
    times = -(-lengths // longest)
    values = np.repeat(values, times)
    last = np.cumsum(times) - 1
    parts = np.full(len(values), longest)
    parts[last] = lengths - (times - 1) * longest
    index = np.searchsorted([1 << size for size in _LENGTH_BITS], parts)
    sizes = np.array(_LENGTH_BITS)[index]
    # A block is a 1, two bits for the number's size, the number in so many bits, and the value.
    codes = ((0b100 | index) << sizes | (parts - 1)) << _WORD_BITS | np.where(values, 255, 0)
    head = f"{mask.size * _CHANNELS:032b}{_WORD_BITS - 1:05b}" + "".join(f"{size - 1:04b}" for size in _LENGTH_BITS)
    blocks = _bits(codes, sizes + 3 + _WORD_BITS)
    return np.packbits(np.concatenate([np.array([bit == "1" for bit in head]), blocks])).tobytes()


def _runs(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where runs of one value begin in the mask's pixels, row by row, and their values.

    Only the box around the object is gone through, whatever the order in memory is.
    """
    around = box_around(mask)
    if around is None:
        return np.zeros(1, np.int64), np.zeros(1, bool)
    (height, width), (left, top, right, bottom) = mask.shape, around
    # With nothing on both sides, each row begins and ends for itself.
    box = np.zeros((bottom - top, right - left + 2), bool)
    box[:, 1:-1] = mask[top:bottom, left:right]
    row, column = np.nonzero(box[:, 1:] != box[:, :-1])
    places = (row + top) * width + column + left
    # A row that ends where the next one begins goes on.
    joins = np.flatnonzero(places[1:] == places[:-1])
    places = np.delete(places, [*joins, *joins + 1])
    starts = places[places < height * width]
    if starts[0] == 0:
        return starts, np.arange(len(starts)) % 2 == 0
    return np.concatenate([[0], starts]), np.arange(len(starts) + 1) % 2 == 1


def _bits(codes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Numbers, each in its number of bits, highest first, as bool one after the other."""
    ends = np.cumsum(sizes)
    places = np.repeat(ends, sizes) - 1 - np.arange(ends[-1])
    return (np.repeat(codes, sizes) >> places & 1).astype(bool)


def unpack(packed: Any, size_hw: tuple[int, int], field: str) -> np.ndarray:
    """The mask (H, W) bool of a stroke: its pixels that are opaque by half or more.

    packed: the bytes, as a list of numbers. Nothing is made of them before it is sure that they are for an image of
    this size. Raises BadValueError.
    """
    if not isinstance(packed, Sequence) or isinstance(packed, str) or len(packed) < 8:
        raise BadValueError(f"{field}: expected a list of bytes, found {shown(packed)}")
    try:
        content = bytes(packed)
    except (TypeError, ValueError):
        raise BadValueError(f"{field}: expected a list of bytes, found {shown(packed)}") from None
    height, width = size_hw
    values = height * width * _CHANNELS
    if (stated := int.from_bytes(content[:4], "big")) != values:
        expected = f"{values} values, 4 for each of the image's {width} x {height} pixels"
        raise BadValueError(f"{field}: expected {expected}, found {stated}")
    flat = np.zeros(height * width, bool)
    bits = _Bits(content)
    bits.take(32)
    word = bits.take(5) + 1
    sizes = [bits.take(4) + 1 for _ in range(4)]
    half = min(_HALF, 1 << (word - 1))
    at = 0
    while at < values:
        is_run, size = bits.take(1), sizes[bits.take(2)]
        length = bits.take(size) + 1
        if bits.ended or at + length > values:
            raise BadValueError(f"{field}: expected runs that fill {values} values, found others")
        if is_run:
            if bits.take(word) >= half:
                # A pixel's opacity is the last of its four values.
                flat[at // _CHANNELS : (at + length) // _CHANNELS] = True
        else:
            for index in range(at, at + length):
                if bits.take(word) >= half and index % _CHANNELS == _CHANNELS - 1:
                    flat[index // _CHANNELS] = True
        at += length
    if bits.ended:
        raise BadValueError(f"{field}: expected runs that fill {values} values, found others")
    return flat.reshape(size_hw)


class _Bits:
    """Numbers of some bits each, one after the other; zeros behind the end."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._at = 0

    @property
    def ended(self) -> bool:
        return self._at > 8 * len(self._content)

    def take(self, count: int) -> int:
        first, self._at = self._at, self._at + count
        start, end = first // 8, -(-self._at // 8)
        window = int.from_bytes(self._content[start:end].ljust(end - start, b"\0"), "big")
        return (window >> (8 * end - self._at)) & ((1 << count) - 1)
