from __future__ import annotations

import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from transformers import SamConfig, SamModel
from transformers.models.sam.modeling_sam import SamLayerNorm, SamVisionAttention

from benchmarks.segmenter_reference import processor_of, published_sam
from models.checkpoints import CheckpointError, ModelFilesError
from models.demo.scenes import render_scene
from models.huggingface_folder import find_folder
from models.segmenter.protocol import RawMasks
from models.segmenter.sam import Sam
from models.square_images import resized_size
from models.types import Prompts

DEMO = Path(__file__).parents[3] / "weights" / "demo" / "sam"
PLACE = "shared_image_embedding.positional_embedding"
TIED_PLACE = "prompt_encoder.shared_embedding.positional_embedding"


def small_config(image_size: int = 64, patch_size: int = 16, layers: int = 2, **vision: Any) -> SamConfig:
    grid = image_size // patch_size
    return SamConfig(
        vision_config={
            "hidden_size": 32, "num_hidden_layers": layers, "num_attention_heads": 2, "mlp_dim": 48,
            "image_size": image_size, "patch_size": patch_size, "output_channels": 32, "num_pos_feats": 16,
            "window_size": 0, "global_attn_indexes": [], "use_rel_pos": False, **vision,
        },
        prompt_encoder_config={
            "hidden_size": 32, "image_size": image_size, "patch_size": patch_size, "image_embedding_size": grid,
        },
        mask_decoder_config={"hidden_size": 32, "mlp_dim": 64, "iou_head_hidden_dim": 32, "num_attention_heads": 4},
    )  # fmt: skip


def random_sam(config: SamConfig, seed: int = 0) -> SamModel:
    """A SAM whose random weights let image, place and prompt all reach the masks.

    As Hugging Face initialises it, places are noise, relative positions are zero and norms do nothing.
    """
    torch.manual_seed(seed)
    model = SamModel(config)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d | nn.Embedding):
                module.reset_parameters()
            elif isinstance(module, nn.LayerNorm | SamLayerNorm):
                module.weight.normal_(1, 0.2)
                module.bias.normal_(0, 0.2)
            elif isinstance(module, SamVisionAttention) and module.use_rel_pos:
                module.rel_pos_h.normal_(0, 0.5)
                module.rel_pos_w.normal_(0, 0.5)
        model.vision_encoder.pos_embed.normal_(0, 0.3)
        model.shared_image_embedding.positional_embedding.normal_(0, 1)
        place = model.shared_image_embedding.positional_embedding
        model.prompt_encoder.shared_embedding.positional_embedding.copy_(place)
    return model.eval()


CONFIGS: dict[str, Callable[[], SamConfig]] = {
    # A grid of 16 x 16 in windows of 5, which it does not fill; the middle layer attends globally.
    "windows": partial(small_config, 128, 8, layers=3, window_size=5, global_attn_indexes=[1], use_rel_pos=True),
    "global": partial(small_config, 128, 8),
    "coarse": partial(small_config, 64, 16, window_size=2, global_attn_indexes=[1], use_rel_pos=True),
}


@pytest.fixture(scope="module", params=list(CONFIGS))
def model(request: pytest.FixtureRequest) -> SamModel:
    return random_sam(CONFIGS[request.param](), seed=1)


@pytest.fixture(scope="module")
def segmenter() -> Sam:
    return Sam(random_sam(CONFIGS["windows"](), seed=1))


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    """A picture of the size of the one in the sample requests."""
    return render_scene(np.random.default_rng(5), (499, 666)).image


