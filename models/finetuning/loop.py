"""MMEngine's loop over epochs, able to go on in the middle of one."""

from __future__ import annotations

from mmengine.runner import EpochBasedTrainLoop


class RejoinableLoop(EpochBasedTrainLoop):
    """Where MMEngine would begin a resumed epoch from its first batch again, this one goes on with the next.

    A checkpoint taken after an epoch's last batch, before it counts as done, resumes with its validation.
    """

    def run_epoch(self) -> None:
        seen = self._iter - self._epoch * len(self.dataloader)
        self.runner.call_hook("before_train_epoch")  # tells the sampler which epoch it is
        self.runner.model.train()
        if seen < len(self.dataloader):
            self.dataloader.sampler.skip = seen * self.dataloader.batch_size
            for index, batch in enumerate(self.dataloader, start=seen):
                self.run_iter(index, batch)
        self.runner.call_hook("after_train_epoch")
        self._epoch += 1
