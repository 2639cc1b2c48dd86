"""docs/troubleshooting.md: its messages are those of the code, and no startup error or kind of error is missing."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from app import errors
from app.settings import Settings, SettingsError

REPOSITORY = Path(__file__).parents[2]
DOCUMENT = (REPOSITORY / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
MORE = "…"
# Where what keeps a service from starting is raised, and the errors that it is told by.
STARTUP = (
    *("app/settings.py", "app/engine/loading.py", "app/server.py", "models/model_errors.py"),
    *("app/commands/serve.py", "app/cluster/service/command.py", "app/cluster/service/deployment.py"),
    *("models/detector/files.py", "models/detector/configs.py", "models/detector/pipelines.py"),
    "models/detector/language.py",
    *("models/segmenter/sam.py", "models/square_images.py", "models/huggingface_folder.py"),
    *("models/detector/huggingface/network.py", "models/detector/huggingface/images.py"),
    *("models/detector/huggingface/texts.py", "models/checkpoints.py", "models/pickles.py", "models/wrappers.py"),
)
STARTUP_ERRORS = ("SettingsError", "ModelFilesError", "CheckpointError", "MissingOpError")
# Put together by pydantic; the test below provokes it.
OF_PYDANTIC = "BOX2MASK_PORT: Input should be a valid integer, unable to parse string as an integer, got 'x'"


def messages() -> list[str]:
    """The first cells of the document's tables, but for their headings."""
    cells = re.findall(r"^\| (``.+?``|`[^`]+`) \|", DOCUMENT, re.MULTILINE)
    return [cell.strip("`").strip() for cell in cells]


def template(node: ast.expr) -> str | None:
    """The text that an expression makes, with `…` for what is put in; None for what is no text."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else MORE for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        left, right = template(node.left), template(node.right)
        return None if left is None and right is None else (left or MORE) + (right or MORE)
    return None


def templates(tree: ast.AST) -> Iterator[str]:
    """Every text in there that says enough to be told from another."""
    pieces = {part for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        text = template(node) if isinstance(node, ast.expr) and node not in pieces else None
        if text is not None and len(re.findall(r"[A-Za-z]", text)) >= 9:
            yield text


def made(path: Path) -> Iterator[tuple[str, str]]:
    """The errors that a module makes, each with its text."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and node.args and isinstance(node.func, ast.Name) and node.func.id[0].isupper():
            whole = template(node.args[0])
            for text in [whole] if whole is not None else templates(node.args[0]):
                yield node.func.id, text
        if isinstance(node, ast.ClassDef):  # a class that knows its own text
            for call in ast.walk(node):
                if isinstance(call, ast.Call) and ast.unparse(call.func) == "super().__init__" and call.args:
                    text = template(call.args[0])
                    if text is not None and text.strip(f"{MORE}: "):
                        yield node.name, text


def says(text: str, message: str) -> bool:
    """Whether the document's message is that text, with or without the row and column before it."""
    pattern = _pattern(text)
    without_place = re.sub(rf"^row {MORE}, (\w+|{MORE}): ", "", message)
    return any(pattern.fullmatch(one) for one in (message, without_place))


@cache
def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(".*".join(map(re.escape, re.sub(f"{MORE}+", MORE, text).split(MORE))))


SOURCES = [path for folder in ("app", "models") for path in (REPOSITORY / folder).rglob("*.py")]


def test_every_message_is_one_of_the_codes() -> None:
    known = {text for path in SOURCES for text in templates(ast.parse(path.read_text(encoding="utf-8")))}
    found = messages()
    assert len(found) > 60
    unknown = [message for message in found if not any(says(text, message) for text in known)]
    assert unknown == [OF_PYDANTIC]


def test_every_startup_error_has_an_entry() -> None:
    found = messages()
    texts = {
        text
        for path in STARTUP
        for name, text in made(REPOSITORY / path)
        if name in STARTUP_ERRORS and text.strip(f"{MORE}: ")
    }
    assert len(texts) > 30
    missing = sorted(text for text in texts if not any(says(text, message) for message in found))
    assert missing == []


def test_every_kind_of_error_has_an_entry_with_its_status() -> None:
    def below(kind: type[errors.ServiceError]) -> list[type[errors.ServiceError]]:
        return [kind, *(one for sub in kind.__subclasses__() for one in below(sub))]

    texts: dict[str, list[str]] = {}
    for path in SOURCES:
        for name, text in made(path):
            texts.setdefault(name, []).append(text)
    texts["ServiceError"] = ["internal error; the server's log has it as request …"]
    rows = re.findall(r"^\| (?:``(.+?)``|`([^`]+)`) \| (\d{3}) \|", DOCUMENT, re.MULTILINE)
    for kind in below(errors.ServiceError):
        own = [message or other for message, other, status in rows if int(status) == kind.status]
        assert any(says(text, one) for text in texts.get(kind.__name__, []) for one in own), kind.__name__


def test_a_setting_of_another_kind_is_told_as_the_document_says(monkeypatch: pytest.MonkeyPatch) -> None:
    assert OF_PYDANTIC in messages()
    monkeypatch.setenv("BOX2MASK_PORT", "x")
    with pytest.raises(SettingsError, match=re.escape(OF_PYDANTIC)):
        Settings.from_environment()
