"""What transformers' own processors and models make of an image and prompts: the reference of every family of SAM.

`Sam2ImageProcessor` needs torchvision, so its part is computed here. What it does: the image is resized to height x
width of `size` whatever its shape, bilinearly with antialiasing, as bytes; these are divided by 255 and normalised;
nothing is padded. Points and boxes are multiplied by the size over the image's. Logits are interpolated to the image at
once.

`SamHQModel` of transformers 5.23 drops what its decoder's layers make of the image: see `MendedTransformer`. Its
`Sam3TrackerModel` drops an embedding: see `mended_sam3`.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn
from transformers import SamHQProcessor, SamProcessor
from transformers.models.sam.image_processing_pil_sam import SamImageProcessorPil

from models.types import Prompts

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
# A model, an image (H, W, 3), its prompts, multimask -> masks (N, M, H, W) bool and scores (N, M)
Published = Callable[[Any, np.ndarray, Prompts, bool], tuple[np.ndarray, np.ndarray]]


class MendedTransformer(nn.Module):
    """The two-way layers of `SamHQMaskDecoder`, whose result for the image reaches what comes after them.

    The decoder of transformers 5.23 puts that result into a name that it never reads. It goes on with the tensor that
    it gave to the layers, whose rows and columns it then swaps. Here the result is written into that tensor, swapped.
    """

    def __init__(self, layers: nn.Module) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, *, image_embeddings: torch.Tensor, **others: Any) -> tuple[torch.Tensor, torch.Tensor]:
        queries, image = self.layers(image_embeddings=image_embeddings.clone(), **others)
        image_embeddings.copy_(image.transpose(2, 3).reshape(image_embeddings.shape).transpose(2, 3))
        return queries, image


def mended_sam_hq(model: Any) -> Any:
    mended = deepcopy(model)
    mended.mask_decoder.transformer = MendedTransformer(mended.mask_decoder.transformer)
    return mended


def mended_sam3(model: Any) -> Any:
    """A `Sam3TrackerModel` that adds its embedding of no memory to the grid that its decoder reads.

    transformers 5.23 adds it to the coarsest of four grids, which nobody reads. Without that one, the next is the last.
    """
    mended = deepcopy(model)
    del mended.vision_encoder.neck.fpn_layers[3:]
    return mended


def processor_of(size: int, kind: Any = SamProcessor) -> Any:
    """The processor of a model of images of this size; without torchvision its part for images is Pillow's."""
    return kind(SamImageProcessorPil(size={"longest_edge": size}, pad_size={"height": size, "width": size}))


def published_sam(model: Any, image: np.ndarray, prompts: Prompts, multimask: bool) -> tuple[np.ndarray, np.ndarray]:
    """By `SamProcessor` and `SamModel`, or by SAM-HQ's, which are called alike."""
    kind = SamHQProcessor if model.config.model_type == "sam_hq" else SamProcessor
    processor = processor_of(model.config.vision_config.image_size, kind)
    given = {"points": prompts.points_xy, "labels": prompts.point_labels, "boxes": prompts.boxes_xyxy}
    arguments = {f"input_{name}": [array.tolist()] for name, array in given.items() if array is not None}
    inputs = processor(Image.fromarray(image), return_tensors="pt", **arguments)
    sizes = inputs.pop("original_sizes"), inputs.pop("reshaped_input_sizes")
    inputs["pixel_values"] = inputs["pixel_values"].to(model.dtype)
    if (given_mask := _given_mask(prompts)) is not None:
        inputs["input_masks"] = given_mask.to(model.dtype)
    with torch.inference_mode():
        outputs = model(**inputs, multimask_output=multimask)
    (masks,) = processor.image_processor.post_process_masks(outputs.pred_masks.float(), *sizes)
    return masks.numpy(), outputs.iou_scores[0].float().numpy()


def published_sam2(model: Any, image: np.ndarray, prompts: Prompts, multimask: bool) -> tuple[np.ndarray, np.ndarray]:
    """By `Sam2Model` or `Sam3TrackerModel`, their inputs and masks as the module's docstring says."""
    height, width = image.shape[:2]
    side = model.prompt_encoder.input_image_size
    resized = np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR))
    pixels = torch.from_numpy((resized / 255.0 - MEAN) / STD).permute(2, 0, 1)[None].to(model.dtype)
    scale = torch.tensor([side / width, side / height])
    points, boxes = (
        None if array is None else torch.from_numpy(array)[None].float() * scale.repeat(array.shape[-1] // 2)
        for array in (prompts.points_xy, prompts.boxes_xyxy)
    )
    labels = None if prompts.point_labels is None else torch.from_numpy(prompts.point_labels)[None]
    given = _given_mask(prompts)
    given = None if given is None else given.to(model.dtype)
    with torch.inference_mode():
        outputs = model(pixels, points, labels, boxes, given, multimask_output=multimask)
        logits = outputs.pred_masks[0].float()
        masks = F.interpolate(logits, (height, width), mode="bilinear", align_corners=False) > 0
    return masks.numpy(), outputs.iou_scores[0].float().numpy()


def _given_mask(prompts: Prompts) -> torch.Tensor | None:
    """(1, N, side, side)"""
    masks = [mask for mask in prompts.mask_logits or () if mask is not None]
    return torch.from_numpy(np.stack(masks))[None] if masks else None


def prompt_by_prompt(
    published: Published, model: Any, image: np.ndarray, prompts: Prompts, multimask: bool
) -> tuple[np.ndarray, np.ndarray]:
    """The same for prompts that each have a mask of their own: transformers has one for all prompts of an image."""

    def of_one(array: np.ndarray | None, number: int) -> np.ndarray | None:
        return None if array is None else array[number : number + 1]

    alone = [
        Prompts(
            of_one(prompts.points_xy, n), of_one(prompts.point_labels, n), of_one(prompts.boxes_xyxy, n),
            None if mask is None else (mask,),
        )
        for n, mask in enumerate(prompts.mask_logits or ())
    ]  # fmt: skip
    parts = [published(model, image, part, multimask) for part in alone or [prompts]]
    masks, scores = (np.concatenate(both) for both in zip(*parts, strict=True))
    return masks, scores


def random_weights(model: Any, seed: int = 0) -> Any:
    """The model with weights under which all that differs shows: norms do something, attention is sharp."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" in name:
                weight.normal_(1 if name.endswith("weight") else 0, 0.3, generator=generator)
            elif weight.ndim > 1 and not any(part in name for part in ("embed.", "token.", "tokens.", "pos")):
                weight.normal_(0, 1.5 * weight[0].numel() ** -0.5, generator=generator)
            else:
                weight.normal_(0, 0.3 if weight.ndim == 1 else 1, generator=generator)
        if not hasattr(model, "prompt_encoder"):  # no SAM, or one among other parts
            return model.eval()
        model.mask_decoder.iou_prediction_head.proj_out.weight.mul_(0.2)  # scores as large as real ones
        place = model.shared_image_embedding.positional_embedding.normal_(0, 1, generator=generator)
        model.prompt_encoder.shared_embedding.positional_embedding.copy_(place)
    return model.eval()
