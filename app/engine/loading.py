"""Which weights the settings mean: found and loaded."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.settings import Settings, SettingsError
from models import weights
from models.detector.families import DETECTORS
from models.families import Families, ModelFiles
from models.model_errors import MissingOpError, ModelFilesError
from models.segmenter.families import SEGMENTERS
from models.weights import Places

if TYPE_CHECKING:
    from app.engine.disk_tier import DiskTier
    from app.engine.engine import Engine, Models
    from models.segmenter.protocol import Segmenter

# What choosing and loading may fail with that says in a sentence what to do; anything else deserves its traceback.
EXPLAINED = (SettingsError, ModelFilesError, MissingOpError, OSError)

# What `auto` takes of the pulled weights, best first; the demo weights are the last resort.
AUTO_DETECTORS = ("yolof", "demo-yolof")
AUTO_SEGMENTERS = ("sam-huge", "sam-large", "sam-base", "demo-sam")
# Of a run over a folder: nobody comes back to a photo, and no more than sixteen, with 4 MB of SAM's each, are in work.
_FOLDERS_CACHE_MB = 128


# Networks that see no more pixels are small: several photos of a folder are computed at once, at most so many.
SMALL_PIXELS, MOST_SMALL = 512 * 512, 4


@dataclass(frozen=True)
class Chosen:
    """One model to serve. name: for people. demo: whether it is one of the small models that come along."""

    path: Path
    name: str
    demo: bool


@dataclass(frozen=True)
class Choice:
    """The models to serve; at least one of the two."""

    detector: Chosen | None
    segmenter: Chosen | None

    @property
    def demo(self) -> bool:
        return any(one is not None and one.demo for one in (self.detector, self.segmenter))

    @cached_property
    def hashes(self) -> dict[str, str]:
        """For `detector` and `segmenter`, as far as there are such, the SHA-256 of the files that are loaded.

        They are read whole, once, a second or two per GB; `load` does it beside its own work. Raises one of EXPLAINED.
        """
        return {kind: _hash(files) for kind, files in self.files.items()}

    @cached_property
    def files(self) -> dict[str, ModelFiles]:
        """By `detector` and `segmenter`, as far as there are such. Raises ModelFilesError or OSError."""
        found = {}
        if self.detector is not None:
            found["detector"] = DETECTORS.files(self.detector.path)
        if self.segmenter is not None:
            found["segmenter"] = SEGMENTERS.files(self.segmenter.path)
        return found


def choose(settings: Settings, typed: Collection[str] = (), asked: Collection[str] = ()) -> Choice:
    """Find the models that the settings mean. Raises SettingsError where there are none, or one of EXPLAINED.

    typed, asked: which of `detector` and `segmenter` a command line or a request named, for errors to say so.
    """
    mounted = settings.azureml_model_dir
    places = weights.find_places(settings.weights_dir)

    def one(kind: str, wanted: str, defaults: tuple[str, ...], families: Families[Any]) -> Chosen | None:
        shown = f"--{kind} " if kind in typed else f"{kind}: " if kind in asked else f"BOX2MASK_{kind.upper()}="
        return _choose(shown, wanted, defaults, lambda folder: _only(folder, kind, families), mounted, places)

    detector = one("detector", settings.detector, AUTO_DETECTORS, DETECTORS)
    segmenter = one("segmenter", settings.segmenter, AUTO_SEGMENTERS, SEGMENTERS)
    if detector is None and segmenter is None:
        reason = f"no model was found in {f'AZUREML_MODEL_DIR ({mounted})' if mounted else places.pulled}"
        if settings.detector == settings.segmenter == "none":
            reason = "both models are switched off"
        raise SettingsError(
            f"there is nothing to serve: {reason}. Expected a folder with an MMDetection config .py and its .pth or "
            ".safetensors, or one of Hugging Face's detectors (BOX2MASK_DETECTOR), or a Hugging Face SAM folder "
            "(BOX2MASK_SEGMENTER)"
        )
    return Choice(detector, segmenter)


def _choose(
    shown: str,
    wanted: str,
    defaults: tuple[str, ...],
    find: Callable[[Path], Path | None],
    mounted: Path | None,
    places: Places,
) -> Chosen | None:
    known = weights.load_manifest(places)
    if wanted == "none":
        return None
    if wanted in known:
        if weights.status(wanted, places, manifest=known).state in ("absent", "partial"):
            raise SettingsError(f"{shown}{wanted}: these weights are not here: run `box2mask weights pull {wanted}`")
        return Chosen(places.folder_of(known[wanted]), wanted, known[wanted].tracked)
    if wanted != "auto":
        path = Path(wanted).expanduser()
        if not path.exists():
            base = "" if path.is_absolute() else f" (from {Path.cwd()} on)"
            raise SettingsError(
                f"{shown}{wanted}: there is no such folder, and no weights of that name: "
                f"expected a path{base}, auto, none or one of {', '.join(known)}"
            )
        return Chosen(path, path.name, False)
    if mounted is not None:
        found = find(mounted)
        return None if found is None else Chosen(found, found.name, False)
    for name in defaults:
        if weights.status(name, places, manifest=known).state not in ("absent", "partial"):
            return Chosen(places.folder_of(known[name]), name, known[name].tracked)
    return None


def _only(root: Path, kind: str, families: Families[Any]) -> Path | None:
    """The one folder below `root` that holds such a model. Raises SettingsError where there are more."""
    folders = families.folders_below(root)
    if len(folders) > 1:
        raise SettingsError(
            f"AZUREML_MODEL_DIR ({root}) holds {len(folders)} folders with a {kind}: "
            f"{', '.join(sorted(map(str, folders)))}; name one in BOX2MASK_DETECTOR or BOX2MASK_SEGMENTER"
        )
    return next(iter(folders), None)


def _hash(files: ModelFiles) -> str:
    whole = hashlib.sha256()
    for name, content in sorted(files.items()):
        if isinstance(content, bytes):
            digest = hashlib.sha256(content)
        else:
            with content.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256")
        whole.update(f"{name} {digest.hexdigest()}\n".encode())
    return whole.hexdigest()


def load(settings: Settings, choice: Choice, *, for_folders: bool = False) -> Engine:
    """Load the models onto every device. Raises one of EXPLAINED for files that make no model.

    for_folders: for who has many images and waits for all of them. On a processor each is computed apart from the
    others, and with small networks several at once, each on a thread or more of its own: torch's threads are then fewer
    from here on. Embeddings are kept only as long as their images are in work.
    """
    from app.engine.cache import EmbeddingCache
    from app.engine.engine import Engine

    _ = choice.files  # on this thread: a config is a program, and mmengine runs one at a time
    # Beside the loading, which waits for the same bytes of the same disk; hashing does not hold the GIL.
    with ThreadPoolExecutor(1, thread_name_prefix="hash") as beside:
        hashes = beside.submit(lambda: choice.hashes)
        models = _on_a_brief_thread(lambda: _load_models(settings, choice))
        apart = for_folders and len(models) == 1 and models[0].device.type == "cpu"
        if apart:
            models += _more_for_folders(settings, choice, models[0])
        disk = _disk_tier(settings, models[0].segmenter, hashes.result().get("segmenter"))
    cache_mb = min(settings.embedding_cache_mb, _FOLDERS_CACHE_MB) if for_folders else settings.embedding_cache_mb
    cache = EmbeddingCache(int(cache_mb * 2**20), disk)
    return Engine(models, cache, workers=settings.workers, images_apart=apart)


def _more_for_folders(settings: Settings, choice: Choice, first: Models) -> list[Models]:
    """Beside the first, the models of every further image that a processor is best asked for at once.

    The threads of one small network wait for each other at every step; large ones would want the memory of several.
    """
    import torch

    threads = torch.get_num_threads()
    at_once = min(threads, MOST_SMALL) if first.input_pixels() <= SMALL_PIXELS else 1
    torch.set_num_threads(threads // at_once)
    return [model for _ in range(at_once - 1) for model in _on_a_brief_thread(lambda: _load_models(settings, choice))]


def _on_a_brief_thread(load: Callable[[], list[Models]]) -> list[Models]:
    """What `load` gives, or raises, on a thread that then ends, and OpenMP's threads with it.

    Every thread that has computed keeps a team of them. Where all teams are more threads than there are cores, GNU's
    OpenMP no longer lets them wait awake, and each step of a network starts late: clicks took 1.5 times as long.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="load") as briefly:
        return briefly.submit(load).result()


