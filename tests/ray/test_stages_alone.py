"""The stages, shards and what is told to other processes, with models that take no time: what each alone must keep."""

from __future__ import annotations

import json
import os
import pickle
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from app.cluster.folders import stages
from app.cluster.folders.models import ModelsError, OpenModels
from app.cluster.folders.stages import Find, Job, read, rows_of, write
from app.folders import room, shards, storage
from app.folders.destination import Destination
from app.folders.image_work import Asked, stamp, to_do
from app.folders.journal import JournalError
from app.folders.outputs import Outputs
from app.folders.sources import find_images
from app.prediction import PredictorError
from app.settings import Settings
from benchmarks.sleeping_models import Sleeping, SleepingPredictor

NAMES = ("a.jpg", "b.jpg", "c.jpg", "d.jpg")
ASKED = Asked("detector")
HEADER = {"settings": {"x": 1}}


class Run:
    """A folder's run, as far as the stages need one. formats: as `Outputs` has them. apart: each stage is a process."""

    def __init__(self, out: Path, photos: Path, formats: tuple[str, ...] = ("coco",), *, apart: bool = True) -> None:
        self.out, self.apart = out, apart
        self.destination = Destination(out)
        self.journal = self.destination.open_journal(HEADER, restart=False)
        self.sources = find_images([photos], recursive=False, leave_out=out)
        self.outputs = Outputs(out, formats, photos, None, "")
        self.job = Job(ASKED, self.outputs, out, self.destination.number, {})

    def blocks(self, at_once: int = 9) -> list[pa.Table]:
        tasks = list(to_do(self.sources, self.journal, self.outputs, None))
        return [rows_of(tasks[start : start + at_once]) for start in range(0, len(tasks), at_once)]

    def work(self, predictor: Any, at_once: int = 9) -> list[dict[str, Any]]:
        """Bring all through the three stages; the rows that the last one gives."""
        return [row for block in self.blocks(at_once) for row in self.through(block, predictor)]

    def through(self, block: pa.Table, predictor: Any) -> list[dict[str, Any]]:
        if not self.apart:
            done = Find(lambda: predictor, self.job, reads=True, writes=True)(block)
            return done.to_pylist()
        find = Find(lambda: predictor, self.job)
        return [row for part in read(block, self.job) for row in write(find(part), self.job).to_pylist()]

    def close(self) -> None:
        self.destination.gather(self.journal)
        self.destination.close(self.journal)


def lines(out: Path) -> list[str]:
    """The images of the journal's lines, in the order of the file."""
    return [json.loads(line)["image"] for line in (out / "journal.jsonl").read_text().splitlines()[1:]]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for seed, name in enumerate(NAMES):
        Image.fromarray(np.random.default_rng(seed).integers(0, 256, (24, 32, 3), np.uint8)).save(folder / name)
    return folder


def test_each_block_is_a_shard_of_its_own(photos: Path, tmp_path: Path) -> None:
    run = Run(tmp_path / "out", photos)
    run.work(Sleeping(0, 0)(), at_once=1)
    assert len(list((tmp_path / "out/journal").iterdir())) == len(NAMES)
    run.close()
    assert sorted(lines(tmp_path / "out")) == list(NAMES) and not (tmp_path / "out/journal").exists()


@pytest.mark.parametrize("apart", [True, False])
def test_a_photo_of_before_gets_its_new_files_and_no_second_line(photos: Path, tmp_path: Path, apart: bool) -> None:
    run = Run(tmp_path / "out", photos, apart=apart)
    run.work(Sleeping(0, 0)())
    run.close()

    class Refuses(SleepingPredictor):
        def _found(self, image: object) -> Any:
            raise AssertionError("its result is known")

    run = Run(tmp_path / "out", photos, ("masks", "overlay"), apart=apart)
    rows = run.work(Refuses(Sleeping(0, 0)))
    assert [row["failed"] for row in rows] == [""] * len(NAMES)
    assert not (tmp_path / "out/journal").exists()
    run.close()
    assert lines(tmp_path / "out") == list(NAMES)
    for name in NAMES:
        assert len(list((tmp_path / "out/masks" / name).iterdir())) == 3
        assert (tmp_path / f"out/overlays/{name}.jpg").is_file()


@pytest.mark.parametrize("apart", [True, False])
def test_a_bad_photo_costs_no_other_and_leaves_no_files_of_before(photos: Path, tmp_path: Path, apart: bool) -> None:
    run = Run(tmp_path / "out", photos, ("masks",), apart=apart)
    run.work(Sleeping(0, 0)())
    run.close()
    run = Run(tmp_path / "out", photos, ("masks",), apart=apart)
    (photos / "a.jpg").write_bytes(b"text")
    (photos / "c.jpg").write_bytes(b"more text")
    (photos / "d.jpg").write_bytes((photos / "b.jpg").read_bytes())
    (block,) = run.blocks()
    (photos / "c.jpg").unlink()
    failed = {row["name"]: row["failed"] for row in run.through(block, Sleeping(0, 0)())}
    assert failed["a.jpg"].startswith("expected a JPEG") and failed["c.jpg"] == "the file has gone"
    assert failed["d.jpg"] == "" and set(failed) == {"a.jpg", "c.jpg", "d.jpg"}
    assert sorted(path.name for path in (tmp_path / "out/masks").iterdir()) == ["b.jpg", "d.jpg"]
    run.close()
    assert lines(tmp_path / "out") == [*NAMES, "d.jpg"]