def hugging_faces_own(
    model: SamModel, image: np.ndarray, prompts: dict[str, list], multimask: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Masks (N, M, H, W) and scores (N, M) by Hugging Face's processor, model and post-processing."""
    return published_sam(model, image, as_prompts(prompts), multimask)


def as_prompts(given: dict[str, list]) -> Prompts:
    arrays = {
        "points_xy": given.get("input_points"),
        "point_labels": given.get("input_labels"),
        "boxes_xyxy": given.get("input_boxes"),
    }
    return Prompts(
        **{
            name: np.array(value, np.int64 if name == "point_labels" else np.float64)
            for name, value in arrays.items()
            if value is not None
        }
    )


# --- results -----------------------------------------------------------------------------------------

NOTEBOOK: dict[str, dict[str, list]] = {
    "two point prompts": {"input_points": [[[280, 320]], [[300, 350]]]},
    "one prompt of two points": {"input_points": [[[280, 320], [300, 350]]]},
    "a box": {"input_boxes": [[125, 240, 375, 425]]},
    "point and box": {"input_points": [[[280, 320]]], "input_boxes": [[125, 240, 375, 425]]},
    "point, box and label": {
        "input_points": [[[280, 320]]],
        "input_boxes": [[125, 240, 375, 425]],
        "input_labels": [[0]],
    },
}
OTHERS: dict[str, dict[str, list]] = {
    "nothing": {},
    "every label": {
        "input_points": [[[280, 320], [300.5, 350.25], [10, 20], [0, 0]], [[1, 498], [665, 0], [30, 40], [50, 60]]],
        "input_labels": [[1, 0, -1, -10], [-10, -1, 1, 0]],
    },
    "labels of points with boxes": {
        "input_points": [[[280, 320], [5, 5]], [[300, 350], [600, 7]]],
        "input_labels": [[1, -10], [-1, 0]],
        "input_boxes": [[125, 240, 375, 425], [0, 0, 666, 499]],
    },
}


@pytest.mark.parametrize("multimask", [True, False])
@pytest.mark.parametrize("kind", [*NOTEBOOK, *OTHERS])
def test_results_equal_hugging_faces_own(model: SamModel, photo: np.ndarray, kind: str, multimask: bool) -> None:
    given = (NOTEBOOK | OTHERS)[kind]
    theirs, scores = hugging_faces_own(model, photo, given, multimask)
    covered = theirs.mean((-2, -1))
    assert ((covered > 0.02) & (covered < 0.98)).any(), "a reference that shows nothing proves nothing"

    ours = Sam(model).segment(photo, as_prompts(given), multimask=multimask)
    assert ours.masks.dtype == bool and ours.iou_scores.dtype == np.float32
    assert ours.masks.shape == theirs.shape == (len(as_prompts(given)), 3 if multimask else 1, 499, 666)
    assert (ours.masks == theirs).mean() >= 0.999
    np.testing.assert_allclose(ours.iou_scores, scores, rtol=0, atol=1e-4)


def test_random_weights_listen_to_the_prompt_and_the_image(model: SamModel, photo: np.ndarray) -> None:
    """Else equality with Hugging Face would say nothing of how prompts are scaled."""
    masks = [
        Sam(model).segment(image, as_prompts(given), multimask=True).masks[0]
        for image, given in [*((photo, given) for given in NOTEBOOK.values()), (photo[:, ::-1], NOTEBOOK["a box"])]
    ]
    for i, first in enumerate(masks):
        assert all((first != second).mean() > 0.001 for second in masks[:i])


def test_a_photo_higher_than_wide(photo: np.ndarray, segmenter: Sam) -> None:
    upright, given = np.ascontiguousarray(photo.transpose(1, 0, 2)), {"input_boxes": [[100, 300, 420, 600]]}
    theirs, scores = hugging_faces_own(segmenter._model, upright, given, True)
    ours = segmenter.segment(upright, as_prompts(given), multimask=True)
    assert ours.masks.shape == theirs.shape and (ours.masks == theirs).mean() >= 0.999
    np.testing.assert_allclose(ours.iou_scores, scores, rtol=0, atol=1e-4)


@pytest.mark.parametrize("size_hw", [(1, 1), (1, 300), (300, 1), (499, 666), (666, 499), (256, 256), (37, 1001)])
def test_preprocess_equals_hugging_faces_own(size_hw: tuple[int, int], picture: Callable[..., np.ndarray]) -> None:
    segmenter, image = Sam.load(DEMO), picture(*size_hw)
    theirs = processor_of(256).image_processor(image, input_data_format="channels_last", return_tensors="pt")
    ours = segmenter.preprocess(image)
    torch.testing.assert_close(segmenter.pixels([ours]), theirs["pixel_values"], rtol=0, atol=1e-5)
    assert ours.size_hw == size_hw
    assert list(ours.resized_hw) == theirs["reshaped_input_sizes"][0].tolist()


@pytest.mark.parametrize("size_hw", [(20000, 1), (1, 20000), (1, 1), (2, 3)])
def test_images_of_extreme_size(size_hw: tuple[int, int], segmenter: Sam) -> None:
    """Hugging Face's own resizing of the first two gives no pixels at all."""
    image = np.full((*size_hw, 3), 128, np.uint8)
    sample = segmenter.preprocess(image)
    assert min(sample.resized_hw) >= 1 and max(sample.resized_hw) == segmenter.image_size
    box = np.array([[0.0, 0.0, size_hw[1], size_hw[0]]])
    result = segmenter.segment(image, Prompts(boxes_xyxy=box), multimask=True)
    assert result.masks.shape == (1, 3, *size_hw)
    assert np.isfinite(result.iou_scores).all()


def test_resized_size_rounds_halves_up() -> None:
    assert resized_size((499, 666), 1024) == (767, 1024)
    assert resized_size((3, 8), 4) == (2, 4)  # 1.5
    assert resized_size((20000, 1), 64) == (64, 1)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
    ],
)
def test_what_is_no_rgb_image_is_refused(image: np.ndarray, segmenter: Sam) -> None:
    with pytest.raises(ValueError, match=r"expected \(H, W, 3\) uint8"):
        segmenter.preprocess(image)


