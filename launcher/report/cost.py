"""How fast a run was, where the time of its steps went, and what it used: hours of devices, and their energy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from launcher.jobs.attempts import to_seconds
from launcher.pages.document import figure_row
from launcher.pages.markup import Markup
from launcher.pages.tables import build_table
from launcher.report.curves import Curve, draw_curves, thin_out
from launcher.report.run_facts import RunFacts, is_number, points_of
from launcher.study.speed import rows_by_attempt
from trainer.runs.journal import EventKind, Row
from trainer.tracking.console import format_duration

PHASES = ("data", "draws", "forward_backward", "exchange", "optimizer", "other")
GAP_S = 600.0  # between two readings of power: beyond, nobody knows what was used
POWER = "power_w"
BELOW = "real images seen"


@dataclass(frozen=True)
class Cost:
    """What a run used."""

    seconds: float
    """Of training: what lies between attempts does not count, nor what an attempt did before its first row."""
    device_hours: float
    unit: str
    """GPU-hours, or core-hours of threads that compute."""
    energy_kwh: float | None
    """Of all GPUs of its nodes, as they tell it; None: they do not."""


def cost_of(facts: RunFacts) -> Cost:
    """Return what a run used."""
    last_rows = [stretch[-1] for stretch in rows_by_attempt(facts.system)]
    spent = [(row["elapsed_s"], environment_at(facts, row)) for row in last_rows]
    gpus = any(environment.get("cuda") for _, environment in spent)
    return Cost(
        sum(seconds for seconds, _ in spent),
        sum(seconds * devices(environment) for seconds, environment in spent) / 3600,
        "GPU-hours" if gpus else "core-hours",
        energy_kwh(facts.nodes),
    )


def environment_at(facts: RunFacts, row: Row) -> Row:
    """Return the numerical environment of the attempt that wrote a row."""
    known = [event for event in facts.events if event["kind"] == EventKind.ENVIRONMENT]
    return next((event for event in reversed(known) if to_seconds(event["time"]) <= row["time"]), {})


def devices(environment: Row) -> int:
    """Return the devices of an attempt: a GPU for each process, or the threads of each."""
    return int(environment.get("processes", 1)) * (1 if environment.get("cuda") else int(environment.get("threads", 1)))


def energy_kwh(rows: Sequence[Row]) -> float | None:
    """Integrate the power of all GPUs over time, node by node, by trapezoids; None: no power was measured."""
    joules, before, known = 0.0, dict[int, tuple[float, float]](), False
    for row in sorted(rows, key=lambda row: float(row["time"])):
        watts = [float(value) for name, value in row.items() if name.endswith(POWER) and is_number(value)]
        if not watts:
            continue
        known, time, power = True, float(row["time"]), sum(watts)
        if (last := before.get(row["node"])) and time - last[0] <= GAP_S:
            joules += (time - last[0]) * (power + last[1]) / 2
        before[row["node"]] = time, power
    return joules / 3.6e6 if known else None


def cost_parts(found: Sequence[RunFacts]) -> list[Markup]:
    """Return what the runs used, and the figures of their speed."""
    rows = []
    for facts in found:
        used, status = cost_of(facts), facts.status
        speed = status.progress.images_per_s_average
        rows.append(
            [
                facts.name,
                format_duration(used.seconds),
                f"{used.device_hours:,.3g} {used.unit}",
                "not measured" if used.energy_kwh is None else f"{used.energy_kwh:,.3g} kWh",
                "–" if speed is None else f"{speed:,.1f}",
                where(facts),
            ]
        )
    caption = "Training only: waiting, starting and evaluating do not count. Energy: what all GPUs of the nodes tell."
    header = ("Run", "Time", "Devices", "Energy", "Images/s", "Where")
    return [build_table(caption, header, rows), figure_row(speed_figures(found))]


def where(facts: RunFacts) -> str:
    """Say on what a run was trained last."""
    known = [event for event in facts.events if event["kind"] == EventKind.ENVIRONMENT]
    if not known:
        return "–"
    last = known[-1]
    return f"{last.get('processes', 1)} × {last.get('device', 'unknown')}, torch {last.get('torch', 'unknown')}"


def speed_figures(found: Sequence[RunFacts]) -> Iterator[Markup]:
    """Yield speed and memory over the images seen, and of one run where the time of its steps went."""
    for title, name in (("Images per second", "images_per_s"), ("Peak memory of rank 0, MB", "peak_memory_mb")):
        curves = [Curve(facts.name, facts.place, thin_out(points_of(facts.system, name))) for facts in found]
        if drawn := draw_curves(title, BELOW, "", curves):
            yield drawn
    if len(found) == 1:
        shares = [
            Curve(phase.replace("_", " "), k, thin_out(points_of(found[0].system, f"time/{phase}", 100)))
            for k, phase in enumerate(PHASES)
        ]
        yield draw_curves("Where the time of a step goes, in percent", BELOW, "%", shares)
    for title, ending in (("GPUs at work, in percent", "/percent"), ("Power of a GPU, W", POWER)):
        curves = [Curve(facts.name, facts.place, thin_out(gpu_points(facts, ending))) for facts in found]
        if drawn := draw_curves(title, BELOW, "", curves):
            yield drawn


def gpu_points(facts: RunFacts, ending: str) -> Iterator[tuple[float, float]]:
    """Yield images seen and the mean over a node's GPUs of a figure."""
    for row in facts.nodes:
        told = {name: value for name, value in row.items() if name.startswith("gpu/") and name.endswith(ending)}
        values = [float(value) for value in told.values() if is_number(value)]
        if values:
            yield float(row["images_seen"]), sum(values) / len(values)
