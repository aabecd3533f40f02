"""`launcher status`: each state from the files and from Slurm's answer, and figures that are true."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from launcher.cli.status import Found, Status, render_statuses, run_status
from launcher.jobs import runs
from launcher.jobs.attempts import Cause, Decision
from launcher.jobs.runs import SlurmQueue
from launcher.status.facts import RunState
from launcher.status.run_status import RunStatus, gather_status
from launcher.status.view import run_details, status_table
from launcher.watch.watched import watched_run
from slurm.records import SlurmJob
from tests.conftest import HOME, TINY, run
from tests.made_runs import ELSEWHERE, JOB, MadeRun, job, slurm_says
from trainer.config.config import Config
from trainer.core.fields import Refused, to_json
from trainer.runs.lease_holder import THIS_MACHINE, Holder

Prepare = Callable[[MadeRun], object]


def look(made: MadeRun) -> RunStatus:
    return gather_status(made.run, SlurmQueue())


def shown(status: RunStatus) -> str:
    """What a user reads, in the table and in the details."""
    console = Console(file=io.StringIO(), width=400)
    console.print(status_table([status], terminal=False), run_details(status))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def training(made: MadeRun) -> None:
    made.submitted()
    made.began()
    made.event("start", -140, images_seen=0)


def closed(cause: Cause, decision: Decision, detail: str = "") -> Prepare:
    def prepare(made: MadeRun) -> None:
        made.submitted()
        made.ended(made.began(), cause, decision, detail)

    return prepare


def never_begun(made: MadeRun) -> None:
    made.submitted()


def cancelled(made: MadeRun) -> None:
    training(made)
    made.submitted(cancelled=True)


def saved(made: MadeRun) -> None:
    training(made)
    made.event("end", -1, outcome="interrupted", signal="SIGTERM")


def restarting(made: MadeRun) -> None:
    made.submitted()
    made.ended(made.began(), Cause.PREEMPTED, Decision.GO_ON, "saved")


def silent(made: MadeRun) -> None:
    training(made)


def preempted_now() -> SlurmJob:
    return job("RUNNING", PreemptTime=str(int(time.time())))


ON_SLURM: list[tuple[str, Prepare, SlurmJob | str | Callable[[], SlurmJob] | None, RunState, str]] = [
    ("queued", never_begun, job("PENDING", "Resources"), RunState.QUEUED, "waiting for free nodes"),
    ("queued, unknown why", never_begun, job("PENDING"), RunState.QUEUED, "has not said why"),
    ("held", never_begun, job("PENDING", "JobHeldUser"), RunState.QUEUED, "scontrol release"),
    (
        "requeued",
        restarting,
        job("PENDING", "BeginTime", Restarts="1"),
        RunState.WAITING,
        "after: preempted; waiting for",
    ),
    ("died and requeued", silent, job("PENDING", "BeginTime"), RunState.WAITING, "ended without a word"),
    ("configuring", never_begun, job("CONFIGURING"), RunState.STARTING, "nodes are being prepared"),
    ("starting", never_begun, job("RUNNING"), RunState.STARTING, ""),
    ("starting again", restarting, job("RUNNING", Restarts="1"), RunState.STARTING, ""),
    ("training", training, job("RUNNING"), RunState.TRAINING, ""),
    ("suspended", training, job("SUSPENDED"), RunState.SUSPENDED, "until"),
    ("preempted now", training, preempted_now, RunState.STOPPING, "preempted"),
    ("cancelled now", cancelled, job("RUNNING"), RunState.STOPPING, "cancelled"),
    ("saved", saved, job("RUNNING"), RunState.STOPPING, ""),
    ("completing", training, job("COMPLETING"), RunState.STOPPING, ""),
    ("about to be requeued", restarting, job("RUNNING"), RunState.STOPPING, "preempted"),
    ("finished", closed(Cause.FINISHED, Decision.END), None, RunState.FINISHED, ""),
    ("cancelled", closed(Cause.CANCELLED, Decision.END, "with scancel"), None, RunState.CANCELLED, "with scancel"),
    ("refused", closed(Cause.REFUSED, Decision.END, "no shards"), None, RunState.REFUSED, "no shards"),
    ("no progress", closed(Cause.CRASHED, Decision.STOP, "rank 3"), None, RunState.NO_PROGRESS, "crashed (rank 3)"),
    ("not requeued", closed(Cause.PREEMPTED, Decision.REFUSED, "no"), None, RunState.NO_REQUEUE, "preempted (no)"),
    ("scancel in the queue", never_begun, job("CANCELLED"), RunState.CANCELLED, "before it began"),
    ("scancel while waiting again", restarting, job("CANCELLED"), RunState.CANCELLED, ""),
    ("could not be launched", never_begun, job("FAILED", "NonZeroExitCode"), RunState.FAILED, "before anything could"),
    ("never seen again", never_begun, None, RunState.LOST, "no longer knows it"),
    ("gone while training", training, None, RunState.LOST, "no last word"),
    ("gone while waiting", restarting, None, RunState.LOST, "should start again"),
    ("Slurm does not answer", training, "no answer within 30 s", RunState.UNKNOWN, "no answer within 30 s"),
    ("Slurm does not answer, and it has ended", closed(Cause.FINISHED, Decision.END), "down", RunState.FINISHED, ""),
]


@pytest.mark.parametrize(("name", "prepare", "answer", "state", "reason"), ON_SLURM, ids=[row[0] for row in ON_SLURM])
def test_each_state_of_a_job(
    name: str,
    prepare: Prepare,
    answer: SlurmJob | str | Callable[[], SlurmJob] | None,
    state: RunState,
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = MadeRun(tmp_path / "r")
    prepare(made)
    slurm_says(monkeypatch, answer() if callable(answer) else answer)
    status = look(made)
    assert status.state is state, (status.state, status.reason)
    assert reason in status.reason
    resume = f"python -m launcher resume {made.folder}"
    assert (status.next == resume) is (not state.live and state not in (RunState.FINISHED, RunState.UNKNOWN))
    assert state in shown(status)
    assert json.loads(json.dumps(status.to_json(), allow_nan=False))["state"] == state


def test_slurm_is_not_asked_about_what_is_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = MadeRun(tmp_path / "r")
    closed(Cause.FINISHED, Decision.END)(made)
    asked = slurm_says(monkeypatch, None)
    assert look(made).state is RunState.FINISHED
    assert asked == []


def test_a_slurm_that_is_down_is_asked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, queue = slurm_says(monkeypatch, "no answer"), SlurmQueue()
    for name in "abc":
        made = MadeRun(tmp_path / name)
        never_begun(made)
        assert gather_status(made.run, queue).state is RunState.UNKNOWN
    assert len(asked) == 1


def test_a_fresh_lease_elsewhere_counts_where_slurm_cannot_be_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = MadeRun(tmp_path / "r")
    training(made)
    made.holds(ELSEWHERE)
    slurm_says(monkeypatch, None, found=False)
    assert look(made).state is RunState.TRAINING
    os.utime(made.run.lease, (1, 1))
    assert look(made).state is RunState.UNKNOWN


def held(made: MadeRun) -> None:
    made.holds(Holder.this_process(THIS_MACHINE, 0, made.folder))


def here(*events: tuple[str, str | None], holding: Prepare | None = None) -> Prepare:
    def prepare(made: MadeRun) -> None:
        for i, (kind, outcome) in enumerate(events):
            fields = {"problem": "rank 0: no data"} if kind == "refused" else {"outcome": outcome, "signal": "SIGINT"}
            made.event(kind, 10 + i, **fields)
        if holding:
            holding(made)

    return prepare


def elsewhere_silent(made: MadeRun) -> None:
    made.holds(replace(ELSEWHERE, owner=THIS_MACHINE))
    os.utime(made.run.lease, (1, 1))


def taken_up(made: MadeRun) -> None:
    """A process that was killed has left a start, and a new one has not begun to train yet."""
    made.event("start", -1_000_000)
    held(made)


HERE: list[tuple[Prepare, RunState, str]] = [
    (here(), RunState.NEW, ""),
    (here(holding=held), RunState.STARTING, "here, process"),
    (taken_up, RunState.STARTING, "here, process"),
    (here(("start", None), holding=held), RunState.TRAINING, "here, process"),
    (here(("start", None), ("end", "interrupted"), holding=held), RunState.STOPPING, "here"),
    (here(("start", None)), RunState.FAILED, "killed"),
    (here(("start", None), holding=elsewhere_silent), RunState.LOST, "no sign of life"),
    (here(("start", None), ("end", "interrupted")), RunState.INTERRUPTED, "SIGINT"),
    (here(("start", None), ("end", "finished")), RunState.FINISHED, ""),
    (here(("start", None), ("end", "failed")), RunState.FAILED, "output"),
    (here(("refused", None)), RunState.REFUSED, "no data"),
]


@pytest.mark.parametrize(("prepare", "state", "reason"), HERE)
def test_each_state_of_a_run_on_one_machine(prepare: Prepare, state: RunState, reason: str, tmp_path: Path) -> None:
    made = MadeRun(tmp_path / "r")
    prepare(made)
    status = look(made)
    assert (status.state, reason in status.reason) == (state, True), status.reason
    assert state in shown(status)


def test_a_run_of_a_cluster_that_was_taken_up_on_one_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = MadeRun(tmp_path / "r")
    training(made)
    made.ended(made.began(), Cause.CANCELLED, Decision.END)
    made.event("start", 1, images_seen=64)
    made.event("end", 2, outcome="interrupted", signal="SIGTERM")
    slurm_says(monkeypatch, None)
    status = look(made)
    assert (status.state, status.job) == (RunState.INTERRUPTED, None)
    assert [attempt.number for attempt in status.attempts] == [0, None]


def test_a_run_that_was_taken_up_here_after_its_batch_script_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last attempt of the job has no end."""
    made = MadeRun(tmp_path / "r")
    made.submitted()
    made.began()
    made.event("start", -140, images_seen=0, owner=f"Slurm job {JOB}")
    made.event("start", -50, images_seen=64, owner="a run on this machine")
    made.event("end", -10, outcome="finished", signal=None)
    slurm_says(monkeypatch, None)
    status = look(made)
    assert (status.state, status.job) == (RunState.FINISHED, None)
    assert [(attempt.number, attempt.cause) for attempt in status.attempts] == [(0, None), (None, "finished")]
    made.submitted(-5)
    status = look(made)
    assert (status.state, status.job) == (RunState.LOST, JOB), "a job that was submitted since is the newest"


