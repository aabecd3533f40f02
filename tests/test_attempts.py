"""Why a start of the job ended, and what follows: every combination that Slurm can leave behind."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from launcher.jobs import attempts, exit_cause, exit_handler
from launcher.jobs.attempts import Attempt, Cause, Decision
from launcher.jobs.exit_cause import MARK
from launcher.jobs.job_record import JobRecord
from slurm import control
from slurm.records import Node, SlurmJob
from tests.fake_slurm import CPU, live_job
from trainer.runs.journal import EventKind, Journal, event_row, now
from trainer.runs.run_folder import RunFolder

FIRST = Attempt(7, 0, now(), ("n1", "n2"), 100)


def ended(cause: Cause, saved: int = 100, number: int = 0, job: int = 7, nodes: tuple[str, ...] = ()) -> Attempt:
    return attempts.close_attempt(replace(FIRST, job=job, restart=number), cause, "", saved, nodes)


@pytest.mark.parametrize("cause", attempts.FINAL)
def test_some_ends_are_final(cause: Cause) -> None:
    assert attempts.decide_what_follows([ended(cause)]) is Decision.END


@pytest.mark.parametrize("cause", attempts.OWN_FAULTS)
def test_three_fruitless_starts_stop_a_run(cause: Cause) -> None:
    tries = [ended(cause, number=number) for number in range(3)]
    assert [attempts.decide_what_follows(tries[: n + 1]) for n in range(3)] == [
        Decision.GO_ON,
        Decision.GO_ON,
        Decision.STOP,
    ]
    fruitful = [*tries[:2], ended(cause, saved=200)]
    assert attempts.decide_what_follows(fruitful) is Decision.GO_ON
    assert attempts.decide_what_follows([*fruitful, *tries[:2]]) is Decision.GO_ON
    assert attempts.decide_what_follows([*fruitful, *tries]) is Decision.STOP


def test_what_the_cluster_does_never_stops_a_run() -> None:
    kinds = (Cause.PREEMPTED, Cause.NODE_FAILED, Cause.REQUEUED, Cause.SIGNALLED)
    assert all(attempts.decide_what_follows([ended(cause)] * 9) is Decision.GO_ON for cause in kinds)


def test_who_resumes_a_stopped_run_has_three_tries_again() -> None:
    before = [ended(Cause.CRASHED, job=7) for _ in range(3)]
    after = [ended(Cause.CRASHED, job=8) for _ in range(3)]
    assert attempts.decide_what_follows(before + after[:2]) is Decision.GO_ON
    assert attempts.decide_what_follows(before + after) is Decision.STOP


def test_a_node_that_fails_twice_is_bad() -> None:
    first, second = ended(Cause.NODE_FAILED, nodes=("n2",)), ended(Cause.CRASHED, nodes=("n2",))
    both = ended(Cause.NODE_FAILED, nodes=("n1", "n2"))
    assert attempts.bad_nodes([first]) == []
    assert attempts.bad_nodes([first, second]) == ["n2"]
    assert attempts.bad_nodes([first, both, both]) == [], "when all go, the cluster is to blame"
    assert attempts.bad_nodes([first, second, replace(second, job=8)]) == [], "another job begins anew"


def test_attempts_are_read_as_they_were_written(tmp_path: Path) -> None:
    run, closed = RunFolder(tmp_path), ended(Cause.NODE_FAILED, nodes=("n2",))
    attempts.write_attempt(run, FIRST)
    assert attempts.read_attempts(run) == [FIRST]
    attempts.write_attempt(run, replace(closed, decision=Decision.GO_ON))
    attempts.write_attempt(run, replace(FIRST, restart=1))
    assert attempts.read_attempts(run) == [replace(closed, decision=Decision.GO_ON), replace(FIRST, restart=1)]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    """A run whose nodes all live."""
    found = RunFolder(tmp_path)
    JobRecord(7, 1, "2", 1, 120, now()).save(found)
    (found.checkpoints / "000000000300-r00").mkdir(parents=True)
    monkeypatch.setattr(exit_cause, "not_answering", lambda names: [])
    monkeypatch.setattr(
        control, "list_nodes", lambda: [Node(name, "127.0.0.1", "IDLE", 2, 0, "", "") for name in FIRST.nodes]
    )
    return found


def job(**changes: Any) -> SlurmJob:
    usual: dict[str, Any] = {
        "state": "RUNNING",
        "reason": "",
        "restarts": 0,
        "end_time": time.time() + 9000,
        "preempt_time": None,
    }
    return replace(live_job(7), **usual | changes)


END = {"outcome": "interrupted", "signal": "SIGTERM"}
LATER = time.time() + 60


@pytest.mark.parametrize(
    ("code", "seen", "end", "cause"),
    [
        (0, job(), {"outcome": "finished", "signal": None}, Cause.FINISHED),
        (0, job(), END, Cause.SIGNALLED),
        (0, job(preempt_time=LATER), END, Cause.PREEMPTED),
        (137, job(preempt_time=LATER), None, Cause.PREEMPTED),
        (0, job(preempt_time=1.0), END, Cause.SIGNALLED),  # that was in an earlier start
        (0, job(end_time=time.time() + 100), END, Cause.TIME_LIMIT),
        (137, job(state="COMPLETING", reason="TimeLimit"), None, Cause.TIME_LIMIT),
        (0, job(state="COMPLETING"), END, Cause.CANCELLED),  # scontrol requeue would revive it
        (137, job(state="COMPLETING", restarts=1), None, Cause.REQUEUED),
        (2, job(), None, Cause.REFUSED),
        (137, job(), None, Cause.CRASHED),
        (1, job(), {"outcome": "failed", "signal": None}, Cause.CRASHED),
        (0, job(), None, Cause.CRASHED),  # the ranks have left without a word
        (1, None, None, Cause.CRASHED),  # Slurm does not answer for the job
    ],
)
def test_causes(run: RunFolder, code: int, seen: SlurmJob | None, end: dict[str, object] | None, cause: Cause) -> None:
    if end:
        append(run, event_row(EventKind.END, **end))
    found = exit_cause.explain_end(run, FIRST, code, seen)
    assert found.cause is cause
    assert found.saved == 300
    assert found.ended


def append(run: RunFolder, row: dict[str, object]) -> None:
    journal = Journal(run.events)
    journal.append(row)
    journal.close()


def test_a_cancelled_run_is_cancelled_however_it_ends(run: RunFolder) -> None:
    replace(JobRecord.load(run), cancelled=True).save(run)
    assert exit_cause.explain_end(run, FIRST, 137, job(preempt_time=LATER)).cause is Cause.CANCELLED


def test_a_stall_names_the_node(run: RunFolder) -> None:
    append(run, event_row(EventKind.STALLED, problem="rank 1 on n2 gives no sign of life", places=["n2"]))
    append(run, event_row(EventKind.STALLED, problem="said by the rank that was woken", places=[]))
    found = exit_cause.explain_end(run, FIRST, 1, job())
    assert (found.cause, found.failed_nodes) == (Cause.STALLED, ("n2",))


def test_a_crash_names_the_first_rank_that_died(run: RunFolder) -> None:
    words = ("n1: task 0: Killed", "n2: task 1: Killed", "n1: task 0: Exited with exit code 1")
    before, first, second = (f"srun: error: {word}" for word in words)
    say(run, before, MARK, first, second)
    found = exit_cause.explain_end(run, FIRST, 137, job())
    assert (found.detail, found.failed_nodes) == ("rank 1 on n2: Killed", ("n2",))


def test_a_dead_node_is_told_from_a_dead_rank(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exit_cause, "not_answering", lambda names: ["n1"])
    found = exit_cause.explain_end(run, FIRST, 1, job())
    assert (found.cause, found.failed_nodes) == (Cause.NODE_FAILED, ("n1",))


def say(run: RunFolder, *lines: str) -> None:
    log = exit_cause.batch_log(run, 7)
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text("\n".join(lines))


@pytest.mark.parametrize(
    ("words", "cause"), [("PREEMPTION", Cause.PREEMPTED), ("JOB REQUEUE", Cause.REQUEUED), (None, Cause.REQUEUED)]
)
def test_silence_is_explained_by_slurms_own_words(
    run: RunFolder, words: str | None, cause: Cause, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "show_job", lambda number: job(restarts=1))
    said = f"slurmstepd-n1: error: *** JOB 7 ON n1 CANCELLED AT 2026-11-24T22:29:19 DUE TO {words} ***"
    say(run, MARK, *([said] if words else []))
    assert exit_cause.explain_silence(run, FIRST).cause is cause


def test_silence_of_a_node_that_started_anew(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    anew = Node("n2", "127.0.0.1", "IDLE", 2, 0, "", "", slurmd_start_time=LATER)
    fine = Node("n1", "127.0.0.1", "IDLE", 2, 0, "", "", slurmd_start_time=1.0)
    monkeypatch.setattr(control, "show_job", lambda number: job(restarts=1))
    monkeypatch.setattr(control, "list_nodes", lambda: [fine, anew])
    found = exit_cause.explain_silence(run, FIRST)
    assert (found.cause, found.failed_nodes) == (Cause.NODE_FAILED, ("n2",))


def test_a_controller_that_is_away_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [control.NoAnswer("away"), control.NoAnswer("away")]

    def ask() -> str:
        if answers:
            raise answers.pop()
        return "here"

    monkeypatch.setattr(exit_handler, "PAUSE_S", 0.0)
    assert exit_handler.retry_until_answer(ask) == "here"

    def refuse() -> str:
        raise control.SlurmError("Requested operation is presently disabled")

    with pytest.raises(control.SlurmError, match="disabled"):
        exit_handler.retry_until_answer(refuse)


def test_a_full_disk_does_not_keep_a_job_from_starting_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(run: RunFolder, attempt: Attempt) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(attempts, "write_attempt", full)
    exit_handler.record_attempt(RunFolder(tmp_path), FIRST)
    assert "No space left on device" in capsys.readouterr().err


def test_the_newest_checkpoint_is_that_of_the_last_rollback(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    assert attempts.durable_images(run) == 0
    for name in ("000000000300-r00", "000000000100-r01", "000000000200-r01", ".writing-000000000900-r01", "damaged-x"):
        (run.checkpoints / name).mkdir(parents=True)
    assert attempts.durable_images(run) == 200


@pytest.mark.parametrize(
    ("cause", "found", "asked", "decision"),
    [
        (Cause.CRASHED, job(), True, Decision.GO_ON),
        (Cause.CRASHED, job(state="COMPLETING"), False, Decision.END),  # scancel came after the cause was found
        (Cause.TIME_LIMIT, job(state="COMPLETING"), True, Decision.GO_ON),
        (Cause.PREEMPTED, job(state="COMPLETING", restarts=1), False, Decision.GO_ON),  # Slurm has begun already
    ],
)
def test_slurm_is_asked_to_start_again_only_where_that_is_meant(
    run: RunFolder, cause: Cause, found: SlurmJob, asked: bool, decision: Decision, monkeypatch: pytest.MonkeyPatch
) -> None:
    requeued: list[int] = []
    monkeypatch.setattr(control, "show_job", lambda number: found)
    monkeypatch.setattr(control, "requeue_job", requeued.append)
    assert exit_handler.start_again(run, ended(cause), []).decision is decision
    assert requeued == ([7] if asked else [])


def test_a_requeue_that_was_heard_in_spite_of_its_answer(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([job(), job(state="PENDING", restarts=1)])
    monkeypatch.setattr(control, "show_job", lambda number: next(answers))

    def requeue(number: int) -> None:
        raise control.SlurmError("Job is pending execution")

    monkeypatch.setattr(control, "requeue_job", requeue)
    assert exit_handler.start_again(run, ended(Cause.CRASHED), []).decision is Decision.GO_ON


def test_a_bad_node_is_kept_where_the_job_cannot_do_without(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    replace(JobRecord.load(run), nodes="2-4", partition="main").save(run)
    excluded: list[str] = []
    monkeypatch.setattr(control, "show_job", lambda number: job())
    monkeypatch.setattr(control, "requeue_job", lambda number: None)
    monkeypatch.setattr(control, "exclude_nodes", lambda number, names: excluded.extend(names))
    monkeypatch.setattr(control, "list_partitions", lambda: [replace(CPU, name="main", nodes=("n1", "n2", "n3"))])
    assert "left out from now on" in exit_handler.start_again(run, ended(Cause.CRASHED), ["n3"]).detail
    assert "cannot do without" in exit_handler.start_again(run, ended(Cause.CRASHED), ["n2", "n3"]).detail
    assert excluded == ["n3"]
