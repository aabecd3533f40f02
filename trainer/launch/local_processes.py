"""Several processes on this machine, under one parent that passes signals on and lets none outlive it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

from torch.distributed import TCPStore  # type: ignore[attr-defined]  # re-exported without a word

from command_line.parent import end_with_parent
from command_line.signals import signals_to_handle
from trainer.core.advice import command
from trainer.core.stopping import REQUESTS, Outcome
from trainer.core.suspension import suspend_together
from trainer.distributed.rank_environment import rank_environment
from trainer.launch.job_context import OWNER
from trainer.launch.prepared_training import PreparedTraining
from trainer.runs import journal
from trainer.runs.config_loading import write_config
from trainer.runs.journal import EventKind, now
from trainer.runs.lease import held
from trainer.runs.lease_holder import HANDED_OVER, THIS_MACHINE, Owner
from trainer.runs.run_folder import RunFolder

WATCHED = "LIENZO_WATCHED"  # tells a process that its standard input ends when its parent does
LINGER_S = 20.0  # after one process has ended badly, the others get so long to notice

Children = Sequence[subprocess.Popen[bytes]]
Waiting = Callable[[Children], None]


def start(arguments: Sequence[str], rank: int, size: int, port: int, owner: Owner) -> subprocess.Popen[bytes]:
    """Start one process of `size`; it may meet the others at a store that this process serves."""
    environment = rank_environment(os.environ, rank, rank, size, size)
    environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), WATCHED: "1", OWNER: owner}
    return subprocess.Popen(
        [sys.executable, "-m", "trainer", *arguments],
        env=environment,
        stdin=subprocess.PIPE,
        cwd=Path(__file__).parents[2],  # where `-m trainer` is found, wherever the user stands
        start_new_session=True,  # a Ctrl-C reaches the parent alone, which passes it on once
    )


def wait_for_all(children: Children) -> None:
    """Wait until all have ended; once one has ended badly, the others get a while."""
    deadline = float("inf")
    fine = (None, Outcome.FINISHED, Outcome.INTERRUPTED)
    while any(child.poll() is None for child in children) and time.monotonic() <= deadline:
        if any(child.poll() not in fine for child in children):
            deadline = min(deadline, time.monotonic() + LINGER_S)
        time.sleep(0.05)


def wait_for_main(children: Children) -> None:
    """Wait for the first one alone, which does what the others leave undone."""
    children[0].wait()


def train_here(training: PreparedTraining) -> Outcome:
    """Train with processes of this machine.

    Raises:
        Refused: another process trains in the run folder, or another run has begun there since.
    """
    run, config = training.run, training.config
    total = config.images_to_see(training.dataset.splits["train"].samples)
    if config.epochs is None and total != config.total_images:
        print(f"total_images {config.total_images:,} is rounded up to whole steps: {total:,}", file=sys.stderr)
    owner = Owner.local_run()
    with held(run, owner, HANDED_OVER):
        write_config(run, config)
        return run_processes(run, training.processes, owner)


def run_processes(run: RunFolder, size: int, owner: Owner) -> Outcome:
    """Train with `size` processes, and return how that ended.

    Args:
        owner: for whom this process holds the run folder, until the first of them takes it over.
    """
    began = now()
    codes = run_group(["train", "--run", str(run.path.resolve())], size, owner=owner)
    outcome = common(codes)
    # What a run without enough memory must change, it has said itself; the same again would end the same way.
    if outcome is Outcome.FAILED and not ran_out_of_memory(run, began):
        print(f"the run has stopped; go on with: {command('launcher', 'resume', run.path)}", file=sys.stderr)
    return outcome


def ran_out_of_memory(run: RunFolder, since: str) -> bool:
    """Tell whether a process of the run has had too little memory since some moment."""
    events = journal.read_rows(run.events)
    return any(row["kind"] == EventKind.OUT_OF_MEMORY and row["time"] >= since for row in events)


def run_group(
    arguments: Sequence[str], size: int, wait: Waiting = wait_for_all, owner: Owner = THIS_MACHINE
) -> list[int]:
    """Run `python -m trainer` with these arguments in `size` processes, and return their exit codes.

    Args:
        wait: what it waits for before it ends those that are left.
        owner: of the run folder, if they train.
    """
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    children: list[subprocess.Popen[bytes]] = []
    early: list[signal.Signals] = []  # a signal while they are being started is for those that come after it, too
    handle_signals(early.append)
    suspend_together(children)
    try:
        for rank in range(size):
            children.append(start(arguments, rank, size, store.port, owner))
        handle_signals(lambda number: pass_on(number, children))
        for number in early:
            pass_on(number, children)
        wait(children)
    finally:
        for number in (*REQUESTS, signal.SIGQUIT, signal.SIGTSTP):
            signal.signal(number, signal.SIG_IGN)  # all that is left is to say how it ended
        for child in children:
            child.kill()
            child.wait()
            if child.stdin:
                child.stdin.close()
    return [child.returncode for child in children]


def handle_signals(answer: Callable[[signal.Signals], None]) -> None:
    """Answer from here on what the children are to be told: a terminal reaches this process alone."""

    def handler(number: int, frame: FrameType | None) -> None:
        answer(signal.Signals(number))

    for number in (*signals_to_handle(REQUESTS), signal.SIGQUIT):
        signal.signal(number, handler)


def pass_on(number: signal.Signals, children: Children) -> None:
    """Send a signal to the children that still run."""
    for child in children:
        if child.poll() is None:
            child.send_signal(number)


def common(codes: list[int]) -> Outcome:
    """Turn the exit codes of all processes into how the whole ended."""
    for known in (Outcome.FINISHED, Outcome.INTERRUPTED, Outcome.REFUSED):
        if all(code == known for code in codes):
            return known
    if Outcome.KILLED in codes:
        return Outcome.KILLED
    if all(code == Outcome.INTERRUPTED or -code in REQUESTS for code in codes):  # before a process could note it
        return Outcome.INTERRUPTED
    for rank, code in enumerate(codes):
        if code < 0:
            print(f"process {rank} was killed by {signal.Signals(-code).name}", file=sys.stderr)
    return Outcome.FAILED


def end_with_watching_parent() -> None:
    """End this process at once when the one that started it is gone, if that one watches over it."""
    if os.environ.get(WATCHED) == "1":
        # It returns at the end of the pipe; a buffered read would hold a lock that the interpreter's shutdown wants.
        end_with_parent(Outcome.FAILED, lambda: os.read(0, 1))
