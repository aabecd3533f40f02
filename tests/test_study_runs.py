"""Studies that really train: on this machine, interrupted, and on a cluster that preempts."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

import pytest

from launcher.__main__ import main
from launcher.jobs import attempts
from launcher.jobs.attempts import Cause
from launcher.study.analysis import results
from launcher.study.folder import StudyFolder
from slurm.dev_cluster import DevCluster
from tests.conftest import begin
from tests.slurm_cluster import wait_for
from tests.test_same_bits import last_images
from trainer.core.stopping import Outcome
from trainer.runs.run_folder import RunFolder

TOML = """\
data = "{data}"
seeds = [7]

[budget]
images = {images}

[evaluation]
metrics = ["fid"]
num_samples = 32

[settings]
network = {{ g-channels = 8, d-channels = 8, z-dim = 16 }}
batch-size = 32
micro-batch-size = 16
log-every-images = 32
sample-every-images = 0
tracking.mode = "disabled"

[arms.plain]
recipe = "dcgan-32"

[arms.other]
recipe = "dcgan-32"
"""
BROKEN = "settings = { max-rollbacks = 0, optimizer.d-lr = 1e30 }\n"


def write(folder: Path, data: Path, images: int, more: str) -> Path:
    path = folder / "study.toml"
    path.write_text(TOML.format(data=data, images=images) + more)
    return path


def test_a_study_here_survives_an_interruption_and_a_failure(shards32: Path, tmp_path: Path) -> None:
    toml = write(tmp_path, shards32, 1_600, BROKEN)
    folder = StudyFolder(tmp_path / "study")
    command = ["study", str(toml), "--out", str(folder.path), "--cluster", "local", "--processes", "1"]
    run = folder.run("plain", 7)
    begun = begin("launcher", *command, stdout=subprocess.PIPE)
    assert wait_for(lambda: last_images(run.path) >= 64, timeout_s=60)
    begun.send_signal(signal.SIGINT)
    said = begun.communicate(timeout=60)[0]
    assert begun.returncode == Outcome.INTERRUPTED, said
    assert "stopped and saved; the same command goes on" in said
    assert not run.lease.exists()
    saved = run.newest_checkpoint()
    assert saved
    assert 0 < saved[0] < 1_600
    assert main(command) == 0
    found = results.read_results(folder.results)
    plain, other = found.entries
    assert (plain.status, plain.images_seen, plain.restarts) == ("finished", 1_600, 1)
    assert plain.score
    assert found.metric.startswith("fid_32/random-vgg")
    assert (other.status, other.score) == ("failed", None)
    assert "NaN or Inf" in other.reason
    assert json.loads(run.wandb_identity.read_text())["group"] == "study"
    assert "plain" in folder.page.read_text()
    trained = run.events.read_bytes()
    assert main(command) == 0
    assert run.events.read_bytes() == trained, "what is finished is left alone"


def test_a_study_on_a_cluster_that_preempts(
    on_slurm: DevCluster, shards32: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two stages in two arrays, the second of which a task's end has queued; nobody is logged in."""
    halving = "[halving]\nrungs = 1\nkeep = 0.9\nseeds = 1\n"
    toml = write(tmp_path, shards32, 3_200, halving)  # seconds, in which the preemption comes
    folder = StudyFolder(tmp_path / "it's a study")
    assert main(["study", str(toml), "--out", str(folder.path), "--nodes", "2"]) == 0
    said = capsys.readouterr().out
    assert "2 nodes with 2 processes each" not in said, "an arm has two micro-batches, and so at most two processes"
    runs = [folder.run(arm, 1_000) for arm in ("plain", "other")]
    assert wait_for(lambda: all(last_images(run.path) >= 64 for run in runs), timeout_s=60)
    assert main(["status", str(runs[0].path)]) == 0
    assert "training" in capsys.readouterr().out
    sbatch = ["sbatch", "--partition=urgent", "--nodes=4", "--exclusive", "--output=/dev/null", "--wrap=true"]
    subprocess.run(sbatch, check=True, capture_output=True)

    def over() -> bool:
        later = [folder.run(arm, 7) for arm in ("plain", "other")]
        return all(causes(run)[-1:] == [Cause.FINISHED] for run in (*runs, *later)) and not working(on_slurm)

    assert wait_for(over, timeout_s=240, every_s=0.5), story(folder)
    assert [causes(run) for run in runs] == [[Cause.PREEMPTED, Cause.FINISHED]] * 2, story(folder)
    found = results.read_results(folder.results)
    assert [(e.role, e.status) for e in found.entries] == [("select", "finished")] * 2 + [("compare", "finished")] * 2
    selected, compared = ({e.images_seen for e in found.entries if e.role == role} for role in ("select", "compare"))
    assert len(selected) == 1
    assert max(selected) < 3_200
    assert compared == {3_200}
    assert [e.preemptions for e in found.entries] == [1, 1, 0, 0]
    assert found.entries[0].node_seconds == pytest.approx(2 * found.entries[0].seconds)
    assert folder.page.exists()
    assert len(list(folder.queue.glob("*.txt"))) == 2


def causes(run: RunFolder) -> list[Cause | None]:
    return [attempt.cause for attempt in attempts.read_attempts(run)]


def working(cluster: DevCluster) -> bool:
    return any(job.state in ("PENDING", "RUNNING", "COMPLETING") for job in cluster.jobs())


def story(folder: StudyFolder) -> str:
    logs = sorted((folder.jobs.logs / "slurm").glob("*_log.out"))
    starts = [str(attempt) for run in folder.path.glob("runs/*") for attempt in attempts.read_attempts(RunFolder(run))]
    return "\n".join([*starts, *(f"--- {log.name}\n{log.read_text(errors='replace')[-3_000:]}" for log in logs)])
