"""A device's compute thread: takes jobs, batches them, lets urgent ones in between.

Knows nothing of models or requests, nor how many may wait (see `app.http.admission`): a kind of work is a function
from a list of items to a list of results. Who wants to know what runs gives it an Observer.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import torch

from app.engine import fairness
from app.engine.observer import Observer
from app.errors import Unavailable

log = logging.getLogger("box2mask")

In = TypeVar("In")
Out = TypeVar("Out")
# Called by long work at many points on its way; may raise, and may run other work on the same thread.
Between = Callable[[], None]

# What torch's allocators say; on the CPU it is a plain RuntimeError.
_NO_MEMORY = ("can't allocate memory", "not enough memory", "out of memory", "alloc_failed")


@dataclass(frozen=True, eq=False)
class Work(Generic[In, Out]):
    """A kind of work, for which a device has one function.

    run: items -> their results, in order; calls `between` as often as it can. at_once: the most that a
    batch may cost, by `cost` of its items; a single item may cost more. urgent: whether it goes before
    work that is not, and between its steps. split, join: an item as two or more smaller ones, [] if it
    has no parts, and their results as one; for when memory does not suffice. kind, size: what an Observer
    is told of it, where there is a kind: its name, and how much an item is of what it is a batch of.
    """

    run: Callable[[Sequence[In], Between], Sequence[Out]]
    at_once: int = 1
    cost: Callable[[In], int] = lambda item: 1
    urgent: bool = False
    split: Callable[[In], Sequence[In]] = lambda item: ()
    join: Callable[[Sequence[Out]], Out] | None = None
    kind: str = ""
    size: Callable[[In], int] = lambda item: 1


@dataclass(eq=False)
class _Job:
    work: Work[Any, Any]
    item: Any
    cost: int = 0
    whole: _Job | None = None  # of which this is a part
    client: str = field(default_factory=fairness.client.get)
    queued: float = field(default_factory=time.perf_counter)
    began: float | None = None
    ended: float | None = None
    future: Future[Any] = field(default_factory=Future)

    @property
    def wanted(self) -> bool:
        return not self.future.cancelled() and (self.whole is None or self.whole.wanted)

    def finish(self, result: Any = None, error: BaseException | None = None) -> None:
        """Answer whoever waits; nothing happens where nobody does any more, or is answered already."""
        if isinstance(error, StopIteration):  # which asyncio lets nobody await: as generators do, say so otherwise
            error = RuntimeError(f"the work raised {error!r}")
        self.ended = time.perf_counter()
        try:
            if error is None:
                self.future.set_result(result)
            else:
                self.future.set_exception(error)
        except InvalidStateError:
            pass


class _AbandonedError(Exception):
    """Everybody who waited for the running batch has gone."""


class _DeviceLostError(BaseException):
    """The device computes no more; passes by all that handles a job's own failure, and ends the thread."""


