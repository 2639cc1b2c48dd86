"""Writes an MLflow folder: weights, the code that answers with them, what to install, and a signature.

The folder is whole: it can be moved, and needs no checkout of this repository. MLflow finds its model in
`app.mlflow.model`, of which the folder has a copy beside all of `app` and `models`.
"""

from __future__ import annotations

import base64
import logging
import os
import shutil
import sys
import tempfile
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packaging.requirements import Requirement
from PIL import Image, ImageDraw

import app
import models
from app.contract import grid_params, schemas
from app.engine.loading import Choice, ModelFiles
from app.mlflow.model import DETECTOR, SEGMENTER, MlflowModel
from app.settings import Settings
from models.weights.places import PACKAGE

if TYPE_CHECKING:
    import pandas
    from mlflow.models import ModelSignature

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"  # on which the models have answered their example

# What listens, shows progress or knows the user's folders: MLflow and AzureML bring servers of their own, and AzureML's
# cannot be installed beside this FastAPI (both name a version of opentelemetry-api).
_NOT_FOR_SCORING = frozenset(
    {
        "fastapi",
        "matplotlib",
        "platformdirs",
        "prometheus-client",
        "python-json-logger",
        "pyyaml",
        "tensorboard",
        "tqdm",
        "uvicorn",
    }
)

# What AzureML's generated scoring script imports and its image does not put into a model's own environment.
_FOR_AZUREML = ("azureml-inference-server-http==1.5.1", "azureml-ai-monitoring==1.0.0")

# conda's packages with the libraries of a desktop that opencv-python loads: libGL.so.1, libgthread-2.0.so.0 and theirs.
_FOR_OPENCV = ("libgl", "libglib")

# What models have beside their kinds: masks of any of them, and masks of the detector's own.
MASKS, OWN_MASKS = "masks", "own masks"

# Every param of the service by the models that heed it, with MLflow's type and its default. None: where nothing is
# asked for, the model or the environment's settings decide, as in the service.
_PARAMS: dict[str, tuple[frozenset[str], str, Any]] = {
    "score_threshold": (frozenset({DETECTOR}), "double", None),
    "iou_threshold": (frozenset({DETECTOR}), "double", None),
    "max_detections": (frozenset({DETECTOR}), "long", None),
    "multimask_output": (frozenset({DETECTOR, SEGMENTER}), "boolean", False),
    "return_logits": (frozenset({SEGMENTER}), "boolean", False),
    "coordinates": (frozenset({SEGMENTER}), "string", None),
    "masks": (frozenset({OWN_MASKS}), "string", None),
    "mask_format": (frozenset({MASKS}), "string", None),
    "exif_orientation": (frozenset(), "boolean", False),
    "response_schema": (frozenset({SEGMENTER}), "string", None),
    "min_region_area": (frozenset({MASKS}), "long", 0),
    "fill_holes": (frozenset({MASKS}), "boolean", False),
    "largest_part": (frozenset({MASKS}), "boolean", False),
    "no_overlaps": (frozenset({MASKS}), "boolean", False),
    "class_agnostic_nms": (frozenset({DETECTOR}), "boolean", False),
    "tight_boxes": (frozenset({MASKS}), "boolean", False),
    "rotated_boxes": (frozenset({MASKS}), "boolean", False),
    **{
        name: (frozenset({SEGMENTER}), "long" if kind is int else "double", None)
        for name, (kind, _, _) in grid_params.LIMITS.items()
    },
    "polygon_tolerance": (frozenset({MASKS}), "double", None),
    "max_vertices": (frozenset({MASKS}), "long", None),
    "tiles": (frozenset(), "long", 0),
    "tile_overlap": (frozenset(), "double", None),
    "tile_merge": (frozenset({DETECTOR}), "string", None),
}


class ExportError(Exception):
    """The folder cannot be written; says why in a sentence."""


@dataclass(frozen=True)
class Exported:
    """What was written. size: bytes. class_names: the detector's, () without one."""

    path: Path
    size: int
    requirements: tuple[str, ...]
    class_names: tuple[str, ...]


