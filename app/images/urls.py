"""Fetches the file that an image URL points at, from nowhere that its sender could not reach without this service.

    fetch    http(s) URL -> the encoded file, within limits on time, bytes, redirects and kind of content

A host's name is looked up once; its addresses are judged; and the connection goes to one of those very addresses, so
that no second look-up can give another. The name itself is what the `Host` header, TLS's SNI and the certificate's
check see. Every redirect goes the same way. Nothing but the URL is sent: no cookies, no credentials, and no proxy of
the environment is asked. Knows nothing of images.

UrlError      a URL that is not fetched, or that leads to nothing of use; says which and why
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Literal

import httpx

# Which URLs are fetched: none, those whose host has public addresses only, all.
UrlMode = Literal["off", "public", "any"]
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
# (host, port) -> the host's addresses, in the order to try them. Raises OSError for a name that has none.
Resolve = Callable[[str, int], Sequence[str]]

MAX_REDIRECTS = 5
# Of one address, where there are others to try; the last has all the time that is left.
_CONNECT_S = 2.0
_ADDRESSES_TRIED = 4
_HEADERS = {
    "user-agent": "box2mask",
    "accept": "image/*",
    # Undecoded bytes: a few compressed ones could stand for any number of others.
    "accept-encoding": "identity",
    "connection": "close",
}
# What object stores say of a file whose kind nobody told them.
_UNKNOWN_CONTENT = ("application/octet-stream", "binary/octet-stream")

# Beyond what `ipaddress` calls global: networks with machines of one's own behind them, or that lead to some by way of
# an IPv4 address inside (6to4, Teredo).
_NOT_PUBLIC = tuple(
    ipaddress.ip_network(network)
    for network in ("100.64.0.0/10", "192.0.0.0/24", "192.88.99.0/24", "198.18.0.0/15", "2001::/23", "2001:db8::/32")
    + ("2002::/16", "3fff::/20", "64:ff9b:1::/48")
)
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


class UrlError(ValueError):
    """What was expected of the URL, or of what it leads to, and what came."""


class UrlStatusError(UrlError):
    """The URL leads to an answer that is no success. is_own: whether it is an OwnServer's."""

    def __init__(self, message: str, status: int, *, is_own: bool) -> None:
        super().__init__(message)
        self.status = status
        self.is_own = is_own


@dataclass(frozen=True)
class OwnServer:
    """A server that who runs this service has named: its URLs are fetched whatever its addresses are, by its token.

    base: its address; a path in it is the first part of the paths of all of its URLs. authorization: the header's
    value, which no other server is sent; None without one.
    """

    base: str
    authorization: str | None = None

    def has(self, url: httpx.URL | str) -> bool:
        """Whether a URL is one of this server's."""
        url, base = httpx.URL(url), httpx.URL(self.base)
        if (url.scheme, url.raw_host, _port(url)) != (base.scheme, base.raw_host, _port(base)):
            return False
        # httpx leaves dots in a path, which a server may follow.
        return url.path.startswith(f"{base.path.rstrip('/')}/") and "/.." not in url.path


