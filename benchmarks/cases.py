"""The cases of the yardstick: what each sets up on both sides, and how it runs them in turns."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count

from benchmarks import load, tasks, workload
from benchmarks.child import Child
from benchmarks.folder import folder
from benchmarks.peers import cases as peers
from benchmarks.report import Comparison, Limit, Row, duration, percentiles
from benchmarks.run import Run, alternate, compare, standing
from benchmarks.service import Posting, Service

CLIENTS = 8
PIPELINE_OBJECTS = 20


# In-process cases


def encode(run: Run, model: str) -> list[Row]:
    """SAM's encoder alone, on a ready picture; then what its matrix products alone take."""
    folder = run.segmenter(model)
    accuracy = {dtype: run.accuracy(dtype).of_masks for dtype in run.dtypes}
    reference = Child(tasks.reference_encoder, run.device, folder)
    ours = {dtype: Child(tasks.our_encoder, run.device, folder, dtype) for dtype in run.dtypes}
    works = [None] * run.how_often(model, usual=3)
    rows = compare(f"SAM {model}: encode", reference, ours, None, works, accuracy)
    return [*rows, *(_floor(run, model, row) for row in rows)]


def _floor(run: Run, model: str, row: Comparison) -> Limit:
    from transformers import SamConfig

    folder = run.segmenter(model)
    layers = SamConfig.from_pretrained(folder).vision_config.num_hidden_layers
    child = Child(tasks.gemms, run.device, folder, row.dtype)
    with standing([child]):
        seconds = alternate({"gemms": child}, None, [None] * (3 if run.quick else 9))["gemms"]
        by = ", ".join(dict.fromkeys(child.answer()))
    floor, ours = layers * statistics.median(seconds), statistics.median(row.ours_s)
    return Limit(
        row.case,
        row.dtype,
        duration(ours),
        f"{duration(floor)}: its matrix products ({by})",
        f"{ours / floor:.2f}×",
        f"{statistics.median(row.reference_s) / floor:.2f}× for the reference",
    )


def decode(run: Run, model: str) -> list[Row]:
    """SAM's prompt encoder and decoder for 1, 16 and 100 boxes on a ready embedding; all sizes share one decoder."""
    folder = run.segmenter(model)
    accuracy = {dtype: run.accuracy(dtype).of_masks for dtype in run.dtypes}
    rows: list[Row] = []
    for boxes, usual in ((1, 20), (16, 5), (100, 3)):
        reference = Child(tasks.reference_decoder, run.device, folder, boxes)
        ours = {dtype: Child(tasks.our_decoder, run.device, folder, dtype, boxes) for dtype in run.dtypes}
        works = [None] * run.how_often(model, usual)
        rows += compare(f"SAM {model}: decode {boxes} box{'es' * (boxes > 1)}", reference, ours, None, works, accuracy)
    return rows


def png(run: Run, model: str) -> list[Row]:
    """Masks of 1920 × 1080 to base64 PNG, in one thread."""
    masks = 10 if run.quick else 100
    reference, ours = Child(tasks.reference_png, masks), Child(tasks.our_png, masks)
    works = [None] * run.how_often(model, usual=3)
    with standing([reference, ours]):
        seconds = alternate({"reference": reference, "ours": ours}, None, works)
        peaks = reference.peak_mb(), ours.peak_mb()
        same = _same_pixels(reference.answer(), ours.answer())
    row = Comparison(f"PNG of {masks} masks 1920×1080", "bool", seconds["reference"], seconds["ours"], *peaks, same)
    return [row]


def _same_pixels(reference: Sequence[str], ours: Sequence[str]) -> str:
    from benchmarks.accuracy import decode_png

    different = sum(int((decode_png(a) != decode_png(b)).sum()) for a, b in zip(reference, ours, strict=True))
    return f"{different} pixels differ" if different else "same pixels"


# Cases over HTTP


