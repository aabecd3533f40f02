"""Terminals and signals as people and systems send them: each is answered by decision (docs/training.md has the table).

A run that was stopped goes on to the bits of one that never was.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.conftest import HOME, TINY, fingerprint, run, train
from tests.terminal import Terminal
from tests.test_interruptions import LONG, children, events, start
from tests.test_same_bits import last_images, wait_for_no_process

TOTAL = ("--total-images", "1024")


@pytest.fixture(scope="module")
def undisturbed(shards32: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[int, str]:
    """What a run of TOTAL ends with that nobody disturbs."""
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    train(folder, shards32, *TOTAL)
    return fingerprint(folder)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    opened = Terminal(tmp_path)
    yield opened
    if not opened.closing.is_set():
        opened.close()


def until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + 120
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def begin(terminal: Terminal, folder: Path, data: Path, *settings: str, how: str = "{}") -> None:
    """Type the command of a run, and wait until it has taken steps."""
    command = [sys.executable, "-m", "trainer", "train", *TINY, "--run", str(folder), "--data", str(data)]
    terminal.type(how.format(shlex.join([*command, "--processes", "2", *settings])) + "\n")
    until(lambda: last_images(folder) >= 64)


def ranks(folder: Path) -> list[psutil.Process]:
    """Return the processes that train."""
    words = ["train", "--run", str(folder)]
    return [p for p in psutil.process_iter(["cmdline"]) if (p.info["cmdline"] or [])[-3:] == words]


def test_a_terminal_that_closes_saves_and_stops(
    shards32: Path, tmp_path: Path, terminal: Terminal, undisturbed: tuple[int, str]
) -> None:
    folder = tmp_path / "run"
    begin(terminal, folder, shards32, *TOTAL)
    terminal.close()
    wait_for_no_process(folder)
    (end,) = events(folder, "end")
    assert (end["outcome"], end["signal"]) == ("interrupted", "SIGHUP")
    assert last_images(folder) < undisturbed[0]
    train(folder, shards32, *TOTAL, processes=2)
    assert fingerprint(folder) == undisturbed


@pytest.mark.parametrize("how", ["nohup {} &", "trap '' HUP; {}"])
def test_who_is_told_not_to_hear_a_terminal_close_trains_to_the_end(
    how: str, shards32: Path, tmp_path: Path, terminal: Terminal, undisturbed: tuple[int, str]
) -> None:
    """The second one goes on to write to a terminal that is gone."""
    folder = tmp_path / "run"
    begin(terminal, folder, shards32, *TOTAL, how=how)
    terminal.close()
    until(lambda: events(folder, "end"))
    wait_for_no_process(folder)
    assert [end["outcome"] for end in events(folder, "end")] == ["finished"]
    assert fingerprint(folder) == undisturbed


def test_a_run_that_is_paused_goes_on_as_if_nothing_had_been(
    shards32: Path, tmp_path: Path, terminal: Terminal, undisturbed: tuple[int, str]
) -> None:
    """Ctrl-Z pauses all processes, longer than training may stand still, and `fg` has them go on."""
    folder = tmp_path / "run"
    begin(terminal, folder, shards32, *TOTAL, "--stall-after-s", "10")  # longer than a busy machine takes to paint
    terminal.type("\x1a")
    until(lambda: all(p.status() == psutil.STATUS_STOPPED for p in ranks(folder)))
    assert len(ranks(folder)) == 2
    time.sleep(11)
    terminal.type("fg\n")
    until(lambda: events(folder, "end"))
    assert not events(folder, "stalled")
    assert fingerprint(folder) == undisturbed


def test_ctrl_backslash_shows_the_stacks_and_stops_at_once(
    shards32: Path, tmp_path: Path, terminal: Terminal, undisturbed: tuple[int, str]
) -> None:
    folder = tmp_path / "run"
    begin(terminal, folder, shards32, *TOTAL, how="{} ; echo code $?")
    terminal.type("\x1c")
    until(lambda: b"code 1" in terminal.said)
    wait_for_no_process(folder)
    assert b"most recent call first" in terminal.said
    assert b"loop.py" in terminal.said
    assert b"was killed by SIGQUIT" in terminal.said
    assert b"Traceback" not in terminal.said
    train(folder, shards32, *TOTAL)
    assert fingerprint(folder) == undisturbed


def test_ctrl_c_saves_and_stops(shards32: Path, tmp_path: Path, terminal: Terminal) -> None:
    folder = tmp_path / "run"
    begin(terminal, folder, shards32, *LONG, how="{} ; echo code $?")
    terminal.type("\x03")
    until(lambda: b"code 75" in terminal.said)
    assert b"interrupted and saved" in terminal.said


def test_a_system_that_ends_all_processes_lets_them_save(shards32: Path, tmp_path: Path) -> None:
    """As systemd at a logout, and the end of a container: SIGTERM to each process, SIGHUP besides."""
    folder = tmp_path / "run"
    parent = start(folder, shards32, *LONG)
    for process in (psutil.Process(parent.pid), *psutil.Process(parent.pid).children(recursive=True)):
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGCONT):
            process.send_signal(number)
    said = parent.communicate(timeout=60)[1]
    assert parent.returncode == 75, said
    assert "interrupted and saved" in said


def test_signals_that_mean_nothing_change_nothing(shards32: Path, tmp_path: Path, undisturbed: tuple[int, str]) -> None:
    folder = tmp_path / "run"
    parent = start(folder, shards32, *TOTAL)
    for pid in (parent.pid, *children(parent)):
        for number in (signal.SIGPIPE, signal.SIGWINCH, signal.SIGCHLD, signal.SIGURG, signal.SIGCONT, signal.SIGXFSZ):
            os.kill(pid, number)
    said = parent.communicate(timeout=60)[1]
    assert parent.returncode == 0, said
    assert fingerprint(folder) == undisturbed


def test_a_signal_before_anything_has_begun_is_answered_as_later(shards32: Path, tmp_path: Path) -> None:
    """While the processes still load torch."""
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "trainer", "train", *TINY, "--run", str(folder), "--data", str(shards32), *LONG]
    parent = subprocess.Popen([*command, "--processes", "2"], cwd=HOME, stderr=subprocess.PIPE, text=True)
    until(lambda: len(psutil.Process(parent.pid).children()) == 2)
    parent.send_signal(signal.SIGTERM)
    said = parent.communicate(timeout=60)[1]
    assert parent.returncode == 75, said
    assert "Traceback" not in said
    wait_for_no_process(folder)
    assert not (folder / "lease.json").exists()


def test_a_signal_between_the_starts_of_two_processes_reaches_both() -> None:
    """Those that are there are told, and those that come after."""
    script = """
