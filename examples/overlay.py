"""Ask the service for boxes and masks of one photo and draw them on it: `overlay.py PHOTO OUT.png [URL]`.

The request and the answer are those of `POST /pipeline/score`; the drawing is that of `box2mask run`.
"""

from __future__ import annotations

import base64
import json
import sys
import urllib.request
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from app.overlay import Outlined, draw


def ask(photo: bytes, url: str) -> list[dict[str, Any]]:
    """The boxes of one photo, each with its mask."""
    image = base64.b64encode(photo).decode()
    body = json.dumps({"input_data": {"columns": ["image"], "data": [[image]]}}).encode()
    request = urllib.request.Request(f"{url}/pipeline/score", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as response:
        return json.load(response)[0]["boxes"]


def outlined(box: dict[str, Any], size: tuple[int, int]) -> Outlined:
    """One box of the answer, drawn in a photo of this (width, height)."""
    width, height = size
    corners = box["box"]
    x1, y1, x2, y2 = (corners[key] for key in ("topX", "topY", "bottomX", "bottomY"))
    png = base64.b64decode(box["mask_per_prediction"][0]["encoded_binary_mask"])
    mask = np.asarray(Image.open(BytesIO(png))) > 0  # mode L, 0 or 255, the photo's own size
    return Outlined((x1 * width, y1 * height, x2 * width, y2 * height), f"{box['label']} {box['score']:.2f}", mask)


def main() -> None:
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    photo = Path(sys.argv[1])
    url = sys.argv[3] if len(sys.argv) == 4 else "http://localhost:5001"
    boxes = ask(photo.read_bytes(), url)
    with Image.open(photo) as image:
        draw(image, [outlined(box, image.size) for box in boxes]).save(sys.argv[2])
    print(f"{len(boxes)} objects: {', '.join(box['label'] for box in boxes) or 'none'}; drawn in {sys.argv[2]}")


if __name__ == "__main__":
    main()
