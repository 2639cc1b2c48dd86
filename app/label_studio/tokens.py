"""The token by which images of a Label Studio are fetched: a personal one, which is exchanged, or a legacy one."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable

import httpx

from models.images.decoding import ImageError

# An access token is renewed so long before it ends, and is taken to last so long where it does not say.
_EARLY_S, _LASTS_S = 30.0, 240.0
_MOST_BYTES = 2**16


class Token:
    """Makes the value of the header `Authorization`. Any thread may ask.

    A personal access token is a JWT: it lasts for years and opens nothing itself. Label Studio exchanges it for an
    access token of some minutes, which is kept until shortly before it ends.
    """

    def __init__(
        self, base: str, token: str | None, timeout_s: float = 10.0, clock: Callable[[], float] = time.time
    ) -> None:
        """base: Label Studio's address. token: None for a server that wants none."""
        self._base = base.rstrip("/")
        self._token = None if token is None else token.strip()
        self._timeout_s = timeout_s
        self._clock = clock
        self._lock = threading.Lock()
        self._access, self._until = "", 0.0

    @property
    def is_personal(self) -> bool:
        return self._token is not None and self._token.count(".") == 2

    def authorization(self, refused: str | None = None) -> str | None:
        """The header's value; None without a token.

        refused: one that Label Studio has answered 401 to, so that another is asked for. Raises ImageError where there
        is no access token to be had.
        """
        if self._token is None:
            return None
        if not self.is_personal:
            return f"Token {self._token}"
        with self._lock:  # others wait for the same
            if self._clock() >= self._until - _EARLY_S or refused == f"Bearer {self._access}":
                self._access = self._refreshed()
                self._until = _ends(self._access) or self._clock() + _LASTS_S
            return f"Bearer {self._access}"

    def _refreshed(self) -> str:
        where = f"{self._base}/api/token/refresh/"
        try:
            with httpx.Client(timeout=self._timeout_s, trust_env=False) as client:
                answer = client.post(where, json={"refresh": self._token})
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ImageError(f"could not ask Label Studio for an access token: {type(error).__name__}") from error
        if not answer.is_success:
            raise ImageError(
                f"Label Studio answered {answer.status_code} to BOX2MASK_LABEL_STUDIO_TOKEN: expected a personal "
                "access token, or a legacy token where these are enabled, of an account that may see the project"
            )
        try:
            access = answer.json()["access"] if len(answer.content) <= _MOST_BYTES else None
        except (ValueError, KeyError, TypeError):
            access = None
        if not isinstance(access, str) or not access.isascii() or not access.isprintable() or not access:
            raise ImageError("Label Studio's answer to BOX2MASK_LABEL_STUDIO_TOKEN has no access token")
        return access


def _ends(access: str) -> float | None:
    """When a JWT says that it ends, in seconds of Unix' time; None where it does not say."""
    try:
        payload = access.split(".")[1]
        ends = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["exp"]
        return float(ends)
    except (ValueError, KeyError, TypeError, IndexError):
        return None
