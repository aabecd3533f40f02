"""`launcher logs`: merged by time, one rank, one start, and followed to the end."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Timer

import pytest

from launcher.cli.logs import Logs, run_logs
from launcher.jobs.attempts import Attempt, Cause, Decision
from launcher.jobs.exit_cause import MARK, batch_log
from tests.conftest import HOME
from tests.made_runs import JOB, MadeRun, job, moment, slurm_says
from trainer.core.fields import Refused


def stamped(second: float, rank: int, text: str) -> str:
    return f"2026-11-24T12:00:{second:06.3f}Z [rank {rank}] {text}\n"


def speak(made: MadeRun, rank: int, *lines: str, restart: int = 0) -> None:
    """Let a rank say something."""
    path = made.run.log(JOB, restart, rank)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.writelines(lines)


def batch_says(made: MadeRun, text: str) -> None:
    path = batch_log(made.run, JOB)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(text)


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MadeRun:
    """A run that was preempted once, and trains."""
    made = MadeRun(tmp_path / "r")
    made.submitted()
    first = made.began(0, -500)
    batch_says(made, f"{MARK}\nsrun: error: n1: task 0: Killed\n")
    speak(made, 0, stamped(1, 0, "before"))
    made.ended(first, Cause.PREEMPTED, Decision.GO_ON, "saved")
    made.began(1, -400)
    batch_says(made, f"{MARK}\nsrun: warning: later\n")
    made.event("start", -390, images_seen=0)
    speak(made, 0, stamped(2, 0, "one"), stamped(4, 0, "three"), restart=1)
    speak(
        made,
        10,
        "native library\n",
        stamped(3, 10, "two"),
        "Traceback\n",
        stamped(2.5, 10, "clock set back"),
        restart=1,
    )
    slurm_says(monkeypatch, job("RUNNING", Restarts="1"))
    return made


def said(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [re.sub(r"^\S+Z ", "", line) for line in capsys.readouterr().out.splitlines()]


def test_all_ranks_are_merged_by_time(made: MadeRun, capsys: pytest.CaptureFixture[str]) -> None:
    speak(made, 0, stamped(5, 0, "torn by a kill").rstrip(), restart=1)
    assert run_logs(Logs(made.folder)) == 0
    lines = said(capsys)
    assert "[rank 10] native library" in lines
    lines.remove("[rank 10] native library")  # from before any time is known
    assert lines == [
        *("[rank 0] one", "[rank 10] two", "[rank 10] Traceback", "[rank 10] clock set back", "[rank 0] three"),
        *("[rank 0] torn by a kill", "[job] srun: warning: later"),
    ]


def test_one_rank_and_one_attempt(made: MadeRun, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_logs(Logs(made.folder, rank=0)) == 0
    assert said(capsys) == ["[rank 0] one", "[rank 0] three"]
    assert run_logs(Logs(made.folder, restart=0)) == 0
    out, err = capsys.readouterr()
    assert [line[-6:] for line in out.splitlines()] == ["before", "Killed"]
    assert "attempt 0 of 2: job 12 on n1, n2" in err
    assert "ended: preempted: saved" in err


def test_what_a_terminal_would_obey_is_escaped(made: MadeRun, capsys: pytest.CaptureFixture[str]) -> None:
    """In a pipe as well: who reads the file later has a terminal, too."""
    speak(made, 0, stamped(5, 0, "\x1b[31m100 %\r\x1b]0;owned\x07\ta tab, ein Ä and 🎨"), restart=1)
    batch_says(made, "srun: \x1b[2J\n")
    made.ended(Attempt(JOB, 1, moment(-400), ("n1", "n2"), 0), Cause.PREEMPTED, Decision.GO_ON, "saved \x1b[2J")
    assert run_logs(Logs(made.folder)) == 0
    out, err = capsys.readouterr()
    assert r"Z [rank 0] \x1b[31m100 %\x0d\x1b]0;owned\x07" + "\ta tab, ein Ä and 🎨\n" in out
    assert r"[job] srun: \x1b[2J" in out
    assert r"ended: preempted: saved \x1b[2J" in err


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"rank": 7}, "--rank 7 has said nothing in this attempt: ranks 0 to 10 have a log"),
        ({"restart": 2}, "has 2 attempts, counted from 0"),
        ({"restart": -1}, "has 2 attempts, counted from 0"),
    ],
)
def test_what_is_not_there_is_refused(made: MadeRun, args: dict[str, int], message: str) -> None:
    with pytest.raises(Refused, match=re.escape(message)):
        run_logs(Logs(made.folder, rank=args.get("rank"), restart=args.get("restart")))


def test_a_run_on_one_machine_has_none(tmp_path: Path) -> None:
    made = MadeRun(tmp_path / "r")
    with pytest.raises(Refused, match=r"terminal; its story is in .*events\.jsonl, its figures in .*metrics\.jsonl"):
        run_logs(Logs(made.folder))


def test_a_run_that_has_not_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = MadeRun(tmp_path / "r")
    made.submitted()
    slurm_says(monkeypatch, job("PENDING", "Resources"))
    assert run_logs(Logs(made.folder)) == 0
    assert "nothing was said yet: queued, waiting for free nodes" in capsys.readouterr().err


def test_following_goes_over_a_restart_to_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = MadeRun(tmp_path / "r")
    made.submitted()
    slurm_says(monkeypatch, job("PENDING"))
    naps = 0

    def nap(seconds: float) -> None:
        """What happens meanwhile, one thing at each look."""
        nonlocal naps
        naps += 1
        if naps == 1:
            made.began(0)
        if naps == 2:
            speak(made, 0, stamped(1, 0, "one"), stamped(2, 0, "tw")[:-1])
        if naps == 3:
            speak(made, 0, "o\n")
            speak(made, 1, stamped(1, 1, "late to speak"))
        if naps == 4:
            made.ended(made.began(0), Cause.NODE_FAILED, Decision.GO_ON, "n2")
            made.began(1)
            speak(made, 0, stamped(3, 0, "three"), restart=1)
        if naps == 5:
            made.ended(made.began(1), Cause.FINISHED, Decision.END)
            speak(made, 0, stamped(4, 0, "four"), restart=1)
        assert naps < 50

    monkeypatch.setattr(time, "sleep", nap)
    monkeypatch.setattr("launcher.cli.logs.LOOK_S", 0.0)
    assert run_logs(Logs(made.folder, follow=True)) == 0
    out, err = capsys.readouterr()
    assert [line.split("] ")[1] for line in out.splitlines()] == ["one", "late to speak", "two", "three", "four"]
    for words in (
        "waiting for an attempt: queued",
        "attempt 0 of 1",
        "node failed: n2",
        "attempt 1 of 2",
        "ended: finished",
    ):
        assert words in err
    assert err.splitlines()[-1] == "── the run has ended: finished"


def test_what_is_said_after_the_end_of_a_start_is_followed_too(
    made: MadeRun, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The last words of ranks, Slurm's verdict, and what a kill has torn; each farewell is said once."""
    happens: Iterator[Callable[[], object]] = iter(
        [
            lambda: made.ended(made.began(1), Cause.PREEMPTED, Decision.GO_ON),
            lambda: speak(made, 0, stamped(5, 0, "late"), stamped(6, 0, "to")[:-1], restart=1),
            lambda: speak(made, 0, "rn", restart=1),
            lambda: batch_says(made, f"slurmstepd: error: JOB 12 to{MARK}\n"),
            lambda: made.began(2),
            lambda: made.ended(made.began(2), Cause.FINISHED, Decision.END),
            lambda: batch_says(made, "srun: the e"),
            *[lambda: None] * 20,
        ]
    )
    monkeypatch.setattr(time, "sleep", lambda _: next(happens)())
    monkeypatch.setattr("launcher.cli.logs.LOOK_S", 0.0)
    assert run_logs(Logs(made.folder, follow=True)) == 0
    out, err = capsys.readouterr()
    lines = [line.partition("] ")[2] for line in out.splitlines()]
    assert lines[-4:] == ["late", "slurmstepd: error: JOB 12 to", "torn", "srun: the e"]
    assert (err.count("ended: preempted"), err.count("ended: finished")) == (1, 2), "once for the start, once for all"


