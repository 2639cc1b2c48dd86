"""What the service's edge needs of whoever has the models: this process (`app.serving.own`), or replicas elsewhere.

Knows nothing of HTTP. client: whoever asks, "" where nobody is told apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, Protocol

from app.label_studio.routes import Predicting

if TYPE_CHECKING:
    from app.contract.schemas import Request
    from app.serving.reloading import NewModels

# The scorer's methods that requests are answered by.
Way = Literal["by_columns", "detect", "segment", "detect_and_segment"]


class Answering(Predicting, Protocol):
    """Answers by the models. For one event loop.

    Every method that answers raises ServiceError for what is told to the client.
    """

    @property
    def alive(self) -> bool:
        """Whether this process can go on; where not, only a restart of it helps."""

    async def begin(self) -> None:
        """Return when the models answer. Raises what loading them raises."""

    async def aclose(self) -> None:
        """Let go of the models; whoever still waits for them gets Unavailable."""

    async def answer(self, way: Way, request: Request) -> bytes:
        """A request's answer, as JSON."""

    async def keep_image(self, client: str, source: bytes | str) -> dict[str, Any]:
        """See `app.scoring.kept_image.keep_image`."""

    async def kept_image(self, client: str, reference: str) -> bytes:
        """The file of an image that this client has sent. Raises ImageGone."""

    async def embed_ahead(self, client: str, reference: str, *, exif_orientation: bool) -> None:
        """Encode an image that this client has sent, for the clicks to come, where there is a segmenter."""

    async def embedding_tag(self, client: str, reference: str, query: Mapping[str, str]) -> tuple[str, bool]:
        """What stands for an embedding's file as long as the models are these, and whether its image is here."""

    async def embedding(self, client: str, reference: str, query: Mapping[str, str]) -> tuple[str, bytes]:
        """The same tag, and the file. See `app.scoring.image_embedding`."""

    async def describe(self) -> dict[str, Any]:
        """What `/version` says."""

    async def reload(self, new: NewModels) -> None:
        """Load models anew; those before answer until these do."""

    async def metrics_text(self, accept: str) -> tuple[bytes, str] | None:
        """All processes' figures and their content type, in the form that `Accept` asks for; None of this one alone."""
