"""What the batch script runs on the first node: `python -m launcher.jobs.batch begin RUN`, and `… ended RUN CODE`.

`begin` records the attempt, and serves the store where the ranks meet, on a port that it holds before anybody is told
of it; it ends with its standard input. `begin-alone` is the same for a single process, without a store. `ended` finds
out why the attempt has ended, and has the job started again, or not. Neither waits for torch: what happens here is time
in which nobody trains.
"""

from __future__ import annotations

import select
import signal
import socket
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

from launcher.jobs import attempts
from launcher.jobs.attempts import Attempt, Cause, Decision
from launcher.jobs.exit_cause import MARK, explain_silence
from launcher.jobs.exit_handler import (
    can_do_without,
    end_attempt,
    record_attempt,
    retry_until_answer,
    start_again,
    this_attempt,
)
from launcher.jobs.job_record import JobRecord, find_record
from slurm import control, job_environment
from trainer.runs.run_folder import RunFolder

POLL_S = 0.25
ORDERLY_END_S = 2.0  # KillWait, after which SIGKILL comes, is 30 s by default
KILLED = 128 + signal.SIGKILL


def begin_attempt(run: RunFolder, alone: bool = False) -> int:
    """Record this attempt, then serve the store where its ranks meet, unless there is only one; print where that is."""
    # First of all, so that what became of earlier attempts is written whatever happens to this one.
    known = close_silent_attempts(run)
    submitted = take_own_record(run)
    # Cancelled while it waited in the queue, after Slurm had begun to start it.
    # 0: it has started before `submit` could note its number.
    if submitted and submitted.cancelled and submitted.job in (0, job_environment.job_id()):
        record_attempt(
            run, replace(attempts.close_attempt(this_attempt(run), Cause.CANCELLED, "", 0), decision=Decision.END)
        )
        return 1
    if known and known[-1].decision is Decision.STOP and known[-1].job == job_environment.job_id():
        return 1
    print(MARK, file=sys.stderr, flush=True)  # what stands above it told of the attempt before
    mine = this_attempt(run)
    bad = sorted({*attempts.bad_nodes([*known, mine])} & {*mine.nodes})
    # Not twice in a row: if Slurm hands out the same nodes again, it has no others.
    if bad and known[-1].cause is not Cause.NODES_EXCLUDED and can_do_without(run, bad):
        closed = attempts.close_attempt(mine, Cause.NODES_EXCLUDED, ", ".join(bad), mine.images_seen)
        record_attempt(run, start_again(run, closed, bad))
        return 1
    record_attempt(run, mine)
    if alone:
        print("nowhere 0", flush=True)
        watch_end(run, note_sigterm())
        return 0
    # NodeAddr, since the name of a node need not resolve on the others.
    address = retry_until_answer(partial(control.show_node, job_environment.node_name())).address
    # The port is bound before anybody is told of it, so no other program can take it in between.
    # backlog: all ranks of a large job may connect before torch is loaded here and accepts them.
    listener = socket.create_server(("", 0), backlog=4096)
    # The batch script waits for this line, so no rank starts before it.
    print(address, listener.getsockname()[1], flush=True)
    serve_store(run, listener, address)
    return 0


def take_own_record(run: RunFolder) -> JobRecord | None:
    """Return what was submitted; a task of an array now has a number of its own, and is known by it from here on."""
    submitted = find_record(run)
    if submitted and submitted.task is not None and submitted.job in (0, job_environment.array_job_id()):
        submitted = replace(submitted, job=job_environment.job_id(), task=None)
        try:
            submitted.save(run)
        except OSError as error:  # a full disk must not end the attempt
            print(f"lienzo: {run.job} cannot be written: {error.strerror}", file=sys.stderr)
    return submitted


def close_silent_attempts(run: RunFolder) -> list[Attempt]:
    """Close the attempts that have ended without a word, and return all attempts before this one."""
    known = attempts.read_attempts(run)
    for number, before in enumerate(known):
        if before.ended is None and has_ended(before):
            known[number] = retry_until_answer(partial(explain_silence, run, before))
            known[number] = replace(known[number], decision=attempts.decide_what_follows(known[: number + 1]))
            record_attempt(run, known[number])
    return known


def has_ended(before: Attempt) -> bool:
    """Tell whether an attempt without an end is over: this job's own is, another job's if Slurm does not run it."""
    if before.job == job_environment.job_id():
        return True
    other = retry_until_answer(partial(control.show_job, before.job))
    # COMPLETING: its batch script may still be writing down its own end.
    return other is None or other.state not in ("RUNNING", "SUSPENDED", "COMPLETING")


def serve_store(run: RunFolder, listener: socket.socket, address: str) -> None:
    """Be the store, until standard input ends. Who comes before torch is here waits in the queue of the port."""
    terminated = note_sigterm()
    from torch.distributed import TCPStore  # type: ignore[attr-defined]  # after the port is known: it takes seconds

    port = listener.getsockname()[1]
    # wait_for_workers=False: else this call waits for all ranks, and until they have come nobody looks for SIGTERM.
    store = TCPStore(address, port, is_master=True, wait_for_workers=False, master_listen_fd=listener.detach())
    watch_end(run, terminated)
    del store


def note_sigterm() -> list[float]:
    """Handle SIGTERM, and return the list that gets the time of each."""
    terminated: list[float] = []
    signal.signal(signal.SIGTERM, lambda *_: terminated.append(time.monotonic()))
    return terminated


def watch_end(run: RunFolder, terminated: list[float]) -> None:
    """Wait until standard input ends.

    SIGTERM to the batch script says that Slurm ends the job, and soon with SIGKILL. If the ranks do not make an end of
    their own by then, bash never comes to call `end_attempt`; so it is done from here.
    """
    while not select.select([sys.stdin], [], [], POLL_S)[0]:
        # An orderly end closes standard input within that time; a SIGKILL to come would leave no word.
        if terminated and time.monotonic() > terminated[0] + ORDERLY_END_S:
            now = retry_until_answer(partial(control.show_job, job_environment.job_id()))
            if now is None or now.state != "RUNNING":  # else somebody has sent SIGTERM to the batch script alone
                end_attempt(run, KILLED)
            terminated.clear()


def main() -> int:
    """Run one of both."""
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)  # Slurm may send them to the whole batch step; the ranks answer
    verb, run = sys.argv[1], RunFolder(Path(sys.argv[2]))
    # "ended" is given the greatest exit code of the ranks, as srun reports it to bash.
    if verb == "ended":
        return end_attempt(run, int(sys.argv[3]))
    return begin_attempt(run, verb == "begin-alone")


if __name__ == "__main__":
    sys.exit(main())
