"""The tree in whose order all sums over micro-batches are added, whatever the number of ranks.

Floating-point addition is not associative. So the order of the additions is fixed by the micro-batches alone: a binary
tree over them. A rank that owns a contiguous share computes the subtrees that lie inside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor

Node = tuple[int, int]  # the micro-batches first..last-1 below a node of the tree


def split_node(node: Node) -> tuple[Node, Node]:
    """Return a node's children: the left one has the largest power of two of leaves that leaves the right one some."""
    first, last = node
    # Any fixed tree would do. This one makes equal shares of 2, 4, 8 … ranks whole subtrees, which need no exchange
    # but one: the partial sums.
    middle = first + (1 << ((last - first - 1).bit_length() - 1))
    return (first, middle), (middle, last)


def largest_subtrees(node: Node, share: range) -> list[Node]:
    """Return the largest subtrees below `node` that lie inside `share`, from left to right."""
    first, last = node
    if share.start <= first and last <= share.stop:
        return [node]
    if last <= share.start or share.stop <= first:
        return []
    left, right = split_node(node)
    return largest_subtrees(left, share) + largest_subtrees(right, share)


def in_tree(node: Node, root: Node) -> bool:
    """Tell whether a node is one of the tree's below `root`."""
    return largest_subtrees(root, range(*node)) == [node]


def tree_sum(node: Node, partial: Mapping[Node, Tensor]) -> Tensor:
    """Add up `partial` (sums of the subtrees that tile `node`) in the tree's order, into the leftmost of them."""
    if node in partial:
        return partial[node]
    left, right = split_node(node)
    # In place: the exchange is over, so nobody else reads these slices any more.
    return tree_sum(left, partial).add_(tree_sum(right, partial))


def additions(there: Iterable[Node], new: Node, root: Node) -> list[tuple[Node, Node]]:
    """Return which pairs (left, right) become complete subtrees below `root` when `new` joins those that are there."""
    lefts = {last: (first, last) for first, last in there}
    pairs = []
    while new != root and (left := lefts.get(new[0])) and split_node((left[0], new[1])) == (left, new):
        parent = (left[0], new[1])
        if not in_tree(parent, root):
            break
        pairs.append((left, new))
        new = parent
    return pairs
