"""Pulling and checking weights, against a real HTTP server on loopback that misbehaves on demand."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import http.server
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest

from app.cli import main
from models.weights import pull as weights
from models.weights.pull import CorruptFileError, DownloadError, UnknownModelError, WeightFile, WeightsError, WeightSet

CONFIG = b'{"model_type": "sam"}\n'
TENSORS = random.Random(0).randbytes(1_500_000)
HALF = len(TENSORS) // 2
TENSORS_SHA256 = hashlib.sha256(TENSORS).hexdigest()
REPOSITORY = Path(__file__).parents[3]


@dataclass
class Fault:
    """What to do wrong with one request for the tensors; the byte counts are of what is sent then."""

    status: int = 0
    cut_after: int | None = None
    stall_after: int | None = None
    body: bytes | None = None


@dataclass
class Seen:
    """One request for the tensors, and how many bytes of body it was answered with."""

    range: str | None
    if_range: str | None
    sent: int = 0


@dataclass
class Behaviour:
    faults: list[Fault] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    etag: str = '"first"'
    ranges: bool = True
    linked_etag: str | None = None  # answer with a redirect that carries this, as Hugging Face does
    missing: bool = False
    release: threading.Event = field(default_factory=threading.Event)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    behaviour: Behaviour  # set on the subclass that each test gets

    def do_GET(self) -> None:
        rules = self.behaviour
        if self.path.endswith("config.json"):
            self.answer(200, CONFIG)
        elif rules.missing:
            self.answer(404, b"")
        elif rules.linked_etag and not self.path.startswith("/storage"):
            linked = {"X-Linked-Etag": f'"{rules.linked_etag}"', "X-Linked-Size": str(len(TENSORS))}
            self.answer(302, b"", {"Location": "/storage" + self.path, **linked})
        else:
            self.tensors()

    def tensors(self) -> None:
        rules = self.behaviour
        seen = Seen(self.headers["Range"], self.headers["If-Range"])
        rules.seen.append(seen)
        fault = rules.faults.pop(0) if rules.faults else Fault()
        body = TENSORS if fault.body is None else fault.body
        if fault.status:
            return self.answer(fault.status, b"")
        status, start, extra = 200, 0, {"ETag": rules.etag}
        if rules.ranges and seen.range and seen.if_range in (None, rules.etag):
            status, start = 206, int(seen.range.removeprefix("bytes=").removesuffix("-"))
            if start >= len(body):
                return self.answer(416, b"", {"Content-Range": f"bytes */{len(body)}"})
            extra["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
        self.answer(status, b"", extra, length=len(body) - start)
        more = fault.cut_after or fault.stall_after
        end = start + more if more else None
        seen.sent = self.wfile.write(body[start:end])
        self.wfile.flush()
        if fault.stall_after:
            rules.release.wait()
        self.close_connection = end is not None

    def answer(
        self, status: int, body: bytes, headers: dict[str, str] | None = None, length: int | None = None
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def rules() -> Behaviour:
    return Behaviour()


@pytest.fixture
def mirror(rules: Behaviour) -> Iterator[str]:
    """The URL of a server over the files of the model `tiny`, which follows `rules`."""
    handler = type("TestHandler", (Handler,), {"behaviour": rules})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        rules.release.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def manifest(mirror: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Makes the command know one model, `tiny`, and a tracked one."""
    path = tmp_path / "manifest.json"
    config = {"name": "config.json", "url": f"{mirror}/tiny/config.json"}
    tensors = {
        "name": "model.safetensors",
        "url": f"{mirror}/tiny/model.safetensors",
        "size": len(TENSORS),
        "sha256": TENSORS_SHA256,
    }
    tiny = {"what": "a test model", "folder": "tiny", "files": [config, tensors]}
    shipped = {"what": "comes along", "folder": "demo/shipped", "tracked": True}
    path.write_text(json.dumps({"models": {"tiny": tiny, "shipped": shipped}}))
    monkeypatch.setattr(weights, "MANIFEST", path)
    monkeypatch.setenv("NO_PROXY", "*")
    return path


@pytest.fixture
def root(manifest: Path, tmp_path: Path) -> Path:
    return tmp_path / "weights"


@pytest.fixture
def waits() -> list[float]:
    """The waits between attempts, which take no time."""
    return []


def pull(root: Path, waits: list[float], source: str | None = None) -> Path:
    return weights.pull("tiny", root, source, progress=False, sleep=waits.append)


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {".lock"}


COMPLETE = {"config.json", "model.safetensors", "SHA256SUMS"}


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


