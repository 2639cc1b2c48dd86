"""Who may ask: API keys, several at a time and changeable while the service runs, and the middleware that wants one.

A key is known by its digest alone; `scope["box2mask.client"]` has the first characters of that, and is "" where the
service has no keys. They are enough to tell clients apart in logs and queues, and no use for getting in.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import logging
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from app.errors import Unauthorized
from app.settings import Settings, SettingsError, environment_name

log = logging.getLogger("box2mask")

CLIENT = "box2mask.client"
SHORTEST_KEY = 16  # characters; a key is to be drawn by a machine, not thought of
_LOOK_EVERY_S = 1.0
# What changes the service itself, and wants the key of whoever runs it.
_ADMIN = "/models/reload"
# To be read: probes have no key, a page cannot be told one before it is there, and the program is public.
_OPEN_METHODS = ("GET", "HEAD", "OPTIONS")
_OPEN = re.compile(r"/|/health/.*|/playground(/.*)?|/docs(/.*)?|/openapi\.json|/swagger\.json")

# Label Studio sends a password where it can send anything, and nothing to a webhook, which does nothing.
_BASIC, _WEBHOOK = "/label-studio/", "/label-studio/webhook"


class ApiKeys:
    """The keys that let somebody in: those of a setting, and those of a file, which is read again when it changes."""

    def __init__(
        self,
        keys: Sequence[str] = (),
        file: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
        *,
        admin: str | None = None,
    ) -> None:
        """file: a key a line; `#` begins a remark. admin: the key of whoever runs the service.

        Raises SettingsError, which never shows a key, for one that is too short or has characters that a header
        cannot carry, and for a file that cannot be read or has none.
        """
        self._file = file
        self._clock = clock
        self._own = _digests(keys, environment_name("api_keys"))
        self._admin = [] if admin is None else _digests([admin], environment_name("admin_key"))
        self._of_file: list[bytes] = []
        self._file_stamp: tuple[int, ...] | None = None
        self._looked = clock()
        if file is not None:
            self._file_stamp = _stamp(file)
            self._of_file = _read(file)

    @classmethod
    def of(cls, settings: Settings) -> ApiKeys:
        """As the settings have them. Raises SettingsError."""
        return cls(settings.keys, settings.api_keys_file, admin=settings.admin_key)

    @property
    def has_admin(self) -> bool:
        """Whether there is a key for what changes the service itself."""
        return bool(self._admin)

    @property
    def wanted(self) -> bool:
        """Whether anybody needs a key."""
        return bool(self._own) or self._file is not None

    @property
    def count(self) -> int:
        return len({*self._own, *self._of_file})

    def client_of(self, headers: Mapping[str, str], *, basic: bool = False) -> str:
        """Who asks, by the `Authorization` of a request: a short digest of the key. Raises Unauthorized.

        basic: whether the key may be the password of HTTP Basic too, whatever the user is called.
        """
        self._look_again()
        return _client(headers, [*self._own, *self._of_file], basic=basic)

    def check_admin(self, headers: Mapping[str, str]) -> str:
        """Who asks, as above, if it is whoever runs the service. Raises Unauthorized."""
        return _client(headers, self._admin)

    def _look_again(self) -> None:
        """Take over what the file has become; what cannot be used leaves the keys as they were, and is logged."""
        if self._file is None or self._clock() - self._looked < _LOOK_EVERY_S:
            return
        self._looked = self._clock()
        stamp = _stamp(self._file)
        if stamp == self._file_stamp:
            return
        self._file_stamp = stamp
        try:
            self._of_file = _read(self._file)
        except SettingsError as error:
            log.error("the API keys stay as they were: %s", error)
        else:
            log.info("read %d API keys from %s", len(self._of_file), self._file)


class Access:
    """Middleware: answers 401 to whoever brings no key where one is wanted, before anything of a body is read."""

    def __init__(
        self, app: ASGIApp, keys: ApiKeys, refuse: Callable[[HttpRequest, Exception], Awaitable[Response]]
    ) -> None:
        """refuse: what makes an answer of an error."""
        self.app = app
        self.keys = keys
        self.refuse = refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope[CLIENT] = ""
            http = HttpRequest(scope, receive)
            is_open = scope["method"] in _OPEN_METHODS and _OPEN.fullmatch(scope["path"])
            is_open = is_open or scope["path"] == _WEBHOOK
            is_admin = self.keys.has_admin and scope["path"] == _ADMIN
            if is_admin or (self.keys.wanted and not is_open):
                try:
                    basic = scope["path"].startswith(_BASIC)
                    check = self.keys.check_admin if is_admin else partial(self.keys.client_of, basic=basic)
                    scope[CLIENT] = check(http.headers)
                except Unauthorized as error:
                    await (await self.refuse(http, error))(scope, receive, send)
                    return
        await self.app(scope, receive, send)


def _client(headers: Mapping[str, str], known_digests: Sequence[bytes], *, basic: bool = False) -> str:
    """The short digest of the key that a request brings, if it is one of these. Raises Unauthorized."""
    scheme, _, key = headers.get("authorization", "").strip().partition(" ")
    if not scheme:
        raise Unauthorized("expected the header Authorization: Bearer <key>, got none")
    if basic and scheme.lower() == "basic":
        scheme, key = "bearer", _password(key)
    if scheme.lower() != "bearer" or not key.strip():
        raise Unauthorized("expected the header Authorization: Bearer <key>, got another form")
    digest = hashlib.sha256(key.strip().encode("latin-1", "replace")).digest()
    # All of them, always: how long it takes tells nothing of which one it was, or nearly was.
    matches = [hmac.compare_digest(digest, known) for known in known_digests]
    if not any(matches):
        raise Unauthorized("the key in Authorization: Bearer is not one of this service's")
    return digest.hex()[:12]


def _password(credentials: str) -> str:
    """Of HTTP Basic's base64 of `user:password`; "" where it is none."""
    try:
        return base64.b64decode(credentials.strip(), validate=True).decode("latin-1").partition(":")[2]
    except ValueError:
        return ""


def _stamp(file: Path) -> tuple[int, ...] | None:
    """What changes with a file's content, and with who may read it: a mounted secret is replaced."""
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_size


def _read(file: Path) -> list[bytes]:
    name = environment_name("api_keys_file")
    try:
        lines = file.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not a text"
        raise SettingsError(f"{name}: cannot read {file}: {reason}") from error
    keys = [line for line in (line.partition("#")[0].strip() for line in lines) if line]
    if not keys:
        raise SettingsError(f"{name}: expected a key a line in {file}, got none")
    return _digests(keys, name)


def _digests(keys: Sequence[str], name: str) -> list[bytes]:
    for number, key in enumerate(keys, 1):
        if not re.fullmatch(r"[!-~]+", key):
            raise SettingsError(f"{name}: expected visible ASCII characters, got others in key {number}")
        if len(key) < SHORTEST_KEY:
            raise SettingsError(
                f"{name}: expected at least {SHORTEST_KEY} characters, got {len(key)} in key {number}; "
                "`openssl rand -hex 32` makes a good one"
            )
    return [hashlib.sha256(key.encode()).digest() for key in keys]
