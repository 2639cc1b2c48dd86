"""The reader that knows lines reads what `json` reads, and refuses what `json` refuses."""

from __future__ import annotations

import json
import random

import pytest

from models.data.parsing import json_object

DOCUMENT = json.dumps({"a": [1, {"b": [2]}, "x\n]", []], "c": 3, "d": [], "e": {"f": [1]}}, indent=1)


def test_entries_know_their_lines():
    found = json_object.parse(DOCUMENT)
    lines = DOCUMENT.splitlines()
    assert [lines[entry.line - 1].strip()[0] for entry in found["a"]] == ["1", "{", '"', "["]
    assert found["c"] == 3 and len(found["d"]) == 0 and found["e"] == {"f": [1]}


@pytest.mark.parametrize("seed", range(4))
def test_it_agrees_with_json_on_documents_that_are_broken_at_random(seed):
    rng = random.Random(seed)
    sound = 0
    for _ in range(1500):
        text = list(DOCUMENT)
        for _ in range(rng.randint(0, 2)):
            at = rng.randrange(len(text))
            text[at] = rng.choice(["", *',:[]{}"1 \n'])
        document = "".join(text)
        try:
            expected = json.loads(document)
        except json.JSONDecodeError:
            expected = None
        try:
            found = {
                key: [entry.value for entry in value] if isinstance(value, json_object.Entries) else value
                for key, value in json_object.parse(document).items()
            }
        except json.JSONDecodeError:
            found = None
        assert found == (expected if isinstance(expected, dict) else None), document
        sound += found is not None
    assert 100 < sound < 1400
