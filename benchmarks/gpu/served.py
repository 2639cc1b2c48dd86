"""What is served, as a whole: SAM and YOLOF with their steps, and a start."""

from __future__ import annotations

import functools
import importlib.util
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from transformers import SamModel

from benchmarks.gpu.bench import LEAST_IOU, Bench
from benchmarks.gpu.random_sam import MEAN, STD, in_16_bits, random_sam
from models.demo.scenes import render_scene
from models.segmenter.cuda.sam import CudaDecoder, CudaEncoder
from models.segmenter.decoder import BOX_CORNERS
from models.segmenter.mask_packing import pack_masks, unpack_bits
from models.segmenter.protocol import DecodeRequest
from models.segmenter.sam import Sam
from models.types import Prompts

DEMO = Path(__file__).parents[2] / "weights" / "demo" / "sam"


def demo(bench: Bench) -> None:
    """Mean mask IoU on the demo weights with Hugging Face's modules in float32."""
    reference = Sam.load(DEMO, bench.device, torch.float32, fast=False)
    plain = Sam.load(DEMO, bench.device, torch.bfloat16, fast=False)
    served = Sam.load(DEMO, bench.device, torch.bfloat16)
    half = in_16_bits(SamModel.from_pretrained(DEMO).float().to(bench.device).eval())
    encoder, decoder = CudaEncoder(half.vision_encoder, MEAN, STD), CudaDecoder(half)
    labels = torch.tensor(BOX_CORNERS)

    def parts(image: np.ndarray, boxes_xyxy: np.ndarray) -> np.ndarray:
        """Encoder, decoder and packing without what is around them in the service: (N, 1, H, W) bool."""
        sample = reference.preprocess(image)
        features = encoder.encode_images([sample.image])[0]
        scale = np.array(sample.resized_hw[::-1]) / np.array(sample.size_hw[::-1])
        corners = torch.from_numpy((boxes_xyxy.reshape(-1, 2, 2) * scale).astype(np.float32))
        logits, _ = decoder(features, corners, labels.expand(len(corners), -1), multimask=False)
        packed = pack_masks(logits, reference.image_size, sample.resized_hw, sample.size_hw)
        return unpack_bits(packed.cpu().numpy(), sample.size_hw[1])

    ious: dict[str, list[float]] = {"Hugging Face's bfloat16": [], "as served": [], "encoder, decoder, packing": []}
    for seed in range(bench.scenes):
        scene = render_scene(np.random.default_rng(seed), (300, 400))
        if not len(scene.boxes_xyxy):
            continue
        prompts = Prompts(boxes_xyxy=scene.boxes_xyxy.astype(np.float64))
        expected = reference.segment(scene.image, prompts).masks
        found = (plain.segment(scene.image, prompts).masks, served.segment(scene.image, prompts).masks)
        for values, masks in zip(ious.values(), (*found, parts(scene.image, scene.boxes_xyxy)), strict=True):
            either, both = (masks | expected).sum((1, 2, 3)), (masks & expected).sum((1, 2, 3))
            values += np.where(either == 0, 1.0, both / np.maximum(either, 1)).tolist()
    theirs, *ours = (statistics.mean(values) for values in ious.values())
    for name, iou in zip(list(ious)[1:], ours, strict=True):
        what = f"mean IoU with float32 over {len(ious[name])} masks of the demo weights, {name}"
        bench.check(f"{what} (Hugging Face's bfloat16 {theirs:.4f})", iou, at_least=min(LEAST_IOU, theirs - 0.002))


