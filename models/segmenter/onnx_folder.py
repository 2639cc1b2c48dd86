"""Writes a segmenter as a folder of ONNX: encoder, decoder, and in model.json how images and prompts are prepared.

The folder appears when ONNX Runtime has answered from it as the segmenter does. Knows files and ONNX, nothing of how a
family computes: that is in `models.segmenter.decoder_graphs`.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from models.atomic_files import folder as atomic_folder
from models.segmenter.decoder_graphs import OUTPUTS, PROMPTS, DecoderGraph, EncoderGraph
from models.segmenter.protocol import DecodeRequest, Segmenter
from models.types import Prompts

if TYPE_CHECKING:
    import onnxruntime

ENCODER, DECODER, DESCRIPTION = "encoder.onnx", "decoder.onnx", "model.json"
# Of a graph's weights: from here on they get a file of their own beside it. A graph's file ends at 2 GiB.
MOST_INSIDE = 1_500_000_000
# How near the answers from the folder are to the segmenter's: masks, scores, and features in parts of the largest.
LEAST_IOU, MOST_SCORE_OFF, MOST_FEATURE_OFF = 0.99, 1e-3, 1e-2


class OnnxError(Exception):
    """The folder cannot be written; says why in a sentence."""


def write_onnx(segmenter: Segmenter[Any], out: Path, about: Mapping[str, str]) -> None:
    """Write encoder, decoder and model.json into a new folder, after they have answered as the segmenter does.

    segmenter: in float32 on the CPU, as published (`fast` is False). out: must not exist, or be empty. about: what
    model.json says of the model: its name, and the hash of its files. Raises OnnxError.
    """
    need_packages()
    graphs = segmenter.graphs()
    if graphs is None:
        raise OnnxError(
            f"{about.get('name')}: expected a SAM, SAM-HQ or SAM 2 (2.1), found {type(segmenter).__name__}, which is "
            "not exported yet. The service answers with it"
        )
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OnnxError(f"{out}: expected a new or an empty folder, and there is something in it")
    encoder, decoder = graphs
    with atomic_folder(out) as unfinished, torch.inference_mode():
        _write_encoder(encoder, segmenter.image_size, decoder.features, unfinished / ENCODER)
        _write_decoder(decoder, segmenter, unfinished / DECODER)
        description = _description(segmenter, encoder, decoder, about)
        (unfinished / DESCRIPTION).write_text(json.dumps(description, indent=1) + "\n", encoding="utf-8")
        _check(unfinished, segmenter, description)


def need_packages() -> None:
    """Raises OnnxError, which names the command that installs them, where packages of the extra are missing."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ModuleNotFoundError as error:
        raise OnnxError(
            f"there is no {error.name} here, with which ONNX files are written: "
            "install it by `pip install --constraint constraints.txt '.[onnx]'`"
        ) from error


def _write_encoder(encoder: nn.Module, side: int, outputs: Sequence[str], path: Path) -> None:
    _write(encoder, (torch.rand(1, 3, side, side),), (None,), ["pixel_values"], outputs, path)


def _write_decoder(decoder: DecoderGraph, segmenter: Segmenter[Any], path: Path) -> None:
    """With any number of prompts, of points of each, and any size of the image."""
    side, mask_side = segmenter.image_size, segmenter.mask_side
    height, width = 3 * side // 4, side // 2  # neither of which another size of the example is
    (embedding,) = segmenter.embed([segmenter.preprocess(np.zeros((height, width, 3), np.uint8))])
    features = list(segmenter.named_features(embedding.features[None]).values())
    example = (
        features,
        torch.rand(3, 5, 2) * side,
        torch.ones(3, 5),
        torch.zeros(3, 1, mask_side, mask_side),
        torch.ones(3),
        torch.tensor([height, width], dtype=torch.float32),
    )
    prompts, points = torch.export.Dim("prompts"), torch.export.Dim("points")
    shapes = (
        [None] * len(features),
        {0: prompts, 1: points},
        {0: prompts, 1: points},
        {0: prompts},
        {0: prompts},
        None,
    )
    _write(decoder, example, shapes, [*decoder.features, *PROMPTS], OUTPUTS, path)


def _write(
    graph: nn.Module, example: Any, shapes: Any, inputs: Sequence[str], outputs: Sequence[str], path: Path
) -> None:
    with quietly():
        program = torch.onnx.export(
            graph.eval(),
            example,
            dynamo=True,
            dynamic_shapes=shapes,
            input_names=list(inputs),
            output_names=list(outputs),
            verbose=False,
        )
        assert program is not None
        size = sum(weights.nbytes for weights in (*graph.parameters(), *graph.buffers()))
        program.save(path, external_data=size > MOST_INSIDE)


