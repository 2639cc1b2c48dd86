"""Lists of numbers as text: the values that Python's own parser gives, and for hostile text an error at once."""

from __future__ import annotations

import ast
import math
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from app.contract.literals import MAX_DEPTH, LiteralError, parse_numbers

# The same cases every time, so that a failure is there for whoever looks next; benchmarks.reliability has more of them.
seeded = settings(
    max_examples=300, derandomize=True, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
)


def same(one: Any, other: Any) -> bool:
    """Equal in value and kind: 1 is not 1.0, and a list no tuple, except that -0.0 and nan are what they are."""
    if isinstance(one, list | tuple):
        return type(one) is type(other) and len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and (one == other and math.copysign(1, one) == math.copysign(1, other))


space = st.sampled_from(["", "", "", " ", "  ", "\n", "\t", " # so\n", "\\\n", "\r\n", "\f"])
numbers = st.one_of(
    st.integers(-(10**20), 10**20).map(str),
    st.floats(allow_nan=False).map(repr).filter(lambda text: "inf" not in text),
    st.integers(0, 2**70).flatmap(lambda n: st.sampled_from([hex(n), oct(n), bin(n), f"{n:_}", f"0X{n:X}"])),
    st.sampled_from(["00", "0_0", "1.", ".5", "1.e3", "1E-3", "01.5", "1_0.2_5e1_0", "00e1", "1e999", "+1", "+.5"]),
    st.sampled_from(["-0", "-0.0", "- 0x10", "- 2", "+  7", "- .5"]),
)


@st.composite
def brackets(draw: st.DrawFn, inner: st.SearchStrategy[str]) -> str:
    items = draw(st.lists(inner, max_size=4))
    opening, closing = draw(st.sampled_from(["[]", "()"]))
    parts = [draw(space) + item + draw(space) for item in items]
    trailing = "," if items and draw(st.booleans()) else ""
    return opening + ",".join(parts) + trailing + draw(space) + closing


literals = st.recursive(numbers, brackets, max_leaves=20)


@seeded
@given(literals)
@example("[1,2],[3,4]")
@example("((1, 2), (3.5, 4),)")
@example("((1))")
@example("[(1)]")
@example("()")
@example("1,")
@example("[[1, 2]] # boxes")
def test_what_python_reads_has_the_same_value(text: str) -> None:
    assert same(parse_numbers(text), ast.literal_eval(text))


@seeded
@given(literals, st.data())
def test_what_is_nearly_a_literal_has_the_same_value_or_none(text: str, data: st.DataObject) -> None:
    """One character more, less or another: either both parsers refuse it, or they agree."""
    place = data.draw(st.integers(0, len(text)))
    changed = (
        text[:place]
        + data.draw(st.sampled_from(",[]()1.e-+_ \n\\#xj'0"))
        + text[place + data.draw(st.integers(0, 1)) :]
    )
    try:
        expected = ast.literal_eval(changed.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        expected = None
    try:
        found = parse_numbers(changed.strip())
    except LiteralError:
        assert not only_numbers(expected) or is_left_out(changed)
    else:
        # Lines outside of brackets are no fault here.
        assert same(found, expected) or expected is None and "\n" in changed or not only_numbers(found)


def only_numbers(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(only_numbers, value))
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_left_out(text: str) -> bool:
    """A sign before a parenthesis, or with its number on another line: what Python reads, and nobody writes."""
    compact = "".join(text.split())
    split = any(line.rstrip().endswith(("+", "-")) for line in text.splitlines()[:-1])
    return split or any(sign in compact for sign in ("-(", "+(", "-#", "+#", "-\\", "+\\"))


@seeded
@given(st.text(max_size=60) | st.text("[](),1.e-+_ \n\\#xj'\"{}:", max_size=60))
def test_any_text_gives_a_value_or_a_literal_error(text: str) -> None:
    try:
        parse_numbers(text)
    except LiteralError as error:
        assert len(str(error)) < 300


@pytest.mark.parametrize(("opening", "closing"), ["[]", "()"])
def test_the_depth_is_limited(opening: str, closing: str) -> None:
    parse_numbers(f"{opening * MAX_DEPTH}1,{closing * MAX_DEPTH}")
    with pytest.raises(LiteralError, match="nested too deeply"):
        parse_numbers(f"{opening * (MAX_DEPTH + 1)}1,{closing * (MAX_DEPTH + 1)}")


@pytest.mark.parametrize(
    "text",
    ["[" * 500_000, "(" * 500_000, "[" + "-" * 999_000, "1" * 999_000, "0x" + "f" * 999_000, "1" + "_1" * 499_000]
    + [
        "[" + "\\\n" * 499_000,
        "#" * 999_000,
        "1." + "1" * 999_000 + "e" + "9" * 9,
        "1e" + "9" * 999_000,
        " " * 999_000,
    ],
    ids=lambda text: text[:4],
)
def test_a_million_hostile_characters_are_read_at_once(text: str) -> None:
    """Without limits on time, which depend on the machine: backtracking would take hours, and recursion would crash."""
    try:
        value = parse_numbers(text)
    except LiteralError:
        return
    assert isinstance(value, int | float)