# --- steps -------------------------------------------------------------------------------------------


def test_a_batch_is_embedded_as_each_image_alone(segmenter: Sam, picture: Callable[..., np.ndarray]) -> None:
    samples = [segmenter.preprocess(picture(*size, seed=i)) for i, size in enumerate([(40, 90), (128, 128), (300, 7)])]
    for together, sample in zip(segmenter.embed(samples), samples, strict=True):
        (alone,) = segmenter.embed([sample])
        torch.testing.assert_close(together.features, alone.features, rtol=0, atol=1e-5)
        assert together.features.shape == (32, 16, 16)
        assert (together.size_hw, together.resized_hw) == (sample.size_hw, sample.resized_hw)
    assert segmenter.embed([]) == []


def test_postprocess_in_threads_beside_decoding(segmenter: Sam, photo: np.ndarray) -> None:
    (embedding,) = segmenter.embed([segmenter.preprocess(photo)])
    corners = np.random.default_rng(0).uniform(0, 300, (12, 2))
    prompts = Prompts(boxes_xyxy=np.concatenate([corners, corners + 150], axis=1))
    raw = segmenter.decode(embedding, prompts, multimask=True)
    expected = [segmenter.postprocess(raw, i) for i in range(len(raw))]
    with ThreadPoolExecutor(6) as pool:
        masks = pool.map(partial(segmenter.postprocess, raw), range(len(raw)))
        samples = pool.map(segmenter.preprocess, [photo] * 6)
        again = segmenter.decode(embedding, prompts, multimask=True)
        for ours, wanted in zip(masks, expected, strict=True):
            np.testing.assert_array_equal(ours, wanted)
        for sample in samples:
            assert np.array_equal(sample.image, segmenter.preprocess(photo).image)
    assert torch.equal(again.logits, raw.logits)


def test_postprocess_crops_the_padding_then_stretches(segmenter: Sam) -> None:
    """Logits that are positive in the upper left quarter of the padded square alone."""
    logits = torch.full((1, 1, 32, 32), -1.0)
    logits[..., :16, :16] = 1
    raw = RawMasks(logits, np.zeros((1, 1), np.float32), size_hw=(100, 200), resized_hw=(64, 128))
    (mask,) = segmenter.postprocess(raw, 0)
    wanted = np.zeros((100, 200), bool)
    wanted[:, :100] = True  # of a square of 128, the image fills the upper half
    np.testing.assert_array_equal(mask[:98], wanted[:98])  # the last rows are where the sign changes


