"""How the service logs, whatever process it runs in."""

from __future__ import annotations

import logging


def configure(level: str) -> None:
    """Log to standard error from `level` on, such as "info"; what libraries say of every fetched image is left out."""
    logging.basicConfig(level=level.upper(), format="%(levelname)s %(name)s: %(message)s")
    for chatty in ("httpx", "httpcore"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