def notebook(run: Run, model: str) -> list[Row]:
    """The sample notebook's request: five rows with one image and two, one, one, one and one prompts of three masks."""
    folder = run.segmenter(model)
    accuracy = {run.dtype: run.accuracy(run.dtype).of_masks}
    works = [workload.notebook_request(run.version()) for _ in range(run.how_often(model, usual=2))]
    reference = Child(tasks.reference_scorer, run.device, "masks", folder, None, {})
    ours = {run.dtype: Posting(run.service(run.dtype, segmenter=folder), "/sam/score")}
    warm_up = workload.notebook_request(run.version(), rows=1)
    return list(compare(f"SAM {model}: notebook request of five rows", reference, ours, warm_up, works, accuracy))


def yolof(run: Run, model: str) -> list[Row]:
    """One image through the detector, from the request's body to the answer's."""
    folder = run.detector(model)
    accuracy = {dtype: run.accuracy(dtype).of_boxes for dtype in run.dtypes}
    bodies = [workload.detector_request(workload.picture(run.version())) for _ in range(1 + run.how_often(model, 10))]
    reference = Child(tasks.reference_scorer, run.device, "boxes", None, folder, {})
    ours = {dtype: Posting(run.service(dtype, detector=folder), "/yolof/score") for dtype in run.dtypes}
    return list(compare(f"YOLOF {model}: one image", reference, ours, bodies[0], bodies[1:], accuracy))


def pipeline(run: Run, model: str) -> list[Row]:
    """One image, twenty boxes, a mask for each."""
    segmenter, detector = run.segmenter(model), run.detector(model)
    both = run.accuracy(run.dtype)
    accuracy = {run.dtype: f"{both.of_masks}, {both.of_boxes}"}
    params = {"score_threshold": 0.01, "max_detections": PIPELINE_OBJECTS}
    bodies = [
        workload.detector_request(workload.picture(run.version()), **params)
        for _ in range(1 + run.how_often(model, usual=2))
    ]
    settings = {"score_thr": params["score_threshold"], "max_per_img": PIPELINE_OBJECTS}
    reference = Child(tasks.reference_scorer, run.device, "pipeline", segmenter, detector, settings)
    ours = {run.dtype: Posting(run.service(run.dtype, segmenter=segmenter, detector=detector), "/pipeline/score")}
    case = f"YOLOF, SAM {model}: pipeline with {PIPELINE_OBJECTS} objects"
    return list(compare(case, reference, ours, bodies[0], bodies[1:], accuracy))


def click(run: Run, model: str) -> list[Row]:
    """One point on an image that the service has seen, beside the decoder's own time."""
    service, decoder = _service_and_decoder(run, model)
    body = workload.click_request(run.version())
    rounds, clicks = (1, 20) if run.quick else (4, 50)
    latencies: list[float] = []
    alone: list[float] = []
    with standing([service, decoder]):
        load.click(service, "/sam/score", body, 3)
        decoder.run()
        for _ in range(rounds):
            latencies += load.click(service, "/sam/score", body, clicks)
            alone += [decoder.run() for _ in range(clicks)]
    return [_click_row(f"SAM {model}: cached click over HTTP", run.dtype, latencies, alone, f"{len(latencies)} clicks")]


def busy_click(run: Run, model: str) -> list[Row]:
    """The same click while another client has one fresh image after the other encoded."""
    service, decoder = _service_and_decoder(run, model)
    body = workload.click_request(run.version())
    fresh = (workload.click_request(run.version()) for _ in count())
    most = 10 if run.quick else 60
    with standing([service, decoder]):
        load.click(service, "/sam/score", body, 1)
        alone = [decoder.run() for _ in range(10)]
        with load.Busy(service, "/sam/score", fresh) as busy:
            latencies = load.click(service, "/sam/score", body, most, pause_s=0.05)
    encodes = f"{len(latencies)} clicks, the slowest {duration(max(latencies))}; beside them {len(busy.seconds)} images"
    note = f"{encodes} of {duration(statistics.median(busy.seconds))}"
    return [_click_row(f"SAM {model}: the same while images are encoded", run.dtype, latencies, alone, note)]


