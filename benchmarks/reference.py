"""The straightforward loop, as the wrapper of Azure's model catalog works: one row at a time, libraries' defaults.

base64 -> PIL -> Hugging Face's processor -> float32 `SamModel` -> `post_process_masks` -> PIL's PNG -> base64, and
`inference_detector` for each row. It knows nothing of the service, and shares no code with it; the one thing taken
from `models` is what lets mmdet run without compiled ops.
"""

from __future__ import annotations

import ast
import base64
import io
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

from models.detector import mmcv_ops


class ReferenceSegmenter:
    """SAM, loaded from a Hugging Face folder in float32."""

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        from transformers import SamImageProcessorPil, SamModel, SamProcessor
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()
        self.device = device
        self.processor = SamProcessor(SamImageProcessorPil.from_pretrained(folder))
        self.model = SamModel.from_pretrained(folder, dtype=torch.float32).to(device).eval()

    def score(self, body: bytes) -> bytes:
        """A request for masks -> the model card's answer."""
        return json.dumps([self._answer(row) for row in read_rows(body)]).encode()

    def _answer(self, row: dict[str, Any]) -> dict[str, Any]:
        points, boxes, labels = (
            ast.literal_eval(row[name]) if row[name] else None
            for name in ("input_points", "input_boxes", "input_labels")
        )
        masks, scores = self.segment(read_image(row["image"]), points, boxes, labels, row["multimask_output"])
        return {"predictions": [{"mask_per_prediction": encoded} for encoded in encode_all(masks, scores)]}

    def segment(
        self, image: Image.Image, points: Any, boxes: Any, labels: Any, multimask: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        """Masks (N, M, H, W) bool and iou_scores (N, M) for prompts in pixels, given as nested lists or None."""
        inputs = self.processor(
            image,
            input_points=None if points is None else [points],
            input_boxes=None if boxes is None else [boxes],
            input_labels=None if labels is None else [labels],
            return_tensors="pt",
        ).to(self.device)
        with torch.no_grad():
            outputs = self.model(**inputs, multimask_output=multimask)
        (masks,) = self.processor.image_processor.post_process_masks(
            outputs.pred_masks.cpu(), inputs["original_sizes"].cpu(), inputs["reshaped_input_sizes"].cpu()
        )
        return masks.numpy(), outputs.iou_scores[0].cpu().numpy()

    def pixels(self, image: Image.Image) -> torch.Tensor:
        """What the encoder takes: (1, 3, S, S) float32."""
        return self.processor(image, return_tensors="pt")["pixel_values"].to(self.device)

    @torch.no_grad()
    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """The image encoder alone: (1, C, h, w)."""
        return self.model.get_image_embeddings(pixels)

    def resized_boxes(self, image: Image.Image, boxes: list[list[float]]) -> torch.Tensor:
        """Boxes (1, N, 4) in pixels of the resized image, as the decoder takes them."""
        inputs = self.processor(image, input_boxes=[boxes], return_tensors="pt")
        return inputs["input_boxes"].to(self.device)

    @torch.no_grad()
    def decode(self, embedding: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
        """Prompt encoder and mask decoder on a ready embedding: logits (1, N, 1, 4h, 4w), on the CPU."""
        outputs = self.model(image_embeddings=embedding, input_boxes=boxes, multimask_output=False)
        return outputs.pred_masks.cpu()


class ReferenceDetector:
    """An MMDetection detector behind `inference_detector`, from a folder with its config and checkpoint.

    Its images are BGR, as its config expects them; Azure's wrapper gives it RGB, which takes the same time.
    """

    def __init__(self, folder: Path, device: str = "cpu", **test_settings: float) -> None:
        """test_settings: changes to the config's `test_cfg`, such as `max_per_img`."""
        with warnings.catch_warnings(record=True):  # MMDetection's own, which it insists on
            mmcv_ops.install()
            from mmdet.apis import inference_detector, init_detector
            from mmengine.config import Config

            (path,) = folder.glob("*.py")
            (checkpoint,) = (file for file in folder.iterdir() if file.suffix in (".pth", ".safetensors"))
            config = Config.fromfile(path)
            config.model.test_cfg.update(test_settings)
            if checkpoint.suffix == ".pth":
                self.model = init_detector(config, str(checkpoint), palette="random", device=device)
            else:  # a form that mmengine's loader does not know
                self.model = init_detector(config, None, palette="random", device=device)
                self.model.load_state_dict(load_file(checkpoint))
                self.model.dataset_meta["classes"] = config.metainfo["classes"]
        self._infer = inference_detector

    def score(self, body: bytes) -> bytes:
        """A request for boxes -> the model card's answer."""
        return json.dumps([{"boxes": self.detect(read_image(row["image"]))} for row in read_rows(body)]).encode()

    def detect(self, image: Image.Image) -> list[dict[str, Any]]:
        """Boxes in 0..1 of the image, with label and score, best first."""
        found = self._infer(self.model, np.asarray(image)[..., ::-1]).pred_instances.cpu()
        classes = self.model.dataset_meta["classes"]
        sides = ("topX", "topY", "bottomX", "bottomY")
        normalized = found.bboxes.numpy() / np.array([image.width, image.height] * 2)
        return [
            {"box": dict(zip(sides, map(float, box), strict=True)), "label": classes[label], "score": float(score)}
            for box, label, score in zip(normalized, found.labels.tolist(), found.scores.tolist(), strict=True)
        ]


class ReferencePipeline:
    """The two one after the other: a mask for every box that the detector finds."""

    def __init__(self, detector: ReferenceDetector, segmenter: ReferenceSegmenter) -> None:
        self.detector = detector
        self.segmenter = segmenter

    def score(self, body: bytes) -> bytes:
        """A request for boxes -> the boxes, each with its mask."""
        answers = []
        for row in read_rows(body):
            image = read_image(row["image"])
            found = self.detector.detect(image)
            if found:
                size = np.array([image.width, image.height] * 2)
                boxes = [(np.array(list(one["box"].values())) * size).tolist() for one in found]
                encoded = encode_all(*self.segmenter.segment(image, None, boxes, None, False))
                for one, masks in zip(found, encoded, strict=True):
                    one["mask_per_prediction"] = masks
            answers.append({"boxes": found})
        return json.dumps(answers).encode()


def read_rows(body: bytes) -> list[dict[str, Any]]:
    """A pandas-split body's rows, by column name."""
    table = json.loads(body)["input_data"]
    return [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]


def read_image(text: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(text))).convert("RGB")


def encode_all(masks: np.ndarray, scores: np.ndarray) -> list[list[dict[str, Any]]]:
    """For each prompt of (N, M, H, W) bool and (N, M) its masks as the answer carries them."""
    return [
        [
            {"encoded_binary_mask": encode_mask(mask), "iou_score": float(score)}
            for mask, score in zip(masks_of_one, scores_of_one, strict=True)
        ]
        for masks_of_one, scores_of_one in zip(masks, scores, strict=True)
    ]


def encode_mask(mask: np.ndarray) -> str:
    """(H, W) bool -> base64 of PIL's PNG, mode L, 0 and 255."""
    buffer = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8) * 255).save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode("utf-8")
