"""The exchange of flat buffers, region by region, while the backward pass computes the next region's gradients.

A region is sent as soon as the share's last micro-batch has completed it, from the end of the buffer to its start. The
summation tree is one for all elements, so regions change no bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Protocol

from torch import Tensor

from trainer.core.recording import between_graphs
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


class Exchange(Protocol):
    """Exchanges a network's flat buffers with the other ranks."""

    def send_when_ready(self, pending: Sums, sums: Sequence[Tensor]) -> AbstractContextManager[None]:
        """Exchange what the last micro-batch, which is computed inside, completes; the mean goes into the first sum.

        Args:
            pending: what is still to be added when the micro-batch is done.
            sums: the flat buffers of this rank's subtrees, from left to right.
        """

    def wait(self) -> None:
        """Let what follows see the means."""


class ExchangeBetweenGraphs:
    """Exchanges when the last micro-batch is done, as an action between two CUDA graphs.

    A hook would be called once, while the backward pass is captured, and NCCL would be a part of the graph.

    Args:
        layout, micro_batches, world: as below.
    """

    def __init__(self, layout: FlatLayout, micro_batches: int, world: World) -> None:
        self.micro_batches, self.sums = micro_batches, list[Tensor]()
        whole, like = slice(0, layout.padded_numel(world.size)), layout.parameters[0].detach()
        self.mean = RegionMean(exchange_levels(world, micro_batches), whole, like)

    @contextmanager
    def send_when_ready(self, pending: Sums, sums: Sequence[Tensor]) -> Iterator[None]:
        """Keep the sums for `wait`."""
        yield
        add_sums(pending, slice(None))
        self.sums = list(sums)

    def wait(self) -> None:
        """Exchange, and let what follows see the mean."""
        sums = self.sums
        between_graphs(lambda _: self.mean(sums, sums[0], self.micro_batches))


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
        """Send each region when the backward pass inside has completed it."""

        def exchange(k: int) -> None:
            add_sums(pending, self.means[k].region)
            self.means[k](sums, sums[0], self.micro_batches)

        return self.regions.send_when_ready(lambda k: self.lane.start(partial(exchange, k)))

    def wait(self) -> None:
        """Let what follows see the means."""
        self.lane.wait()


def exchange_with(
    layout: FlatLayout, micro_batches: int, world: World, region_numel: int | None, overlap: bool
) -> Exchange | None:
    """Return the exchange with the other ranks, while the backward pass runs or after it; of a rank alone none."""
    if world.size == 1:
        return None
    if overlap:
        return OverlappedExchange(layout, micro_batches, world, region_numel)
    return ExchangeBetweenGraphs(layout, micro_batches, world)
