"""`box2mask export`: write a model in the format of another tool."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from app.commands.arguments import add_models, chosen_settings, failed, typed

EXAMPLES = """\
examples:
  box2mask export mlflow --detector runs/fridge --out fridge-detector
  box2mask export mlflow --segmenter sam-huge --out sam-huge-mlflow
  box2mask export mlflow --detector demo-yolof --segmenter demo-sam --out boxes-and-masks
  box2mask export onnx --segmenter sam-base --out sam-base-onnx
"""

MLFLOW = """\
Write an MLflow pyfunc folder with a detector, a segmenter or both: weights, code, signature and requirements. It can
be moved, and needs no checkout of box2mask.
"""
MLFLOW_NOTES = (
    """\
A detector's folder answers images with boxes, a segmenter's answers prompts with masks, and one with both answers
images with boxes and masks, and prompts with masks: the service's answers, value for value.

  mlflow models serve --model-uri DIR --env-manager local --port 5002
  az ml model create --name fridge --type mlflow_model --path DIR

docs/mlflow.md tells more. It needs the optional packages of `pip install '.[mlflow]'`.

"""
    + EXAMPLES
)


ONNX = """\
Write a SAM, SAM-HQ, SAM 2 (2.1) or EdgeTAM as encoder.onnx and decoder.onnx, with a model.json that says how images
and prompts are prepared. ONNX Runtime gives the service's masks with them, without torch.
"""
ONNX_NOTES = (
    """\
The decoder takes points, boxes and earlier masks, any number of prompts at once; its inputs and outputs have the names
of segment-anything's own ONNX export. `GET /images/{reference}/embedding` of a service gives what the encoder would.

docs/onnx.md tells more. It needs the optional packages of `pip install '.[onnx]'`.

"""
    + EXAMPLES
)


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    export = commands.add_parser(
        "export",
        help="write a model in the format of another tool",
        description="Write a model in the format of another tool.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    formats = export.add_subparsers(title="formats", metavar="FORMAT", required=True)

    mlflow = formats.add_parser(
        "mlflow",
        help="an MLflow folder, for `mlflow models serve` and AzureML's no-code deployment",
        description=MLFLOW,
        epilog=MLFLOW_NOTES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_models(mlflow, default="none")
    mlflow.add_argument("--out", type=Path, metavar="DIR", required=True, help="the folder to write, new or empty")
    mlflow.add_argument(
        "--image-files",
        action="store_true",
        help="the input is the bytes of an image file, which AzureML's batch endpoints then read themselves",
    )
    mlflow.set_defaults(run=_mlflow)

    onnx = formats.add_parser(
        "onnx",
        help="a folder with encoder and decoder of a SAM, for ONNX Runtime",
        description=ONNX,
        epilog=ONNX_NOTES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    onnx.add_argument(
        "--segmenter",
        metavar="NAME_OR_DIR",
        required=True,
        help="SAM: folder, or name that `box2mask weights list` shows",
    )
    onnx.add_argument("--out", type=Path, metavar="DIR", help="the folder to write, new or empty (default: NAME-onnx)")
    onnx.set_defaults(run=_onnx, detector=None, device=None)


def _mlflow(args: argparse.Namespace) -> int:
    if not typed(args):
        print("box2mask: name what to export: --detector, --segmenter or both", file=sys.stderr)
        return 2
    from app.settings import SettingsError

    unnamed = {kind: "none" for kind in ("detector", "segmenter") if kind not in typed(args)}
    try:
        settings = chosen_settings(args).model_copy(update=unnamed)
    except SettingsError as error:
        return failed(error)

    from app.engine.loading import EXPLAINED, choose
    from app.mlflow.export import ExportError, export_mlflow

    try:
        written = export_mlflow(choose(settings, typed=typed(args)), args.out, settings, image_files=args.image_files)
    except (ExportError, *EXPLAINED) as error:
        return failed(error)
    print(f"{written.path}: {written.size / 1e6:.1f} MB; it has answered its input example")
    if written.class_names:
        print(f"classes: {', '.join(written.class_names)}")
    print(f"serve it: mlflow models serve --model-uri {written.path} --env-manager local --port 5002")
    return 0


def _onnx(args: argparse.Namespace) -> int:
    if args.segmenter == "none":
        print("box2mask: --segmenter: expected a folder or a name, got none", file=sys.stderr)
        return 2
    from app.settings import SettingsError

    try:
        settings = chosen_settings(args).model_copy(update={"detector": "none"})
    except SettingsError as error:
        return failed(error)

    import torch

    from app.engine.loading import EXPLAINED, choose
    from models.segmenter.families import SEGMENTERS
    from models.segmenter.onnx_folder import OnnxError, need_packages, write_onnx

    try:
        need_packages()
        choice = choose(settings, typed=typed(args))
        chosen = choice.segmenter
        assert chosen is not None  # as nothing else was to be chosen
        out = (args.out or Path(f"{chosen.name}-onnx")).expanduser().absolute()
        segmenter = SEGMENTERS.of(chosen.path).load(chosen.path, "cpu", torch.float32, fast=False)
        write_onnx(segmenter, out, {"name": chosen.name, "sha256": choice.hashes["segmenter"]})
    except (OnnxError, *EXPLAINED) as error:
        return failed(error)
    for path in sorted(out.iterdir()):
        print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")
    print("ONNX Runtime has answered with them as the model does; model.json says how to ask: docs/onnx.md")
    return 0
