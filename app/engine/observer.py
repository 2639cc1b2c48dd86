"""Who is told of a device's work."""

from __future__ import annotations


class Observer:
    """Is told what a Compute does; this one does nothing with it. Moments are those of `time.perf_counter()`."""

    def on_job(self, kind: str, queued: float, began: float, ended: float) -> None:
        """A job that ran is over, or given up: called in the context of who waited for it.

        began: when the batch did that it was in; ended: when it, or what was left of it, had its result.
        """

    def on_batch(self, kind: str, size: int, seconds: float) -> None:
        """A batch has been computed: called on the compute thread, before those who wait have their results.

        size: of all its items. seconds: with what urgent work ran between its steps.
        """
