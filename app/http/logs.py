"""How the service logs, whatever process it runs in: as text for people, or as a JSON object a line for machines."""

from __future__ import annotations

import json
import logging
from typing import Any, Literal

from pythonjsonlogger.json import JsonFormatter

# What every record has; the rest is what somebody gave it as `extra`. The last is uvicorn's, for terminals.
_OWN = {*vars(logging.makeLogRecord({})), "message", "asctime", "color_message"}


def configure(level: str, form: Literal["text", "json"] = "text") -> None:
    """Log to standard error from `level` on, such as "info"; what libraries say of every fetched image is left out.

    In the form "json" a line has time, level, logger and message, what the record brings as `extra`, and for a failure
    its traceback as `exc_info`; Python's warnings become such lines too.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(_Text("%(levelname)s %(name)s: %(message)s"))
    if form == "json":
        names = {"levelname": "level", "name": "logger"}
        handler.setFormatter(
            JsonFormatter(("levelname", "name", "message"), timestamp="time", rename_fields=names, reserved_attrs=_OWN)
        )
        logging.captureWarnings(True)
    logging.basicConfig(level=level.upper(), handlers=[handler])
    for chatty in ("httpx", "httpcore"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


class _Text(logging.Formatter):
    """The message, and what the record brings beside it as `name=value`."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = {}
        for name, value in vars(record).items():
            if name not in _OWN and f"%({name})" not in str(record.msg):  # which says it already
                fields |= value if isinstance(value, dict) else {name: value}
        shown = (f" {name}={_shown(value)}" for name, value in fields.items() if value != "")
        return super().formatMessage(record) + "".join(shown)


def _shown(value: object) -> str:
    """As in JSON where a client may have written it, so that nothing in it can end the line."""
    return json.dumps(value) if isinstance(value, str) and not value.replace("-", "").isalnum() else str(value)
