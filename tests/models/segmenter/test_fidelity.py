"""SAM-HQ, SAM 2, EdgeTAM and SAM 3, from folders that transformers writes, against its own processor and model.

`benchmarks/segmenter_reference.py` says how these are asked; `python -m benchmarks.fidelity` does it at full size.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import Sam2Model

from benchmarks.segmenter_reference import (
    MEAN,
    STD,
    Published,
    mended_sam3,
    mended_sam_hq,
    prompt_by_prompt,
    published_sam,
    published_sam2,
)
from models.checkpoints import ModelFilesError
from models.demo.scenes import render_scene
from models.segmenter.edgetam import EdgeTam
from models.segmenter.families import SEGMENTERS
from models.segmenter.protocol import DecodeRequest
from models.segmenter.sam import FACTORED_TOKENS, Sam
from models.segmenter.sam2 import Sam2
from models.segmenter.sam3 import Sam3
from models.segmenter.sam_hq import SamHQ
from models.types import Prompts
from tests.models.segmenter.random_sams import (
    IMAGE_SIZE,
    SAM3_IMAGE_SIZE,
    random_edgetam,
    random_sam2,
    random_sam2_video,
    random_sam3_tracker,
    random_sam3_video,
    random_sam_hq,
    tracker_of,
)

SIZE_HW = (90, 120)


def random_logits(seed: int) -> np.ndarray:
    """An earlier mask's: a bright and a dark half, with noise."""
    rng = np.random.default_rng(seed)
    return (rng.normal(0, 2, (32, 32)) + np.where(np.arange(32) < 8 + 8 * seed, 4, -4)).astype(np.float32)


# (N, P, 2) points, (N, P) labels, (N, 4) boxes of the image of SIZE_HW
KINDS: dict[str, Prompts] = {
    "a point": Prompts(np.array([[[30.0, 40.0]]])),
    "points with labels": Prompts(
        np.array([[[30.0, 40.0], [80.5, 20.25], [5, 5], [0, 0]]]), np.array([[1, 0, -1, -10]])
    ),
    "two prompts of two points": Prompts(np.array([[[30.0, 40.0], [80, 20]], [[10, 10], [100, 70]]]), None),
    "a box": Prompts(boxes_xyxy=np.array([[10.0, 10, 60, 70]])),
    "several boxes": Prompts(
        boxes_xyxy=np.array([[10.0, 10, 60, 70], [0, 0, 120, 90], [50, 40, 51, 41], [7, 8, 90, 30]])
    ),
    "boxes with points": Prompts(
        np.array([[[30.0, 40.0], [5, 5]], [[60, 50], [100, 7]]]),
        np.array([[1, -10], [0, 1]]),
        np.array([[10.0, 10, 60, 70], [0, 0, 120, 90]]),
    ),
    "a mask": Prompts(mask_logits=(random_logits(0),)),
    "boxes with points and masks": Prompts(
        np.array([[[30.0, 40.0]], [[60, 50]], [[100, 7]]]),
        None,
        np.array([[10.0, 10, 60, 70], [0, 0, 120, 90], [50, 40, 80, 60]]),
        (random_logits(1), None, random_logits(2)),
    ),
    "nothing": Prompts(),
    "many points": Prompts(np.random.default_rng(3).uniform(0, 90, (2, FACTORED_TOKENS + 3, 2)), None),
}


@dataclass(frozen=True)
class Family:
    """A family: its random model, what to save beside it, and what transformers says."""

    make: Callable[..., Any]
    published: Published
    processor: dict[str, Any]


SQUARE = {"image_processor_type": "Sam2ImageProcessorFast", "size": {"height": IMAGE_SIZE, "width": IMAGE_SIZE}}
SQUARE_3 = {"image_processor_type": "Sam3ImageProcessor", "size": {"height": SAM3_IMAGE_SIZE, "width": SAM3_IMAGE_SIZE}}
# Such that some of SAM 2's single masks are stable, and the best of three stands in for the others.
SOMETIMES_STABLE = {"dynamic_multimask_stability_delta": 1.0, "dynamic_multimask_stability_thresh": 0.949}
FAMILIES = {
    "sam_hq": Family(random_sam_hq, published_sam, {"size": {"longest_edge": IMAGE_SIZE}}),
    "sam2": Family(lambda: random_sam2(0, **SOMETIMES_STABLE), published_sam2, SQUARE),
    "sam2, always one mask": Family(
        lambda: random_sam2(0, dynamic_multimask_via_stability=False), published_sam2, SQUARE
    ),
    "sam2_video": Family(random_sam2_video, published_sam2, SQUARE),
    "edgetam": Family(lambda: random_edgetam(3, **SOMETIMES_STABLE), published_sam2, SQUARE),
    "sam3_tracker": Family(lambda: random_sam3_tracker(1, **SOMETIMES_STABLE), published_sam2, SQUARE_3),
    "sam3_video": Family(random_sam3_video, published_sam2, SQUARE_3),
}


