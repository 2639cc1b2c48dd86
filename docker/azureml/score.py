"""Scoring script for AzureML's own server, `azureml-inference-server-http`: `/score` of this service, without its HTTP.

The server loads this file, calls init() once in each of its processes and run() for every request. Settings are those
of the service, from the environment; host, port and BOX2MASK_MAX_REQUESTS are the server's own affair.
"""

from __future__ import annotations

import logging
from typing import Any

from azureml_inference_server_http.api.aml_request import AMLRequest, rawhttp
from azureml_inference_server_http.api.aml_response import AMLResponse

from app.contract import schemas
from app.engine import loading
from app.errors import MethodNotAllowed, PayloadTooLarge, ServiceError
from app.http import logs
from app.scoring.thread import ScorerThread
from app.scoring.waiting import within
from app.settings import Settings

log = logging.getLogger("box2mask")


class Scoring:
    """The models, and how a request's body is answered by them."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._thread = ScorerThread(settings, loading.choose(settings), settings.max_prompts)

    def answer(self, request: AMLRequest) -> list[dict[str, Any]]:
        """Raises ServiceError."""
        if request.method != "POST":
            raise MethodNotAllowed(f"{request.path} does not answer {request.method}")
        most = int(self._settings.max_body_mb * 2**20)
        if (request.content_length or 0) > most:
            raise PayloadTooLarge(most)
        # As bytes, and whatever its content type says: curl calls all that it sends a form.
        body = request.get_data(cache=False, parse_form_data=False)
        if len(body) > most:  # one that came in chunks
            raise PayloadTooLarge(most)
        return self._thread.wait(self._by_columns(schemas.parse_request(body, self._settings.max_rows)))

    async def _by_columns(self, request: schemas.Request) -> list[dict[str, Any]]:
        async with within(self._settings.request_timeout_s):
            return await self._thread.scorer.by_columns(request)


scoring: Scoring | None = None


def init() -> None:
    """Load the models and try each once. What is raised ends the server with status 3."""
    global scoring
    settings = Settings.from_environment()
    logs.configure(settings.log_level)
    scoring = Scoring(settings)


@rawhttp
def run(request: AMLRequest) -> list[dict[str, Any]] | AMLResponse:
    """The answer, one entry per row; an error with its status and `{"message": ...}`.

    Any other exception is left to the server, which logs it and answers 500 without a word of it.
    """
    assert scoring is not None
    if request.method == "OPTIONS":  # a browser's, for which the server adds its headers
        return AMLResponse("", 200)
    try:
        return scoring.answer(request)
    except ServiceError as error:
        if error.status >= 500:
            log.error("request failed", exc_info=error)
        return AMLResponse({"message": error.message}, error.status, error.headers, json_str=True)
