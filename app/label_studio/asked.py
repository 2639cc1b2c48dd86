"""What Label Studio asks of an ML backend, read and checked. Knows nothing of models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from app.errors import BadRequest
from app.label_studio.labeling_config import Interface, parse


@dataclass(frozen=True)
class Asked:
    """A request for predictions. context: what was drawn with a smart tool; None of tasks to be pre-labelled."""

    tasks: list[dict[str, Any]]
    interface: Interface
    context: dict[str, Any] | None


def read_request(content: Any) -> Asked:
    """What Label Studio posts to /predict; fields that are not known are passed over. Raises BadRequest."""
    if not isinstance(content, dict):
        raise BadRequest(f"expected a JSON object with tasks and label_config, got {type(content).__name__}")
    tasks, config, params = (content.get(name) for name in ("tasks", "label_config", "params"))
    if not isinstance(tasks, list) or not tasks or not all(isinstance(one, dict) for one in tasks):
        raise BadRequest("tasks: expected a list of tasks, each an object, got another value or none")
    if not isinstance(config, str) or not config.strip():
        raise BadRequest("label_config: expected the labelling interface, as XML, got nothing")
    context = params.get("context") if isinstance(params, dict) else None
    if context is not None and not isinstance(context, dict):
        raise BadRequest(f"params.context: expected an object or null, got {type(context).__name__}")
    if context is not None and len(tasks) != 1:
        raise BadRequest(f"tasks: expected one with params.context, got {len(tasks)}")
    return Asked(tasks, parse(config), context)
