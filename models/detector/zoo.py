"""The families of MMDetection's zoo, as a sweep over them found them: which are served, with masks, and trained here.

`python -m benchmarks.zoo --write` makes the list, which lies beside this file.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Literal

LIST = Path(__file__).with_name("zoo.json")


@dataclass(frozen=True)
class ZooFamily:
    """A folder of MMDetection's configs.

    config: the one that was asked, below configs/. why_not_served, why_not_trained: a sentence; "" if it is.
    masks: whether all, some or none of its configs find masks with their boxes. needs: what its folder or its
    environment must have besides.
    """

    name: str
    config: str
    why_not_served: str = ""
    masks: Literal["yes", "some", "no"] = "no"
    why_not_trained: str = ""
    needs: str = ""

    @property
    def served(self) -> bool:
        return not self.why_not_served

    @property
    def trained(self) -> bool:
        """Whether `box2mask finetune` trains it."""
        return self.served and not self.why_not_trained


@cache
def families() -> tuple[ZooFamily, ...]:
    """All of them, by name."""
    return tuple(ZooFamily(**one) for one in json.loads(LIST.read_text(encoding="utf-8")))


def write_families(found: Sequence[ZooFamily]) -> None:
    """Replace the list by these, one in a line."""
    lines = ",\n".join(json.dumps(asdict(one)) for one in sorted(found, key=lambda one: one.name))
    LIST.write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    families.cache_clear()
