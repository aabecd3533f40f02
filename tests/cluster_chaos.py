"""A random schedule of the faults on a real Slurm: `python -m tests.cluster_chaos --minutes 30 --seed 0`.

Each round is one run and one fault; after each the bits, the history in W&B, the checkpoints and the processes that are
left are held against a run that nothing disturbed. The seed replays the schedule. `--all` runs every fault once.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import tyro

from slurm.dev_cluster import DevCluster
from slurm.dev_settings import DevClusterSettings
from tests.conftest import run
from tests.faults import FAULTS, OWN_SETTINGS
from tests.ordeal import Ordeal, undisturbed_run
from tests.slurm_cluster import clear
from tests.wandb_server import WandbServer


@dataclass(frozen=True)
class Chaos:
    """Do to runs what clusters do."""

    minutes: float = 30.0
    """Begin no further round after so long."""
    seed: int = 0
    """Names the schedule; the same seed replays it."""
    all: bool = False
    """Every fault once, in the order of tests/faults.py, however long it takes."""
    only: tuple[str, ...] = ()
    """These faults, once each."""


def schedule(args: Chaos, chance: random.Random) -> Iterator[str]:
    """Yield the names of the faults to come."""
    if args.all or args.only:
        yield from args.only or FAULTS
        return
    deadline = time.monotonic() + args.minutes * 60
    while time.monotonic() < deadline:
        yield chance.choice(list(FAULTS))


def suffer(name: str, cluster: DevCluster, data: Path, folder: Path, undisturbed: Path, seed: str) -> str:
    """Carry out one round, and return the restarts that there were."""
    with WandbServer() as server:
        ordeal = Ordeal(cluster, data, folder, server, random.Random(seed))
        with ordeal.stack:
            FAULTS[name](ordeal)
            ordeal.check(undisturbed)
            return ", ".join(str(cause) for cause in ordeal.causes())


def main() -> int:
    """Run the schedule on clusters that fit its faults; the exit code is 1 if any round went wrong."""
    args = tyro.cli(Chaos)
    chance, failed = random.Random(args.seed), 0
    home = Path(tempfile.mkdtemp(prefix="chaos-"))
    data, cluster = home / "shards", DevCluster(home / "c")
    built = run("shards", "build", "examples/clipart.zip", "--out", str(data), "--size", "32", "--shard-samples", "100")
    assert built.returncode == 0, built.stderr
    undisturbed = undisturbed_run(home / "undisturbed", data)
    os.environ |= cluster.environment
    settings: DevClusterSettings | None = None
    try:
        for number, name in enumerate(schedule(args, chance)):
            if (wanted := OWN_SETTINGS.get(name, DevClusterSettings(requeue_delay_s=5))) != settings:
                if settings:
                    cluster.down()
                    shutil.rmtree(cluster.folder)
                cluster.up(settings := wanted)
            started, folder = time.monotonic(), home / f"run-{number}"
            try:
                for node in cluster.nodes():
                    cluster.heal(node.name)
                what = suffer(name, cluster, data, folder, undisturbed, f"{args.seed}-{number}")
                shutil.rmtree(folder)
            except Exception as error:  # the next round must have its chance too
                failed += 1
                what = f"FAILED, see {folder}: {type(error).__name__}: {error}"
            with contextlib.suppress(AssertionError):
                clear(cluster)
            print(f"round {number}: {name}: {time.monotonic() - started:.0f} s: {what}", flush=True)
    finally:
        cluster.down()
        if not failed:
            shutil.rmtree(home)
    print(f"{'all rounds gave the same bits' if not failed else f'{failed} rounds went wrong'}; seed {args.seed}")
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