@dataclass(frozen=True)
class Loaded:
    """A family's segmenters, fast and plain, and transformers' model."""

    family: Family
    model: Any
    fast: Any
    plain: Any


@pytest.fixture(scope="module", params=list(FAMILIES))
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    family = FAMILIES[request.param]
    folder = tmp_path_factory.mktemp("model")
    written = family.make()
    written.save_pretrained(folder)
    config = {"image_mean": MEAN, "image_std": STD, **family.processor}
    (folder / "processor_config.json").write_text(json.dumps({"image_processor": config}))
    model = mended_sam_hq(written) if family.published is published_sam else written
    if request.param == "sam2_video":  # the same weights, in transformers' model of images
        model = Sam2Model.from_pretrained(folder).eval()
    if request.param == "sam3_video":
        model = tracker_of(written)
    if request.param.startswith("sam3"):
        model = mended_sam3(model)
    segmenters = (SEGMENTERS.of(folder).load(folder, torch.device("cpu"), torch.float32, fast=f) for f in (True, False))
    return Loaded(family, model, *segmenters)


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    return render_scene(np.random.default_rng(5), SIZE_HW).image


@pytest.mark.parametrize("kind", KINDS)
def test_masks_and_scores_are_transformers_own(loaded: Loaded, photo: np.ndarray, kind: str) -> None:
    for multimask in (False, True):
        theirs, scores = prompt_by_prompt(loaded.family.published, loaded.model, photo, KINDS[kind], multimask)
        covered = theirs.mean((-2, -1))
        assert ((covered > 0.02) & (covered < 0.98)).any(), "a reference that shows nothing proves nothing"
        for segmenter in (loaded.fast, loaded.plain):
            ours = segmenter.segment(photo, KINDS[kind], multimask=multimask)
            assert ours.masks.shape == theirs.shape == (len(KINDS[kind]), 3 if multimask else 1, *SIZE_HW)
            assert (ours.masks == theirs).mean() >= 0.999
            np.testing.assert_allclose(ours.iou_scores, scores, rtol=0, atol=1e-4)


def test_prompts_of_two_images_in_one_batch(loaded: Loaded, photo: np.ndarray) -> None:
    images = [photo, np.ascontiguousarray(photo[::-1, :70].transpose(1, 0, 2))]
    for segmenter in (loaded.fast, loaded.plain):
        embeddings = segmenter.embed([segmenter.preprocess(image) for image in images])
        asked = [(i, kind) for kind in ("a box", "a point", "nothing") for i in (0, 1)]
        requests = [DecodeRequest(embeddings[i], KINDS[kind], True) for i, kind in asked]
        for mixed in (False, True):  # as on a GPU
            segmenter.mix_images = mixed
            raws = segmenter.decode_batch(requests)
            for (i, kind), raw in zip(asked, raws, strict=True):
                theirs, scores = loaded.family.published(loaded.model, images[i], KINDS[kind], True)
                ours = np.stack([segmenter.postprocess(raw, n) for n in range(len(raw))])
                assert (ours == theirs).mean() >= 0.999
                np.testing.assert_allclose(raw.iou_scores, scores, rtol=0, atol=1e-4)


def test_clicks_are_answered_while_an_image_is_encoded(loaded: Loaded, photo: np.ndarray) -> None:
    segmenter, samples = loaded.fast, [loaded.fast.preprocess(photo)]
    (alone,) = segmenter.embed(samples)
    calm, clicks = segmenter.decode(alone, KINDS["a point"], multimask=True), []

    def click() -> None:
        if len(clicks) < 40:
            clicks.append(segmenter.decode(alone, KINDS["a point"], multimask=True))

    (embedding,) = segmenter.embed(samples, click)
    assert torch.equal(embedding.features, alone.features)
    assert len(clicks) >= 20
    spread = float(calm.logits.std())
    torch.testing.assert_close(clicks[-1].logits, calm.logits, rtol=0, atol=1e-3 * spread)


