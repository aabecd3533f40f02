"""The page of a report: one HTML file that needs no network, what matters first."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from launcher.pages.document import build_document, build_section, section_id
from launcher.pages.markup import Markup, tag
from launcher.pages.numbers import format_number
from launcher.pages.tables import build_table
from launcher.report import gallery
from launcher.report.cost import cost_of, cost_parts
from launcher.report.dataset import dataset_parts
from launcher.report.evaluations import Measurement, evaluation_parts, measurements, short_name
from launcher.report.film import SCRIPT
from launcher.report.run_facts import RunFacts
from launcher.report.settings import reproduce_parts, settings_parts
from launcher.report.timeline import timeline_parts
from launcher.report.training import training_parts
from launcher.status import words
from shards.atomic_files import write_atomically
from trainer.core.fields import Refused
from trainer.tracking.console import format_duration

GENERATOR = "lienzo report"
MOST_RUNS = 8  # so many colours the page has
FIRST = "fid", "kid"  # which figure stands for a run, if it was measured

SIDE_BY_SIDE = (
    "These are single runs. Which settings are better, and how sure that is, only several seeds of each can tell: "
    "python -m launcher study."
)


def build_report(found: Sequence[RunFacts], before: Sequence[Markup] = (), title: str = "") -> str:
    """Return the page of runs.

    Args:
        found: the runs, one to MOST_RUNS.
        before: what stands above them, with the page's only h1; nothing: the runs have the page to themselves.
        title: of the window; empty: by the runs.
    """
    sections = run_sections(found)
    heads = before or run_heads(found)
    names = ", ".join(facts.name for facts in found)
    links = [tag("li", tag("a", name, href=f"#{section_id(name)}")) for name, section in sections.items() if section]
    contents = tag("nav", tag("ul", *links), aria_label="Sections")
    shown, script = (*heads, contents, *sections.values()), SCRIPT.read_text("utf-8")
    return build_document(title or f"{names}: report", *shown, script=script, generator=GENERATOR)


def run_heads(found: Sequence[RunFacts]) -> list[Markup]:
    """Return the heading of a page about runs, and what is to be said first."""
    names = ", ".join(facts.name for facts in found)
    kind = "Runs" if len(found) > 1 else "Run"
    heads = [tag("h1", f"{kind} {names}"), tag("p", headline(found), class_="answer")]
    return heads if len(found) == 1 else [*heads, tag("p", SIDE_BY_SIDE, class_="note")]


def run_sections(found: Sequence[RunFacts]) -> dict[str, Markup]:
    """Return the sections about runs by their titles; an empty one has nothing to say."""
    room = gallery.Room()
    parts = {
        "Overview": [overview(found)],
        "Pictures through time": [gallery.grids_through_time(found, room)],
        "Reals beside fakes": gallery.reals_and_fakes(found, room),
        "How good it is": evaluation_parts(found),
        "Losses and gradients": training_parts(found),
        "Nearest pictures of the data": gallery.nearest_sheets(found, room),
        "From picture to picture": gallery.ways_between(found, room),
        "Attempts and faults": timeline_parts(found),
        "Speed and cost": cost_parts(found),
        "Data": dataset_parts(found),
        "Settings": settings_parts(found),
        "Train it again": reproduce_parts(found),
    }
    return {title: build_section(title, *some) for title, some in parts.items()}


def headline(found: Sequence[RunFacts]) -> str:
    """Say in one sentence how far the runs are, and how good."""
    told = [f"{facts.name}: {facts.status.state}" for facts in found]
    if len(found) > 1:
        return "; ".join(told) + "."
    facts = found[0]
    sentence = f"{str(facts.status.state).capitalize()}: {words.images(facts.status)} of the images seen."
    if one := best_known(facts):
        width = one.high - one.low
        limits = f" ({format_number(one.low, width)} to {format_number(one.high, width)})" if width else ""
        name = short_name(one.column).rpartition("_")[0].upper()
        sentence += f" {name} of {one.count:,} pictures: {format_number(one.value, width)}{limits}."
    return sentence


def best_known(facts: RunFacts) -> Measurement | None:
    """Return the newest measurement that stands for a run: of those to report, if there are any."""
    known = sorted(measurements(facts), key=lambda one: (one.seed_set == "report", one.images_seen))
    for name in FIRST:
        if mine := [one for one in known if one.column.startswith(f"{name}_")]:
            return mine[-1]
    return known[-1] if known else None


def overview(found: Sequence[RunFacts]) -> Markup:
    """Return a row for each run: how far, how good, what it used."""
    rows = []
    for facts in found:
        status, used, one = facts.status, cost_of(facts), best_known(facts)
        state = f"{status.state}{f': {status.reason}' if status.reason else ''}"
        ill = words.health(status)
        figure = f"{short_name(one.column)} {format_number(one.value, one.high - one.low)}" if one else "not measured"
        rows.append(
            [
                facts.name,
                state,
                words.images(status),
                figure,
                ill or ("healthy" if "collapse/health" in status.progress.metrics else "–"),
                f"{max(0, len(status.attempts) - 1)}",
                format_duration(used.seconds),
                str(facts.config.get("recipe", "–")),
            ]
        )
    header = ("Run", "State", "Images seen", "Measured", "Collapse monitor", "Restarts", "Training time", "Recipe")
    return build_table("How far the runs are", header, rows)


def write_report(page: str, path: Path) -> None:
    """Write a page, whole or not at all.

    Raises:
        Refused: it cannot be written, or would replace what is no report.
    """
    try:
        if path.exists() and f'content="{GENERATOR}"'.encode() not in path.read_bytes()[:4096]:
            raise Refused(f"{path} is there already, and is no report: name another --out")
        write_atomically(path, page.encode())
    except OSError as error:
        raise Refused(f"{path} cannot be written: {error.strerror}; name another --out") from error
