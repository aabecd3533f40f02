"""The exchange of flat buffers, region by region, while the backward pass computes the next region's gradients.

A region is sent as soon as the share's last micro-batch has completed it, from the end of the buffer to its start. The
summation tree is one for all elements, so regions change no bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import partial

from torch import Tensor

from trainer.distributed.exchange import RegionMean, exchange_levels
from trainer.distributed.flat_buffer import FlatLayout
from trainer.distributed.lane import lane_of
from trainer.distributed.regions import REGION_NUMEL, GradientRegions
from trainer.distributed.world import World

Sums = list[tuple[Tensor, Tensor]]
"""What is still to be added to what, in this order: (sum, summand)."""


def add_sums(pending: Sums, region: slice) -> None:
    """Add summands to sums, inside a region of both."""
    for into, summand in pending:
        into[region].add_(summand[region])  # left + right, in the order of the tree


class OverlappedExchange:
    """Exchanges a network's flat buffers with the other ranks.

    Args:
        layout: of the buffers.
        micro_batches: M, over which the mean is taken.
        world: this rank and the number of ranks.
        region_numel: the elements of a region, about; None: what suits the device.
    """

    def __init__(self, layout: FlatLayout, micro_batches: int, world: World, region_numel: int | None) -> None:
        self.micro_batches, self.lane = micro_batches, lane_of(layout.device)
        self.regions = GradientRegions(layout, world.size, region_numel or REGION_NUMEL[layout.device.type])
        levels, like = exchange_levels(world, micro_batches), layout.parameters[0].detach()
        self.means = [RegionMean(levels, region, like) for region in self.regions.regions]

    def send_when_ready(self, pending: Sums, sums: Sequence[Tensor]) -> AbstractContextManager[None]:
        """Send each region when the backward pass inside has completed it; the mean goes into the first of the sums.

        Args:
            pending: what the last micro-batch completes.
            sums: the flat buffers of this rank's subtrees, from left to right.
        """

        def exchange(k: int) -> None:
            add_sums(pending, self.means[k].region)
            self.means[k](sums, sums[0], self.micro_batches)

        return self.regions.send_when_ready(lambda k: self.lane.start(partial(exchange, k)))

    def wait(self) -> None:
        """Let what follows see the means."""
        self.lane.wait()
