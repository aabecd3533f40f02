"""Who holds a run folder: what `lease.json` says of a process, and whether that process still lives."""

from __future__ import annotations

import json
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from trainer.runs.origin import inode, is_copy
from trainer.runs.run_folder import RunFolder

HANDED_OVER = -1  # the attempt of a process that holds the run for those that it starts: the first takes it over


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
        # Its number may be in use again: only the same start means the same process.
        return self.boot == boot_id() and process_start(self.pid) != self.started

    def gives_way_to(self, other: Holder) -> bool:
        """Tell whether the other is a later attempt of the same job."""
        # Slurm lets one attempt of a job run at a time, so the earlier one has ended.
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
        # Nobody can be asked whether its holder lives: it is broken like that of a silent one.
        return Holder(Owner("an unreadable lease"), -1, "", "", 0, 0, ""), 0


def living_holder(run: RunFolder) -> Holder | None:
    """Return who trains here, as far as can be told at once; a holder known to be dead, or of the original, is none."""
    found = read_lease(run.lease)
    return None if found is None or found[0].dead() or found[0].of_copy(run) else found[0]
