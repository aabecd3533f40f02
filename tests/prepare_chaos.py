"""A folder of pictures, prepared on a real Slurm that preempts, against a local build: `python -m tests.prepare_chaos`.

The shards go into s3:// on loopback, from four nodes; at random moments all jobs are preempted. The objects must be the
files of a build on one machine that nothing disturbed, byte for byte. The seed replays the moments.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import tyro

from launcher.__main__ import main as launcher
from launcher.jobs.runs import SlurmQueue
from launcher.prepare.folder import PrepareFolder
from launcher.prepare.progress import PrepareStatus, gather_preparation, is_over
from launcher.status.facts import RunState
from shards.__main__ import main as shards
from slurm.dev_cluster import DevCluster
from slurm.dev_settings import DevClusterSettings
from tests.made_sources import digests
from tests.s3_server import serve_bucket

NODES = 4
PREEMPT = ("sbatch", "--partition=urgent", f"--nodes={NODES}", "--exclusive", "--output=/dev/null", "--wrap=sleep 2")


@dataclass(frozen=True)
class PrepareChaos:
    """Prepare a folder on a cluster that preempts, and compare every byte."""

    source: Path = Path("/usr/share/openclipart/png")
    """The pictures."""
    preemptions: int = 2
    """How often all jobs are preempted."""
    seed: int = 0
    """Names the moments."""


def look() -> PrepareStatus:
    """Return what the preparation does."""
    return gather_preparation(PrepareFolder(Path("runs/set")), SlurmQueue())


def preempt_at(moments: list[float]) -> PrepareStatus:
    """Preempt all jobs each time that a share of the pictures is done, and return how it ended."""
    while not is_over(status := look()):
        if moments and status.state is RunState.TRAINING and status.done >= moments[0] * status.preparation.total:
            print(f"preempted at {status.done:,} of {status.preparation.total:,}", flush=True)
            subprocess.run(PREEMPT, check=True, capture_output=True)
            moments.pop(0)
            time.sleep(5)  # until Slurm has begun with it
        time.sleep(0.5)
    return status


def main() -> int:
    """Carry it out; the exit code is 1 if a byte differs."""
    args = tyro.cli(PrepareChaos)
    chance, home = random.Random(args.seed), Path(tempfile.mkdtemp(prefix="prepare-"))
    source, settings = args.source.resolve(), ("--size", "64", "--labels", "folders")
    os.chdir(home)
    assert shards(["build", str(source), "--out", "local", *settings]) == 0
    cluster = DevCluster(home / "c")
    cluster.up(DevClusterSettings(nodes=NODES, requeue_delay_s=5))
    os.environ |= cluster.environment
    try:
        with serve_bucket(home / "buckets") as bucket:
            os.environ |= bucket.environment
            url = f"{bucket.url}/set"
            assert launcher(["prepare", str(source), "--out", url, *settings, "--workers", "1", "--nodes", "4"]) == 0
            status = preempt_at(sorted(chance.uniform(0.05, 0.85) for _ in range(args.preemptions)))
            restarts = [cause for job in status.jobs for cause in job.restarts]
            same = status.state is RunState.FINISHED and digests(bucket.root / "set") == digests(Path("local"))
    finally:
        cluster.down()
    print(f"{status.words} {status.reason}; restarts: {restarts}; {'all bytes are equal' if same else f'see {home}'}")
    if same:
        shutil.rmtree(home)
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