@pytest.mark.parametrize(
    ("family", "make"),
    [
        (SamHQ, random_sam_hq),
        (Sam2, lambda: random_sam2(1)),
        (EdgeTam, lambda: random_edgetam(3)),
        (Sam3, random_sam3_tracker),
    ],
)
def test_bfloat16_sees_what_float32_sees(
    family: type[Sam], make: Callable[[], Any], photo: np.ndarray, tmp_path: Path
) -> None:
    make().save_pretrained(tmp_path)
    full, half = (family.load(tmp_path, dtype=dtype) for dtype in (torch.float32, torch.bfloat16))
    for kind in ("a box", "boxes with points"):
        ours, theirs = (one.segment(photo, KINDS[kind], multimask=True) for one in (half, full))
        assert (ours.masks == theirs.masks).mean() >= 0.9


def test_weights_listen_to_prompt_and_image(loaded: Loaded, photo: np.ndarray) -> None:
    """Else equality with transformers would say nothing of how prompts are scaled."""
    asked = [*((photo, KINDS[kind]) for kind in ("a point", "a box", "points with labels", "a mask", "nothing"))]
    asked.append((photo[:, ::-1], KINDS["a box"]))
    masks = [loaded.fast.segment(image, prompts, multimask=True).masks[0] for image, prompts in asked]
    for i, first in enumerate(masks):
        assert all((first != second).mean() > 0.001 for second in masks[:i])


def test_the_embedding_counts_all_that_it_holds(loaded: Loaded, photo: np.ndarray) -> None:
    """The cache counts the bytes of the one tensor: SAM-HQ's is 3 times SAM's, and SAM 2's 4 times."""
    (embedding,) = loaded.fast.embed([loaded.fast.preprocess(photo)])
    times = 3 if loaded.family.published is published_sam else 4
    assert embedding.features.shape == (times * 32, 8, 8)
    fills = (96, 128) if times == 3 else (loaded.fast.image_size,) * 2
    assert (embedding.size_hw, embedding.resized_hw) == (SIZE_HW, fills)


def test_a_single_mask_and_the_best_of_three_both_happen(photo: np.ndarray) -> None:
    """SAM 2 answers with the best of three where its single mask is not stable; the tests above see both."""
    seen = set()
    model = FAMILIES["sam2"].make()
    for kind in ("a point", "a box", "several boxes", "boxes with points", "two prompts of two points"):
        _, one = published_sam2(model, photo, KINDS[kind], False)
        _, three = published_sam2(model, photo, KINDS[kind], True)
        seen |= set((one[:, 0] == three.max(1)).tolist())
    assert seen == {True, False}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_sam3_keeps_places_in_float32(dtype: torch.dtype) -> None:
    """bfloat16 has no number between 20 and 20.125, and places of the published grid are a third of one apart."""
    layer = Sam3(random_sam3_tracker(), dtype=dtype)._model.vision_encoder.backbone.layers[1]
    thirds = layer.position_ids * 8 / 3  # a window's places, spread over the grid of 8
    assert layer.rotary_emb.inv_freq.dtype == layer.position_ids.dtype == torch.float32
    np.testing.assert_allclose(thirds[:, 0].numpy(), np.tile(np.arange(8), 8), rtol=0, atol=1e-5)


def test_sam3_images_are_halved_and_centred_where_the_folder_says_nothing(tmp_path: Path, photo: np.ndarray) -> None:
    random_sam3_video().save_pretrained(tmp_path)
    segmenter = Sam3.load(tmp_path)
    sample = segmenter.preprocess(photo)
    expected = torch.from_numpy(sample.image / 127.5 - 1).permute(2, 0, 1)[None].float()
    torch.testing.assert_close(segmenter.pixels([sample]), expected)


