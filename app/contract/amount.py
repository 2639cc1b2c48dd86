"""Whether JSON's values are so few that the way to a thread and back would take longer than reading or writing them."""

from __future__ import annotations

# Characters of JSON, roughly. Prompts or masks of so many are read or written in about a millisecond.
LITTLE = 2**14
_BESIDES = 16  # what is around a value, or a number


def is_little(content: object) -> bool:
    """Whether JSON's values, as they were read or before they are written, are about LITTLE characters at most."""
    left, waiting = LITTLE, [content]
    while waiting and left >= 0:
        value = waiting.pop()
        left -= _BESIDES
        if isinstance(value, str):
            left -= len(value)
        elif isinstance(value, list | dict):
            left -= _BESIDES * len(value)
            if left >= 0:
                waiting += value if isinstance(value, list) else value.values()
    return left >= 0
