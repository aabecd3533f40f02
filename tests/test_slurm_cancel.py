"""`status`, `logs` and `cancel` on a real Slurm."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from launcher.jobs.attempts import Cause
from launcher.jobs.job_record import JobRecord
from slurm import control
from slurm.dev_cluster import DevCluster
from tests.ordeal import Ordeal
from tests.slurm_cluster import wait_for
from trainer.runs.checkpoint import find_checkpoints

ENDLESS = ("--total-images", "9600000")


def status(ordeal: Ordeal) -> dict[str, Any]:
    """What the command says of the run."""
    (row,) = json.loads(ordeal.command("status", str(ordeal.folder), "--json"))
    assert isinstance(row, dict)
    return row


def test_cancel_saves_and_is_not_started_again(
    on_slurm: DevCluster,
    shards32: Path,
    tmp_path: Path,
) -> None:
    ordeal = Ordeal(on_slurm, shards32, tmp_path / "run", settings=ENDLESS)
    ordeal.submit("--nodes", "2")
    ordeal.wait_for_images(64)
    ordeal.preempt()
    ordeal.wait_for_start(1)
    assert wait_for(ordeal.training, timeout_s=60), ordeal.story()
    now = status(ordeal)
    assert (now["state"], now["causes"], len(now["nodes"])) == ("training", ["preempted"], 2)
    said = ordeal.command("cancel", str(ordeal.folder))
    saved = find_checkpoints(ordeal.run.checkpoints)[0].images_seen
    assert f"cancelled: the state at {saved:,} images is durable" in said
    assert ordeal.causes() == [Cause.PREEMPTED, Cause.CANCELLED], ordeal.story()
    assert ordeal.attempts()[-1].saved == saved
    job = control.show_job(ordeal.job)
    assert job is None or job.state in ("COMPLETED", "CANCELLED")
    now = status(ordeal)
    assert (now["state"], now["images_seen"]) == ("cancelled", saved)
    assert now["next"] == f"python -m launcher resume {ordeal.folder}"
    logs = ordeal.command("logs", str(ordeal.folder), "--rank", "0")
    assert f"Z [rank 0] interrupted and saved at {saved:,} images" in logs
    assert "interrupted and saved" in ordeal.command("logs", str(ordeal.folder), "-f", "--restart", "0")
    ordeal.check_no_orphans()


def test_cancel_while_it_starts_while_it_waits_and_now(
    on_slurm: DevCluster,
    shards32: Path,
    tmp_path: Path,
) -> None:
    """However early it comes, it ends the job for good; a later submission is not marked."""
    ordeal = Ordeal(on_slurm, shards32, tmp_path / "run", settings=ENDLESS)
    ordeal.submit("--nodes", "2")
    ordeal.wait_for_start(0)
    ordeal.command("cancel", str(ordeal.folder))
    assert status(ordeal)["state"] == "cancelled", ordeal.story()
    ordeal.command("resume", str(ordeal.folder), "--nodes", "4")
    assert not JobRecord.load(ordeal.run).cancelled
    other = Ordeal(on_slurm, shards32, tmp_path / "other")
    other.submit("--nodes", "1", "--after", str(ordeal.folder))
    assert wait_for(lambda: status(other)["reason"] == "waiting for another job", timeout_s=20), status(other)
    assert status(other)["state"] == "queued"
    other.command("cancel", str(other.folder))
    assert status(other)["state"] == "cancelled"
    other.command("rm", str(other.folder), "--yes")
    assert not other.folder.exists()
    ordeal.wait_for_images(64)
    ordeal.command("cancel", str(ordeal.folder), "--now")
    assert wait_for(lambda: status(ordeal)["state"] == "cancelled", timeout_s=20), status(ordeal)
    ordeal.check_no_orphans()
