"""Going on with a study: from where, by whom, and what the end of a task queues."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from launcher.__main__ import main
from launcher.cli import study
from launcher.jobs.batch_script import Request
from launcher.jobs.job_record import JobRecord
from launcher.jobs.preparation import PreparedJob, site_profile
from launcher.study import advance, array, publish
from launcher.study.array import PreparedArray
from launcher.study.folder import StudyFolder
from launcher.study.plan import StudyPlan, StudyTask
from launcher.study.prepare import load_arm
from launcher.study.run_progress import TaskProgress, next_tasks
from launcher.study.settings_file import parse_study
from slurm.parsing import as_partition
from slurm.profile import Profile
from tests.made_runs import JOB, MadeRun, moment, slurm_says
from tests.studies import plan, score
from trainer.config.config import Config
from trainer.core.fields import Refused

TOML = """\
data = "shards"
seeds = [7]
[budget]
images = 1600
[evaluation]
metrics = ["fid"]
[arms.plain]
recipe = "dcgan-32"
"""


@pytest.fixture
def home(shards32: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which a user begins a study: nothing is trained."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "shards").symlink_to(shards32)
    (home / "colours.toml").write_text(TOML)
    (home / "lienzo.toml").write_text('profile = "site.toml"\nlog_every_images = 640\n')
    (home / "site.toml").write_text('partition = "there"\n')
    monkeypatch.chdir(home)
    monkeypatch.setattr(study, "train_here", lambda plan, retry: 0)
    return home


@dataclass
class Cluster:
    """One that takes every array: which runs were queued, array after array."""

    arrays: list[list[str]] = field(default_factory=list)

    def submit(self, prepared: PreparedArray) -> int:
        return self.queue(prepared.plan, [task for task, _ in prepared.tasks])

    def queue(self, plan: StudyPlan, tasks: Sequence[StudyTask]) -> int:
        for task in tasks:
            if not task.run.config.exists():
                MadeRun(task.run.path)
            if target := plan.target(task):
                target.save(task.run)
        self.arrays.append([task.run.path.name for task in tasks])
        return len(self.arrays)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """Let arrays be taken, of runs that have no settings."""
    made, request = Cluster(), Request("study", "1", 1, 1, 0, 60, None, Profile())
    slurm_says(monkeypatch, None)
    job = PreparedJob(request, as_partition({"PartitionName": "there"}, {}))

    def prepare_array(plan: StudyPlan, tasks: Sequence[StudyTask]) -> PreparedArray:
        return PreparedArray(plan, [(task, Config()) for task in tasks], job)

    monkeypatch.setattr(array, "prepare_array", prepare_array)
    monkeypatch.setattr(array, "submit_array", made.submit)
    for module in (advance, study):
        monkeypatch.setattr(module, "write_report", lambda plan: None)
    return made


def opened(monkeypatch: pytest.MonkeyPatch, made: StudyPlan) -> StudyPlan:
    """Let a study be what its plan would say."""
    monkeypatch.setattr(StudyPlan, "open", lambda folder: made)
    return made


def test_what_its_user_cancelled_is_not_queued_by_the_end_of_a_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cluster: Cluster
) -> None:
    made = opened(monkeypatch, plan(tmp_path, seeds=1))
    stage = next_tasks(made, retry=False)[1]
    cluster.queue(made, stage)
    for task in stage[:2]:
        score(made, task, 4.0)
    JobRecord(JOB, 1, "2", 1, 90, moment(-200), cancelled=True).save(stage[2].run)
    advance.queue_next_stage(made.folder)
    assert len(cluster.arrays) == 1
    assert next_tasks(made, retry=False)[1] == [stage[2]], "its user can have it queued"


def test_the_end_of_a_stage_queues_the_next_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cluster: Cluster
) -> None:
    """The first runs of both stages see the same number of images."""
    halving = {"rungs": 1, "keep": 0.5, "seeds": 1}
    made = opened(monkeypatch, plan(tmp_path, seeds=1, budget={"flops": 6.4e9}, halving=halving))
    number, stage = next_tasks(made, retry=False)
    assert array.claim_stage(made, number)
    cluster.queue(made, stage)
    for task, value in zip(stage, (9.0, 4.0, 5.0), strict=True):
        score(made, task, value)
    assert stage[0].images == next_tasks(made, retry=False)[1][0].images
    for _ in range(2):
        advance.queue_next_stage(made.folder)
    assert cluster.arrays[1:] == [["b-s0", "c-s0"]]


def test_a_study_that_is_queued_is_claimed_for_its_stage(home: Path, cluster: Cluster) -> None:
    assert main(["study", "colours.toml"]) == 0
    assert cluster.arrays == [["plain-s7"]]
    made = StudyPlan.open(StudyFolder(Path("studies/colours")))
    assert not array.claim_stage(made, 0)
    assert array.claim_stage(made, 1)


def test_a_study_goes_on_from_anywhere_as_it_was_begun(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["study", "colours.toml", "--cluster", "local", "--seeds", "2"]) == 0
    folder = StudyFolder(home / "studies" / "colours")
    elsewhere = home.parent / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "lienzo.toml").write_text('profile = "other.toml"\nlog_every_images = 320\n')
    monkeypatch.chdir(elsewhere)

    def as_begun() -> None:
        made = StudyPlan.open(folder)
        config = load_arm(made.settings, "plain", made.home, made.project).config
        assert (config.data, config.log_every_images) == (home / "shards", 640)
        assert site_profile(made.resources).partition == "there"
        assert made.settings.seeds == (7, 0, 1), "seeds are added to those in the file"

    as_begun()
    assert main(["study", str(folder.path), "--cluster", "local"]) == 0
    as_begun()
    assert not (elsewhere / "studies").exists()


def test_weights_to_begin_with_are_seen_from_where_the_study_was_begun(home: Path) -> None:
    made = parse_study(tomllib.loads(TOML + 'settings.init-from = "weights"\n'), "study.toml", "made")
    assert load_arm(made, "plain", home, {}).config.init_from == home / "weights"


def test_a_budget_cannot_be_lowered_below_what_a_run_has_seen(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["study", "colours.toml", "--cluster", "local"]) == 0
    made = StudyPlan.open(StudyFolder(home / "studies" / "colours"))
    (made.folder.run("plain", 7).checkpoints / "000000001600-r00").mkdir(parents=True)
    (home / "colours.toml").write_text(TOML.replace("1600", "800"))
    assert main(["study", "colours.toml", "--cluster", "local", "--dry-run"]) == 2
    assert "has seen 1,600 images already, but is to be measured at 768" in capsys.readouterr().err


def test_a_study_by_seconds_goes_on(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What its runs will see is not known before their speed is, and they have begun perhaps."""
    (home / "colours.toml").write_text(TOML.replace("images = 1600", "seconds = 9.0"))
    assert main(["study", "colours.toml", "--cluster", "local"]) == 0
    made = StudyPlan.open(StudyFolder(home / "studies" / "colours"))
    (made.folder.run("plain", 7).checkpoints / "000000001600-r00").mkdir(parents=True)
    assert main(["study", "colours.toml", "--cluster", "local"]) == 0, capsys.readouterr().err


