"""The process that measures beside training, with something planted: PLANTED_MEASURING names it."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from tests.planted import COLLAPSED, HEALTHY
from trainer.training.measuring_process import main
from trainer.training.sample_grids import Request, SampleGrids


def collapse_once() -> None:
    """See a collapse as tests.planted.collapse_once does in line."""

    def measure(self: SampleGrids, weights: Mapping[str, Tensor], request: Request) -> dict[str, float]:
        self.measured = self.real.images
        return COLLAPSED if request.images_seen >= 160 and not request.rollbacks else HEALTHY

    SampleGrids.measure_collapse = measure  # type: ignore[method-assign]


def held() -> None:
    """Answer nothing until the run folder has a file `go`."""
    answer = SampleGrids.__call__

    def wait(self: SampleGrids, request: Request, weights: Mapping[str, Tensor]) -> dict[str, float]:
        while not (Path(self.run.path) / "go").exists():
            time.sleep(0.01)
        return answer(self, request, weights)

    SampleGrids.__call__ = wait  # type: ignore[method-assign]


def dies() -> None:
    """End at the first request."""
    SampleGrids.__call__ = lambda self, request, weights: os._exit(7)  # type: ignore[method-assign]


if __name__ == "__main__":
    {f.__name__: f for f in (collapse_once, held, dies)}[os.environ["PLANTED_MEASURING"]]()
    main()
