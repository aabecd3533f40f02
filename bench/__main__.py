"""Run every benchmark, each in a process of its own: `python -m bench`."""

from __future__ import annotations

import subprocess
import sys

from bench.measure import machine

NAMES = (
    "sharding",
    "loading",
    "loading_256",
    "streaming",
    "scale",
    "step",
    "zoo",
    "launches",
    "style_operations",
    "training",
    "reduction",
    "scaling",
    "checkpoint",
    "recovery",
    "stalls",
    "metrics",
    "evaluation",
    "serving",
)


def main() -> int:
    """Run them one after the other; the exit code is that of the worst."""
    print(f"# Benchmarks\n\n{machine()}", flush=True)
    worst = 0
    for name in NAMES:
        print(f"\n## {name}\n", flush=True)
        worst = max(worst, abs(subprocess.run([sys.executable, "-m", f"bench.{name}"]).returncode))
    return worst


if __name__ == "__main__":
    sys.exit(main())
