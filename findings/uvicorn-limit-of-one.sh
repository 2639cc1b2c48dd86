#!/usr/bin/env bash
# One would guess: uvicorn --limit-concurrency 1 works on one request at a time, and refuses a second one meanwhile.
# Instead: it refuses every request with 503. What is counted are open connections too, and the one that the request
# came by is among them. With N, at most N - 1 connections are served, whether they ask for anything or not: one idle
# client is enough for a limit of 2 to refuse all.
# Why it matters: a model that takes one image at a time seems to want just this setting. A load balancer that keeps
# connections open fills the limit without a single request in work.
# Seen with: uvicorn 0.54.0. Source: noted in the review of uvicorn's pull request 3029; it is the check in its protocols.
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
import subprocess
import sys
import time
from importlib.metadata import version


def statuses(limit, idle):
    """Five requests, one after the other on one connection, beside so many idle connections."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "uvicorn", "small:app", "--port", str(port), "--limit-concurrency", str(limit)]
    server = subprocess.Popen([*command, "--log-level", "critical"], cwd=sys.argv[1])
    others = []
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        for _ in range(300):  # until it listens
            try:
                connection.connect()
                break
            except ConnectionRefusedError:
                time.sleep(0.1)
        others = [socket.create_connection(("127.0.0.1", port)) for _ in range(idle)]
        time.sleep(0.5)  # the server has taken them
        seen = []
        for _ in range(5):
            connection.request("GET", "/")
            answer = connection.getresponse()
            answer.read()
            seen.append(answer.status)
    finally:
        for other in others:
            other.close()
        server.terminate()
        server.wait(30)
    print(f"limit {limit}, {idle} idle connections: {seen}")
    return set(seen)


print("uvicorn", version("uvicorn"))
seen = [statuses(1, 0), statuses(2, 0), statuses(2, 1), statuses(8, 2)]
if seen != [{503}, {200}, {503}, {200}]:
    sys.exit("no longer so: connections without a request are not counted")
print("as stated: a limit of 1 serves nobody, and idle connections use a limit up")
PY
"$work/venv/bin/python" "$work/try.py" "$work"
