from __future__ import annotations

import json
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from models.checkpoints import CheckpointError, load_into, load_state_dict

TENSORS = {"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.tensor([1.0, 2.0])}


def same(state_dict: dict[str, torch.Tensor]) -> bool:
    return state_dict.keys() == TENSORS.keys() and all(torch.equal(state_dict[key], TENSORS[key]) for key in TENSORS)


def test_safetensors_with_its_metadata(tmp_path: Path) -> None:
    metadata = {"format": "pt", "classes": '["can", "carton"]', "note": "[not JSON"}
    save_file(TENSORS, tmp_path / "a.safetensors", metadata=metadata)
    state_dict, meta = load_state_dict(tmp_path / "a.safetensors")
    assert same(state_dict)
    assert meta == {"format": "pt", "classes": ["can", "carton"], "note": "[not JSON"}


@pytest.mark.parametrize("legacy", [False, True])
def test_pickles_in_their_forms(tmp_path: Path, legacy: bool) -> None:
    path = tmp_path / "a.pth"
    torch.save(TENSORS, path, _use_new_zipfile_serialization=not legacy)
    state_dict, meta = load_state_dict(path)
    assert same(state_dict) and meta == {}
    torch.save({"state_dict": TENSORS, "meta": {"CLASSES": ("a",)}}, path, _use_new_zipfile_serialization=not legacy)
    state_dict, meta = load_state_dict(path)
    assert same(state_dict) and meta == {"CLASSES": ("a",)}


def test_hugging_face_folders_whole_and_sharded(tmp_path: Path) -> None:
    torch.save(TENSORS, tmp_path / "pytorch_model.bin")
    assert same(load_state_dict(tmp_path)[0])
    for name, key in (("1.safetensors", "weight"), ("2.safetensors", "bias")):
        save_file({key: TENSORS[key]}, tmp_path / name)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"weight": "1.safetensors", "bias": "2.safetensors"}}))
    assert same(load_state_dict(tmp_path)[0])
    index.write_text(json.dumps({"weight_map": {"weight": "1.safetensors", "gone": "2.safetensors"}}))
    with pytest.raises(CheckpointError, match="1 keys are in none of its shards: gone"):
        load_state_dict(tmp_path)
    index.write_text(json.dumps({"weight_map": {"weight": "../1.safetensors"}}))
    with pytest.raises(CheckpointError, match=r"expected shards beside it, got '\.\./1"):
        load_state_dict(tmp_path)
    save_file(TENSORS, tmp_path / "model.safetensors")
    assert same(load_state_dict(tmp_path)[0])


def test_a_folder_without_weights_says_what_it_looked_for_and_found(tmp_path: Path) -> None:
    (tmp_path / "readme.txt").write_text("")
    with pytest.raises(CheckpointError, match=r"looked for model\.safetensors.*found readme\.txt"):
        load_state_dict(tmp_path)
    with pytest.raises(CheckpointError, match="no such file"):
        load_state_dict(tmp_path / "absent.pth")


class Smuggled:
    """Pickles as a call of `function`, which ordinary unpickling would make."""

    def __init__(self, function, *args) -> None:
        self.call = function, args

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(
    ("function", "name"), [(os.system, "posix.system"), (eval, "eval"), (pickle.loads, "pickle.loads")]
)
def test_a_smuggled_callable_is_refused_by_name_and_never_runs(tmp_path: Path, function, name, legacy: bool) -> None:
    trace = tmp_path / "ran"
    arguments = {
        os.system: f"touch {trace}",
        eval: f"open({str(trace)!r}, 'w').close()",
        pickle.loads: pickle.dumps(Smuggled(os.mkdir, str(trace))),
    }
    path = tmp_path / "a.pth"
    content = {"state_dict": TENSORS, "meta": {"note": Smuggled(function, arguments[function])}}
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(CheckpointError, match=f"'{name}'.*refused"):
        load_state_dict(path)
    assert not trace.exists()
    if not legacy:
        torch.load(path, weights_only=False)
        assert trace.exists()  # the file is a real attack


