"""A collapse that nobody watches, with and without the collapse monitor: `python -m bench.rescue --out OUT`.

NVlabs/stylegan2-ada-pytorch#159 lost weeks of GPU time to one. Here runs that were healthy halfway go on with learning
rates that break them, once with the policy `tell` and once with `roll-back`, with the
default changes. What they come to is judged without the collapse monitor, as in bench.collapse_monitor.
"""

from __future__ import annotations

from pathlib import Path

import tyro

from bench.collapse_monitor import SETS, Nested, Set, Trial, carry_out_all, coverage, rates
from bench.measure import table
from trainer.runs import journal
from trainer.runs.journal import EventKind

NAME = "rescue"
BROKEN = {"G 50 times as fast": rates(5e-2, 1e-3), "both 50 times as fast": rates(5e-2, 5e-2)}
POLICIES: dict[str, Nested] = {"tell": {}, "roll-back": {"max_rollbacks": 12, "collapse": {"policy": "roll-back"}}}
SETS[NAME] = Set(
    SETS["second"].data,
    range(30, 31),
    {"RpGAN, R1": SETS["second"].networks["RpGAN, R1"]},
    {
        "none": {},
        **{f"{what}; {name}": rate | policy for what, rate in BROKEN.items() for name, policy in POLICIES.items()},
    },
)


def row(trial: Trial, covered: float) -> list[str]:
    """Return what became of a run."""
    events = list(journal.read_rows(trial.run.events))
    back = [event for event in events if event["kind"] == EventKind.ROLLBACK]
    changes = [str(event.get("change", "")) for event in back]
    spent = sum(event["from"] - event["to"] for event in back)
    what = ", ".join(f"{changes.count(name)} × {name}" for name in dict.fromkeys(changes)) or "–"
    states = [r["collapse/health"] for r in journal.read_rows(trial.run.metrics) if "collapse/health" in r]
    return [trial.network, str(trial.seed), trial.provocation, what, f"{spent:,}", f"{states[-1]:g}", f"{covered:.2f}"]


def main(out: Path, processes: int = 2) -> None:
    """Train what is not trained yet, and report.

    Args:
        out: a folder for some hundred MB of runs.
        processes: runs at the same time.
    """
    groups, reader = carry_out_all(out, NAME, processes)
    head = (
        "network",
        "seed",
        "provocation; policy",
        "rolled back and changed",
        "images trained twice",
        "state at the end",
    )
    rows = (row(t, coverage(t, reader) / coverage(group[0], reader)) for group in groups for t in group)
    table((*head, "coverage × twin's"), rows)


if __name__ == "__main__":
    tyro.cli(main)
