"""Minimal Debians in chroots, as stand-ins for other machines, in which pip finds what it finds here.

Needs root, and Debian's packages `debootstrap` and `util-linux`. It knows nothing of what is run in there.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# In namespaces of its own for mounts and processes; the shell has `$root`.
MOUNT_KERNELS = """\
mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for device in null zero full random urandom; do
    touch "$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
mkdir -m 1777 "$root/dev/shm"
"""

ENTER = f"""\
set -eu
root=$1
shift
mount --make-rprivate /
{MOUNT_KERNELS}
ln -s /proc/self/fd "$root/dev/fd"
mkdir "$root/dev/pts"
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
while [ "$1" != -- ]; do
    mount --rbind "$1" "$root$2"
    shift 2
done
shift
exec env -i "PATH={PATH}" HOME=/root chroot "$root" env "$@"
"""


def make_debian(archive: Path, suite: str, packages: Sequence[str], bytecode: bool = True) -> None:
    """A minimal Debian as a tar file, without what apt has left behind; kept if it is there.

    bytecode: whether Python's library has its own, as Debian's packages bring it. Raises
    CalledProcessError, with debootstrap's words on standard error.
    """
    if archive.exists():
        return
    archive.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=archive.parent) as scratch:
        system, part = Path(scratch) / "system", Path(scratch) / "base.tar"
        # In a mount namespace of its own, so that an interrupted one leaves no /proc behind in there.
        command = ["unshare", "--mount", "debootstrap", "--variant=minbase", f"--include={','.join(packages)}"]
        subprocess.run([*command, suite, str(system)], check=True, stdout=sys.stderr)
        for cache in ("var/cache/apt/archives", "var/lib/apt/lists"):
            shutil.rmtree(system / cache)
            (system / cache).mkdir()
        for folder in [] if bytecode else list((system / "usr" / "lib").rglob("__pycache__")):
            shutil.rmtree(folder)
        subprocess.run(["tar", "--directory", str(system), "--create", "--file", str(part), "."], check=True)
        part.rename(archive)


def in_chroot(root: Path, mounts: Mapping[Path, Path], command: Sequence[str]) -> list[str]:
    """The command line that runs `command` in `root` as root, on this machine's network.

    mounts: what is seen at a path in there, by that path; the places are made, as files or folders. command: may begin
    with variables, as in `A=1 make`; PATH and HOME are the only others.
    """
    pairs: list[str] = []
    for inside, outside in mounts.items():
        place = root / inside.relative_to("/")
        (place if outside.is_dir() else place.parent).mkdir(parents=True, exist_ok=True)
        if not outside.is_dir():
            place.touch()
        pairs += [str(outside), str(inside)]
    namespaces = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
    return [*namespaces, "sh", "-c", ENTER, "sh", str(root), *pairs, "--", *command]


def pip_mounts(folder: Path) -> dict[Path, Path]:
    """Mounts, path inside and path here, by which pip in there finds packages as pip on this machine does.

    Its settings become /etc/pip.conf in there, written to `folder`; local files that they name come along. Of a
    folder of wheels it is a page with their hashes: among equals pip prefers a link that has one.
    """
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], check=True, stdout=subprocess.PIPE, text=True
    ).stdout
    settings: dict[str, str] = {}
    mounts: dict[Path, Path] = {}
    for key, quoted in re.findall(r"^(?:global|install|:env:)\.([\w-]+)=(['\"].*['\"])$", listed, re.MULTILINE):
        words = quoted[1:-1].replace("\\n", " ").split()
        for i, word in enumerate(words):
            path = Path(word.removeprefix("file://"))
            if not path.is_absolute() or not path.exists():
                continue
            mounts[path] = path
            if key == "find-links" and path.is_dir():
                page = Path("/etc", f"pip-links-{path.name}.html")
                mounts[page] = folder / page.name
                mounts[page].write_text(links_page(path))
                words[i] = str(page)
            elif path.name == "simple":  # an index, which may link to files beside it
                mounts[path.parent] = path.parent
        settings[key] = " ".join(words)
    if not settings:
        return {}
    configuration = folder / "pip.conf"
    configuration.write_text("[global]\n" + "".join(f"{key} = {value}\n" for key, value in settings.items()))
    mounts[Path("/etc/pip.conf")] = configuration
    return mounts


def links_page(wheels: Path) -> str:
    links = []
    for wheel in sorted(wheels.glob("*.whl")):
        with wheel.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        links.append(f'<a href="{wheel.as_uri()}#sha256={sha256}">{wheel.name}</a>\n')
    return f"<!DOCTYPE html>\n<html><body>\n{''.join(links)}</body></html>\n"


def size_of(folder: Path) -> int:
    """Bytes, links and all."""
    done = subprocess.run(["du", "-sxb", str(folder)], check=True, stdout=subprocess.PIPE, text=True)
    return int(done.stdout.split()[0])
