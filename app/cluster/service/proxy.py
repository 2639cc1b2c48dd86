"""Ray Serve's proxies, which take requests for the edge: what they answer themselves gets the service's own form.

A proxy answers where no edge does: in plain text, and without saying when to come again.
"""

from __future__ import annotations

import json

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Bytes of a message by gRPC: any number. Ray Serve's own limit is 4 MB, which a photo has, and an answer with masks.
ANY_LENGTH = {"RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH": str(2**31 - 1)}
# What every node has in its environment before Ray is started there: where Ray Serve's proxies find what is in this
# file, and that they ask the edge by gRPC, in the event loop that they have; docs/scale.md says what it saves.
ENVIRONMENT = {
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "app.cluster.service.proxy:middlewares",
    "RAY_SERVE_PROXY_USE_GRPC": "1",
    "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "0",
    **ANY_LENGTH,
}
# On every answer of the edge.
_OURS = b"x-ms-server-version"
# What Ray Serve would take from any client: whether its deadline and its going away count.
_SERVES_OWN = (b"x-request-timeout-seconds", b"x-request-disconnect-disabled")
# The edge's own comes first; Ray Serve adds it once more.
_ID = b"x-request-id"
# Bytes of a body that the edge gets at once, at least, until the last.
_PART = 2**20
_MESSAGE = "no process of this service could answer; try again"


def middlewares() -> list[Middleware]:
    """What Ray Serve asks for."""
    return [Middleware(OwnForm)]


class OwnForm:
    """Middleware: a 503 as JSON, with `Retry-After`, in place of any answer that is not the edge's, and of none."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith("/-/"):
            await self.app(scope, receive, send)
            return
        scope["headers"] = [(name, value) for name, value in scope["headers"] if name.lower() not in _SERVES_OWN]
        began = replaced = False

        async def send_ours(message: Message) -> None:
            nonlocal began, replaced
            if message["type"] == "http.response.start" and not began:
                began = True
                headers = list(message.get("headers", ()))
                if not any(name.lower() == _OURS for name, _ in headers):
                    replaced = True
                    await _refuse(send)
                    return
                first = next((place for place, (name, _) in enumerate(headers) if name.lower() == _ID), -1)
                rest = [one for one in headers[first + 1 :] if one[0].lower() != _ID]
                message["headers"] = headers[: first + 1] + rest
            if not replaced:
                await send(message)

        try:
            await self.app(scope, _in_large_parts(receive), send_ours)
        except Exception:
            if began:
                raise
        if not began:
            await _refuse(send)


def _in_large_parts(receive: Receive) -> Receive:
    """A body in parts of a megabyte: each has to be fetched by the edge, which takes longer than what is in it."""

    async def receive_part() -> Message:
        message = await receive()
        parts, size = [message.get("body", b"")], 0
        while message.get("more_body") and (size := size + len(parts[-1])) < _PART:
            message = await receive()
            if message["type"] != "http.request":  # the client has gone, and nobody wants what came of its body
                return message
            parts.append(message.get("body", b""))
        return {**message, "body": b"".join(parts)} if len(parts) > 1 else message

    return receive_part


async def _refuse(send: Send) -> None:
    content = json.dumps({"message": _MESSAGE}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(content)).encode()),
        (b"retry-after", b"1"),
    ]
    await send({"type": "http.response.start", "status": 503, "headers": headers})
    await send({"type": "http.response.body", "body": content})
