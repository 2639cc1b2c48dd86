"""Image URLs over real sockets: what is fetched, what is refused, and that a refused host is not even connected to."""

from __future__ import annotations

import gzip
import ipaddress
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import trustme

from app.images.reading import ImageLimits, image_bytes
from app.images.urls import MAX_REDIRECTS, UrlError, fetch, is_public, system_addresses
from benchmarks.reliability.hostile_urls import NAMES, hostile_urls
from models.images.decoding import ImageError

FILE = b"\x89PNG\r\n\x1a\n, or so the fetcher may believe"
ANY = ImageLimits(urls="any")


class Host(ThreadingHTTPServer):
    """A web server on loopback. `released` ends the answers that would otherwise never end."""

    daemon_threads = True

    def __init__(self, address: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self.address_family = socket.AF_INET6 if ":" in address else socket.AF_INET
        super().__init__((address, port), Answers)
        self.tls = tls
        self.released = threading.Event()
        self.requested: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.connections = 0

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        self.connections += 1
        return connection, address

    def finish_request(self, request: Any, client_address: Any) -> None:
        if self.tls is None:
            super().finish_request(request, client_address)
            return
        with self.tls.wrap_socket(request, server_side=True, do_handshake_on_connect=False) as encrypted:
            encrypted.do_handshake()
            super().finish_request(encrypted, client_address)

    def url(self, path: str, name: str = "127.0.0.1", scheme: str = "http") -> str:
        return f"{scheme}://{name}:{self.server_port}{path}"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up in the middle is what half of these tests are about."""


class Answers(BaseHTTPRequestHandler):
    server: Host

    def do_GET(self) -> None:
        self.server.requested.append(self.path)
        self.server.headers.append({name.lower(): value for name, value in self.headers.items()})
        name, _, argument = self.path.strip("/").partition("?")
        getattr(self, name)(*([argument] if name in ("to", "typed", "status") else []))

    def log_message(self, format: str, *args: object) -> None:
        pass

    def head(self, status: int, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def image(self) -> None:
        self.head(200, content_type="image/png")
        self.wfile.write(FILE)

    def typed(self, kind: str) -> None:
        self.head(200, **({"content_type": kind} if kind else {}))
        self.wfile.write(FILE)

    def moved(self) -> None:
        self.head(302, location="/image", set_cookie="session=1")

    def to(self, where: str) -> None:
        self.head(307, location=where)

    def loop(self) -> None:
        self.head(302, location="/loop")

    def endless_redirect(self) -> None:
        self.head(302, location="/image")
        self._endless()

    def inflating_redirect(self) -> None:
        self.head(302, location="/image", content_encoding="gzip")
        self.wfile.write(gzip.compress(bytes(10_000_000)))

    def missing(self) -> None:
        self.head(404)

    def page(self) -> None:
        self.head(200, content_type="text/html; charset=utf-8")
        self.wfile.write(b"<!DOCTYPE html><title>Sign in</title>")

    def gzipped(self) -> None:
        self.head(200, content_encoding="gzip")
        self.wfile.write(gzip.compress(bytes(1_000_000)))

    def endless(self) -> None:
        self.head(200)
        self._endless()

    def boasting(self) -> None:
        self.head(200, content_length="9999999999")
        self.server.released.wait(30)

    def _endless(self) -> None:
        while not self.server.released.is_set():
            self.wfile.write(bytes(4096))

    def silent(self) -> None:
        self.server.released.wait(30)

    def trickle_head(self) -> None:
        self.wfile.write(b"HTTP/1.0 200 OK\r\nx: ")
        self._trickle()

    def trickle_body(self) -> None:
        self.head(200)
        self._trickle()

    def _trickle(self) -> None:
        while not self.server.released.wait(0.02):
            self.wfile.write(b"x")

    def cut(self) -> None:
        self.head(200, content_length="1000")
        self.wfile.write(FILE)

    def garbage(self) -> None:
        self.wfile.write(b"\0\xff not http\r\n\r\n")


@contextmanager
def hosting(*arguments: Any) -> Iterator[Host]:
    server = Host(*arguments)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.released.set()
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def host() -> Iterator[Host]:
    with hosting() as server:
        yield server


def get(url: str, names: dict[str, list[str]] | None = None, **options: Any) -> bytes:
    """Fetch as in public mode, with these names, and loopback's 127.0.0.1 and ::1 standing for public addresses."""
    as_public = (ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address("::1"))
    return fetch(
        url,
        "public",
        max_bytes=1_000_000,
        timeout_s=options.pop("timeout_s", 20),
        resolve=options.pop("resolve", lambda name, port: (names or {}).get(name, [])),
        is_allowed=lambda address: address in as_public,
        **options,
    )


# --- what is fetched


@pytest.mark.parametrize("path", ["/image", "/moved", "/image?a=b%20c"])
def test_url(host: Host, path: str) -> None:
    assert image_bytes(host.url(path), ANY) == FILE


def test_url_with_white_space_around_and_a_shouted_scheme(host: Host) -> None:
    assert image_bytes(f"\n {host.url('/image').replace('http', 'HTTP')} \n", ANY) == FILE


@pytest.mark.parametrize(
    "kind", ["image/jpeg", "IMAGE/x-anything; q=1", "application/octet-stream", "binary/octet-stream", ""]
)
def test_what_object_stores_call_an_image(host: Host, kind: str) -> None:
    assert image_bytes(host.url(f"/typed?{kind.replace(' ', '')}"), ANY) == FILE


@pytest.mark.parametrize("kind", ["text/html", "application/json", "text/plain;charset=utf-8", "application/xml"])
def test_what_is_none_is_told_by_its_kind(host: Host, kind: str) -> None:
    with pytest.raises(ImageError, match=f"^expected an image, the image URL answered with {kind.split(';')[0]}$"):
        image_bytes(host.url(f"/typed?{kind}"), ANY)


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/missing", "the image URL answered 404 Not Found"),
        ("/loop", "could not fetch the image URL: expected at most 5 redirects, got more"),
        ("/to?file:///etc/passwd", r"expected an http\(s\) URL with a host and a valid port, got 'file:"),
        ("/to?http://a:b@127.0.0.1/image", "expected an image URL without a user name or password"),
        ("/page", "expected an image, the image URL answered with text/html$"),
        ("/cut", "could not fetch the image URL: "),
        ("/garbage", "could not fetch the image URL: "),
    ],
)
def test_url_that_leads_to_no_image(host: Host, path: str, told: str) -> None:
    with pytest.raises(ImageError, match=told):
        image_bytes(host.url(path), ANY)


