"""A hook of mkdocs: which pages the site has, and where links lead that leave docs/.

On GitHub `../README.md` and `../examples/client.py` are files of the repository. On the site the README is the first
page, and a file that a page links to is copied to `repository/`, so that the site needs nothing but itself.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

DOCS = Path(__file__).resolve().parents[1]
REPOSITORY = DOCS.parent
README = "README.md"
# What is not there is left out; a document that is not here fails the build.
SECTIONS = {
    "Start": ("quickstart.md", "playground.md", "concepts.md", "walkthrough.md", "choosing.md", "detectors.md"),
    "Use": ("api.md", "client.md", "migrating.md", "run.md", "labelling.md", "training-sets.md"),
    "Train and measure": ("data.md", "finetuning.md", "evaluation.md"),
    "Run it": (
        "settings.md",
        "deploy.md",
        "scale.md",
        "mlflow.md",
        "onnx.md",
        "weights.md",
        "performance.md",
        "security.md",
        "observability.md",
        "reliability.md",
        "troubleshooting.md",
    ),
    "Change it": ("architecture.md", "contributing.md", "dependencies.md"),
}
_FENCE = re.compile(r"^ {0,3}```", re.MULTILINE)
_LOADED_FROM_ELSEWHERE = re.compile(
    r"<(?:script|img|iframe|source|link(?=[^>]*(?:stylesheet|preload|icon)))\b[^>]*\b(?:src|href)="
    r"[\"']?(?:https?:)?//[^\"'>\s]*"
)
_OTHERS = "repository/"  # where the site has what is not in docs/
_LINK = re.compile(r"(!?\[[^\]]*\]\()([^)\s#]*)(#[^)\s]*)?(\))")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    listed = [{name: [page for page in pages if (DOCS / page).is_file()]} for name, pages in SECTIONS.items()]
    config.nav = [{"box2mask": "index.md"}, *listed]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    text = _translated((REPOSITORY / README).read_text(encoding="utf-8"), REPOSITORY)
    files.append(File.generated(config, "index.md", content=text))
    documents = [REPOSITORY / README, *sorted(DOCS.glob("*.md"))]
    for document in documents:
        for path in _linked_files(document):
            source = f"{_OTHERS}{path.as_posix()}"
            if files.get_file_from_path(source) is None:
                copy = {"abs_src_path": str(REPOSITORY / path), "inclusion": InclusionLevel.NOT_IN_NAV}
                files.append(File.generated(config, source, **copy))
                documents += [REPOSITORY / path] if path.suffix == ".md" else []  # whose own links are on the site too
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    source = page.file.src_uri
    if source == "index.md":
        return markdown
    if not source.startswith(_OTHERS):
        return _translated(markdown, DOCS)
    return _translated(markdown, (REPOSITORY / source.removeprefix(_OTHERS)).parent, os.path.dirname(source))


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """A page that would load anything from elsewhere fails the build."""
    if found := _LOADED_FROM_ELSEWHERE.search(output):
        raise PluginError(f"{page.file.src_uri} loads from elsewhere: {found[0]}")
    return output


def _linked_files(document: Path) -> list[Path]:
    """The files of the repository, outside docs/, that the document links to."""
    found = []

    def note(target: str) -> str:
        path = _in_repository(target, document.parent)
        if path is not None and path.as_posix() != README and DOCS not in (REPOSITORY / path).parents:
            found.append(path)
        return target

    _each_link(document.read_text(encoding="utf-8"), note)
    return found


def _translated(text: str, base: Path, folder: str = "") -> str:
    """The text with links as they are on the site, where the documents lie side by side.

    base: where its own links start. folder: of the site, in which the page is.
    """

    def translate(target: str) -> str:
        path = _in_repository(target, base)
        if path is None:
            return target
        absolute = REPOSITORY / path
        if path.as_posix() == README:
            place = "index.md"
        else:
            place = absolute.relative_to(DOCS).as_posix() if DOCS in absolute.parents else f"{_OTHERS}{path.as_posix()}"
        return os.path.relpath(place, folder or ".")

    return _each_link(text, translate)


def _in_repository(target: str, base: Path) -> Path | None:
    """The file that a relative link leads to, by its path in the repository. Raises PluginError where there is none."""
    if not target or re.match(r"[a-z]+:|/", target):
        return None
    absolute = Path(os.path.normpath(base / target))
    if not absolute.is_file() or REPOSITORY not in absolute.parents:
        raise PluginError(f"a link in {base.name}/ leads to {target}: expected a file of the repository")
    return absolute.relative_to(REPOSITORY)


def _each_link(text: str, change: Callable[[str], str]) -> str:
    """The text with `change` applied to the address of every link outside of code blocks."""
    parts, start, inside = [], 0, False
    for fence in (*_FENCE.finditer(text), None):
        end = len(text) if fence is None else fence.start()
        part = text[start:end]
        if not inside:
            part = _LINK.sub(lambda link: f"{link[1]}{change(link[2])}{link[3] or ''}{link[4]}", part)
        parts.append(part)
        start, inside = end, not inside
    return "".join(parts)