@contextmanager
def quietly() -> Iterator[None]:
    """Without what torch's exporter says of packages that are not needed here, and of its own parts."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _description(
    segmenter: Segmenter[Any], encoder: EncoderGraph, decoder: DecoderGraph, about: Mapping[str, str]
) -> dict[str, Any]:
    """What model.json says: all that is to be known to use the two files."""
    return {
        **about,
        "encoder": {"file": ENCODER, "inputs": ["pixel_values"], "outputs": list(decoder.features)},
        "decoder": {"file": DECODER, "inputs": [*decoder.features, *PROMPTS], "outputs": list(OUTPUTS)},
        "image": {
            "channels": "RGB",
            "size": segmenter.image_size,
            "resize": "square" if decoder.stretched else "longest_side",
            "resampling": "bilinear, antialiased, on bytes: Pillow's Image.resize with BILINEAR",
            "rescale": 1 / 255,
            "mean": list(encoder.mean),
            "std": list(encoder.std),
            "padding": "zeros at the right and bottom, after normalising",
        },
        "prompts": {
            "coordinates": "pixels of the resized image: x * resized width / width, y * resized height / height",
            "labels": {"object": 1, "not_the_object": 0, "box_upper_left": 2, "box_lower_right": 3, "end": -1},
            "ends": decoder.ends,
            "mask_side": segmenter.mask_side,
        },
        "masks": {
            "threshold": 0.0,
            "single": [0],
            "multimask": list(range(1, 1 + decoder.decoder.num_multimask_outputs)),
        },
    }


def _check(folder: Path, segmenter: Segmenter[Any], description: Mapping[str, Any]) -> None:
    """Raises OnnxError where ONNX Runtime, with the files in `folder`, does not answer as the segmenter does."""
    height, width = 48, 64
    image = np.full((height, width, 3), (40, 60, 80), np.uint8)
    image[12:36, 16:48] = (220, 200, 40)
    boxes = np.array([[16.0, 12, 48, 36], [0, 0, 40, 48]])
    (embedding,) = segmenter.embed([segmenter.preprocess(image)])
    pixels, resized_hw = _prepared(image, **description["image"])
    (features,) = (_session(folder / ENCODER).run(None, {"pixel_values": pixels}),)
    expected = segmenter.named_features(embedding.features[None])
    for (name, ours), theirs in zip(expected.items(), features, strict=True):
        off = np.abs(ours.numpy() - theirs).max() / max(1e-6, float(ours.abs().max()))
        if not off <= MOST_FEATURE_OFF:
            raise OnnxError(f"ONNX Runtime gives other {name} than the model: they differ by {off:.1%} of the largest")
    ends = np.zeros((len(boxes), description["prompts"]["ends"]["box"], 2))
    corners = boxes.reshape(-1, 2, 2) * np.array(resized_hw[::-1]) / (width, height)
    side = segmenter.mask_side
    inputs = {
        **dict(zip(expected, features, strict=True)),
        "point_coords": np.concatenate([corners, ends], axis=1).astype(np.float32),
        "point_labels": np.array([[2, 3, *[-1] * ends.shape[1]]] * len(boxes), np.float32),
        "mask_input": np.zeros((len(boxes), 1, side, side), np.float32),
        "has_mask_input": np.zeros(len(boxes), np.float32),
        "orig_im_size": np.array([height, width], np.float32),
    }
    logits, scores, _ = _session(folder / DECODER).run(None, inputs)
    for multimask, which in ((False, slice(0, 1)), (True, slice(1, None))):
        request = DecodeRequest(embedding, Prompts(boxes_xyxy=boxes), multimask)
        (raw,) = segmenter.decode_batch([request])
        masks = np.stack([segmenter.postprocess(raw, index) for index in range(len(boxes))])
        theirs = logits[:, which] > description["masks"]["threshold"]
        iou = (masks & theirs).sum() / (masks | theirs).sum() if (masks | theirs).any() else 1.0
        off = np.abs(raw.iou_scores - scores[:, which]).max()
        if not (iou >= LEAST_IOU and off <= MOST_SCORE_OFF):
            raise OnnxError(f"ONNX Runtime answers otherwise than the model: IoU {iou:.3f}, scores off by {off:.4f}")


def _session(path: Path) -> onnxruntime.InferenceSession:
    import onnxruntime

    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def _prepared(
    image: np.ndarray, *, size: int, resize: str, rescale: float, mean: Sequence[float], std: Sequence[float], **_: str
) -> tuple[np.ndarray, tuple[int, int]]:
    """(1, 3, size, size) float32 of an image (H, W, 3), as model.json says; and its size in it before padding."""
    scale = size / max(image.shape[:2])
    height, width = (size if resize == "square" else max(1, int(side * scale + 0.5)) for side in image.shape[:2])
    resized = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
    pixels = np.zeros((1, 3, size, size), np.float32)
    pixels[0, :, :height, :width] = ((resized * rescale - np.array(mean)) / np.array(std)).transpose(2, 0, 1)
    return pixels, (height, width)
