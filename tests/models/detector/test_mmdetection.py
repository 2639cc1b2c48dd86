from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from models.checkpoints import CheckpointError, ModelFilesError, load_state_dict
from models.detector import batches
from models.detector.configs import read_config
from models.detector.conv_fusion import FusedConv
from models.detector.files import DetectorFiles, build_model
from models.detector.mmcv_ops import install
from models.detector.mmdetection import ChannelOrder, MMDetector
from models.types import Detections

pytestmark = pytest.mark.filterwarnings("ignore")  # mmdet's own

PHOTOS = Path(__file__).parents[4] / "shared" / "data"
BFLOAT16_PIXELS, BFLOAT16_SCORE = 0.5, 0.01  # it has eight bits of precision: scores come in steps of 1/256
MakeFolder = Callable[..., Path]
Picture = Callable[..., np.ndarray]  # (height, width, seed) -> RGB
DEMO_CONFIG = Path(__file__).parents[3] / "weights" / "demo" / "yolof" / "yolof_r18_demo.py"
CLASSES = ("can", "carton", "milk_bottle", "water_bottle")
SMALL_PIPELINE = """
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=(128, 128), keep_ratio=True),
    dict(type="PackDetInputs", meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")),
]
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
"""


def assert_same(ours: Detections, theirs: Detections, pixels: float = 5e-3, score: float = 1e-3) -> None:
    assert len(ours) == len(theirs)
    assert ours.size_hw == theirs.size_hw
    np.testing.assert_array_equal(ours.labels, theirs.labels)
    np.testing.assert_allclose(ours.scores, theirs.scores, rtol=0, atol=score)
    np.testing.assert_allclose(ours.boxes_xyxy, theirs.boxes_xyxy, rtol=0, atol=pixels)


def assert_alike(ours: Detections, theirs: Detections, pixels: float, score: float) -> None:
    """The same but for rounding, which may reorder equal scores and decide about what only just made it."""
    assert ours.size_hw == theirs.size_hw and len(ours) == len(theirs)
    for some, others in ((ours, theirs), (theirs, ours)):
        for box, value, label in zip(some.boxes_xyxy, some.scores, some.labels, strict=True):
            if value > some.scores[-1] + score:
                same = others.labels == label
                near = (np.abs(others.boxes_xyxy[same] - box).max(axis=1) < pixels) & (
                    np.abs(others.scores[same] - value) < score
                )
                assert near.any(), (box, value, label)


def mmdets_own(config: Path, checkpoint: Path, images: Sequence[np.ndarray]) -> list[Detections]:
    """The results of mmdet.apis on RGB images."""
    install()
    from mmdet.apis import inference_detector, init_detector

    model = init_detector(str(config), str(checkpoint), device="cpu")
    results = []
    for image in images:
        found = inference_detector(model, np.ascontiguousarray(image[..., ::-1])).pred_instances
        boxes, scores, labels = found.bboxes.numpy(), found.scores.numpy(), found.labels.numpy()
        results.append(Detections(boxes, scores, labels, image.shape[:2]))
    return results


@pytest.fixture(scope="module")
def photos() -> list[np.ndarray]:
    paths = sorted(PHOTOS.glob("*/*.jpg"))
    if not paths or not list(DEMO_CONFIG.parent.glob("*.safetensors")):
        pytest.skip("no photos or no demo weights here")
    return [np.array(Image.open(path).convert("RGB")) for path in paths]


@pytest.fixture(scope="module")
def plain_detector(tmp_path_factory: pytest.TempPathFactory, demo_model: torch.nn.Module) -> MMDetector:
    """The same as `detector` by MMDetection's own code."""
    folder = tmp_path_factory.mktemp("plain-yolof")
    shutil.copy(DEMO_CONFIG, folder)
    torch.save({"meta": {"CLASSES": CLASSES}, "state_dict": demo_model.state_dict()}, folder / "weights.pth")
    return MMDetector.load(folder, fast=False)


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory, demo_model: torch.nn.Module) -> MMDetector:
    folder = tmp_path_factory.mktemp("yolof")
    shutil.copy(DEMO_CONFIG, folder)
    torch.save({"meta": {"CLASSES": CLASSES}, "state_dict": demo_model.state_dict()}, folder / "weights.pth")
    return MMDetector.load(folder)


