"""The authors' package prdc, as a peer in an environment of its own; run by bench.metrics.

`.bench-venv/bin/python bench/prdc_peer.py REAL.npy FAKE.npy` prints its seconds, the peak of memory in MB beyond what
the features take, and precision, recall, density and coverage.
"""

from __future__ import annotations

import contextlib
import io
import sys
import time
from pathlib import Path

import numpy as np
from prdc import compute_prdc  # type: ignore[import-not-found]  # lives in .bench-venv alone


def peak() -> float:
    """Return the most memory that this process has held, in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


def main() -> None:
    real, fake = map(np.load, sys.argv[1:3])
    before, started = peak(), time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):  # it tells how many there are
        found = compute_prdc(real_features=real, fake_features=fake, nearest_k=5)
    spent, more = time.perf_counter() - started, peak() - before
    print(spent, more, *(float(found[name]) for name in ("precision", "recall", "density", "coverage")))


if __name__ == "__main__":
    main()
