"""Who trains in a run folder: one holder at a time, and none that is gone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from tests.slurm_cluster import wait_for
from trainer.core.fields import Refused
from trainer.runs.lease import Lease, LeaseTiming, Loss
from trainer.runs.lease_holder import Holder, Owner, read_lease
from trainer.runs.run_folder import RunFolder

QUICK = LeaseTiming(beat_s=0.05, stale_s=0.5, copy_s=0.15)


def nothing(_: Loss) -> None:
    pass


def take(run: RunFolder, owner: str = "job 1", attempt: int = 0) -> Lease:
    return Lease(run, Owner(owner), attempt, nothing, QUICK)


def leave(run: RunFolder, **changes: object) -> Holder:
    """Leave a lease behind, as another process would have."""
    run.path.mkdir(exist_ok=True)
    holder = replace(Holder.this_process(Owner("job 1"), 0, run.path), **changes)  # type: ignore[arg-type]
    run.lease.write_text(json.dumps(asdict(holder)))
    return holder


def test_one_holder_at_a_time(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    mine = take(run)
    with pytest.raises(Refused, match=rf"another process trains in .*run already: job 1 \(process {os.getpid()} on "):
        take(run, "job 2")
    mine.release()
    take(run, "job 2").release()
    assert not list(run.path.iterdir()), "nothing is left"


def test_a_lease_of_a_dead_process_of_this_machine_is_broken_at_once(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    code = (
        "import sys; from pathlib import Path; from trainer.runs.lease import *; "
        "from trainer.runs.run_folder import RunFolder"
    )
    code += "; import os; Lease(RunFolder(Path(sys.argv[1])), 'job 1', 0, lambda _: None); os._exit(9)"
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert run.lease.exists()
    take(run, "job 2").release()


def test_a_number_that_another_process_has_now_is_not_the_holder(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    leave(run, started=1)
    take(run, "job 2").release()


def test_a_later_attempt_of_the_same_job_takes_over(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    leave(run, boot="another machine", attempt=3)
    take(run, attempt=4).release()
    leave(run, boot="another machine", attempt=3)
    started = time.monotonic()
    take(run, attempt=3).release()
    assert time.monotonic() - started > QUICK.stale_s, "the same attempt has no right to it but by silence"


def test_a_silent_holder_elsewhere_is_waited_for(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    leave(run, boot="another machine")
    started = time.monotonic()
    take(run, "job 2").release()
    assert time.monotonic() - started >= QUICK.stale_s


def test_a_holder_elsewhere_that_beats_is_respected(tmp_path: Path) -> None:
    run, stop = RunFolder(tmp_path), threading.Event()
    leave(run, boot="another machine", host="n7")

    def beat() -> None:
        while not stop.wait(0.05):
            os.utime(run.lease)

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    with pytest.raises(Refused, match="on n7"):
        take(run, "job 2")
    stop.set()
    thread.join()
    assert run.lease.exists()


def test_a_holder_that_lost_its_lease_is_told(tmp_path: Path) -> None:
    run, lost = RunFolder(tmp_path), threading.Event()
    mine = Lease(run, Owner("job 1"), 0, lambda _: lost.set(), QUICK)
    assert mine.loss() is None
    leave(run, token="another")
    assert lost.wait(10)
    found = mine.loss()
    assert found
    assert found.why.startswith("another process has taken the run over: job 1 (process ")
    mine.release()
    assert run.lease.exists(), "it is another's, and stays"


def test_the_lease_is_touched(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    mine = take(run)
    first = read_lease(run.lease)
    assert wait_for(lambda: read_lease(run.lease) != first, timeout_s=10)
    mine.release()


def test_a_lease_that_cannot_be_read_is_broken_only_when_silent(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.lease.write_text("torn")
    started = time.monotonic()
    take(run).release()
    assert time.monotonic() - started >= QUICK.stale_s


def test_of_many_that_break_a_lease_one_gets_it(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    leave(run, boot="another machine")
    taken, refused = [], []

    def try_it(number: int) -> None:
        try:
            taken.append(take(run, f"job {number}"))
        except Refused:
            refused.append(number)

    threads = [threading.Thread(target=try_it, args=(number,)) for number in range(2, 8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == 1, (taken, refused)
    assert taken[0].loss() is None
    taken[0].release()
