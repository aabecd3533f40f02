"""Judges times: whether a save fits into what a job is given when it must end, and how often to save."""

from __future__ import annotations

import math

from launcher.doctor.finding import Finding, format_seconds
from launcher.doctor.run_facts import RunFacts
from slurm.profile import Profile
from slurm.records import Partition

# Where no failure was seen yet. Large clusters report one in some hundred days of each node.
ASSUMED_NODE_DAYS = 100.0
WORTH_SAYING = 0.01  # of the time


def judge_timing(facts: RunFacts, where: Partition | None, profile: Profile, nodes: int) -> list[Finding]:
    """Judge all of it."""
    findings = [] if where is None else [judge_grace_time(facts, where), judge_warning_time(facts, profile)]
    return [*findings, judge_interval(facts, nodes)]


def needed_s(facts: RunFacts) -> float | None:
    """Return the most seconds from a signal to a durable save: a step and a save may be under way before it."""
    # A save that began just before the signal is waited for; then the one that the signal asks for follows.
    return None if facts.save_s is None else 2 * facts.save_s + (facts.step_s or 0.0)


def judge_grace_time(facts: RunFacts, where: Partition) -> Finding:
    """Judge the grace time of preempted jobs against the time that a save takes."""
    mode, needed = where.preempt_mode, needed_s(facts)
    if not where.preemptible:
        return Finding("grace time", "ok", f"jobs in partition {where.name} are not preempted")
    measured = f"partition {where.name}: {mode}, {where.grace_s} s"
    if "SUSPEND" in mode or "GANG" in mode:
        meaning = "a suspended job goes on later; if it stands for longer than stall_after_s, it is started again"
        return Finding("grace time", "ok", measured, meaning)
    if "CANCEL" in mode:
        meaning = "a preempted job is ended for good: Slurm starts it again only if it is asked in time"
        return Finding("grace time", "warning", measured, meaning, "after a preemption: python -m launcher resume RUN")
    if needed is None:
        unknown = "how long a save takes is not measured yet: name a RUN that has saved"
        return Finding("grace time", "ok", measured, unknown)
    measured += f"; a save is durable {format_seconds(needed)} after the signal, at worst"
    if where.grace_s <= needed:
        return Finding(
            *("grace time", "warning", measured, "a preempted job goes back to its last checkpoint: work is repeated"),
            "save more often: --checkpoint-every-images; or ask the administrators for a longer GraceTime",
        )
    return Finding(
        "grace time", "ok", measured, f"it fits {where.grace_s / needed:,.0f} times: preemption loses nothing"
    )


def judge_warning_time(facts: RunFacts, profile: Profile) -> Finding:
    """Judge the warning before the time limit."""
    warn_s, needed = facts.warn_s or profile.warn_s, needed_s(facts)
    measured = f"Slurm warns {warn_s} s before the time limit"
    if needed is None:
        return Finding("time limit", "ok", measured, "how long a save takes is not measured yet: name a RUN")
    measured += f"; a save is durable {format_seconds(needed)} after the signal, at worst"
    if warn_s <= needed:
        return Finding(
            *("time limit", "problem", measured, "at the time limit, what came after the last checkpoint is lost"),
            f"warn_s = {math.ceil(2 * needed)} in the profile, or a longer --time",
        )
    return Finding("time limit", "ok", measured, "a save fits in")


def young_interval(cost_s: float, mtbf_s: float) -> float:
    """Return the best seconds between saves, to first order (Young 1974)."""
    return math.sqrt(2 * cost_s * mtbf_s)


def daly_interval(cost_s: float, mtbf_s: float) -> float:
    """Return the best seconds between saves, to higher order (Daly 2006, equation 37)."""
    # Daly's series holds below that only; above it, his answer is the time between failures.
    if cost_s >= 2 * mtbf_s:
        return mtbf_s
    ratio = cost_s / (2 * mtbf_s)
    return young_interval(cost_s, mtbf_s) * (1 + math.sqrt(ratio) / 3 + ratio / 9) - cost_s


def lost_share(every_s: float, stall_s: float, save_s: float, mtbf_s: float) -> float:
    """Return the share of time that is lost: by saves, and by failures, which undo half an interval and a save."""
    return stall_s / every_s + (every_s / 2 + save_s) / mtbf_s


def mean_time_between_failures(facts: RunFacts, nodes: int) -> tuple[float, str]:
    """Return the mean seconds between failures of a job, and where that is from."""
    if facts.failures:
        seen = f"{facts.failures} failures in {format_seconds(facts.watched_s)} of this run and those beside it"
        return facts.watched_s / facts.failures, seen
    watched = f"no failure in {format_seconds(facts.watched_s)}" if facts.watched_s else "no failure known"
    return ASSUMED_NODE_DAYS * 86400 / nodes, f"{watched}; assumed: one in {ASSUMED_NODE_DAYS:g} days a node"


def judge_interval(facts: RunFacts, nodes: int) -> Finding:
    """Judge the interval of checkpoints against the rate of failures."""
    config, stall, save = facts.config, facts.stall_s, facts.save_s
    if config is None:
        return Finding("interval", "ok", "no RUN is named", "with one: how often to save, from its saves and failures")
    by_seconds, images = config.checkpoint_every_s, config.interval("checkpoint")
    every = f"{images:,} images" if by_seconds is None else f"{by_seconds:g} s"
    if stall is None or save is None or not facts.images_per_s:
        return Finding("interval", "ok", f"{every}; the run has not saved twice yet")
    mean, source = mean_time_between_failures(facts, nodes)
    now = images / facts.images_per_s if by_seconds is None else by_seconds
    first, refined = young_interval(stall, mean), daly_interval(stall, mean)
    step = config.step_images
    # Whole steps, at whose ends checkpoints are written.
    best = max(round(max(refined, save) * facts.images_per_s / step), 1) * step
    costs = [lost_share(s, stall, save, mean) for s in (now, best / facts.images_per_s)]
    measured = (
        f"every {every}{'' if by_seconds else f' = {format_seconds(now)}'}; one stops training for "
        f"{format_seconds(stall)} and is durable after {format_seconds(save)}; "
        f"a job fails every {format_seconds(mean)} ({source})"
    )
    formula = f"Young √(2·{stall:.3g} s·{mean:.3g} s) = {format_seconds(first)}, Daly {format_seconds(refined)}"
    meaning = (
        f"saves and repeated work cost {costs[0]:.2%} of the time, at {best:,} images {costs[1]:.2%} "
        f"({formula}, and no sooner than a save is durable)"
    )
    if costs[0] - costs[1] > WORTH_SAYING:
        return Finding("interval", "warning", measured, meaning, f"--checkpoint-every-images {best} (at any resume)")
    return Finding("interval", "ok", measured, meaning)