def test_a_photo_that_was_written_since_is_done_again(photos: Path, tmp_path: Path) -> None:
    run = Run(tmp_path / "out", photos)
    run.work(Sleeping(0, 0)())
    run.close()
    os.utime(photos / "b.jpg", ns=(0, 0))
    run = Run(tmp_path / "out", photos)
    assert [task.source.name for task in to_do(run.sources, run.journal, run.outputs, None)] == ["b.jpg"]
    run.close()


def test_a_file_that_cannot_be_read_is_a_row_that_says_so(photos: Path, tmp_path: Path) -> None:
    run = Run(tmp_path / "out", photos)
    blocks = run.blocks()
    (photos / "b.jpg").unlink()
    (photos / "b.jpg").mkdir()
    (found,) = read(blocks[0], run.job)
    assert [bool(row["failed"]) for row in found.to_pylist()] == [False, True, False, False]
    run.close()


def test_a_file_that_changes_while_it_is_read_is_done_again(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_and_change(path: Path) -> bytes:
        content = path.read_bytes()
        path.write_bytes(content + b"more" * (path.name == "b.jpg"))
        return content

    monkeypatch.setattr("app.folders.sources.read_image", read_and_change)
    run = Run(tmp_path / "out", photos)
    os.utime(photos / "b.jpg", ns=(0, 0))
    run.work(Sleeping(0, 0)())
    run.close()
    run = Run(tmp_path / "out", photos)
    assert "b.jpg" in [task.source.name for task in to_do(run.sources, run.journal, run.outputs, None)]
    run.close()


def test_files_that_are_large_together_are_handed_on_in_parts(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = (photos / "a.jpg").stat().st_size
    monkeypatch.setattr(stages, "_BYTES_OF_A_BLOCK", size + 1)
    run = Run(tmp_path / "out", photos)
    (block,) = run.blocks()
    parts = list(read(block, run.job))
    assert len(parts) >= 2
    names = [pickle.loads(row["task"]).source.name for part in parts for row in part.to_pylist()]
    assert names == list(NAMES)
    run.work(Sleeping(0, 0)())
    run.close()
    assert sorted(lines(tmp_path / "out")) == list(NAMES)


def test_pages_and_samples_are_told(photos: Path, tmp_path: Path) -> None:
    frames = [Image.new("RGB", (32, 24), color) for color in ("red", "blue", "green")]
    frames[0].save(photos / "pages.tif", save_all=True, append_images=frames[1:])
    Image.fromarray(np.arange(768, dtype=np.uint16).reshape(24, 32)).save(photos / "few bits.png")
    run = Run(tmp_path / "out", photos)
    rows = {row["name"]: row for row in run.work(Sleeping(0, 0)())}
    run.close()
    assert rows["pages.tif"]["pages"] == 3 and rows["few bits.png"]["reading"] == "fewer bits"
    assert (rows["a.jpg"]["pages"], rows["a.jpg"]["reading"]) == (1, "")


def test_in_a_store_a_line_says_which_files_are_there(photos: Path, tmp_path: Path) -> None:
    """New ones, and those of a result that is known: with its stamp, or the next run would do it again."""
    run = Run(tmp_path / "out", photos)
    run.work(Sleeping(0, 0)())
    run.close()
    Image.new("RGB", (32, 24)).save(photos / "new.jpg")
    run = Run(tmp_path / "out", photos)
    outputs = replace(run.outputs, formats=("masks", "overlay"), remote=storage.RemotePath("s3://shelf", "out"))
    job = replace(run.job, outputs=outputs)
    tasks = list(to_do(run.sources, run.journal, outputs, None))
    found = Find(Sleeping(0, 0), job)(pa.concat_tables(read(rows_of(tasks), job))).to_pylist()
    entries = {entry["image"]: entry for entry in (json.loads(row["line"]) for row in found)}
    assert set(entries) == {*NAMES, "new.jpg"}
    for source in run.sources.images:
        assert entries[source.name]["own_files"] == ["masks", "overlay"]
        assert entries[source.name]["stamp"] == stamp(source, None)
    assert all(row["image"] for row in found)  # an overlay is drawn over it
    run.close()


def test_a_predictor_that_answers_no_more_ends_the_run(photos: Path, tmp_path: Path) -> None:
    class Gone(SleepingPredictor):
        def _found(self, image: object) -> Any:
            raise PredictorError("the device has gone")

    run = Run(tmp_path / "out", photos)
    with pytest.raises(ModelsError, match="the device has gone"):
        run.work(Gone(Sleeping(0, 0)))
    run.close()


def test_images_in_work_are_counted_by_their_pixels(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process with models holds no more decoded images at once than it has room for."""
    asked: list[int] = []
    of = room.Room.of
    monkeypatch.setattr(room.Room, "of", lambda self, count: asked.append(count) or of(self, count))
    run = Run(tmp_path / "out", photos)
    run.work(Sleeping(0, 0)())
    run.close()
    sizes = [(photos / name).stat().st_size for name in NAMES]
    assert sorted(asked) == sorted(6 * 24 * 32 + 5 * size for size in sizes)


@pytest.mark.parametrize("apart", [True, False])
def test_a_network_has_one_image_at_a_time(photos: Path, tmp_path: Path, apart: bool) -> None:
    """Reading and writing are for several; on a processor a network is for one (`batch.images_in_networks`)."""
    inside, met = threading.Lock(), []

    class Alone(SleepingPredictor):
        def detect_and_segment(self, image: Any, score_threshold: float | None = None) -> Any:
            met.append(inside.acquire(blocking=False))
            try:
                time.sleep(0.02)  # what a network takes, so that another could come in
                return super().detect_and_segment(image, score_threshold)
            finally:
                inside.release()

    run = Run(tmp_path / "out", photos, apart=apart)
    run.work(Alone(Sleeping(0, 0)))
    run.close()
    assert met == [True] * len(NAMES)


# Shards


def test_a_later_process_has_the_last_word(photos: Path, tmp_path: Path) -> None:
    """Whatever the names of their shards' blocks are: the number comes first."""
    out = tmp_path / "out"
    journal = Run(out, photos)
    found = []
    for number in (2, 10, 1):
        result = {"image": "a.jpg", "size_hw": [number, number], "objects": [], "stamp": {}}
        shards.put(out, number, [json.dumps(result).encode() + b"\n"], f"block {number}")
    (out / "journal/.unfinished-000011-a.jsonl").write_bytes(b"{")
    (out / "journal/notes.txt").write_bytes(b"not ours")
    found = shards.found(out)
    assert [path.name[:6] for path in found] == ["000001", "000002", "000010"] and shards.next_number(found) == 11
    shards.fold(found, journal.journal)
    assert journal.journal.result("a.jpg").size_hw == (10, 10)
    journal.close()


def test_a_damaged_shard_is_named(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run = Run(out, photos)
    shards.put(out, 3, [b'{"image": "a.jpg", "forgotten": true}\n', b"{}\n"], "a block")
    with pytest.raises(JournalError, match=r"journal/000003-[0-9a-f]+\.jsonl:2: expected a line of a run's journal"):
        run.close()
    run.destination.close(run.journal)


def test_a_restart_forgets_shards_too(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run = Run(out, photos)
    run.work(Sleeping(0, 0)())
    run.journal.close()  # as if killed here
    destination = Destination(out)
    journal = destination.open_journal(HEADER, restart=True)
    assert len(journal) == 0 and not (out / "journal").exists()
    destination.close(journal)


# What other processes are told


@pytest.fixture
def stores(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The environment with one variable of a store that is ours."""
    for name in list(storage.environment()):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_OURS", "here")
    monkeypatch.setenv("AWS_THEIRS", "")
    monkeypatch.delenv("AWS_THEIRS")  # and again at the end, whoever has set it
    yield


@pytest.mark.parametrize("stage", ["read", "find", "write"])
def test_stages_find_the_stores_of_who_began_the_run(stores: None, photos: Path, tmp_path: Path, stage: str) -> None:
    run = Run(tmp_path / "out", photos)
    job = replace(run.job, variables={"AWS_OURS": "there", "AWS_THEIRS": "there"})
    (block,) = run.blocks()
    if stage == "read":
        list(read(block, job))
    elif stage == "find":  # it may read and write itself
        Find(Sleeping(0, 0), job)
    else:
        write(block.slice(0, 0), job)
    assert os.environ["AWS_OURS"] == "here" and os.environ["AWS_THEIRS"] == "there"
    run.close()


def test_only_what_is_of_stores_is_told(stores: None, monkeypatch: pytest.MonkeyPatch) -> None:
    others = {"AZURE_STORAGE_KEY": "a", "GOOGLE_APPLICATION_CREDENTIALS": "b", "STORAGE_EMULATOR_HOST": "c"}
    for name, value in (others | {"BOX2MASK_ADMIN_KEY": "secret", "HF_TOKEN": "secret"}).items():
        monkeypatch.setenv(name, value)
    assert storage.environment() == {"AWS_OURS": "here", **others}


def test_no_secret_of_a_service_is_sent() -> None:
    settings = Settings(api_keys="team=secret-0123456789", admin_key="secret-0123456789", label_studio_token="secret-0")
    opens = OpenModels(settings, ("detector",), {"class_agnostic_nms": True})
    for one in (opens, opens.alone("detector"), opens.alone("segmenter")):
        assert b"secret" not in pickle.dumps(one)


def test_boxes_that_are_given_are_all_kept() -> None:
    opens = OpenModels(Settings(), (), {"class_agnostic_nms": True, "min_area": 3})
    assert vars(opens.alone("detector"))["_params"] == {"class_agnostic_nms": True, "min_area": 3}
    assert vars(opens.alone("segmenter"))["_params"] == {"min_area": 3}
