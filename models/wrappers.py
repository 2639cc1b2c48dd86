"""The weights of one network in what trainers save: dicts around them, prefixes of wrappers, averaged copies.

A checkpoint holds them under names that depend on who trained: in a `state_dict` beside an optimizer, as
`module._orig_mod.backbone…`, with a second copy that is averaged over the steps (EMA). Here they get the names that the
network itself gives them. What was passed over is said.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

import torch

from models.model_errors import CheckpointError, Say

StateDict = dict[str, torch.Tensor]

KEYS_SHOWN = 5
# Names of the dict with the weights, best first.
_KNOWN = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "module", "weights", "params")
_AVERAGED = re.compile(r"(^|[._])(ema|averaged|swa|shadow)([._]|$)", re.IGNORECASE)
_NOT_WEIGHTS = re.compile(r"optim|sched|scaler|amp$|message_hub|callbacks|loops|rng|history", re.IGNORECASE)
# Wrappers that may stand anywhere in a key: DataParallel's, torch.compile's, FSDP's, activation checkpointing's.
_ANYWHERE = frozenset({"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module"})


def listed(names: Iterable[str]) -> str:
    """The first of them, for a message."""
    several = list(names)
    return ", ".join(several[:KEYS_SHOWN]) + (", …" if len(several) > KEYS_SHOWN else "")


def state_dict_in(content: object, source: object, say: Say) -> tuple[StateDict, dict[str, Any]]:
    """The tensors by key in what a pickle held, however deep, and its "meta".

    Raises CheckpointError where there are none, or those of several networks.
    """
    if not isinstance(content, dict) or not content:
        raise CheckpointError(f"{source}: expected tensors by key, got {type(content).__name__}")
    found = dict(_dicts_of_tensors(content, ""))
    if not found:
        raise CheckpointError(f"{source}: expected tensors by key, got {_described(content)}")
    plain = [name for name in found if not _AVERAGED.search(name)] or list(found)
    best = min(plain, key=_rank)
    if len(plain) > 1 and _rank(best) == len(_KNOWN):
        raise CheckpointError(
            f"{source}: expected the weights of one network, found {len(plain)}: {listed(plain)}. Save the one that "
            f"you mean: torch.save(torch.load(…, weights_only=True){_path(best)}, …)"
        )
    others = [name for name in found if name != best]
    if others:
        say(f"{source}: takes the weights in {best!r}; passed over: {listed(others)}")
    kept = {
        key: value.data if isinstance(value, torch.nn.Parameter) else value
        for key, value in found[best].items()
        if isinstance(value, torch.Tensor)
    }
    more = [key for key, value in found[best].items() if not isinstance(value, torch.Tensor | dict)]
    if more and best == "":
        say(f"{source}: passed over {len(more)} values beside the weights: {listed(more)}")
    meta = content.get("meta")
    return kept, meta if isinstance(meta, dict) else {}


def _dicts_of_tensors(content: Mapping[Any, Any], name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every dict with tensors, by the keys that lead to it; not those of an optimizer."""
    if not all(isinstance(key, str) for key in content):
        return
    tensors = sum(isinstance(value, torch.Tensor) for value in content.values())
    # A tensor or two beside dicts are a trainer's counters, as `best` or `epoch`.
    inner = {key: value for key, value in content.items() if isinstance(value, dict) and not _NOT_WEIGHTS.search(key)}
    deeper = [one for key, value in inner.items() for one in _dicts_of_tensors(value, f"{name}.{key}".strip("."))]
    if deeper and tensors <= max(len(inner[part]) for part in inner):
        yield from deeper
    elif tensors:
        yield name, dict(content)


def _rank(name: str) -> int:
    """How surely a dict of this name holds the model; the last rank for a name that says nothing."""
    parts = name.split(".")
    return min((_KNOWN.index(part) for part in parts if part in _KNOWN), default=len(_KNOWN))


def _path(name: str) -> str:
    return "".join(f"[{part!r}]" for part in name.split("."))


