"""Choose the best checkpoint of a run, only from figures on the seed set "select"."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from shards.atomic_files import write_atomically
from shards.dataset.index import DataError, Index
from trainer.config.config import Config
from trainer.core.advice import command
from trainer.core.fields import Refused
from trainer.core.migration import with_schema
from trainer.evaluation.best_record import BestCheckpoint
from trainer.evaluation.report import Evaluation
from trainer.evaluation.source import ShardImages
from trainer.runs import journal
from trainer.runs.checkpoint import find_checkpoints
from trainer.runs.config_loading import read_config
from trainer.runs.run_folder import RunFolder


def choose_best(run: RunFolder, newest: Evaluation) -> BestCheckpoint | None:
    """Choose and record the best of the checkpoints that still exist, by their figures on the seed set "select".

    Args:
        run: with its evaluations.
        newest: the newest evaluation; earlier ones are compared if they have the same column and the same real data.

    Returns:
        None: `newest` lacks the figure that the run's settings choose by, or is against other data than the training
            data; or no measured checkpoint exists any more.
    """
    config = read_config(run)
    # Each choice looks at all rows: a better checkpoint may have been pruned since it was recorded as the best.
    wanted = next((f for f in newest.figures if f.name == config.metrics.keep_best), None)
    real = training_data_key(config)
    # Figures against other data than the training data would rank checkpoints by another question.
    if wanted is None or newest.facts["real"] != real:
        return None
    there = {checkpoint.path.name for checkpoint in find_checkpoints(run.checkpoints)}
    candidates = [
        (distance_from_best(wanted.better, row["figures"][wanted.column]), row)
        for row in journal.read_rows(run.evaluations)
        if (row["seed_set"], row["real"]) == ("select", real)
        and row["checkpoint"] in there
        and wanted.column in row["figures"]
    ]
    if not candidates:
        return None
    _, row = min(candidates, key=lambda candidate: candidate[0])
    value = float(row["figures"][wanted.column]["value"])
    best = BestCheckpoint(row["checkpoint"], row["images_seen"], wanted.column, value)
    write_atomically(run.best, json.dumps(with_schema(asdict(best)), indent=1).encode() + b"\n")
    return best


def training_data_key(config: Config) -> str | None:
    """Return the "real" of evaluations against the training data; None: that data is gone."""
    try:
        return "/".join(ShardImages(Index.open(config.data), "train").key) if config.data else None
    except DataError:
        return None


def distance_from_best(better: str, figure: Mapping[str, Any]) -> float:
    """Return a number that is lower for a better figure; infinite for NaN."""
    value, floor = float(figure["value"]), figure["floor"]
    if better == "data":
        # The nearer to what reals are against reals, the better, from either side.
        return abs(value - float(floor["value"])) if floor else math.inf
    found = value if better == "lower" else -value
    return math.inf if math.isnan(found) else found


def best_checkpoint_name(run: RunFolder) -> str:
    """Return the name of the best checkpoint.

    Raises:
        Refused: none was chosen.
    """
    best = BestCheckpoint.of(run)
    if best is None:
        measure = command("trainer", "evaluate", run.path, "--seed-set", "select", "--checkpoint", "NAME")
        raise Refused(
            f"{run.path} has no best checkpoint yet: measure some with {measure}, or train with --metrics.every-images"
        )
    return best.checkpoint
