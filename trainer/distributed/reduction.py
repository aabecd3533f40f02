"""The mean of flat buffers over all micro-batches, with the same bits for any number of ranks.

The sum is defined by a fixed binary tree over the M micro-batches (summation_tree.py). Each rank adds up the subtrees
inside its share. The buffer is cut into one slice for each rank: the ranks exchange their partial sums slice by slice
(a reduce-scatter), each completes its own slice in the order of the tree, and all gather the slices (an all-gather).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import torch

from trainer.distributed.collective import exchange_tensors
from trainer.distributed.flat_buffer import FlatBuffer, FlatLayout
from trainer.distributed.summation_tree import Node, in_tree, largest_subtrees, split_node, tree_sum
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
    """

    def __init__(self, layout: FlatLayout, network: Callable[..., Any], micro_batches: int, world: World) -> None:
        self.layout, self.network, self.world = layout, network, world
        self.root = (0, micro_batches)
        ranks = range(world.size)
        self.subtrees_of = [largest_subtrees(self.root, world.share_of(rank, micro_batches)) for rank in ranks]
        self.slice_of = [slice(s.start, s.stop) for s in (world.share_of(rank, layout.numel) for rank in ranks)]
        # Every rank completes 1/N of the buffer: no rank is a bottleneck, and the traffic is that of a ring all-reduce.
        mine = self.slice_of[world.rank]
        self.received = {
            node: torch.empty(mine.stop - mine.start, device=layout.device, dtype=layout.dtype)
            for rank, nodes in enumerate(self.subtrees_of)
            for node in nodes
            if rank != world.rank
        }
        self.free: list[FlatBuffer] = []
        self.partial_sums: dict[Node, FlatBuffer] = {}

    @contextmanager
    def micro_batch(self, j: int) -> Iterator[FlatBuffer]:
        """Accumulate the gradients of micro-batch j: inside, backward passes write into the buffer."""
        buffer = self.free.pop() if self.free else FlatBuffer(self.layout)
        buffer.begin()
        yield buffer
        buffer.finish()
        self.add((j, j + 1), buffer)

    def add(self, node: Node, buffer: FlatBuffer) -> None:
        """Take the sum of a subtree, and add it to its sibling's once that is here: at most log2(M) buffers wait."""
        self.partial_sums[node] = buffer
        for left, last in list(self.partial_sums):
            parent = (left, node[1])
            if last == node[0] and split_node(parent) == ((left, last), node) and in_tree(parent, self.root):
                sibling = self.partial_sums.pop((left, last))
                self.partial_sums.pop(node)
                sibling.flat.add_(buffer.flat)  # left + right, in the order of the tree
                self.free.append(buffer)
                self.add(parent, sibling)
                return

    def mean(self) -> FlatBuffer:
        """Return the mean over all micro-batches of all ranks; its gradients are those of the parameters."""
        buffers = [self.partial_sums.pop(node) for node in self.subtrees_of[self.world.rank]]
        result = buffers[0]
        if self.world.size > 1:
            self.exchange(buffers, result)
        else:
            result.flat.div_(self.root[1])
        self.free.extend(buffers)  # `result` too: it is written again only when the next update begins
        result.attach()
        return result

    def exchange(self, buffers: list[FlatBuffer], result: FlatBuffer) -> None:
        """Reduce-scatter the partial sums in the order of the tree, then all-gather the slices into `result`."""
        rank, peers = self.world.rank, [r for r in range(self.world.size) if r != self.world.rank]
        mine = self.slice_of[rank]
        sends = [(buffer.flat[self.slice_of[peer]], peer) for peer in peers for buffer in buffers]
        receives = [(self.received[node], peer) for peer in peers for node in self.subtrees_of[peer]]
        exchange_tensors(sends, receives)
        own = {node: buffer.flat[mine] for node, buffer in zip(self.subtrees_of[rank], buffers, strict=True)}
        total = tree_sum(self.root, own | self.received).div_(self.root[1])
        if total.data_ptr() != result.flat[mine].data_ptr():  # the leftmost subtree is another rank's
            result.flat[mine].copy_(total)
        exchange_tensors(
            [(result.flat[mine], peer) for peer in peers],
            [(result.flat[self.slice_of[peer]], peer) for peer in peers],
        )
