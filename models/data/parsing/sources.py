"""References to images in annotation files, and the files that they lead to, though the folders may have moved.

A reference is tried as it stands; then with Windows' backslashes turned, and without percent-encoding. If no such file
is there, the image is looked for by its name in all folders of the data set: another machine's path, `val2017/` beside
`annotations/`, capital letters or another suffix then still lead to it. What was found so, and what was not found, is
counted and said once, by `notes`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args
from urllib.parse import quote, unquote

from models.data.dataset import Place, Problem
from models.data.parsing.contents import is_hidden
from models.data.parsing.suffixes import IMAGE_SUFFIXES
from models.data.parsing.values import BadValueError, text

MOST_FILES = 1_000_000  # that a search by name looks at
LONGEST_PATH, LONGEST_NAME = 4095, 255  # bytes

UPLOADED = re.compile(r"^[0-9a-f]{8}-")  # what Label Studio puts before the names of files
_WINDOWS_DRIVE = re.compile(r"[A-Za-z]:[\\/]")
# A photo of one of these is never taken for one of another.
_SUBSET = re.compile(r"(?:^|[^a-z])(train|val|valid|validation|test)(?:ing)?(?=$|[^a-z])")
_SAME_SUBSET = {"valid": "val", "validation": "val"}
# The ground truth, or else the last annotation; the last or first one, whatever is ground truth; the predictions.
Answer = Literal["truth", "last", "first", "prediction"]
ANSWERS: tuple[Answer, ...] = get_args(Answer)


@dataclass
class Sources:
    """How an annotation file is to be read where that is not told by the file: where its images are above all.

    root: the folder that relative paths start at; None: where the annotation file's format has its images.
    prefixes: what a reference begins with -> what stands there instead (a folder or an http(s) URL); the longest wins.
    normalized: whether coordinates are fractions of the image's width and height (True) or pixels (False); None: as
        the format has them.
    page: which page or frame to take of image files with several, counted from 1.
    scores: whether objects have scores, as predictions have; else what seems to be one is passed over.
    answer: which of a task's several answers is read, one of ANSWERS; in Label Studio's files.
    """

    root: Path | None = None
    prefixes: Mapping[str, str] = field(default_factory=dict)
    normalized: bool | None = None
    page: int = 1
    scores: bool = False
    answer: Answer = "truth"
    _trees: dict[Path, _Tree] = field(default_factory=dict, init=False, repr=False)
    _moved: list[tuple[str, Path]] = field(default_factory=list, init=False, repr=False)
    _missing: list[tuple[str, tuple[Path, ...], Path | None]] = field(default_factory=list, init=False, repr=False)

    def find(
        self,
        reference: object,
        name: str,
        folders: Sequence[Path],
        *,
        tree: Path | None = None,
        hint: str = "",
        otherwise: str | None = None,
        url: str | None = None,
    ) -> Path | str:
        """The image's file, or its URL as text.

        name: the field that holds the reference. folders: where a relative path is looked for, in this order, unless
        there is a root; a file that is nowhere is said to be in the first. tree: the folder in which it is looked for
        by name; None: the first of `folders`. hint: the annotation file's name, which may say which of two folders
        with such an image is meant (`val2017` of `instances_val2017`). otherwise: an image's name without suffix to
        look for where the reference leads to none. url: the image's address, for where there is no such file.

        Raises BadValueError for a reference that nothing on this machine can follow, or that may mean several files.
        """
        found = self.mapped(text(reference, name))
        scheme, separator, rest = found.partition("://")
        if separator and scheme.lower() == "file":
            found = unquote(rest)
        elif separator:
            if scheme.lower() in ("http", "https"):
                return found
            raise BadValueError(
                f"{name}: expected a path, an http(s) URL or an address that a prefix maps to one of these, "
                f"found {found!r} (say where it is with --prefix {scheme}://...=FOLDER)"
            )
        if not is_name(found):
            raise BadValueError(f"{name}: expected the name of a file, found {found!r}")
        folders = [self.root] if self.root else list(folders)
        for form in _forms(found):
            for folder in folders:
                path = os.path.join(folder, form)
                if os.path.isfile(path):
                    return Path(path)
        tree = self.root or tree or folders[0]
        if tree not in self._trees:
            self._trees[tree] = _Tree(tree)
        last = re.split(r"[\\/]", found)[-1]
        uploaded = UPLOADED.sub("", last) if UPLOADED.match(last) else None
        changed = None if uploaded is None else as_uploaded(uploaded)
        for wanted in (found, otherwise, uploaded, changed):
            if wanted is not None and (path_found := self._trees[tree].find(wanted, name, hint)) is not None:
                self._moved.append((found, path_found))
                return path_found
        if url is not None:
            return url
        self._missing.append((found, tuple(folders), tree))
        return folders[0] / found

    def mapped(self, reference: str) -> str:
        """The reference with its longest known prefix, up to a slash or its end, replaced."""
        known = [
            prefix
            for prefix in self.prefixes
            if reference.startswith(prefix) and (prefix.endswith("/") or reference[len(prefix) :][:1] in ("", "/"))
        ]
        if not known:
            return reference
        prefix = max(known, key=len)
        target, rest = self.prefixes[prefix], reference[len(prefix) :]
        if "://" not in target:
            target = os.path.abspath(target)
        return f"{target.rstrip('/')}/{rest.lstrip('/')}" if rest else target

    def notes(self, place: Place) -> list[Problem]:
        """One line for the images that were found by their names only, and one for those that were not found."""
        said = []
        if self._moved:
            reference, path = self._moved[0]
            reason = f"{_images(self._moved)} found by name in another place than the data set says: "
            said.append(Problem(place, f"{reason}{reference} is {path}", fatal=False))
        if self._missing:
            reference, folders, tree = self._missing[0]
            looked = ", ".join(dict.fromkeys(map(str, folders)))
            reason = f"{_images(self._missing)} not found: {reference} was looked for in {looked}"
            if tree is not None:
                reason += f", and by its name in all folders of {tree}"
            reason += "; --images-root DIR says where they are"
            said.append(Problem(place, reason, fatal=False))
        return said


def _images(found: Sequence[object]) -> str:
    return "1 image was" if len(found) == 1 else f"{len(found)} images were"


def is_name(reference: str) -> bool:
    """Whether a file can be called so: without zeros and halves of characters, and no longer than files' names are."""
    try:
        name = os.fsencode(reference)
    except UnicodeEncodeError:
        return False
    return b"\0" not in name and len(name) <= LONGEST_PATH and all(len(one) <= LONGEST_NAME for one in name.split(b"/"))


