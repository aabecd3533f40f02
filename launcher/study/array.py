"""The runs of a study on a cluster: one array, each of whose tasks trains a run and measures it."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

from launcher.jobs import batch_script, code_snapshot, job_record, submission
from launcher.jobs.batch_script import Request, RunExecutor
from launcher.jobs.job_record import JobRecord
from launcher.jobs.submission import PreparedJob
from launcher.study.plan import StudyPlan, StudyTask
from trainer.config.config import Config
from trainer.runs.config_loading import write_config
from trainer.runs.journal import now
from trainer.tracking.tracker import identity_of


def prepare(plan: StudyPlan, tasks: Sequence[tuple[StudyTask, Config]]) -> PreparedJob:
    """Check what each arm wants against the cluster, and return what suits all.

    Raises:
        Refused: the cluster cannot give it.
    """
    first = {task.arm: (task, config) for task, config in reversed(tasks)}
    jobs = [submission.prepare(task.run, config, plan.wanted) for task, config in first.values()]
    fewest = min(job.request.tasks_per_node for job in jobs)  # else an arm has fewer micro-batches than processes
    return replace(jobs[0], request=replace(jobs[0].request, name=plan.settings.name, tasks_per_node=fewest))


def claim(plan: StudyPlan, stage: int) -> bool:
    """Note that a stage is queued; False: it was noted before. A budget that was changed makes other stages."""
    plan.folder.queue.mkdir(parents=True, exist_ok=True)
    try:
        (plan.folder.queue / f"stage-{stage}-{plan.settings.budget.amount}").touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def submit(plan: StudyPlan, tasks: Sequence[tuple[StudyTask, Config]], job: PreparedJob) -> int:
    """Write the run folders, queue the array, and return its number.

    Raises:
        Refused: a folder cannot be written, or Slurm does not take the array.
    """
    jobs = plan.folder.jobs
    jobs.logs.mkdir(parents=True, exist_ok=True)
    plan.folder.queue.mkdir(exist_ok=True)
    number = len(list(plan.folder.queue.glob("*.txt"))) + 1
    code = (
        code_snapshot.HOME
        if code_snapshot.HOME.is_relative_to(jobs.code.resolve())
        else code_snapshot.take(jobs, number)
    )
    runs = plan.folder.queue / f"{number:04d}.txt"
    runs.write_text("".join(f"{task.run.path.resolve()}\n" for task, _ in tasks))
    request = replace(job.request, token=uuid4().hex[:12])
    for task, config in tasks:
        write_config(task.run, config)
        if wish := plan.wish(task):
            wish.save(task.run)
        identity_of(task.run, config.tracking).save(task.run.wandb_identity)
    with records([task for task, _ in tasks], request, job.where.name) as submitted:
        array = executor(plan, request, code, runs, len(tasks)).submit_run()
        for task, record in submitted.items():
            if job_record.find(task.run) == record:  # else it has begun already, and knows its own number
                replace(record, job=array).save(task.run)
    return array


@contextmanager
def records(tasks: Sequence[StudyTask], request: Request, partition: str) -> Iterator[dict[StudyTask, JobRecord]]:
    """Note in each run what is being submitted for it; if it is not, all is as it was before."""
    before = {task: job_record.find(task.run) for task in tasks}
    made = {}
    for place, (task, old) in enumerate(before.items()):
        asked = (request.nodes, request.tasks_per_node, request.profile.warn_s)
        made[task] = JobRecord(
            0, (old.submission if old else 0) + 1, *asked, now(), partition, request.token, task=place
        )
        made[task].save(task.run)
    try:
        yield made
    except BaseException:
        for task, old in before.items():
            if old:
                old.save(task.run)
            else:
                task.run.job.unlink(missing_ok=True)
        raise


def executor(plan: StudyPlan, request: Request, code: Path, runs: Path, tasks: int) -> RunExecutor:
    """Return what submits the array, with the script that it will be."""
    folder = plan.folder.path.resolve()
    lines = [
        *batch_script.surroundings(code.resolve(), request.profile),
        *which_run(folder, runs.resolve()),
        *batch_script.guard('"$RUN"', "patient_srun", f"code=$?; {advance(folder)}; exit $code"),
        *then_measure(request),
    ]
    made = batch_script.executor_of(
        folder / "logs" / "slurm", ["launcher.study.rank", str(runs.resolve())], lines, request
    )
    limit = f"%{plan.settings.at_once}" if plan.settings.at_once else ""
    parameters = {**made.parameters["additional_parameters"], "array": f"0-{tasks - 1}{limit}"}
    made.update_parameters(additional_parameters=parameters)
    return made


def which_run(folder: Path, runs: Path) -> list[str]:
    """Return the lines that find a task's run; what the batch script says is to be seen there as well."""
    log = shlex.quote(str(folder / "logs" / "slurm"))
    return [
        f'RUN=$(sed -n "$((SLURM_ARRAY_TASK_ID + 1))p" {shlex.quote(str(runs))})',
        f'mkdir -p "$RUN/logs/slurm" && ln -sfn {log}/"${{SLURM_JOB_ID}}_0_log.out" "$RUN/logs/slurm/"',
    ]


def then_measure(request: Request) -> list[str]:
    """Return the lines by which a run that has finished is measured in the same task.

    What became of single ranks does not matter once the figures are there.
    """
    due = shlex.join([sys.executable, "-m", "launcher.study.evaluate_run", "--due"])
    measure = batch_script.rank_command(request.profile, ["launcher.study.evaluate_run", "--task"])
    step = shlex.join(["--unbuffered", *batch_script.srun_arguments(request, together=False), *measure])
    return [
        f'srun() {{ patient_srun "$@" && if {due} "$RUN"; then',
        f'  patient_srun {step} "$RUN" || {{ local code=$?; ! {due} "$RUN" || return $code; }}; fi; }}',
    ]


def advance(folder: Path) -> str:
    """Return the command that looks at the whole study: this may have been the task that others wait for."""
    return shlex.join([sys.executable, "-m", "launcher.study.advance", str(folder)])