def test_a_torn_line_before_the_mark_shifts_no_later_start(made: MadeRun, capsys: pytest.CaptureFixture[str]) -> None:
    batch_says(made, f"slurmstepd: error: JOB 12 to{MARK}\nsrun: warning: third\n")
    made.began(2)
    assert run_logs(Logs(made.folder)) == 0
    assert said(capsys) == ["[job] srun: warning: third"]


def test_following_one_start_ends_with_it(made: MadeRun, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_logs(Logs(made.folder, follow=True, restart=0)) == 0
    assert said(capsys) == ["[rank 0] before", "[job] srun: error: n1: task 0: Killed"]


def test_ctrl_c_ends_following_quietly(made: MadeRun, capfd: pytest.CaptureFixture[str]) -> None:
    made.ended(made.began(1), Cause.PREEMPTED, Decision.GO_ON)  # so Slurm would have to be asked, and is not there
    environment = os.environ | {"PATH": str(Path(sys.executable).parent)}
    command = [sys.executable, "-m", "launcher", "logs", str(made.folder), "-f", "--rank", "0"]
    with subprocess.Popen(command, cwd=HOME, env=environment, stdout=subprocess.PIPE, text=True) as follower:
        assert follower.stdout
        timer = Timer(30, follower.kill)
        timer.start()
        assert "one" in follower.stdout.readline()
        follower.send_signal(signal.SIGINT)
        assert follower.wait() == 130
        timer.cancel()
    assert "Traceback" not in capfd.readouterr().err


def test_the_ranks_lines_bear_the_time(tmp_path: Path) -> None:
    """In UTC, whatever the machine's time zone; on a terminal that all ranks share, without."""
    code = (
        "import json, logging, sys, time\nfrom trainer.tracking.console import set_up_logging\n"
        "set_up_logging(3, own_log=True)\nlogging.warning('hello')\nprint(json.dumps(time.time()))\n"
        "set_up_logging(3)\nlogging.warning('again')\nset_up_logging(0)\nlogging.info('plain')\n"
    )
    environment = os.environ | {"TZ": "Asia/Kolkata"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, cwd=HOME, env=environment, check=True)
    first, *others = done.stderr.splitlines()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z \[rank 3\] hello", first)
    assert first[:16] in (time.strftime("%Y-%m-%dT%H:%M", time.gmtime(json.loads(done.stdout) - ago)) for ago in (0, 1))
    assert others == ["[rank 3] again", "plain"]
