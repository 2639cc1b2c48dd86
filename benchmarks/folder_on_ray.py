"""A folder's images through the pipeline of `box2mask run --ray`, by any models that can be opened in a process.

python -m benchmarks.folder_on_ray PHOTOS RESULTS --address local --actors 2     by models that sleep
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from app.cluster.folders.connecting import ClusterError, Pool, Pools, connected
from app.cluster.folders.folder_run import FolderRun
from app.folders import shards
from app.folders.batch import Summary
from app.folders.destination import Destination
from app.folders.image_work import Asked
from app.folders.journal import Journal
from app.folders.outputs import Outputs
from app.folders.sources import find_images
from app.folders.storage import place
from app.prediction import Predictor
from benchmarks.sleeping_models import Sleeping
from models.images.notes import PhotoNotes


@dataclass(frozen=True)
class Ran:
    """What became of images. seconds: from the first name to the last shard in the journal.

    at: when each result was in a shard, in seconds of the clock on the wall, in order.
    """

    summary: Summary
    seconds: float
    at: list[float]

    @property
    def pace(self) -> float:
        """Images a second in the middle half of the run, in which processes neither start nor end."""
        first, last = self.at[len(self.at) // 4], self.at[len(self.at) * 3 // 4]
        return sum(first < one <= last for one in self.at) / (last - first)


class Timed(Destination):
    """A folder of results that remembers when each was there, as shards have it until they are put together."""

    at: Sequence[float] = ()

    def gather(self, journal: Journal) -> None:
        found = shards.found(self.place)
        self.at = sorted(Path(str(path)).stat().st_mtime for path in found for _ in path.read_bytes().splitlines())
        super().gather(journal)


def through_ray(
    images: str, out: str, open_models: Callable[[], Predictor], pools: Pools, formats: Sequence[str] = ("coco",)
) -> Ran:
    """Bring them through.

    Within `app.cluster.folders.connecting.connected`, which gives the pools. images, out: as the command line has them.
    """
    destination = Timed(place(out))
    sources = find_images([place(images)], recursive=True, leave_out=place(out))
    run = FolderRun(open_models, pools)
    header = {"settings": {"images": str(sources.root), **run.models.identity()}}
    journal = destination.open_journal(header, restart=False)
    try:
        outputs = Outputs(
            destination.folder, tuple(formats), sources.here, sources.address_from(destination.remote), "",
            remote=destination.remote,
        )  # fmt: skip
        begin = time.perf_counter()
        summary = run.process(sources, Asked("detector"), journal, outputs, None, PhotoNotes(), destination)
        seconds = time.perf_counter() - begin
        outputs.write_all(journal, run.models.class_names)
        destination.finish(journal)
        return Ran(summary, seconds, list(destination.at))
    finally:
        destination.close(journal)


def write_photos(folder: Path, count: int, kilobytes: int = 200) -> None:
    """So many JPEG files of that size; each has bytes of its own at its end, behind the picture."""
    folder.mkdir(parents=True, exist_ok=True)
    side = round((kilobytes * 1000 / 1.1) ** 0.5)
    noise = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    file = BytesIO()
    Image.fromarray(noise).save(file, "JPEG", quality=90, subsampling=2)
    picture = file.getvalue()
    for number in range(count):
        (folder / f"{number:06}.jpg").write_bytes(picture + number.to_bytes(8, "big"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images")
    parser.add_argument("out")
    parser.add_argument("--address", default="local")
    parser.add_argument("--actors", type=int)
    parser.add_argument("--actor-cpus", type=float)
    parser.add_argument("--separate-io", action="store_true", help="as of `box2mask run`")
    parser.add_argument("--encode-ms", type=float, default=50)
    parser.add_argument("--decode-ms", type=float, default=2)
    parser.add_argument("--objects", type=int, default=3)
    parser.add_argument("--formats", default="coco")
    parser.add_argument("--killer", default="", help="a file that ends so ends the process that has it")
    args = parser.parse_args()
    models = Sleeping(args.encode_ms / 1000, args.decode_ms / 1000, args.objects, args.killer.encode())
    try:
        asked = Pools(Pool(args.actors, 0, args.actor_cpus), separate_io=args.separate_io)
        with connected(args.address, asked) as pools:
            ran = through_ray(args.images, args.out, models, pools, args.formats.split(","))
    except ClusterError as error:
        sys.exit(str(error))
    summary = ran.summary
    print(
        json.dumps({"resumed": summary.resumed, "done": summary.done, "failed": summary.failed, "seconds": ran.seconds})
    )


if __name__ == "__main__":
    main()
