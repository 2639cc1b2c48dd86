"""Does the two commands of the README on machines that have nothing yet: `make fresh-test`; as root, with debootstrap.

Such a machine is a minimal Debian in a chroot, with the packages that the README names and this repository's last
commit. `make serve` has to answer a request, `make test` has to pass; both are timed, and what they leave is measured.
Bases stay in --cache. pip finds what it finds here, and so may a part of what it fetches: --bind shares pip's cache.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import httpx
from chroots import in_chroot, make_debian, pip_mounts, size_of
from trial import Failed, check_answer, expect, free_port, sample_requests, started

REPOSITORY = Path(__file__).parents[1]
SUITES = {"bookworm": "Debian 12", "trixie": "Debian 13", "forky": "Debian 14, in the making"}
# The last is git's, which asks for it as what most of its users want.
PACKAGES = ("git", "make", "python3-venv", "ca-certificates")
CLONE = Path("/root/box2mask")
INSTALLED_WITHIN_S = 4 * 3600.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    temporary = Path(tempfile.gettempdir()) / "box2mask-fresh-test"
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=f"{', '.join(SUITES)} (bookworm and trixie)")
    parser.add_argument("--cache", type=Path, default=temporary, help="where bases and logs are kept (%(default)s)")
    parser.add_argument("--no-tests", action="store_true", help="only `make serve`")
    parser.add_argument("--keep", action="store_true", help="leave each machine in --cache, to look around in it")
    parser.add_argument("--make", action="append", default=[], metavar="NAME=VALUE", help="of make, as in TORCH=cpu")
    parser.add_argument(
        "--bind",
        action="append",
        default=[],
        metavar="HERE[:THERE]",
        help="this machine's folder, seen there",
    )
    arguments = parser.parse_args()
    if os.geteuid():
        parser.error("a chroot with a system in it needs root")
    for program in ("debootstrap", "unshare"):
        if shutil.which(program) is None:
            parser.error(f"there is no {program}; Debian has it as a package")
    failed = False
    for suite in arguments.suites or ("bookworm", "trixie"):
        try:
            try_suite(suite, arguments)
        except Failed as failure:
            print(f"fresh-test: {suite}: {failure}", file=sys.stderr)
            failed = True
    return int(failed)


def try_suite(suite: str, arguments: argparse.Namespace) -> None:
    """Both commands on a fresh Debian. Raises Failed."""
    cache: Path = arguments.cache
    archive = cache / f"{suite}.tar"
    make_debian(archive, suite, PACKAGES)
    with ExitStack() as stack:
        if arguments.keep:
            root = Path(tempfile.mkdtemp(prefix=f"{suite}-", dir=cache))
        else:
            root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=f"{suite}-", dir=cache)))
        subprocess.run(["tar", "--directory", str(root), "--extract", "--file", str(archive)], check=True)
        root.chmod(0o755)
        settings = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        # This machine's own name too, as an installer notes it: torch's launcher of several processes looks it up.
        names = {path: path for path in (Path("/etc/resolv.conf"), Path("/etc/hosts"))}
        mounts = {Path("/mnt"): REPOSITORY} | names | pip_mounts(settings)
        for bind in arguments.bind:
            here, _, there = bind.partition(":")
            mounts[Path(there or here)] = Path(here).resolve()
        clone = ["git", "-c", "safe.directory=*", "clone", "--quiet", "/mnt", str(CLONE)]
        run(in_chroot(root, mounts, clone), cache / f"{suite}-clone.log")
        version = run(in_chroot(root, mounts, ["python3", "--version"]), cache / f"{suite}-python.log")
        print(f"{SUITES.get(suite, suite)}, {version}", flush=True)
        make = ["make", "--directory", str(CLONE), *arguments.make]
        shared = mounts.keys() & {Path("/root/.cache"), Path("/root/.cache/pip")}
        port = free_port()
        serve(in_chroot(root, mounts, [f"BOX2MASK_PORT={port}", *make, "serve"]), port, cache / f"{suite}-serve.log")
        print(f"  {sizes(root, bool(shared))}", flush=True)
        if not arguments.no_tests:
            began = time.monotonic()
            last = run(in_chroot(root, mounts, [*make, "test"]), cache / f"{suite}-test.log")
            print(f"  make test: {minutes(time.monotonic() - began)}: {last}")
            print(f"  {sizes(root, bool(shared))}", flush=True)


def serve(command: list[str], port: int, log: Path) -> None:
    """`make serve`, until it has answered a request; what it says is in `log`. Raises Failed."""
    body = sample_requests()["pipeline"]
    with log.open("wb") as output:
        try:
            with started(command, port, 0, within_s=INSTALLED_WITHIN_S, output=output) as service:
                answer = httpx.post(f"{service.url}/pipeline/score", content=body, timeout=600, trust_env=False)
                took = time.monotonic() - service.began
                expect("the answer's status", answer.status_code, 200)
                check_answer("pipeline", json.loads(body), answer.json())
                os.kill(service.pid, signal.SIGTERM)
                service.process.wait(timeout=300)
        except Failed as failure:
            raise Failed(f"make serve: {failure}\n{tail(log)}") from None
    print(f"  make serve: {minutes(took)} to the first answer", flush=True)


def run(command: list[str], log: Path) -> str:
    """Run it to its end, with what it says in `log`; returns its last line. Raises Failed."""
    with log.open("wb") as output:
        status = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT).returncode
    if status:
        raise Failed(f"{' '.join(command[-3:])} ended with {status}; {log} says\n{tail(log)}")
    return tail(log, 1)


def sizes(root: Path, shared: bool) -> str:
    """What is on the disk now; pip's cache has about all that was fetched."""
    home = root / CLONE.relative_to("/")
    found = {path.name: size_of(path) for path in sorted(home.glob(".venv*"))}
    fetched = root / "root" / ".cache" / "pip"
    if fetched.exists() and not shared:
        found["fetched by pip"] = size_of(fetched)
    found["all of the machine"] = size_of(root)
    return ", ".join(f"{name} {size / 1e9:.2f} GB" for name, size in found.items())


def tail(log: Path, lines: int = 30) -> str:
    """Its last lines."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


def minutes(seconds: float) -> str:
    return f"{seconds // 60:.0f} min {seconds % 60:.0f} s"


if __name__ == "__main__":
    sys.exit(main())
