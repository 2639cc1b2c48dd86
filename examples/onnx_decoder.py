"""Masks by ONNX Runtime, with an image's embedding from a box2mask service or from the exported encoder.

    box2mask export onnx --segmenter demo-sam --out demo-sam-onnx
    python onnx_decoder.py photo.jpg demo-sam-onnx --box 246 140 326 287 --url http://localhost:5001 --out mask.png

With --url the service computes the embedding, and this program needs decoder.onnx and model.json alone. Without it
encoder.onnx does. All that is done here to images and prompts is what model.json says. It needs httpx, numpy,
onnxruntime, pillow and safetensors, and nothing of box2mask.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

import httpx
import numpy as np
import onnxruntime
from PIL import Image
from safetensors.numpy import load


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Masks of one photo by ONNX Runtime.")
    parser.add_argument("photo", type=Path)
    parser.add_argument("folder", type=Path, help="what `box2mask export onnx` has written")
    parser.add_argument("--url", help="a service with the same model (default: encoder.onnx computes the embedding)")
    parser.add_argument("--box", nargs=4, type=float, action="append", metavar=("X1", "Y1", "X2", "Y2"))
    parser.add_argument("--point", nargs=2, type=float, action="append", metavar=("X", "Y"), help="on the object")
    parser.add_argument("--not-point", nargs=2, type=float, action="append", metavar=("X", "Y"), help="beside it")
    parser.add_argument("--out", type=Path, default=Path("mask.png"), help="the best mask, 0 and 255 (mask.png)")
    args = parser.parse_args(argv)
    wanted, unwanted = args.point or [], args.not_point or []
    if not (args.box or wanted or unwanted):
        parser.error("expected --box or --point")

    model = Model(args.folder)
    with Image.open(args.photo) as opened:
        image = np.asarray(opened.convert("RGB"))
    features = model.asked(args.url, args.photo.read_bytes()) if args.url else model.encode(image)
    points = np.array([[*wanted, *unwanted]] * len(args.box or [0])) if wanted or unwanted else None
    labels = np.array([[1] * len(wanted) + [0] * len(unwanted)] * len(args.box or [0])) if points is not None else None
    boxes = np.array(args.box) if args.box else None
    masks, scores, _ = model.decode(features, image.shape[:2], points, labels, boxes)
    best = scores[:, 0].argmax()
    Image.fromarray(masks[best, 0].astype(np.uint8) * 255).save(args.out)
    print(f"{args.out}: {masks[best, 0].sum()} of {masks[best, 0].size} pixels, IoU {scores[best, 0]:.3f}")
    return 0


class Model:
    """A folder that `box2mask export onnx` has written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.about = json.loads((folder / "model.json").read_text())
        self.decoder = onnxruntime.InferenceSession(folder / self.about["decoder"]["file"])

    def resized_hw(self, height: int, width: int) -> tuple[int, int]:
        """The size that an image has in the model's input."""
        side = self.about["image"]["size"]
        if self.about["image"]["resize"] == "square":
            return side, side
        scale = side / max(height, width)
        return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))

    def encode(self, image: np.ndarray) -> dict[str, np.ndarray]:
        """An image (H, W, 3) RGB -> the tensors of its embedding, by name."""
        about, (height, width) = self.about["image"], self.resized_hw(*image.shape[:2])
        resized = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
        pixels = np.zeros((1, 3, about["size"], about["size"]), np.float32)
        normal = (resized * about["rescale"] - about["mean"]) / about["std"]
        pixels[0, :, :height, :width] = normal.transpose(2, 0, 1)
        encoder = onnxruntime.InferenceSession(self.folder / self.about["encoder"]["file"])
        names = self.about["encoder"]["outputs"]
        return dict(zip(names, encoder.run(names, {"pixel_values": pixels}), strict=True))

    def asked(self, url: str, file: bytes) -> dict[str, np.ndarray]:
        """The same from a service, which must have the same model. file: the image's, as it is."""
        key = os.environ.get("SCORING_KEY")
        headers = {"authorization": f"Bearer {key}"} if key else {}
        with httpx.Client(base_url=url, headers=headers, timeout=600) as client:
            kept = client.post("/images", content=file).raise_for_status().json()["image"]
            answer = client.get(f"/images/{kept}/embedding").raise_for_status().content
        length = int.from_bytes(answer[:8], "little")  # of the header, which is JSON
        metadata = json.loads(answer[8 : 8 + length])["__metadata__"]
        if metadata["model_sha256"] != self.about["sha256"]:
            sys.exit(f"{url} has the segmenter {metadata['model']}, and {self.folder} is of {self.about['name']}")
        return {name: tensor.astype(np.float32) for name, tensor in load(answer).items()}

    def decode(
        self,
        features: dict[str, np.ndarray],
        size_hw: tuple[int, int],
        points: np.ndarray | None = None,
        labels: np.ndarray | None = None,
        boxes: np.ndarray | None = None,
        logits: np.ndarray | None = None,
        *,
        multimask: bool = False,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Masks (N, M, H, W) bool, scores (N, M) and logits (N, M, side, side) of N prompts; M is 1, or 3 (multimask).

        points: (N, P, 2) in pixels of the image, with labels (N, P): 1 object, 0 not. boxes: (N, 4) x1, y1, x2, y2.
        logits: (N, side, side) of an earlier answer.
        """
        about = self.about["prompts"]
        count = next(len(given) for given in (boxes, points, logits) if given is not None)
        coords, marks = np.zeros((count, 0, 2)), np.zeros((count, 0))
        if points is not None and labels is not None:
            coords, marks = np.concatenate([coords, points], 1), np.concatenate([marks, labels], 1)
        if boxes is not None:
            corners = [about["labels"]["box_upper_left"], about["labels"]["box_lower_right"]]
            coords = np.concatenate([coords, boxes.reshape(count, 2, 2)], 1)
            marks = np.concatenate([marks, np.tile(corners, (count, 1))], 1)
        resized = self.resized_hw(*size_hw)
        coords = coords * (np.array(resized[::-1]) / np.array(size_hw[::-1]))
        ends = about["ends"]["mask" if not marks.size else "points" if boxes is None else "box"]
        coords = np.concatenate([coords, np.zeros((count, ends, 2))], 1)
        marks = np.concatenate([marks, np.full((count, ends), about["labels"]["end"])], 1)
        side = about["mask_side"]
        has_mask = np.full(count, logits is not None)
        logits = np.zeros((count, side, side)) if logits is None else logits
        inputs = {
            **features,
            "point_coords": coords,
            "point_labels": marks,
            "mask_input": logits[:, None],
            "has_mask_input": has_mask,
            "orig_im_size": np.array(size_hw),
        }
        outputs = self.decoder.run(None, {name: value.astype(np.float32) for name, value in inputs.items()})
        masks, scores, low = (one[:, self.about["masks"]["multimask" if multimask else "single"]] for one in outputs)
        return masks > self.about["masks"]["threshold"], scores, low


if __name__ == "__main__":
    sys.exit(main())