class Compute:
    """Runs jobs on threads of its own: one for all, or one more for urgent work where a device runs two at once.

    Jobs of one kind that wait together share a batch. With one thread, urgent jobs run between the steps
    of what is running, a batch at a time, so that neither keeps the other from going on. Jobs that nobody
    waits for any more are dropped, also half-way. Where clients are told apart, their jobs take turns.
    """

    def __init__(
        self,
        name: str,
        *,
        urgent_thread: bool = False,
        context: Callable[[bool], AbstractContextManager[object]] = lambda urgent: nullcontext(),
        check: Callable[[], object] = lambda: None,
        died: Callable[[], object] = lambda: None,
    ) -> None:
        """context: entered by each thread for its life, told whether it is the urgent one (a CUDA stream, say).

        check: called when a job has failed; raises a RuntimeError where the whole device has. died: called by a thread
        that ends without having been closed, when all that waited have been told.
        """
        self.observer = Observer()
        self._urgent: deque[_Job] = deque()
        self._patient: deque[_Job] = deque()
        self._running: list[_Job] = []
        self._turns = fairness.Turns()
        self._changed = threading.Condition()
        self._closing = False
        self._interleaves = not urgent_thread
        self._context = context
        self._check = check
        self._died = died
        lanes: list[tuple[bool, tuple[deque[_Job], ...]]] = [(False, (self._patient, self._urgent))]
        if urgent_thread:
            lanes = [(False, (self._patient,)), (True, (self._urgent,))]
        self._threads = [
            threading.Thread(target=self._live, args=lane, name=f"{name}{'-urgent' * lane[0]}", daemon=True)
            for lane in lanes
        ]
        for thread in self._threads:
            thread.start()

    @property
    def load(self) -> int:
        """Jobs that wait or run."""
        with self._changed:
            return sum(not job.future.done() for job in (*self._urgent, *self._patient, *self._running))

    @property
    def ended(self) -> bool:
        """Whether it takes no more jobs."""
        return self._closing

    async def do(self, work: Work[In, Out], item: In) -> Out:
        """Wait for one item's result. Cancelled, the item is dropped, if possible before it costs anything.

        Raises what the work raised for this item alone, and Unavailable where memory does not suffice
        even for its parts one by one, or the thread has ended.
        """
        job = _Job(work, item, work.cost(item))
        with self._changed:
            if self._closing:
                raise Unavailable("the compute thread has ended")
            (self._urgent if work.urgent else self._patient).append(job)
            self._changed.notify_all()
        try:
            return await asyncio.wrap_future(job.future)
        finally:
            if work.kind and job.began is not None:
                ended = time.perf_counter() if job.ended is None else job.ended
                self.observer.on_job(work.kind, job.queued, job.began, ended)

    def close(self) -> None:
        """Wait for the jobs that are there and end the threads."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _live(self, urgent: bool, queues: tuple[deque[_Job], ...]) -> None:
        closed = False
        try:
            with self._context(urgent):
                while batch := self._next(queues):
                    self._serve(batch)
                    del batch  # or its results would live until the next one comes
            closed = True
        except _DeviceLostError as error:
            log.critical("a device computes no more: %s", error.__cause__)
        finally:  # whatever ended it: nobody may wait for ever
            with self._changed:
                self._closing = True
                self._changed.notify_all()
                left = [job for queue in queues for job in queue]
                for queue in queues:
                    queue.clear()
            for job in left:
                job.finish(error=Unavailable("the compute thread has ended"))
            if not closed:
                self._died()

    def _next(self, queues: tuple[deque[_Job], ...]) -> list[_Job]:
        """Wait for a batch, from the first of the queues that has one; [] at the end."""
        with self._changed:
            while True:
                for queue in queues:
                    if batch := self._take(queue):
                        return batch
                if self._closing:
                    return []
                self._changed.wait()

    def _take(self, queue: deque[_Job]) -> list[_Job]:
        batch = _share(queue, self._turns)
        for job in batch:
            self._turns.took(job.client)
        self._running += batch
        return batch

    def _serve(self, batch: list[_Job]) -> None:
        """Compute a batch that was taken, and leave none of its jobs without an answer."""
        lives_on = False
        try:
            self._compute(batch)
            lives_on = True
        finally:
            with self._changed:
                for job in batch:
                    self._running.remove(job)
                # Before anyone is told that it has ended, it has.
                self._closing = self._closing or not lives_on
            for job in batch:  # without one only if the thread ends here
                job.finish(error=Unavailable("the compute thread has ended"))

    def _compute(self, batch: list[_Job]) -> None:
        batch = [job for job in batch if job.wanted]
        if not batch:
            return
        work = batch[0].work
        began = time.perf_counter()
        for job in batch:
            job.began = job.began or began  # it may be computed again, apart from the others
        try:
            if not work.urgent:
                self._between(batch)
            results = work.run([job.item for job in batch], lambda: self._between(batch))
            if len(results) != len(batch):
                raise RuntimeError(f"expected {len(batch)} results, got {len(results)}")
        except _AbandonedError:
            return
        except Exception as error:  # not hidden: each job gets its own, below
            no_memory = _is_no_memory(error)
            # The frames of its traceback hold what has to be freed.
            failure = None if no_memory else error
        else:
            if work.kind:
                size = sum(work.size(job.item) for job in batch)
                self.observer.on_batch(work.kind, size, time.perf_counter() - began)
            for job, result in zip(batch, results, strict=True):
                job.finish(result)
            return
        if no_memory:
            torch.cuda.empty_cache()  # does nothing where CUDA is not in use
        else:
            try:
                self._check()
            except RuntimeError as error:
                raise _DeviceLostError from error
        # Apart from each other, so that no job fails for its neighbour's sake, or for their number.
        if len(batch) > 1:
            middle = len(batch) // 2
            self._compute(batch[:middle])
            self._compute(batch[middle:])
        elif no_memory:
            self._compute_parts(batch[0])
        else:
            batch[0].finish(error=failure)

    def _compute_parts(self, job: _Job) -> None:
        try:
            parts = [_Job(job.work, item, whole=job) for item in job.work.split(job.item)]
            if not parts or job.work.join is None:
                raise MemoryError
            results = []
            for part in parts:
                self._compute([part])
                if not job.wanted:
                    return
                results.append(part.future.result())
            job.finish(job.work.join(results))
        except Exception as error:  # not hidden: it is the job's
            if _is_no_memory(error):
                error = Unavailable("the device's memory does not suffice for this request")
            job.finish(error=error)

    def _between(self, batch: list[_Job]) -> None:
        if not any(job.wanted for job in batch):
            raise _AbandonedError
        if self._interleaves and self._urgent and not batch[0].work.urgent:
            with self._changed:
                urgent = self._take(self._urgent)
            if urgent:
                self._serve(urgent)


def _share(queue: deque[_Job], turns: fairness.Turns) -> list[_Job]:
    """Remove and return the wanted job whose turn it is, and those after it that may share its batch."""
    wanted = [job for job in queue if job.wanted]
    batch: list[_Job] = []
    room = 0
    for job in turns.order(wanted, lambda job: job.client):
        if not batch:
            batch, room = [job], job.work.at_once - job.cost
        elif job.work is batch[0].work and job.cost <= room:
            batch.append(job)
            room -= job.cost
    taken = set(map(id, batch))
    queue.clear()
    queue.extend(job for job in wanted if id(job) not in taken)
    return batch


def _is_no_memory(error: Exception) -> bool:
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error).lower() for text in _NO_MEMORY)
