"""Files broken at random: in their bytes, and in the trees of objects and elements that their parsers make of them."""

from __future__ import annotations

import base64
import binascii
import copy
import json
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import yaml

# What takes the place of a value; some are no JSON, XML or number at all.
HOSTILE = [
    "1e300", "-1", "NaN", "Infinity", "-1e-300", "1" + "0" * 400, '""', "null", "true", "[]", "{}", "[[]]", "[[[]]]",
    '"x"', "0", "0.5", "2000000", "999999999", '"\\ud800"', '"' + "a" * 5000 + '"', "[" * 300, "<a>", "&#x110000;", "é",
    "\x00", "\ufeff", "../../etc", "C:\\a\\b.jpg", "http://h/%2e%2e%2fa", "b'eJw='", "[1, 2", "65536", "-0.0", "1_0",
    "1" * 5000, "http://[", "}", "'", "2001-99-99", "!!int x", "!!timestamp x", "&a [*a]", "? [a]", "01", "a" * 300,
]  # fmt: skip
TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?|[A-Za-z_]+|[\[\]{}<>,:/=]')
# The same for a tree of JSON.
VALUES: list[Any] = [
    None, True, False, 0, -1, 1, 0.5, 1e300, float("nan"), float("inf"), 10**30, 2**31, 65536, "", " ", "x", "nan", "0",
    "1e5", "[1,2]", "{}", [], {}, [[]], [{}], [[1, 2]], {"x": 1}, "\ud800", "a\x00b", "é" * 300, "a}", "{a", "http://[",
    "file://x", "..", "/", "b'1'",
]  # fmt: skip
DEPTHS = (2, 50, 900, 960, 980, 990, 5000, 20_000)
_NEST, _AGAIN = "@nest", "@again"


def mutated(content: bytes, path: Path, rng: random.Random) -> bytes:
    """The file with one to four places changed, in its text or, where it has a tree and that parses, in its tree."""
    if rng.random() < 0.5 and (change := _TREES.get(path.suffix.lower() or path.name)) is not None:
        return change(content.decode(), rng).encode("utf-8", "surrogatepass")
    return _text(content, rng, words=path.suffix != ".png")


def _text(content: bytes, rng: random.Random, *, words: bool = True) -> bytes:
    """Bytes and spans, or values that make sense to its parser."""
    for _ in range(rng.randint(1, 4)):
        if words and rng.random() < 0.6:
            text = content.decode("utf-8", "replace")
            tokens = list(TOKEN.finditer(text))
            if tokens:
                one = rng.choice(tokens)
                other = rng.choice(tokens)[0] if rng.random() < 0.3 else rng.choice(HOSTILE)
                text = text[: one.start()] + other + text[one.end() :]
            content = text.encode("utf-8", "replace")
            continue
        at = rng.randrange(len(content) + 1)
        until = min(len(content), at + rng.choice([1, 1, 2, 8, 60]))
        how = rng.randrange(4)
        if how == 0:
            content = content[:at] + bytes(rng.randrange(256) for _ in range(until - at)) + content[until:]
        elif how == 1:
            content = content[:at] + content[until:]
        elif how == 2:
            content = content[:until] + content[at:until] * rng.choice([1, 2, 50]) + content[until:]
        else:
            content = content[:at]
    return content


def _json(text: str, rng: random.Random) -> str:
    written = json.dumps(_tree(json.loads(text), rng), indent=rng.choice([None, 1]))
    depth = rng.choice(DEPTHS)
    opening, closing = rng.choice([("[", "]"), ('{"a":', "}")])
    nested = opening * depth + "0" + closing * depth
    return written.replace(f'"{_NEST}"', nested).replace(f'"{_AGAIN} ', '"')  # the same name twice in one object


def _json_lines(text: str, rng: random.Random) -> str:
    lines = text.splitlines()
    at = rng.randrange(len(lines))
    lines[at] = _json(lines[at], rng).replace("\n", " ")
    return "\n".join(lines)


