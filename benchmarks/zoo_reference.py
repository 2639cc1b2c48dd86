"""`python -m benchmarks.zoo_reference --compiled PYTHON`: detectors of MMDetection's zoo, answered by `box2mask serve`
over HTTP and by MMDetection's own `inference_detector` where mmcv is compiled; a table of the largest differences.

Each has random weights, in a folder with its config and checkpoint, which both sides read. PYTHON is an interpreter
with mmdet 3.3.0 and the compiled mmcv 2.1.0.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.machine import Machine
from benchmarks.report import table
from benchmarks.service import Service, ServiceFailed
from benchmarks.workload import detector_request, picture
from benchmarks.zoo.chosen import tree
from benchmarks.zoo.folders import write_folder

ROOT = Path(__file__).parents[1]
SIDE = 320  # the longest of an image, in place of 1333: the ops are the same
MOST = 100  # objects that are compared, best first
FAMILIES = (
    "faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py",
    "cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco.py",
    "mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py",
    "cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py",
    "double_heads/dh-faster-rcnn_r50_fpn_1x_coco.py",
    "dcn/faster-rcnn_r50-dconv-c3-c5_fpn_1x_coco.py",
    "dcnv2/faster-rcnn_r50-mdconv-c3-c5_fpn_1x_coco.py",
    "dyhead/atss_r50_fpn_dyhead_1x_coco.py",
    "tood/tood_r50_fpn_1x_coco.py",
    "vfnet/vfnet_r50-mdconv-c3-c5_fpn_ms-2x_coco.py",
    "yolox/yolox_s_8xb8-300e_coco.py",
    "ssd/ssd300_coco.py",
    "rtmdet/rtmdet_tiny_8xb32-300e_coco.py",
    "rtmdet/rtmdet-ins_tiny_8xb32-300e_coco.py",
    "condinst/condinst_r50_fpn_ms-poly-90k_coco_instance.py",
    "point_rend/point-rend_r50-caffe_fpn_ms-1x_coco.py",
    "htc/htc-without-semantic_r50_fpn_1x_coco.py",
    "deformable_detr/deformable-detr_r50_16xb2-50e_coco.py",
    "dino/dino-4scale_r50_8xb2-12e_coco.py",
    "mask2former/mask2former_r50_8xb2-lsj-50e_coco.py",
)
SIDES = ("topX", "topY", "bottomX", "bottomY")
HEADER = ("config", "objects, theirs", "ours", "paired", "box, pixels", "score", "labels differ", "masks, least IoU")

THEIRS = """
import glob, sys, json, warnings
warnings.simplefilter("ignore")
import numpy as np, torch
torch.set_num_threads(1)
from mmcv import _ext
assert _ext.__file__.endswith(".so"), _ext
from mmdet.apis import inference_detector, init_detector
from pycocotools import mask as coco
image = np.load(sys.argv[1])
for folder in sys.stdin.read().splitlines():
    try:
        model = init_detector(*glob.glob(folder + "/*.py"), folder + "/random.pth", device="cpu", palette="random")
        found = inference_detector(model, np.ascontiguousarray(image[..., ::-1])).pred_instances
        kept = {"boxes": found.bboxes.tolist(), "scores": found.scores.tolist(), "labels": found.labels.tolist()}
        if "masks" in found:
            masks = np.asfortranarray(np.asarray(found.masks).transpose(1, 2, 0).astype(np.uint8))
            kept["masks"] = [{"size": one["size"], "counts": one["counts"].decode()} for one in coco.encode(masks)]
    except Exception as error:
        kept = {"error": f"{type(error).__name__}: {error}"}
    json.dump(kept, open(folder + "/theirs.json", "w"))
    print(folder, flush=True)
