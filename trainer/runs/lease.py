"""Who trains in a run folder: one holder at a time, on any node, without trusting clocks or the file system's locks.

`lease.json` names the holder. It is made by a hard link, which is atomic on network file systems too, and touched every
BEAT_S seconds. Who finds another's lease asks whether that process is dead (same machine), or an earlier attempt of the
same job (the cluster lets one at a time run), or silent for STALE_S seconds by the finder's own clock; only then is it
broken. A holder that finds its lease gone ends at once: whatever it had begun, its successor repeats to the bit. So
does one whose folder was moved: it knows the folder by an open descriptor, and says where it is now.

A copy of the folder has a lease that names the original's holder. It is told by the folder's inode, and means nothing.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from typing import NamedTuple

from trainer.core.advice import command
from trainer.core.fields import Refused
from trainer.runs.lease_holder import HANDED_OVER, Holder, Owner, read_lease
from trainer.runs.run_folder import RunFolder

log = logging.getLogger(__name__)

BEAT_S = 2.0
STALE_S = 20.0  # ten beats: a network file system may show some of them late
COPY_S = 3 * BEAT_S  # enough to see a beat, should it be no copy after all


@dataclass(frozen=True)
class LeaseTiming:
    """Seconds between two beats, and how long a finder waits for a sign of life from a holder elsewhere."""

    beat_s: float = BEAT_S
    stale_s: float = STALE_S
    copy_s: float = COPY_S
    """In place of stale_s where the lease is a copy's."""


USUAL_TIMING = LeaseTiming()


class Loss(NamedTuple):
    """Why a run is no longer its holder's."""

    why: str
    moved: bool = False
    """The folder is elsewhere, or gone; else it is another process's."""


class Lease:
    """The run folder in this process's hands, until `release` or its death.

    Args:
        run: of the folder.
        owner, attempt: the job that this process belongs to, and how often that was started before.
        on_loss: called from a thread when the run is no longer this process's.
        timing: of beats and patience.

    Raises:
        Refused: another process trains there, or the folder cannot be written.
    """

    def __init__(
        self,
        run: RunFolder,
        owner: Owner,
        attempt: int,
        on_loss: Callable[[Loss], None],
        timing: LeaseTiming = USUAL_TIMING,
    ) -> None:
        self.run, self.path, self.on_loss, self.timing = run, run.lease, on_loss, timing
        try:
            run.path.mkdir(parents=True, exist_ok=True)
            self.mine = Holder.this_process(owner, attempt, run.path)
            # Follows the folder when it is moved, and tells where to.
            self.folder = os.open(run.path, os.O_RDONLY | os.O_DIRECTORY)
            with ExitStack() as unless_held:
                unless_held.callback(os.close, self.folder)
                self.acquire()
                unless_held.pop_all()
        except OSError as error:
            raise Refused(f"the run folder {run.path} cannot be written: {error.strerror}") from error
        self.released = threading.Event()
        self.thread = threading.Thread(target=self.beat, name="lease", daemon=True)
        self.thread.start()

    def acquire(self) -> None:
        """Take the lease, breaking a stale one."""
        draft = self.path.with_name(f"{self.path.name}.{self.mine.token}")
        try:
            # Written in full before it is linked: nobody reads half a lease.
            draft.write_text(json.dumps(asdict(self.mine)))
            while True:
                try:
                    os.link(draft, self.path)
                    return
                except FileExistsError:
                    self.break_stale()
        finally:
            with suppress(OSError):
                draft.unlink()

    def break_stale(self) -> None:
        """Break the lease that is there if its holder is gone.

        Raises:
            Refused: it is not.
        """
        found = read_lease(self.path)
        if found is None:
            return
        holder, beat = found
        if not (holder.dead() or holder.gives_way_to(self.mine)):
            if copied := holder.of_copy(self.run):
                log.warning("%s is a copy of %s, where %s trained", self.run.path, holder.folder, holder)
            elif holder.boot == self.mine.boot:
                raise self.refusal(holder)
            # A copy's lease does not beat; that is looked at all the same, should the file system number at random.
            patience = self.timing.copy_s if copied else self.timing.stale_s
            log.warning("%s held this run; waiting %g s for a sign of life", holder, patience)
            deadline = time.monotonic() + patience
            while time.monotonic() < deadline:
                time.sleep(self.timing.beat_s / 4)
                now = read_lease(self.path)
                if now is None:
                    return
                if now != (holder, beat):
                    raise self.refusal(now[0])
        if holder.attempt != HANDED_OVER or not holder.gives_way_to(self.mine):
            log.warning("%s has left its lease behind; it is broken", holder)
        broken = self.path.with_name(f"{self.path.name}.broken-{self.mine.token}")
        # Renamed, not removed: of several that find it stale, one gets it, and can see whose it really was.
        with suppress(FileNotFoundError):  # somebody else broke it first
            self.path.rename(broken)
            moved = read_lease(broken)
            if moved and moved[0].token != holder.token:  # somebody else broke it, and this is theirs: put it back
                with suppress(FileExistsError):
                    os.link(broken, self.path)
            broken.unlink()

    def refusal(self, holder: Holder) -> Refused:
        """Say that somebody trains here."""
        end = command("launcher", "cancel", self.path.parent)
        return Refused(f"another process trains in {self.path.parent} already: {holder}; end it first: {end}")

    def loss(self) -> Loss | None:
        """Tell whether the run is no longer this process's; a file system that does not answer takes nothing away."""
        try:
            there = self.run.path.exists() and os.path.samestat(self.run.path.stat(), os.fstat(self.folder))
            if not there:
                return Loss(self.moved(), moved=True)
            found = read_lease(self.path)
        except OSError:
            return None
        if found is not None and found[0].token == self.mine.token:
            return None
        return Loss(f"another process has taken the run over: {found[0] if found else 'its lease is gone'}")

    def moved(self) -> str:
        """Say that the folder is no longer where it was, and where it is now."""
        path, now = self.run.path, os.readlink(f"/proc/self/fd/{self.folder}")
        if now.endswith(" (deleted)"):
            return f"the run folder {path} was removed while it trained"
        return f"the run folder {path} was moved while it trained; go on with: {command('launcher', 'resume', now)}"

    def beat(self) -> None:
        """Show that this process lives, and tell when the lease is another's or the folder has gone."""
        while not self.released.wait(self.timing.beat_s):
            if lost := self.loss():
                self.on_loss(lost)
                return
            with suppress(OSError):
                os.utime(self.path)

    def release(self) -> None:
        """Give the run folder back."""
        self.released.set()
        with suppress(OSError):
            if not self.loss():
                self.path.unlink()
        self.thread.join(self.timing.beat_s)
        if not self.thread.is_alive():  # else the file system does not answer it
            os.close(self.folder)


@contextmanager
def held(run: RunFolder, owner: Owner, attempt: int = 0) -> Iterator[None]:
    """Let nobody else write into a run folder meanwhile.

    Raises:
        Refused: somebody trains there, or the folder cannot be written.
    """
    lease = Lease(run, owner, attempt, lambda *_: None)
    try:
        yield
    finally:
        lease.release()