def _yaml(text: str, rng: random.Random) -> str:
    changed = _tree(yaml.safe_load(text), rng)
    return json.dumps(changed).replace(_NEST, "[" * rng.choice(DEPTHS[:6]))  # which is YAML, too


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Every list or object in there, with each of its keys."""
    for key in list(tree) if isinstance(tree, dict) else range(len(tree)):
        yield tree, key
        if isinstance(tree[key], list | dict):
            yield from _places(tree[key])


def _tree(document: Any, rng: random.Random) -> Any:
    root = [document]
    for _ in range(rng.randint(1, 4)):
        places = list(_places(root))
        its, key = rng.choice(places)
        value, how = its[key], rng.randrange(8)
        if how == 0 and its is not root:
            del its[key]
        elif how == 1 and isinstance(its, list) and its is not root:
            its[key:key] = [copy.deepcopy(value)] * rng.choice([1, 1, 50])
        elif how == 1 and isinstance(its, dict):
            its[f"{_AGAIN} {key}"] = rng.choice(VALUES)
        elif how == 2:
            others, other = rng.choice(places)
            if not _is_in(others, value) and not _is_in(its, others[other]):
                its[key], others[other] = others[other], value
        elif how == 3:
            its[key] = copy.deepcopy(rng.choice(VALUES))
        elif how == 4:
            its[key] = rng.choice([str(value), [value], {"a": value}, value == 0])
        elif how == 5:
            others, other = rng.choice(places)
            if not _is_in(others, value):
                others[other] = copy.deepcopy(value)
        elif how == 6:
            its[key] = _NEST
        elif isinstance(value, str) and len(value) > 40:
            its[key] = _picture(value, rng)
    return root[0]


def _is_in(container: Any, tree: Any) -> bool:
    """Whether the list or object is the tree, or somewhere in it: there it cannot go without a circle."""
    return container is tree or (isinstance(tree, list | dict) and any(its is container for its, _ in _places(tree)))


def _picture(value: str, rng: random.Random) -> str:
    """What is in base64, broken in there."""
    try:
        return base64.b64encode(_text(base64.b64decode(value, validate=True), rng, words=False)).decode()
    except binascii.Error:
        return value[: rng.randrange(len(value))]


def _xml(text: str, rng: random.Random) -> str:
    root = ElementTree.fromstring(text)
    for _ in range(rng.randint(1, 4)):
        parents = [one for one in root.iter() if len(one)]
        if not parents:
            break
        parent = rng.choice(parents)
        at = rng.randrange(len(parent))
        one, how = parent[at], rng.randrange(8)
        if how == 0:
            parent.remove(one)
        elif how == 1:
            for _ in range(rng.choice([1, 1, 50])):
                parent.insert(at, copy.deepcopy(one))
        elif how == 2:
            other = rng.choice(list(root.iter()))
            one.tag, other.tag = other.tag, one.tag
        elif how == 3:
            rng.choice(list(root.iter())).append(copy.deepcopy(one))
        elif how == 4:
            one.text = rng.choice(_TEXTS)
        elif how == 5 and one.attrib:
            one.set(rng.choice(list(one.attrib)), rng.choice(_TEXTS))
        elif how == 6 and one.attrib:
            del one.attrib[rng.choice(list(one.attrib))]
        else:
            one.text = _NEST
    depth = rng.choice(DEPTHS[:-1])
    return ElementTree.tostring(root, "unicode").replace(_NEST, "<a>" * depth + "</a>" * depth)


_TEXTS = [value for value in map(str, VALUES) if value.isprintable()] + ["1," * 500, "0 " * 500, "9" * 400, "1;2;3;4"]

_TREES: dict[str, Callable[[str, random.Random], str]] = {
    ".json": _json, ".jsonl": _json_lines, ".xml": _xml, ".yaml": _yaml, "MLTable": _yaml,
}  # fmt: skip