def is_everything(folder: Path) -> bool:
    """Whether it is the folder that all others are in, which nobody means: to go through it takes hours."""
    whole = Path(os.path.abspath(folder))
    return whole == whole.parent


def as_uploaded(name: str) -> str:
    """What Label Studio calls an uploaded file, after its eight digits: blanks as `_`, and few other characters."""
    return re.sub(r"[^-\w.]", "", name.strip().replace(" ", "_"))


def _forms(reference: str) -> Iterator[str]:
    """The reference, and what it may stand for: with Windows' backslashes, percent-encoded as blobs' names are."""
    yield reference
    turned = reference.replace("\\", "/")
    for other in dict.fromkeys((turned, unquote(reference), unquote(turned))):
        if other != reference and is_name(other):
            yield other


def address(prefix: str, name: str) -> str:
    """The address of an image of this name behind the prefix, written so that it leads back to it.

    A web address is percent-encoded, as a blank, `#` or `?` would end it; `azureml://...` and other addresses are
    names of files to those who read them.
    """
    is_web = prefix.lower().startswith(("http://", "https://", "/"))
    return f"{prefix.rstrip('/')}/{quote(name) if is_web else name}"


class _Tree:
    """The image files in and under a folder, by name. Hidden folders and what macOS leaves behind are passed over."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._by_stem: dict[str, list[str]] = {}
        seen = 0
        for at, folders, files in os.walk(folder):
            folders[:] = sorted(one for one in folders if not is_hidden(Path(one)))
            inside = os.path.relpath(at, folder)
            for file in files:
                stem, suffix = os.path.splitext(file)
                if suffix.lower() in IMAGE_SUFFIXES and not file.startswith("."):
                    path = file if inside == "." else f"{inside}/{file}".replace(os.sep, "/")
                    for form in dict.fromkeys((stem.casefold(), as_uploaded(stem).casefold())):
                        self._by_stem.setdefault(form, []).append(path)
            seen += len(files)
            if seen > MOST_FILES:
                break

    def find(self, reference: str, field: str, hint: str) -> Path | None:
        """The file of this name, with as many of the folders that the reference names as any has.

        Its own suffix comes before another, its own capital letters before others, and a folder that `hint` names
        before others. Raises BadValueError where two are left.
        """
        wanted = unquote(reference.replace("\\", "/")).casefold().split("/")
        literal = reference.replace("\\", "/").rsplit("/", 1)[-1]
        name = wanted[-1]
        stem, suffix = os.path.splitext(name)
        if suffix not in IMAGE_SUFFIXES:
            stem = name
        subsets = _subsets(wanted[:-1]) or _subsets([hint.casefold()])
        ranked: dict[tuple[int, bool, bool, int], list[str]] = {}
        for path in self._by_stem.get(stem, ()):
            parts = path.casefold().split("/")
            its_subsets = _subsets(parts[:-1])
            if subsets and its_subsets and not subsets & its_subsets:
                continue
            common = 0
            for ours, its in zip(reversed(wanted[:-1]), reversed(parts[:-1]), strict=False):
                if ours != its:
                    break
                common += 1
            hinted = sum(part in hint.casefold() for part in parts[:-1])
            rank = (common, parts[-1] == name, path.rsplit("/", 1)[-1] == literal, hinted)
            ranked.setdefault(rank, []).append(path)
        if not ranked:
            return None
        best = ranked[max(ranked)]
        if len(best) > 1:
            shown = " and ".join(best[:3]) + (f" and {len(best) - 3} more" if len(best) > 3 else "")
            raise BadValueError(
                f"{field}: expected one image {reference!r} in {self._folder}, found {shown}; "
                "--images-root DIR says in which folder it is"
            )
        return self._folder / best[0]


def _subsets(names: Sequence[str]) -> set[str]:
    """Which parts of a data set (train, val, test) the names speak of."""
    found = (match[1] for name in names for match in _SUBSET.finditer(name))
    return {_SAME_SUBSET.get(subset, subset) for subset in found}