def export_mlflow(choice: Choice, out: Path, settings: Settings, *, image_files: bool = False) -> Exported:
    """Write an MLflow folder with these models, after they have answered its input example.

    choice: the models, one or both. out: must not exist, or be empty; it appears only when it is whole. settings: on
    which device the example is answered. image_files: the input is the bytes of an image file, not text. Raises
    ExportError, or one of `loading.EXPLAINED` where the models do not load.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # else its import reports its use to its makers
    try:
        import mlflow.pyfunc
    except ModuleNotFoundError as error:
        raise ExportError(
            f"there is no {error.name} here, with which MLflow folders are written: "
            "install it by `pip install --constraint constraints.txt '.[mlflow]'`"
        ) from error

    out = out.expanduser().absolute()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ExportError(f"{out}: expected a new or an empty folder, and there is something in it")
    kinds = frozenset(
        kind for kind, one in ((DETECTOR, choice.detector), (SEGMENTER, choice.segmenter)) if one is not None
    )
    if image_files and DETECTOR not in kinds:
        raise ExportError("--image-files: expected a detector, as image files have no prompts for a segmenter alone")
    requirements = model_requirements()
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as scratch:
        weights = Path(scratch, "weights")
        for kind, files in choice.files.items():
            _stage(files, weights / kind)
        class_names, has_masks = _try_out(weights, settings, input_example(kinds, image_files=image_files))
        code = [_stage_code(Path(package.__path__[0]), Path(scratch, "code")) for package in (app, models)]
        # Says of every export that AzureML's packages are not installed here, where nothing is served.
        logging.getLogger("mlflow").setLevel(logging.ERROR)
        mlflow.pyfunc.save_model(
            path=Path(scratch, "model"),
            loader_module="app.mlflow.model",
            data_path=str(weights),
            code_paths=[str(path) for path in (*code, _stage_distribution(Path(scratch)))],
            conda_env=conda_environment(requirements),
            signature=signature(kinds, has_masks=has_masks, image_files=image_files),
            input_example=input_example(kinds, image_files=image_files),
            metadata=_metadata(choice, class_names),
            uv_project_path=scratch,  # which has none; by default that of the current directory would be taken along
        )
        if out.exists():
            out.rmdir()
        Path(scratch, "model").rename(out)
    size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    return Exported(out, size, requirements, class_names)


def model_requirements() -> tuple[str, ...]:
    """What pip has to install for the folder's code: box2mask's own pins, MLflow's and what AzureML asks for.

    Only direct dependencies are pinned. To pin theirs too would leave AzureML's server, which shares the environment,
    without a version of opentelemetry-api and pydantic that it takes.
    """
    own = [Requirement(line) for line in requires("box2mask") or ()]
    needed = [str(one) for one in own if one.marker is None and one.name not in _NOT_FOR_SCORING]
    # mmcv asks for opencv-python, whose version shall be the one that is in use here. To name the headless build beside
    # it would be of no use: both have the same files, and pip unpacks this one last.
    needed.append(f"opencv-python=={_installed('opencv-python-headless') or version('opencv-python')}")
    needed += [f"{name}=={version(name)}" for name in ("mlflow-skinny", "pandas")]
    return (*needed, *_FOR_AZUREML)


def conda_environment(requirements: tuple[str, ...]) -> dict[str, Any]:
    """The content of `conda.yaml`, which AzureML builds the environment from."""
    return {
        "name": "box2mask",
        "channels": ["conda-forge"],
        "dependencies": [f"python={PYTHON}", "pip", *_FOR_OPENCV, {"pip": list(requirements)}],
    }


def signature(kinds: frozenset[str], *, has_masks: bool, image_files: bool = False) -> ModelSignature:
    """Columns in and out and params, named and typed as in the catalog's MLmodel files.

    An answer's column holds lists and objects, and yet is declared a string, as the catalog does: AzureML's scoring
    script knows no other type for it, and nothing is converted by it. has_masks: whether the detector has.
    image_files: AzureML's batch endpoints hand over image files to models with one column of bytes, and to no
    others.
    """
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema

    inputs, outputs = [ColSpec("binary" if image_files else "string", schemas.IMAGE)], []
    if DETECTOR in kinds:
        outputs.append(ColSpec("string", "boxes"))
    if SEGMENTER in kinds and not image_files:
        # Beside a detector prompts may be left out; an image alone is then one for both models.
        required = DETECTOR not in kinds
        types = {column: "string" for column in schemas.PROMPT_COLUMNS} | {schemas.MULTIMASK: "boolean"}
        inputs += [ColSpec(types[column], column, required=required) for column in schemas.PROMPT_COLUMNS]
        inputs += [ColSpec("string", column, required=False) for column in schemas.OPTIONAL_COLUMNS]
        outputs.append(ColSpec("string", "predictions", required=required))
    have = kinds | ({MASKS, OWN_MASKS} if has_masks else {MASKS} if SEGMENTER in kinds else set())
    params = [ParamSpec(name, kind, default) for name, (of, kind, default) in _PARAMS.items() if of <= have]
    return ModelSignature(Schema(inputs), Schema(outputs), ParamSchema(params))


def input_example(kinds: frozenset[str], *, image_files: bool = False) -> pandas.DataFrame:
    """One row in the form of the signature: a small picture of a square and, for SAM alone, the box around it."""
    import pandas

    image = Image.new("RGB", (64, 48), (40, 60, 80))
    ImageDraw.Draw(image).rectangle((16, 12, 47, 35), fill=(220, 200, 40))
    file = BytesIO()
    image.save(file, "PNG")
    if image_files:
        return pandas.DataFrame({schemas.IMAGE: [file.getvalue()]})
    row: dict[str, Any] = {schemas.IMAGE: base64.b64encode(file.getvalue()).decode("ascii")}
    if DETECTOR not in kinds:
        row |= {schemas.POINTS: "", schemas.BOXES: "[[16, 12, 48, 36]]", schemas.LABELS: "", schemas.MULTIMASK: False}
    return pandas.DataFrame([row])


def _stage(files: ModelFiles, folder: Path) -> None:
    """A model's files as they shall be in the folder: links, which MLflow follows: gigabytes are written once."""
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        if isinstance(content, bytes):
            (folder / name).write_bytes(content)
        else:
            (folder / name).symlink_to(content.resolve())


