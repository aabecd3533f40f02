"""What the batch script runs on the first node: `python -m launcher.job.batch begin RUN`, and `… ended RUN CODE`.

`begin` records the start, and serves the store where the ranks meet, on a port that it holds before anybody is told of
it; it ends with its standard input. `ended` finds out why the start has ended, and has the job started again, or not.
Neither waits for torch: what happens here is time in which nobody trains.
"""

from __future__ import annotations

import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from launcher.job import attempts
from launcher.job.attempts import Attempt, Cause, Decision
from launcher.job.causes import MARK, explain, explain_silence
from slurm import control, job
from trainer.run_folder import RunFolder

T = TypeVar("T")

POLL_S = 0.25
PAUSE_S = 5.0
ORDERLY_END_S = 2.0  # KillWait, after which SIGKILL comes, is 30 s by default
KILLED = 128 + signal.SIGKILL


def begin(run: RunFolder) -> int:
    """Record this start, then serve the store where its ranks meet; print where that is."""
    known = attempts.read(run)
    if known and known[-1].ended is None and gone(known[-1]):
        known[-1] = explain_silence(run, known[-1])
        decision = attempts.decide(known)
        record(run, replace(known[-1], decision=decision))
        if decision is Decision.STOP and known[-1].job == job.job_id():
            return 1
    print(MARK, file=sys.stderr, flush=True)  # what stands above it told of the start before
    nodes = control.expand(job.node_list())
    mine = Attempt(job.job_id(), job.restart(), attempts.now(), tuple(nodes), attempts.durable_images(run))
    bad = sorted({*attempts.bad_nodes(known)} & {*nodes})
    if bad and known[-1].cause is not Cause.LEFT_OUT:
        mine = attempts.close(mine, Cause.LEFT_OUT, ", ".join(bad), mine.images_seen)
        record(run, start_again(mine, bad))
        return 1
    record(run, mine)
    address = control.node(job.node_name()).address
    listener = socket.create_server(("", 0), backlog=4096)
    print(address, listener.getsockname()[1], flush=True)
    serve(run, listener, address)
    return 0


def gone(before: Attempt) -> bool:
    """Tell whether a start without an end is over: this job's own is, another job's if Slurm does not run it."""
    if before.job == job.job_id():
        return True
    other = control.job(before.job)
    return other is None or other.state not in ("RUNNING", "SUSPENDED", "COMPLETING")


def serve(run: RunFolder, listener: socket.socket, address: str) -> None:
    """Be the store, until standard input ends. Who comes before torch is here waits in the queue of the port.

    SIGTERM to the batch script says that Slurm ends the job, and soon with SIGKILL. If the ranks do not make an end of
    their own by then, bash never comes to call `ended`; so it is done from here.
    """
    terminated: list[float] = []
    signal.signal(signal.SIGTERM, lambda *_: terminated.append(time.monotonic()))
    from torch.distributed import TCPStore  # type: ignore[attr-defined]  # after the port is known: it takes seconds

    port = listener.getsockname()[1]
    store = TCPStore(address, port, is_master=True, wait_for_workers=False, master_listen_fd=listener.detach())
    while not select.select([sys.stdin], [], [], POLL_S)[0]:
        if terminated and time.monotonic() > terminated[0] + ORDERLY_END_S:
            ended(run, KILLED)
            terminated.clear()
    del store


def ended(run: RunFolder, code: int) -> int:
    """Record how this start ended, have the job started again if it should go on, and return the job's exit code."""
    known = attempts.read(run)
    mine = next((a for a in known if a.key == (job.job_id(), job.restart()) and a.ended is None), None)
    if mine is None:
        return code
    known.remove(mine)  # another job of the same run may have begun, and been refused, since
    known.append(explain(run, mine, code, patiently(partial(control.job, mine.job))))
    decision = attempts.decide(known)
    mine = replace(known[-1], decision=decision)
    record(run, mine)  # before the requeue, after which this process has not long to live
    if decision is Decision.GO_ON:
        again = start_again(mine, attempts.bad_nodes(known))
        if again != mine:
            record(run, again)
    return 0 if mine.cause in (Cause.FINISHED, Cause.CANCELLED) else code or 1


def start_again(mine: Attempt, bad: Sequence[str]) -> Attempt:
    """Ask Slurm to start the job again, without the bad nodes; return what became of it."""
    try:
        now = patiently(partial(control.job, mine.job))
        if now is None or now.restarts == mine.restart:  # else Slurm is starting it again already
            patiently(partial(control.requeue, mine.job))
    except control.SlurmError as error:
        print(f"lienzo: Slurm refuses to start the job again: {error}", file=sys.stderr)
        return replace(mine, decision=Decision.REFUSED, detail=f"{mine.detail}; {error}".lstrip("; "))
    if not bad:
        return replace(mine, decision=Decision.GO_ON)
    try:
        control.exclude(mine.job, bad)
        note = f"{', '.join(bad)} left out from now on"
    except control.SlurmError as error:
        note = f"{', '.join(bad)} failed {attempts.NODE_FAILURES} times, but cannot be left out: {error}"
    return replace(mine, decision=Decision.GO_ON, detail=f"{mine.detail}; {note}".lstrip("; "))


def patiently(act: Callable[[], T]) -> T:
    """Ask Slurm until it answers: while its controller is away, nobody else starts this job again."""
    while True:
        try:
            return act()
        except control.NoAnswer as error:
            print(f"lienzo: {error}; asking again", file=sys.stderr)
            time.sleep(PAUSE_S)


def record(run: RunFolder, attempt: Attempt) -> None:
    """Write down what is known of a start; a full disk must not keep the job from being started again."""
    try:
        attempts.write(run, attempt)
    except OSError as error:
        print(f"lienzo: {run.attempts} cannot be written: {error.strerror}; {attempt}", file=sys.stderr)


def main() -> int:
    """Run one of both."""
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)  # Slurm may send them to the whole batch step; the ranks answer
    verb, run = sys.argv[1], RunFolder(Path(sys.argv[2]))
    return begin(run) if verb == "begin" else ended(run, int(sys.argv[3]))


if __name__ == "__main__":
    sys.exit(main())
