"""A short and fixed slice of the fuzzing (`make fuzz` goes on for as long as asked), and that it sees mistakes."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz import TARGETS

PLANT = """
import sys
from unittest import mock
from tests import fuzz, fuzz_targets
sys.argv = ["fuzz", "--inside", "--only", {target!r}, "--examples", "100", "--out", {out!r}]
fuzz.SECONDS, fuzz.PHASES = 2, fuzz.PHASES[:1]
with mock.patch({where!r}, {what}):
    sys.exit(fuzz.main())
"""


def fuzz(*words: str) -> subprocess.CompletedProcess[str]:
    """Run Python with these arguments."""
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False, timeout=250)


def test_a_slice_of_all_targets(tmp_path: Path) -> None:
    done = fuzz("-m", "tests.fuzz", "--inside", "--examples", "60", "--out", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert [line for line in done.stdout.splitlines() if line.endswith(": no failure")] == [
        f"{name}: no failure" for name in TARGETS
    ]


@pytest.mark.parametrize(
    ("target", "where", "what", "said"),
    [
        ("decoder", "tests.fuzz_targets.as_image", "lambda data: bytes(1 << 30)", "MemoryError"),
        ("tar", "tests.fuzz_targets.open_source", "lambda *_, **__: all(iter(lambda: 1, 0))", "no end after 2 s"),
        (
            "index",
            "shards.dataset.table.check_table",
            "lambda file, samples, place: open(place.parents[2] / 'secret').close()",
            "opened outside of the folder",
        ),
        ("tar", "shards.sources.tar_source.TAR_ERRORS", "()", "Failing test case"),
    ],
    ids=["memory", "hang", "escape", "error"],
)
def test_the_fuzzing_sees_mistakes(tmp_path: Path, target: str, where: str, what: str, said: str) -> None:
    done = fuzz("-c", PLANT.format(target=target, out=str(tmp_path), where=where, what=what))
    assert done.returncode != 0
    assert said in done.stderr
    assert (tmp_path / f"{target}.pickle").exists()


def test_an_example_that_failed_runs_again(tmp_path: Path) -> None:
    (tmp_path / "one.pickle").write_bytes(pickle.dumps(("decoder", "no bytes")))
    done = fuzz("-m", "tests.fuzz", "--replay", str(tmp_path / "one.pickle"), "--out", str(tmp_path / "out"))
    assert done.returncode == 1, done.stdout + done.stderr
    assert "decoder: FAILED (exit code 1); run it again with: python -m tests.fuzz --replay" in done.stdout
