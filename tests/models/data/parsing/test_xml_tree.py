"""XML files in the encodings that they declare."""

from __future__ import annotations

import pytest

from models.data.parsing.xml_tree import ElementError, parse

HEAD = '<?xml version="1.0" encoding="{}"?>\n<annotation>\n<name kind="a">{}</name></annotation>'


@pytest.mark.parametrize(
    ("encoding", "name"),
    [
        ("utf-8", "罐é"),
        ("gb2312", "罐"),
        ("GBK", "罐"),
        ("Shift_JIS", "缶"),
        ("euc-kr", "캔"),
        ("windows-1252", "é€"),
        ("koi8-r", "банка"),
        ("utf-16", "罐é"),
        ("latin-1", "é"),
    ],
)
def test_declared_encodings(tmp_path, encoding, name):
    file = tmp_path / "1.xml"
    file.write_bytes(HEAD.format(encoding, name).encode(encoding))
    root = parse(file)
    assert (root.tag, root.children[0].text, root.children[0].attributes) == ("annotation", name, {"kind": "a"})
    assert root.children[0].line == 3


def test_utf_16_that_is_utf_8(tmp_path):
    file = tmp_path / "1.xml"
    file.write_text(HEAD.format("utf-16", "罐"), encoding="utf-8")
    assert parse(file).children[0].text == "罐"


@pytest.mark.parametrize(
    ("encoding", "content", "reason"),
    [
        ("klingon", b"can", "an encoding that Python knows, found 'klingon'"),
        ("base64", b"can", "an encoding that Python knows, found 'base64'"),
        ("punycode", b"can", "an encoding that Python knows, found 'punycode'"),
        ("gb2312", b"\xff\xff", "not gb2312, which the file declares"),
    ],
)
def test_encodings_that_cannot_be_read(tmp_path, encoding, content, reason):
    file = tmp_path / "1.xml"
    file.write_bytes(HEAD.format(encoding, "@").encode().replace(b"@", content))
    with pytest.raises(ElementError, match=reason):
        parse(file)
