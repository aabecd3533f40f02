"""The regions of a flat buffer in the order in which a backward pass completes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import Tensor

from trainer.distributed.flat_buffer import FlatLayout

WHOLE = 2**62  # no buffer is as long

# 8 MiB on a GPU: long enough for its bandwidth, short enough to leave early. On CPUs the cores that would compute
# meanwhile are those that send: nothing is gained, and several regions take a tenth longer than one.
REGION_NUMEL = {"cuda": 2**21, "cpu": WHOLE}


class GradientRegions:
    """Cuts flat buffers into regions, from their end to their start, and tells when each is complete.

    The backward pass comes to the last layers first, and their gradients lie at the end. The first region in the buffer
    is the last one to go: it has the scalars and the batch statistics.

    Args:
        layout: of the buffers.
        multiple: the length of each region is a multiple of it.
        numel: elements of a region, about.
    """

    def __init__(self, layout: FlatLayout, multiple: int, numel: int) -> None:
        whole = layout.padded_numel(multiple)
        step = max(numel // multiple, 1) * multiple
        self.regions = [slice(max(stop - step, 0), stop) for stop in range(whole, 0, -step)]
        self.complete: Callable[[int], None] | None = None
        self.missing: list[int] = []
        self.sent = 0
        self.parameters_in = [0] * len(self.regions)
        for parameter, (start, stop) in zip(layout.parameters, layout.gradient_ranges(), strict=True):
            touched = [k for k, r in enumerate(self.regions) if r.start < stop and start < r.stop]
            for k in touched:
                self.parameters_in[k] += 1
            parameter.register_post_accumulate_grad_hook(self.hook(touched))

    def hook(self, touched: list[int]) -> Callable[[Tensor], None]:
        """Return what is called when a parameter, which lies in these regions, has its gradient."""

        def arrived(parameter: Tensor) -> None:
            if self.complete is not None:
                for k in touched:
                    self.missing[k] -= 1
                # The last region waits for the batch statistics and scalars, which no hook tells of.
                self.send_complete(len(self.regions) - 1)

        return arrived

    def send_complete(self, end: int) -> None:
        """Send the regions before `end` that have all of their gradients, in order: all ranks must send the same."""
        while self.complete is not None and self.sent < end and not self.missing[self.sent]:
            self.complete(self.sent)
            self.sent += 1

    @contextmanager
    def send_when_ready(self, send: Callable[[int], None]) -> Iterator[None]:
        """Call `send` with the number of each region: of those that a backward pass inside completes as it does so.

        The others follow at the end, in order: those with a parameter that got no gradient, and the last one.
        """
        self.complete, self.missing, self.sent = send, list(self.parameters_in), 0
        try:
            yield
        finally:
            self.complete = None
        for k in range(self.sent, len(self.regions)):
            send(k)
