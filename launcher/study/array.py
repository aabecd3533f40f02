"""The runs of a study on a cluster: one array, each of whose tasks trains a run and measures it."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import uuid4

from launcher.jobs import batch_script, code_snapshot, job_record
from launcher.jobs.batch_script import Request, RunExecutor
from launcher.jobs.preparation import PreparedJob, prepare_job
from launcher.jobs.submission import new_record, record_submission, write_settings
from launcher.study.plan import StudyPlan, StudyTask
from launcher.study.prepare import load_arms, resolve_task, task_config
from trainer.config.config import Config


@dataclass(frozen=True)
class PreparedArray:
    """Runs of a study that are ready to be queued."""

    plan: StudyPlan
    tasks: Sequence[tuple[StudyTask, Config]]
    """With their resolved settings."""
    job: PreparedJob
    """What each task of the array asks for."""


def prepare_array(plan: StudyPlan, tasks: Sequence[StudyTask]) -> PreparedArray:
    """Check what each arm asks for against the cluster, take what suits all, and resolve the settings of all runs.

    Raises:
        Refused: the cluster cannot give it, or a run was begun with other settings.
    """
    arms = load_arms(plan, tasks)
    # Reversed, so that of each arm its first task stays in the dictionary.
    first = {task.arm: task_config(plan, task, arms[task.arm].config) for task in reversed(tasks)}
    runs = {task.arm: task.run for task in reversed(tasks)}
    jobs = [prepare_job(runs[arm], config, plan.resources) for arm, config in first.items()]
    fewest = min(job.request.tasks_per_node for job in jobs)  # else an arm has fewer micro-batches than processes
    request = replace(jobs[0].request, name=plan.settings.name, tasks_per_node=fewest)
    job = replace(jobs[0], request=request)
    resolved = [(task, resolve_task(plan, task, arms[task.arm], job)) for task in tasks]
    return PreparedArray(plan, resolved, job)


def claim_stage(plan: StudyPlan, stage: int) -> bool:
    """Note that a stage is queued; False: it was noted before. A budget that was changed makes other stages."""
    plan.folder.queue.mkdir(parents=True, exist_ok=True)
    try:
        # To make a file that must not exist is atomic on network file systems as well: of many tasks one succeeds.
        (plan.folder.queue / f"stage-{stage}-{plan.settings.budget.amount}").touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def submit_array(prepared: PreparedArray) -> int:
    """Write the run folders, queue the array, and return its number.

    Raises:
        Refused: a folder cannot be written, or Slurm does not take the array.
    """
    plan, tasks, job = prepared.plan, prepared.tasks, prepared.job
    jobs = plan.folder.jobs
    jobs.logs.mkdir(parents=True, exist_ok=True)
    plan.folder.queue.mkdir(exist_ok=True)
    number = len(list(plan.folder.queue.glob("*.txt"))) + 1
    code = (
        code_snapshot.HOME
        # Queued by the end of a task, which runs the study's copy already: all stages run the same code.
        if code_snapshot.HOME.is_relative_to(jobs.code.resolve())
        else code_snapshot.take_snapshot(jobs, number)
    )
    runs = plan.folder.tasks(number)
    runs.write_text("".join(f"{task.run.path.resolve()}\n" for task, _ in tasks))
    request = replace(job.request, token=uuid4().hex[:12])
    for task, config in tasks:
        # All of it before the array is queued: a task may start before `submit_run` returns.
        write_settings(task.run, config)
        if target := plan.target(task):
            target.save(task.run)
    submitted = {
        task: new_record(job_record.find_record(task.run), request, job.partition.name, place)
        for place, (task, _) in enumerate(tasks)
    }
    with record_submission({task.run: record for task, record in submitted.items()}):
        array = array_executor(plan, request, code, runs, len(tasks)).submit_run()
        for task, record in submitted.items():
            if job_record.find_record(task.run) == record:  # else it has begun already, and knows its own number
                replace(record, job=array).save(task.run)
    return array


def array_script(prepared: PreparedArray) -> str:
    """Return the batch script, for a look at it before anything is done."""
    folder = prepared.plan.folder
    made = array_executor(prepared.plan, prepared.job.request, folder.code(1), folder.tasks(1), len(prepared.tasks))
    return made.text()


def array_executor(plan: StudyPlan, request: Request, code: Path, runs: Path, tasks: int) -> RunExecutor:
    """Return what submits the array, with the script that it will be."""
    folder = plan.folder.path.resolve()
    lines = [
        *batch_script.environment_lines(code.resolve(), request.profile),
        *lines_to_find_run(folder, runs.resolve()),
        *batch_script.guard_lines('"$RUN"', "patient_srun", f"code=$?; {advance_command(folder)}; exit $code"),
        *lines_to_measure(request),
    ]
    made = batch_script.executor_of(
        folder / "logs" / "slurm", ["launcher.study.rank", str(runs.resolve())], lines, request
    )
    limit = f"%{plan.settings.at_once}" if plan.settings.at_once else ""
    parameters = {**made.parameters["additional_parameters"], "array": f"0-{tasks - 1}{limit}"}
    made.update_parameters(additional_parameters=parameters)
    return made


def lines_to_find_run(folder: Path, runs: Path) -> list[str]:
    """Return the lines that find a task's run; what the batch script says is to be seen there as well."""
    log = shlex.quote(str(folder / "logs" / "slurm"))
    return [
        # sed counts lines from 1, Slurm counts tasks from 0.
        f'RUN=$(sed -n "$((SLURM_ARRAY_TASK_ID + 1))p" {shlex.quote(str(runs))})',
        f'mkdir -p "$RUN/logs/slurm" && ln -sfn {log}/"${{SLURM_JOB_ID}}_0_log.out" "$RUN/logs/slurm/"',
    ]


def lines_to_measure(request: Request) -> list[str]:
    """Return the lines by which a run that has finished is measured in the same task.

    What became of single ranks does not matter once the figures are there.
    """
    due = shlex.join([sys.executable, "-m", "launcher.study.evaluate_run", "--due"])
    # In the container like the ranks; whether it is due, the batch script asks on the node itself.
    measure = batch_script.rank_command(request.profile, ["launcher.study.evaluate_run", "--task"])
    step = shlex.join(["--unbuffered", *batch_script.srun_arguments(request, together=False), *measure])
    return [
        f'srun() {{ patient_srun "$@" && if {due} "$RUN"; then',
        f'  patient_srun {step} "$RUN" || {{ local code=$?; ! {due} "$RUN" || return $code; }}; fi; }}',
    ]


def advance_command(folder: Path) -> str:
    """Return the command that looks at the whole study: this may have been the task that others wait for."""
    return shlex.join([sys.executable, "-m", "launcher.study.advance", str(folder)])