def _load_models(settings: Settings, choice: Choice) -> list[Models]:
    """One for each device."""
    import cv2
    import torch

    from app.engine.engine import Models
    from models.devices import fastest_dtype, usable_device

    cv2.setNumThreads(1)  # photos are resized in the pool; a second pool within it would take the networks' cores
    shown = f"the device {settings.device} (BOX2MASK_DEVICE or --device)"
    try:
        devices = [usable_device(name) for name in settings.devices]
    except ValueError as error:
        raise SettingsError(f"{shown} cannot be used here: {error}") from error
    if len({device.type for device in devices}) > 1:
        raise SettingsError(f"{shown}: expected devices of one kind")
    if devices[0].type == "cuda" and len(set(devices)) < len(devices):
        raise SettingsError(f"{shown}: a GPU is named twice")
    # One for all, so that answers and embeddings do not depend on where they were computed.
    native = {fastest_dtype(device) for device in devices} == {torch.bfloat16}
    dtype = getattr(torch, settings.dtype if settings.dtype != "auto" else "bfloat16" if native else "float32")
    models = []
    for device in devices:
        detector, segmenter = None, None
        if choice.detector is not None:
            family = DETECTORS.of(choice.detector.path)
            detector = family.load(
                choice.detector.path,
                device,
                dtype,
                channel_order=settings.channel_order,
                fast=settings.fast,
                autocast=settings.dtype != "auto",
            )
        if choice.segmenter is not None:
            path = choice.segmenter.path
            segmenter = SEGMENTERS.of(path).load(path, device, dtype, fast=settings.fast)
        models.append(Models(detector, segmenter))
    return models


def _disk_tier(settings: Settings, segmenter: Segmenter[Any] | None, files_sha256: str | None) -> DiskTier | None:
    """Where embeddings survive a restart, if the settings want that."""
    from app.engine.disk_tier import DiskTier, model_key

    if settings.embedding_cache_dir is None or not settings.embedding_disk_mb:
        return None
    if segmenter is None or files_sha256 is None:
        return None
    numbers = {"device": segmenter.device.type, "dtype": str(segmenter.dtype), "fast": str(settings.fast)}
    packages = {package: version(package) for package in ("box2mask", "pillow", "torch", "transformers")}
    folder = settings.embedding_cache_dir.expanduser()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(f"BOX2MASK_EMBEDDING_CACHE_DIR={folder}: {error.strerror}") from error
    key = model_key(files_sha256, numbers | packages)
    return DiskTier(folder, int(settings.embedding_disk_mb * 2**20), key, segmenter.device)