# --- results -----------------------------------------------------------------------------------------


def test_stock_yolof_r50_equals_mmdets_own_inference(
    tmp_path: Path, picture: Picture, random_detector: Callable
) -> None:
    """A folder as from the zoo: the stock config, whose `_base_` files stayed behind, and meta with CLASSES."""
    install()
    import mmdet
    from mmdet.evaluation import get_classes

    stock = Path(mmdet.__file__).parent / ".mim" / "configs" / "yolof" / "yolof_r50-c5_8xb8-1x_coco.py"
    shutil.copy(stock, tmp_path)
    weights = random_detector(stock).state_dict()
    meta = {"CLASSES": tuple(get_classes("coco")), "config": "…", "epoch": 12}
    torch.save(
        {"meta": meta, "state_dict": weights}, tmp_path / "yolof_r50_c5_8x8_1x_coco_20210425_024427-8e864411.pth"
    )
    image = picture(800, 960)
    loaded = MMDetector.load(tmp_path, fast=False)
    (plain,) = loaded.forward([loaded.preprocess(image)])
    ours = loaded.postprocess(plain)
    (theirs,) = mmdets_own(stock, next(tmp_path.glob("*.pth")), [image])
    assert_same(ours, theirs, pixels=1e-3)
    fast = MMDetector.load(tmp_path)
    (raw,) = fast.forward([fast.preprocess(image)])
    assert raw.head is not None and plain.head is not None
    for (fused,), (truth,) in zip(raw.head, plain.head, strict=True):
        torch.testing.assert_close(fused, truth, rtol=0, atol=5e-3 * float(truth.std()))
    assert len(ours) == 100 and np.ptp(ours.scores) > 0.05 and len(set(ours.labels)) > 3
    assert loaded.class_names[:2] == ("person", "bicycle") and loaded.input_scale == (1333, 800)


def test_demo_weights_equal_mmdets_own_inference(tmp_path: Path, picture: Picture) -> None:
    checkpoints = [path for path in DEMO_CONFIG.parent.iterdir() if path.suffix in (".pth", ".safetensors")]
    if not checkpoints:
        pytest.skip("no demo weights here")
    loaded = MMDetector.load(DEMO_CONFIG.parent)
    assert loaded.class_names == CLASSES
    images = [picture(240, 320), picture(333, 200, seed=1)]
    pickled = tmp_path / "weights.pth"  # mmengine reads no safetensors
    torch.save({"state_dict": load_state_dict(checkpoints[0])[0]}, pickled)
    for ours, theirs in zip(loaded.detect(images), mmdets_own(DEMO_CONFIG, pickled, images), strict=True):
        assert_same(ours, theirs)


def test_small_yolof_equals_mmdets_own_inference(make_folder: MakeFolder, picture: Picture) -> None:
    folder = make_folder(meta={"CLASSES": CLASSES})
    images = [picture(200, 300), picture(61, 17, seed=1), picture(1, 1), picture(700, 500, seed=2)]
    results = MMDetector.load(folder, fast=False).detect(images)
    for ours, theirs in zip(results, mmdets_own(folder / "config.py", folder / "weights.pth", images), strict=True):
        assert_same(ours, theirs, pixels=1e-3)
        assert len(ours) > 10


def test_results_are_what_the_type_promises(detector: MMDetector, picture: Picture) -> None:
    (found,) = detector.detect([picture(200, 300)])
    assert found.boxes_xyxy.dtype == np.float32 and found.boxes_xyxy.shape == (len(found), 4)
    assert found.scores.dtype == np.float32 and found.labels.dtype == np.int64
    assert found.size_hw == (200, 300)
    assert (np.diff(found.scores) <= 0).all()
    assert (found.boxes_xyxy >= 0).all() and (found.boxes_xyxy <= [300, 200, 300, 200]).all()


def test_a_batch_gives_what_each_image_alone_gives(detector: MMDetector, picture: Picture) -> None:
    images = [
        picture(h, w, seed) for seed, (h, w) in enumerate([(200, 300), (300, 200), (200, 300), (200, 290), (5, 9)])
    ]
    for together, image in zip(detector.detect(images), images, strict=True):
        assert_same(together, detector.detect([image])[0])
    assert detector.detect([]) == []


