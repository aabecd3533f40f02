"""The rows of system.jsonl as columns of the rows of metrics that go to W&B."""

from __future__ import annotations

from collections.abc import Iterable

from trainer.runs.journal import Row

NOT_FIGURES = {"schema", "row", "time", "node", "host", "images_seen"}


class SystemColumns:
    """Takes rows of system.jsonl, and gives each row of metrics what belongs to it."""

    def __init__(self) -> None:
        self.of_steps: dict[int, Row] = {}
        self.of_nodes: list[Row] = []

    def add(self, rows: Iterable[Row]) -> None:
        """Take in rows, in the file's order."""
        for row in rows:
            if "node" in row:
                self.of_nodes.append(row)
            else:
                self.of_steps[row["images_seen"]] = row

    def take(self, images_seen: int) -> Row:
        """Return the figures of a step, and the last ones of each node that were measured up to it."""
        columns = self.of_steps.pop(images_seen, {})
        for row in self.of_nodes:
            if row["images_seen"] <= images_seen:
                figures = {key: value for key, value in row.items() if key not in NOT_FIGURES}
                columns |= {f"node-{row['node']}/{key}": value for key, value in figures.items()}
        self.of_nodes = [row for row in self.of_nodes if row["images_seen"] > images_seen]
        return columns
