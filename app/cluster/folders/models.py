"""How a process of a cluster gets its models, and what the others are told of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from app.prediction import Predictor
    from app.settings import Settings

# Secrets of a service, which no process of a cluster is sent.
_SECRETS = ("api_keys", "admin_key", "label_studio_token")


class ModelsError(Exception):
    """Models that a process of the cluster cannot load: says where, and why."""


@dataclass(frozen=True)
class Known:
    """What a predictor says of its models, as `app.prediction.Predictor` does."""

    class_names: tuple[str, ...]
    description: Mapping[str, Any]
    of_models: Mapping[str, str | None]

    def identity(self) -> dict[str, str | None]:
        return dict(self.of_models)


class OpenModels:
    """Opens the predictor that settings mean, wherever it is called; to be sent from one process to another.

    kinds: `detector` or `segmenter` for one of the two models alone.
    """

    def __init__(
        self,
        settings: Settings,
        typed: tuple[str, ...],
        params: Mapping[str, Any],
        kinds: Literal["both", "detector", "segmenter"] = "both",
    ) -> None:
        self._settings = settings.model_copy(update={name: None for name in _SECRETS})
        self._typed = typed
        self._params = dict(params)
        self._kinds = kinds

    def alone(self, kind: Literal["detector", "segmenter"]) -> OpenModels:
        """The same with one of the two models."""
        other = "segmenter" if kind == "detector" else "detector"
        # Boxes that are given are all kept: the detector has seen to those of one object.
        params = {name: value for name, value in self._params.items() if kind == "detector" or name != _OF_BOXES}
        return OpenModels(self._settings.model_copy(update={other: "none"}), self._typed, params, kind)

    def __call__(self) -> Predictor:
        """Raises ModelsError."""
        import socket

        from app.engine.loading import EXPLAINED, choose
        from app.predictor import open_predictor

        try:
            choice = choose(self._settings, typed=self._typed)
            return open_predictor(self._settings, None, choice, self._params, for_folders=True)
        except EXPLAINED as error:
            raise ModelsError(f"{socket.gethostname()}: {error}") from error


_OF_BOXES = "class_agnostic_nms"


def known(predictor: Predictor) -> Known:
    return Known(predictor.class_names, predictor.description, predictor.identity())