def test_a_last_row_after_the_end_of_the_job_is_no_run_on_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = MadeRun(tmp_path / "r")
    made.submitted()
    start = made.began()
    made.event("start", -140, images_seen=0, owner=f"Slurm job {JOB}")
    made.ended(start, Cause.CANCELLED, Decision.END, "with scancel")
    made.event("end", 1, outcome="interrupted", signal="SIGTERM")
    slurm_says(monkeypatch, None)
    status = look(made)
    assert (status.state, status.job) == (RunState.CANCELLED, JOB)
    assert [attempt.number for attempt in status.attempts] == [0]


@pytest.mark.parametrize(
    ("answer", "under_way"),
    [
        (job("PENDING", "BeginTime", Restarts="1"), False),
        (job("RUNNING", Restarts="1"), False),
        (job("RUNNING"), True),
    ],
)
def test_while_nothing_trains_there_is_no_speed_and_nothing_to_lose(
    answer: SlurmJob, under_way: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the last end has cost is lost already."""
    made = MadeRun(tmp_path / "r")
    training(made)
    made.steps((32, 1, 10), (64, 2, 32))
    if not under_way:
        made.ended(made.began(), Cause.PREEMPTED, Decision.GO_ON, "saved")
    slurm_says(monkeypatch, answer)
    status = look(made)
    assert status.state.live
    figures = status.to_json()
    assert (figures["images_per_s"], figures["images_at_risk"]) == ((32, 64) if under_way else (None, 0))
    said = shown(status)
    assert ("a kill now would lose 64 images" in said, "at risk 64" in said, "32.0 now" in said) == (under_way,) * 3
    assert ("would lose" in said, "at risk" in said) == (under_way,) * 2


def test_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two starts with an hour between them: 100 images/s, then 50; 64 rows are beyond the checkpoint."""
    made = MadeRun(tmp_path / "r")
    made.submitted(-4_000)
    first = made.began(0, -4_000)
    made.event("start", -3_990, images_seen=0)
    made.steps((0, 10, 0), (200, 12, 100), after_s=-4_000)
    made.ended(first, Cause.PREEMPTED, Decision.GO_ON, "saved", 200)
    made.began(1, -60, 200)
    made.event("start", -50, images_seen=200)
    made.steps((232, 30, 0), (264, 30.64, 50), (296, 31.28, 50), after_s=-50)
    made.checkpoint(200)
    made.checkpoint(232)
    slurm_says(monkeypatch, job("RUNNING", Restarts="1"))
    status = look(made)
    figures = status.to_json()
    assert (figures["state"], figures["nodes"]) == ("training", ["n1", "n2"])
    assert (figures["images_seen"], figures["total_images"]) == (296, 1_024)
    assert figures["images_per_s"] == 50
    assert figures["images_per_s_average"] == pytest.approx(264 / 3.28, rel=1e-3)
    assert figures["eta_s"] == pytest.approx((1_024 - 296) / 50, abs=0.1)
    assert (figures["checkpoint_images"], figures["images_at_risk"]) == (232, 64)
    assert (figures["restarts"], figures["causes"]) == (1, ["preempted"])
    assert figures["metrics"] == {"epoch": 2.96, "loss_d": "NaN", "loss_g": 0.5}
    assert "a kill now would lose 64 images" in shown(status)


def test_before_the_first_row_of_a_start_the_old_speed_is_not_the_speed_of_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = MadeRun(tmp_path / "r")
    training(made)
    made.steps((32, 1, 10), (64, 2, 32), after_s=-1_000)
    slurm_says(monkeypatch, job("RUNNING"))
    figures = look(made).to_json()
    assert (figures["images_per_s"], figures["images_per_s_average"]) == (None, 32)


def test_after_a_rollback_its_own_checkpoint_is_the_newest(tmp_path: Path) -> None:
    made = MadeRun(tmp_path / "r")
    made.checkpoint(256)
    made.checkpoint(128, rollbacks=1)
    assert look(made).progress.checkpoint_images == 128


def test_what_the_collapse_monitor_holds_against_a_run(tmp_path: Path) -> None:
    made = MadeRun(tmp_path / "run")
    training(made)
    made.steps((64, 4.0, 16.0))
    for state, words in (
        (0.0, None),
        (2.0, "collapse monitor: collapsed"),
        ("much", None),
        (1.0, "collapse monitor: warning"),
    ):
        with made.run.metrics.open("ab") as file:
            file.write(json.dumps({"images_seen": 64, "collapse/health": state}).encode() + b"\n")
        said = shown(look(made))
        assert words in said if words else "collapse monitor:" not in said


def test_the_end_is_where_the_trainer_ends(tmp_path: Path) -> None:
    """The total without torch is that of Config.images_to_see."""
    made = MadeRun(tmp_path / "r")
    made.steps((64, 1, 10))  # of a hundred pictures: 0.64 epochs
    for config in (Config(), Config(total_images=1_000, batch_size=96, d_steps=2), Config(epochs=7)):
        made.run.config.write_text(json.dumps(to_json(config)))
        assert look(made).progress.total_images == config.images_to_see(100)


TORN = ("events", "metrics", "system", "attempts", "lease", "job", "wandb_identity", "config")


@pytest.mark.parametrize("name", TORN)
@pytest.mark.parametrize("content", [b"", b"{", b"[1]\n", b'{"kind": 3}\n', b"\xff\xfe\n", b'{"images_seen": "x"}\n'])
def test_a_damaged_file_is_no_traceback(
    name: str, content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = MadeRun(tmp_path / "r")
    training(made)
    made.steps((32, 1, 10), (64, 2, 32))
    slurm_says(monkeypatch, job("RUNNING"))
    path: Path = getattr(made.run, name)
    path.write_bytes(content)
    assert shown(look(made))
    path.unlink()
    assert shown(look(made))


def test_w_and_b(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_BASE_URL", raising=False)
    made = MadeRun(tmp_path / "r")
    identity = {"project": "art", "entity": "me", "name": "r", "group": "g"}
    segments = [
        {"id": "a1", "from_images_seen": -1, "reason": "start"},
        {"id": "a1-1", "from_images_seen": 8, "reason": ""},
    ]
    made.run.wandb_identity.write_text(json.dumps(identity | {"segments": segments}))
    assert look(made).wandb.words(made.run) == "nothing sent yet"
    (made.run.wandb / "offline-run-1-a1").mkdir(parents=True)
    assert look(made).wandb.words(made.run) == f"offline: python -m launcher sync {made.folder}"
    (made.run.wandb / "online").mkdir()
    assert look(made).wandb.url == "https://wandb.ai/me/art/runs/a1-1"
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org/")
    assert look(made).wandb.url == "https://wandb.example.org/me/art/runs/a1-1"
    made.run.wandb_identity.write_text(json.dumps(identity | {"entity": None, "segments": segments}))
    assert look(made).wandb.url is None
    assert "project art, run a1-1, in your default entity" in shown(look(made))
    made.run.wandb_identity.write_text(json.dumps(identity | {"segments": []}))
    assert (look(made).wandb.state, look(made).wandb.url) == ("unsent", None)


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_status(Status()) == 0
    assert "no runs under ./runs" in capsys.readouterr().out
    for age_s, name in ((20, "old"), (10, "new")):
        os.utime(MadeRun(tmp_path / "runs" / name).run.config, (time.time() - age_s,) * 2)
    (tmp_path / "runs" / "no-run").mkdir()
    slurm_says(monkeypatch, None)
    assert run_status(Status(json=True)) == 0
    assert [row["run"] for row in json.loads(capsys.readouterr().out)] == ["runs/new", "runs/old"]
    assert run_status(Status((Path("runs/old"),))) == 0
    assert "runs/new" not in capsys.readouterr().out
    with pytest.raises(Refused, match=r"did you mean runs/new\?"):
        run_status(Status((Path("new"),)))


def test_watch_looks_again_until_it_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made, naps = MadeRun(tmp_path / "r"), iter([None, None])

    def nap(seconds: float) -> None:
        made.event("refused", 0, problem="later")
        if next(naps, "over") == "over":
            raise KeyboardInterrupt

    slurm_says(monkeypatch, None, found=False)  # else the wait for a command of Slurm may nap, too
    monkeypatch.setattr(time, "sleep", nap)
    assert run_status(Status((made.folder,), json=True, watch=True)) == 0
    looks = [json.loads(line)[0]["state"] for line in capsys.readouterr().out.splitlines()]
    assert looks == ["not started", "refused", "refused"]


def test_what_a_terminal_would_obey_is_escaped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names, nodes and reasons come from a run folder, which may be a stranger's."""
    hostile, safe = "\x1b[2J[red]x", r"\x1b[2J[red]x"
    made = MadeRun(tmp_path / hostile)
    made.submitted()
    made.ended(replace(made.began(), nodes=(hostile,)), Cause.NODE_FAILED, Decision.STOP, hostile)
    slurm_says(monkeypatch, None)
    status = look(made)
    one, all_of_them = (render_statuses(Status(of), Found([status], []), True) for of in ((made.folder,), ()))
    for view, places in ((watched_run(status).details, 5), (one, 5), (all_of_them, 2)):
        console = Console(file=io.StringIO(), width=400, force_terminal=True, color_system=None)
        console.print(view)
        assert isinstance(console.file, io.StringIO)
        said = console.file.getvalue()
        assert "\x1b" not in said
        assert said.count(safe) == places, said


def test_it_starts_quickly(tmp_path: Path) -> None:
    """Neither torch nor wandb is loaded for a look, for the logs, or to cancel and remove."""
    modules = ("cli.status", "cli.watch", "cli.logs", "cli.cancel", "cli.remove", "__main__")
    code = f"import sys\nfor name in {modules}: __import__(f'launcher.{{name}}')\n"
    code += "print([name for name in ('torch', 'wandb', 'accelerate', 'submitit') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=HOME, check=True)
    assert done.stdout.strip() == "[]"


def test_help_fits_a_screen() -> None:
    done = run("launcher", "--help")
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) <= 40
    assert max(map(len, done.stdout.splitlines())) <= 100
    for command in ("submit", "resume", "status", "logs", "cancel", "rm", "sync", "init"):
        assert f"\n  {command} " in done.stdout
        assert f"python -m launcher {command}" in run("launcher", command, "--help").stdout
    wrong = run("launcher", "statsu")
    assert (wrong.returncode, wrong.stderr) == (2, "refused: there is no command 'statsu'; did you mean 'status'?\n")


def test_a_real_run_on_this_machine(shards32: Path, tmp_path: Path) -> None:
    folder = tmp_path / "r"
    settings = (*TINY, "--data", str(shards32), "--total-images", "320", "--cluster", "local", "--run", str(folder))
    assert run("launcher", "submit", *settings, "--processes", "1").returncode == 0
    done = run("launcher", "status", str(folder), "--json")
    (row,) = json.loads(done.stdout)
    assert (row["state"], row["images_seen"], row["checkpoint_images"]) == ("finished", 320, 320)
    assert (row["causes"], len(row["starts"]), row["starts"][0]["cause"]) == ([], 1, "finished")
    assert row["images_per_s_average"] > 0
    assert row["wandb"]["state"] == "disabled"
    text = run("launcher", "status", str(folder))
    assert "320 of 320, 100%" in text.stdout
    assert runs.find_runs(tmp_path)[0].path == folder
