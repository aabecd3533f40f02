"""The mean of flat buffers over all micro-batches, with the same bits for any number of ranks.

The sum is defined by a fixed binary tree over the M micro-batches (summation_tree.py). Each rank adds up the subtrees
inside its share; the ranks exchange these sums, while the backward pass still runs (overlap.py), and add them in the
order of the tree (exchange.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

from trainer.distributed.flat_buffer import FlatBuffer, FlatLayout
from trainer.distributed.overlap import Sums, add_sums, exchange_with
from trainer.distributed.summation_tree import Node, additions, largest_subtrees
from trainer.distributed.world import World


class Reduction(Protocol):
    """Averages one network's flat buffers over all micro-batches."""

    layout: FlatLayout
    network: Callable[..., Any]
    """The network, to be called where gradients with respect to its weights are wanted."""

    def micro_batch(self, j: int) -> AbstractContextManager[FlatBuffer]:
        """Accumulate the gradients of micro-batch j; called in rising order over this rank's share."""

    def mean(self) -> FlatBuffer:
        """Return the mean over all micro-batches of all ranks; its gradients are those of the parameters."""


class ExactReduction:
    """Averages over all micro-batches, bit-identically for any world size.

    Args:
        layout: what a flat buffer of this network holds.
        network: the layout's network, perhaps compiled.
        micro_batches: M, the number of micro-batches in the global batch.
        world: this rank and the number of ranks; the shares of the micro-batches follow from it.
        region_numel: the elements of a region of the exchange, about; None: what suits the device.
        overlap: exchange while the backward pass runs; else after it, where CUDA graphs are.
    """

    def __init__(
        self,
        layout: FlatLayout,
        network: Callable[..., Any],
        micro_batches: int,
        world: World,
        region_numel: int | None = None,
        overlap: bool = True,
    ) -> None:
        self.layout, self.network, self.world = layout, network, world
        self.root, self.share = (0, micro_batches), world.share(micro_batches)
        self.subtrees = largest_subtrees(self.root, self.share)
        self.free: list[FlatBuffer] = []
        self.partial_sums: dict[Node, FlatBuffer] = {}
        self.exchange = exchange_with(layout, micro_batches, world, region_numel, overlap)

    @contextmanager
    def micro_batch(self, j: int) -> Iterator[FlatBuffer]:
        """Accumulate the gradients of micro-batch j: inside, backward passes write into the buffer."""
        if j == self.share[0]:
            self.partial_sums.clear()  # of an update that was cut off
        buffer = self.free.pop() if self.free else FlatBuffer(self.layout, self.world.size)
        buffer.begin()
        pending = self.add((j, j + 1), buffer)
        if self.exchange is None or j != self.share[-1]:
            yield buffer
            buffer.finish()
            add_sums(pending, slice(None))
            return
        sums = [self.partial_sums[node].flat for node in self.subtrees]
        with self.exchange.send_when_ready(pending, sums):
            yield buffer
            buffer.finish()

    def add(self, node: Node, buffer: FlatBuffer) -> Sums:
        """Take the sum of a subtree, and return which (sum, summand) complete the subtrees above it, from below.

        At most log2(M) buffers wait for their siblings.
        """
        self.partial_sums[node] = buffer
        pending: Sums = []
        for left, right in additions(self.partial_sums, node, self.root):
            into, summand = self.partial_sums.pop(left), self.partial_sums.pop(right)
            pending.append((into.flat, summand.flat))
            self.partial_sums[left[0], right[1]] = into
            self.free.append(summand)
        return pending

    def mean(self) -> FlatBuffer:
        """Return the mean over all micro-batches of all ranks; its gradients are those of the parameters."""
        buffers = [self.partial_sums.pop(node) for node in self.subtrees]
        result = buffers[0]
        if self.exchange is None:
            result.flat.div_(self.root[1])
        else:
            self.exchange.wait()
        self.free.extend(buffers)  # `result` too: it is written again only when the next update begins
        result.attach()
        return result