def test_getattr_is_allowed_for_nothing_but_log_buffers(tmp_path: Path) -> None:
    torch.save({"a": Smuggled(getattr, torch.Tensor, "backward")}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=r"'builtins\.getattr'.*refused"):
        load_state_dict(tmp_path / "a.pth")


def test_numbers_of_numpy_pass_and_its_objects_do_not(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    meta = {"best": np.float64(0.5), "count": np.int64(3), "history": np.arange(3.0), "seen": np.bool_(True)}
    torch.save({"state_dict": TENSORS, "meta": meta}, path)
    loaded = load_state_dict(path)[1]
    assert loaded["best"] == 0.5 and loaded["count"] == 3 and loaded["seen"]
    assert loaded["history"].tolist() == [0, 1, 2]
    torch.save({"state_dict": TENSORS, "meta": np.array([Smuggled(os.getpid)], dtype=object)}, path)
    with pytest.raises(CheckpointError):
        load_state_dict(path)


def test_numpy_globals_by_their_old_names(tmp_path: Path) -> None:
    """numpy 1, which wrote the zoo's checkpoints, called the module `numpy.core`."""
    path, old = tmp_path / "new.pth", tmp_path / "old.pth"
    torch.save({"state_dict": TENSORS, "meta": {"best": np.float64(0.5), "all": np.arange(2.0)}}, path)
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(old, "w") as target:
        for name in source.namelist():
            content = source.read(name)
            if name.endswith("data.pkl"):
                assert b"numpy._core" in content
                content = content.replace(b"numpy._core", b"numpy.core")
            target.writestr(name, content)
    assert load_state_dict(old)[1]["best"] == 0.5


def test_a_training_checkpoint_of_mmengine(trained_checkpoint: Path) -> None:
    with pytest.raises(pickle.UnpicklingError, match="HistoryBuffer"):
        torch.load(trained_checkpoint, weights_only=True)  # what mmengine itself runs into
    state_dict, meta = load_state_dict(trained_checkpoint)
    assert "bbox_head.cls_score.weight" in state_dict
    assert tuple(meta["dataset_meta"]["classes"]) == ("can", "carton", "milk_bottle", "water_bottle")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("legacy", [False, True])
def test_a_damaged_file_is_called_damaged(tmp_path: Path, suffix: str, legacy: bool) -> None:
    path = tmp_path / f"a{suffix}"
    if suffix == ".pth":
        torch.save(TENSORS, path, _use_new_zipfile_serialization=not legacy)
    else:
        save_file(TENSORS, path)
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], whole[:-20], b"", b"version https://git-lfs.github.com/spec/v1\n"):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"a\.\w+:? .*(is truncated|or is damaged|is empty|Git LFS pointer)"):
            load_state_dict(path)


@pytest.mark.parametrize("content", [[1, 2], {}, {"a": 1}, {"state_dict": {"a": "b"}}, {1: torch.zeros(1)}])
def test_a_pickle_of_something_else(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match="expected tensors by key"):
        load_state_dict(tmp_path / "a.pth")


def test_load_into_copies_and_is_strict() -> None:
    model = torch.nn.Linear(3, 2)
    load_into(model, TENSORS, "a.pth")
    assert same(dict(model.state_dict()))

    with pytest.raises(CheckpointError, match=r"a\.pth does not fit the model: 1 missing: bias; 1 unexpected: extra$"):
        load_into(model, {"weight": TENSORS["weight"], "extra": TENSORS["bias"]}, "a.pth")
    with pytest.raises(CheckpointError, match=r"1 of another shape: bias \(checkpoint \(3,\), model \(2,\)\)"):
        load_into(model, {**TENSORS, "bias": torch.zeros(3)}, "a.pth")
    with pytest.raises(CheckpointError, match=r"1 missing: weight; 8 unexpected: k0, k1, k2, k3, k4, …"):
        load_into(model, {"bias": torch.zeros(2), **{f"k{i}": torch.zeros(1) for i in range(8)}}, "a.pth")


def test_load_into_ignores_what_it_is_told_to() -> None:
    model = torch.nn.Linear(3, 2)
    load_into(model, {"weight": TENSORS["weight"], "a.counter": torch.zeros(1)}, "x", ignore=["bias", "*counter"])
    assert torch.equal(model.weight, TENSORS["weight"])