def test_sam3_in_a_folder_whose_tracker_has_no_vision_config(tmp_path: Path) -> None:
    """The backbone's weights are the detector's, so its config is taken then."""
    random_sam3_video().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["tracker_config"]["vision_config"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert Sam3.load(tmp_path).image_size == SAM3_IMAGE_SIZE


@pytest.mark.parametrize(
    ("model_type", "way"),
    [
        ("sam3", "this part of SAM 3 finds by texts: name it as the detector"),
        ("sam3_lite_text", "SAM 3 LiteText is not served: take the folder facebook/sam3"),
    ],
)
def test_what_is_near_to_a_sam_is_refused_with_the_way_out(model_type: str, way: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    for place in (tmp_path, tmp_path / "config.json"):
        with pytest.raises(ModelFilesError, match=f"where the model_type is '{model_type}'\\. .*{way}"):
            SEGMENTERS.of(place)


def test_edgetam_in_a_folder_as_published_is_that_of_images(tmp_path: Path, photo: np.ndarray) -> None:
    """That is a model of videos, whose memory is left out."""
    video = random_edgetam(3, video=True)
    video.save_pretrained(tmp_path)
    images = random_edgetam(3)
    images.load_state_dict({name: video.state_dict()[name] for name in images.state_dict()})
    theirs, scores = published_sam2(images, photo, KINDS["several boxes"], True)
    ours = SEGMENTERS.of(tmp_path).load(tmp_path, torch.device("cpu"), torch.float32, fast=True)
    found = ours.segment(photo, KINDS["several boxes"], multimask=True)
    assert isinstance(ours, EdgeTam)
    assert (found.masks == theirs).mean() >= 0.999
    np.testing.assert_allclose(found.iou_scores, scores, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (
            {"backbone_config": {"architecture": "resnet50"}},
            r"vision_config\.backbone_config\.architecture: expected repvit_m1, got resnet50",
        ),
        (
            {"backbone_channel_list": [8, 4, 2, 1]},
            r"backbone_channel_list: expected \[384, 192, 96, 48\], .*got \[8, 4",
        ),
    ],
)
def test_edgetam_of_another_backbone_is_refused(changed: dict[str, Any], said: str, tmp_path: Path) -> None:
    """Such as transformers 5.23 writes by itself: in its default config the name of the architecture is misspelt."""
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "edgetam", "vision_config": changed}))
    with pytest.raises(ModelFilesError, match=rf"config\.json: cannot build a SAM: .*{said}"):
        EdgeTam.load(tmp_path)


def test_sam3_of_another_neck_is_refused(tmp_path: Path) -> None:
    random_sam3_tracker().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["vision_config"]["scale_factors"] = [2.0, 1.0, 0.5]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(
        ModelFilesError,
        match=r"config\.json: cannot build a SAM: scale_factors: expected \[4, 2, 1\] first, got \[2\.0, 1\.0",
    ):
        Sam3.load(tmp_path)


@pytest.mark.parametrize("size_hw", [(1, 1), (1, 300), (300, 1), (97, 131), (128, 128), (37, 1001)])
def test_sam2_stretches_images_with_antialiasing(size_hw: tuple[int, int], picture: Callable[..., np.ndarray]) -> None:
    """Against torch's own resize with antialiasing, which torchvision calls; Pillow rounds after each direction."""
    segmenter, image = Sam2(random_sam2()), picture(*size_hw)
    planes = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    stretched = F.interpolate(planes, (IMAGE_SIZE, IMAGE_SIZE), mode="bilinear", antialias=True, align_corners=False)
    expected = (stretched / 255 - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    ours = segmenter.pixels([segmenter.preprocess(image)])
    assert (ours - expected).abs().max() < 1.01 / 255 / min(STD)


def test_transformers_sam_hq_is_to_be_mended(photo: np.ndarray) -> None:
    """Where this fails, transformers' own model is right again, and `MendedTransformer` can go."""
    model = random_sam_hq()
    theirs, scores = published_sam(model, photo, KINDS["a box"], True)
    mended, same_scores = published_sam(mended_sam_hq(model), photo, KINDS["a box"], True)
    np.testing.assert_allclose(scores, same_scores, rtol=0, atol=1e-5)
    assert (theirs != mended).mean() > 0.05


def test_transformers_sam3_tracker_is_to_be_mended(photo: np.ndarray) -> None:
    """Where this fails, transformers' own model is right again, and `mended_sam3` can go."""
    model = random_sam3_tracker(1)
    with torch.no_grad():
        model.no_memory_embedding.mul_(10)
    before, _ = published_sam2(model, photo, KINDS["a box"], True)
    mended, _ = published_sam2(mended_sam3(model), photo, KINDS["a box"], True)
    assert (before != mended).mean() > 0.001
    with torch.no_grad():
        model.no_memory_embedding.mul_(3)
    after, _ = published_sam2(model, photo, KINDS["a box"], True)
    assert (before == after).all()
