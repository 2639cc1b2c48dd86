"""SAM 3's detector: every object of a concept, named by a text or shown by exemplars, with its mask.

It is what transformers' `Sam3Processor` and `Sam3Model` compute. Its folder as published, of a model of videos, holds a
tracker as well: see `models.segmenter.sam3`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from models.checkpoints import ModelFilesError
from models.detector.batches import in_batches
from models.detector.huggingface.concept_network import load_network
from models.detector.huggingface.model_types import CONCEPTS, MODEL_TYPES
from models.detector.huggingface.texts import TextReader, Tokens, tokenizer_files
from models.detector.protocol import ChannelOrder
from models.detector.thresholds import kept
from models.families import ModelFiles
from models.huggingface_folder import find_folder, folder_files, folders_below, is_of, weights_at
from models.mapped_weights import moved
from models.rle import encode_rle
from models.square_images import HALF_MEAN, HALF_STD, normalization, resized
from models.types import EXEMPLARS_ALONE, Detections, Exemplars, check_rgb

# Of `post_process_instance_segmentation`.
_SCORE_THRESHOLD = 0.3
# The best of an image's objects, of all texts together: as many as a request may ask for. Each has a mask.
_MOST = 1000
# Texts whose features are kept: a few hundred bytes for each of 32 tokens.
_TEXTS_KEPT = 1024


@dataclass(frozen=True, eq=False)
class Sample:
    """One image on its way to the network, on the CPU.

    image: (S, S, 3) uint8, stretched. tokens: what is to be found, each text for itself. boxes: exemplars (1, N, 4) as
    (cx, cy, w, h) in 0..1 and their labels (1, N), or None.
    """

    image: np.ndarray
    size_hw: tuple[int, int]
    texts: tuple[str, ...]
    tokens: Tokens
    boxes: tuple[Tensor, Tensor] | None = None

    @property
    def pixels(self) -> int:
        """How many the network will see."""
        return self.image.shape[0] * self.image.shape[1]


@dataclass(frozen=True, eq=False)
class RawConcepts:
    """What the network said about one image, on the CPU: its best objects, in no order.

    scores (N,), boxes (N, 4) xyxy in 0..1, labels (N,), float32; masks (N, h, w) float16 logits over the whole image.
    """

    size_hw: tuple[int, int]
    scores: Tensor
    boxes: Tensor
    labels: Tensor
    masks: Tensor

    @property
    def is_numbers(self) -> bool:
        return not any(bool(one.isnan().any()) for one in (self.scores, self.boxes, self.masks))


class ConceptDetector:
    """A loaded SAM 3; make one with `ConceptDetector.load`. It is a `models.detector.protocol.Detector`.

    It `takes_exemplars`. `preprocess` and `postprocess` may run in any number of threads beside one `forward`.
    """

    channel_order: ChannelOrder = "rgb"
    class_names: tuple[str, ...] = ()
    takes_texts = has_masks = takes_exemplars = True

    def __init__(
        self,
        network: Any,
        reader: TextReader,
        mean: Sequence[float],
        std: Sequence[float],
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        fast: bool = True,
        autocast: bool = True,
    ) -> None:
        self.device = torch.device(device)
        self.dtype = dtype if autocast else torch.float32
        self.fast = fast
        self.side: int = network.config.image_size
        self.input_scale = (self.side, self.side)
        self._network = moved(network, self.device)
        self._reader = reader
        self._mean, self._std = (torch.tensor(one, dtype=torch.float32, device=self.device) for one in (mean, std))
        self._texts: OrderedDict[str, tuple[Tensor, Tensor]] = OrderedDict()

    @classmethod
    def find(cls, path: Path) -> Path:
        """See `models.huggingface_folder.find_folder`."""
        folder = find_folder(path, MODEL_TYPES, "detector")
        if not is_of(folder / "config.json", CONCEPTS):
            raise ModelFilesError(f"{folder}: expected a config.json whose model_type is one of {', '.join(CONCEPTS)}")
        return folder

    @classmethod
    def folders_below(cls, root: Path) -> set[Path]:
        """See `models.huggingface_folder.folders_below`."""
        return folders_below(root, CONCEPTS)

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
    ) -> ConceptDetector:
        """As `HuggingFaceDetector.load`."""
        folder = cls.find(Path(path))
        network = load_network(folder, weights_at(Path(path), folder))
        mean, std = normalization(folder, network.config.image_size, stretched=True, default=(HALF_MEAN, HALF_STD))
        reader = TextReader.load(folder, network.config)
        return cls(network, reader, mean, std, device, dtype, fast, autocast)

    def preprocess(self, image: np.ndarray, texts: Sequence[str] = (), exemplars: Exemplars | None = None) -> Sample:
        """(H, W, 3) uint8 RGB -> Sample, on the CPU. exemplars: of the concept that the one text names, or of one that
        has no name. Raises TextsError for texts that it cannot read."""
        check_rgb(image)
        if exemplars is not None and not texts:
            texts = (EXEMPLARS_ALONE,)
        prepared = resized(image, self.side, stretched=True)
        boxes = None if exemplars is None else _as_prompts(exemplars, prepared.size_hw)
        return Sample(prepared.image, prepared.size_hw, tuple(texts), self._reader.read(tuple(texts)), boxes)

    @torch.inference_mode()
    def forward(self, samples: Sequence[Sample], between: Callable[[], None] | None = None) -> list[RawConcepts]:
        """Run the network on the device; one result per sample, in order. between: see `in_batches`."""
        return in_batches(
            self._network,
            samples,
            lambda sample: (sample.image.shape, sample.pixels),
            lambda batch: [self._concepts(sample) for sample in batch],
            between,
            device=self.device,
            limited=True,
        )

    def _concepts(self, sample: Sample) -> RawConcepts:
        """All texts of one image, whose features they share."""
        pixels = torch.from_numpy(np.array(sample.image)).to(self.device)
        pixels = ((pixels / 255 - self._mean) / self._std).permute(2, 0, 1)[None]
        boxes, labels = (None, None) if sample.boxes is None else (one.to(self.device) for one in sample.boxes)
        found: RawConcepts | None = None
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            seen = self._network.get_vision_features(pixels)
            for number in range(len(sample.texts)):
                text, mask = self._text(sample, number)
                outputs = self._network(
                    vision_embeds=seen,
                    text_embeds=text,
                    attention_mask=mask,
                    input_boxes=boxes,
                    input_boxes_labels=labels,
                )
                found = _best(sample.size_hw, outputs, number, found)
        assert found is not None
        return found

    def _text(self, sample: Sample, number: int) -> tuple[Any, Tensor]:
        """A text's features, of which those of the last texts are kept, and which of its tokens count."""
        from transformers.modeling_outputs import BaseModelOutputWithPooling

        name = sample.texts[number]
        if name in self._texts:
            self._texts.move_to_end(name)
        else:
            ids, mask = (
                sample.tokens.inputs[key][number : number + 1].to(self.device)
                for key in ("input_ids", "attention_mask")
            )
            features = self._network.get_text_features(input_ids=ids, attention_mask=mask).pooler_output
            self._texts[name] = features, mask
            while len(self._texts) > _TEXTS_KEPT:
                self._texts.popitem(last=False)
        features, mask = self._texts[name]
        return BaseModelOutputWithPooling(pooler_output=features), mask

    @torch.inference_mode()
    def postprocess(
        self,
        raw: RawConcepts,
        *,
        score_threshold: float | None = None,
        iou_threshold: float | None = None,
        max_detections: int | None = None,
        class_agnostic: bool = False,
        masks: bool = True,
    ) -> Detections:
        """As transformers' `post_process_instance_segmentation`, on the CPU, best first.

        The arguments are those of `HuggingFaceDetector.postprocess`; None takes that function's own threshold.
        """
        height, width = raw.size_hw
        threshold = _SCORE_THRESHOLD if score_threshold is None else score_threshold
        chosen = (raw.scores > threshold).nonzero().squeeze(1)
        boxes, scores, labels = (
            raw.boxes[chosen] * torch.tensor([width, height] * 2),
            raw.scores[chosen],
            raw.labels[chosen],
        )
        best = kept(
            boxes,
            scores,
            labels,
            iou_threshold=iou_threshold,
            max_detections=max_detections,
            class_agnostic=class_agnostic,
        )
        return Detections(
            boxes_xyxy=boxes[best].numpy().clip(0, np.array([width, height] * 2, dtype=np.float32)),
            scores=scores[best].numpy(),
            labels=labels[best].numpy(),
            size_hw=raw.size_hw,
            masks=tuple(_mask(raw.masks[one], raw.size_hw) for one in chosen[best].tolist()) if masks else None,
        )

    def detect(
        self,
        images: Sequence[np.ndarray],
        *,
        texts: Sequence[str] = (),
        exemplars: Exemplars | None = None,
        **thresholds: Any,
    ) -> list[Detections]:
        """All three steps for (H, W, 3) uint8 RGB images of any sizes; thresholds: of `postprocess`."""
        raws = self.forward([self.preprocess(image, texts, exemplars) for image in images])
        return [self.postprocess(raw, **thresholds) for raw in raws]