@pytest.mark.parametrize("size_hw", [(100, 141), (40, 90), (300, 401)])
def test_masks_packed_on_the_device_are_the_same(
    size_hw: tuple[int, int], picture: Callable[..., np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU. Of a large photo the logits are fewer bytes than the masks, and are sent in their place."""
    segmenter = Sam(random_sam(small_config(image_size=128)), fast=True)
    plain = Sam(random_sam(small_config(image_size=128)), fast=False)
    (embedding,) = segmenter.embed([segmenter.preprocess(picture(*size_hw))])
    prompts = Prompts(boxes_xyxy=np.array([[0.0, 0.0, 30.0, 30.0], [10.0, 5.0, 40.0, 35.0], [1.0, 1.0, 9.0, 9.0]]))
    monkeypatch.setattr(segmenter, "packs_masks", True)
    raw = RawMasks.concatenate([segmenter.decode(embedding, prompts, multimask=True)] * 2)
    expected = plain.decode(embedding, prompts, multimask=True)
    assert len(raw) == 6 and (raw.packed is None) == (size_hw == (300, 401))
    assert raw.packed is None or raw.logits.numel() == 0
    for index in range(6):
        mask, wanted = segmenter.postprocess(raw, index), plain.postprocess(expected, index % 3)
        assert mask.shape == wanted.shape == (3, *size_hw) and mask.dtype == bool
        assert np.mean(mask != wanted) < 1e-3
    assert 0 < mask.mean() < 1


def test_bfloat16_agrees_with_float32(photo: np.ndarray) -> None:
    scene = render_scene(np.random.default_rng(3), (320, 320))
    prompts = Prompts(boxes_xyxy=scene.boxes_xyxy.astype(np.float64))
    full, half = (Sam.load(DEMO, dtype=dtype) for dtype in (torch.float32, torch.bfloat16))
    (embedding,) = half.embed([half.preprocess(scene.image)])
    assert embedding.features.dtype == torch.bfloat16
    ours, theirs = half.segment(scene.image, prompts), full.segment(scene.image, prompts)
    assert ours.iou_scores.dtype == np.float32
    # Over all prompts together, for what the demo weights see is none of this test's business.
    assert (ours.masks & theirs.masks).sum() >= 0.9 * (ours.masks | theirs.masks).sum()
    np.testing.assert_allclose(ours.iou_scores, theirs.iou_scores, rtol=0, atol=0.05)


# --- files -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Files:
    """A small SAM, its tensors by both names of the positional encoding, and what it says of a picture."""

    model: SamModel
    tensors: dict[str, torch.Tensor]
    config: dict[str, Any]

    def write(self, folder: Path, weights: str | None = "model.safetensors", **preprocessor: Any) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(self.config))
        (folder / "preprocessor_config.json").write_text(json.dumps({"size": {"longest_edge": 64}} | preprocessor))
        if weights == "model.safetensors":
            save_file(self.tensors, folder / weights)
        elif weights:
            torch.save(self.tensors, folder / weights)
        return folder

    def assert_same(self, loaded: Sam, atol: float = 1e-5) -> None:
        """The loaded one gives the same logits, as the two positional encodings and all else are right."""
        image = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
        prompts = Prompts(np.array([[[20.0, 30.0]]]), None, np.array([[5.0, 6.0, 40.0, 44.0]]))
        outputs = []
        for segmenter in (loaded, Sam(self.model)):
            (embedding,) = segmenter.embed([segmenter.preprocess(image)])
            outputs.append(segmenter.decode(embedding, prompts, multimask=True))
        torch.testing.assert_close(outputs[0].logits, outputs[1].logits, rtol=0, atol=atol)
        np.testing.assert_allclose(outputs[0].iou_scores, outputs[1].iou_scores, rtol=0, atol=atol)


@pytest.fixture(scope="module")
def files() -> Files:
    model = random_sam(CONFIGS["coarse"](), seed=2)
    tensors = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert torch.equal(tensors[PLACE], tensors[TIED_PLACE])
    config = model.config.to_dict() | {"architectures": ["SamModel"]}
    return Files(model, tensors, json.loads(json.dumps(config)))


@pytest.mark.parametrize("weights", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("dropped", [None, PLACE, TIED_PLACE])
def test_weights_with_either_or_both_names_of_the_positional_encoding(
    files: Files, tmp_path: Path, weights: str, dropped: str | None
) -> None:
    kept = {name: tensor for name, tensor in files.tensors.items() if name != dropped}
    folder = Files(files.model, kept, files.config).write(tmp_path, weights)
    files.assert_same(Sam.load(folder))


def test_a_folder_that_transformers_wrote(files: Files, tmp_path: Path) -> None:
    files.model.save_pretrained(tmp_path)
    processor_of(64).save_pretrained(tmp_path)
    files.assert_same(Sam.load(tmp_path))


def test_a_sharded_folder(files: Files, tmp_path: Path) -> None:
    files.model.save_pretrained(tmp_path, max_shard_size="50KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    files.assert_same(Sam.load(str(tmp_path)))


def test_weights_of_half_precision_are_converted(files: Files, tmp_path: Path) -> None:
    half = {name: tensor.half() for name, tensor in files.tensors.items()}
    loaded = Sam.load(Files(files.model, half, files.config).write(tmp_path))
    (embedding,) = loaded.embed([loaded.preprocess(np.zeros((4, 4, 3), np.uint8))])
    assert embedding.features.dtype == torch.float32
    files.assert_same(loaded, atol=0.05)
    rounded = random_sam(CONFIGS["coarse"](), seed=2)
    rounded.load_state_dict({name: tensor.float() for name, tensor in half.items()})
    Files(rounded, {}, {}).assert_same(loaded)


def test_azures_mlflow_folder(files: Files, tmp_path: Path) -> None:
    inner = files.write(tmp_path / "mlflow_model_folder" / "artifacts" / "INPUT_model_path", "pytorch_model.bin")
    (tmp_path / "mlflow_model_folder" / "MLmodel").write_text("flavors: {}")
    (tmp_path / "mlflow_model_folder" / "config.json").write_text('{"model_type": "something else"}')
    for path in (tmp_path, inner.parents[1], inner.parent, inner):
        assert find_folder(path, ("sam",), "SAM") == inner
    files.assert_same(Sam.load(tmp_path))


def test_two_sams_are_one_too_many(files: Files, tmp_path: Path) -> None:
    for name in ("base", "huge"):
        files.write(tmp_path / name)
    with pytest.raises(ModelFilesError, match=r"expected one SAM, found 2: .*base, .*huge"):
        Sam.load(tmp_path)


def test_no_sam_says_what_is_there(tmp_path: Path) -> None:
    with pytest.raises(
        ModelFilesError,
        match="model_type is one of sam, sam_hq, sam2, sam2_video, edgetam, edgetam_video, sam3_.*; found nothing",
    ):
        Sam.load(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    (tmp_path / "photo.jpg").touch()
    with pytest.raises(ModelFilesError, match=r"found config\.json, photo\.jpg"):
        Sam.load(tmp_path)
    with pytest.raises(ModelFilesError, match="no such folder"):
        Sam.load(tmp_path / "absent")
    with pytest.raises(ModelFilesError, match=r"photo\.jpg: looked for .* where the model_type is 'clip'"):
        Sam.load(tmp_path / "photo.jpg")


@pytest.mark.parametrize(
    ("text", "reason"), [("{", "not JSON"), ("[]", "expected a JSON object, got list"), ("\xff", "not JSON")]
)
def test_a_config_that_is_no_json_object(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ModelFilesError, match=reason):
        Sam.load(tmp_path)


@pytest.mark.parametrize(
    "vision",
    [
        {"hidden_size": "wide"},
        {"hidden_size": -32},
        {"num_attention_heads": 0},
        {"hidden_act": "no such function"},
    ],
)
def test_a_config_of_no_possible_sam(files: Files, tmp_path: Path, vision: dict[str, Any]) -> None:
    config = files.config | {"vision_config": files.config["vision_config"] | vision}
    folder = Files(files.model, files.tensors, config).write(tmp_path)
    with pytest.raises(ModelFilesError, match=r"config\.json: cannot build a SAM"):
        Sam.load(folder)


def test_the_folders_own_mean_and_deviation_are_used(files: Files, tmp_path: Path) -> None:
    image = np.full((64, 64, 3), 51, np.uint8)  # 0.2
    given = Sam.load(files.write(tmp_path / "given", image_mean=[0.1, 0.2, 0.3], image_std=[0.5, 0.2, 0.1]))
    np.testing.assert_allclose(given.pixels([given.preprocess(image)])[0, :, 9, 9], [0.2, 0.0, -1.0], atol=1e-6)
    (files.write(tmp_path / "bare") / "preprocessor_config.json").unlink()
    bare = Sam.load(tmp_path / "bare")
    expected = (0.2 - np.array([0.485, 0.456, 0.406])) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(bare.pixels([bare.preprocess(image)])[0, :, 9, 9], expected, atol=1e-6)
    files.assert_same(bare)


@pytest.mark.parametrize(
    ("preprocessor", "reason"),
    [
        ({"size": {"longest_edge": 32}}, "resizes images to 32 pixels, but the model takes 64"),
        ({"size": 1024}, "resizes images to 1024 pixels"),
        ({"image_mean": [0.5]}, r"image_mean: expected 3 numbers, got \[0\.5\]"),
        ({"image_std": 0.5}, "image_std: expected 3 numbers, got 0.5"),
        ({"image_std": [1, "a", 1]}, "image_std: expected 3 numbers"),
        ({"do_normalize": False}, "do_normalize is false"),
    ],
)
def test_a_preprocessor_that_does_not_fit(
    files: Files, tmp_path: Path, preprocessor: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ModelFilesError, match=reason):
        Sam.load(files.write(tmp_path, **preprocessor))


def test_weights_that_do_not_fit_name_their_keys(files: Files, tmp_path: Path) -> None:
    def load(tensors: dict[str, torch.Tensor]) -> None:
        Sam.load(Files(files.model, tensors, files.config).write(tmp_path))

    missing = dict(files.tensors)
    del missing["mask_decoder.iou_token.weight"]
    with pytest.raises(CheckpointError, match=r"1 missing: mask_decoder\.iou_token\.weight$"):
        load(missing)
    with pytest.raises(CheckpointError, match=r"1 unexpected: decoder\.extra$"):
        load(files.tensors | {"decoder.extra": torch.zeros(1)})
    with pytest.raises(CheckpointError, match=r"vision_encoder\.pos_embed \(checkpoint \(1, 9, 9, 32\), model \(1, 4"):
        load(files.tensors | {"vision_encoder.pos_embed": torch.zeros(1, 9, 9, 32)})
    nowhere = {name: tensor for name, tensor in files.tensors.items() if name not in (PLACE, TIED_PLACE)}
    with pytest.raises(CheckpointError, match=f"2 missing: {TIED_PLACE}, {PLACE}"):
        load(nowhere)


class Smuggled:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Callable, tuple[str]]:
        return os.system, (self.command,)


def test_a_pickle_with_code_is_refused_by_name_and_not_run(files: Files, tmp_path: Path) -> None:
    trace = tmp_path / "ran"
    folder = files.write(tmp_path / "sam", weights=None)
    torch.save(files.tensors | {"note": Smuggled(f"touch {trace}")}, folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"asks for 'posix\.system'.*refused"):
        Sam.load(folder)
    assert not trace.exists()


def test_truncated_or_absent_weights(files: Files, tmp_path: Path) -> None:
    weights = files.write(tmp_path) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"model\.safetensors is not a safetensors file, or is truncated"):
        Sam.load(tmp_path)
    weights.unlink()
    with pytest.raises(CheckpointError, match=r"looked for .*pytorch_model\.bin.*; found config\.json, preproc"):
        Sam.load(tmp_path)


def legacy_config(vision: dict[str, Any], prompt_encoder: dict[str, Any], mask_decoder: dict[str, Any]) -> dict:
    """config.json as transformers 4.29 wrote it: every part carries the settings of text generation."""
    generation = {
        "_name_or_path": "", "add_cross_attention": False, "architectures": None, "bad_words_ids": None,
        "begin_suppress_tokens": None, "bos_token_id": None, "chunk_size_feed_forward": 0,
        "cross_attention_hidden_size": None, "decoder_start_token_id": None, "diversity_penalty": 0.0,
        "do_sample": False, "early_stopping": False, "encoder_no_repeat_ngram_size": 0, "eos_token_id": None,
        "exponential_decay_length_penalty": None, "finetuning_task": None, "forced_bos_token_id": None,
        "forced_eos_token_id": None, "id2label": {"0": "LABEL_0", "1": "LABEL_1"}, "is_decoder": False,
        "is_encoder_decoder": False, "label2id": {"LABEL_0": 0, "LABEL_1": 1}, "length_penalty": 1.0,
        "max_length": 20, "min_length": 0, "model_type": "", "no_repeat_ngram_size": 0, "num_beam_groups": 1,
        "num_beams": 1, "num_return_sequences": 1, "output_attentions": False, "output_hidden_states": False,
        "output_scores": False, "pad_token_id": None, "prefix": None, "problem_type": None, "pruned_heads": {},
        "remove_invalid_values": False, "repetition_penalty": 1.0, "return_dict": True,
        "return_dict_in_generate": False, "sep_token_id": None, "suppress_tokens": None,
        "task_specific_params": None, "temperature": 1.0, "tf_legacy_loss": False,
        "tie_encoder_decoder": False, "tie_word_embeddings": True, "tokenizer_class": None, "top_k": 50,
        "top_p": 1.0, "torch_dtype": None, "torchscript": False, "transformers_version": "4.29.0.dev0",
        "typical_p": 1.0, "use_bfloat16": False,
    }  # fmt: skip
    leftovers = {"dropout": 0.0, "initializer_factor": 1.0, "intermediate_size": 6144, "projection_dim": 512}
    return {
        "_commit_hash": None,
        "_name_or_path": "converted",
        "architectures": ["SamModel"],
        "initializer_range": 0.02,
        "mask_decoder_config": generation | mask_decoder,
        "model_type": "sam",
        "prompt_encoder_config": generation | prompt_encoder,
        "torch_dtype": "float32",
        "transformers_version": None,
        "vision_config": generation | leftovers | vision,
    }


def test_a_folder_in_the_format_of_the_published_ones(files: Files, tmp_path: Path) -> None:
    """As at the revisions that Azure pins: the config of an old transformers, weights as a pickle."""
    config = legacy_config(
        {
            "attention_dropout": 0.0, "global_attn_indexes": [1], "hidden_act": "gelu", "hidden_size": 32,
            "image_size": 64, "initializer_range": 1e-10, "layer_norm_eps": 1e-06, "mlp_dim": 48,
            "mlp_ratio": 4.0, "num_attention_heads": 2, "num_channels": 3, "num_hidden_layers": 2,
            "num_pos_feats": 16, "output_channels": 32, "patch_size": 16, "qkv_bias": True,
            "use_abs_pos": True, "use_rel_pos": True, "window_size": 2,
        },
        {
            "hidden_act": "gelu", "hidden_size": 32, "image_embedding_size": 4, "image_size": 64,
            "layer_norm_eps": 1e-06, "mask_input_channels": 16, "num_point_embeddings": 4, "patch_size": 16,
        },
        {
            "attention_downsample_rate": 2, "hidden_act": "relu", "hidden_size": 32, "iou_head_depth": 3,
            "iou_head_hidden_dim": 32, "layer_norm_eps": 1e-06, "mlp_dim": 64, "num_attention_heads": 4,
            "num_hidden_layers": 2, "num_multimask_outputs": 3,
        },
    )  # fmt: skip
    tensors = {name: tensor for name, tensor in files.tensors.items() if name != TIED_PLACE}
    folder = Files(files.model, tensors, config).write(
        tmp_path,
        "pytorch_model.bin",
        image_processor_type="SamImageProcessor",
        processor_class="SamProcessor",
        do_convert_rgb=True, do_normalize=True, do_pad=True, do_rescale=True, do_resize=True, reduce_labels=False,
        image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225],
        pad_size={"height": 64, "width": 64}, rescale_factor=0.00392156862745098, resample=2,
    )  # fmt: skip
    files.assert_same(Sam.load(folder))


def test_the_demo_weights_load_as_hugging_faces_own(photo: np.ndarray) -> None:
    theirs, scores = hugging_faces_own(
        SamModel.from_pretrained(DEMO, dtype=torch.float32).eval(), photo, NOTEBOOK["a box"], True
    )
    ours = Sam.load(DEMO).segment(photo, as_prompts(NOTEBOOK["a box"]), multimask=True)
    assert (ours.masks == theirs).mean() >= 0.999
    np.testing.assert_allclose(ours.iou_scores, scores, rtol=0, atol=1e-4)


@pytest.mark.parametrize("packed", [False, True])
def test_the_best_masks_alone(packed: bool) -> None:
    logits = torch.arange(2 * 3 * 4 * 4, dtype=torch.float32).reshape(2, 3, 4, 4)
    scores = np.array([[0.1, 0.9, 0.3], [0.5, 0.2, 0.1]], np.float32)
    masks = np.arange(2 * 3 * 8, dtype=np.uint8).reshape(2, 3, 8, 1) if packed else None
    best = RawMasks(logits, scores, (8, 8), (8, 8), masks).best()
    assert best.iou_scores.tolist() == [[scores[0, 1]], [scores[1, 0]]]
    if masks is None:
        assert best.packed is None and torch.equal(best.logits, torch.stack([logits[0, 1:2], logits[1, 0:1]]))
    else:
        assert best.packed is not None and (best.packed == np.stack([masks[0, 1:2], masks[1, 0:1]])).all()
