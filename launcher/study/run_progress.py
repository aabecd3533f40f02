"""How far each run of a study is, and what is to be done next: from the run folders, and Slurm where there is one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from typing import Literal

from launcher.jobs.runs import SlurmQueue
from launcher.status.facts import RunState, StateFacts, gather_facts
from launcher.status.progress import read_progress
from launcher.status.states import judge_state
from launcher.study.plan import StudyPlan, StudyTask
from trainer.runs.journal import EventKind, Journal, event_row

Status = Literal["finished", "failed", "running", "waiting"]
FAILED = (RunState.REFUSED, RunState.NO_PROGRESS, RunState.NO_REQUEUE)


@dataclass(frozen=True)
class TaskProgress:
    """What a task has come to."""

    task: StudyTask
    status: Status
    reason: str = ""
    """Why it failed, or what it waits for."""
    live: bool = False
    """It is trained, or will be without anybody's doing."""

    @property
    def images(self) -> int:
        """Images seen by now."""
        return read_progress(self.task.run, float("inf")).images_seen


def task_progress(plan: StudyPlan, task: StudyTask, queue: SlurmQueue) -> TaskProgress:
    """Look at a task."""
    if plan.is_done(task):
        return TaskProgress(task, "finished")
    if not task.run.config.exists():
        return TaskProgress(task, "waiting")
    facts = gather_facts(task.run, queue)
    state, reason = judge_state(facts)
    # Before failures: what failed once may have been taken up again since.
    if state.live:
        return TaskProgress(task, "running" if state.under_way else "waiting", reason or str(state), live=True)
    if state in FAILED or find_failure(facts):
        return TaskProgress(task, "failed", find_failure(facts) or reason or str(state))
    if state is RunState.FINISHED and task.seed_set is None:
        where = f"remove {task.run.path} and use --retry"
        return TaskProgress(task, "failed", f"it was started anew too often for its rows to tell a speed: {where}")
    return TaskProgress(task, "waiting", reason)


def find_failure(facts: StateFacts) -> str:
    """Return why the newest attempt on this machine has failed; empty: it has not, or was only killed."""
    for row in reversed(facts.events):
        if row["kind"] == EventKind.BROKEN:
            return str(row["problem"])
        # A later start than the failure: it was tried again.
        if row["kind"] == EventKind.START:
            return ""
    return ""


def note_broken(task: StudyTask, problem: str) -> None:
    """Note why a task has failed here."""
    Journal(task.run.events).append(event_row(EventKind.BROKEN, problem=problem))


def stage_progress(plan: StudyPlan) -> Iterator[list[TaskProgress]]:
    """Yield how far the tasks of each stage are, up to the one that is under way."""
    queue = SlurmQueue()
    for stage in plan.stages():
        found = [task_progress(plan, task, queue) for task in stage]
        yield found
        if any(one.status in ("running", "waiting") for one in found):
            return


def next_tasks(plan: StudyPlan, retry: bool, tried: Set[StudyTask] = frozenset()) -> tuple[int, list[StudyTask]]:
    """Return what is to be trained next, and the number of its stage; nothing: it is under way, or the study is over.

    That is what waits in the stage under way; with `retry` arms whose speed could not be told come before it.

    Args:
        plan: of the study.
        retry: whether to train again what has failed.
        tried: what is not to be tried once more.
    """
    found = list(stage_progress(plan))
    speeds = [one for one in found[0] if one.task.seed_set is None]
    for number, stage in ((0, speeds), (len(found) - 1, found[-1])):
        if tasks := [task for task in pending_tasks(stage, retry) if task not in tried]:
            return number, tasks
    return len(found) - 1, []


def pending_tasks(stage: Sequence[TaskProgress], retry: bool) -> list[StudyTask]:
    """Return those that wait and that nobody trains; with `retry`, those that have failed as well."""
    statuses = ("waiting", "failed") if retry else ("waiting",)
    return [one.task for one in stage if one.status in statuses and not one.live]
