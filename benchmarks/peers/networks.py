"""The networks that are compared, as ONNX with an `.npz` of inputs beside them, and our tasks on the same inputs.

SAM's encoder and decoder are those of `box2mask export onnx`, the decoder up to its logits: interpolating them to the
image is no part of what is compared. YOLOF and SAM 2 are exported in the same way, with MMDetection's and transformers'
own modules.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import workload
from benchmarks.child import Task
from benchmarks.tasks import loaded_segmenter

BOXES = (1, 16, 100)
_LOGITS = ["iou_predictions", "low_res_masks"]


def write_segmenter(folder: Path, out: Path) -> Task:
    """encoder.onnx, encoder.npz, decoder.onnx and, for each of BOXES, decoder-N.npz. The task does nothing."""
    import onnx
    import torch

    from models.segmenter.families import SEGMENTERS
    from models.segmenter.onnx_folder import ENCODER, write_onnx
    from models.segmenter.prompt_points import labelled_points
    from models.types import Prompts

    segmenter: Any = SEGMENTERS.of(folder).load(folder, torch.device("cpu"), torch.float32, fast=False)
    write_onnx(segmenter, out / "exported", {"name": folder.name})
    sample = segmenter.preprocess(workload.picture())
    with torch.inference_mode():
        np.savez(out / "encoder.npz", pixel_values=segmenter.pixels([sample]).numpy())
    (out / "encoder.onnx").symlink_to(out / "exported" / ENCODER)
    graph = onnx.load(out / "exported" / "decoder.onnx", load_external_data=False)
    names = [one.name for one in graph.graph.input if one.name != "orig_im_size"]
    onnx.utils.extract_model(out / "exported" / "decoder.onnx", out / "decoder.onnx", names, _LOGITS)
    (embedding,) = segmenter.embed([sample])
    features = segmenter.named_features(embedding.features[None])
    side = segmenter.mask_side
    for count in BOXES:
        points, labels = labelled_points(embedding, Prompts(boxes_xyxy=np.array(workload.boxes(count))))
        np.savez(
            out / f"decoder-{count}.npz",
            **{name: value.numpy() for name, value in features.items()},
            point_coords=points.astype(np.float32),
            point_labels=labels.astype(np.float32),
            mask_input=np.zeros((count, 1, side, side), np.float32),
            has_mask_input=np.zeros(count, np.float32),
        )
    return _nothing


def write_detector(folder: Path, out: Path) -> Task:
    """network.onnx and network.npz of a YOLOF, whose outputs are those of its head. The task does nothing."""
    import torch

    from models.detector.mmdetection import MMDetector
    from models.segmenter.onnx_folder import quietly

    detector: Any = MMDetector.load(folder, torch.device("cpu"), torch.float32, fast=False)
    network = detector._model
    sample = detector.preprocess(workload.picture())
    batch = network.data_preprocessor({"inputs": [sample.inputs], "data_samples": []}, False)["inputs"]

    class Network(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.detector = network

        def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
            (scores,), (boxes,) = self.detector(pixels, mode="tensor")
            return scores, boxes

    with quietly(), torch.inference_mode():
        program = torch.onnx.export(
            Network().eval(), (batch,), dynamo=True, input_names=["pixels"], output_names=["scores", "boxes"],
            verbose=False,
        )  # fmt: skip
        assert program is not None
        program.save(out / "network.onnx")
    np.savez(out / "network.npz", pixels=batch.numpy())
    return _nothing


def our_encoder(folder: Path, dtype: str) -> Task:
    """A run encodes the picture, from its bytes in the network's size; gives what the peers' graph gives, joined."""
    segmenter = loaded_segmenter("cpu", folder, dtype)
    sample = segmenter.preprocess(workload.picture())

    def run(_: Any) -> dict[str, np.ndarray]:
        (embedding,) = segmenter.embed([sample])
        named = segmenter.named_features(embedding.features[None])
        return {name: value.float().numpy() for name, value in named.items()}

    return run


def our_decoder(folder: Path, dtype: str, count: int) -> Task:
    """A run decodes `count` boxes on a ready embedding; gives logits and scores."""
    from models.types import Prompts

    segmenter = loaded_segmenter("cpu", folder, dtype)
    (embedding,) = segmenter.embed([segmenter.preprocess(workload.picture())])
    prompts = Prompts(boxes_xyxy=np.array(workload.boxes(count)))

    def run(_: Any) -> dict[str, np.ndarray]:
        raw = segmenter.decode(embedding, prompts, multimask=False)
        return {"iou_predictions": raw.iou_scores, "low_res_masks": raw.logits.numpy()}

    return run


def our_detector(folder: Path, dtype: str) -> Task:
    """A run is one image through the network, from its bytes in the network's size to the head's outputs."""
    import torch

    from models.detector.mmdetection import MMDetector
    from models.devices import flush_denormals

    flush_denormals()
    detector: Any = MMDetector.load(folder, torch.device("cpu"), getattr(torch, dtype), fast=True)
    sample = detector.preprocess(workload.picture())

    def run(_: Any) -> dict[str, np.ndarray]:
        (raw,) = detector.forward([sample])
        (scores,), (boxes,) = raw.head
        return {"scores": scores.numpy(), "boxes": boxes.numpy()}

    return run


def _nothing(_: Any) -> None:
    pass
