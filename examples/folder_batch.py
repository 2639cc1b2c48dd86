"""Boxes and masks of a folder of photos, by a service, several at a time; run it again and it goes on where it stopped.

    python folder_batch.py photos answers --url http://localhost:5001

Each photo's answer becomes `answers/NAME.json`: the service's own JSON of that row, masks as COCO's run lengths. A
photo whose file is there is not asked for again. `box2mask run` does more (formats, pictures, checks); this is the loop
to copy where a form of one's own is wanted. It needs httpx.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import sys
from pathlib import Path

import httpx

SUFFIXES = {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif", ".heic"}
PARAMS = {"score_threshold": 0.3, "mask_format": "rle", "exif_orientation": True}
ATTEMPTS, LONGEST_PAUSE_S = 8, 30.0
BUSY = (429, 502, 503)


async def main(photos: Path, answers: Path, url: str, at_once: int) -> int:
    """Exit status: 0 when every photo has its answer, 1 otherwise."""
    answers.mkdir(parents=True, exist_ok=True)
    todo = [
        path
        for path in sorted(photos.iterdir())
        if path.suffix.lower() in SUFFIXES and not (answers / f"{path.name}.json").exists()
    ]
    key = os.environ.get("SCORING_KEY")
    headers = {"authorization": f"Bearer {key}"} if key else {}
    turns = asyncio.Semaphore(at_once)  # the service makes batches of what is asked at the same time
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=600) as client:

        async def one(photo: Path) -> bool:
            async with turns:
                try:
                    answer = await ask(client, photo)
                except (httpx.HTTPError, OSError, ValueError) as error:
                    print(f"{photo}: {error or type(error).__name__}", file=sys.stderr)
                    return False
            unfinished = answers / f".{photo.name}.part"
            unfinished.write_text(json.dumps(answer))
            unfinished.rename(answers / f"{photo.name}.json")  # whole, or not there
            return True

        done = await asyncio.gather(*map(one, todo))
    print(f"{sum(done)} of {len(todo)} photos answered; {answers} has them")
    return int(not all(done))


async def ask(client: httpx.AsyncClient, photo: Path) -> dict:
    """The photo's row of the answer. Raises ValueError with what the service says of it, httpx.HTTPError or OSError."""
    image = base64.b64encode(photo.read_bytes()).decode()
    request = {"input_data": {"columns": ["image"], "data": [image]}, "params": PARAMS}
    for attempt in range(ATTEMPTS):
        last = attempt == ATTEMPTS - 1
        pause_s = min(0.5 * 2**attempt, LONGEST_PAUSE_S)
        try:
            response = await client.post("/pipeline/score", json=request)
        except httpx.TransportError:
            if last:
                raise
        else:
            if response.status_code == 200:
                (row,) = response.json()
                return row
            if response.status_code not in BUSY or last:
                raise ValueError(f"{response.status_code}: {response.text}")
            pause_s = float(response.headers.get("retry-after", pause_s))
        await asyncio.sleep(pause_s)
    raise AssertionError("the last attempt answers or raises")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("answers", type=Path)
    parser.add_argument("--url", default="http://localhost:5001")
    parser.add_argument("--at-once", type=int, default=8, help="photos in work at a time (default: 8)")
    args = parser.parse_args()
    sys.exit(asyncio.run(main(args.photos, args.answers, args.url, args.at_once)))
