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
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

from trainer.core.advice import command
from trainer.core.fields import Refused
from trainer.runs.origin import inode, is_copy
from trainer.runs.run_folder import RunFolder

log = logging.getLogger(__name__)

BEAT_S = 2.0
STALE_S = 20.0
HANDED_OVER = -1  # the attempt of a process that holds the run for those that it starts: the first takes it over
COPY_S = 3 * BEAT_S


class Owner(str):
    """Whom a run folder is held for: a text in `lease.json`, in events and in messages."""

    @classmethod
    def slurm_job(cls, job: int | str) -> Owner:
        """Return the owner that all attempts of a job are."""
        return cls(f"Slurm job {job}")

    @classmethod
    def local_run(cls) -> Owner:
        """Return an owner like no other: the processes that one command starts on this machine."""
        return cls(f"{THIS_MACHINE}, {uuid4().hex[:8]}")

    @property
    def is_slurm_job(self) -> bool:
        """Tell whether it is a job: then Slurm knows more of it."""
        return self.startswith("Slurm job ")


THIS_MACHINE = Owner("a run on this machine")  # where there is no job
SUBMISSION = Owner("a submission")  # while a job is being queued


@dataclass(frozen=True)
class Holder:
    """What a lease says of the process that holds it."""

    owner: Owner
    attempt: int
    host: str
    boot: str
    pid: int
    started: int
    token: str
    folder: str = ""
    """The run folder's full path when the lease was taken."""
    inode: int = 0
    """The run folder's, which tells it from its copies."""

    @classmethod
    def this_process(cls, owner: Owner, attempt: int, folder: Path) -> Holder:
        """Return what this process would write in a run folder that is there."""
        pid, path = os.getpid(), folder.resolve()
        process = (socket.gethostname(), boot_id(), pid, process_start(pid) or 0)
        return cls(owner, attempt, *process, uuid4().hex, str(path), inode(path))

    def of_copy(self, run: RunFolder) -> bool:
        """Tell whether this run folder is a copy, and the holder that of the original."""
        return is_copy(run.path, run.lease.name, self.folder, self.inode)

    def dead(self) -> bool:
        """Tell whether the process is known to be gone: it was of this machine, and is no more."""
        return self.boot == boot_id() and process_start(self.pid) != self.started

    def gives_way_to(self, other: Holder) -> bool:
        """Tell whether the other is a later attempt of the same job."""
        return self.owner == other.owner and self.attempt < other.attempt

    def __str__(self) -> str:
        return f"{self.owner} (process {self.pid} on {self.host})"


def boot_id() -> str:
    """Name this machine since its last start, and the container: process numbers mean something within these only."""
    try:
        start = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{start} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return socket.gethostname()


def process_start(pid: int) -> int | None:
    """Return when a process began, in the kernel's ticks since its own start; None: there is none, or only a zombie.

    A time of day would change under the holder's feet when the clock is set.
    """
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()  # its name may hold anything
    except OSError:
        return None
    return None if state == "Z" else int(fields[18])


def read_lease(path: Path) -> tuple[Holder, int] | None:
    """Return a lease's holder and its last beat; None: nobody holds it. Opening asks a network file system anew."""
    try:
        with path.open() as file:
            values = json.load(file)
            return Holder(**values | {"owner": Owner(values["owner"])}), os.fstat(file.fileno()).st_mtime_ns
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError):
        return Holder(Owner("an unreadable lease"), -1, "", "", 0, 0, ""), 0


def living_holder(run: RunFolder) -> Holder | None:
    """Return who trains here, as far as can be told at once; a holder known to be dead, or of the original, is none."""
    found = read_lease(run.lease)
    return None if found is None or found[0].dead() or found[0].of_copy(run) else found[0]


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

    Raises:
        Refused: another process trains there, or the folder cannot be written.
    """

    def __init__(self, run: RunFolder, owner: Owner, attempt: int, on_loss: Callable[[Loss], None]) -> None:
        self.run, self.path, self.on_loss = run, run.lease, on_loss
        try:
            run.path.mkdir(parents=True, exist_ok=True)
            self.mine = Holder.this_process(owner, attempt, run.path)
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
            patience = COPY_S if copied else STALE_S
            log.warning("%s held this run; waiting %g s for a sign of life", holder, patience)
            deadline = time.monotonic() + patience
            while time.monotonic() < deadline:
                time.sleep(BEAT_S / 4)
                now = read_lease(self.path)
                if now is None:
                    return
                if now != (holder, beat):
                    raise self.refusal(now[0])
        if holder.attempt != HANDED_OVER or not holder.gives_way_to(self.mine):
            log.warning("%s has left its lease behind; it is broken", holder)
        broken = self.path.with_name(f"{self.path.name}.broken-{self.mine.token}")
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
        while not self.released.wait(BEAT_S):
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
        self.thread.join(BEAT_S)
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
