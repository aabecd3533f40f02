"""The mean over the micro-batches, with the same bits for any number of processes.

The M micro-batches are the leaves of one fixed binary tree. Floating-point addition is not associative, so the tree is
the definition of the sum: each rank adds up the subtrees that lie inside its share, the ranks exchange slices of these
partial sums, each finishes one slice in the tree's order, and all gather the slices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor

from trainer.distributed.flat_buffer import Layout, Packet
from trainer.distributed.world import World


class Reduction(Protocol):
    """How one network's packets become their mean over all micro-batches."""

    layout: Layout
    network: Callable[..., Any]
    """The network, to be called where its own gradients are wanted."""

    def micro_batch(self, j: int) -> AbstractContextManager[Packet]:
        """Collect what micro-batch j gives; called in rising order over this process's share."""

    def mean(self) -> Packet:
        """Return the mean over all micro-batches of all processes, with the network's gradients set to it."""


Node = tuple[int, int]  # the micro-batches first..last-1 below a node of the tree


def split(node: Node) -> tuple[Node, Node]:
    """Return a node's children: the left one has the largest power of two of leaves that leaves the right one some."""
    first, last = node
    middle = first + (1 << ((last - first - 1).bit_length() - 1))
    return (first, middle), (middle, last)


def subtrees(node: Node, share: range) -> list[Node]:
    """Return the largest subtrees below `node` that lie inside `share`, from left to right."""
    first, last = node
    if share.start <= first and last <= share.stop:
        return [node]
    if last <= share.start or share.stop <= first:
        return []
    left, right = split(node)
    return subtrees(left, share) + subtrees(right, share)


def tree_sum(node: Node, partial: Mapping[Node, Tensor]) -> Tensor:
    """Add up `partial` (sums of the subtrees that tile `node`) in the tree's order, into the leftmost of them."""
    if node in partial:
        return partial[node]
    left, right = split(node)
    return tree_sum(left, partial).add_(tree_sum(right, partial))


class ExactReduction:
    """Averages the packets of one network's update over all micro-batches, bit-identically for any world size.

    Args:
        layout: what a packet of this network holds.
        network: the layout's network, perhaps compiled.
        micro_batches: M, the number of micro-batches in the global batch.
        world: this process's place; its share of the micro-batches follows from it.
    """

    def __init__(self, layout: Layout, network: Callable[..., Any], micro_batches: int, world: World) -> None:
        self.layout = layout
        self.network = network
        self.world = world
        self.root = (0, micro_batches)
        self.owned = [subtrees(self.root, world.share_of(rank, micro_batches)) for rank in range(world.size)]
        self.slices = [slice(s.start, s.stop) for s in (world.share_of(r, layout.numel) for r in range(world.size))]
        mine = self.slices[world.rank]
        self.inbox = {
            node: torch.empty(mine.stop - mine.start, device=layout.device, dtype=layout.dtype)
            for rank, nodes in enumerate(self.owned)
            for node in nodes
            if rank != world.rank
        }
        self.free: list[Packet] = []
        self.partial: dict[Node, Packet] = {}

    @contextmanager
    def micro_batch(self, j: int) -> Iterator[Packet]:
        """Collect what micro-batch j gives: inside, the network's gradients accumulate in the packet."""
        packet = self.free.pop() if self.free else Packet(self.layout)
        packet.begin()
        yield packet
        packet.finish()
        self.add((j, j + 1), packet)

    def add(self, node: Node, packet: Packet) -> None:
        """Take in the sum of a subtree, and add it to its sibling when that one is here: at most log2(M) wait."""
        self.partial[node] = packet
        for left, last in list(self.partial):
            parent = (left, node[1])
            if last == node[0] and split(parent) == ((left, last), node) and self.in_tree(parent):
                sibling = self.partial.pop((left, last))
                self.partial.pop(node)
                sibling.flat.add_(packet.flat)
                self.free.append(packet)
                return self.add(parent, sibling)
        return None

    def in_tree(self, node: Node) -> bool:
        """Tell whether the node is one of the tree's."""
        return subtrees(self.root, range(*node)) == [node]

    def mean(self) -> Packet:
        """Return the mean over all micro-batches of all ranks, with the network's gradients set to its own."""
        packets = [self.partial.pop(node) for node in self.owned[self.world.rank]]
        result = packets[0]
        if self.world.size > 1:
            self.exchange(packets, result)
        else:
            result.flat.div_(self.root[1])
        self.free.extend(packets)  # `result` is written again only when the next update begins
        result.attach()
        return result

    def exchange(self, packets: list[Packet], result: Packet) -> None:
        """Send slices of the partial sums to those who finish them; finish ours; gather the finished slices."""
        rank, peers = self.world.rank, [r for r in range(self.world.size) if r != self.world.rank]
        mine = self.slices[rank]
        sends = [(p.flat[self.slices[peer]], peer) for peer in peers for p in packets]
        receives = [(self.inbox[node], peer) for peer in peers for node in self.owned[peer]]
        transfer(sends, receives)
        own = {node: packet.flat[mine] for node, packet in zip(self.owned[rank], packets, strict=True)}
        total = tree_sum(self.root, own | self.inbox).div_(self.root[1])
        if total.data_ptr() != result.flat[mine].data_ptr():
            result.flat[mine].copy_(total)
        transfer(
            [(result.flat[mine], peer) for peer in peers],
            [(result.flat[self.slices[peer]], peer) for peer in peers],
        )


def transfer(sends: list[tuple[Tensor, int]], receives: list[tuple[Tensor, int]]) -> None:
    """Exchange tensors with peers; those between the same two ranks arrive in the order in which they are listed."""
    operations = [dist.P2POp(dist.irecv, tensor, peer) for tensor, peer in receives]
    operations += [dist.P2POp(dist.isend, tensor, peer) for tensor, peer in sends]
    for request in dist.batch_isend_irecv(operations):
        request.wait()