def served(bench: Bench) -> None:
    """`Sam` as the engine calls it: images and prompts of several kinds in one batch, on the last device."""
    device = bench.device
    if device.type == "cuda":  # a current device that is not the model's would go unnoticed with the first
        device = torch.device("cuda", torch.cuda.device_count() - 1)
    scenes = [render_scene(np.random.default_rng(seed), (300, 400)) for seed in range(2)]
    boxes = np.array([[40.0, 30.0, 200.0, 180.0], [120.0, 90.0, 330.0, 290.0], [5.0, 5.0, 60.0, 80.0]])
    points = np.array([[[100.0, 90.0]], [[220.0, 200.0]], [[30.0, 40.0]]])
    kinds = [
        Prompts(boxes_xyxy=boxes),
        Prompts(points_xy=points[:1]),
        Prompts(points_xy=points.repeat(3, axis=1) + np.arange(3)[None, :, None]),
        Prompts(points_xy=points, boxes_xyxy=boxes),
    ]
    for dtype, least in ((torch.float32, 0.999), (torch.bfloat16, 0.98)):
        fast, plain = (Sam.load(DEMO, device, dtype, fast=fast) for fast in (True, False))
        embeddings = fast.embed([fast.preprocess(scene.image) for scene in scenes])
        fast.capture_encoder()
        fast.capture_decoder(embeddings[0])
        requests = [DecodeRequest(image, prompts, True) for image in embeddings for prompts in kinds]
        same, all_of_them = 0, 0
        for request, raw in zip(requests, fast.decode_batch(requests), strict=True):
            alone = plain.decode(request.embedding, request.prompts, multimask=True)
            for index in range(len(raw)):
                ours, theirs = fast.postprocess(raw, index), plain.postprocess(alone, index)
                same, all_of_them = same + int((ours == theirs).sum()), all_of_them + ours.size
        bench.check(f"pixels alike in a mixed batch on {device}, {dtype}", same / all_of_them, at_least=least)


def yolof(bench: Bench) -> None:
    """The network alone: what goes before it and after it is done on the CPU."""
    missing = [name for name in ("mmdet", "mmengine", "mmcv") if importlib.util.find_spec(name) is None]
    if missing:
        bench.note(f"YOLOF: not measured, {', '.join(missing)} not installed")
        return
    from benchmarks.random_models import make_yolof
    from models.detector.mmdetection import MMDetector

    with tempfile.TemporaryDirectory() as scratch:
        folder = DEMO.parent / "yolof"
        if bench.on_cuda:
            folder = Path(scratch, "yolof")
            make_yolof(folder)
        bf16, float32 = (MMDetector.load(folder, bench.device, dtype) for dtype in (torch.bfloat16, torch.float32))
        plain = MMDetector.load(folder, bench.device, fast=False)
    image = render_scene(np.random.default_rng(0), bench.photo_hw).image
    alone, whole = [], []
    for detector in (bf16, float32, plain):
        sample = detector.preprocess(image)
        alone.append(bench.milliseconds(functools.partial(detector.forward, [sample])))
        whole.append(bench.milliseconds(functools.partial(detector.detect, [image])))
    for case, (ours, ours32, slow) in (("YOLOF", alone), ("YOLOF from photo to boxes", whole)):
        bench.row(case, ours, None, slow, f"ours in float32 {ours32:.3f}; beside it MMDetection's own network code")


def cold_start(bench: Bench) -> None:
    """A new process until it has encoded and decoded, with Triton's cache empty and then filled."""
    limit = 60 if bench.on_cuda else math.inf  # a processor may be busy with something else
    with tempfile.TemporaryDirectory() as cache:
        for name in ("with nothing compiled yet", "with kernels compiled before")[: 2 if bench.on_cuda else 1]:
            command = [sys.executable, "-m", "benchmarks.gpu", "--ready", *([] if bench.on_cuda else ["--cpu"])]
            began = time.monotonic()
            run = subprocess.run(
                command, env=os.environ | {"TRITON_CACHE_DIR": cache}, stdout=subprocess.PIPE, text=True, check=True
            )
            seconds = time.monotonic() - began
            parts = json.loads(run.stdout.splitlines()[-1])
            details = ", ".join(f"{part} {took:.1f} s" for part, took in parts.items())
            bench.check(f"seconds from start to ready, {name} ({details})", seconds, at_most=limit)


def ready(bench: Bench) -> None:
    """What a service does until it is ready, but for reading weights from a disk; prints the seconds of each part."""
    marks = [("imports", time.monotonic())]
    model = in_16_bits(random_sam(bench.vision, bench.device))
    bench.wait()
    marks.append(("weights", time.monotonic()))
    encoder, decoder = CudaEncoder(model.vision_encoder, MEAN, STD), CudaDecoder(model)
    encoder.warm_up()
    features = encoder.encode_images([np.zeros((1, 1, 3), np.uint8)])[0]
    bench.wait()
    marks.append(("encoder", time.monotonic()))
    if bench.on_cuda:
        decoder.warm_up(features)
    else:  # which captures nothing, and would run all sizes, slowly, for nothing
        decoder(features, torch.zeros(1, 2, 2), torch.tensor([BOX_CORNERS]), multimask=False)
    bench.wait()
    marks.append(("decoder", time.monotonic()))
    print(json.dumps({name: end - start for (_, start), (name, end) in zip(marks, marks[1:], strict=False)}))
