"""What embeddings are kept by.

A key is made of an image's content alone, never of what a client calls it, so nobody can be given the embedding of
another image.

    content_key      an image's file -> its key
    part_key         the key of a part of it
"""

from __future__ import annotations

import hashlib


def content_key(image: bytes, *, exif_orientation: bool) -> str:
    """The key of an image: SHA-256 over all that decides its pixels, as 64 hex digits.

    image: the encoded file as it came, so that a known image need not even be decoded. exif_orientation: whether
    it will be turned as its EXIF says. Takes a millisecond per MB or so, mostly without the GIL.
    """
    # SHA-256 has instructions of its own in processors: twice as fast as BLAKE2b where they are.
    digest = hashlib.sha256(b"file, upright\n" if exif_orientation else b"file\n")
    digest.update(image)
    return digest.hexdigest()


def part_key(key: str, box_xyxy: tuple[int, int, int, int]) -> str:
    """The key of a part of the image of that `key`, as 64 hex digits. box_xyxy: in whole pixels of the image."""
    return hashlib.sha256(f"part {box_xyxy} of {key}".encode()).hexdigest()