def _service_and_decoder(run: Run, model: str) -> tuple[Service, Child]:
    folder = run.segmenter(model)
    return run.service(run.dtype, segmenter=folder), Child(tasks.our_decoder, run.device, folder, run.dtype, 1)


def _click_row(case: str, dtype: str, latencies: Sequence[float], alone: Sequence[float], note: str) -> Limit:
    p50, p99 = percentiles(latencies)
    decoder = statistics.median(alone)
    measured = f"p50 {duration(p50)}, p99 {duration(p99)}"
    return Limit(case, dtype, measured, f"{duration(decoder)}: its decoder", f"{1000 * (p50 - decoder):+.1f} ms", note)


def throughput(run: Run, model: str) -> list[Row]:
    """Images per second from saturating clients, each image new, beside what the code does in a loop of its own."""
    folder = run.segmenter(model)
    service, loop = run.service(run.dtype, segmenter=folder), Child(tasks.our_loop, run.device, folder, run.dtype)
    rounds = run.how_often(model, usual=3 if model == "demo" else 1)
    rates: list[float] = []
    loads: list[load.Load] = []
    with standing([service, loop]):
        loop.run((1, 1))
        # Whichever batch suits the machine: the service is held to the better one.
        each_s = {batch: loop.run((4, batch)) / 4 for batch in (1, 4)}
        batch = min(each_s, key=lambda batch: each_s[batch])
        images = max(2 * CLIENTS, min(400, int((2 if run.quick else 10) / each_s[batch])))
        for _ in range(rounds):
            bodies = [workload.click_request(run.version()) for _ in range(images)]
            loads.append(load.saturate(service, "/sam/score", bodies, CLIENTS))
            rates.append(images / loop.run((images, batch)))
        peak = service.peak_mb()
    limit = statistics.median(rates)
    rate = statistics.median(one.per_second for one in loads)
    share = statistics.median(one.client_share for one in loads)
    note = (
        f"{rounds} × {images} images, {CLIENTS} clients, which take {share:.0%} of a core; batches of {batch} in "
        f"the process; peak memory of the service {peak:.0f} MB"
    )
    return [
        Limit(
            f"SAM {model}: throughput over HTTP",
            run.dtype,
            f"{rate:.2f} images/s",
            f"{limit:.2f} images/s: the same in a loop in one process",
            f"{rate / limit:.1%}",
            note,
        )
    ]


@dataclass(frozen=True)
class Case:
    """models: by default, those that the case is worth its time on."""

    measure: Callable[[Run, str], Sequence[Row]]
    models: tuple[str, ...]


CASES = {
    "png": Case(png, ("none",)),
    "decode": Case(decode, ("base",)),
    "encode": Case(encode, ("base", "huge")),
    "notebook": Case(notebook, ("base", "huge")),
    "yolof": Case(yolof, ("r50",)),
    "pipeline": Case(pipeline, ("base",)),
    "click": Case(click, ("base",)),
    "busy-click": Case(busy_click, ("base", "huge")),
    "throughput": Case(throughput, ("demo", "base")),
    "folder": Case(folder, ("demo", "base")),
}
# Those that need the environment of `make peers`, and run only where they are named.
PEER_CASES = {
    "peer-encode": Case(peers.encode, ("base", "huge")),
    "peer-decode": Case(peers.decode, ("base",)),
    "peer-yolof": Case(peers.yolof, ("r50",)),
    "peer-sam2": Case(peers.sam2, ("tiny",)),
}
ALL_CASES = CASES | PEER_CASES
MODELS = ("demo", "base", "huge")


def models_of(name: str, chosen: Sequence[str]) -> Sequence[str]:
    """The models that a case runs on: its own, or those chosen where it knows them."""
    usual = ALL_CASES[name].models
    if not chosen or usual in (("none",), ("tiny",)):
        return usual
    if usual == ("r50",):
        return ["demo"] if set(chosen) == {"demo"} else usual
    return chosen