def test_threads_may_share_the_steps_around_the_network(detector: MMDetector, picture: Picture) -> None:
    images = [picture(150 + 10 * i, 200, seed=i) for i in range(8)]
    with ThreadPoolExecutor(4) as pool:
        raws = detector.forward(list(pool.map(detector.preprocess, images)))
        found = list(pool.map(lambda pair: detector.postprocess(pair[1], max_detections=pair[0]), enumerate(raws)))
    for count, (one, image) in enumerate(zip(found, images, strict=True)):
        assert len(one) == count
        assert_same(one, detector.detect([image], max_detections=count)[0])


@pytest.mark.parametrize(("height", "width"), [(1, 20000), (20000, 1), (1, 1), (3, 1500), (2, 2)])
def test_extreme_shapes_keep_their_own_frame(detector: MMDetector, height: int, width: int, picture: Picture) -> None:
    (found,) = detector.detect([picture(height, width)], score_threshold=0.0)
    assert found.size_hw == (height, width)
    assert len(found) and (found.boxes_xyxy <= [width, height, width, height]).all()
    assert found.boxes_xyxy[:, 2].max() > width / 2 and found.boxes_xyxy[:, 3].max() > height / 2


def test_a_thin_image_is_seen_with_its_rows_repeated(detector: MMDetector, picture: Picture) -> None:
    thin = picture(2, 1500)
    (found,) = detector.detect([thin], score_threshold=0.0)
    (thick,) = detector.detect([thin.repeat(3, axis=0)], score_threshold=0.0)  # 6 x 1500: within MAX_ASPECT
    np.testing.assert_allclose(found.boxes_xyxy * [1, 3, 1, 3], thick.boxes_xyxy, rtol=0, atol=1e-3)
    np.testing.assert_array_equal(found.scores, thick.scores)


