"""Masks as prompts in a row of a request: base64 of an earlier mask's logits, or of a binary mask as a PNG file.

What a row has is read before its image is known, to bytes; `mask_logits` makes logits of them when it is.
"""

from __future__ import annotations

import binascii
import json
import re
from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np

from app.contract import causes
from app.contract.literals import is_nothing
from app.errors import BadRequest
from models.images.decoding import ImageError, opened
from models.images.formats import file_format, name
from models.types import Prompts

MASKS = "input_masks"
# What float16 holds; logits are a few tens, and beyond some size a network's numbers are none.
LARGEST = 65504.0

_EXPECTED = "expected base64 of logits, or of a mask as a PNG file"
_STANDARD = bytes.maketrans(b"-_", b"+/")
# A list as Python's str() writes it.
_ITEM = re.compile(r"""\s*(?:'([^']*)'|"([^"]*)"|(None|null))\s*(?:,|$)""")
_NPY = b"\x93NUMPY"
_OF_COLOURS = ("P", "PA", "LA", "RGB", "RGBA")  # Pillow's modes that hold more than a grey

Fault = Callable[[str], BadRequest]


def read_masks(value: object, row: int) -> tuple[bytes | None, ...] | None:
    """A row's masks as bytes, one for each prompt, None where it has none; None where nothing stands there.

    value: one text, a list of texts and nulls, or the text of such a list. Raises BadRequest.
    """

    def fault(found: str) -> BadRequest:
        return BadRequest(f"{_EXPECTED}, one for each prompt, got {found}", row=row, column=MASKS)

    if isinstance(value, str) and value[:64].lstrip().startswith("["):
        value = _list(value.strip(), fault)
    if is_nothing(value):
        return None
    if isinstance(value, dict) and "counts" in value:
        raise fault("run lengths; send the mask as a PNG file")
    values = value if isinstance(value, list | tuple) else [value]
    while len(values) == 1 and isinstance(values[0], list | tuple) and not values[0]:
        values = values[0]  # an empty list, in any number of brackets
    return tuple(None if is_nothing(one) else _bytes(one, fault) for one in values)


def with_masks(
    prompts: Prompts | None, masks: tuple[bytes | None, ...] | None, row: int
) -> tuple[Prompts | None, tuple[bytes | None, ...] | None]:
    """A row's other prompts and its masks, which belong together one by one; masks may stand alone.

    prompts: as `read_prompts` gives them. Raises BadRequest where there are not as many.
    """
    if masks is None:
        return prompts, None
    alone = prompts is None or (prompts.points_xy is None and prompts.boxes_xyxy is None)
    if not masks:
        return (None if alone else prompts), None
    if alone and all(masks):
        return Prompts(), masks
    if alone:
        expected = "a mask for each prompt, as this row has no points and no boxes"
        raise BadRequest(f"expected {expected}, got null for prompt {masks.index(None)}", row=row, column=MASKS)
    assert prompts is not None
    if len(masks) != len(prompts):
        cause = "null stands for none" if len(masks) < len(prompts) else "masks of other objects stand in another row"
        raise BadRequest(
            f"expected one mask for each prompt ({len(prompts)}), got {len(masks)}; {cause}", row=row, column=MASKS
        )
    return prompts, masks if any(masks) else None


def mask_logits(
    masks: tuple[bytes | None, ...],
    size_hw: tuple[int, int],
    side: int,
    logits_of_mask: Callable[[np.ndarray], np.ndarray],
    row: int,
) -> tuple[np.ndarray | None, ...]:
    """What `Prompts.mask_logits` is to be, float16 or float32. Raises BadRequest.

    size_hw: the image's. side: of the segmenter's logits. logits_of_mask: what it makes of a mask (H, W) bool.
    """

    def logits(number: int, data: bytes) -> np.ndarray:
        def fault(message: str) -> BadRequest:
            return BadRequest(f"mask {number}: {message}", row=row, column=MASKS)

        if file_format(data) is not None:
            return logits_of_mask(_binary(data, size_hw, fault))
        return _logits(data, side, fault)

    return tuple(None if data is None else logits(number, data) for number, data in enumerate(masks))


