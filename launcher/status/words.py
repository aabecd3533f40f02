"""What `launcher status` says of a run, in words."""

from __future__ import annotations

import time
from collections import Counter

from rich.text import Text

from launcher.status.facts import RunState
from launcher.status.run_status import RunStatus
from trainer.collapse.monitor_state import Health as Health
from trainer.tracking.console import format_duration

GOOD = (RunState.TRAINING, RunState.STARTING, RunState.FINISHED, RunState.STOPPING)


def style(state: RunState) -> str:
    """Return the colour of a state."""
    return "green" if state in GOOD else "yellow" if state.live else "red"


def state(status: RunStatus, separator: str = "\n") -> Text:
    """Return the state, and why."""
    why = [status.reason] if status.reason else []
    if status.expected_start and status.expected_start > time.time():
        why.append(f"expected to start {clock(status.expected_start)}")
    bad = [Text(f"collapse monitor: {ill}", "red")] if (ill := health(status)) else []
    return Text(separator).join([Text(str(status.state), style(status.state)), *bad, *(Text(line) for line in why)])


def health(status: RunStatus) -> str:
    """Return what the collapse monitor holds against a run, if anything."""
    found = status.progress.metrics.get("collapse/health")
    # The journal holds it as a number like any metric.
    ills = {float(state): state.name.lower() for state in Health if state}
    return ills.get(found, "") if isinstance(found, float) else ""


def nodes(status: RunStatus) -> str:
    """Return where it trains, or what it asks for."""
    asked = f"{status.nodes_asked} node{'' if status.nodes_asked == '1' else 's'}" if status.nodes_asked else ""
    return ", ".join(status.nodes) or asked


def restarts(status: RunStatus, separator: str = "\n") -> str:
    """Return how often it was started again, and after what."""
    counts = Counter(status.causes)
    causes = separator.join(f"{count} × {cause}" if count > 1 else cause for cause, count in counts.items())
    return f"{len(status.causes)}: {causes}" if causes else ""


def images(status: RunStatus) -> str:
    """Return how far it is."""
    now = status.progress
    if not now.total_images:
        return f"{now.images_seen:,}"
    return f"{now.images_seen:,} of {now.total_images:,}, {now.images_seen / now.total_images:.0%}"


def speed(status: RunStatus) -> str:
    """Return how fast it is now, and was over all the time that it trained."""
    now, average = status.images_per_s, status.progress.images_per_s_average
    words = [f"{now:,.1f} now"] if now else []
    return ", ".join([*words, f"{average:,.1f} on average"] if average else words)


def eta(status: RunStatus) -> str:
    """Return how much longer it takes."""
    return "" if status.eta_s is None else f"{format_duration(status.eta_s)} left"


def metrics(status: RunStatus, prefixes: tuple[str, ...]) -> list[str]:
    """Return the newest metrics."""
    values = status.progress.metrics
    chosen = {name: value for name, value in values.items() if name.startswith(prefixes)}
    return [f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in chosen.items()]


def durable(status: RunStatus, separator: str = "\n") -> str:
    """Return the newest durable checkpoint, and what a kill now would lose."""
    now = status.progress
    if now.checkpoint_images is None:
        words = "no checkpoint yet"
    else:
        since = f", {format_duration(time.time() - now.checkpoint_time)} ago" if now.checkpoint_time else ""
        words = f"{now.checkpoint_images:,} images{since}"
    return f"{words}{separator}a kill now would lose {status.at_risk:,} images" if status.state.under_way else words


def clock(moment: float) -> str:
    """Return a time of this machine's day, with the date if that is another day."""
    then, day = time.localtime(moment), "%Y-%m-%d "
    return time.strftime(f"{'' if then[:3] == time.localtime()[:3] else day}%H:%M", then)


def short(images: int) -> str:
    """Return a large number in three figures: 60k, 1.28M."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if images >= size:
            return f"{images / size:.3g}{unit}"
    return str(images)


def lines(*texts: str) -> str:
    """Return those that say something, one below the other."""
    return "\n".join(text for text in texts if text)