def _stage_code(package: Path, folder: Path) -> Path:
    """A package as it shall be in the folder: without the demo weights, which an installed copy has inside of it."""
    return shutil.copytree(package, folder / package.name, ignore=shutil.ignore_patterns("__pycache__", PACKAGE.name))


def _stage_distribution(folder: Path) -> Path:
    """What `importlib.metadata` looks for beside the code, as box2mask is on no package index."""
    path = folder / f"box2mask-{version('box2mask')}.dist-info"
    path.mkdir()
    (path / "METADATA").write_text(f"Metadata-Version: 2.1\nName: box2mask\nVersion: {version('box2mask')}\n")
    return path


def _try_out(weights: Path, settings: Settings, example: pandas.DataFrame) -> tuple[tuple[str, ...], bool]:
    """Load the models and answer the example, so that what cannot work fails here.

    Returns the detector's class names, and whether it has masks of its own.
    """
    model = MlflowModel(weights, settings)
    try:
        if model.lacks_texts:
            raise ExportError(
                "the detector finds what texts name: expected them in BOX2MASK_TEXTS, such as BOX2MASK_TEXTS='can,milk "
                "carton', here and where the folder is served"
            )
        model.predict(example)
        return model.class_names, model.has_masks
    finally:
        model.close()


def _metadata(choice: Choice, class_names: tuple[str, ...]) -> dict[str, Any]:
    """For people who look into the MLmodel file."""
    metadata: dict[str, Any] = {"box2mask_version": version("box2mask")}
    for kind, one in ((DETECTOR, choice.detector), (SEGMENTER, choice.segmenter)):
        if one is not None:
            metadata[kind] = one.name
    return metadata | ({"classes": list(class_names)} if class_names else {})


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
