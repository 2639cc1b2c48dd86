"""Bringing a model to its folder: checked, whole, from wherever it is to come."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from models import weights
from models.weights import CorruptFileError, DownloadError, WeightFile, WeightsError, WeightSet, download, find_places
from tests.models.weights.conftest import COMPLETE, CONFIG, TENSORS, TENSORS_SHA256, Fault, files, pull


def test_pull_leaves_checked_files_and_nothing_else(root, rules, waits):
    folder = pull(root, waits)
    assert folder == root / "tiny"
    assert files(folder) == COMPLETE
    assert (folder / "model.safetensors").read_bytes() == TENSORS
    assert (folder / "config.json").read_bytes() == CONFIG
    assert f"{TENSORS_SHA256}  model.safetensors\n" in (folder / "SHA256SUMS").read_text()
    assert waits == []


def test_pull_again_fetches_nothing(root, rules, waits):
    pull(root, waits)
    rules.missing = True
    pull(root, waits)
    assert len(rules.seen) == 1


def test_a_corrupt_download_is_refused_by_name_and_deleted_and_the_next_one_is_good(root, rules, waits):
    wrong = b"\0" + TENSORS[1:]
    rules.faults = [Fault(body=wrong)]
    with pytest.raises(CorruptFileError) as caught:
        pull(root, waits)
    for part in ("model.safetensors", TENSORS_SHA256, hashlib.sha256(wrong).hexdigest()):
        assert part in str(caught.value)
    assert files(root / "tiny") == {"config.json", "SHA256SUMS"}
    folder = pull(root, waits)
    assert (folder / "model.safetensors").read_bytes() == TENSORS


def test_a_file_that_went_bad_on_disk_is_replaced(root, rules, waits):
    path = pull(root, waits) / "model.safetensors"
    path.write_bytes(b"\0" + TENSORS[1:])
    said: list[str] = []
    weights.pull("tiny", find_places(), progress=False, report=said.append)
    assert any("model.safetensors: corrupt" in line and "deleted" in line for line in said)
    assert path.read_bytes() == TENSORS


def test_the_first_digits_of_a_hash_are_enough_to_refuse(root, rules, waits, manifest):
    manifest.write_text(manifest.read_text().replace(TENSORS_SHA256, TENSORS_SHA256[:8]))
    rules.faults = [Fault(body=b"\0" + TENSORS[1:])]
    with pytest.raises(CorruptFileError, match=TENSORS_SHA256[:8]):
        pull(root, waits)
    pull(root, waits)
    assert weights.status("tiny", find_places()).state == "verified"


@pytest.mark.parametrize("layout", ["mirror", "plain"])
def test_from_a_directory(root, rules, waits, tmp_path, layout):
    origin = tmp_path / "usb"
    holder = origin / "tiny" if layout == "mirror" else origin
    holder.mkdir(parents=True)
    (holder / "config.json").write_bytes(CONFIG)
    with pytest.raises(DownloadError, match="has neither tiny/model.safetensors nor model.safetensors"):
        pull(root, waits, str(origin))
    (holder / "model.safetensors").write_bytes(TENSORS)
    folder = pull(root, waits, str(origin))
    assert (folder / "model.safetensors").read_bytes() == TENSORS
    assert files(folder) == COMPLETE
    assert rules.seen == []


def test_from_a_directory_is_checked_too(root, waits, tmp_path):
    (tmp_path / "config.json").write_bytes(CONFIG)
    (tmp_path / "model.safetensors").write_bytes(b"not it")
    with pytest.raises(CorruptFileError, match="model.safetensors"):
        pull(root, waits, str(tmp_path))
    assert (tmp_path / "model.safetensors").exists()


def test_from_a_url_takes_the_place_of_the_publisher(root, rules, waits, manifest, mirror):
    manifest.write_text(manifest.read_text().replace(mirror, "http://publisher.invalid"))
    folder = pull(root, waits, mirror + "/")
    assert (folder / "model.safetensors").read_bytes() == TENSORS


def test_from_nowhere(root, waits):
    with pytest.raises(DownloadError, match="neither an http"):
        pull(root, waits, "/no/such/directory")


def test_files_put_there_by_hand_are_enough(root, rules, waits):
    (root / "tiny").mkdir(parents=True)
    (root / "tiny" / "config.json").write_bytes(CONFIG)
    (root / "tiny" / "model.safetensors").write_bytes(TENSORS)
    assert weights.status("tiny", find_places()).state == "present"
    pull(root, waits)
    assert weights.status("tiny", find_places()).state == "verified"
    assert rules.seen == []


def test_two_pulls_of_one_model_do_not_meet(root, waits):
    (root / "tiny").mkdir(parents=True)
    with open(root / "tiny" / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(WeightsError, match="another process is pulling tiny"):
            pull(root, waits)
    pull(root, waits)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the device that is always full")
def test_a_full_disk_is_said_so(root, waits):
    (root / "tiny").mkdir(parents=True)
    (root / "tiny" / "model.safetensors.part").symlink_to("/dev/full")
    with pytest.raises(WeightsError, match="the disk is full") as caught:
        pull(root, waits)
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == errno.ENOSPC


def test_tracked_weights_are_not_pulled(root):
    with pytest.raises(WeightsError, match="comes along with box2mask"):
        weights.pull("shipped", find_places())


def test_an_mmdetection_config_is_written_out_flat(tmp_path):
    from mmengine.config import Config

    source = weights.load_manifest()["yolof"].files[0]
    assert source.copied_from is not None
    model = WeightSet("flat", "", "flat", (WeightFile(source.name, copied_from=source.copied_from),))
    folder = weights.pull("flat", find_places(tmp_path), manifest={"flat": model})
    assert files(folder) == {source.name, "SHA256SUMS"}
    text = (folder / source.name).read_text()
    assert "_base_" not in text
    assert Config.fromfile(folder / source.name).model.bbox_head.type == "YOLOFHead"

    (folder / source.name).write_text(text + "# edited\n")
    weights.pull("flat", find_places(tmp_path), manifest={"flat": model})
    assert (folder / source.name).read_text().endswith("# edited\n")


@pytest.fixture
def gated(manifest, mirror, monkeypatch) -> list[str]:
    """`tiny` as a model whose licence must be accepted, with no hash published; the server is Hugging Face's hub."""
    known = json.loads(manifest.read_text())
    tiny = known["models"]["tiny"]
    tiny["accept_at"] = "https://hub.example/tiny"
    tiny["files"][1]["sha256"] = None
    manifest.write_text(json.dumps(known))
    monkeypatch.setattr(download, "HUB", urlsplit(mirror)[:2])
    return []


