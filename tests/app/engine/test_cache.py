"""The embedding cache and its disk tier, with real tensors, files, threads and event loops."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import resource
import stat
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors
import torch

from app.engine import disk_tier
from app.engine.cache import CacheStats, EmbeddingCache, compact
from app.engine.disk_tier import DiskTier, model_key
from app.engine.keys import content_key
from models.types import Embedding

MB = 2**20
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]


@pytest.fixture(autouse=True, scope="module")
def small_garbage() -> Iterator[None]:
    """Spare `run` from searching all that was imported."""
    gc.freeze()
    yield
    gc.unfreeze()


def embedding(seed: int = 0, *, shape: tuple[int, ...] = (4, 3, 2), dtype: torch.dtype = torch.float32) -> Embedding:
    """Random features with their channels last in memory, as the encoder leaves them."""
    channels, height, width = shape
    features = torch.randn(height, width, channels, generator=torch.Generator().manual_seed(seed))
    return Embedding(features.to(dtype).permute(2, 0, 1), (480 + seed, 640), (96, 128))


def same(one: Embedding | None, other: Embedding) -> bool:
    """Whether two embeddings are equal to the bit, in memory layout too."""
    return (
        one is not None
        and (one.size_hw, one.resized_hw) == (other.size_hw, other.resized_hw)
        and (one.features.dtype, one.features.shape) == (other.features.dtype, other.features.shape)
        and one.features.stride() == other.features.stride()
        and torch.equal(*(item.features.flatten().view(torch.uint8) for item in (one, other)))
    )


def making(made: Embedding, calls: list[Embedding] | None = None) -> Callable[[], Awaitable[Embedding]]:
    async def make() -> Embedding:
        if calls is not None:
            calls.append(made)
        return made

    return make


async def unwanted() -> Embedding:
    raise AssertionError("made although the cache has it")


def run(main: Coroutine[Any, Any, None]) -> None:
    """asyncio.run that fails on whatever the event loop would only log, such as an exception nobody retrieved."""
    complaints: list[str] = []

    async def watched() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context["message"]))
        async with asyncio.timeout(60):
            await main
        gc.collect()  # tasks complain when they are deleted

    asyncio.run(watched())
    assert complaints == []


class Gate:
    """A `make` that says when it has begun and goes on when told to."""

    def __init__(self, outcome: Embedding | Exception) -> None:
        self.calls = 0
        self.begun, self.opened, self.dropped = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._outcome = outcome

    async def __call__(self) -> Embedding:
        self.calls += 1
        self.begun.set()
        try:
            await self.opened.wait()
        except asyncio.CancelledError:
            self.dropped.set()
            raise
        if isinstance(self._outcome, Exception):
            raise self._outcome
        return self._outcome


class TestContentKey:
    def test_a_file_is_known_by_its_bytes_and_its_orientation(self) -> None:
        keys = [
            content_key(data, exif_orientation=turned) for data in (b"", b"one", b"two") for turned in (True, False)
        ]
        assert len(set(keys)) == len(keys)
        assert content_key(b"one", exif_orientation=True) == content_key(b"on" + b"e", exif_orientation=True)


class TestMemory:
    def test_drops_what_was_used_longest_ago(self) -> None:
        async def main() -> None:
            items = [embedding(seed) for seed in range(4)]
            held = EmbeddingCache(3 * items[0].features.nbytes)
            for number in (0, 1, 2):
                assert await held.get(str(number), making(items[number])) is items[number]
            assert await held.get("0", unwanted) is items[0]
            assert held.peek("1") is items[1]
            await held.get("3", making(items[3]))  # 2 goes
            assert [held.peek(str(number)) for number in range(4)] == [items[0], items[1], None, items[3]]
            assert held.stats() == CacheStats(hits=5, shared=0, misses=4, evictions=1, entries=3, bytes=288, disk=None)
            await held.get("big", making(embedding(shape=(4, 6, 3))))  # as large as three
            assert held.peek("big") is not None
            assert (held.stats().entries, held.stats().bytes, held.stats().evictions) == (1, 288, 4)
            held.clear()
            assert (held.stats().entries, held.stats().bytes, held.peek("big")) == (0, 0, None)

        run(main())

    def test_a_hit_takes_no_turn_of_the_event_loop(self) -> None:
        async def main() -> None:
            held = EmbeddingCache(MB)
            item = await held.get("a", making(embedding()))
            with pytest.raises(StopIteration) as end:
                held.get("a", unwanted).send(None)
            assert end.value.value is item

        run(main())

    @pytest.mark.parametrize("budget", [0, 95])
    def test_keeps_nothing_larger_than_the_budget(self, budget: int) -> None:
        async def main() -> None:
            held, calls = EmbeddingCache(budget), []
            for _ in range(2):
                assert same(await held.get("a", making(embedding(), calls)), embedding())
            assert len(calls) == 2
            assert (held.stats().entries, held.stats().bytes, held.stats().evictions) == (0, 0, 0)

        run(main())

    @pytest.mark.parametrize("device", DEVICES)
    def test_counts_and_holds_memory_of_its_own(self, device: str) -> None:
        async def main() -> None:
            with torch.inference_mode():
                batch = torch.randn(5, 2, 3, 4, device=device, dtype=torch.bfloat16).permute(0, 3, 1, 2)
            view, whole = Embedding(batch[3], (2, 3), (2, 3)), Embedding(batch[:1].clone()[0], (2, 3), (2, 3))
            held = EmbeddingCache(96)
            assert same(await held.get("view", making(view)), view)
            kept = held.peek("view")
            assert kept is not None and kept.features.untyped_storage().nbytes() == view.features.nbytes == 48
            assert kept.features.device == view.features.device
            assert await held.get("whole", making(whole)) is whole
            assert (held.stats().entries, held.stats().bytes) == (2, 96)
            assert compact(whole) is whole

        run(main())


class TestSingleFlight:
    @pytest.mark.parametrize("budget", [MB, 0])
    def test_many_at_once_share_one_making(self, budget: int) -> None:
        async def main() -> None:
            held, gate = EmbeddingCache(budget), Gate(embedding())
            callers = [asyncio.create_task(held.get("a", gate)) for _ in range(20)]
            other = asyncio.create_task(held.get("b", making(embedding(1))))
            await gate.begun.wait()
            assert (held.stats().misses, held.stats().shared) == (2, 19)
            assert same(await other, embedding(1))  # another key does not wait
            gate.opened.set()
            first, *others = await asyncio.gather(*callers)
            assert gate.calls == 1 and all(one is first for one in others)

        run(main())

    @pytest.mark.parametrize("leaving", [[0], [4], [0, 1, 2, 3]])
    def test_who_leaves_does_not_hurt_the_others(self, leaving: list[int]) -> None:
        async def main() -> None:
            held, gate = EmbeddingCache(MB), Gate(embedding())
            callers = [asyncio.create_task(held.get("a", gate)) for _ in range(5)]
            await gate.begun.wait()
            for number in leaving:
                callers[number].cancel()
            outcomes = asyncio.gather(*callers, return_exceptions=True)
            await asyncio.wait([callers[number] for number in leaving])
            gate.opened.set()
            for number, outcome in enumerate(await outcomes):
                assert isinstance(outcome, asyncio.CancelledError if number in leaving else Embedding)
            assert gate.calls == 1 and not gate.dropped.is_set()
            assert held.peek("a") is not None

        run(main())

    def test_the_last_to_leave_ends_the_making(self) -> None:
        async def main() -> None:
            held, gate = EmbeddingCache(MB), Gate(embedding())
            callers = [asyncio.create_task(held.get("a", gate)) for _ in range(3)]
            await gate.begun.wait()
            for caller in callers:
                caller.cancel()
            await asyncio.wait(callers)
            await gate.dropped.wait()
            assert held.peek("a") is None
            assert same(await held.get("a", making(embedding(1))), embedding(1))

        run(main())

    def test_who_comes_after_the_last_left_starts_anew(self) -> None:
        async def main() -> None:
            held, old, new = EmbeddingCache(MB), Gate(embedding()), Gate(embedding(1))
            left = asyncio.create_task(held.get("a", old))
            await old.begun.wait()
            left.cancel()
            comes = asyncio.create_task(held.get("a", new))  # runs before the old making has heard that it is over
            joins = asyncio.create_task(held.get("a", unwanted))
            await new.begun.wait()
            assert old.dropped.is_set()
            later = asyncio.create_task(held.get("a", unwanted))
            last = asyncio.create_task(held.get("b", making(embedding())))
            await last  # by when `later` has joined as well
            new.opened.set()
            assert await comes is await joins is await later
            assert same(held.peek("a"), embedding(1))

        run(main())

    def test_a_caller_cancelled_before_anything_began_leaves_nothing_behind(self) -> None:
        async def main() -> None:
            held = EmbeddingCache(MB)
            caller = asyncio.create_task(held.get("a", unwanted))
            caller.cancel()
            await asyncio.wait([caller])
            assert same(await held.get("a", making(embedding())), embedding())

        run(main())

    def test_a_failure_goes_to_all_who_waited_and_is_not_kept(self) -> None:
        async def main() -> None:
            held, gate = EmbeddingCache(MB), Gate(ValueError("no such thing"))
            callers = [asyncio.create_task(held.get("a", gate)) for _ in range(3)]
            await gate.begun.wait()
            gate.opened.set()
            outcomes = await asyncio.gather(*callers, return_exceptions=True)
            assert [str(outcome) for outcome in outcomes] == ["no such thing"] * 3
            assert same(await held.get("a", making(embedding())), embedding())

        run(main())

    def test_a_failure_that_nobody_waited_for_is_no_complaint(self) -> None:
        async def main() -> None:
            held, begun, failed = EmbeddingCache(MB), asyncio.Event(), asyncio.Event()

            async def make() -> Embedding:
                begun.set()
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    failed.set()
                    raise OSError("while cleaning up") from None
                raise AssertionError

            caller = asyncio.create_task(held.get("a", make))
            await begun.wait()
            caller.cancel()
            await asyncio.wait([caller])
            await failed.wait()

        run(main())

    def test_closing_ends_what_is_in_the_making(self) -> None:
        async def main() -> None:
            held, gate = EmbeddingCache(MB), Gate(embedding())
            caller = asyncio.create_task(held.get("a", gate))
            await gate.begun.wait()
            await held.aclose()
            assert gate.dropped.is_set()
            await asyncio.wait([caller])
            assert caller.cancelled()

        run(main())


class TestDisk:
    """What a second process finds of the first one's embeddings; here each `DiskTier` stands for a process."""

    @staticmethod
    def write(folder: Path, *items: tuple[str, Embedding], budget: int = MB, model: str = "model") -> None:
        async def main() -> None:
            for item in items:
                disk = DiskTier(folder, budget, model)
                disk.write(*item)
                await disk.aclose()

        run(main())

    @staticmethod
    def read(folder: Path, key: str, model: str = "model") -> Embedding | None:
        found: list[Embedding | None] = []

        async def main() -> None:
            disk = DiskTier(folder, MB, model)
            found.append(await disk.read(key))
            await disk.aclose()

        run(main())
        return found[0]

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
    def test_survives_a_restart(self, tmp_path: Path, dtype: torch.dtype) -> None:
        item = embedding(dtype=dtype)
        item.features[0, 0, 0] = float("nan")
        item.features[1, 0, 0] = -0.0

        async def main() -> None:
            before = EmbeddingCache(MB, DiskTier(tmp_path, MB, "model"))
            await before.get("a", making(item))
            await before.aclose()
            after = EmbeddingCache(MB, DiskTier(tmp_path, MB, "model"))
            assert same(await after.get("a", unwanted), item)
            assert same(after.peek("a"), item) and after.stats().bytes == item.features.nbytes
            disk = after.stats().disk
            assert disk is not None and (disk.hits, disk.misses, disk.writes) == (1, 0, 0)
            await after.aclose()

        run(main())

    def test_writes_after_the_answer_and_off_the_event_loop(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        may_write, threads = threading.Event(), set()

        def spied(function: Callable[..., Any]) -> Callable[..., Any]:
            def spy(*args: Any, **kwargs: Any) -> Any:
                threads.add(threading.get_ident())
                assert may_write.wait(10)
                return function(*args, **kwargs)

            return spy

        # The test itself looks by listdir, as pathlib uses scandir from Python 3.13 on.
        for name in ("replace", "utime", "scandir", "open"):
            monkeypatch.setattr(disk_tier.os, name, spied(getattr(os, name)))

        async def main() -> None:
            disk = DiskTier(tmp_path, MB, "model")
            for number in range(disk_tier.WRITES_WAITING + 5):  # the first place is taken by the look at the folder
                disk.write(str(number), embedding(number))
            assert disk.stats().dropped == 6
            assert os.listdir(tmp_path) == []
            may_write.set()
            assert await disk.read("none") is None
            await disk.aclose()
            assert len(os.listdir(tmp_path)) == disk.stats().writes == disk_tier.WRITES_WAITING - 1
            assert threading.get_ident() not in threads and len(threads) == 2
            disk.write("late", embedding())
            assert await disk.read("0") is None

        run(main())

    def test_a_file_is_plain_safetensors_for_its_owner_alone(self, tmp_path: Path) -> None:
        folder = tmp_path / "parent" / "cache"
        self.write(folder, ("a", embedding(7)))
        (file,) = folder.iterdir()
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        with safetensors.safe_open(file, "pt") as opened:
            metadata = opened.metadata()
            axes = json.loads(metadata["axes"])
            assert torch.equal(opened.get_tensor("features"), embedding(7).features.permute(axes))
        assert (metadata["model"], metadata["image"]) == ("model", "a")
        assert (metadata["size_hw"], metadata["resized_hw"]) == ("[487, 640]", "[96, 128]")

    def test_embeddings_of_another_model_or_image_are_not_found(self, tmp_path: Path) -> None:
        self.write(tmp_path, ("a", embedding()))
        assert self.read(tmp_path, "b") is None
        assert self.read(tmp_path, "a", "other") is None
        (file,) = tmp_path.iterdir()
        mine = file.read_bytes()
        self.write(tmp_path, ("a", embedding(1)), model="other")
        (other,) = set(tmp_path.iterdir()) - {file}
        other.write_bytes(mine)  # a file under another's name
        assert self.read(tmp_path, "a", "other") is None
        assert not other.exists()
        assert same(self.read(tmp_path, "a"), embedding())

    def test_a_damaged_file_is_a_miss_and_deleted(self, tmp_path: Path) -> None:
        self.write(tmp_path, ("a", embedding(shape=(2, 1, 1))))
        (file,) = tmp_path.iterdir()
        good = file.read_bytes()
        flipped = [
            good[:offset] + bytes([good[offset] ^ 1 << offset % 8]) + good[offset + 1 :] for offset in range(len(good))
        ]
        zeroed = [good[:length] + bytes(len(good) - length) for length in range(len(good) - 1)]  # a lost power supply
        truncated = [good[:length] for length in range(len(good))]
        blank = good.index(b'"sha256":"') + len(b'"sha256":"')
        others = [good + b"\0", good * 2, os.urandom(1000), good[:blank] + b"0" * 64 + good[blank + 64 :]]
        damaged = [data for data in flipped + zeroed + truncated + others if data != good]

        async def main() -> None:
            disk = DiskTier(tmp_path, MB, "model")
            for data in damaged:
                file.write_bytes(data)
                assert await disk.read("a") is None
                assert not file.exists()
            assert disk.stats().damaged == disk.stats().misses == len(damaged) > 800
            assert disk.stats().failures == 0
            file.write_bytes(good)
            assert same(await disk.read("a"), embedding(shape=(2, 1, 1)))
            await disk.aclose()

        run(main())

    def test_a_damaged_file_is_made_and_written_again(self, tmp_path: Path) -> None:
        self.write(tmp_path, ("a", embedding()))
        (file,) = tmp_path.iterdir()
        file.write_bytes(b"garbage")

        async def main() -> None:
            held = EmbeddingCache(MB, DiskTier(tmp_path, MB, "model"))
            assert same(await held.get("a", making(embedding())), embedding())
            await held.aclose()

        run(main())
        assert same(self.read(tmp_path, "a"), embedding())

    def test_stays_within_its_budget_and_deletes_what_was_used_longest_ago(self, tmp_path: Path) -> None:
        self.write(tmp_path, *((str(number), embedding(number)) for number in range(4)))
        paths = {path.stat().st_mtime_ns: path for path in tmp_path.iterdir()}
        in_order = [paths[time] for time in sorted(paths)]
        size = in_order[0].stat().st_size
        assert same(self.read(tmp_path, "0"), embedding(0))
        (tmp_path / "notes.txt").write_text("somebody else's")
        self.write(tmp_path, ("4", embedding(4)), budget=4 * size + size // 2)  # room for four, with the slack
        found = [same(self.read(tmp_path, str(number)), embedding(number)) for number in range(5)]
        assert found == [True, False, True, True, True]
        assert (tmp_path / "notes.txt").read_text() == "somebody else's"

        async def main() -> None:
            budget = 3 * size
            disk = DiskTier(tmp_path, budget, "model")
            for number in range(5, 12):
                disk.write(str(number), embedding(number))
            disk.write("large", embedding(shape=(64, 8, 8)))
            await disk.aclose()
            on_disk = [path.stat().st_size for path in tmp_path.glob("*.safetensors")]
            assert disk.stats().bytes == sum(on_disk) and 2 * size <= sum(on_disk) <= budget
            assert disk.stats().evictions == 4 + disk.stats().writes - len(on_disk)

        run(main())
        assert same(self.read(tmp_path, "11"), embedding(11))

    def test_processes_share_a_folder(self, tmp_path: Path) -> None:
        self.write(tmp_path, ("probe", embedding()))
        size = sum(path.stat().st_size for path in tmp_path.iterdir())
        budget = 20 * size

        async def use(disk: DiskTier, start: int) -> None:
            for step in range(150):
                number = (start + step * 7) % 40
                found = await disk.read(str(number))
                assert found is None or same(found, embedding(number))
                if found is None:
                    disk.write(str(number), embedding(number))

        async def main() -> None:
            disks = [DiskTier(tmp_path, budget, "model") for _ in range(3)]
            await asyncio.gather(*(use(disk, start) for start, disk in enumerate(disks)))
            for disk in disks:
                await disk.aclose()
            stats = [disk.stats() for disk in disks]
            assert [(one.failures, one.damaged) for one in stats] == [(0, 0)] * 3
            assert sum(one.evictions for one in stats) > 0 and sum(one.hits for one in stats) > 0
            # between counts each process may add a part of the budget, and a file, that the others have not seen
            on_disk = sum(path.stat().st_size for path in tmp_path.iterdir())
            assert on_disk <= budget + 3 * (budget / disk_tier.SLACK + size)

        run(main())

    def test_a_full_disk_is_a_miss(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        async def main() -> None:
            held = EmbeddingCache(0, DiskTier(tmp_path, MB, "model"))
            limits = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (512, limits[1]))
            try:
                for number in range(3):
                    item = embedding(number, shape=(16, 8, 8))
                    assert await held.get(str(number), making(item)) is item
                await held.aclose()
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            disk = held.stats().disk
            assert disk is not None and (disk.failures, disk.writes) == (3, 0)

        run(main())
        assert list(tmp_path.iterdir()) == []
        assert len(caplog.records) == 1 and "File too large" in caplog.text

    def test_a_folder_that_cannot_be_is_a_miss(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        place = tmp_path / "cache"
        place.write_text("not a folder")

        async def main() -> None:
            held = EmbeddingCache(0, DiskTier(place, MB, "model"))
            for _ in range(3):
                assert same(await held.get("a", making(embedding())), embedding())
            await held.aclose()

        run(main())
        assert place.read_text() == "not a folder"
        assert {record.levelname for record in caplog.records} == {"WARNING"}
        assert len(caplog.records) == 2  # of making the folder, and of reading in it

    def test_a_folder_that_vanishes_is_made_again(self, tmp_path: Path) -> None:
        place = tmp_path / "cache"

        async def main() -> None:
            disk = DiskTier(place, MB, "model")
            await asyncio.wrap_future(disk._writer.submit(place.rmdir))  # after it was made
            assert await disk.read("a") is None
            disk.write("a", embedding())
            await disk.aclose()

        run(main())
        assert same(self.read(place, "a"), embedding())

    def test_what_a_killed_process_left_is_cleaned_up(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        class Killed(BaseException):
            pass

        def die(source: str, target: Path) -> None:
            raise Killed

        with monkeypatch.context() as patch:
            patch.setattr(disk_tier.os, "replace", die)
            self.write(tmp_path, ("a", embedding()), ("a", embedding()))
        old, fresh = tmp_path.iterdir()
        long_ago = fresh.stat().st_mtime - 2 * disk_tier.LEFTOVER_AFTER_S
        os.utime(old, (long_ago, long_ago))
        foreign = tmp_path / ".other.tmp"
        foreign.touch()
        os.utime(foreign, (long_ago, long_ago))
        assert self.read(tmp_path, "a") is None
        assert set(tmp_path.iterdir()) == {fresh, foreign}  # the fresh one may be another process's

    def test_links_and_pipes_are_neither_followed_nor_waited_for(self, tmp_path: Path) -> None:
        folder, elsewhere = tmp_path / "cache", tmp_path / "elsewhere"
        self.write(folder, ("a", embedding()))
        (file,) = folder.iterdir()
        elsewhere.write_bytes(file.read_bytes())
        file.unlink()
        file.symlink_to(elsewhere)
        assert self.read(folder, "a") is None
        before = elsewhere.read_bytes()
        self.write(folder, ("a", embedding(1)))
        assert elsewhere.read_bytes() == before and not file.is_symlink()
        assert same(self.read(folder, "a"), embedding(1))
        file.unlink()
        os.mkfifo(file)
        assert self.read(folder, "a") is None
        file.unlink()
        file.mkdir()
        assert self.read(folder, "a") is None

    def test_an_error_of_our_own_is_logged_and_does_not_stop_the_writer(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def main() -> None:
            disk = DiskTier(tmp_path, MB, "model")
            disk.write("a", replace(embedding(), size_hw={1, 2}))  # type: ignore[arg-type]
            disk.write("b", embedding())
            await disk.aclose()
            assert disk.stats().writes == 1

        run(main())
        assert [record.levelname for record in caplog.records] == ["ERROR"]


class TestModelKey:
    def test_depends_on_the_files_and_the_numbers(self) -> None:
        numbers = {"dtype": "bfloat16", "pillow": "13.0.0"}
        key = model_key("ab", numbers)
        assert model_key("ab", dict(reversed(numbers.items()))) == key
        others = [model_key("cd", numbers), model_key("ab", numbers | {"dtype": "float32"}), model_key("ab", {})]
        assert len({key, *others}) == 4