@pytest.mark.parametrize("image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)])
def test_what_is_no_rgb_image_is_refused(detector: MMDetector, image: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"expected \(H, W, 3\) uint8"):
        detector.preprocess(image)


# --- the fast path and the plain one -------------------------------------------------------------------


def test_fast_finds_what_mmdetections_own_code_finds(
    detector: MMDetector, plain_detector: MMDetector, picture: Picture
) -> None:
    images = [picture(200, 300), picture(61, 17, seed=1), picture(1, 1), picture(2, 1500), picture(700, 500, seed=2)]
    assert detector.fast and any(isinstance(module, FusedConv) for module in detector._model.modules())
    assert not any(isinstance(module, FusedConv) for module in plain_detector._model.modules())
    for ours, theirs in zip(detector.detect(images), plain_detector.detect(images), strict=True):
        assert_alike(ours, theirs, pixels=0.02, score=1e-4)


def test_fast_finds_the_same_in_photos_with_the_demo_weights(photos: list[np.ndarray]) -> None:
    fast, plain = MMDetector.load(DEMO_CONFIG.parent), MMDetector.load(DEMO_CONFIG.parent, fast=False)
    for ours, theirs in zip(fast.detect(photos), plain.detect(photos), strict=True):
        assert_same(ours, theirs)


def test_bfloat16_is_close_with_the_demo_weights(photos: list[np.ndarray]) -> None:
    coarse, fine = MMDetector.load(DEMO_CONFIG.parent, dtype=torch.bfloat16), MMDetector.load(DEMO_CONFIG.parent)
    assert next(coarse._model.backbone.buffers()).dtype == torch.bfloat16
    fridge = photos[-3:]  # where scores are high, and none is near the threshold
    for ours, theirs in zip(
        coarse.detect(fridge, score_threshold=0.5), fine.detect(fridge, score_threshold=0.5), strict=True
    ):
        assert len(ours) > 0
        assert_same(ours, theirs, pixels=BFLOAT16_PIXELS, score=BFLOAT16_SCORE)


@pytest.mark.parametrize("channel_order", ["bgr", "rgb"])
@pytest.mark.parametrize(("height", "width"), [(480, 640), (1, 1), (300, 200), (256, 256), (3000, 13), (2, 1500)])
def test_the_known_resize_gives_the_very_samples_of_the_configs_pipeline(
    make_folder: MakeFolder, channel_order: ChannelOrder, height: int, width: int, picture: Picture
) -> None:
    folder = make_folder()
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    fast, plain = (MMDetector.load(folder, channel_order=channel_order, fast=fast) for fast in (True, False))
    assert fast._resize is not None and plain._resize is None
    for image in (noise, noise[::-1, ::-1]):  # the second is not contiguous
        ours, theirs = fast.preprocess(image), plain.preprocess(image)
        assert torch.equal(ours.inputs, theirs.inputs) and ours.inputs.shape == theirs.inputs.shape
        assert (ours.size_hw, ours.stretch_xy) == (theirs.size_hw, theirs.stretch_xy)
        assert ours.metainfo == theirs.metainfo


@pytest.mark.parametrize(
    ("written", "instead"),
    [
        ("keep_ratio=True)", "keep_ratio=False)"),
        ("keep_ratio=True)", "keep_ratio=True, interpolation='nearest')"),
        ("keep_ratio=True)", "keep_ratio=True, backend='pillow')"),
        ("keep_ratio=True)", "keep_ratio=True), dict(type='Pad', size_divisor=64)"),
        ("backend_args=None)", "to_float32=True)"),
        ('"scale_factor")', '"scale_factor", "homography_matrix")'),
    ],
)
def test_any_other_pipeline_runs_as_the_config_says(
    make_folder: MakeFolder, written: str, instead: str, picture: Picture
) -> None:
    folder, image = make_folder(), picture(100, 150)
    text = (folder / "config.py").read_text()
    assert written in text
    (folder / "config.py").write_text(text.replace(written, instead))
    fast, plain = MMDetector.load(folder), MMDetector.load(folder, fast=False)
    assert fast._resize is None
    ours, theirs = fast.preprocess(image), plain.preprocess(image)
    assert torch.equal(ours.inputs, theirs.inputs) and ours.inputs.dtype == theirs.inputs.dtype
    assert ours.metainfo.keys() == theirs.metainfo.keys()


def test_a_batch_is_cut_where_the_device_has_enough(
    detector: MMDetector, picture: Picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = [picture(200, 300, seed) for seed in range(3)]
    sizes: list[int] = []
    handle = detector._model.backbone.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    together = detector.detect(images)
    monkeypatch.setitem(batches.PIXELS_AT_ONCE, "cpu", 2 * 192 * 256)
    cut = detector.detect(images)
    monkeypatch.setitem(batches.PIXELS_AT_ONCE, "cpu", 1)
    for ours, theirs, alone in zip(cut, together, detector.detect(images), strict=True):
        assert_alike(ours, theirs, pixels=0.02, score=1e-4)
        assert_alike(alone, theirs, pixels=0.02, score=1e-4)
    handle.remove()
    assert sizes == [3, 2, 1, 1, 1, 1]


# --- between -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("fast", [True, False])
def test_other_work_runs_between_the_layers(
    make_folder: MakeFolder, picture: Picture, fast: bool, dtype: torch.dtype
) -> None:
    loaded = MMDetector.load(make_folder(), dtype=dtype, fast=fast)
    sample = loaded.preprocess(picture(60, 90))
    other, layer = loaded.preprocess(picture(90, 60)), torch.nn.Linear(4, 4)
    seen = []

    def between() -> None:
        result = layer(torch.ones(4))
        result.sum().backward()  # impossible in inference mode
        seen.append((result.dtype, torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu")))
        if len(seen) == 20:  # the model's own forward, with a callback of its own that stays silent
            loaded.forward([other], between)

    (alone,) = loaded.forward([sample])
    (shared,) = loaded.forward([sample], between)
    assert alone.head is not None and shared.head is not None
    for ours, theirs in zip(shared.head, alone.head, strict=True):
        assert torch.equal(ours[0], theirs[0])
    assert 30 < len(seen) < 300 and set(seen) == {(torch.float32, False, False)}
    count = len(seen)
    loaded.forward([sample])
    assert len(seen) == count


def test_what_is_raised_in_between_ends_the_forward_and_leaves_nothing_behind(
    detector: MMDetector, picture: Picture
) -> None:
    sample, calls = detector.preprocess(picture(60, 90)), iter(range(5))

    def between() -> None:
        if next(calls) == 3:
            raise KeyError("enough")

    with pytest.raises(KeyError, match="enough"):
        detector.forward([sample], between)
    detector.forward([sample])
    assert next(calls) == 4 and not torch.is_inference_mode_enabled()


# --- settings ----------------------------------------------------------------------------------------


def test_each_image_of_a_batch_has_its_own_settings(detector: MMDetector, picture: Picture) -> None:
    image = picture(200, 300)
    threshold = float(np.median(detector.detect([image])[0].scores))
    plain, strict, few, disjoint = detector.detect(
        [image] * 4,
        score_threshold=[None, threshold, None, None],
        iou_threshold=[None, None, None, 0.0],
        max_detections=[None, None, 3, None],
    )
    assert len(plain) == 100  # the config's own max_per_img
    assert 40 < len(strict) < 60
    np.testing.assert_allclose(strict.scores, plain.scores[plain.scores > threshold], atol=1e-6)
    np.testing.assert_allclose(few.scores, plain.scores[:3], atol=1e-6)
    for label in set(disjoint.labels):
        x1, y1, x2, y2 = disjoint.boxes_xyxy[disjoint.labels == label].T.astype(float)
        width = np.minimum(x2, x2[:, None]) - np.maximum(x1, x1[:, None])
        height = np.minimum(y2, y2[:, None]) - np.maximum(y1, y1[:, None])
        overlap = width.clip(0) * height.clip(0) - np.diag((x2 - x1) * (y2 - y1))
        assert overlap.max() < 0.01
    assert_same(detector.detect([image])[0], plain)  # and nothing of it stays behind


def test_thresholds_may_be_laxer_than_the_config(detector: MMDetector, picture: Picture) -> None:
    image = picture(200, 300)
    (lax,) = detector.detect([image], score_threshold=0.0, iou_threshold=1.0, max_detections=5000)
    assert 900 < len(lax) <= 1000  # the config's nms_pre, less boxes without area
    (none,) = detector.detect([image], score_threshold=0.9999)
    assert none.boxes_xyxy.shape == (0, 4) and len(none) == 0


def test_one_setting_per_image_or_one_for_all(detector: MMDetector, picture: Picture) -> None:
    with pytest.raises(ValueError, match=r"one setting per image \(1\), got 2"):
        detector.detect([picture(20, 20)], score_threshold=[0.1, 0.2])


def test_channel_order_rgb_is_bgr_of_the_swapped_image(make_folder: MakeFolder, picture: Picture) -> None:
    folder, image = make_folder(meta={"CLASSES": CLASSES}), picture(200, 300)
    bgr, rgb = MMDetector.load(folder), MMDetector.load(folder, channel_order="rgb")
    assert (bgr.channel_order, rgb.channel_order) == ("bgr", "rgb")
    (swapped,) = rgb.detect([image])
    assert_same(swapped, bgr.detect([image[..., ::-1]])[0])
    assert np.abs(swapped.scores - bgr.detect([image])[0].scores).max() > 1e-3
    with pytest.raises(ValueError, match="'bgr' or 'rgb', got 'gbr'"):
        MMDetector.load(folder, channel_order="gbr")  # type: ignore[arg-type]


def test_bfloat16_stays_close(make_folder: MakeFolder, detector: MMDetector, picture: Picture) -> None:
    image = picture(200, 300)
    (coarse,) = MMDetector.load(make_folder(meta={"CLASSES": CLASSES}), dtype=torch.bfloat16).detect([image])
    (fine,) = detector.detect([image])
    assert coarse.scores.dtype == np.float32
    np.testing.assert_allclose(coarse.scores[:20], fine.scores[:20], atol=0.05)
    assert not np.array_equal(coarse.scores, fine.scores)


# --- files -------------------------------------------------------------------------------------------


def test_a_training_checkpoint_of_mmengine_is_served(tmp_path: Path, trained_checkpoint: Path) -> None:
    config = tmp_path / "config.py"
    config.write_text(DEMO_CONFIG.read_text().replace('"can"', '"other"'))
    shutil.copy(trained_checkpoint, tmp_path)
    loaded = MMDetector.load(tmp_path, fast=False)
    assert loaded.class_names == CLASSES  # the checkpoint's own names, not the config's
    trained = torch.load(trained_checkpoint, weights_only=False)["state_dict"]["bbox_head.cls_score.weight"]
    assert torch.equal(loaded._model.bbox_head.cls_score.weight, trained)


def test_azures_mlflow_folder(tmp_path: Path, make_folder: MakeFolder) -> None:
    source = make_folder()
    model = tmp_path / "model_dir" / "mlflow_model_folder"
    (model / "artifacts").mkdir(parents=True)
    (model / "code").mkdir()
    (model / "code" / "predict.py").write_text("raise SystemExit")
    (model / "MLmodel").write_text("flavors: {}")
    name = "mmd-3x-yolof_r50_c5_8x8_1x_coco"
    shutil.copy(source / "config.py", model / "artifacts" / f"{name}.py")
    shutil.copy(source / "weights.pth", model / "artifacts" / f"{name}_weights.pth")
    metadata = model / "artifacts" / "model_metadata.json"
    metadata.write_text(json.dumps({"id2label": {"10": "d", "0": "a", "2": "c", "1": "b"}}))
    for folder in (model, model / "artifacts", model.parent):
        assert MMDetector.load(folder).class_names == ("a", "b", "c", "d")
    metadata.write_text(json.dumps({"classes": list("wxyz")}))
    assert MMDetector.load(model).class_names == tuple("wxyz")
    metadata.write_text("{")
    with pytest.raises(ModelFilesError, match="not JSON"):
        MMDetector.load(model)


def test_safetensors_with_class_names_and_a_wrappers_prefix(
    make_folder: MakeFolder, detector: MMDetector, demo_model: torch.nn.Module, picture: Picture
) -> None:
    folder = make_folder()
    (folder / "weights.pth").unlink()
    weights = {f"model.{key}": tensor for key, tensor in demo_model.state_dict().items()}
    save_file(weights, folder / "weights.safetensors", metadata={"classes": json.dumps(list("abcd"))})
    loaded = MMDetector.load(folder)
    assert loaded.class_names == tuple("abcd")
    image = picture(100, 120)
    assert_same(loaded.detect([image])[0], detector.detect([image])[0])


def test_class_names_fall_back_to_the_config_and_must_be_as_many_as_the_model_has(make_folder: MakeFolder) -> None:
    assert MMDetector.load(make_folder("a")).class_names == CLASSES
    folder = make_folder("b", meta={"dataset_meta": {"CLASSES": ("a", "b", "c")}})
    with pytest.raises(ModelFilesError, match=r"weights\.pth names 3 classes, but .*config\.py has 4"):
        MMDetector.load(folder)
    folder = make_folder("c")
    text = (folder / "config.py").read_text().replace("metainfo=metainfo, ", "").replace("metainfo = ", "other = ")
    (folder / "config.py").write_text(text)
    with pytest.raises(ModelFilesError, match="no names for its 4 classes"):
        MMDetector.load(folder)


def test_a_folder_that_is_no_detector_says_what_is_there(tmp_path: Path, make_folder: MakeFolder) -> None:
    with pytest.raises(ModelFilesError, match="no such file or folder"):
        MMDetector.load(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelFilesError, match=r"one config \.py and one checkpoint.*found 0 and 0 .*holds nothing"):
        MMDetector.load(tmp_path / "empty")
    folder = make_folder()
    (folder / "second.pth").write_bytes(b"")
    with pytest.raises(ModelFilesError, match=r"found 1 and 2 .*config\.py, second\.pth, weights\.pth"):
        MMDetector.load(folder)
    assert DetectorFiles.find(folder / "weights.pth") == DetectorFiles.find(folder / "weights.pth")
    assert DetectorFiles.find(folder / "weights.pth").config == folder / "config.py"
    (folder / "second.pth").unlink()
    assert DetectorFiles.find(folder / "config.py").checkpoint == folder / "weights.pth"
    make_folder("other")
    with pytest.raises(ModelFilesError, match="expected one detector, found 2: detector/, other/"):
        DetectorFiles.find(tmp_path)


def test_weights_that_do_not_fit_the_config_are_named(make_folder: MakeFolder) -> None:
    folder = make_folder()
    text = (folder / "config.py").read_text()
    (folder / "config.py").write_text(text.replace("num_classes=4", "num_classes=5"))
    with pytest.raises(CheckpointError, match=r"2 of another shape: bbox_head\.cls_score\.bias \(checkpoint \(20,\)"):
        MMDetector.load(folder)
    (folder / "config.py").write_text(text.replace("depth=18", "depth=34"))
    with pytest.raises(CheckpointError, match=r"missing: backbone\.layer1\.2"):
        MMDetector.load(folder)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("model = dict(", "cannot read the config"),
        ("raise KeyError('x')", "cannot read the config"),
        ("a = 1", "has no 'model'"),
        ("_base_ = '../_base_/nowhere.py'", r"_base_ file '\.\./_base_/nowhere\.py' is neither beside it nor"),
        ("model = dict(type='Unheard')", "cannot build the model: .*Unheard"),
    ],
)
def test_a_bad_config_is_explained(make_folder: MakeFolder, source: str, message: str) -> None:
    folder = make_folder()
    (folder / "config.py").write_text(source)
    with pytest.raises(ModelFilesError, match=message):
        MMDetector.load(folder)


def test_pretrained_weights_of_a_config_are_never_fetched(make_folder: MakeFolder, monkeypatch) -> None:
    import socket

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("the network was used")

    folder = make_folder()
    text = (folder / "config.py").read_text()
    pretrained = 'init_cfg=dict(type="Pretrained", checkpoint="open-mmlab://detectron/resnet50_caffe"), depth=18'
    (folder / "config.py").write_text(text.replace("depth=18", pretrained))
    monkeypatch.setattr(socket.socket, "connect", refuse)
    loaded = MMDetector.load(folder)
    assert loaded._model.backbone.init_cfg is None or loaded._model.backbone.init_cfg[0]["type"] != "Pretrained"


# --- other detectors of the zoo ------------------------------------------------------------------------


def zoo_folder(folder: Path, config: str) -> Path:
    (folder / "config.py").write_text(config + SMALL_PIPELINE)

    path = folder / "config.py"
    torch.save(build_model(read_config(path), path).state_dict(), folder / "weights.pth")
    return folder


def test_a_detector_that_selects_on_the_way(tmp_path: Path, picture: Picture) -> None:
    """DETR has no anchors and no thresholds of its own: settings narrow what it returns."""
    base = "_base_ = ['../detr/detr_r50_8xb2-150e_coco.py']\n"
    small = "backbone=dict(depth=18), neck=dict(in_channels=[512]), num_queries=20, test_cfg=dict(max_per_img=20)"
    loaded = MMDetector.load(zoo_folder(tmp_path, f"{base}model = dict({small})\n"))
    assert loaded.class_names[0] == "person" and len(loaded.class_names) == 80
    images = [picture(90, 120), picture(120, 90, seed=1)]
    everything = loaded.detect(images)
    assert [len(one) for one in everything] == [20, 20]
    threshold = float(np.median(everything[0].scores))
    narrowed = loaded.detect(images, score_threshold=[threshold, None], max_detections=[None, 5])
    assert len(narrowed[0]) == (everything[0].scores > threshold).sum() and len(narrowed[1]) == 5
    assert len(loaded.detect(images, iou_threshold=0.0)[0]) < 20


def test_a_network_not_known_as_a_whole_can_be_kept_in_float32(
    tmp_path: Path, make_folder: MakeFolder, picture: Picture
) -> None:
    base = "_base_ = ['../detr/detr_r50_8xb2-150e_coco.py']\n"
    small = "backbone=dict(depth=18), neck=dict(in_channels=[512]), num_queries=20, test_cfg=dict(max_per_img=20)"
    folder = zoo_folder(tmp_path, f"{base}model = dict({small})\n")
    kept = MMDetector.load(folder, dtype=torch.bfloat16, autocast=False)
    assert kept.dtype == torch.float32
    assert MMDetector.load(folder, dtype=torch.bfloat16).dtype == torch.bfloat16
    assert MMDetector.load(make_folder(), dtype=torch.bfloat16, autocast=False).dtype == torch.bfloat16
    (ours,), (theirs,) = kept.detect([picture(90, 120)]), MMDetector.load(folder).detect([picture(90, 120)])
    np.testing.assert_array_equal(ours.boxes_xyxy, theirs.boxes_xyxy)


def test_loading_and_detecting_print_nothing(
    make_folder: MakeFolder, capfd: pytest.CaptureFixture[str], picture: Picture
) -> None:
    MMDetector.load(make_folder()).detect([picture(60, 60)])
    assert capfd.readouterr() == ("", "")
