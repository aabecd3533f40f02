"""Means over ranks by collectives: of one region of a flat buffer, in the order of the tree, in one or two levels.

A region is cut into one piece for each rank of a group. All-to-all brings each rank its piece of everybody's partial
sums, and the rank adds these up in the order of the tree (a reduce-scatter); all-gather brings the pieces back. Where
each node has several ranks this is done inside the nodes first, and then, of what is left, between the ranks with the
same place in their nodes. Over the network go a node's sums then, not those of each of its ranks; and the additions are
the same ones, in the same tree, so the bits do not change.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from dataclasses import dataclass

import torch.distributed as dist
from torch import Tensor

from trainer.distributed.collective import Group, gather_pieces, gather_values, scatter_pieces
from trainer.distributed.summation_tree import Node, largest_subtrees, tree_sum
from trainer.distributed.world import World


@dataclass(frozen=True)
class Level:
    """An exchange among the ranks of a group.

    Args:
        group: of the ranks.
        before: the subtrees whose sums each rank of the group has when the level begins.
        after: the subtrees whose sums each of them has of its piece when it ends.
    """

    group: Group
    before: tuple[tuple[Node, ...], ...]
    after: tuple[Node, ...]

    @functools.cached_property
    def senders(self) -> list[list[int]]:
        """The ranks that have a first sum, those that have a second one, and so on."""
        return [[k for k, nodes in enumerate(self.before) if i < len(nodes)] for i in range(max(map(len, self.before)))]

    def reduce_scatter(self, held: Sequence[Tensor], received: Sequence[Tensor]) -> list[Tensor]:
        """Return this rank's piece of the sums of `after`.

        Args:
            held: this rank's sums of a region.
            received: what to receive into: (senders, piece) for the first sums, the second ones, and so on.
        """
        scatter_pieces(held, received, self.senders, self.group)
        pieces = {
            self.before[k][i]: row
            for i, (some, rows) in enumerate(zip(self.senders, received, strict=True))
            for k, row in zip(some, rows, strict=True)
        }
        place = self.group.place
        own = [tensor.chunk(self.group.size)[place] for tensor in held]
        pieces |= dict(zip(self.before[place], own, strict=True))
        return [tree_sum(node, pieces) for node in self.after]


def place_in_node(world: World) -> tuple[int, int]:
    """Return this rank's place among those of its node, and how many these are, as its launcher says."""
    return int(os.environ.get("LOCAL_RANK", world.rank)), int(os.environ.get("LOCAL_WORLD_SIZE", world.size))


@functools.cache  # a group is made once: NCCL keeps connections and memory for each
def exchange_groups(world: World) -> tuple[Group, ...]:
    """Return the groups in which this rank exchanges, one after the other; all ranks make them together.

    All ranks are one group, unless each node has as many, which follow one another: then this rank's node is the first
    group, and the ranks with its place on all nodes are the second one.
    """
    places = gather_values(world, place_in_node(world))
    size = places[0][1]
    if size in (1, world.size) or places != [(rank % size, size) for rank in range(world.size)]:
        return (Group(None, range(world.size), world.rank),)
    nodes = [range(first, first + size) for first in range(0, world.size, size)]
    between = [range(place, world.size, size) for place in range(size)]
    # Each rank takes part in making every group, its own or not.
    made = [(dist.new_group(list(ranks)), ranks) for ranks in (*nodes, *between)]
    return tuple(Group(group, ranks, ranks.index(world.rank)) for group, ranks in made if world.rank in ranks)


def exchange_levels(world: World, micro_batches: int) -> list[Level]:
    """Return the levels that make of the ranks' sums over their shares those over all micro-batches."""

    def level(group: Group, shares: Sequence[range]) -> Level:
        root = (0, micro_batches)
        before = tuple(tuple(largest_subtrees(root, share)) for share in shares)
        after = tuple(largest_subtrees(root, range(shares[0].start, shares[-1].stop)))
        return Level(group, before, after)

    first, *between = exchange_groups(world)
    levels = [level(first, [world.share_of(rank, micro_batches) for rank in first.ranks])]
    for group in between:
        nodes = World(size=group.size)  # a node's share is that of its ranks together
        levels.append(level(group, [nodes.share_of(node, micro_batches) for node in range(nodes.size)]))
    return levels


class RegionMean:
    """The mean of one region over all micro-batches of all ranks.

    Args:
        levels: of the exchange.
        region: of the flat buffers; its length is a multiple of the number of ranks.
        like: a tensor of the buffers' device and type.
    """

    def __init__(self, levels: Sequence[Level], region: slice, like: Tensor) -> None:
        self.levels, self.region = levels, region
        self.received: list[list[Tensor]] = []
        numel = region.stop - region.start
        for level in levels:
            numel //= level.group.size
            self.received.append([like.new_empty(len(senders), numel) for senders in level.senders])

    def __call__(self, sums: Sequence[Tensor], mean: Tensor, count: int) -> None:
        """Write the mean over `count` micro-batches.

        Args:
            sums: the flat buffers of this rank's subtrees, from left to right.
            mean: the flat buffer to write into; it may be one of them.
        """
        held = [flat[self.region] for flat in sums]
        regions = [mean[self.region]]
        for level, received in zip(self.levels, self.received, strict=True):
            held = level.reduce_scatter(held, received)
            regions.append(regions[-1].chunk(level.group.size)[level.group.place])
        total = held[0].div_(count)
        if total.data_ptr() != regions[-1].data_ptr():  # the leftmost sum is another rank's
            regions[-1].copy_(total)
        for level, whole in zip(reversed(self.levels), reversed(regions[:-1]), strict=True):
            gather_pieces(whole, level.group)
