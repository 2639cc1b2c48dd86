"""Downloads against a server that breaks off, lies, changes its mind or has nothing."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from models import weights
from models.weights import CorruptFileError, DownloadError, WeightsError, download, find_places
from tests.models.weights.conftest import COMPLETE, HALF, TENSORS, TENSORS_SHA256, Fault, files, pull

REPOSITORY = Path(__file__).parents[3]


def test_a_cut_connection_is_resumed_at_the_byte_it_broke(root, rules, waits):
    rules.faults = [Fault(cut_after=HALF)]
    folder = pull(root, waits)
    first, second = rules.seen
    assert (first.range, second.range, second.if_range) == (None, f"bytes={HALF}-", '"first"')
    assert first.sent + second.sent == len(TENSORS)
    assert (folder / "model.safetensors").read_bytes() == TENSORS
    assert waits == [1.0]


def test_a_killed_process_is_resumed_by_the_next(root, rules, waits):
    rules.faults = [Fault(stall_after=HALF)]
    code = """
import sys
from pathlib import Path
import tqdm

class Telling(tqdm.tqdm):
    got = 0
    def update(self, n=1):
        self.got += n
        print(self.got, flush=True)

tqdm.tqdm = Telling
from models import weights

weights.pull("tiny", weights.Places(Path(sys.argv[1]), Path(sys.argv[1])))
"""
    command = [sys.executable, "-c", code, str(root)]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) == HALF:
                break
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    rules.release.set()
    part = root / "tiny" / "model.safetensors.part"
    left = part.stat().st_size
    assert 0 < left <= HALF
    assert weights.status("tiny", find_places()).state == "partial"

    folder = pull(root, waits)
    assert rules.seen[-1].range == f"bytes={left}-"
    assert rules.seen[-1].sent == len(TENSORS) - left
    assert (folder / "model.safetensors").read_bytes() == TENSORS
    assert files(folder) == COMPLETE


def test_a_complete_part_is_only_checked_and_renamed(root, rules, waits):
    (root / "tiny").mkdir(parents=True)
    (root / "tiny" / "model.safetensors.part").write_bytes(TENSORS)
    folder = pull(root, waits)
    assert [(seen.range, seen.sent) for seen in rules.seen] == [(f"bytes={len(TENSORS)}-", 0)]
    assert files(folder) == COMPLETE


def test_a_part_longer_than_the_file_starts_again(root, rules, waits):
    (root / "tiny").mkdir(parents=True)
    (root / "tiny" / "model.safetensors.part").write_bytes(TENSORS + b"more")
    folder = pull(root, waits)
    assert rules.seen[-1].range is None
    assert (folder / "model.safetensors").read_bytes() == TENSORS


def test_a_server_without_ranges_starts_again_from_zero(root, rules, waits):
    rules.ranges = False
    rules.faults = [Fault(cut_after=HALF)]
    folder = pull(root, waits)
    assert rules.seen[1].range == f"bytes={HALF}-"
    assert rules.seen[1].sent == len(TENSORS)
    assert (folder / "model.safetensors").read_bytes() == TENSORS


def test_a_file_that_changed_in_between_starts_again_from_zero(root, rules, waits):
    old = b"\0" * len(TENSORS)
    rules.faults = [Fault(body=old, cut_after=HALF)]

    def publish(seconds: float) -> None:
        rules.etag = '"second"'

    folder = weights.pull("tiny", find_places(), progress=False, sleep=publish)
    assert rules.seen[1].if_range == '"first"'
    assert rules.seen[1].sent == len(TENSORS)
    assert (folder / "model.safetensors").read_bytes() == TENSORS


def test_server_errors_are_retried_with_growing_waits(root, rules, waits):
    rules.faults = [Fault(status=503)] * 3
    folder = pull(root, waits)
    assert waits == [1.0, 2.0, 4.0]
    assert (folder / "model.safetensors").read_bytes() == TENSORS


def test_it_gives_up_after_five_failures_in_a_row(root, rules, waits):
    rules.faults = [Fault(status=503)] * 9
    with pytest.raises(DownloadError, match="503"):
        pull(root, waits)
    assert len(rules.seen) == download.ATTEMPTS
    assert waits == [1.0, 2.0, 4.0, 8.0]


def test_getting_further_starts_the_count_again_but_getting_as_far_does_not(root, rules, waits):
    rules.faults = [Fault(cut_after=100_000)] * 8
    pull(root, waits)
    assert waits == [1.0] * 8

    (root / "tiny" / "model.safetensors").unlink()
    rules.ranges, rules.seen, rules.faults = False, [], [Fault(cut_after=HALF)] * 20
    with pytest.raises(DownloadError):
        pull(root, waits)
    assert len(rules.seen) == download.ATTEMPTS


def test_a_404_is_not_retried(root, rules, waits):
    rules.missing = True
    with pytest.raises(DownloadError, match=r"/tiny/model\.safetensors .*404"):
        pull(root, waits)
    assert waits == []


def test_the_hash_that_the_server_states_is_held_against_the_body(root, rules, waits, manifest):
    manifest.write_text(manifest.read_text().replace(f'"{TENSORS_SHA256}"', "null"))
    rules.linked_etag = TENSORS_SHA256
    rules.faults = [Fault(body=b"\0" + TENSORS[1:])]
    with pytest.raises(CorruptFileError, match=TENSORS_SHA256):
        pull(root, waits)
    folder = pull(root, waits)
    assert (folder / "model.safetensors").read_bytes() == TENSORS


def test_a_body_of_another_size_than_stated_is_not_taken(root, rules, waits, manifest):
    rules.linked_etag = TENSORS_SHA256
    rules.faults = [Fault(body=TENSORS[:-1])]
    folder = pull(root, waits)
    assert len(waits) == 1
    assert (folder / "model.safetensors").read_bytes() == TENSORS


def test_a_server_that_offers_other_weights_is_refused_before_the_download(root, rules, waits):
    rules.linked_etag = "0" * 64
    with pytest.raises(DownloadError, match=f"offers sha256 {'0' * 64}, expected {TENSORS_SHA256}"):
        pull(root, waits)
    assert "model.safetensors.part" not in files(root / "tiny")


def test_too_little_room_is_known_before_the_download(root, rules, waits, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(WeightsError, match="the disk is full"):
        pull(root, waits)
    assert "model.safetensors.part" not in files(root / "tiny")
