"""Exchanges between ranks: plain values from outside the step, and the pieces of tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch.distributed as dist
from torch import Tensor

from trainer.core.fields import Refused
from trainer.distributed.world import World

T = TypeVar("T")


@dataclass(frozen=True)
class Group:
    """Ranks that exchange among themselves.

    Args:
        process_group: None for all ranks.
        ranks: in it, in rising order.
        place: of this rank among them.
    """

    process_group: dist.ProcessGroup | None
    ranks: range
    place: int

    @property
    def size(self) -> int:
        """How many they are."""
        return len(self.ranks)

    @property
    def uses_gloo(self) -> bool:
        """Tell whether tensors travel by gloo."""
        return dist.get_backend(self.process_group) == "gloo"

    def operation(self, act: Callable[..., Any], tensor: Tensor, peer: int) -> dist.P2POp:
        """Return a transfer to or from the group's rank number `peer`."""
        return dist.P2POp(act, tensor, group=self.process_group, group_peer=peer)


def on_main(world: World, act: Callable[[], T] | None) -> T:
    """Let the main process act (elsewhere `act` is not used), and return its result on every process.

    Raises:
        Refused: on every process, if the main process was refused.
    """
    # Result and refusal travel together: if rank 0 is refused, no rank waits for a result for ever.
    box: list[Any] = [None, None]
    if world.main:
        assert act is not None
        try:
            box[0] = act()
        except Refused as error:
            box[1] = error
    if world.size > 1:
        dist.broadcast_object_list(box, src=0)
    if box[1] is not None:
        raise box[1]
    result: T = box[0]
    return result


def gather_values(world: World, value: T) -> list[T]:
    """Return every process's value, in the order of ranks, on every process."""
    if world.size == 1:
        return [value]
    values: list[Any] = [None] * world.size
    dist.all_gather_object(values, value)
    return values


def scatter_pieces(
    held: Sequence[Tensor], received: Sequence[Tensor], senders: Sequence[Sequence[int]], group: Group
) -> None:
    """Cut each tensor that this rank of a group holds into pieces, and send each rank its piece of all.

    Args:
        held: one-dimensional, of lengths that are a multiple of the size of the group.
        received: what to receive into: (senders, piece) for each of the tensors that some rank holds. The rows of what
            this rank itself has are undefined.
        senders: for each of these, the ranks that hold it.
        group: whose ranks do this together.
    """
    if group.uses_gloo:
        # One by one and all at once: gloo's all-to-all waits for one pair of ranks after the other.
        rows = [
            (row, k) for into, some in zip(received, senders, strict=True) for row, k in zip(into, some, strict=True)
        ]
        operations = [group.operation(dist.irecv, row, k) for row, k in rows if k != group.place]
        pieces = [(piece, k) for tensor in held for k, piece in enumerate(tensor.chunk(group.size))]
        operations += [group.operation(dist.isend, piece, k) for piece, k in pieces if k != group.place]
        for request in dist.batch_isend_irecv(operations):
            request.wait()
        return
    for i, (into, some) in enumerate(zip(received, senders, strict=True)):
        piece, own = into.shape[1], held[i : i + 1]
        to_receive = [piece if k in some else 0 for k in range(group.size)]
        to_send = [piece * len(own)] * group.size
        dist.all_to_all_single(
            into.view(-1), own[0] if own else into.new_empty(0), to_receive, to_send, group.process_group
        )


def gather_pieces(whole: Tensor, group: Group) -> None:
    """Fill `whole` from the ranks of a group, of which each has written its own piece of 1 / size of it."""
    pieces = whole.chunk(group.size)
    if not group.uses_gloo:
        dist.all_gather_single(whole, pieces[group.place], group.process_group)  # NCCL's works in place
        return
    # Gloo copies all of it twice for an all-gather; broadcasts write where they should: a fourth of the time.
    requests = [
        dist.broadcast(piece, group=group.process_group, group_src=k, async_op=True) for k, piece in enumerate(pieces)
    ]
    for request in requests:
        request.wait()
