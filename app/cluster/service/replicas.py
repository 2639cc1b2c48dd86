"""The replicas, as what answers for the edge: finds the one for a photo, and asks another where one is lost."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from typing import Any, ParamSpec, TypeVar

from grpc.aio import AioRpcError  # type: ignore[import-untyped]
from ray import serve
from ray.exceptions import RayError, RayTaskError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from app import timings
from app.cluster.service import keys
from app.cluster.service.figures import merged
from app.cluster.service.router import STAY, session
from app.cluster.service.standing import Lost
from app.contract.amount import LITTLE
from app.contract.schemas import IMAGE, Request
from app.engine.aside import call_in, guarded
from app.errors import BadRequest, ImageGone, NotFound, ServiceError, Unavailable
from app.images.reading import ImageLimits
from app.images.store import StoredImage, is_reference, reference_of
from app.label_studio.asked import Asked
from app.scoring.row_image import image_file
from app.serving.answering import Way
from app.serving.reloading import NewModels
from app.settings import Settings
from models.images.decoding import ImageError

P = ParamSpec("P")
T = TypeVar("T")

log = logging.getLogger("box2mask")

# The edge's name among the deployments.
EDGE = "edge"
# A request is asked of so many replicas before its client is told to come again: one that ends whoever takes it must
# not end them all.
_TRIES = 3
# Replicas that have said that they can answer no more; Ray takes a few seconds to notice that they have ended.
_REMEMBERED = 16
# Seconds in which a replica says that it is there, when somebody asks whether any is.
_PROBE_S = 5.0
# Seconds between two tries: for Ray to find out that a replica has gone.
_BETWEEN_S = 0.1


class Replicas:
    """Answers by replicas; see `app.serving.answering.Answering`."""

    def __init__(self, settings: Settings, engine: DeploymentHandle) -> None:
        self._engine = engine
        self._limits = ImageLimits.of(settings)
        self._lost: dict[str, None] = {}  # names of replicas that are still there, and can answer no more
        self._pool = ThreadPoolExecutor(settings.workers or None, thread_name_prefix="worker")

    @property
    def alive(self) -> bool:
        return True  # without models nothing here wears out

    async def begin(self) -> None:
        await self.describe()  # as soon as there is one that has tried its models

    async def aclose(self) -> None:
        await asyncio.to_thread(self._pool.shutdown)

    async def healthy(self) -> bool:
        try:
            async with asyncio.timeout(_PROBE_S):
                return bool(await self._ask(keys.ANY, "healthy", ""))
        except (TimeoutError, Unavailable):
            return False

    async def aside_if(self, large: bool, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        if large:
            return await call_in(self._pool, function, *args, **kwargs)
        return guarded(function, *args, **kwargs)

    async def answer(self, way: Way, request: Request) -> bytes:
        images = keys.images(request)
        references = list(dict.fromkeys(image for image in images if is_reference(image)))
        if references:
            key = f"{STAY}{references[0]}"
            request = await self._with_files(request, references[1:])
        else:
            first = images[0] if images else None
            large = isinstance(first, str) and len(first) > LITTLE
            key = await self._of(large, keys.of_image, first, self._limits)
        return bytes(await self._ask(key, "answer", request.client, way, request))

    async def _with_files(self, request: Request, references: Sequence[object]) -> Request:
        """With the files of these images in place of their names, as they may be kept by other replicas.

        Who is not kept stays a name, of which the replica says in which row it stands.
        """
        kept: dict[object, StoredImage] = {}
        for reference in references:
            with suppress(ImageGone):
                kept[reference] = StoredImage(await self.kept_image(request.client, str(reference)))
        if not kept:
            return request
        place = request.columns.index(IMAGE)

        def with_file(row: Any) -> Any:
            if not isinstance(row, list):
                return kept.get(row, row) if isinstance(row, str) else row
            if place >= len(row) or not isinstance(row[place], str):
                return row
            return [*row[:place], kept.get(row[place], row[place]), *row[place + 1 :]]

        return replace(request, data=[with_file(row) for row in request.data])

    async def keep_image(self, client: str, source: bytes | str) -> dict[str, Any]:
        if isinstance(source, str):  # its content says which replica is to have it
            try:
                source = await call_in(self._pool, image_file, source, self._limits)
            except ImageError as error:
                raise BadRequest(str(error)) from error
        key = await self._of(len(source) > LITTLE, reference_of, source)
        found: dict[str, Any] = await self._ask(STAY + key, "keep_image", client, client, source)
        return found

    async def kept_image(self, client: str, reference: str) -> bytes:
        return bytes(await self._ask(STAY + reference, "kept_image", client, client, reference))

    async def embed_ahead(self, client: str, reference: str, *, exif_orientation: bool) -> None:
        how = {"exif_orientation": exif_orientation}
        await self._ask(STAY + reference, "embed_ahead", client, client, reference, **how)

    async def embedding_tag(self, client: str, reference: str, query: Mapping[str, str]) -> tuple[str, bool]:
        tag, kept = await self._ask(STAY + reference, "embedding_tag", client, client, reference, query)
        return tag, kept

    async def embedding(self, client: str, reference: str, query: Mapping[str, str]) -> tuple[str, bytes]:
        tag, content = await self._ask(STAY + reference, "embedding", client, client, reference, query)
        return tag, content

    async def describe(self) -> dict[str, Any]:
        found: dict[str, Any] = await self._ask(keys.ANY, "describe", "")
        return found

    async def reload(self, new: NewModels) -> None:
        raise NotFound("a service on a cluster loads no models while it runs: deploy it anew, and none is lost")

    async def label_studio_version(self, config: str | None) -> str:
        return str(await self._ask(_VERSIONS, "label_studio_version", "", config))

    async def label_studio_versions(self) -> list[str]:
        return list(await self._ask(_VERSIONS, "label_studio_versions", ""))

    async def label_studio_predict(self, asked: Asked, client: str) -> bytes:
        return bytes(await self._ask(keys.of_label_studio(asked), "label_studio_predict", client, asked, client))

    async def metrics_text(self, accept: str) -> tuple[bytes, str] | None:
        texts: dict[str, bytes] = {}
        for deployment in (serve.get_deployment_handle(EDGE), self._engine):
            with suppress(TimeoutError, RayServeException):  # the others' are worth having
                found = deployment.broadcast("figures").results_async(timeout_s=_PROBE_S, return_exceptions=True)
                texts |= dict(one for one in await found if not isinstance(one, BaseException))
        return await call_in(self._pool, merged, texts, accept)

    async def _of(self, large: bool, key: Callable[P, str], *args: P.args, **kwargs: P.kwargs) -> str:
        with timings.stage("parse"):
            return await self.aside_if(large, key, *args, **kwargs)

    async def _ask(self, key: str, what: str, client: str, *args: Any, **kwargs: Any) -> Any:
        """What a replica's models give. Raises the ServiceError that they raise, or Unavailable."""
        reason = ""
        for number in range(_TRIES):
            if number:
                await asyncio.sleep(_BETWEEN_S * 2**number)
            began = time.perf_counter()
            # By gRPC: megabytes would go through the memory that all processes of a node share, at twice the cost.
            handle = self._engine.options(session_id=session(key, self._lost), _by_reference=False)
            response = handle.do.remote(what, client, *args, **kwargs)
            try:
                found, stages = await response
            except RayTaskError:  # the replica's own fault, and any other's too
                raise
            except (asyncio.CancelledError, RayError, RayServeException, AioRpcError) as error:
                task = asyncio.current_task()
                if isinstance(error, asyncio.CancelledError) and (task is None or task.cancelling()):
                    response.cancel()
                    raise
                reason = type(error).__name__  # it has gone, cannot be reached, or its own work was cancelled: it ends
                log.warning("a replica was lost (%s); another one is asked", reason)
                continue
            for stage, stretches in stages.items():
                for a, b in stretches:
                    timings.add(stage, began + a, began + b)
            if isinstance(found, Lost):
                reason = "its device has stopped"
                self._lost[found.replica] = None
                while len(self._lost) > _REMEMBERED:
                    del self._lost[next(iter(self._lost))]
                log.warning("a replica was lost (%s); another one is asked", reason)
                continue
            if isinstance(found, ServiceError):
                raise found
            return found
        raise again(f"{_TRIES} replicas were lost that worked on this request ({reason}); try again")


# Where the versions of Label Studio's projects are remembered: in one replica, whichever edge asks.
_VERSIONS = f"{STAY}versions"


def again(message: str) -> Unavailable:
    """The 503 of what may go well the next time."""
    error = Unavailable(message)
    error.headers["retry-after"] = "1"
    return error
