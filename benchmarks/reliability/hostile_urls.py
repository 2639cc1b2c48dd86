"""URLs that an attacker would send to make the service talk to its own machine or network, in all their disguises."""

from __future__ import annotations

# What names resolve to where somebody's name server says so; `ssrf` cannot have such names, the tests can.
NAMES = {
    "inner.example": ["10.0.0.5"],
    "home.example": ["127.0.0.1"],
    "home6.example": ["::1"],
    "metadata.example": ["169.254.169.254"],
    "half.example": ["93.184.215.14", "127.0.0.1"],  # one public address does not excuse the other
    "half6.example": ["2606:2800:21f:cb07::1", "fd00:ec2::254"],
    "mapped.example": ["::ffff:127.0.0.1"],
    "nothing.example": [],
}


def hostile_urls(port: int) -> dict[str, list[str]]:
    """By kind, URLs with this port; each leads to this machine or to a network that is not public, or nowhere."""
    return {
        "loopback": _each(
            port, "127.0.0.1", "localhost", "LOCALHOST", "localhost.", "127.0.0.2", "127.255.255.254", "[::1]"
        )
        + [f"https://127.0.0.1:{port}/a.png", f"  http://127.0.0.1:{port}/a.png", f"HTTP://127.0.0.1:{port}/a.png"],
        "other spellings": _each(
            port,
            "2130706433",
            "017700000001",
            "0x7f000001",
            "0177.0.0.1",
            "0177.0.0.01",
            "0x7f.1",
            "0x7f.0.0.1",
            "0x7F.0x0.0x0.0x1",
            "127.1",
            "127.0.1",
            "127.0.0.1.",
            "127.0.0.01",
            "0000127.0.0.1",
            "①②⑦.⓪.⓪.①",
            "127。0。0。1",
            "\uff11\uff12\uff17.0.0.1",
            "[0:0:0:0:0:0:0:1]",
            "[0000::0001]",
            "%31%32%37.0.0.1",
            "4294967296",
            "2852039166",
            "0xa9fea9fe",
            "0251.0376.0251.0376",
        ),
        "this host": _each(port, "0.0.0.0", "0", "0x0", "00", "[::]", "[::0]", "0.1.2.3"),
        "IPv4 inside IPv6": _each(
            port,
            "[::ffff:127.0.0.1]",
            "[::ffff:7f00:1]",
            "[::FFFF:10.0.0.1]",
            "[::ffff:8.8.8.8]",
            "[::127.0.0.1]",
            "[::7f00:1]",
            "[::ffff:0:127.0.0.1]",
            "[64:ff9b::127.0.0.1]",
            "[64:ff9b::a9fe:a9fe]",
            "[64:ff9b:1::1]",
            "[2002:7f00:1::]",
            "[2002:a00:1::1]",
            "[2001:0:4136:e378:8000:63bf:f5ff:fffe]",
            "[2001::1]",
        ),
        "inner networks": _each(
            port,
            "10.0.0.1",
            "10.255.255.255",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.0.1",
            "192.168.1.254",
            "100.64.0.1",
            "100.127.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "198.18.0.1",
            "198.51.100.1",
            "203.0.113.9",
            "192.88.99.1",
            "[fc00::1]",
            "[fd12:3456::1]",
            "[fe80::1]",
            "[fe80::1%25lo]",
            "[fec0::1]",
            "[2001:db8::1]",
            "[3fff::1]",
            "[100::1]",
            "[5f00::1]",
        ),
        "metadata services": _each(
            port, "169.254.169.254", "169.254.170.2", "[fd00:ec2::254]", "100.100.100.200", "192.0.0.192"
        )
        + [
            "http://169.254.169.254/latest/meta-data/iam/security-credentials/",
            "http://169.254.169.254/metadata/instance?api-version=2021-02-01",
            "http://metadata.google.internal/computeMetadata/v1/",
        ],
        "multicast and reserved": _each(
            port, "224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255", "[ff02::1]", "[ff0e::1]"
        ),
        "confused parsers": [
            f"http://example.org@127.0.0.1:{port}/a.png",
            f"http://user:secret@127.0.0.1:{port}/a.png",
            f"http://127.0.0.1:{port}\\@example.org/a.png",
            f"http://example.org:80@127.0.0.1:{port}/",
            f"http://127.0.0.1:{port}#@example.org/a.png",
            f"http://127.0.0.1:{port}?@example.org/a.png",
            f"http:127.0.0.1:{port}/a.png",
            f"http:/127.0.0.1:{port}/a.png",
            f"http:///127.0.0.1:{port}/a.png",
            f"http://127.0.0.1:{port}:80/a.png",
            f"http://127.0.0.1%00.example.org:{port}/a.png",
            f"http://127.0.0.1\t:{port}/a.png",
            f"http://127.0.0.1\r\nx: y:{port}/a.png",
            f"http://127.0.0.1\r\n:{port}/a.png",
            f"http://\u0000127.0.0.1:{port}/a.png",
            f"http://[::1:{port}/a.png",
            f"http://[127.0.0.1]:{port}/a.png",
            f"http://[::1]]:{port}/a.png",
            "http://127.0.0.1:0/",
            "http://127.0.0.1:65536/",
            "http://127.0.0.1:-1/",
            f"http://127.0.0.1:{port + 65536}/",
            "http://",
            "http://:80/",
            f"http://*:{port}/",
            f"http://{'1' * 400}:{port}/",
            f"http://{'.'.join(['127'] * 90)}:{port}/",
        ],
        "other schemes": [
            "file:///etc/passwd",
            "ftp://127.0.0.1/a.png",
            f"gopher://127.0.0.1:{port}/_GET%20/",
            f"dict://127.0.0.1:{port}/stat",
            f"ws://127.0.0.1:{port}/",
            f"//127.0.0.1:{port}/a.png",
            "jar:http://127.0.0.1!/a.png",
            "unix:///run/docker.sock",
            "data:text/plain,http://127.0.0.1/",
        ],
    }


def _each(port: int, *hosts: str) -> list[str]:
    return [f"http://{host}:{port}/a.png" for host in hosts]