def is_public(address: Address) -> bool:
    """Whether an address is one of the internet's, and so no machine's that only this one can reach.

    NAT64's are as public as the IPv4 address in them, because a network without IPv4 sees the whole internet so.
    """
    if isinstance(address, ipaddress.IPv6Address):
        if address in _NAT64:
            return is_public(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
        if address not in _GLOBAL_UNICAST:  # nor is any form with an IPv4 address in it: mapped, compatible, translated
            return False
    return address.is_global and not address.is_multicast and not any(address in network for network in _NOT_PUBLIC)


def system_addresses(host: str, port: int) -> list[str]:
    """What this machine takes a host's name for, and for an address in whatever spelling: 127.1, 0x7f.1, 2130706433."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def fetch(
    url: str,
    mode: UrlMode,
    *,
    max_bytes: int,
    timeout_s: float,
    resolve: Resolve = system_addresses,
    is_allowed: Callable[[Address], bool] = is_public,
    tls: ssl.SSLContext | None = None,
    own: OwnServer | None = None,
) -> bytes:
    """GET `url`, following redirects. Raises UrlError.

    timeout_s: for the whole, from name look-up to last byte, redirects included. is_allowed: what `public` lets be
    connected to. tls: whose certificates are believed; None for those that this machine believes. own: a server that
    `mode` does not count for, as long as no redirect has led away from it.
    """
    judge = is_allowed if mode == "public" else None

    async def within_deadline() -> bytes:
        # httpx bounds each read but not their number; a server that trickles must not hold a thread.
        async with asyncio.timeout(timeout_s):
            return await _follow(url, mode, max_bytes, resolve, judge, tls or _tls(), own)

    try:
        return asyncio.run(within_deadline())
    except TimeoutError as error:
        raise UrlError(f"expected the image URL to answer within {timeout_s:g} s, it did not") from error
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:  # the last: of an impossible host name
        raise UrlError(f"could not fetch the image URL: {str(error)[:200] or type(error).__name__}") from error


async def _follow(
    start: str,
    mode: UrlMode,
    max_bytes: int,
    resolve: Resolve,
    judge: Callable[[Address], bool] | None,
    tls: ssl.SSLContext,
    own: OwnServer | None,
) -> bytes:
    if mode == "off" and own is None:
        raise UrlError("expected base64, got a URL, and this service does not fetch URLs")
    url = _parsed(start)
    for _ in range(MAX_REDIRECTS + 1):
        if own is not None and not own.has(url):
            own = None  # for good: who is led back to it by another server comes without its token
        if own is None and mode == "off":
            raise UrlError("expected base64, got a URL, and this service does not fetch URLs")
        host, port = url.raw_host.decode("ascii"), _port(url)
        addresses = await _look_up(host, port, resolve)
        if (
            own is None
            and judge is not None
            and not (addresses and all(judge(ipaddress.ip_address(one)) for one in addresses))
        ):
            # One message for a name that nobody knows and for one of an inner network: which it is, is not told.
            raise UrlError(f"expected an image URL whose host has public addresses only, {_short(host)!r} has not")
        if not addresses:
            raise UrlError(f"could not fetch the image URL: there is no host {_short(host)!r}")
        # A connection of its own for each hop: no other name's, with the certificate of that one.
        async with httpx.AsyncHTTPTransport(verify=tls, trust_env=False) as transport:
            response = await _get(url, addresses[:_ADDRESSES_TRIED], transport, _headers(own))
            try:
                if not response.has_redirect_location:
                    return await _content(response, max_bytes, is_own=own is not None)
                url = _parsed(url.join(response.headers["location"]))
            finally:
                await response.aclose()  # whatever a redirect has for a body is never read
    raise UrlError(f"could not fetch the image URL: expected at most {MAX_REDIRECTS} redirects, got more")


def _parsed(url: str | httpx.URL) -> httpx.URL:
    """Asked of every URL before anything is done for it, redirects included."""
    url = httpx.URL(url)
    if url.userinfo:
        raise UrlError("expected an image URL without a user name or password, which are not sent on")
    if url.scheme not in ("http", "https") or not url.host or not 0 <= (url.port or 0) <= 65535:
        raise UrlError(f"expected an http(s) URL with a host and a valid port, got {str(url)[:80]!r}")
    return url


async def _look_up(host: str, port: int, resolve: Resolve) -> list[str]:
    """The host's addresses; none where there are none to be had.

    In a thread that nobody waits for once time is up: the system's look-up cannot be told to stop.
    """
    loop = asyncio.get_running_loop()
    answered: asyncio.Future[list[str]] = loop.create_future()

    def answer(found: list[str] | Exception) -> None:
        if answered.done():
            return
        if isinstance(found, Exception):
            answered.set_exception(found)
        else:
            answered.set_result(found)

    def look_up() -> None:
        found: list[str] | Exception
        try:
            found = list(resolve(host, port))
        except (OSError, ValueError):  # ValueError: a name that is none, to the codec that would send it
            found = []
        except Exception as error:  # to be raised where it is awaited
            found = error
        with suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(answer, found)

    threading.Thread(target=look_up, name="look-up", daemon=True).start()
    return await answered


def _port(url: httpx.URL) -> int:
    return url.port or {"http": 80, "https": 443}.get(url.scheme, 0)


def _headers(own: OwnServer | None) -> dict[str, str]:
    if own is None:
        return _HEADERS
    # A server that negotiates what it sends may have no view that promises images.
    return _HEADERS | {"accept": "*/*"} | ({} if own.authorization is None else {"authorization": own.authorization})


async def _get(
    url: httpx.URL, addresses: list[str], transport: httpx.AsyncHTTPTransport, headers: dict[str, str]
) -> httpx.Response:
    """The head of the answer, from the first of the addresses that takes a connection. Raises httpx.HTTPError."""
    for last, address in zip([*[False] * (len(addresses) - 1), True], addresses, strict=True):
        request = httpx.Request(
            "GET",
            url.copy_with(host=address),
            headers=headers | {"host": url.netloc.decode("ascii")},
            extensions={
                "sni_hostname": url.raw_host.decode("ascii"),
                "timeout": {"connect": None if last else _CONNECT_S},
            },
        )
        try:
            return await transport.handle_async_request(request)
        except (httpx.ConnectError, httpx.ConnectTimeout):
            if last:
                raise
    raise AssertionError("there is always an address")


async def _content(response: httpx.Response, max_bytes: int, *, is_own: bool) -> bytes:
    if not response.is_success:
        told = f"the image URL answered {response.status_code} {response.reason_phrase[:40]}".rstrip()
        raise UrlStatusError(told, response.status_code, is_own=is_own)
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind and not kind.startswith("image/") and kind not in _UNKNOWN_CONTENT:
        raise UrlError(f"expected an image, the image URL answered with {kind[:60]}")
    too_much = f"expected an image of at most {max_bytes} bytes, the image URL sends more"
    stated = response.headers.get("content-length", "")
    if stated.isdecimal() and int(stated[:20]) > max_bytes:
        raise UrlError(too_much)
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > max_bytes:
            raise UrlError(too_much)
    return bytes(body)


def _short(host: str) -> str:
    return host if len(host) <= 60 else f"{host[:60]}..."


@cache
def _tls() -> ssl.SSLContext:
    """Shared by all fetches: reading the certificates takes longer than most of them."""
    return httpx.create_ssl_context()
