"""Pretended ranks: threads of one process that train on one device, each as one of several.

NCCL and our own checks refuse two ranks on one GPU. Here each rank has a state, a step, an `ExactReduction` and its
regions of its own, and one rank runs at a time. Only the collectives are replaced, by copies on the device, and the
exchange waits for the end of the backward pass. So this shows whether kernels, sums and regions give the same bits for
any number of ranks on this device. It does not show NCCL, nor an exchange on a stream beside the backward pass.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from unittest import mock

from torch import Tensor

from trainer.distributed import exchange, overlap
from trainer.distributed.collective import Group
from trainer.distributed.world import World


class PretendedRanks:
    """Ranks that are threads of this process; one of them runs at a time, from one meeting to the next."""

    def __init__(self, size: int) -> None:
        self.size, self.turn, self.broken = size, 0, False
        self.condition = threading.Condition()
        self.posted: dict[int, Sequence[Tensor]] = {}

    def run(self, act: Callable[[World], str]) -> list[str]:
        """Let every rank act, and return what each has returned.

        Raises:
            Exception: of the first rank that failed; the others are stopped.
        """

        def one(rank: int) -> str:
            self.await_turn(rank)
            try:
                result = act(World(rank, self.size))
            except BaseException:
                self.broken = True
                raise
            finally:
                self.pass_on(rank)
            return result

        with self.replaced_collectives(), ThreadPoolExecutor(self.size) as threads:
            ranks = [threads.submit(one, rank) for rank in range(self.size)]
        failures = [error for error in (rank.exception() for rank in ranks) if error is not None]
        # The others only tell that one of them failed.
        for error in sorted(failures, key=lambda error: isinstance(error, threading.BrokenBarrierError)):
            raise error
        return [rank.result() for rank in ranks]

    def await_turn(self, rank: int) -> None:
        """Wait until the ranks before this one have met."""
        with self.condition:
            self.condition.wait_for(lambda: self.broken or self.turn == rank)
        if self.broken:
            raise threading.BrokenBarrierError

    def pass_on(self, rank: int) -> None:
        """Let the next rank run."""
        with self.condition:
            self.turn = (rank + 1) % self.size
            self.condition.notify_all()

    def meet(self, rank: int) -> None:
        """Return when all ranks are here: a round of turns is a barrier."""
        self.pass_on(rank)
        self.await_turn(rank)

    def scatter(
        self, held: Sequence[Tensor], received: Sequence[Tensor], senders: Sequence[Sequence[int]], group: Group
    ) -> None:
        """Do what `scatter_pieces` does."""
        self.posted[group.place] = held
        self.meet(group.place)
        for i, (into, some) in enumerate(zip(received, senders, strict=True)):
            for row, k in zip(into, some, strict=True):
                if k != group.place:
                    row.copy_(self.posted[k][i].chunk(group.size)[group.place])
        self.meet(group.place)  # all have copied, so what was posted may be written again

    def gather(self, whole: Tensor, group: Group) -> None:
        """Do what `gather_pieces` does."""
        self.posted[group.place] = [whole]
        self.meet(group.place)
        for k, piece in enumerate(whole.chunk(group.size)):
            if k != group.place:
                piece.copy_(self.posted[k][0].chunk(group.size)[k])
        self.meet(group.place)

    @contextmanager
    def replaced_collectives(self) -> Iterator[None]:
        """Exchange among these ranks inside."""

        def groups(world: World) -> tuple[Group, ...]:
            return (Group(None, range(world.size), world.rank),)

        with ExitStack() as stack:
            for module, name, new in (
                (exchange, "exchange_groups", groups),
                (exchange, "scatter_pieces", self.scatter),
                (exchange, "gather_pieces", self.gather),
                (overlap, "lane_of", lambda device: DeferredLane()),
            ):
                stack.enter_context(mock.patch.object(module, name, new))
            yield


class DeferredLane:
    """Runs the actions when they are waited for: ranks meet outside of the backward pass."""

    def __init__(self) -> None:
        self.actions: list[Callable[[], None]] = []

    def start(self, act: Callable[[], None]) -> None:
        """Keep an action."""
        self.actions.append(act)

    def wait(self) -> None:
        """Run the actions in order."""
        actions, self.actions = self.actions, []
        for act in actions:
            act()
