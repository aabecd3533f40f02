"""The attempts of a run and what went wrong in them, on the time of day."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import groupby

from launcher.jobs.attempts import Cause, to_seconds
from launcher.pages.axes import Axis
from launcher.pages.document import figure_row
from launcher.pages.drawing import RIGHT, dot, ruler, shorten, svg, text
from launcher.pages.markup import Markup, tag
from launcher.pages.tables import build_table
from launcher.report.run_facts import RunFacts
from launcher.status.attempts import RunAttempt
from trainer.runs.journal import EventKind, Row
from trainer.tracking.console import format_duration

FAULTS = (
    *(EventKind.REFUSED, EventKind.STALLED, EventKind.OUT_OF_MEMORY, EventKind.CHECKPOINT_FAILED),
    *(EventKind.DAMAGED_CHECKPOINT, EventKind.DAMAGED_SAMPLE, EventKind.COLLAPSE_ALARM, EventKind.ROLLBACK),
    *(EventKind.EVALUATION_FAILED, EventKind.BROKEN),
)
GOOD = (Cause.FINISHED, Cause.PREEMPTED, Cause.TIME_LIMIT, Cause.REQUEUED, Cause.CANCELLED, Cause.SIGNALLED)
MOST_ROWS = 100  # of a table: the newest
MOST_MARKS = 300  # of a figure
ROW = 22.0  # pixels from one attempt to the next
START = 20.0
NOT_TOLD = {"schema", "time", "kind", "evidence", "picture"}


def timeline_parts(found: Sequence[RunFacts]) -> list[Markup]:
    """Return the figure and the tables of each run that was ever started."""
    parts = [figure_row(filter(None, map(draw_timeline, found)))]
    for facts in found:
        if facts.status.attempts:
            parts += [attempts_table(facts), faults_table(facts)]
    return parts


def faults_of(facts: RunFacts) -> list[Row]:
    """Return the events that tell of something wrong."""
    return [event for event in facts.events if event["kind"] in FAULTS]


def draw_timeline(facts: RunFacts) -> Markup:
    """Draw a bar for each attempt, and a mark for each fault; none where nothing began."""
    attempts, faults = facts.status.attempts[-40:], faults_of(facts)[-MOST_MARKS:]
    if not attempts:
        return Markup()
    begins = to_seconds(attempts[0].began)
    spans = [(to_seconds(one.began) - begins, end_of(facts, one) - begins) for one in attempts]
    marks = [(to_seconds(event["time"]) - begins, event) for event in faults]
    marks = [(at, event) for at, event in marks if at >= 0]
    ends = [x for span in spans for x in span] + [at for at, _ in marks]
    longest = max(ends)
    unit_s, unit = (86_400, "days") if longest > 3 * 86_400 else (3600, "hours") if longest > 5400 else (60, "minutes")
    axis = Axis.of([0, *(at / unit_s for at in ends)], START, RIGHT, log=False)
    parts, top = list[Markup](), 30.0
    for k, (one, (start, end)) in enumerate(zip(attempts, spans, strict=True)):
        style = "c2" if one.cause in GOOD or one.cause is None else "c7"
        x, width = axis(start / unit_s), max(2.0, axis(end / unit_s) - axis(start / unit_s))
        told = tag("title", f"attempt {k}: {describe_end(facts, one)}")
        parts.append(tag("rect", told, x=x, y=top + ROW * k, width=width, height=12.0, class_=f"bar {style}"))
    bottom = top + ROW * len(attempts) + 8
    for at, event in marks:
        parts.append(dot(axis(at / unit_s), bottom, f"{event['kind']}: {describe_event(event)}", "c7"))
    parts.append(text(START, 16, shorten(facts.name, 40)))
    summary = f"{len(facts.status.attempts)} attempts, {len(faults)} faults"
    below = f"{unit} since the first of these began"
    drawn = ruler(axis, START, bottom + 10, below)
    return svg(
        bottom + 56, f"Attempts of {facts.name}, one below the other; the dots are faults", summary, *drawn, *parts
    )


def end_of(facts: RunFacts, attempt: RunAttempt) -> float:
    """Return when an attempt ended: of one without an end, when it was last heard of."""
    if attempt.ended:
        return to_seconds(attempt.ended)
    began = to_seconds(attempt.began)
    later = [to_seconds(one.began) for one in facts.status.attempts if one.began > attempt.began]
    heard = [
        float(row["time"]) for row in facts.system if "time" in row and began <= row["time"] <= min(later, default=9e99)
    ]
    return max(heard, default=began)


def describe_end(facts: RunFacts, attempt: RunAttempt) -> str:
    """Say why an attempt ended."""
    goes_on = facts.status.state.live and attempt is facts.status.attempts[-1]
    cause = str(attempt.cause or ("goes on" if goes_on else "without a last word"))
    return f"{cause}: {attempt.detail}" if attempt.detail else cause


def attempts_table(facts: RunFacts) -> Markup:
    """Return a row for each attempt, the newest first."""
    numbered = list(enumerate(facts.status.attempts))
    rows = [
        [
            str(k),
            moment(one.began),
            format_duration(end_of(facts, one) - to_seconds(one.began)),
            f"job {one.job}: {', '.join(one.nodes)}" if one.job else "one machine",
            f"{one.images_from:,}" + ("" if one.images_saved is None else f" → {one.images_saved:,}"),
            describe_end(facts, one),
        ]
        for k, one in reversed(numbered[-MOST_ROWS:])
    ]
    caption = f"Attempts of {facts.name}, the newest first; times in UTC{cut_off(len(numbered))}"
    return build_table(caption, ("Attempt", "Began", "Took", "Where", "Images at checkpoints", "Ended"), rows)


def faults_table(facts: RunFacts) -> Markup:
    """Return a row for each fault, the newest first; those of the same words one after the other are one row."""
    told = [(event["kind"], describe_event(event), event["time"]) for event in faults_of(facts)]
    rows = []
    for (kind, words), same in groupby(told, key=lambda one: one[:2]):
        times = [time for *_, time in same]
        rows.append([moment(times[0]), kind + (f" ({len(times)} times)" if len(times) > 1 else ""), words])
    if not rows:
        return tag("p", f"No faults are recorded of {facts.name}.", class_="note")
    caption = f"Faults of {facts.name}, the newest first{cut_off(len(rows))}"
    return build_table(caption, ("When, UTC", "What", "In its words"), rows[: -MOST_ROWS - 1 : -1])


def cut_off(count: int) -> str:
    """Say what a table leaves out."""
    return f"; {count - MOST_ROWS:,} older ones are left out" if count > MOST_ROWS else ""


def describe_event(event: Row) -> str:
    """Return what an event says besides its time and kind."""
    return "; ".join(words_of(event))


def words_of(event: Row) -> Iterator[str]:
    """Yield the fields of an event as words."""
    for name, value in event.items():
        if name in NOT_TOLD or value in (None, "", [], {}):
            continue
        shown = f"{value:,}" if isinstance(value, int) else str(value)
        yield shown if name == "problem" else f"{name.replace('_', ' ')} {shown}"


def moment(time: str) -> str:
    """Return a journal's time to the second, in UTC."""
    return datetime.fromisoformat(time).astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")
