"""Ask the service for boxes and masks of one photo and draw them on it: `overlay.py PHOTO OUT.png [URL]`.

Needs only Pillow. The request and the answer are those of `POST /pipeline/score`.
"""

from __future__ import annotations

import base64
import json
import sys
import urllib.request
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

COLORS = [(230, 57, 70), (29, 137, 228), (46, 178, 92), (244, 162, 40), (140, 82, 200), (0, 170, 170)]


def ask(photo: bytes, url: str) -> list[dict[str, Any]]:
    """The boxes of one photo, each with its mask."""
    image = base64.b64encode(photo).decode()
    body = json.dumps({"input_data": {"columns": ["image"], "data": [[image]]}}).encode()
    request = urllib.request.Request(f"{url}/pipeline/score", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as response:
        return json.load(response)[0]["boxes"]


def draw(photo: Image.Image, boxes: list[dict[str, Any]]) -> Image.Image:
    """The photo with every mask tinted, outlined by its box, and named."""
    picture = photo.convert("RGB")
    width, height = picture.size
    for number, box in enumerate(boxes):
        color = COLORS[number % len(COLORS)]
        png = base64.b64decode(box["mask_per_prediction"][0]["encoded_binary_mask"])
        mask = Image.open(BytesIO(png))  # mode L, 0 or 255, the photo's own size
        tint = Image.blend(picture, Image.new("RGB", picture.size, color), 0.55)
        picture = Image.composite(tint, picture, mask)
        corners = box["box"]
        left, top = corners["topX"] * width, corners["topY"] * height
        right, bottom = corners["bottomX"] * width, corners["bottomY"] * height
        pen = ImageDraw.Draw(picture)
        pen.rectangle((left, top, right, bottom), outline=color, width=max(2, width // 250))
        text = f"{box['label']} {box['score']:.2f}"
        size = max(12, width // 32)
        place = pen.textbbox((left, max(0, top - 1.3 * size)), text, font_size=size)
        pen.rectangle((place[0] - 2, place[1] - 2, place[2] + 2, place[3] + 2), fill=color)
        pen.text((left, max(0, top - 1.3 * size)), text, fill="white", font_size=size)
    return picture


def main() -> None:
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    photo = Path(sys.argv[1])
    url = sys.argv[3] if len(sys.argv) == 4 else "http://localhost:5001"
    boxes = ask(photo.read_bytes(), url)
    draw(Image.open(photo), boxes).save(sys.argv[2])
    print(f"{len(boxes)} objects: {', '.join(box['label'] for box in boxes) or 'none'}; drawn in {sys.argv[2]}")


if __name__ == "__main__":
    main()
