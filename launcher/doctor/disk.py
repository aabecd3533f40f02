"""What the shared folder does: renames, links, fsyncs, and how soon one node sees what another has written."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

from launcher.doctor.measured import WAIT_S, Disk, ProbeMessages
from launcher.jobs.file_systems import file_system
from shards.atomic_files import fsync

FSYNCS = 10
LARGE_MB = 64
BEATS = 5
BEAT_S = 0.3


def measure_disk(folder: Path, rank: int) -> Disk:
    """Try the folder; the first node also writes a large file, as it writes the checkpoints."""
    usage = shutil.disk_usage(folder)
    # Never the last of the space: a run may be saving there in this moment.
    roomy = usage.free > 16 * LARGE_MB << 20
    return Disk(
        kind=file_system(folder.resolve()),
        free_bytes=usage.free,
        total_bytes=usage.total,
        rename=try_rename(folder / f"rename-{rank}"),
        link=try_link(folder / f"link-{rank}"),
        fsync_s=tuple(time_durable_write(folder / f"small-{rank}", b"x" * 4096) for _ in range(FSYNCS)),
        # Random bytes: a file system that compresses would seem faster than it is for weights.
        write_mb_s=LARGE_MB / time_durable_write(folder / "large", os.urandom(LARGE_MB << 20))
        if roomy and not rank
        else None,
    )


def try_rename(path: Path) -> str:
    """Replace a file by another; return what is wrong with that."""
    # A checkpoint becomes whole by such a rename (shards/atomic_files.py).
    draft = path.with_suffix(".new")
    try:
        path.write_text("old")
        draft.write_text("new")
        draft.rename(path)
        return "" if path.read_text() == "new" and not draft.exists() else "the old file is still there"
    except OSError as error:
        return error.strerror or str(error)


def try_link(path: Path) -> str:
    """Make a file by a hard link, twice: the second one must be refused. Return what is wrong with that."""
    # The lease of a run is taken by such a link: of two jobs, the second one must be told that it comes too late.
    draft = path.with_suffix(".draft")
    try:
        draft.write_text("mine")
        os.link(draft, path)
        os.link(draft, path)
    except FileExistsError:
        return ""
    except OSError as error:
        return error.strerror or str(error)
    return "a link replaced a file that was there"


def time_durable_write(path: Path, content: bytes) -> float:
    """Return the seconds that it takes until a file is on the disk."""
    # Not `write_atomically`: the bytes alone are timed, without a rename and an fsync of the folder.
    began = time.perf_counter()
    path.write_bytes(content)
    fsync(path)
    took = time.perf_counter() - began
    path.unlink()
    return took


def measure_visibility(messages: ProbeMessages, offset_s: float) -> tuple[float, ...]:
    """Return how long each beat of the first node's took to be seen here; `offset_s`: its clock minus this one's.

    Raises:
        TimeoutError: none was seen.
    """
    if messages.size == 1:
        return ()
    # Beats begin once all are watching: one that nobody looks for yet would seem to have been seen late.
    messages.write("watching", True)
    if messages.rank == 0:
        messages.wait_for_all("watching")
        for beat in range(BEATS):
            messages.write("beat", [beat, time.time()])
            time.sleep(BEAT_S)
        return ()
    delays: dict[int, float] = {}
    deadline = time.monotonic() + 2 * WAIT_S
    # Until the last beat: one before it may be missed, as each replaces the one before in the same file.
    while BEATS - 1 not in delays and time.monotonic() < deadline:
        if (said := messages.read("beat", 0)) and said[0] not in delays:
            # Clocks are known to half a round trip only, so a short delay may come out below 0.
            delays[said[0]] = max(0.0, time.time() + offset_s - said[1])
        time.sleep(0.001)
    if not delays:
        raise TimeoutError(f"what the first node wrote was not seen in {2 * WAIT_S:g} s")
    return tuple(delays.values())
