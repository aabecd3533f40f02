"""A trace of some steps of one rank."""

from __future__ import annotations

import gzip
import json
import logging
from pathlib import Path

import pytest

from tests.conftest import train
from trainer.config.config import Config
from trainer.distributed.world import World
from trainer.runs.run_folder import RunFolder
from trainer.training.step_trace import SKIPPED_STEPS, WARM_UP_STEPS, StepTrace, step_trace


def operations(path: Path, name: str) -> int:
    """Return how often an operation is in a trace."""
    with gzip.open(path) as file:
        return sum(event.get("name") == name for event in json.load(file)["traceEvents"])


def test_a_rank_that_is_named_writes_a_trace_and_the_same_bits(shards32: Path, tmp_path: Path) -> None:
    settings = ("--total-images", "640")
    train(tmp_path / "plain", shards32, *settings)
    train(tmp_path / "traced", shards32, *settings, "--trace-steps", "3", "--trace-rank", "1", processes=2)
    assert [path.name for path in (tmp_path / "traced/traces").iterdir()] == ["rank-00001.json.gz"]
    # Two optimizers a step.
    assert operations(tmp_path / "traced/traces/rank-00001.json.gz", "aten::_fused_adam_") == 6
    metrics = [(tmp_path / run / "metrics.jsonl").read_bytes() for run in ("plain", "traced")]
    assert metrics[0] == metrics[1]


def play(trace: StepTrace, steps: int) -> None:
    """Do steps of nothing."""
    for _ in range(steps):
        with trace.step():
            pass


def test_a_run_that_ends_early_leaves_the_steps_so_far(tmp_path: Path) -> None:
    trace = StepTrace(tmp_path / "traces/rank.json.gz", 100)
    play(trace, SKIPPED_STEPS)
    assert trace.profiler is None
    play(trace, WARM_UP_STEPS + 3)
    assert not trace.path.exists()
    trace.stop()
    assert [path.name for path in trace.path.parent.iterdir()] == ["rank.json.gz"]
    trace.stop()  # once


def test_a_trace_that_cannot_be_written_stops_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    trace = StepTrace(tmp_path / "missing/traces/rank.json.gz", 1)
    with caplog.at_level(logging.WARNING):
        play(trace, SKIPPED_STEPS + WARM_UP_STEPS + 20)
    assert caplog.text.count("the trace was not written") == 1
    assert trace.profiler is None


def test_a_rank_that_is_not_there_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = Config(trace_steps=2, trace_rank=4)
    with caplog.at_level(logging.WARNING):
        traces = [step_trace(config, RunFolder(tmp_path), World(rank, 4)) for rank in range(4)]
    assert [trace.steps for trace in traces] == [0, 0, 0, 0]
    assert caplog.text.count("there is no rank 4 among 4 processes") == 1
