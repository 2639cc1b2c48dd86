"""Image files that are cheap to send and dear to read, by name; each is a valid file, or nearly one, of its format.

Those with a size are of about that many bytes; `decompression_bomb` is a whole PNG of 50,000 x 50,000 pixels.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from io import BytesIO

from PIL import Image

Bomb = Callable[[int], bytes]

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PIXELS = zlib.compress((b"\0" + bytes(24)) * 8)  # of 8 x 8, RGB
_GIF_IMAGE = b",\0\0\0\0"


def decompression_bomb(side: int = 50_000) -> bytes:
    """A PNG (side, side) of 16-bit zeros that would decode: 5 GB out of 5.4 MB.

    A deflate block after a full flush knows nothing of those before it, so one of them, repeated, is the picture.
    """
    row = bytes(1 + 2 * side)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = packer.compress(row) + packer.flush(zlib.Z_FULL_FLUSH)
    checksum = ((side * len(row)) % 65521) << 16 | 1  # Adler-32 of that many zeros
    packed = b"\x78\xda" + block * side + packer.flush(zlib.Z_FINISH) + struct.pack(">I", checksum)
    return _SIGNATURE + _header(side, side, 16, 0) + _chunk(b"IDAT", packed) + _chunk(b"IEND", b"")


def progressive_scans(scans: int, side: int = 10_000) -> bytes:
    """A grey progressive JPEG (side, side) whose every scan says of all blocks that nothing changes."""
    small = _saved(Image.new("L", (16, 16), 128), "JPEG", progressive=True)
    header = bytearray(small[: small.index(b"\xff\xda")])
    struct.pack_into(">HH", header, small.index(b"\xff\xc2") + 5, side, side)
    # One Huffman code, a single bit: a run of 2^14 and more blocks, whose length follows in 14 bits.
    table = b"\xff\xc4" + struct.pack(">H", 20) + b"\x10" + bytes([1, *[0] * 15]) + b"\xe0"
    bits, left = "", (-(-side // 8)) ** 2
    while left > 0:
        run = max(min(left, 32767), 16384)
        bits += "0" + format(run - 16384, "014b")
        left -= run
    bits += "1" * (-len(bits) % 8)
    coded = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0")
    return bytes(header) + table + (b"\xff\xda\0\x08\x01\x01\0\x01\x3f\0" + coded) * scans + b"\xff\xd9"


def _png(before: bytes = b"", data: bytes = b"", after: bytes = b"") -> bytes:
    image = data + _chunk(b"IDAT", _PIXELS)
    return _SIGNATURE + _header(8, 8) + before + image + after + _chunk(b"IEND", b"")


def _gif(before_image: bytes) -> bytes:
    small = _saved(_picture().convert("P"), "GIF")
    place = small.index(_GIF_IMAGE)
    return small[:place] + before_image + small[place:]


def _gif_frames(size: int) -> bytes:
    small = _saved(_picture().convert("P"), "GIF")
    frame = small[small.index(_GIF_IMAGE) : -1]
    return small[:-1] + frame * (size // len(frame)) + b";"


def _jpeg(after_start: bytes) -> bytes:
    small = _saved(_picture(), "JPEG")
    return small[:2] + after_start + small[2:]


def _jpeg_photoshop(size: int) -> bytes:
    body = b"Photoshop 3.0\0" + (b"8BIM\0\1\0\0" + bytes(4)) * 5000
    segment = b"\xff\xed" + struct.pack(">H", len(body) + 2) + body
    return _jpeg(segment * (size // len(segment)))


def _tiff(size: int, long_tag: int, item: int) -> bytes:
    """A TIFF one of whose tags has as many values of `item` bytes as fit in `size`."""
    count = size // item
    height = count if long_tag == 273 else 8
    tags = {256: (4, 1, 8), 257: (4, 1, height), 258: (3, 1, 8), 259: (3, 1, 1), 262: (3, 1, 1)}
    tags |= {273: (4, 1, 200), 277: (3, 1, 1), 278: (4, 1, 1), 279: (4, 1, 64)}
    tags[long_tag] = ({2: 3, 4: 4}[item], count, 200)
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", tag, *tags[tag]) for tag in sorted(tags))
    head = (b"II*\0\x08\0\0\0" + directory + bytes(4)).ljust(200, b"\0")
    return head + struct.pack({2: "<H", 4: "<I"}[item], 8) * count


def _webp(chunks: bytes, flags: int = 0) -> bytes:
    """The picture behind more chunks; flags: 2 for an animation."""
    content = b"WEBP" + b"VP8X" + struct.pack("<IB3x", 10, flags) + struct.pack("<I", 63)[:3] * 2 + chunks
    if not flags:
        content += _webp_picture()
    return b"RIFF" + struct.pack("<I", len(content)) + content


def _webp_frames(size: int) -> bytes:
    body = bytes(6) + struct.pack("<I", 63)[:3] * 2 + b"\x0a\0\0\0" + _webp_picture()
    frame = b"ANMF" + struct.pack("<I", len(body)) + body
    return _webp(b"ANIM" + struct.pack("<I", 6) + bytes(6) + frame * (size // len(frame)), flags=2)


def _webp_picture() -> bytes:
    chunk = _saved(_picture(), "WEBP", lossless=True, quality=0, method=0)[12:]
    return chunk + b"\0" * (len(chunk) % 2)


def _bmp_runs(size: int) -> bytes:
    info = struct.pack("<IiiHHIIiiII", 40, 10_000, 10_000, 1, 8, 1, size, 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", 0, 0, 0, 54 + 1024) + info + bytes(1024) + b"\x01\x05" * (size // 2)


def _exif(size: int) -> bytes:
    """TIFF whose orientation has that many values."""
    directory = struct.pack("<HHHII", 1, 0x0112, 3, size // 2, 26) + bytes(4)
    return b"II*\0\x08\0\0\0" + directory + bytes(size)


# What Pillow alone takes minutes or gigabytes for, at the 64 MB that a file may have.
REFUSED: dict[str, Bomb] = {
    "PNG, empty chunks": lambda size: _png(before=_chunk(b"prVt", b"") * (size // 12)),
    "PNG, text that inflates to 200 MB": lambda size: _png(
        before=_chunk(b"zTXt", b"x\0\0" + zlib.compress(bytes(200 * 2**20)))
    ),
    "PNG, profile that inflates to 200 MB": lambda size: _png(
        before=_chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(200 * 2**20)))
    ),
    "GIF, comments": lambda size: _gif(b"!\xfe\x01x\0" * (size // 5)),
    "JPEG, empty segments": lambda size: _jpeg(b"\xff\xe5\0\2" * (size // 4)),
    "JPEG, EXIF segments": lambda size: _jpeg((b"\xff\xe1\xff\xff" + b"Exif\0\0" + bytes(65527)) * (size // 65537)),
    "JPEG, Photoshop segments": _jpeg_photoshop,
    "JPEG, fill bytes": lambda size: _jpeg(b"\xff" * size),
    "JPEG, scans of 10,000 x 10,000": lambda size: progressive_scans(min(2000, size // 200)),
    "TIFF, strips": lambda size: _tiff(size, 273, 4),
    "TIFF, bits per sample": lambda size: _tiff(size, 258, 2),
    "TIFF, widths": lambda size: _tiff(size, 256, 4),
    "WebP, empty chunks": lambda size: _webp((b"abcd" + bytes(4)) * (size // 8)),
    "WebP, frames": _webp_frames,
    "BMP, runs": _bmp_runs,
}
# What costs little, or what a picture of that size costs: at a megabyte these are decoded.
DECODED: dict[str, Bomb] = {
    "GIF, frames": _gif_frames,
    "GIF, one long comment": lambda size: _gif(b"!\xfe" + (b"\xff" + b"x" * 255) * (size // 256) + b"\0"),
    "PNG, text of 1 MB each": lambda size: _png(
        before=b"".join(_chunk(b"zTXt", b"%d\0\0" % n + zlib.compress(bytes(2**20 - 1))) for n in range(60))
    ),
    "PNG, orientations": lambda size: _png(before=_chunk(b"eXIf", _exif(size))),
    "PNG, frames": lambda size: _png(
        before=_chunk(b"acTL", struct.pack(">II", 2**31 - 1, 0)),
        after=_chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, 8, 8, 0, 0, 1, 1, 0, 0)) * min(size // 38, 50_000),
    ),
    "JPEG, 20 scans of 10,000 x 10,000": lambda size: progressive_scans(20),
}


def _picture() -> Image.Image:
    return Image.new("RGB", (64, 64), (200, 10, 30))


def _saved(image: Image.Image, file_format: str, **options: object) -> bytes:
    buffer = BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def _header(width: int, height: int, depth: int = 8, colour_type: int = 2) -> bytes:
    return _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0))


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