import os, signal
from trainer.launch import local_processes
begin = local_processes.start
def start(arguments, rank, *others):
    child = begin(arguments, rank, *others)
    if not rank:
        os.kill(os.getpid(), signal.SIGTERM)
    return child
local_processes.start = start
print(local_processes.run_group(["benchmark", "ring", "--seeds", "1", "--out", os.devnull], 2))
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=HOME, capture_output=True, text=True, check=False)
    assert done.stdout == f"{[-signal.SIGTERM] * 2}\n", done.stderr


def test_a_build_whose_terminal_closes_keeps_its_shards(tmp_path: Path, terminal: Terminal, shards32: Path) -> None:
    source, out = HOME / "examples" / "clipart.zip", tmp_path / "out"
    build = ["-m", "shards", "build", str(source), "--out", str(out), "--size", "32", "--shard-samples", "100"]
    terminal.type(shlex.join([sys.executable, *build, "--workers", "1"]) + "\n")
    until(lambda: [*(out / ".build").glob("**/*.tar")])
    terminal.close()
    wait_for_no_process(out)
    assert (out / ".build").exists()
    done = run(*build[1:], "--resume")
    assert done.returncode == 0, done.stderr
    assert {p.name: p.read_bytes() for p in out.iterdir()} == {p.name: p.read_bytes() for p in shards32.iterdir()}


def test_a_build_answers_each_of_the_signals_of_a_terminal_that_closes(tmp_path: Path) -> None:
    """One comes from the kernel, one from the shell."""
    out = tmp_path / "out"
    build = ["shards", "build", str(HOME / "examples" / "clipart.zip"), "--out", str(out), "--shard-samples", "100"]
    command = [sys.executable, "-m", *build, "--workers", "1"]
    parent = subprocess.Popen(command, cwd=HOME, stderr=subprocess.PIPE, text=True)
    until(lambda: [*(out / ".build").glob("**/*.tar*")])
    for _ in range(2):
        parent.send_signal(signal.SIGHUP)
        time.sleep(0.05)
    said = parent.communicate(timeout=60)[1]
    assert parent.returncode == 75, said
    assert "finished shards are kept, and --resume goes on" in said


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM, signal.SIGINT])
def test_who_only_looks_ends_without_a_traceback(number: signal.Signals, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "launcher", "status", "--watch"]
    looks = subprocess.Popen(
        command,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(HOME)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert looks.stdout
    assert looks.stdout.readline()
    looks.send_signal(number)
    _, said = looks.communicate(timeout=60)
    assert (looks.returncode, said) == (0, b"")
