"""Links in the documents: files that they lead to are there, and so are the headings."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

import pytest

REPOSITORY = Path(__file__).parents[2]
DOCUMENTS = sorted([*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").rglob("*.md")])


def prose(path: Path) -> str:
    """The document without its code, in which brackets are no links."""
    text = re.sub(r"^( *)```.*?^\1```$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"(`+)(?!`).+?(?<!`)\1(?!`)", lambda code: code[0].replace("](", "] ("), text)


def anchors(path: Path) -> set[str]:
    """The names that GitHub gives the headings, and the site as well."""
    found: dict[str, int] = {}
    names = set()
    for heading in re.findall(r"^#{1,6} +(.+?) *#*$", prose(path), re.MULTILINE):
        text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        name = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
        names.add(f"{name}-{found[name]}" if name in found else name)
        found[name] = found.get(name, 0) + 1
    return names


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(document)):
        if re.match(r"(https?|mailto):", target):
            continue
        path, _, anchor = unquote(target).partition("#")
        assert not path.startswith("/"), f"{target}: expected a relative link"
        place = (document.parent / path).resolve() if path else document
        assert place.is_file() and REPOSITORY in place.parents, f"{target}: there is no such file"
        assert not anchor or (place.suffix == ".md" and anchor in anchors(place)), f"{target}: no such heading"


def test_the_readme_leads_to_every_document() -> None:
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    for path in (REPOSITORY / "docs").glob("*.md"):
        assert f"](docs/{path.name}" in readme, path.name


def test_anchors_are_githubs(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A b\n## `POST /x`: what, why\n## A b\n```\n# no heading\n```\n### [Link](x.md) & more_of\n")
    assert anchors(page) == {"a-b", "post-x-what-why", "a-b-1", "link--more_of"}