def test_a_cut_connection_is_resumed_at_the_byte_it_broke(root, rules, waits):
    rules.faults = [Fault(cut_after=HALF)]
    folder = pull(root, waits)
    first, second = rules.seen
    assert (first.range, second.range, second.if_range) == (None, f"bytes={HALF}-", '"first"')
    assert first.sent + second.sent == len(TENSORS)
    assert (folder / "model.safetensors").read_bytes() == TENSORS
    assert waits == [1.0]


def test_a_killed_process_is_resumed_by_the_next(root, rules, waits, manifest):
    rules.faults = [Fault(stall_after=HALF)]
    code = """
import sys
from pathlib import Path
from models.weights import pull as weights

class Telling(weights.tqdm):
    got = 0
    def update(self, n=1):
        self.got += n
        print(self.got, flush=True)

weights.tqdm = Telling
weights.MANIFEST = Path(sys.argv[1])
weights.pull("tiny", Path(sys.argv[2]))
"""
    command = [sys.executable, "-c", code, str(manifest), str(root)]
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
    assert weights.status("tiny", root).state == "partial"

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

    folder = weights.pull("tiny", root, progress=False, sleep=publish)
    assert rules.seen[1].if_range == '"first"'
    assert rules.seen[1].sent == len(TENSORS)
    assert (folder / "model.safetensors").read_bytes() == TENSORS


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
    weights.pull("tiny", root, progress=False, report=said.append)
    assert any("model.safetensors: corrupt" in line and "deleted" in line for line in said)
    assert path.read_bytes() == TENSORS


def test_server_errors_are_retried_with_growing_waits(root, rules, waits):
    rules.faults = [Fault(status=503)] * 3
    folder = pull(root, waits)
    assert waits == [1.0, 2.0, 4.0]
    assert (folder / "model.safetensors").read_bytes() == TENSORS


def test_it_gives_up_after_five_failures_in_a_row(root, rules, waits):
    rules.faults = [Fault(status=503)] * 9
    with pytest.raises(DownloadError, match="503"):
        pull(root, waits)
    assert len(rules.seen) == weights.ATTEMPTS
    assert waits == [1.0, 2.0, 4.0, 8.0]


def test_getting_further_starts_the_count_again_but_getting_as_far_does_not(root, rules, waits):
    rules.faults = [Fault(cut_after=100_000)] * 8
    pull(root, waits)
    assert waits == [1.0] * 8

    (root / "tiny" / "model.safetensors").unlink()
    rules.ranges, rules.seen, rules.faults = False, [], [Fault(cut_after=HALF)] * 20
    with pytest.raises(DownloadError):
        pull(root, waits)
    assert len(rules.seen) == weights.ATTEMPTS


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


def test_the_first_digits_of_a_hash_are_enough_to_refuse(root, rules, waits, manifest):
    manifest.write_text(manifest.read_text().replace(TENSORS_SHA256, TENSORS_SHA256[:8]))
    rules.faults = [Fault(body=b"\0" + TENSORS[1:])]
    with pytest.raises(CorruptFileError, match=TENSORS_SHA256[:8]):
        pull(root, waits)
    pull(root, waits)
    assert weights.status("tiny", root).state == "verified"


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


