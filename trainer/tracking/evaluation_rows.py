"""Evaluations come late, and W&B's steps only rise: each rides to W&B on the next row of metrics, once.

    RUN/wandb/evaluations.json    for each W&B run, the `images_seen` of the rows that took an evaluation along

It is written before the row is sent. W&B has a row if its last step is not below, so after any kill it is known which
evaluations it has.
"""

from __future__ import annotations

import json

from shards.atomic_files import write_atomically
from trainer.core.migration import load_json, with_schema
from trainer.runs.journal import Follower, Row
from trainer.runs.run_folder import RunFolder

AXIS = "evaluation/images_seen"


class EvaluationRows:
    """The evaluations that one W&B run lacks.

    Args:
        run: the run folder.
        id: of the W&B run.
        last: the `images_seen` of the last row that it has.
    """

    def __init__(self, run: RunFolder, id: str, last: int) -> None:
        self.path, self.id = run.wandb / "evaluations.json", id
        self.carriers: dict[str, list[int]] = load_json(self.path) if self.path.exists() else {}
        self.carriers[id] = [images_seen for images_seen in self.carriers.get(id, []) if images_seen <= last]
        self.rows, self.known = Follower(run.evaluations), list[Row]()
        self.taken: Row = {}
        """The evaluation that a row took along last."""

    def take(self, images_seen: int) -> Row:
        """Return the columns that the row of `images_seen` takes along: of one evaluation, or none."""
        self.known += self.rows.read()
        # With all W&B runs of this run: an evaluation goes to one of them.
        gone = sum(map(len, self.carriers.values()))
        if gone >= len(self.known):
            return {}
        self.carriers[self.id].append(images_seen)
        # Before W&B has it: if it never does, the next start takes it out again.
        write_atomically(self.path, json.dumps(with_schema(self.carriers)).encode())
        self.taken = self.known[gone]
        return evaluation_columns(self.taken)

    def close(self) -> None:
        """Close the file."""
        self.rows.close()


def evaluation_columns(evaluation: Row) -> Row:
    """Return an evaluation as columns, with an axis of its own."""
    found: Row = {AXIS: evaluation["images_seen"]}
    for name, figure in evaluation["figures"].items():
        for part, suffix in (("value", ""), ("low", "/low"), ("high", "/high")):
            found[f"evaluation/{evaluation['seed_set']}/{name}{suffix}"] = float(figure[part])
    return found