def pull_with(token: str | None, source: str | None = None) -> list[str]:
    said: list[str] = []
    weights.pull("tiny", find_places(), source, token=token, progress=False, report=said.append, sleep=lambda _: None)
    return said


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("token", [None, "hf_secret"])
def test_a_licence_that_is_not_accepted_is_told(gated, rules, status, token):
    rules.refuse = status
    with pytest.raises(DownloadError) as caught:
        pull_with(token)
    told = str(caught.value)
    assert f"the server answered {status}" in told and "hf_secret" not in told
    whose = "the account of that token" if token else "your account, whose token HF_TOKEN must then hold"
    assert f"its licence must be accepted on https://hub.example/tiny first, by {whose}" in told


def test_a_refusal_of_what_anyone_may_have_names_no_licence(root, rules):
    rules.refuse = 403
    with pytest.raises(DownloadError, match="the server answered 403") as caught:
        pull_with("hf_secret")
    assert "licence" not in str(caught.value)


def test_the_token_goes_to_the_hub_alone(gated, rules, mirror):
    rules.linked_etag, rules.storage = TENSORS_SHA256, mirror.replace("127.0.0.1", "localhost")
    pull_with("hf_secret")
    at_the_hub = [token for path, token in rules.tokens if not path.startswith("/storage")]
    at_its_storage = [token for path, token in rules.tokens if path.startswith("/storage")]
    assert at_the_hub == ["Bearer hf_secret"] * 2 and at_its_storage == [None]


def test_no_mirror_gets_the_token(gated, rules, mirror, monkeypatch):
    monkeypatch.setattr(download, "HUB", ("https", "huggingface.co"))
    rules.linked_etag = TENSORS_SHA256
    pull_with("hf_secret", mirror)
    assert {token for _, token in rules.tokens} == {None}


def safetensors(length: int) -> bytes:
    header = json.dumps({"a": {"dtype": "U8", "shape": [length], "data_offsets": [0, length]}}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(length)


def test_what_is_known_of_a_file_without_a_published_hash_is_told(gated, rules, root):
    rules.linked_etag = TENSORS_SHA256
    said = pull_with(None)
    assert said[1] == f"tiny: model.safetensors: sha256 {TENSORS_SHA256} (as the server states it)"
    assert said[0].startswith("tiny: config.json: sha256 ") and said[0].endswith(
        "nobody states it: seen to be whole, and noted)"
    )
    (root / "tiny" / "model.safetensors").unlink()
    (root / "tiny" / "SHA256SUMS").unlink()
    rules.linked_etag, rules.faults = None, [Fault(body=safetensors(1000))]
    assert pull_with(None)[1].endswith(" (nobody states it: seen to be whole, and noted)")


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (safetensors(1000)[:-1], "its header tells of 1074 bytes, got 1073"),
        (safetensors(1000) + b"more", "its header tells of 1074 bytes, got 1078"),
        (b"<html>please log in</html>", "expected safetensors, got something else"),
        (b"", "expected safetensors, got something else"),
        ((5).to_bytes(8, "little") + b"[1,2]", "expected safetensors, got something else"),
    ],
)
def test_a_file_that_nobody_states_a_hash_of_must_be_whole(gated, rules, root, body, fault):
    rules.faults = [Fault(body=body)]
    with pytest.raises(CorruptFileError, match=fault):
        pull_with(None)
    assert files(root / "tiny") == {"config.json", "SHA256SUMS"}


def test_a_file_that_a_model_can_do_without(manifest, root, rules):
    known = json.loads(manifest.read_text())
    known["models"]["tiny"]["files"][1]["optional"] = True
    manifest.write_text(json.dumps(known))
    rules.missing = True
    assert pull_with(None)[1] == "tiny: model.safetensors: not there, and not needed"
    assert files(root / "tiny") == {"config.json", "SHA256SUMS"}