def test_two_do_not_go_on_with_one_study(home: Path, capsys: pytest.CaptureFixture[str], cluster: Cluster) -> None:
    folder = StudyFolder(Path("studies/colours"))
    with folder.held():
        for where in ("local", "slurm"):
            assert main(["study", "colours.toml", "--cluster", where]) == 2
            said = capsys.readouterr().err
            assert f"studies/colours is in the hands of process {os.getpid()} on {socket.gethostname()}, since" in said
        assert main(["study", "colours.toml", "--cluster", "local", "--dry-run"]) == 0
    assert not cluster.arrays
    assert not folder.plan.exists()
    assert main(["study", "colours.toml", "--cluster", "slurm"]) == 0


def test_a_study_on_this_machine_is_held_while_it_trains(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def train_here(plan: StudyPlan, retry: bool) -> int:
        with pytest.raises(Refused, match="is in the hands of process"), plan.folder.held():
            pass
        return 0

    monkeypatch.setattr(study, "train_here", train_here)
    assert main(["study", "colours.toml", "--cluster", "local"]) == 0


def test_results_are_written_by_one_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slurm_says(monkeypatch, None, found=False)
    monkeypatch.setattr(publish, "WAIT_S", 0.0)
    made = plan(tmp_path)
    with made.folder.held("report"), pytest.raises(Refused, match="is in the hands of process"):
        publish.write_report(made)
    assert not made.folder.results.exists()
    publish.write_report(made)
    assert made.folder.results.exists()


def test_a_folder_without_locks_is_no_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def none(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", none)
    with StudyFolder(tmp_path).held():
        assert "no lock on" in capsys.readouterr().err


def test_reasons_with_brackets_are_shown_as_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    task = next_tasks(plan(tmp_path), retry=False)[1][0]
    study.show_progress([TaskProgress(task, "failed", "cannot read [/data/x]")])
    assert "cannot read [/data/x]" in capsys.readouterr().out
