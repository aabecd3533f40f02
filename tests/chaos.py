"""Kills at random moments, on random numbers of processes, until the end: the bits are those of an undisturbed run.

`python -m tests.chaos --rounds 10 --seed 0`: each round is one run that is killed three times; the seed replays it.
"""

from __future__ import annotations

import random
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import tyro

from tests.conftest import fingerprint, run, train
from tests.test_same_bits import TOTAL, kill_at

KILLS = 3


@dataclass(frozen=True)
class Chaos:
    """Repeat the kill test with other moments and other numbers of processes."""

    rounds: int = 10
    """Runs to disturb."""
    seed: int = 0
    """Names the moments; the same seed replays them."""


def disturb(folder: Path, data: Path, chance: random.Random) -> str:
    """Kill and resume one run until it ends, and return what was done to it."""
    moments = sorted(chance.sample(range(32, TOTAL - 64), KILLS))
    plan = [(moment, chance.randint(1, 4)) for moment in moments]
    for moment, processes in plan:
        kill_at(folder, data, moment, processes)
    train(folder, data, "--total-images", str(TOTAL), processes=chance.randint(1, 4))
    return ", ".join(f"killed at {moment} on {processes}" for moment, processes in plan)


def main() -> None:
    """Run the rounds; an assertion names the first one that went wrong."""
    settings = tyro.cli(Chaos)
    chance = random.Random(settings.seed)
    with tempfile.TemporaryDirectory() as temporary:
        home = Path(temporary)
        data = home / "shards"
        built = run("shards", "build", "examples/clipart.zip", "--out", str(data), "--size", "32")
        assert built.returncode == 0, built.stderr
        train(home / "undisturbed", data, "--total-images", str(TOTAL))
        expected = fingerprint(home / "undisturbed")
        metrics = (home / "undisturbed" / "metrics.jsonl").read_bytes()
        for number in range(settings.rounds):
            folder = home / "disturbed"
            what = disturb(folder, data, chance)
            assert fingerprint(folder) == expected, f"round {number} of seed {settings.seed}: {what}"
            assert (folder / "metrics.jsonl").read_bytes() == metrics, f"round {number}: {what}"
            print(f"round {number}: {what}: the same bits", flush=True)
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
