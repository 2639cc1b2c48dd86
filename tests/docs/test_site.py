"""The documents as a site: it builds, every link in it leads somewhere, and it loads nothing from elsewhere."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote, urlsplit

import pytest

REPOSITORY = Path(__file__).parents[2]
CONFIG = REPOSITORY / "docs" / "site" / "mkdocs.yml"

pytest.importorskip("material", reason="needs the extra `docs`")


def build(config: Path, site: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--config-file", config, "--site-dir", site]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site") / "site"
    done = build(CONFIG, folder)
    assert done.returncode == 0, done.stderr
    return folder


def test_every_document_is_a_page_that_the_first_one_lists(site: Path) -> None:
    first = (site / "index.html").read_text()
    for document in (REPOSITORY / "docs").glob("*.md"):
        assert (site / document.name).with_suffix(".html").is_file()
        assert f'href="{document.stem}.html"' in first


def test_links_and_pictures_of_the_site_are_in_the_site(site: Path) -> None:
    seen = 0
    for page in site.rglob("*.html"):
        if page.name == "404.html":
            continue
        text = page.read_text()
        for target in re.findall(r'<(?:a|img|link|script)\b[^>]*\b(?:href|src)="([^"]+)"', text):
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                continue
            place = (page.parent / unquote(parts.path)).resolve() if parts.path not in ("", ".") else page
            assert place.exists() and site in (place, *place.parents), f"{page.name}: {target}"
            if parts.fragment and place.suffix == ".html":
                assert f'id="{unquote(parts.fragment)}"' in place.read_text(), f"{page.name}: {target}"
            seen += 1
    assert seen > 500
    assert (site / "repository" / "examples" / "client.py").read_bytes() == (
        REPOSITORY / "examples" / "client.py"
    ).read_bytes()


def test_nothing_comes_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        for tag in re.findall(r"<(?:script|img|iframe|source|link)\b[^>]*>", page.read_text()):
            assert not re.search(r"(?:src|href)=[\"']?(?:https?:)?//", tag) or 'rel="canonical"' in tag, tag
    for style in site.rglob("*.css"):
        assert not re.search(r"url\([\"']?(?:https?:)?//|@import", style.read_text())


def test_links_that_lead_nowhere_fail_the_build(tmp_path: Path) -> None:
    copy = tmp_path / "docs"
    (copy / "site").mkdir(parents=True)
    for name in ("mkdocs.yml", "pages.py"):
        (copy / "site" / name).write_bytes((CONFIG.parent / name).read_bytes())
    (tmp_path / "README.md").write_text("# Readme\n\n[page](docs/api.md#here)\n")
    (copy / "client.md").write_text("# Other\n")
    (copy / "unlisted.md").write_text("# A page that no list has\n")
    (copy / "api.md").write_text("# Page\n\n## Here\n\n[a](client.md#absent) [b](/absolute.md) [c](client.md#other)\n")
    done = build(copy / "site" / "mkdocs.yml", tmp_path / "site")
    assert done.returncode != 0
    warnings = [line for line in done.stderr.splitlines() if line.startswith(("WARNING", "  - "))]
    assert len(warnings) == 4, done.stderr  # the unlisted one takes two lines
    for wrong in ("client.md#absent", "/absolute.md", "unlisted.md"):
        assert any(wrong in line for line in warnings)


def test_links_out_of_the_documents_must_be_to_files_of_the_repository() -> None:
    spec = importlib.util.spec_from_file_location("pages", CONFIG.parent / "pages.py")
    assert spec is not None and spec.loader is not None
    pages = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pages)
    links = "[a](../README.md#install) [b](api.md) [c](../examples/client.py) [d](#here) [e](https://x.example/y.md)"
    assert pages._translated(f"{links}\n```\n[f](../absent.py)\n```\n", pages.DOCS) == (
        "[a](index.md#install) [b](api.md) [c](repository/examples/client.py) [d](#here) [e](https://x.example/y.md)"
        "\n```\n[f](../absent.py)\n```\n"
    )
    for absent in ("../absent.py", "absent.md", "../benchmarks", "../../other/file"):
        with pytest.raises(pages.PluginError, match="expected a file of the repository"):
            pages._translated(f"[x]({absent})", pages.DOCS)
    page = SimpleNamespace(file=SimpleNamespace(src_uri="api.md"))
    for loads in ('<img src="https://example.org/x.png">', "<script async src=//x.example/y.js>"):
        with pytest.raises(pages.PluginError, match="api.md loads from elsewhere"):
            pages.on_post_page(f"<p>{loads}</p>", page, None)
    assert pages.on_post_page('<a href="https://x.example">', page, None)