def _as_prompts(exemplars: Exemplars, size_hw: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Boxes (1, N, 4) as (cx, cy, w, h) in 0..1, and labels (1, N)."""
    height, width = size_hw
    x1, y1, x2, y2 = (torch.tensor(exemplars.boxes_xyxy) / torch.tensor([width, height] * 2)).unbind(1)
    boxes = torch.stack([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1], dim=1)
    return boxes[None], torch.tensor(exemplars.labels)[None]


def _best(size_hw: tuple[int, int], outputs: Any, label: int, before: RawConcepts | None) -> RawConcepts:
    """The best objects of a text and of the texts before it."""
    logits, presence = outputs.pred_logits[0].float(), outputs.presence_logits[0].float()
    scores = (logits.sigmoid() * presence.sigmoid()).cpu()
    boxes, masks = outputs.pred_boxes[0].float().cpu(), outputs.pred_masks[0].to(torch.float16).cpu()
    labels = torch.full_like(scores, label, dtype=torch.int64)
    if before is not None:
        scores, boxes = torch.cat([before.scores, scores]), torch.cat([before.boxes, boxes])
        labels, masks = torch.cat([before.labels, labels]), torch.cat([before.masks, masks])
    if len(scores) > _MOST:
        best = scores.topk(_MOST).indices.sort().values
        scores, boxes, labels, masks = scores[best], boxes[best], labels[best], masks[best]
    return RawConcepts(size_hw, scores, boxes, labels, masks)


def _mask(logits: Tensor, size_hw: tuple[int, int]) -> Any:
    """One object's mask, as RLE: probabilities (h, w) of logits, interpolated to the image."""
    probabilities = F.interpolate(logits.float().sigmoid()[None, None], size_hw, mode="bilinear", align_corners=False)
    return encode_rle((probabilities[0, 0] > 0.5).numpy())
