"""`box2mask weights`: what it says, and where it puts what it pulls."""

from __future__ import annotations

import hashlib
import json
import os
import socket
from pathlib import Path

import pytest

from app.cli import main
from models.weights import download, places

_HEADER = b'{"a": {"dtype": "U8", "shape": [16384], "data_offsets": [0, 16384]}}'
CONFIG, TENSORS = b'{"model_type": "sam"}\n', len(_HEADER).to_bytes(8, "little") + _HEADER + bytes(range(256)) * 64
TENSORS_SHA256 = hashlib.sha256(TENSORS).hexdigest()


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The weights directory of a checkout whose manifest has a model, `tiny`, and one that comes along."""
    with socket.socket() as deaf:  # bound but not listening: whoever calls is refused
        deaf.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{deaf.getsockname()[1]}"
    names = ("config.json", "model.safetensors")
    tiny = {
        "what": "a test model",
        "folder": "tiny",
        "files": [{"name": name, "url": f"{nowhere}/tiny/{name}"} for name in names],
    }
    shipped = {"what": "comes along", "folder": "demo/shipped", "tracked": True}
    root = tmp_path / "weights"
    root.mkdir()
    (root / "manifest.json").write_text(json.dumps({"models": {"tiny": tiny, "shipped": shipped}}))
    monkeypatch.setattr(places, "CHECKOUT", root)
    monkeypatch.setattr(download, "ATTEMPTS", 1)
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.delenv("BOX2MASK_WEIGHTS_DIR", raising=False)
    return root


@pytest.fixture
def usb(tmp_path: Path) -> Path:
    """A folder with the files of `tiny`."""
    folder = tmp_path / "usb"
    folder.mkdir()
    (folder / "config.json").write_bytes(CONFIG)
    (folder / "model.safetensors").write_bytes(TENSORS)
    return folder


def test_pull_says_what_it_did(root: Path, usb: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["weights", "pull", "tiny", "--from", str(usb)]) == 0
    said = capsys.readouterr().out
    assert f"tiny: model.safetensors: sha256 {TENSORS_SHA256}" in said
    assert f"tiny: ready in {root / 'tiny'}" in said


def test_the_setting_says_where_and_the_option_overrides_it(
    root: Path, usb: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BOX2MASK_WEIGHTS_DIR", str(tmp_path / "set"))
    for options, folder in (([], tmp_path / "set"), (["--root", str(tmp_path / "named")], tmp_path / "named")):
        assert main(["weights", "list", *options]) == 0
        said = capsys.readouterr().out
        assert f"pulled weights lie in {folder}\ndemo weights lie in {root / 'demo'}\n" in said
        assert main(["weights", "pull", "tiny", "--from", str(usb), *options]) == 0
        assert (folder / "tiny" / "model.safetensors").read_bytes() == TENSORS
        assert main(["weights", "verify", "tiny", *options]) == 0
    assert not (root / "tiny").exists()


def test_a_setting_that_cannot_be_used_is_a_sentence(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BOX2MASK_WEIGHT_DIR", "/somewhere")
    assert main(["weights", "list"]) == 1
    assert capsys.readouterr().err == "box2mask: BOX2MASK_WEIGHT_DIR: there is no such setting\n"


def test_list_shows_every_state(root: Path, usb: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def states() -> dict[str, str]:
        assert main(["weights", "list"]) == 0
        table, _, where = capsys.readouterr().out.partition("\n\n")
        assert where == f"weights lie in {root}\n"
        rows = table.splitlines()
        assert rows[0].split() == ["NAME", "STATE", "SIZE", "WHAT"]
        return {row.split()[0]: row.split()[1] for row in rows[1:]}

    assert states() == {"tiny": "absent", "shipped": "absent"}
    (usb / "model.safetensors").rename(usb / "later")
    assert main(["weights", "pull", "tiny", "--from", str(usb)]) == 1
    capsys.readouterr()
    assert states()["tiny"] == "partial"
    (usb / "later").rename(usb / "model.safetensors")
    assert main(["weights", "pull", "tiny", "--from", str(usb)]) == 0
    capsys.readouterr()
    assert states()["tiny"] == "verified"
    folder = root / "tiny"
    os.utime(folder / "config.json", ns=(0, (folder / "SHA256SUMS").stat().st_mtime_ns + 1))
    assert states()["tiny"] == "present"


def test_verify_finds_a_flipped_byte_and_a_missing_file(
    root: Path, usb: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["weights", "pull", "tiny", "--from", str(usb)]) == 0
    assert main(["weights", "verify"]) == 0
    folder = root / "tiny"
    (folder / "config.json").write_bytes(CONFIG.replace(b"sam", b"sbm"))  # its hash is known from the pull only
    assert main(["weights", "verify"]) == 1
    said = capsys.readouterr().out
    assert "tiny: config.json: corrupt" in said
    assert "tiny: model.safetensors: ok" in said
    (folder / "model.safetensors").unlink()
    assert main(["weights", "verify", "tiny"]) == 1
    assert "tiny: model.safetensors: missing" in capsys.readouterr().out


def test_verify_of_a_named_model_that_is_not_there_fails(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["weights", "verify"]) == 0
    assert f"there are no weights in {root} yet" in capsys.readouterr().out
    assert main(["weights", "verify", "tiny"]) == 1


def test_an_unreachable_host_is_one_sentence_that_says_what_to_put_where(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["weights", "pull", "tiny"]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    for part in ("/tiny/config.json", "/tiny/model.safetensors", str(root / "tiny"), "--from URL_OR_DIR"):
        assert part in said


def test_an_unknown_name_gets_the_known_ones_before_anything_is_pulled(
    root: Path, usb: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["weights", "pull", "tiny", "tinny", "--from", str(usb)]) == 1
    assert "'tinny'; the known ones are tiny, shipped" in capsys.readouterr().err
    assert not (root / "tiny").exists()