def _list(text: str, fault: Fault) -> Any:
    """The list in a text: JSON, or as Python's str() writes a list of texts."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    items, place, inner = [], 0, text[1:-1].rstrip()
    while text.endswith("]") and place < len(inner):
        item = _ITEM.match(inner, place)
        if item is None:
            break
        items.append(None if item[3] else item[1] or item[2] or "")
        place = item.end()
    if not text.endswith("]") or place < len(inner):
        raise fault(f"{causes.short(text)!r}, which is not a list of texts")
    return items


def _bytes(value: object, fault: Fault) -> bytes:
    if isinstance(value, list | tuple):
        if _has_numbers(value):
            raise fault("a list of numbers; send base64 of array.astype('float16').tobytes()")
        raise fault("a list within the list")
    if not isinstance(value, str):
        raise fault(causes.kind(value))
    text = value.partition(",")[2] if value[:64].lstrip().lower().startswith("data:") else value
    try:
        encoded = text.encode("ascii").translate(_STANDARD, delete=b" \t\r\n\v\f")
        data = binascii.a2b_base64(encoded + b"=" * (-len(encoded) % 4), strict_mode=True)
    except (UnicodeEncodeError, binascii.Error) as error:
        cause = "; URLs are fetched for images alone" if value[:8].lower().startswith("http") else ""
        raise fault(f"{causes.short(value)!r}, which is not base64{cause}") from error
    if not data:
        raise fault("no bytes")
    return data


def _has_numbers(value: object) -> bool:
    while isinstance(value, list | tuple) and value:
        value = value[0]
    return isinstance(value, int | float)


def _logits(data: bytes, side: int, fault: Fault) -> np.ndarray:
    """Logits (side, side) of a .npy file, or of the raw array."""
    expected = f"expected logits of {side} x {side}, as this segmenter gives them"
    if data.startswith(_NPY):
        array = _npy(data, side, expected, fault)
    else:
        sizes = {side * side * np.dtype(kind).itemsize: kind for kind in ("<f2", "<f4")}
        if len(data) not in sizes:
            found = " or ".join(f"{size} bytes ({np.dtype(kind).name})" for size, kind in sizes.items())
            raise fault(f"{expected}: {found}, a .npy or a PNG file, got {len(data)} bytes of something else")
        array = np.frombuffer(data, sizes[len(data)]).reshape(side, side)
    with np.errstate(invalid="ignore"):
        if not (np.abs(array) <= LARGEST).all():  # nor is NaN
            raise fault(f"expected logits from -{LARGEST:g} to {LARGEST:g}, got others or NaN among them")
    return array.astype(np.float16 if array.dtype.itemsize == 2 else np.float32)


def _npy(data: bytes, side: int, expected: str, fault: Fault) -> np.ndarray:
    """The array (side, side) of a .npy file; no memory is taken on the file's own word for its size."""
    file = BytesIO(data)
    try:
        major = np.lib.format.read_magic(file)[0]
        read = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}[major]
        shape, fortran, dtype = read(file)
    except (ValueError, KeyError) as error:
        raise fault("the .npy file is damaged, or of a kind that holds no array of numbers") from error
    if dtype.kind != "f" or dtype.itemsize > 8:
        cause = "; send a binary mask as a PNG file" if dtype.kind in "biu" else ""
        raise fault(f"expected float16, float32 or float64 in the .npy file, got {dtype}{cause}")
    trimmed = tuple(shape[max(0, len(shape) - 2) :])
    if trimmed != (side, side) or any(one != 1 for one in shape[:-2]):
        several = len(shape) > 2 and trimmed == (side, side)
        cause = "; choose one of them, and send one file for each prompt" if several else ""
        raise fault(f"{expected}, got {' x '.join(map(str, shape)) or 'a single number'}{cause}")
    values = data[file.tell() :]
    if len(values) != side * side * dtype.itemsize:
        raise fault(f"the .npy file is truncated: expected {side * side} numbers of {dtype}")
    return np.frombuffer(values, dtype).reshape((side, side), order="F" if fortran else "C")


def _binary(data: bytes, size_hw: tuple[int, int], fault: Fault) -> np.ndarray:
    """A PNG file's mask (H, W) bool: what is neither black nor transparent, all of it of one colour."""
    kind, (height, width) = file_format(data), size_hw
    if kind != "PNG":
        raise fault(f"expected a PNG file, which keeps a mask's pixels, got {name(str(kind))}")
    try:
        with opened(data) as image:
            size, mode = image.size, image.mode
        if size == (width, height):
            with opened(data) as image:
                image.load()
                pixels = np.asarray(image.convert("RGBA") if mode in _OF_COLOURS else image)
    except ImageError as error:
        raise fault(str(error)) from error
    if size != (width, height):
        cause = '; was the photo turned? See "exif_orientation"' if size == (height, width) else ""
        expected = f"expected the image's size, {width} x {height} (width x height)"
        raise fault(f"{expected}, got {size[0]} x {size[1]}{cause}")
    if mode in _OF_COLOURS:
        colours = np.ascontiguousarray(pixels).view("<u4")[..., 0]  # the highest byte is the opacity
        pixels = np.where((colours >> 24 > 0) & (colours & 0xFFFFFF > 0), colours, 0)
    things = pixels[pixels != 0]
    if not things.size:
        raise fault("expected a mask of something, got black alone; null stands for no mask")
    if things.min() != things.max():
        raise fault("expected black and one other colour, got more; is it smoothed, or of several objects?")
    return np.asarray(pixels != 0)
