"""A folder on the disk of a node with copies of remote files, for all processes of all jobs on that node.

SHA           a whole copy; its name is its SHA-256, which was checked when it arrived
SHA.part      one that arrives; whoever writes it holds a lock on it, so one without is left over from a killed process
SHA.sparse    a file with holes, into which single samples are put; each is checked by its own hash when it is read
lock          held while room is made
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

PART, SPARSE = ".part", ".sparse"
IN_USE_S = 60.0  # who uses a file marks it more often than that
NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EACCES, errno.EPERM})


class Filled(Enum):
    """What became of a file that was to be copied."""

    THERE = "it is there"
    BUSY = "another process or thread copies it now"
    NO_ROOM = "the cache or its disk is full"
    DAMAGED = "what arrived has another SHA-256"


@dataclass(frozen=True)
class Needs:
    """What this process will read, by SHA-256."""

    keep: frozenset[str] = frozenset()  # must stay
    next_use: Mapping[str, int] | None = None  # the others of the same dataset: a larger number is needed later


class FileCache:
    """The copies in a folder.

    Args:
        folder: on a local disk; it is made when something is stored.
        limit: bytes that all files in it may have.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self.limit = folder, limit

    def read(self, sha256: str, offset: int, size: int) -> tuple[bytes | None, bytes | None]:
        """Return bytes of the whole copy, and of the one with holes; None: there is none."""
        return self.read_file(sha256, offset, size), self.read_file(sha256 + SPARSE, offset, size)

    def read_file(self, name: str, offset: int, size: int) -> bytes | None:
        """Return bytes of a file; None: there is none, or its disk cannot read it."""
        try:
            # Opened for each read: a descriptor that is kept would keep the space of a file that was removed.
            descriptor = os.open(self.folder / name, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            return os.pread(descriptor, size, offset)
        except OSError:
            return b""
        finally:
            os.close(descriptor)

    def has(self, sha256: str) -> bool:
        """Return whether there is a whole copy."""
        return (self.folder / sha256).exists()

    def fill(self, sha256: str, size: int, blocks: Iterable[bytes], needs: Needs) -> Filled:
        """Copy a file, unless it is there or being copied.

        Args:
            sha256: of the whole file.
            size: of the file, in bytes.
            blocks: its bytes; they are asked for only if it is to be copied here and now.
            needs: what must not be removed to make room for it.
        """
        part = self.folder / f"{sha256}{PART}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError:
            return Filled.NO_ROOM
        try:
            if not (lock_now(descriptor) and is_file(descriptor, part)):
                return Filled.BUSY
            if self.has(sha256):
                part.unlink(missing_ok=True)
                return Filled.THERE
            return self.copy(descriptor, part, size, blocks, needs)
        finally:
            os.close(descriptor)

    def copy(self, descriptor: int, part: Path, size: int, blocks: Iterable[bytes], needs: Needs) -> Filled:
        """Write a file whose lock is held, and give it its name if it is what it should be."""
        whole = False
        try:
            if not self.reserve(descriptor, size, needs):
                return Filled.NO_ROOM
            digest, written = hashlib.sha256(), 0
            for block in blocks:
                digest.update(block)
                written += os.pwrite(descriptor, block, written)
            if whole := (digest.hexdigest() == part.stem and written == size):
                part.replace(self.folder / part.stem)
                (self.folder / f"{part.stem}{SPARSE}").unlink(missing_ok=True)
            return Filled.THERE if whole else Filled.DAMAGED
        except OSError as error:
            if error.errno not in NO_SPACE:
                raise
            return Filled.NO_ROOM
        finally:
            if not whole:
                part.unlink(missing_ok=True)

    def put(self, sha256: str, size: int, offset: int, data: bytes, needs: Needs) -> bool:
        """Keep a part of a file, and return whether there was room for it."""
        path = self.folder / f"{sha256}{SPARSE}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError:
            return False
        try:
            # All of it is counted from the beginning, so that later parts always have room.
            there = os.fstat(descriptor).st_size == size
            if not there and not self.reserve(descriptor, size, needs, holes=True):
                path.unlink(missing_ok=True)
                return False
            return os.pwrite(descriptor, data, offset) == len(data)
        except OSError:
            return False
        finally:
            os.close(descriptor)

    def drop(self, sha256: str) -> None:
        """Remove a copy that is damaged."""
        with suppress(OSError):
            (self.folder / sha256).unlink(missing_ok=True)

    def mark_used(self, names: Iterable[str]) -> None:
        """Say that files are in use: other processes do not remove them."""
        for name in names:
            for suffix in ("", SPARSE):
                with suppress(OSError):
                    os.utime(self.folder / f"{name}{suffix}")

    def reserve(self, descriptor: int, size: int, needs: Needs, holes: bool = False) -> bool:
        """Give a file its size, and return whether there was room; what is needed least is removed for it."""
        with self.lock():
            if holes and os.fstat(descriptor).st_size == size:
                return True  # another thread was first
            files = dict(self.files())
            used = sum(found.st_size for found in files.values())
            victims = self.victims(files, needs)
            while True:
                if used + size <= self.limit and set_size(descriptor, size, holes):
                    return True
                if (victim := next(victims, None)) is None:
                    return False
                with suppress(OSError):
                    (self.folder / victim).unlink()
                used -= files[victim].st_size

    def files(self) -> Iterator[tuple[str, os.stat_result]]:
        """Yield the cache's own files, and what is known of each."""
        for name in os.listdir(self.folder):
            if is_copy(name):
                with suppress(FileNotFoundError):  # another process has removed or renamed it
                    yield name, (self.folder / name).lstat()

    def victims(self, files: Mapping[str, os.stat_result], needs: Needs) -> Iterator[str]:
        """Yield the files that may be removed, those that are needed least first."""
        for name in files:
            if name.endswith(PART) and self.is_left_over(name):
                yield name
        rest = [name for name in files if name.partition(".")[0] not in needs.keep and not name.endswith(PART)]
        unused = sorted((files[name].st_mtime, name) for name in rest if time.time() - files[name].st_mtime > IN_USE_S)
        yield from (name for _, name in unused)
        # What this job has used a moment ago: it knows when it will use it again.
        later, old = needs.next_use or {}, {name for _, name in unused}
        own = [(later[name.partition(".")[0]], name) for name in rest if name.partition(".")[0] in later]
        yield from (name for _, name in sorted(own, reverse=True) if name not in old)

    def is_left_over(self, name: str) -> bool:
        """Return whether nobody writes a file that arrives."""
        try:
            descriptor = os.open(self.folder / name, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            return lock_now(descriptor)
        finally:
            os.close(descriptor)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Let one process at a time make room; a killed one does not keep the lock."""
        descriptor = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def lock_now(descriptor: int) -> bool:
    """Lock a file, unless somebody holds its lock."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_file(descriptor: int, path: Path) -> bool:
    """Return whether a path still leads to an open file: meanwhile it may have been finished or removed."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def is_copy(name: str) -> bool:
    """Return whether a file of the folder is one of the cache's, so that it may be removed."""
    return len(name.partition(".")[0]) == 64 and name[64:] in ("", PART, SPARSE)


def set_size(descriptor: int, size: int, holes: bool) -> bool:
    """Give a file its size, and return whether its disk had room."""
    try:
        os.ftruncate(descriptor, 0)  # what a killed process has left
        if holes:
            os.ftruncate(descriptor, size)
        elif size:
            os.posix_fallocate(descriptor, 0, size)
    except OSError as error:
        if error.errno not in NO_SPACE:
            raise
        return False
    return True
