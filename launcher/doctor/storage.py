"""Judges the file system of the run folder: what it can, how fast it is, how soon it shows, how full it is."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from statistics import median

from launcher.doctor.finding import Finding, format_bytes, format_seconds, listed
from launcher.doctor.measured import Disk, Probe
from launcher.doctor.run_facts import RunFacts
from launcher.jobs.file_systems import is_local
from trainer.runs.lease import BEAT_S, STALE_S

SLOW_FSYNC_S = 0.5
SLOW_VISIBLE_S = BEAT_S  # the lease is touched so often: who sees it later than that misses touches
LITTLE_BYTES = 5e9


def judge_storage(probes: Sequence[Probe], facts: RunFacts) -> list[Finding]:
    """Judge all of it."""
    disks = {probe.node: probe.disk for probe in probes if probe.disk}
    broken = [f"{probe.node}: {probe.problems['disk']}" for probe in probes if "disk" in probe.problems]
    if broken or not disks:
        measured = listed(broken, 3) or "not measured"
        todo = "look at its rights, its space and how it is mounted on these nodes, or submit with another --run"
        return [Finding("shared folder", "problem", measured, "a run cannot write there", todo)]
    findings = [
        judge_abilities(disks, len({probe.boot for probe in probes})),
        judge_fsync(disks),
        judge_visibility(probes),
    ]
    return [*findings, judge_space(next(iter(disks.values())), facts), judge_quota()]


def judge_abilities(disks: dict[str, Disk], machines: int) -> Finding:
    """Judge renames and hard links: checkpoints need the one, the lease the other."""
    wrong = [f"{node}: renaming: {disk.rename}" for node, disk in disks.items() if disk.rename]
    wrong += [f"{node}: hard links: {disk.link}" for node, disk in disks.items() if disk.link]
    kind = next(iter(disks.values())).kind
    if wrong:
        return Finding(
            *("shared folder", "problem", f"{kind}: {listed(wrong, 3)}"),
            "checkpoints become whole by a rename, and the lease that keeps two jobs out of one run is a hard link",
            "put the run folder on another file system: submit --run DIR",
        )
    if machines > 1 and is_local(kind):
        todo = "put the run folder on the shared file system: submit --run DIR"
        return Finding("shared folder", "problem", f"it lies on a {kind}", "other nodes have one of their own", todo)
    return Finding("shared folder", "ok", f"{kind}: renames and hard links are atomic on each node")


def judge_fsync(disks: dict[str, Disk]) -> Finding:
    """Judge how long it takes until something is on the disk."""
    times = [took for disk in disks.values() for took in disk.fsync_s]
    rates = [disk.write_mb_s for disk in disks.values() if disk.write_mb_s]
    rate = f"; a large file is written with {rates[0]:,.0f} MB/s" if rates else ""
    measured = f"an fsync takes {format_seconds(median(times))}, at worst {format_seconds(max(times))}{rate}"
    if median(times) > SLOW_FSYNC_S:
        meaning = "a checkpoint needs six in a row: they are slow, and in the background"
        return Finding(
            "fsync", "warning", measured, meaning, "if there is a faster file system for run folders, use it"
        )
    return Finding("fsync", "ok", measured)


def judge_visibility(probes: Sequence[Probe]) -> Finding:
    """Judge how soon one node sees what another has written."""
    if blind := [f"{probe.node}: {probe.problems['visibility']}" for probe in probes if "visibility" in probe.problems]:
        todo = "put the run folder on the shared file system, without long attribute caching (NFS: actimeo)"
        return Finding("visibility", "problem", listed(blind, 3), "the lease does not keep two jobs apart there", todo)
    delays = [delay for probe in probes for delay in probe.visible_s]
    if not delays:
        return Finding("visibility", "ok", "one node answered: it sees its own files")
    measured = (
        f"what one node writes is seen after {format_seconds(median(delays))}, at worst {format_seconds(max(delays))}"
    )
    if max(delays) > SLOW_VISIBLE_S:
        # The other half is left for a holder that is late itself.
        late = max(delays) > STALE_S / 2
        meaning = f"the lease is touched every {BEAT_S:g} s and taken for dead after {STALE_S:g} s without a touch"
        todo = "mount it with a shorter attribute cache (NFS: actimeo=1), or put the run folder elsewhere"
        return Finding("visibility", "problem" if late else "warning", measured, meaning, todo)
    return Finding("visibility", "ok", measured, "the lease keeps two jobs out of one run")


def judge_space(disk: Disk, facts: RunFacts) -> Finding:
    """Judge the space that is left."""
    measured = f"{format_bytes(disk.free_bytes)} of {format_bytes(disk.total_bytes)} free"
    needed, meaning = LITTLE_BYTES, "a full disk stops no training, but no checkpoint is written any more"
    if facts.checkpoint_bytes and facts.config:
        keeps = facts.config.checkpoint.keep_last
        needed = facts.checkpoint_bytes * (max(0, keeps - facts.checkpoints) + 2.0)  # one is written before one goes
        size = format_bytes(facts.checkpoint_bytes)
        measured += f"; the run keeps {keeps} checkpoints of {size}, and has {facts.checkpoints}"
    if disk.free_bytes >= needed:
        return Finding("disk", "ok", measured)
    state = "problem" if facts.checkpoint_bytes and disk.free_bytes < 2 * facts.checkpoint_bytes else "warning"
    return Finding("disk", state, measured, meaning, f"free some: at least {format_bytes(needed)}")  # type: ignore[arg-type]


def judge_quota() -> Finding:
    """Judge what the `quota` command says, where there is one."""
    if not shutil.which("quota"):
        return Finding("quota", "ok", "there is no quota command here")
    try:
        # -w: a long name of a file system breaks no line. It asks the file servers, of which one may be away.
        done = subprocess.run(["quota", "-w"], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return Finding("quota", "warning", "the quota command does not answer", todo="ask it yourself: quota")
    lines = [re.sub(r"\s+", " ", line.strip()) for line in done.stdout.splitlines()]
    figures = [line for line in lines if re.match(r"\S+ \d+\*? \d+ \d+", line)]
    if over := [line for line in figures if "*" in line]:
        return Finding("quota", "problem", listed(over, 3), "soon nothing can be written there", "remove something")
    if near := [line for line in figures if nearly_full(line)]:
        return Finding("quota", "warning", listed(near, 3), "more than nine tenths are used", "remove something")
    return Finding("quota", "ok", listed(figures, 3) or "none for you")


def nearly_full(line: str) -> bool:
    """Tell whether most of the blocks are used, by a line of `quota`: file system, blocks, quota, limit, …"""
    # A quota of 0 is none. A star marks a figure that is above its quota; lines with one are judged before.
    used, soft, hard = (int(number) for number in line.split()[1:4])
    limit = soft or hard
    return bool(limit) and used > 0.9 * limit
