"""What a cluster does to a run. Each fault submits, does its worst, and returns when the job is over."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import time
from dataclasses import replace

import psutil

from launcher.jobs.attempts import Cause, Decision
from slurm import control
from slurm.dev_settings import DevClusterSettings
from tests.conftest import fingerprint
from tests.ordeal import TOTAL, Fault, Ordeal
from tests.slurm_cluster import wait_for


def somewhere(ordeal: Ordeal) -> int:
    """Return a moment within the run, in images."""
    return ordeal.chance.randrange(64, TOTAL * 2 // 3)


def finish(ordeal: Ordeal, *causes: Cause) -> None:
    """Wait for the end, and hold the causes of the restarts against what was done."""
    last = ordeal.wait_for_end()
    assert last.cause is Cause.FINISHED, ordeal.story()
    seen = ordeal.causes()
    if Cause.NODE_FAILED in causes:
        # Slurm repeats its order to end the job to a node that did not answer. Where the node is back by then, the
        # order reaches the job's next start as a plain SIGTERM, which saves and goes on, as it should.
        first = seen.index(Cause.NODE_FAILED)
        seen = seen[:first] + [cause for cause in seen[first:] if cause is not Cause.SIGNALLED]
    assert seen == [*causes, Cause.FINISHED], ordeal.story()


def preempted(ordeal: Ordeal) -> None:
    """A job of higher priority takes the nodes; there is time to save."""
    ordeal.submit()
    ordeal.wait_for_images(somewhere(ordeal))
    ordeal.preempt()
    finish(ordeal, Cause.PREEMPTED)
    assert ordeal.attempts()[0].detail == "saved"


def preempted_at_start(ordeal: Ordeal) -> None:
    """Preempted before the first step, and again while the ranks start for the second time."""
    ordeal.submit()
    for number in range(2):
        ordeal.wait_for_start(number)
        wait_for(lambda: len(ordeal.ranks()) > ordeal.chance.randrange(4), timeout_s=30)
        ordeal.preempt()
    finish(ordeal, Cause.PREEMPTED, Cause.PREEMPTED)


def preempted_while_saving(ordeal: Ordeal) -> None:
    """Preempted while a checkpoint is being written."""
    ordeal.submit()
    ordeal.wait_for_images(somewhere(ordeal))
    assert wait_for(lambda: list(ordeal.run.checkpoints.glob(".writing*")), timeout_s=60, every_s=0.002)
    ordeal.preempt()
    finish(ordeal, Cause.PREEMPTED)


def preempted_while_resuming(ordeal: Ordeal) -> None:
    """Preempted, and again while the second start loads the checkpoint."""
    ordeal.submit()
    ordeal.wait_for_images(somewhere(ordeal))
    ordeal.preempt()
    ordeal.wait_for_start(1)
    assert wait_for(lambda: len(ordeal.ranks()) == 4, timeout_s=30)
    assert wait_for(ordeal.run.lease.exists, timeout_s=60, every_s=0.01)
    ordeal.preempt()
    finish(ordeal, Cause.PREEMPTED, Cause.PREEMPTED)


def grace_too_short(ordeal: Ordeal) -> None:
    """A rank hangs throughout the grace time, so that nobody can save: the last durable checkpoint serves."""
    ordeal.settings = ("--stall-after-s", "300")  # the watchdog would end it before Slurm does
    ordeal.submit()
    ordeal.wait_for_images(somewhere(ordeal))
    rank = ordeal.ranks()[ordeal.chance.randrange(4)]
    rank.suspend()
    ordeal.preempt()
    with contextlib.suppress(psutil.NoSuchProcess):
        while True:  # Slurm wakes it together with the warning
            rank.suspend()
            time.sleep(0.001)
    finish(ordeal, Cause.PREEMPTED)
    assert "too short" in ordeal.attempts()[0].detail


def asked_by_signal(ordeal: Ordeal) -> None:
    """scancel --signal, three times, with each signal that means stop."""
    ordeal.submit()
    names = ("TERM", "USR1", "USR2")
    for number, name in enumerate(names, 1):
        ordeal.wait_for_images(TOTAL * number // 5)
        control.send_signal(ordeal.job, name)
        assert wait_for(lambda number=number: ordeal.attempts()[number - 1].ended, timeout_s=60)  # type: ignore[misc]
    finish(ordeal, *[Cause.SIGNALLED] * 3)


def requeued_by_administrator(ordeal: Ordeal) -> None:
    """scontrol requeue from outside."""
    ordeal.submit()
    ordeal.wait_for_images(somewhere(ordeal))
    control.requeue_job(ordeal.job)
    finish(ordeal, Cause.REQUEUED)


def lose_for_a_while(ordeal: Ordeal, node: str) -> None:
    """Let a node die, wait until Slurm has noticed and the job waits again, and bring the node back."""
    ordeal.cluster.fail(node)

    def noticed() -> bool:
        states = {one.name: one.state for one in ordeal.cluster.nodes()}
        job = control.show_job(ordeal.job)
        return states[node].startswith("DOWN") and job is not None and job.state == "PENDING"

    assert wait_for(noticed, timeout_s=120, every_s=0.5), ordeal.story()
    ordeal.cluster.heal(node)


def node_failed(ordeal: Ordeal) -> None:
    """A node dies, with all that runs on it; the run goes on with it when it is back."""
    ordeal.submit()
    ordeal.wait_for_images(somewhere(ordeal))
    node = ordeal.chance.choice(ordeal.attempts()[-1].nodes)
    lose_for_a_while(ordeal, node)
    finish(ordeal, Cause.NODE_FAILED)
    assert ordeal.attempts()[0].failed_nodes == (node,)


def node_failed_twice(ordeal: Ordeal) -> None:
    """The same node dies twice: the run goes on without it."""
    ordeal.submit("--nodes", "2-4")
    node = "n2"
    for number in range(2):
        ordeal.wait_for_start(number)
        ordeal.wait_for_images(64)
        lose_for_a_while(ordeal, node)
    last = ordeal.wait_for_end()
    assert last.cause is Cause.FINISHED, ordeal.story()
    assert node not in last.nodes, ordeal.story()


def rank_killed(ordeal: Ordeal) -> None:
    """SIGKILL to one rank."""
    ordeal.submit()
    ordeal.wait_for_images(somewhere(ordeal))
    ordeal.kill_rank(ordeal.chance.randrange(4))
    finish(ordeal, Cause.CRASHED)


def all_ranks_killed(ordeal: Ordeal) -> None:
    """SIGKILL to all ranks at once."""
    ordeal.submit()
    ordeal.wait_for_images(somewhere(ordeal))
    for process in ordeal.ranks().values():
        process.kill()
    finish(ordeal, Cause.CRASHED)


def rank_stopped(ordeal: Ordeal) -> None:
    """SIGSTOP to one rank: the watchdog names it and its node, and all end."""
    ordeal.submit()
    ordeal.wait_for_images(somewhere(ordeal))
    rank = ordeal.chance.randrange(4)
    ordeal.kill_rank(rank, signal.SIGSTOP)
    finish(ordeal, Cause.STALLED)
    assert f"rank {rank} on n{rank + 1}" in ordeal.attempts()[0].detail, ordeal.story()


def controller_restarted(ordeal: Ordeal) -> None:
    """slurmctld goes and comes back while the run trains: nobody notices."""
    ordeal.submit()
    ordeal.wait_for_images(somewhere(ordeal))
    ordeal.cluster.restart_controller(away_s=3.0)
    finish(ordeal)


def fewer_nodes_on_resume(ordeal: Ordeal) -> None:
    """Cancelled, which saves, and resumed on three nodes, then on one."""
    ordeal.submit()
    for images, nodes in ((TOTAL // 5, 3), (TOTAL // 2, 1)):
        ordeal.wait_for_images(images)
        ordeal.command("cancel", str(ordeal.folder))
        assert ordeal.wait_for_end().cause is Cause.CANCELLED, ordeal.story()
        ordeal.command("resume", str(ordeal.folder), "--nodes", str(nodes))
    finish(ordeal, Cause.CANCELLED, Cause.CANCELLED)
    assert [len(attempt.nodes) for attempt in ordeal.attempts()] == [4, 3, 1]


def a_node_is_drained(ordeal: Ordeal) -> None:
    """--nodes 2-4 with one node drained: three are enough."""
    ordeal.cluster.drain("n3")
    ordeal.submit("--nodes", "2-4")
    ordeal.wait_for_end()
    ordeal.cluster.heal("n3")
    finish(ordeal)
    assert ordeal.attempts()[0].nodes == ("n1", "n2", "n4")


def two_jobs_at_once(ordeal: Ordeal) -> None:
    """The batch script is submitted a second time by hand: that job refuses, and the first goes on."""
    ordeal.submit("--nodes", "2")
    ordeal.wait_for_images(64)
    script = ordeal.run.logs / "slurm" / f"{ordeal.job}_submission.sh"
    subprocess.run(["sbatch", str(script)], check=True, capture_output=True)
    last = ordeal.wait_for_end()
    known = {attempt.job: attempt for attempt in ordeal.attempts()}
    assert known[ordeal.job].cause is Cause.FINISHED, ordeal.story()
    other = known[max(known)]
    assert other.cause is Cause.REFUSED, ordeal.story()
    assert "another process trains in" in other.detail, ordeal.story()
    assert last


def cancelled_by_scancel(ordeal: Ordeal) -> None:
    """Plain scancel, which nothing may answer by a new start: `scontrol requeue` would revive the job. Then resumed."""
    ordeal.submit()
    ordeal.wait_for_images(somewhere(ordeal))
    control.cancel_job(ordeal.job)
    assert ordeal.wait_for_end().cause is Cause.CANCELLED, ordeal.story()
    assert not wait_for(lambda: control.show_job(ordeal.job).state in ("PENDING", "RUNNING"), timeout_s=15)  # type: ignore
    ordeal.command("resume", str(ordeal.folder), "--nodes", "4")
    ordeal.wait_for_start(1)
    finish(ordeal, Cause.CANCELLED)


def two_runs_side_by_side(ordeal: Ordeal) -> None:
    """Two jobs on the same nodes at once: each has ports of its own, and they do not disturb one another."""
    other = replace(ordeal, folder=ordeal.folder.with_name(f"{ordeal.folder.name}-beside"), server=None)
    ordeal.submit()
    other.submit()
    finish(ordeal)
    finish(other)
    mine, theirs = ordeal.attempts()[0], other.attempts()[0]
    assert set(mine.nodes) == set(theirs.nodes)
    assert max(mine.began, theirs.began) < min(str(mine.ended), str(theirs.ended)), "one after the other shows nothing"
    assert fingerprint(other.folder) == fingerprint(ordeal.folder)


def full_disk_when_preempted(ordeal: Ordeal) -> None:
    """The run folder is full when the run must save: the last durable checkpoint serves once there is room again."""
    ordeal.folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", str(ordeal.folder)], check=True)
    ordeal.stack.callback(subprocess.run, ["umount", "--lazy", str(ordeal.folder)], check=True)
    ordeal.submit()
    ordeal.wait_for_images(somewhere(ordeal))
    filler = ordeal.folder / "filler"
    with filler.open("wb") as file:
        try:
            while file.write(b"\0" * (1 << 16)):
                file.flush()
        except OSError:
            pass
    ordeal.preempt()
    assert wait_for(lambda: job.state == "PENDING" if (job := control.show_job(ordeal.job)) else False, timeout_s=90)
    filler.unlink()
    finish(ordeal, Cause.PREEMPTED)


def tracker_in_trouble(ordeal: Ordeal) -> None:
    """W&B is dead, slow, answers 401, 429 and 500, and comes back: training does not care, and nothing is lost."""
    server = ordeal.server
    assert server
    ordeal.submit()
    for number, trouble in enumerate(("401", "429", "500", "dead", "slow"), 1):
        ordeal.wait_for_images(TOTAL * number // 8)
        if trouble == "dead":
            server.stop()
        elif trouble == "slow":
            server.start()
            server.status, server.delay_s = 200, 2.0
        else:
            server.status = int(trouble)
    finish(ordeal)
    server.delay_s = 0.0
    ordeal.command("sync", str(ordeal.folder))


def preempted_by_user_signal(ordeal: Ordeal) -> None:
    """The site sends the signal that the job asked for, in place of SIGTERM."""
    preempted(ordeal)


def preempted_at_once(ordeal: Ordeal) -> None:
    """A site without grace time: SIGTERM, and SIGKILL soon after."""
    ordeal.submit()
    ordeal.wait_for_images(somewhere(ordeal))
    ordeal.preempt()
    last = ordeal.wait_for_end()
    assert last.cause is Cause.FINISHED, ordeal.story()
    assert len(ordeal.attempts()) == 2, ordeal.story()


def time_limits(ordeal: Ordeal) -> None:
    """Four attempts in a row reach the time limit: one more than submitit would allow."""
    ordeal.settings = ("--stall-after-s", "300")
    ordeal.submit("--nodes", "4", "--time", "1")
    for number in range(4):
        ordeal.wait_for_start(number)
        ordeal.wait_for_images(TOTAL * (number + 1) // 6)
        for process in ordeal.ranks().values():
            process.suspend()  # the run is short, so let it sleep; Slurm's warning wakes it
        assert wait_for(lambda number=number: ordeal.attempts()[number].ended, timeout_s=120)  # type: ignore[misc]
    finish(ordeal, *[Cause.TIME_LIMIT] * 4)


def requeue_refused(ordeal: Ordeal) -> None:
    """The site does not let jobs start again: status says so, and the resume command that it names works."""
    ordeal.submit()
    ordeal.wait_for_images(somewhere(ordeal))
    ordeal.kill_rank(2)
    last = ordeal.wait_for_end()
    assert last.decision is Decision.REFUSED, ordeal.story()
    said = ordeal.command("status", str(ordeal.folder))
    assert f"python -m launcher resume {ordeal.folder}" in said
    ordeal.command("resume", str(ordeal.folder), "--nodes", "4")
    ordeal.wait_for_start(1)
    finish(ordeal, Cause.CRASHED)


def no_progress(ordeal: Ordeal) -> None:
    """Three attempts in a row break before the first checkpoint: the run stops and says why, until it is resumed."""
    ordeal.submit()
    for number in range(3):
        ordeal.wait_for_start(number)
        ordeal.kill_rank(number)
        assert wait_for(lambda number=number: ordeal.attempts()[number].ended, timeout_s=60)  # type: ignore[misc]
    last = ordeal.wait_for_end()
    assert last.decision is Decision.STOP, ordeal.story()
    assert "no progress" in ordeal.command("status", str(ordeal.folder))
    ordeal.command("resume", str(ordeal.folder), "--nodes", "4")
    ordeal.wait_for_start(3)
    finish(ordeal, *[Cause.CRASHED] * 3)


FAULTS: dict[str, Fault] = {
    fault.__name__: fault
    for fault in (
        preempted,
        preempted_at_start,
        preempted_while_saving,
        preempted_while_resuming,
        grace_too_short,
        asked_by_signal,
        requeued_by_administrator,
        node_failed,
        node_failed_twice,
        rank_killed,
        all_ranks_killed,
        rank_stopped,
        controller_restarted,
        fewer_nodes_on_resume,
        a_node_is_drained,
        two_jobs_at_once,
        cancelled_by_scancel,
        two_runs_side_by_side,
        full_disk_when_preempted,
        tracker_in_trouble,
        preempted_by_user_signal,
        preempted_at_once,
        time_limits,
        requeue_refused,
        no_progress,
    )
}

# Faults that want a cluster of their own kind.
OWN_SETTINGS = {
    "preempted_by_user_signal": DevClusterSettings(requeue_delay_s=5, signal_style="user"),
    "preempted_at_once": DevClusterSettings(requeue_delay_s=5, grace_s=0),
    "requeue_refused": DevClusterSettings(requeue_delay_s=5, requeue="no"),
}