def test_redirects_are_few(host: Host) -> None:
    with pytest.raises(ImageError):
        image_bytes(host.url("/loop"), ANY)
    assert len(host.requested) == 1 + MAX_REDIRECTS


@pytest.mark.parametrize("path", ["/endless_redirect", "/inflating_redirect"])
def test_what_a_redirect_has_for_a_body_is_not_read(host: Host, path: str) -> None:
    assert image_bytes(host.url(path), ANY) == FILE


@pytest.mark.parametrize("path", ["/endless", "/boasting"])
def test_url_that_sends_too_much(host: Host, path: str) -> None:
    with pytest.raises(ImageError, match="at most 100000 bytes, the image URL sends more"):
        image_bytes(host.url(path), ImageLimits(urls="any", max_bytes=100_000))


def test_compressed_answers_are_not_inflated(host: Host) -> None:
    assert len(image_bytes(host.url("/gzipped"), ANY)) < 2000


@pytest.mark.parametrize("path", ["/silent", "/trickle_head", "/trickle_body"])
def test_url_that_takes_too_long(host: Host, path: str) -> None:
    with pytest.raises(ImageError, match=r"expected the image URL to answer within 0\.3 s"):
        image_bytes(host.url(path), ImageLimits(urls="any", url_timeout_s=0.3))


def test_a_name_server_that_takes_too_long() -> None:
    """The system's look-up cannot be told to stop; nobody waits for it."""
    ended = threading.Event()
    looking = threading.Event()

    def resolve(name: str, port: int) -> list[str]:
        looking.set()
        ended.wait(30)
        return ["127.0.0.1"]

    try:
        with pytest.raises(UrlError, match="within 0.3 s"):
            get("http://slow.example/", resolve=resolve, timeout_s=0.3)
        assert looking.is_set() and not ended.is_set()
    finally:
        ended.set()


def test_urls_can_be_turned_off(host: Host) -> None:
    with pytest.raises(ImageError, match="does not fetch URLs"):
        image_bytes(host.url("/image"), ImageLimits(urls="off"))
    assert host.connections == 0


