#!/usr/bin/env bash
# One would guess: uvicorn --workers 2 answers a small request as fast as one worker does, or faster.
# Instead: each answer on a kept connection takes 40 ms more. uvicorn alone lets asyncio open its port, and asyncio
# then sets TCP_NODELAY. With workers (or --reload), uvicorn opens the port itself without naming the protocol; asyncio
# sets TCP_NODELAY only where it is named. So the body waits until the client has confirmed the head, and the client
# waits 40 ms with that.
# Why it matters: a click on an image whose embedding is known takes some milliseconds; this is several times that.
# A benchmark with a new connection for each request does not see it. With uvloop the option is set in either case.
# Seen with: uvicorn 0.54.0 on Linux, Python 3.11 and its own event loop. Source: uvicorn issue 3149, open at that time.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet uvicorn==0.54.0 h11==0.16.0 click==8.5.1
cat >"$work/small.py" <<'PY'
async def app(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})
PY
cat >"$work/try.py" <<'PY'
import http.client
import socket
import statistics
import subprocess
import sys
import time
from importlib.metadata import version


def milliseconds(*options):
    """The median of 30 requests on one connection."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "uvicorn", "small:app", "--port", str(port), "--loop", "asyncio", "--http", "h11"]
    server = subprocess.Popen([*command, "--log-level", "error", *options], cwd=sys.argv[1])
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        for _ in range(300):  # until it listens
            try:
                connection.connect()
                break
            except ConnectionRefusedError:
                time.sleep(0.1)
        times = []
        for _ in range(30):
            start = time.perf_counter()
            connection.request("GET", "/")
            connection.getresponse().read()
            times.append(1000 * (time.perf_counter() - start))
    finally:
        server.terminate()
        server.wait(30)
    print(f"uvicorn {' '.join(options) or '(one worker)'}: median {statistics.median(times):.1f} ms a request")
    return statistics.median(times)


print("uvicorn", version("uvicorn"), "- Python", sys.version.split()[0])
alone, workers = milliseconds(), milliseconds("--workers", "2")
if not workers > alone + 25:
    sys.exit("no longer so: workers answer as fast as one alone")
print("as stated: with two workers each answer waits for the client's delayed confirmation")
PY
"$work/venv/bin/python" "$work/try.py" "$work"
