"""`python -m benchmarks.reliability NAME --help`: runs the module of that name in this package."""

from __future__ import annotations

import pkgutil
import signal
import sys
from importlib import import_module

import benchmarks.reliability


def main() -> int:
    # Those that have a main() of their own are what can be run.
    modules = {
        found.name: import_module(f"benchmarks.reliability.{found.name}")
        for found in pkgutil.iter_modules(benchmarks.reliability.__path__)
        if found.name not in ("__main__", "locustfile", "faulty_service")
    }
    runnable = {name: module for name, module in modules.items() if hasattr(module, "main")}
    if len(sys.argv) < 2 or sys.argv[1] not in runnable:
        lines = [f"  {name:<9} {(module.__doc__ or '').splitlines()[0]}" for name, module in runnable.items()]
        print("usage: python -m benchmarks.reliability NAME [--help]\n\n" + "\n".join(lines), file=sys.stderr)
        return 2
    return runnable[sys.argv[1]].main(sys.argv[2:])


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # so that no service is left behind
    sys.exit(main())