def test_an_unreachable_host_is_one_sentence_that_says_what_to_put_where(root, manifest, mirror, capsys, monkeypatch):
    monkeypatch.setattr(weights, "ATTEMPTS", 1)
    with socket.socket() as deaf:  # bound but not listening: whoever calls is refused
        deaf.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        manifest.write_text(manifest.read_text().replace(mirror, nowhere))
        assert main(["weights", "pull", "tiny", "--root", str(root)]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    for part in ("config.json", f"{nowhere}/tiny/model.safetensors", str(root / "tiny"), "--from URL_OR_DIR"):
        assert part in said


def test_files_put_there_by_hand_are_enough(root, rules, waits):
    (root / "tiny").mkdir(parents=True)
    (root / "tiny" / "config.json").write_bytes(CONFIG)
    (root / "tiny" / "model.safetensors").write_bytes(TENSORS)
    assert weights.status("tiny", root).state == "present"
    pull(root, waits)
    assert weights.status("tiny", root).state == "verified"
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


def test_too_little_room_is_known_before_the_download(root, rules, waits, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(WeightsError, match="the disk is full"):
        pull(root, waits)
    assert "model.safetensors.part" not in files(root / "tiny")


def test_verify_finds_a_flipped_byte_and_a_missing_file(root, waits, capsys):
    folder = pull(root, waits)
    assert main(["weights", "verify", "--root", str(root)]) == 0
    (folder / "config.json").write_bytes(CONFIG.replace(b"sam", b"sbm"))  # its hash is known from the pull only
    assert main(["weights", "verify", "--root", str(root)]) == 1
    said = capsys.readouterr().out
    assert "tiny: config.json: corrupt" in said
    assert "tiny: model.safetensors: ok" in said
    (folder / "model.safetensors").unlink()
    assert main(["weights", "verify", "tiny", "--root", str(root)]) == 1
    assert "tiny: model.safetensors: missing" in capsys.readouterr().out


def test_verify_of_a_named_model_that_is_not_there_fails(root):
    assert main(["weights", "verify", "--root", str(root)]) == 0
    assert main(["weights", "verify", "tiny", "--root", str(root)]) == 1


def test_verify_of_tracked_weights_goes_by_their_sums(root):
    folder = root / "demo" / "shipped"
    folder.mkdir(parents=True)
    (folder / "model.pth").write_bytes(TENSORS)
    assert [check.problem for check in weights.verify("shipped", root)] == [None]
    assert not (folder / "SHA256SUMS").exists()
    (folder / "SHA256SUMS").write_text(f"{'0' * 64}  model.pth\n")
    (check,) = weights.verify("shipped", root)
    assert check.problem is not None and TENSORS_SHA256 in check.problem


def test_tracked_weights_are_not_pulled(root):
    with pytest.raises(WeightsError, match="comes with the repository"):
        weights.pull("shipped", root)


def test_list_shows_every_state(root, rules, waits, capsys):
    def states() -> dict[str, str]:
        assert main(["weights", "list", "--root", str(root)]) == 0
        rows = capsys.readouterr().out.splitlines()
        assert rows[0].split() == ["NAME", "STATE", "SIZE", "WHAT"]
        return {row.split()[0]: row.split()[1] for row in rows[1:]}

    assert states() == {"tiny": "absent", "shipped": "absent"}
    rules.faults = [Fault(body=b"")]
    with pytest.raises(CorruptFileError):
        pull(root, waits)
    assert states()["tiny"] == "partial"
    folder = pull(root, waits)
    assert states()["tiny"] == "verified"
    os.utime(folder / "config.json", ns=(0, (folder / "SHA256SUMS").stat().st_mtime_ns + 1))
    assert states()["tiny"] == "present"


def test_the_command_pulls_and_says_what_it_did(root, capsys):
    assert main(["weights", "pull", "tiny", "--root", str(root)]) == 0
    said = capsys.readouterr().out
    assert f"tiny: model.safetensors: sha256 {TENSORS_SHA256}" in said
    assert f"tiny: ready in {root / 'tiny'}" in said


def test_an_unknown_name_gets_the_known_ones_before_anything_is_pulled(root, capsys):
    assert main(["weights", "pull", "tiny", "tinny", "--root", str(root)]) == 1
    assert "'tinny'; the known ones are tiny, shipped" in capsys.readouterr().err
    assert not root.exists()
    with pytest.raises(UnknownModelError):
        weights.verify("tinny", root)


def test_an_mmdetection_config_is_written_out_flat(tmp_path):
    from mmengine.config import Config

    source = weights.load_manifest()["yolof"].files[0]
    assert source.copied_from is not None
    model = WeightSet("flat", "", "flat", (WeightFile(source.name, copied_from=source.copied_from),))
    folder = weights.pull("flat", tmp_path, manifest={"flat": model})
    assert files(folder) == {source.name, "SHA256SUMS"}
    text = (folder / source.name).read_text()
    assert "_base_" not in text
    assert Config.fromfile(folder / source.name).model.bbox_head.type == "YOLOFHead"

    (folder / source.name).write_text(text + "# edited\n")
    weights.pull("flat", tmp_path, manifest={"flat": model})
    assert (folder / source.name).read_text().endswith("# edited\n")


def test_the_repositorys_manifest_pins_everything_it_downloads():
    models = weights.load_manifest()
    assert list(models) == ["yolof", "sam-huge", "sam-large", "sam-base", "demo-yolof", "demo-sam"]
    for model in models.values():
        names = [file.name for file in model.files]
        assert len(names) == len(set(names))
        for file in model.files:
            assert (file.url is None) != (file.copied_from is None)
            if Path(file.name).suffix in (".pth", ".safetensors"):
                assert file.sha256
            if file.url and "huggingface" in file.url:
                revision = file.url.split("/resolve/")[1].split("/")[0]
                assert len(revision) == 40 and set(revision) <= set("0123456789abcdef")
                assert file.sha256 is None or len(file.sha256) == 64
    yolof = models["yolof"].files[1]
    assert yolof.sha256 and yolof.name.endswith(f"-{yolof.sha256}.pth")


def test_help_needs_no_heavy_import():
    code = "import sys, app.cli; app.cli.build_parser().format_help(); print({'torch', 'httpx'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"
