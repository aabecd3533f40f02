"""Judges whether the nodes are alike: who answers, what is installed, what they compute with, their clocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from launcher.doctor.finding import Finding, format_seconds, listed
from launcher.doctor.measured import Probe

CLOCK_WARNING_S, CLOCK_PROBLEM_S = 0.5, 5.0


def judge_nodes(probes: Sequence[Probe], missing: Mapping[str, str], before: Mapping[str, object]) -> list[Finding]:
    """Judge all of it; `before`: the numerical environment in which the run has computed last, or nothing."""
    findings = [judge_code(probes, missing)]
    if probes:
        findings += [judge_versions(probes), judge_numerics(probes, before), judge_clocks(probes)]
    return findings


def judge_code(probes: Sequence[Probe], missing: Mapping[str, str]) -> Finding:
    """Judge whether each node runs our code."""
    # A node without an answer and one that cannot import come to the same: no rank starts there.
    broken = {probe.node: probe.problems["import"] for probe in probes if "import" in probe.problems} | dict(missing)
    if broken:
        said = "; ".join(f"{node}: {words}" for node, words in list(broken.items())[:4])
        return Finding(
            *("code", "problem", f"{len(broken)} of {len(probes) + len(missing)} nodes cannot run it: {said}"),
            "training on these nodes would fail at once",
            "make the interpreter and the current folder visible at the same path on all nodes, and look at the "
            "profile's python, container and setup",
        )
    slowest = max(probes, key=lambda probe: probe.import_s)
    return Finding(
        *(
            "code",
            "ok",
            f"{listed([p.node for p in probes])}: {slowest.python} loads torch in {format_seconds(slowest.import_s)}",
        ),
        "each node runs the interpreter and the code that a job would",
    )


def odd_ones(probes: Sequence[Probe], values: Sequence[Mapping[str, object]]) -> list[str]:
    """Say in words where nodes differ from the first one."""
    return [
        f"{probe.node}: {key} is {own.get(key)!r}, on {probes[0].node} {values[0][key]!r}"
        for probe, own in zip(probes[1:], values[1:], strict=True)
        for key in values[0]
        if own.get(key) != values[0][key]
    ]


def judge_versions(probes: Sequence[Probe]) -> Finding:
    """Judge whether the same is installed everywhere."""
    if odd := odd_ones(probes, [probe.versions for probe in probes]):
        return Finding(
            *("versions", "problem", listed(odd, 4), "ranks with other code may fail, hang or compute other bits"),
            "install the same on all nodes (pip install -c constraints.txt), or put it on the shared file system",
        )
    absent = [name for name, version in probes[0].versions.items() if version == "missing"]
    if absent:
        todo = "pip install -c constraints.txt -e ."
        return Finding("versions", "problem", f"{', '.join(absent)} missing", "training cannot start", todo)
    return Finding("versions", "ok", ", ".join(f"{name} {version}" for name, version in probes[0].versions.items()))


def judge_numerics(probes: Sequence[Probe], before: Mapping[str, object]) -> Finding:
    """Judge whether all nodes compute the same bits, and the run's own."""
    now = probes[0].environment
    shown = f"{now.get('device')}, {now.get('instructions')}, torch {now.get('torch')}"
    if odd := odd_ones(probes, [probe.environment for probe in probes]):
        return Finding(
            *("numerics", "warning", listed(odd, 4)),
            "the bits of a run then depend on which nodes it gets: it trains, but cannot be repeated exactly",
            "ask for nodes of one kind: constraint in the profile",
        )
    changed = [
        # Only what both name: the run may have noted fewer things, under an earlier version.
        f"{key} was {before[key]!r}, is {now[key]!r}"
        for key in now
        if key in before and before[key] != now[key]
    ]
    if changed:
        return Finding(
            *("numerics", "warning", f"{shown}; the run began with another: {listed(changed, 4)}"),
            "the run goes on here, but no longer bit for bit as it would have there; it says so in its events",
            "resume on the nodes that it began on, if that matters",
        )
    return Finding("numerics", "ok", shown, "the same on all nodes: the same bits, whichever a job gets")


def judge_clocks(probes: Sequence[Probe]) -> Finding:
    """Judge how far the clocks are apart."""
    offsets = {
        # All against the first node, whose clock is the one to compare with: offsets of other pairs follow from these.
        p.node: (one.offset_s, one.round_trip_s)
        for p in probes
        for one in p.reached
        if not (one.rank or one.problem)
    }
    if not offsets:
        return Finding("clocks", "ok", "one node answered: nothing to compare")
    node, (offset, trip) = max(offsets.items(), key=lambda item: abs(item[1][0]))
    off = f"{format_seconds(abs(offset))} (± {format_seconds(trip / 2)})"
    measured = f"at most {off} off {probes[0].node}'s, on {node}"
    if abs(offset) < CLOCK_WARNING_S:
        return Finding("clocks", "ok", measured, "logs of all nodes can be merged by time")
    return Finding(
        *("clocks", "problem" if abs(offset) >= CLOCK_PROBLEM_S else "warning", measured),
        "training does not depend on clocks, but merged logs are out of order, the reason of a job's end may be "
        "mistaken, and munge refuses jobs when clocks are minutes apart",
        f"ask the administrators to look at chrony or ntpd on {node}",
    )
