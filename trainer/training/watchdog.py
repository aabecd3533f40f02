"""Notices that training stands still, names the rank that holds it up, and ends this process.

A collective waits for its slowest rank, for ever if that one is stopped, swaps, or sits on a node that hangs. Each rank
has a thread that sends heartbeats to the store where the ranks met; a rank that sends none cannot be running.
"""

from __future__ import annotations

import faulthandler
import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from torch.distributed import TCPStore  # type: ignore[attr-defined]  # re-exported without a word

from trainer.core.stopping import Outcome
from trainer.distributed.world import World

log = logging.getLogger(__name__)

ANSWER_S = 10.0  # a store that does not answer for so long is gone
SETTLE_S = 2.0  # the ranks that do not report wait so long for the one that does


@dataclass
class Heartbeat:
    """The last heartbeat of a rank, and when it changed by this process's clock."""

    place: str = "an unknown node"
    images_seen: int = -1
    count: int = -1
    changed: float = 0.0


class Watchdog:
    """Watches over the steps of this rank.

    Args:
        world: this process's place.
        place: the name of its node.
        stall_after_s: training may stand still so long.
        report: called in one of the living ranks with what is wrong and the nodes at fault, before all end.
    """

    def __init__(
        self, world: World, place: str, stall_after_s: float, report: Callable[[str, list[str]], None]
    ) -> None:
        self.world, self.place, self.stall_after_s, self.report = world, place, stall_after_s, report
        self.images_seen, self.last_step_at = 0, time.monotonic()
        self.heartbeats = {rank: Heartbeat() for rank in range(world.size)}
        self.ended = threading.Event()
        if world.size == 1:
            return  # there is nobody to wait for
        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        self.store = TCPStore(address, port, is_master=False, timeout=timedelta(seconds=ANSWER_S))
        self.send_heartbeat(0)
        threading.Thread(target=self.run, name="watchdog", daemon=True).start()

    def step(self, images_seen: int) -> None:
        """Note that a step has ended."""
        self.images_seen, self.last_step_at = images_seen, time.monotonic()

    def close(self) -> None:
        """Stop watching."""
        self.ended.set()

    def run(self) -> None:
        """Send heartbeats; once this rank has not stepped for half of the allowed time, read those of the others."""
        # At least two heartbeats in a third of the allowed time, after which a rank counts as silent.
        period = min(5.0, self.stall_after_s / 8)
        count, woke = 0, time.monotonic()
        while not self.ended.wait(period):
            if time.monotonic() - woke > self.stall_after_s / 3:  # the others have seen it, and end this process
                log.error("this process was stopped for %.0f s", time.monotonic() - woke)
                self.last_step_at = time.monotonic()
            woke = time.monotonic()
            try:
                count += 1
                self.send_heartbeat(count)
                still = time.monotonic() - self.last_step_at
                if still > self.stall_after_s / 2:
                    self.read_heartbeats()
                if still > self.stall_after_s:
                    self.end_process(*self.cause())
            except RuntimeError as error:  # the store is gone, and with it the process that served it
                if not self.ended.wait(SETTLE_S):  # in an orderly end it goes a moment before this process does
                    self.end_process(f"the store where the ranks met is gone: {str(error).splitlines()[0]}", [])

    def send_heartbeat(self, count: int) -> None:
        """Send a heartbeat."""
        self.store.set(beat_key(self.world.rank), json.dumps([self.place, self.images_seen, count]))

    def read_heartbeats(self) -> None:
        """Read which ranks have sent a new heartbeat."""
        now = time.monotonic()
        # Only those that have sent one: `multi_get` waits for keys that are not there.
        there = [
            rank for rank in self.heartbeats if self.heartbeats[rank].count >= 0 or self.store.check([beat_key(rank)])
        ]
        for rank, value in zip(there, self.store.multi_get([beat_key(rank) for rank in there]), strict=True):
            place, images_seen, count = json.loads(value)
            if count != self.heartbeats[rank].count:
                self.heartbeats[rank] = Heartbeat(place, images_seen, count, now)
        for beat in self.heartbeats.values():
            # A rank that has never sent one is given its time from the first look on.
            beat.changed = beat.changed or now

    def cause(self) -> tuple[str, list[int]]:
        """Say what holds training up: ranks that give no sign of life, else those that are behind."""
        now = time.monotonic()
        what = f"no step for {self.stall_after_s:g} s"
        silent = [rank for rank, beat in self.heartbeats.items() if now - beat.changed > self.stall_after_s / 3]
        if silent:
            return f"{what}: {self.name(silent)} gives no sign of life", silent
        last = min(beat.images_seen for beat in self.heartbeats.values())
        behind = [rank for rank, beat in self.heartbeats.items() if beat.images_seen == last]
        if len(behind) < self.world.size:
            return f"{what}: {self.name(behind)} is behind, at {last:,} images", behind
        return f"{what}: all ranks live and are at {last:,} images; their stacks stand in their logs", []

    def name(self, ranks: list[int]) -> str:
        """Name ranks and their nodes."""
        return " and ".join(f"rank {rank} on {self.heartbeats[rank].place}" for rank in ranks)

    def end_process(self, what: str, ranks: list[int]) -> None:
        """Say what is wrong, dump the stacks, and end this process: the cluster ends the others and starts again."""
        log.error("stalled: %s", what)
        faulthandler.dump_traceback(sys.stderr, all_threads=True)
        living = [rank for rank in range(self.world.size) if rank not in ranks]
        if living and self.world.rank == living[0]:
            self.report(what, sorted({self.heartbeats[rank].place for rank in ranks}))
        else:
            time.sleep(SETTLE_S)
        # The main thread may be waiting in a collective, where no exception reaches it.
        os._exit(Outcome.FAILED)


def beat_key(rank: int) -> str:
    """Where a rank beats."""
    return f"lienzo/beat/{rank}"
