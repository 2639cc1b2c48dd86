"""What runs side by side on a GPU, and what crosses the bus to it."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable

import numpy as np
import torch

from benchmarks.gpu.bench import LEAST_ROOM, Bench, distance
from benchmarks.gpu.random_sam import MEAN, STD, Models
from models.segmenter.cuda.sam import CudaDecoder, CudaEncoder
from models.segmenter.decoder import BOX_CORNERS
from models.segmenter.pixel_upload import normalize, upload
from models.square_images import resized_size


def both_lanes(bench: Bench, models: Models) -> None:
    """Encoder and decoder from two threads with streams of their own, both capturing: the answers must not change."""
    torch.manual_seed(3)
    pixels = torch.randn(max(bench.batches), 3, models.side, models.side, device=bench.device).bfloat16()
    size = models.side // models.ours.config.vision_config.patch_size
    image = torch.randn(256, size, size, device=bench.device).bfloat16()
    counts = (1, 3, 16, 64) if bench.on_cuda else (1, 3)
    corners = models.side * torch.rand(counts[-1], 2, 2)
    kinds = torch.tensor(BOX_CORNERS).expand(counts[-1], -1)
    plain_encoder = CudaEncoder(models.ours.vision_encoder, MEAN, STD, graphs=False)
    plain_decoder = CudaDecoder(models.ours, graphs=False)
    expected = plain_encoder(pixels[:1])
    expected_masks = {n: plain_decoder(image, corners[:n], kinds[:n], multimask=False)[0] for n in counts}
    encoder, decoder = CudaEncoder(models.ours.vision_encoder, MEAN, STD), CudaDecoder(models.ours)
    bench.wait()
    errors: dict[str, float] = {}
    latencies: list[float] = []
    failures: list[str] = []
    stop = threading.Event()

    def finish(ready: Callable[[], None]) -> None:
        try:
            with torch.inference_mode():
                ready()
        except Exception:  # of another thread: told by `failures`
            failures.append(traceback.format_exc())
        finally:
            stop.set()

    def encode_all() -> None:
        with bench.stream():
            found = []
            for round_ in range(bench.repeats):
                encoder(pixels)
                found.append(encoder(pixels[:1] if round_ % 2 == 0 else pixels[:3])[:1].float().cpu())
            errors["encode"] = max(distance(one, expected.cpu()) for one in found)

    def decode_all() -> None:
        with bench.stream(priority=-1):
            worst = 0.0
            while not stop.is_set() or not latencies:
                for n in counts:
                    began = time.perf_counter()
                    found = decoder(image, corners[:n], kinds[:n], multimask=False)[0].cpu()
                    if n == 1:
                        latencies.append(1000 * (time.perf_counter() - began))
                    worst = max(worst, distance(found, expected_masks[n].cpu()))
            errors["decode"] = worst

    threads = [threading.Thread(target=finish, args=(work,)) for work in (encode_all, decode_all)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise RuntimeError("\n".join(failures))
    for name, error in errors.items():
        what = f"{name} while the other lane works, distance from alone and without graphs"
        bench.check(what, error, at_most=2 * bench.rounding + LEAST_ROOM)
    p50, p99 = np.percentile(latencies[1:] or latencies, (50, 99))  # the first call captures
    bench.row("decode 1 while batches are encoded", float(p50), None, None, f"p99 {p99:.2f}; masks' copy included")


def transfers(bench: Bench, models: Models) -> None:
    """Pixels to the device as bytes, normalised there, against float32 made on the CPU."""
    height, width = resized_size(bench.photo_hw, models.side)
    rng = np.random.default_rng(4)
    images = [rng.integers(0, 256, (height, width, 3), dtype=np.uint8) for _ in range(max(bench.batches))]
    mean, std = MEAN.to(bench.device), STD.to(bench.device)
    plain = torch.zeros(len(images), 3, models.side, models.side)
    for its_pixels, image in zip(plain, images, strict=True):
        its_pixels[:, :height, :width] = (torch.from_numpy(image).permute(2, 0, 1) / 255 - MEAN.reshape(3, 1, 1)) / (
            STD.reshape(3, 1, 1)
        )
    found = normalize(*upload(images, models.side, bench.device), mean, std, torch.float32)
    bench.check("pixels normalised on the device, error", distance(found.cpu(), plain), at_most=1e-6)
    sent = bench.milliseconds(lambda: upload(images[:1], models.side, bench.device))
    sent_plain = bench.milliseconds(lambda: plain[:1].to(bench.device))
    bench.row(
        "one image to the device",
        sent,
        None,
        sent_plain,
        f"as bytes, {models.side**2 * 3e-6 / sent:.1f} GB/s; beside it, as float32",
    )
    encoder = CudaEncoder(models.ours.vision_encoder, MEAN, STD)
    both = distance(encoder.encode_images(images[:2]), encoder(plain[:2].to(bench.device).bfloat16()))
    bench.check("encode of bytes, distance from encode of float32 pixels", both, at_most=2 * bench.rounding)
    ours = bench.milliseconds(lambda: encoder.encode_images(images[:1]))
    bench.row("encode 1 from bytes on the CPU", ours, None, None)
