"""`python -m benchmarks.reliability NAME`: what the service withstands, measured; each NAME is a module here."""

from __future__ import annotations

import importlib
import signal
import sys
from pathlib import Path

MODULES = ("fuzz", "soak", "load", "sigterm", "ssrf", "bomb")
NAMES = [name for name in MODULES if Path(__file__).with_name(f"{name}.py").is_file()]


def main() -> int:
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in NAMES:
        print(f"usage: python -m benchmarks.reliability {{{','.join(NAMES)}}} ... (--help has each one's options)")
        return 0 if name in ("-h", "--help") else 2
    return int(importlib.import_module(f"benchmarks.reliability.{name}").main(sys.argv[2:]))


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # so that no service is left behind
    sys.exit(main())