@pytest.mark.parametrize("mode", ["public", "any"])
@pytest.mark.parametrize(
    "url",
    [
        "http://",
        "http:///image",
        "http://127.0.0.1:99999/",
        "http://127.0.0.1:-1/",
        "http://127.0.0.1:0/",
        "http://[::1/",
        "http://a b/",
        "http://exa\0mple/",
        f"http://{'a' * 300}.invalid/",
        f"https://{'a' * 70}.invalid/",
        "http://xn--a/",
        "http://..../",
        "http://127.0.0.1:1/image",
    ],
)
def test_impossible_urls(url: str, mode: Any) -> None:
    with pytest.raises(ImageError):
        image_bytes(url, ImageLimits(urls=mode, url_timeout_s=5))


# --- from where


def test_nothing_is_sent_but_the_url(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    assert image_bytes(host.url("/moved"), ANY) == FILE  # which sets a cookie on the way
    for headers in host.headers:
        assert headers.keys() == {"host", "user-agent", "accept", "accept-encoding", "connection"}
        assert headers["host"] == f"127.0.0.1:{host.server_port}"


def test_credentials_are_refused_and_not_repeated(host: Host) -> None:
    for mode in ("public", "any"):
        with pytest.raises(ImageError, match="without a user name or password") as caught:
            image_bytes(host.url("/image", "user:secret@127.0.0.1"), ImageLimits(urls=mode))  # type: ignore[arg-type]
        assert "secret" not in str(caught.value)
    assert host.connections == 0


HOSTILE = [url for urls in hostile_urls(7).values() for url in urls]


def test_the_hostile_urls_are_many() -> None:
    assert len(set(HOSTILE)) == len(HOSTILE) > 100


@pytest.fixture(scope="module")
def inner() -> Iterator[list[Host]]:
    """What must not be reached: this machine's loopback addresses, at one port."""
    with hosting() as first, hosting("127.0.0.2", first.server_port) as second:
        if not _has_ipv6():
            yield [first, second]
            return
        with hosting("::1", first.server_port) as third:
            yield [first, second, third]


@pytest.mark.parametrize("number", range(len(HOSTILE)), ids=[repr(url)[1:60] for url in HOSTILE])
def test_hostile_urls_are_refused_without_a_connection(inner: list[Host], number: int) -> None:
    url = [url for urls in hostile_urls(inner[0].server_port).values() for url in urls][number]

    def resolve(host: str, port: int) -> list[str]:
        assert host.lower() != "example.org"  # no URL is for another host than it seems
        return system_addresses(host, port)

    limits = {"max_bytes": 1000, "timeout_s": 20.0}
    if url.strip().lower().startswith("http"):
        names = {"metadata.google.internal": lambda host, port: ["169.254.169.254"]}
        known = names.get(url.split("/")[2] if url.count("/") > 2 else "", resolve)
        with pytest.raises(UrlError) as caught:
            fetch(url.strip(), "public", resolve=known, **limits)  # type: ignore[arg-type]
        assert len(str(caught.value)) < 250
    with pytest.raises(ImageError):
        image_bytes(url)
    assert [host.connections for host in inner] == [0] * len(inner)


@pytest.mark.parametrize("name", NAMES)
def test_names_that_lead_inside_are_refused_alike(inner: list[Host], name: str) -> None:
    with pytest.raises(UrlError) as caught:
        fetch(
            inner[0].url("/image", name),
            "public",
            max_bytes=1000,
            timeout_s=20,
            resolve=lambda host, port: NAMES[host],
        )
    assert str(caught.value) == f"expected an image URL whose host has public addresses only, '{name}' has not"
    assert [host.connections for host in inner] == [0] * len(inner)


@pytest.mark.parametrize(
    "leads_to", ["http://127.0.0.2:{port}/image", "http://inner.example:{port}/image", "//127.1:{port}/"]
)
def test_redirects_are_judged_too(host: Host, leads_to: str) -> None:
    with hosting("127.0.0.2", host.server_port) as inside:
        names = {"outer.example": ["127.0.0.1"], "inner.example": ["127.0.0.2"], "127.1": ["127.0.0.2"]}
        where = leads_to.format(port=host.server_port)
        with pytest.raises(UrlError, match="public addresses only"):
            get(host.url(f"/to?{where}", "outer.example"), names | {"127.0.0.2": ["127.0.0.2"]})
        assert (host.requested, inside.connections) == ([f"/to?{where}"], 0)


def test_a_name_is_looked_up_once_however_it_answers_next(host: Host) -> None:
    """Rebinding: a name server that first names a public address, and an inner one whenever it is asked again."""
    with hosting("127.0.0.2", host.server_port) as inside:
        looked_up: list[str] = []

        def resolve(name: str, port: int) -> list[str]:
            looked_up.append(name)
            return ["127.0.0.1"] if len(looked_up) == 1 else ["127.0.0.2"]

        assert get(host.url("/image", "rebinding.example"), resolve=resolve) == FILE
        assert looked_up == ["rebinding.example"]
        assert host.headers[0]["host"] == f"rebinding.example:{host.server_port}"
        with pytest.raises(UrlError, match="public addresses only"):  # a fetch later
            get(host.url("/image", "rebinding.example"), resolve=resolve)
        assert (host.connections, inside.connections) == (1, 0)


def test_the_next_address_is_tried_where_one_takes_no_connection(host: Host) -> None:
    if not _has_ipv6():
        pytest.skip("this machine has no IPv6")
    names = {"two.example": ["::1", "127.0.0.1"]}
    assert get(host.url("/image", "two.example"), names) == FILE
    with pytest.raises(UrlError, match="could not fetch the image URL: All connection attempts failed"):
        get("http://two.example:1/image", names)


def test_ipv6(monkeypatch: pytest.MonkeyPatch) -> None:
    if not _has_ipv6():
        pytest.skip("this machine has no IPv6")
    with hosting("::1") as server:
        assert get(server.url("/image", "six.example"), {"six.example": ["::1"]}) == FILE
        assert image_bytes(server.url("/image", "[::1]"), ANY) == FILE
        assert server.headers[1]["host"] == f"[::1]:{server.server_port}"


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def test_tls_is_for_the_name_and_not_for_the_address(authority: trustme.CA) -> None:
    believed = ssl.create_default_context()
    authority.configure_trust(believed)
    server_tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("images.example").configure_cert(server_tls)
    asked: list[str | None] = []
    server_tls.sni_callback = lambda connection, name, context: asked.append(name)
    names = {"images.example": ["127.0.0.1"], "others.example": ["127.0.0.1"], "127.0.0.1": ["127.0.0.1"]}
    with hosting("127.0.0.1", 0, server_tls) as server:
        assert get(server.url("/image", "images.example", "https"), names, tls=believed) == FILE
        assert asked == ["images.example"]
        for name in ("others.example", "127.0.0.1"):  # of which the certificate says nothing
            with pytest.raises(UrlError, match="could not fetch the image URL: .*CERTIFICATE_VERIFY_FAILED"):
                get(server.url("/image", name, "https"), names, tls=believed)
        with pytest.raises(UrlError, match="CERTIFICATE_VERIFY_FAILED"):  # also where the last hop had the right one
            elsewhere = server.url("/image", "others.example", "https")
            get(server.url(f"/to?{elsewhere}", "images.example", "https"), names, tls=believed)
        with pytest.raises(UrlError, match="CERTIFICATE_VERIFY_FAILED"):  # nor is any authority believed
            get(server.url("/image", "images.example", "https"), names)
        assert len(server.requested) == 2


@pytest.mark.parametrize(
    "address",
    ["8.8.8.8", "1.1.1.1", "93.184.215.14", "20.150.0.1", "100.63.255.255", "100.128.0.1", "172.15.0.1", "172.32.0.1"]
    + ["2606:2800:21f:cb07::1", "2a00:1450:4001::8a", "2001:4860:4860::8888", "64:ff9b::8.8.8.8"],
)
def test_public_addresses(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "network",
    ["0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24"]
    + ["192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24"]
    + ["224.0.0.0/4", "240.0.0.0/4", "::/96", "::ffff:0:0/96", "::ffff:0:0:0/96", "64:ff9b:1::/48", "100::/64"]
    + ["2001::/32", "2001:db8::/32", "2002::/16", "3fff::/20", "fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8"],
)
def test_networks_of_special_purposes_are_not_public(network: str) -> None:
    whole = ipaddress.ip_network(network)
    for address in (whole[0], whole[1], whole[whole.num_addresses // 2], whole[-1]):
        assert not is_public(address)


@pytest.mark.parametrize("inside", ["127.0.0.1", "10.1.2.3", "169.254.169.254", "100.64.0.1", "0.0.0.0"])
def test_nat64_is_as_public_as_the_address_in_it(inside: str) -> None:
    assert not is_public(ipaddress.ip_address(f"64:ff9b::{inside}"))


def _has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True
