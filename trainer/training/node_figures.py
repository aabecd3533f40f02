"""The figures of each node, measured by its first rank, in a thread, and brought to rank 0 through the ranks' store.

No rank waits for another one: a node that is slow or gone only lacks rows.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import timedelta

from torch.distributed import TCPStore  # type: ignore[attr-defined]  # re-exported without a word

from trainer.distributed.collective import gather_values
from trainer.distributed.exchange import place_in_node
from trainer.distributed.world import World
from trainer.runs.journal import Row
from trainer.tracking.system_figures import SystemFigures

log = logging.getLogger(__name__)

ANSWER_S = 10.0  # a store that does not answer for so long is left alone until the next time
END_S = 2.0  # an orderly end waits so long for a measurement


class NodeFigures:
    """Measures this node if its rank is the first one there.

    Args:
        world: this process's place.
        firsts: the first rank of each node, in order: a node's number is its place among them.
        every_s: seconds between two measurements.
    """

    def __init__(self, world: World, firsts: Sequence[int], every_s: float) -> None:
        self.world, self.firsts, self.every_s = world, firsts, every_s
        self.ended = threading.Event()
        self.write: Callable[[Row], None] = nowhere
        self.thread: threading.Thread | None = None
        self.known: dict[int, bytes] = {}

    def start(self, write: Callable[[Row], None] | None = None) -> None:
        """Begin to measure; `write` takes the rows of all nodes, on rank 0."""
        if self.world.rank in self.firsts:
            self.write = write or nowhere
            self.thread = threading.Thread(target=self.run, name="node figures", daemon=True)
            self.thread.start()

    def close(self) -> None:
        """Measure no more, and write nothing from here on."""
        self.ended.set()
        if self.thread:
            self.thread.join(END_S)

    def run(self) -> None:
        """Measure, and send or collect, until the end."""
        figures, node, store = SystemFigures(), self.firsts.index(self.world.rank), None
        host = platform.node()
        while not self.ended.wait(self.every_s):
            try:
                row: Row = {"node": node, "host": host, **figures.read()}
            except OSError as error:  # of a system that hides its counters
                log.warning("the figures of node %d cannot be read, and are not recorded: %s", node, error)
                return
            self.hand_over(row)
            with suppress(RuntimeError):  # the store is gone, or slow: what that means, the watchdog says
                store = store or self.connect()
                if store and self.world.main:
                    for other in self.arrived(store):
                        self.hand_over(other)
                elif store:
                    store.set(figures_key(node), json.dumps(row))

    def hand_over(self, row: Row) -> None:
        """Write a row, unless the run folder is being closed."""
        if not self.ended.is_set():
            self.write(row)

    def connect(self) -> TCPStore | None:
        """Return a connection to the store where the ranks met; None: there is one node only."""
        if len(self.firsts) == 1:
            return None
        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        store = TCPStore(address, port, is_master=False, timeout=timedelta(seconds=ANSWER_S))
        if self.world.main:
            list(self.arrived(store))  # a store that outlives an attempt has figures of the last one
        return store

    def arrived(self, store: TCPStore) -> Iterator[Row]:
        """Yield the rows that other nodes have sent since the last time."""
        for node in range(1, len(self.firsts)):
            # Asked first: to get a key that is not there waits for it.
            if store.check([figures_key(node)]) and (told := store.get(figures_key(node))) != self.known.get(node):
                self.known[node] = told
                yield json.loads(told)


def node_figures(world: World, every_s: float) -> NodeFigures:
    """Return what measures this rank's node; all ranks find out together which are the first ones."""
    places = gather_values(world, place_in_node(world)[0])
    return NodeFigures(world, [rank for rank, place in enumerate(places) if place == 0], every_s)


def nowhere(row: Row) -> None:
    """Write a row of another rank's than 0, which sends it instead."""


def figures_key(node: int) -> str:
    """Where a node's figures lie in the store."""
    return f"lienzo/figures/{node}"
