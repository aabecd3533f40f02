"""Judges what connects the nodes: the rendezvous, the ports, the speed of the reduction."""

from __future__ import annotations

from collections.abc import Sequence

from launcher.doctor.finding import Finding, format_seconds, listed
from launcher.doctor.measured import Probe, Reached
from launcher.doctor.network import EXCHANGE_MB
from launcher.doctor.run_facts import RunFacts

SLOW_MB_S = 100.0  # what gigabit Ethernet gives
SLOW_GPUS_MB_S = 1000.0  # their steps are short
LARGE_SHARE = 0.5


def judge_links(probes: Sequence[Probe], interface: str, facts: RunFacts) -> list[Finding]:
    """Judge all of it; `interface`: the profile's."""
    if len(probes) < 2:
        alone = "one node answered: it needs no network"
        several = any(len(probe.gpus) > 1 for probe in probes)
        reduction = judge_reduction(probes, facts) if several else Finding("reduction", "ok", alone)
        return [Finding("rendezvous", "ok", alone), Finding("ports", "ok", alone), reduction]
    return [judge_rendezvous(probes, interface), judge_ports(probes), judge_reduction(probes, facts)]


def unreached_nodes(probe: Probe, first: bool) -> list[Reached]:
    """The nodes that one could not reach: the first one, or the others."""
    # The way to the first node is judged apart from the others: without it the ranks do not even meet.
    return [one for one in probe.reached if one.problem and (one.rank == 0) == first]


def judge_rendezvous(probes: Sequence[Probe], interface: str) -> Finding:
    """Judge whether all nodes come to where a job's ranks meet, and by which interface."""
    first = next((probe for probe in probes if probe.rank == 0), probes[0])
    if lost := [f"{probe.node}: {one.problem}" for probe in probes for one in unreached_nodes(probe, first=True)]:
        return Finding(
            *("rendezvous", "problem", f"{first.node} ({first.address}) cannot be reached from {listed(lost, 3)}"),
            "a job on these nodes would wait for its ranks in vain",
            "scontrol show node tells NodeAddr: it must lead there from all nodes, and no firewall may be between",
        )
    ways = sorted({probe.interface or "none" for probe in probes if probe.rank})
    measured = f"{first.node} at {first.address}, over {', '.join(ways)}"
    if interface and (lacking := [probe.node for probe in probes if interface not in probe.interfaces]):
        todo = f"set interface in the profile to one of {', '.join(probes[0].interfaces)}, or leave it out"
        return Finding(
            "rendezvous", "problem", f"{listed(lacking)} has no {interface}", "ranks there cannot start", todo
        )
    # The nodes of a development cluster are one machine, and may well meet over its loopback.
    if any(way.startswith("lo") for way in ways) and len({probe.boot for probe in probes}) > 1:
        return Finding(
            *("rendezvous", "problem", measured, "a loopback leads to no other machine"),
            "NodeAddr in slurm.conf must be an address that other nodes reach",
        )
    chosen = f"; the exchange takes {interface}, as the profile says" if interface else ""
    return Finding("rendezvous", "ok", measured + chosen, "where the ranks of a job meet")


def judge_ports(probes: Sequence[Probe]) -> Finding:
    """Judge whether each node reaches a fresh port of each other."""
    lost = [
        f"{probe.node} → {one.node}: {one.problem}" for probe in probes for one in unreached_nodes(probe, first=False)
    ]
    ways = [one for probe in probes for one in probe.reached]
    if lost:
        return Finding(
            *("ports", "problem", f"{len(lost)} of {len(ways)} ways are closed: {listed(lost, 3)}"),
            "gloo and NCCL connect each node with each other, on any free port",
            "the firewall must let the nodes of a job reach one another on all ports above 1023",
        )
    slowest = max((one.round_trip_s for one in ways if not one.problem), default=0.0)
    measured = f"each node reaches a fresh port of each other; a round trip takes at most {format_seconds(slowest)}"
    return Finding("ports", "ok", measured)


def judge_reduction(probes: Sequence[Probe], facts: RunFacts) -> Finding:
    """Judge the speed of the exact reduction, for the run's own networks and step where they are known."""
    times = [probe.exchange_s for probe in probes if probe.exchange_s is not None]
    if len(times) < len(probes):
        why = next((probe.problems["exchange"] for probe in probes if "exchange" in probe.problems), "it did not end")
        todo = "mend what is above; if nothing is, try another interface in the profile"
        return Finding("reduction", "problem", f"it fails: {why}", "training would fail the same way", todo)
    took = max(times)  # a step ends when its slowest rank does
    speed = EXCHANGE_MB / took
    ranks = [one for probe in probes for one in probe.gpus]
    over = f"{len(ranks)} GPUs of {len(probes)} nodes" if ranks else f"{len(probes)} nodes"
    measured = f"{EXCHANGE_MB} MB over {over} in {format_seconds(took)}: {speed:,.0f} MB/s"
    if ways := sorted({via for one in ranks for via in (*one.inside_via, *one.between_via)}):
        measured += f" ({', '.join(ways)})"
    advice = "use fewer nodes, a larger batch, or a faster network: interface in the profile, if there is a choice"
    if facts.step_s and facts.exchanged_mb:
        share = facts.exchanged_mb / speed / facts.step_s
        measured += f"; this run exchanges {facts.exchanged_mb:,.1f} MB in a step of {format_seconds(facts.step_s)}"
        meaning = f"the exchange is {share:.0%} of its step"
        # Against the run's own step: the same network is fast enough for a large step, and too slow for a small one.
        state = share > LARGE_SHARE
    else:
        meaning = (
            "a GAN step exchanges the gradients of both networks once; name a RUN to have it compared with its step"
        )
        state = speed < (SLOW_GPUS_MB_S if ranks else SLOW_MB_S)
    return Finding("reduction", "warning" if state else "ok", measured, meaning, advice if state else "")
