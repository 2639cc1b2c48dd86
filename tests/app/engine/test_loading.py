"""Which weights the settings mean, wherever they lie, and what is said where there are none."""

from __future__ import annotations

import asyncio
import json
import shutil
import threading
from pathlib import Path

import pytest

from app.engine import loading
from app.engine.loading import Choice, Chosen, choose, load
from app.settings import Settings, SettingsError
from models.checkpoints import CheckpointError, ModelFilesError
from models.weights import load_manifest, places

DEMO = Path(__file__).parents[3] / "weights" / "demo"


def settings(**fields: object) -> Settings:
    """Settings that no variable of this process's environment reaches."""
    defaults = {name: field.default for name, field in Settings.model_fields.items()}
    return Settings(**(defaults | fields))


def write_detector(folder: Path) -> Path:
    """As much of Azure's YOLOF folder as choosing looks at."""
    folder.mkdir(parents=True)
    (folder / "yolof_r50_c5_8x8_1x_coco.py").write_text("model = dict()")
    (folder / "yolof_r50_c5_8x8_1x_coco_weights.pth").write_bytes(b"weights")
    (folder / "model_metadata.json").write_text("{}")
    return folder


def write_sam(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "sam"}))
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def write_weights(root: Path, *names: str) -> None:
    """Put files of these weights where `box2mask weights` keeps them; their contents do not matter here."""
    known = load_manifest()
    for name in names:
        folder = root / known[name].folder
        if known[name].tracked:
            shutil.copytree(DEMO / folder.name, folder)
            continue
        folder.mkdir(parents=True)
        for file in known[name].files:
            with (folder / file.name).open("wb") as stream:
                stream.truncate(file.size or 1)  # sparse: it takes no room on the disk


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The weights directory of a checkout, with the demo weights alone."""
    root = tmp_path / "weights"
    write_weights(root, "demo-yolof", "demo-sam")
    shutil.copy(DEMO.parent / "manifest.json", root)
    monkeypatch.setattr(places, "CHECKOUT", root)
    return root


# What the settings name


def test_auto_is_the_demo_weights_where_nothing_else_is_there(root: Path) -> None:
    assert choose(settings()) == Choice(
        Chosen(root / "demo" / "yolof", "demo-yolof", True), Chosen(root / "demo" / "sam", "demo-sam", True)
    )
    assert choose(settings()).demo


def test_pulled_weights_come_before_the_demo_weights(root: Path) -> None:
    write_weights(root, "yolof", "sam-base")
    chosen = choose(settings())
    assert chosen == Choice(Chosen(root / "yolof", "yolof", False), Chosen(root / "sam-base", "sam-base", False))
    assert not chosen.demo


def test_the_largest_sam_that_was_pulled_is_taken(root: Path) -> None:
    write_weights(root, "sam-base", "sam-huge")
    chosen = choose(settings())
    assert chosen.segmenter is not None and chosen.segmenter.name == "sam-huge"
    assert chosen.demo  # the detector still is


def test_an_interrupted_pull_is_not_taken(root: Path) -> None:
    write_weights(root, "sam-huge")
    (root / "sam-huge" / "model.safetensors").unlink()
    chosen = choose(settings())
    assert chosen.segmenter is not None and chosen.segmenter.name == "demo-sam"
    with pytest.raises(SettingsError, match="BOX2MASK_SEGMENTER=sam-huge: these weights are not here"):
        choose(settings(segmenter="sam-huge"))


def test_a_name_is_taken_though_better_is_there(root: Path) -> None:
    write_weights(root, "sam-base", "sam-huge")
    chosen = choose(settings(segmenter="sam-base", detector="demo-yolof"))
    assert chosen.segmenter == Chosen(root / "sam-base", "sam-base", False)
    assert chosen.detector == Chosen(root / "demo" / "yolof", "demo-yolof", True)


def test_weights_that_were_not_pulled_are_asked_for_with_the_command_that_brings_them(root: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        choose(settings(detector="yolof"))
    assert str(caught.value) == (
        "BOX2MASK_DETECTOR=yolof: these weights are not here: run `box2mask weights pull yolof`"
    )


def test_a_path_is_taken_as_it_is(root: Path, tmp_path: Path) -> None:
    detector, sam = write_detector(tmp_path / "mine"), write_sam(tmp_path / "my-sam")
    chosen = choose(settings(detector=str(detector), segmenter=str(sam)))
    assert chosen == Choice(Chosen(detector, "mine", False), Chosen(sam, "my-sam", False))


def test_a_path_that_is_not_there_is_refused_with_what_may_be_named(root: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        choose(settings(segmenter=f"{tmp_path}/nothing"))
    assert str(caught.value) == (
        f"BOX2MASK_SEGMENTER={tmp_path}/nothing: there is no such folder, and no weights of that name: "
        "expected a path, auto, none or one of yolof, sam-huge, sam-large, sam-base, sam2.1-tiny, sam2.1-small, "
        "sam2.1-base-plus, sam2.1-large, edgetam, sam-hq-base, sam-hq-large, sam-hq-huge, sam3, demo-yolof, demo-sam"
    )
    for how, shown in (({"typed": ["detector"]}, "--detector "), ({"asked": ["detector"]}, "detector: ")):
        with pytest.raises(SettingsError) as caught:
            choose(settings(detector="no/thing"), **how)
        assert str(caught.value).startswith(f"{shown}no/thing: there is no such folder, and no weights of that name: ")
        assert f"expected a path (from {Path.cwd()} on), auto, none or one of yolof" in str(caught.value)


@pytest.mark.parametrize(("off", "served"), [("detector", "segmenter"), ("segmenter", "detector")])
def test_one_model_is_enough(root: Path, off: str, served: str) -> None:
    chosen = choose(settings(**{off: "none"}))
    assert getattr(chosen, off) is None
    assert getattr(chosen, served).demo


def test_no_model_is_not(root: Path) -> None:
    with pytest.raises(SettingsError, match="^there is nothing to serve: both models are switched off. Expected "):
        choose(settings(detector="none", segmenter="none"))


def test_no_weights_at_all_is_told_apart_from_switched_off(root: Path) -> None:
    shutil.rmtree(root / "demo")
    with pytest.raises(SettingsError, match=f"^there is nothing to serve: no model was found in {root}. "):
        choose(settings())


def test_pulled_weights_may_lie_elsewhere_and_the_demo_weights_stay_where_they_are(root: Path, tmp_path: Path) -> None:
    write_weights(root, "yolof", "sam-huge")
    elsewhere = tmp_path / "elsewhere"
    write_weights(elsewhere, "sam-base")
    assert choose(settings(weights_dir=elsewhere)) == Choice(
        Chosen(root / "demo" / "yolof", "demo-yolof", True), Chosen(elsewhere / "sam-base", "sam-base", False)
    )
    with pytest.raises(SettingsError, match="BOX2MASK_DETECTOR=yolof: these weights are not here"):
        choose(settings(weights_dir=elsewhere, detector="yolof"))


# What AzureML mounts


@pytest.mark.parametrize("around", ["", "1", "mmd-3x-yolof/1"])
def test_azures_yolof_folder_is_found(root: Path, tmp_path: Path, around: str) -> None:
    folder = write_detector(tmp_path / "mounted" / around / "artifacts")
    chosen = choose(settings(azureml_model_dir=tmp_path / "mounted"))
    assert chosen.detector is not None and chosen.detector.path == folder
    assert chosen.segmenter is None


@pytest.mark.parametrize("around", ["", "1", "facebook-sam-vit-huge/1"])
def test_azures_sam_folder_is_found(root: Path, tmp_path: Path, around: str) -> None:
    folder = write_sam(tmp_path / "mounted" / around / "artifacts" / "INPUT_model_path")
    chosen = choose(settings(azureml_model_dir=tmp_path / "mounted"))
    assert chosen.segmenter is not None and chosen.segmenter.path == folder
    assert chosen.detector is None


def test_both_are_found_in_one_mount(root: Path, tmp_path: Path) -> None:
    detector = write_detector(tmp_path / "mounted" / "yolof" / "artifacts")
    sam = write_sam(tmp_path / "mounted" / "sam" / "artifacts" / "INPUT_model_path")
    chosen = choose(settings(azureml_model_dir=tmp_path / "mounted"))
    assert chosen.detector is not None and chosen.detector.path == detector
    assert chosen.segmenter is not None and chosen.segmenter.path == sam
    assert not chosen.demo


def test_a_named_model_joins_the_mounted_one(root: Path, tmp_path: Path) -> None:
    write_detector(tmp_path / "mounted" / "artifacts")
    chosen = choose(settings(azureml_model_dir=tmp_path / "mounted", segmenter="demo-sam"))
    assert chosen.detector is not None and not chosen.detector.demo
    assert chosen.segmenter == Chosen(root / "demo" / "sam", "demo-sam", True)


def test_a_mount_without_models_is_not_made_up_for_by_demo_weights(root: Path, tmp_path: Path) -> None:
    mounted = tmp_path / "mounted"
    mounted.mkdir()
    (mounted / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(SettingsError) as caught:
        choose(settings(azureml_model_dir=mounted))
    assert str(caught.value) == (
        f"there is nothing to serve: no model was found in AZUREML_MODEL_DIR ({mounted}). Expected a folder "
        "with an MMDetection config .py and its .pth or .safetensors, or one of Hugging Face's detectors "
        "(BOX2MASK_DETECTOR), or a Hugging Face SAM folder (BOX2MASK_SEGMENTER)"
    )


def test_of_two_mounted_sams_one_must_be_named(root: Path, tmp_path: Path) -> None:
    first, second = (write_sam(tmp_path / "mounted" / name) for name in ("a", "b"))
    with pytest.raises(SettingsError, match="holds 2 folders with a segmenter: .*/a, .*/b; name one in") as caught:
        choose(settings(azureml_model_dir=tmp_path / "mounted"))
    assert str(first) in str(caught.value)
    chosen = choose(settings(azureml_model_dir=tmp_path / "mounted", segmenter=str(second)))
    assert chosen.segmenter is not None and chosen.segmenter.path == second


# Loading what was chosen


def test_both_of_azures_folders_load_and_run(tmp_path: Path) -> None:
    """The demo weights, laid out and named as AzureML mounts models."""
    mounted = tmp_path / "mounted"
    artifacts = mounted / "yolof" / "artifacts"
    artifacts.mkdir(parents=True)
    shutil.copy(DEMO / "yolof" / "yolof_r18_demo.py", artifacts / "yolof_demo.py")
    shutil.copy(DEMO / "yolof" / "model.safetensors", artifacts / "yolof_demo_weights.safetensors")
    (artifacts / "model_metadata.json").write_text("{}")
    shutil.copytree(DEMO / "sam", mounted / "sam" / "artifacts" / "INPUT_model_path")

    chosen = settings(azureml_model_dir=mounted, device="cpu")
    engine = load(chosen, choose(chosen))

    async def run_once() -> None:
        await engine.warm_up()
        await engine.aclose()

    asyncio.run(run_once())
    assert engine.detector is not None
    assert engine.detector.class_names == ("can", "carton", "milk_bottle", "water_bottle")
    assert engine.segmenter is not None
    config = json.loads((DEMO / "sam" / "config.json").read_bytes())
    assert engine.segmenter.image_size == config["vision_config"]["image_size"]


def test_a_device_that_is_not_here_is_refused(root: Path) -> None:
    chosen = settings(device="abacus")
    with pytest.raises(
        SettingsError, match=r"^the device abacus \(BOX2MASK_DEVICE or --device\) cannot be used here: "
    ):
        load(chosen, choose(chosen))


def test_an_embedding_folder_that_cannot_be_made_is_refused(root: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    chosen = settings(detector="none", device="cpu", embedding_cache_dir=tmp_path / "file" / "embeddings")
    with pytest.raises(SettingsError, match="^BOX2MASK_EMBEDDING_CACHE_DIR=.*Not a directory"):
        load(chosen, choose(chosen))


def test_corrupt_weights_are_refused_by_name(root: Path) -> None:
    (root / "demo" / "sam" / "model.safetensors").write_bytes(b"not a checkpoint")
    chosen = settings(detector="none", device="cpu")
    with pytest.raises(CheckpointError, match=r"model\.safetensors: expected a file with weights; it is text"):
        load(chosen, choose(chosen))


def test_a_folder_that_holds_no_sam_is_refused_with_what_it_holds(tmp_path: Path) -> None:
    chosen = settings(detector="none", segmenter=str(write_detector(tmp_path / "detector")), device="cpu")
    with pytest.raises(
        ModelFilesError, match="looked for a config.json whose model_type is one of sam, .*; found model_meta"
    ):
        load(chosen, choose(chosen))


def test_a_hash_is_of_the_files_that_are_loaded_and_no_others(tmp_path: Path) -> None:
    shutil.copytree(DEMO / "yolof", tmp_path / "yolof")
    shutil.copytree(DEMO / "sam", tmp_path / "sam")
    named = settings(detector=str(tmp_path / "yolof"), segmenter=str(tmp_path / "sam"))

    def hashes() -> tuple[str, str]:
        found = choose(named).hashes
        return found["detector"], found["segmenter"]

    before = hashes()
    for folder in ("yolof", "sam"):  # results of a run, say
        (tmp_path / folder / "results").mkdir()
        (tmp_path / folder / "results" / "coco.json").write_text("{}")
    (tmp_path / "sam" / "pytorch_model.bin").write_bytes(b"not the form that is read")
    assert hashes() == before

    seen = set(before)
    for file in ("sam/model.safetensors", "yolof/model.safetensors"):  # one bit, far from both ends
        content = bytearray((tmp_path / file).read_bytes())
        content[len(content) // 2] ^= 1
        (tmp_path / file).write_bytes(content)
        seen |= set(hashes())
    config = tmp_path / "yolof" / "yolof_r18_demo.py"
    config.rename(tmp_path / "base.py")
    for limit in (7, 8):  # what a config inherits is a part of it
        (tmp_path / "base.py").write_text((tmp_path / "base.py").read_text() + f"\nmax_per_img = {limit}\n")
        config.write_text("_base_ = ['../base.py']\n")
        seen |= set(hashes())
    assert len(seen) == 6


def test_the_thread_that_loads_ends_and_openmp_s_threads_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    threads, load_models = [], loading._load_models

    def watched(*args: object) -> object:
        threads.append(threading.current_thread())
        return load_models(*args)

    monkeypatch.setattr(loading, "_load_models", watched)
    known = settings(detector="none", segmenter="demo-sam")
    asyncio.run(load(known, choose(known), for_folders=True).aclose())
    assert threads and not any(thread.is_alive() for thread in threads)


def test_a_folder_keeps_no_more_embeddings_than_are_in_work() -> None:
    known = settings(detector="none", segmenter="demo-sam", embedding_cache_mb=512)

    def budget(*, for_folders: bool) -> int:
        engine = load(known, choose(known), for_folders=for_folders)
        asyncio.run(engine.aclose())
        return engine.cache.budget_bytes

    assert budget(for_folders=False) == 512 * 2**20
    assert 16 * 5 * 2**20 < budget(for_folders=True) <= 128 * 2**20