def _described(content: Mapping[Any, Any]) -> str:
    if "param_groups" in content or any(_NOT_WEIGHTS.search(str(key)) for key in content):
        return f"the state of an optimizer ({listed(map(str, content))}): take the file with the model's own weights"
    key, value = next(iter(content.items()))
    return f"{type(value).__name__} at {key!r}"


def unwrapped(state_dict: StateDict, wanted: Collection[str], source: object, say: Say) -> StateDict:
    """The tensors by the names that the network gives them (`wanted`), without what wrappers put before or between.

    Where no such reading makes them fit, they stay as they are, and `load_into` says what does not fit. Raises
    CheckpointError where they fit in two ways.
    """
    own = set(wanted)
    state_dict, dropped = _without_averaged(state_dict, own)
    if dropped:
        say(f"{source}: passed over {len(dropped)} averaged (EMA) copies of weights: {listed(dropped)}")
    if own <= state_dict.keys():
        return state_dict
    names = _without_wrappers(state_dict, own)
    prefix = _prefix(Counter(_prefixes(names, own)), own, source)
    if prefix is None:
        return state_dict
    is_whole = not own & state_dict.keys()  # the wrapper is around all of the model, and what is outside is its own
    kept, left = {}, []
    example = ("", "")
    for key, name in names.items():
        inner = name.removeprefix(prefix)
        if not name.startswith(prefix) or (is_whole and inner == key):
            left.append(key)
        else:
            kept[inner] = state_dict[key]
            example = (key, inner) if inner != key and inner in own else example
    if example[0]:
        say(f"{source}: its keys are those of a wrapper: read {example[0]!r} as {example[1]!r}, and the others alike")
    if left:
        say(f"{source}: passed over {len(left)} tensors that are not the model's: {listed(left)}")
    return kept


def _without_averaged(state_dict: StateDict, own: set[str]) -> tuple[StateDict, list[str]]:
    """Without the copies that MMDetection's and other EMA hooks put beside the weights, as `ema_backbone_…`."""
    averaged = [key for key in state_dict if key not in own and _AVERAGED.search(key.split(".")[0])]
    if len(averaged) == len(state_dict) or not averaged:
        return state_dict, []
    # Where nothing else is a weight of the model, the copies are the model.
    rest = {key: tensor for key, tensor in state_dict.items() if key not in averaged}
    if next(_prefixes(_without_wrappers(rest, own), own), None) is None:
        return state_dict, []
    return rest, averaged


def _without_wrappers(state_dict: StateDict, own: set[str]) -> dict[str, str]:
    """By key its name without wrappers that may stand anywhere; unchanged where two keys would become one."""
    known = {part for key in own for part in key.split(".")}
    drop = _ANYWHERE - known
    names = {key: ".".join(part for part in key.split(".") if part not in drop) for key in state_dict}
    return names if len(set(names.values())) == len(names) else {key: key for key in state_dict}


def _prefixes(names: Mapping[str, str], own: set[str]) -> Iterator[str]:
    """For each name that ends as one of the model's, what stands before that."""
    for name in names.values():
        if name in own:
            yield ""
        start = name.find(".") + 1
        while start:
            if name[start:] in own:
                yield name[:start]
            start = name.find(".", start) + 1


def _prefix(found: Counter[str], own: set[str], source: object) -> str | None:
    """The prefix under which most of the model is. None where that is too little for a model."""
    if not found:
        return None
    most = max(found.values())
    if 2 * most < len(own):
        return None
    whole = [prefix for prefix, count in found.items() if count == most]
    if "" in whole:
        return ""
    plain = [prefix for prefix in whole if not _AVERAGED.search(prefix)] or whole
    if len(plain) > 1:
        one = f"{{k[{len(plain[0])}:]: v for k, v in state_dict.items() if k.startswith({plain[0]!r})}}"
        raise CheckpointError(
            f"{source}: holds the model {len(plain)} times, under {listed(map(repr, plain))}. Save the one you mean: "
            f"torch.save({one}, …)"
        )
    return plain[0]
