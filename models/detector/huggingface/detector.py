"""HuggingFaceDetector: a folder of transformers' detectors, as three steps from an RGB image to its boxes.

It knows nothing of requests. What lies in a folder is read by `network`, `images` and `texts` beside it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.checkpoints import ModelFilesError
from models.detector.batches import in_batches
from models.detector.huggingface.images import Images
from models.detector.huggingface.model_types import CLOSED, MODEL_TYPES, OPEN
from models.detector.huggingface.network import class_names, load_network
from models.detector.huggingface.texts import TextReader, Tokens, best_texts, tokenizer_files
from models.detector.places import Places
from models.detector.protocol import ChannelOrder
from models.detector.thresholds import kept
from models.families import ModelFiles
from models.huggingface_folder import find_folder, folder_files, folders_below, is_of, weights_at
from models.mapped_weights import moved
from models.types import Detections, Exemplars, check_rgb

# Of Grounding DINO's `post_process_grounded_object_detection`.
_SENTENCE_THRESHOLD = 0.25


@dataclass(frozen=True, eq=False)
class Sample:
    """One image as the network wants it, on the CPU: its inputs for a batch of one.

    size_hw: the image's own size. spans: as in `models.detector.huggingface.texts.Tokens`.
    """

    inputs: dict[str, Tensor]
    size_hw: tuple[int, int]
    spans: tuple[tuple[int, ...], ...] | None = None

    @property
    def pixels(self) -> int:
        """How many the network will see."""
        return self.inputs["pixel_values"][0, 0].numel()


@dataclass(frozen=True, eq=False)
class RawDetections:
    """What the network said about one image, on the CPU in float32: logits (Q, C), boxes (Q, 4) in 0..1."""

    sample: Sample
    logits: Tensor
    boxes: Tensor

    @property
    def is_numbers(self) -> bool:
        """Whether there is no NaN in it; -inf is a logit of what cannot be."""
        return not bool(self.logits.isnan().any() or self.boxes.isnan().any())


class HuggingFaceDetector:
    """A loaded detector; make one with `HuggingFaceDetector.load`. It is a `models.detector.protocol.Detector`.

    class_names: () where `takes_texts`. channel_order: "rgb", whatever is asked for: the folder's image processor
    knows no other. input_scale: the (long, short) sides in pixels that images are resized to fit, or None.
    `preprocess` and `postprocess` may run in any number of threads beside one `forward`.
    """

    channel_order: ChannelOrder = "rgb"
    has_masks = takes_exemplars = False

    def __init__(
        self,
        network: Any,
        images: Images,
        reader: TextReader | None,
        names: tuple[str, ...],
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        fast: bool = True,
        autocast: bool = True,
    ) -> None:
        """reader: of an open-vocabulary detector. fast: whether small images share a batch of limited size."""
        self.class_names = names
        self.takes_texts = reader is not None
        self.input_scale = images.input_scale
        self.device = torch.device(device)
        self.dtype = dtype if autocast else torch.float32
        self.fast = fast
        self._places = Places.of_huggingface(network)
        self._network = moved(network, self.device)
        self._images = images
        self._reader = reader
        self._wanted = frozenset(inspect.signature(network.forward).parameters)

    @classmethod
    def find(cls, path: Path) -> Path:
        """See `models.huggingface_folder.find_folder`."""
        folder = find_folder(path, MODEL_TYPES, "detector")
        if not is_of(folder / "config.json", CLOSED + OPEN):
            raise ModelFilesError(f"{folder}: expected a config.json of a detector that finds boxes")
        return folder

    @classmethod
    def folders_below(cls, root: Path) -> set[Path]:
        """See `models.huggingface_folder.folders_below`."""
        return folders_below(root, CLOSED + OPEN)

    @classmethod
    def files(cls, path: Path) -> ModelFiles:
        """Configs, weights and the tokenizer. Raises ModelFilesError."""
        folder = cls.find(path)
        return folder_files(folder, weights_at(path, folder)) | tokenizer_files(folder)

    @classmethod
    def load(
        cls,
        path: str | Path,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        channel_order: ChannelOrder = "rgb",
        fast: bool = True,
        autocast: bool = True,
    ) -> HuggingFaceDetector:
        """Load a folder, Azure's MLflow folder around one, or a file of weights in it.

        dtype: float32, or another to compute in by autocast, where that is allowed. channel_order: is passed over.
        Raises ModelFilesError, or its CheckpointError, if the files make no detector.
        """
        folder = cls.find(Path(path))
        network = load_network(folder, weights_at(Path(path), folder))
        config = network.config
        images = Images.load(folder, config)
        is_open = config.model_type in OPEN
        reader = TextReader.load(folder, config) if is_open else None
        names = () if is_open else class_names(config, folder / "config.json")
        return cls(network, images, reader, names, device, dtype, fast, autocast)

    def preprocess(self, image: np.ndarray, texts: Sequence[str] = (), exemplars: Exemplars | None = None) -> Sample:
        """(H, W, 3) uint8 RGB -> Sample, as by the folder's own image processor, on the CPU.

        texts: what to find, for a detector that takes them. Raises TextsError for texts that it cannot read.
        """
        check_rgb(image)
        tokens = Tokens({}, None) if self._reader is None else self._reader.read(tuple(texts))
        inputs = self._images(image) | tokens.inputs
        if self._places is not None:
            inputs |= {key: self._places.enough(inputs[key]) for key in ("pixel_values", "pixel_mask")}
        inputs = {key: value for key, value in inputs.items() if key in self._wanted}
        return Sample(inputs, (image.shape[0], image.shape[1]), tokens.spans)

    @torch.inference_mode()
    def forward(self, samples: Sequence[Sample], between: Callable[[], None] | None = None) -> list[RawDetections]:
        """Run the network on the device; one result per sample, in order. Samples share a batch where all their inputs
        have the same shapes. between: see `in_batches`."""

        def shapes(sample: Sample) -> tuple[tuple[tuple[str, tuple[int, ...]], ...], int]:
            return tuple(sorted((key, tuple(value.shape)) for key, value in sample.inputs.items())), sample.pixels

        return in_batches(
            self._network, samples, shapes, self._forward_batch, between, device=self.device, limited=self.fast
        )

    def _forward_batch(self, samples: list[Sample]) -> list[RawDetections]:
        inputs = {
            key: torch.cat([sample.inputs[key] for sample in samples]).to(self.device) for key in samples[0].inputs
        }
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            outputs = self._network(**inputs)
        logits, boxes = outputs.logits.float().cpu(), outputs.pred_boxes.float().cpu()
        return [RawDetections(*one) for one in zip(samples, logits, boxes, strict=True)]

    @torch.inference_mode()
    def postprocess(
        self,
        raw: RawDetections,
        *,
        score_threshold: float | None = None,
        iou_threshold: float | None = None,
        max_detections: int | None = None,
        class_agnostic: bool = False,
        masks: bool = True,
    ) -> Detections:
        """Select one image's boxes as transformers' `post_process_object_detection` does, on the CPU.

        score_threshold: keep what scores strictly above it; None takes that function's own. iou_threshold: of boxes of
        one class that overlap strictly more, keep the best; None keeps them all, as these detectors are trained to find
        each object once. max_detections: then keep this many. class_agnostic: see `kept`. labels: of texts, their
        places.
        """
        size_hw = raw.sample.size_hw
        spans = raw.sample.spans
        if score_threshold is None:
            score_threshold = self._images.default_threshold if spans is None else _SENTENCE_THRESHOLD
        if spans is None:
            boxes, scores, labels = self._images.boxes(raw.logits, raw.boxes, size_hw, score_threshold)
        else:
            # Labels there are places of tokens.
            boxes, scores, _ = self._images.boxes(raw.logits, raw.boxes, size_hw, score_threshold)
            probabilities = raw.logits.sigmoid()
            labels = best_texts(probabilities[probabilities.amax(dim=1) > score_threshold], spans)
        best = kept(
            boxes,
            scores,
            labels,
            iou_threshold=iou_threshold,
            max_detections=max_detections,
            class_agnostic=class_agnostic,
        )
        height, width = size_hw
        return Detections(
            boxes_xyxy=boxes[best].float().numpy().clip(0, np.array([width, height] * 2, dtype=np.float32)),
            scores=scores[best].numpy(),
            labels=labels[best].numpy(),
            size_hw=size_hw,
        )

    def detect(self, images: Sequence[np.ndarray], *, texts: Sequence[str] = (), **thresholds: Any) -> list[Detections]:
        """All three steps for (H, W, 3) uint8 RGB images of any sizes; thresholds: of `postprocess`."""
        raws = self.forward([self.preprocess(image, texts) for image in images])
        return [self.postprocess(raw, **thresholds) for raw in raws]
