"""A SAM in training: the decoder that learns, as it was at first, and an encoder if that learns too."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from models.finetuning.segmenter.embeddings import KeptView
from models.finetuning.segmenter.learner import Learner
from models.finetuning.segmenter.lora import LoraEncoder
from models.finetuning.segmenter.options import SegmenterOptions
from models.segmenter.sam import Sam

# Weights that weight decay leaves alone, beside all of one dimension: what stands for a kind of token.
_KINDS = ("embed", "token")


class Trainee(nn.Module):
    """learner: the decoder. old: the same as it was, which never learns. encoder: None where embeddings are kept."""

    def __init__(self, family: type[Sam], start: Path, options: SegmenterOptions, device: torch.device) -> None:
        """Raises ModelFilesError, and TrainingError for an encoder that cannot learn so."""
        super().__init__()
        network = family.network(start, family.find(start))
        self.learner = Learner(network, family, head_only=options.train == "decoder").to(device)
        self.old = Learner(network, family).to(device).requires_grad_(False)
        self.encoder: LoraEncoder | None = None
        if options.train == "encoder-lora":
            sam = family.load(start, device, torch.float32, fast=False)
            self.encoder = LoraEncoder(sam, options.lora_rank, options.random_seed)
        self.device = device

    def features(self, views: Sequence[KeptView]) -> Tensor:
        """(B, C, h, w) float32 on the device."""
        if self.encoder is not None:
            return self.encoder.features([view.sample for view in views])
        return self.old_features(views)

    def old_features(self, views: Sequence[KeptView]) -> Tensor:
        """The same by the encoder as it was."""
        return torch.stack([view.features for view in views]).to(self.device).float()

    def learnt(self) -> dict[str, nn.Parameter]:
        """All that learns, by name."""
        return {name: one for name, one in self.named_parameters() if one.requires_grad}

    def state(self) -> dict[str, Tensor]:
        """The same as it is now, copied to the CPU."""
        return {name: one.detach().cpu().clone() for name, one in self.learnt().items()}

    @torch.no_grad()
    def restore(self, state: dict[str, Tensor]) -> None:
        for name, one in self.learnt().items():
            one.copy_(state[name])

    @contextmanager
    def with_weights(self, state: dict[str, Tensor]) -> Iterator[None]:
        """Other weights for a while."""
        own = self.state()
        self.restore(state)
        try:
            yield
        finally:
            self.restore(own)

    def groups(self, weight_decay: float) -> list[dict[str, object]]:
        """For an optimiser: what shrinks, and what does not."""
        shrinks: list[nn.Parameter] = []
        stays: list[nn.Parameter] = []
        for name, one in self.learnt().items():
            bare = one.ndim < 2 or (name.startswith("learner.") and any(kind in name for kind in _KINDS))
            (stays if bare else shrinks).append(one)
        return [{"params": shrinks, "weight_decay": weight_decay}, {"params": stays, "weight_decay": 0.0}]

    def weights(self) -> dict[str, Tensor]:
        """What has been learnt, by the names of the network that it is a part of; on the CPU, in float32."""
        own = {
            name.removeprefix("learner."): value for name, value in self.state().items() if name.startswith("learner.")
        }
        return own | (self.encoder.merged() if self.encoder is not None else {})