"""


def ours(folder: Path, image: np.ndarray) -> dict[str, Any]:
    """What the service answers, in the form of `THEIRS`. Raises ServiceFailed."""
    service = Service({"BOX2MASK_SEGMENTER": "none", "BOX2MASK_DETECTOR": str(folder), "BOX2MASK_DTYPE": "float32"})
    try:
        service.ready()
        body = detector_request(image, mask_format="rle")
        [row] = json.loads(service.post("/yolof/score", body))
    finally:
        service.close()
    size = np.array([image.shape[1], image.shape[0]] * 2)
    found = row["boxes"]
    answer: dict[str, Any] = {
        "boxes": [(np.array([one["box"][side] for side in SIDES]) * size).tolist() for one in found],
        "scores": [one["score"] for one in found],
        "labels": [int(one["label"].removeprefix("class ")) for one in found],
    }
    if found and "mask_per_prediction" in found[0]:
        answer["masks"] = [one["mask_per_prediction"][0]["rle"] for one in found]
    return answer


def compare(theirs: dict[str, Any], mine: dict[str, Any], size_wh: tuple[int, int]) -> tuple[str, ...]:
    """The cells of a row after its name: pairs of nearest boxes with nearly the same score."""
    from pycocotools import mask as coco

    limits = np.array([*size_wh, *size_wh], float)
    boxes, own = (np.array(one["boxes"], float).reshape(-1, 4) for one in (theirs, mine))
    boxes = boxes.clip(0, limits)
    scores, own_scores = (np.array(one["scores"], float) for one in (theirs, mine))
    labels, own_labels = (np.array(one["labels"], int) for one in (theirs, mine))
    best = np.argsort(-scores, kind="stable")[:MOST]
    cost = np.abs(boxes[best][:, None] - own[None]).max(2) + 1000 * np.abs(scores[best][:, None] - own_scores[None])
    cost += 10.0 * (labels[best][:, None] != own_labels[None])
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(cost)
    its = best[rows]
    by_box = np.abs(boxes[its] - own[columns]).max(1)
    by_score = np.abs(scores[its] - own_scores[columns])
    least = "-"
    if "masks" in theirs and "masks" in mine:
        ious = []
        for a, b in zip(its, columns, strict=True):
            union = coco.area(coco.merge([theirs["masks"][a], mine["masks"][b]]))
            common = coco.area(coco.merge([theirs["masks"][a], mine["masks"][b]], intersect=True))
            ious.append(1.0 if union == 0 else common / union)
        least = f"{min(ious, default=1.0):.4f}"
    differ = int((labels[its] != own_labels[columns]).sum())
    return (
        str(len(scores)), str(len(own_scores)), str(len(its)),
        f"{by_box.max(initial=0):.4f}", f"{by_score.max(initial=0):.1e}", str(differ), least,
    )  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    """Returns 0."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.zoo_reference", description=__doc__)
    parser.add_argument("--compiled", required=True, metavar="PYTHON", help="the interpreter with the compiled mmcv")
    parser.add_argument("--configs", nargs="+", default=FAMILIES, metavar="CONFIG", help="of mmdet's .mim/configs")
    parser.add_argument("--image", type=Path, help="a photo, in place of a drawn scene")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/zoo-reference.md")
    args = parser.parse_args(argv)
    machine = Machine.this()
    image = np.asarray(Image.open(args.image).convert("RGB")) if args.image else picture()
    from models.detector import mmcv_ops

    mmcv_ops.install()
    rows: list[tuple[str, ...]] = []
    failed: list[str] = []
    with tempfile.TemporaryDirectory(prefix="box2mask-zoo-") as scratch:
        np.save(seen := Path(scratch) / "image.npy", np.asarray(_as_sent(image)))
        for number, name in enumerate(args.configs):
            folder = Path(scratch) / str(number)
            folder.mkdir()
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    write_folder(tree() / name, folder, image, SIDE)
                subprocess.run(
                    [args.compiled, "-c", THEIRS, str(seen)], input=str(folder), text=True, check=True, cwd=scratch,
                    stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"},
                )  # fmt: skip
                theirs = json.loads((folder / "theirs.json").read_text())
                if "error" in theirs:
                    raise RuntimeError(f"theirs: {theirs['error']}")
                cells = compare(theirs, ours(folder, image), (image.shape[1], image.shape[0]))
                rows.append((name, *cells))
                print("; ".join(rows[-1]), file=sys.stderr, flush=True)
            except (ServiceFailed, RuntimeError, KeyError, ValueError, subprocess.CalledProcessError) as error:
                failed.append(f"- `{name}`: {' '.join(str(error).split())[-300:]}")
                print(failed[-1], file=sys.stderr, flush=True)
            rest = ["", "Not compared:", "", *failed] if failed else []
            args.out.write_text("\n".join([*_preface(machine), table(HEADER, rows), *rest]) + "\n")
            for file in folder.iterdir():
                file.unlink()
    return 0


def _as_sent(image: np.ndarray) -> Image.Image:
    """The pixels that the service decodes of what `detector_request` sends."""
    import base64
    import io

    from benchmarks.workload import to_base64

    return Image.open(io.BytesIO(base64.b64decode(to_base64(image)))).convert("RGB")


def _preface(machine: Machine) -> list[str]:
    return [
        "# Detectors of the zoo: the service over HTTP beside MMDetection with mmcv's compiled ops",
        "",
        *machine.lines(),
        "- `python -m benchmarks.zoo_reference --compiled PYTHON`, mmdet 3.3.0 and mmcv 2.1.0 beside the same torch",
        "",
        f"Random weights, images resized to {SIDE} pixels at most; the best {MOST} objects of MMDetection,",
        "each with the one of the service that is nearest; the largest difference of any pair. Boxes are in pixels of",
        "the image, theirs cut to it, as the service's are.",
        "",
    ]


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # so that no service is left behind
    sys.exit(main())
