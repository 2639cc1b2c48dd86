"""The models of this process, as what answers: loaded as it begins, and replaced while it runs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

from app import timings
from app.contract.amount import is_little
from app.contract.schemas import Request
from app.engine import loading
from app.errors import ImageGone
from app.images.store import ImageStore
from app.label_studio.asked import Asked
from app.label_studio.backend import Backend, Backends
from app.scoring.description import describe
from app.scoring.image_embedding import embedding_file, stored_embedding, wanted_embedding
from app.scoring.kept_image import keep_image
from app.serving.answering import Way
from app.serving.reloading import NewModels, Reloader
from app.serving.served import Load, Served, Serving
from app.settings import Settings

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class Source:
    """Where models come from. choose: which ones the settings mean. load: an engine of them."""

    choose: Callable[[Settings], loading.Choice] = loading.choose
    load: Load = loading.load


THEIRS = Source()


class OwnModels:
    """Answers by models in this process; see `app.serving.answering.Answering`.

    serving: which of them do now. reloader: puts others in their place.
    """

    def __init__(
        self,
        settings: Settings,
        on_failure: Callable[[], object] = lambda: None,
        on_begin: Callable[[Served], object] = lambda served: None,
        source: Source = THEIRS,
    ) -> None:
        """on_failure: called, in any thread, as soon as a device computes no more, of which only a restart helps.

        on_begin: called when models begin to answer. Raises one of `loading.EXPLAINED` where the settings name no model
        that is there.
        """
        self._settings = settings
        self._on_failure = on_failure
        self._source = source
        self._store = ImageStore(int(settings.image_store_mb * 2**20))
        self._backends = Backends(settings)
        self.serving = Serving(source.choose(settings), on_begin)
        self.reloader = Reloader(settings, self.serving, self._load)

    async def _load(self, settings: Settings, choice: loading.Choice) -> Served:
        served = await Served.load(settings, choice, self._store, self._source.load)
        served.scorer.engine.when_failed(self._on_failure)
        return served

    @property
    def alive(self) -> bool:
        return not self.serving.ready or self.serving.scorer.engine.healthy

    async def begin(self) -> None:
        self.serving.begin(await self._load(self._settings, self.serving.choice))

    async def aclose(self) -> None:
        await self.serving.aclose()

    async def healthy(self) -> bool:
        return self.serving.scorer.engine.healthy

    async def aside_if(self, large: bool, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        with self.serving.use() as served:
            return await served.scorer.engine.aside_if(large, function, *args, **kwargs)

    async def answer(self, way: Way, request: Request) -> bytes:
        with self.serving.use() as served:
            answers = await getattr(served.scorer, way)(request)
            # Megabytes of masks take a while to write; other requests are answered meanwhile.
            write = timings.stage("serialise")(_to_json)
            return await served.scorer.engine.aside_if(not is_little(answers), write, answers)

    async def keep_image(self, client: str, source: bytes | str) -> dict[str, Any]:
        with self.serving.use() as served:
            return await keep_image(served.scorer, client, source)

    async def kept_image(self, client: str, reference: str) -> bytes:
        image = self._store.get(client, reference)
        if image is None:
            raise ImageGone(reference[:80])
        return image.file

    async def embed_ahead(self, client: str, reference: str, *, exif_orientation: bool) -> None:
        image = self._store.get(client, reference)
        if image is None:
            raise ImageGone(reference[:80])
        with self.serving.use() as served:
            if served.scorer.engine.segmenter is not None:
                await stored_embedding(served.scorer, image, exif_orientation=exif_orientation)

    async def embedding_tag(self, client: str, reference: str, query: Mapping[str, str]) -> tuple[str, bool]:
        wanted = wanted_embedding(self.serving.scorer, self.serving.choice, reference, query)
        return wanted.tag, self._store.get(client, reference) is not None

    async def embedding(self, client: str, reference: str, query: Mapping[str, str]) -> tuple[str, bytes]:
        with self.serving.use() as served:
            wanted = wanted_embedding(served.scorer, served.choice, reference, query)
            return wanted.tag, await embedding_file(served.scorer, client, wanted)

    async def describe(self) -> dict[str, Any]:
        return describe(self.serving.scorer, self.serving.choice, self._settings)

    async def reload(self, new: NewModels) -> None:
        await self.reloader.reload(new)

    async def label_studio_version(self, config: str | None) -> str:
        return self._backend(self.serving.scorer, self.serving.choice).version(config)

    async def label_studio_versions(self) -> list[str]:
        return self._backend(self.serving.scorer, self.serving.choice).versions

    async def metrics_text(self, accept: str) -> tuple[bytes, str] | None:
        return None

    async def label_studio_predict(self, asked: Asked, client: str) -> bytes:
        with self.serving.use() as served:
            return await self._backend(served.scorer, served.choice).predict(asked, client)

    def _backend(self, scorer: Any, choice: loading.Choice) -> Backend:
        return self._backends.of(scorer, choice)


def _to_json(content: object) -> bytes:
    return json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
