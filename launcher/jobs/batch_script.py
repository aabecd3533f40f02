"""The job of a run, as submitit writes and submits it."""

from __future__ import annotations

import os
import shlex
import sys
from contextlib import redirect_stderr
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

from submitit import SlurmExecutor
from submitit.core.utils import FailedJobError, FailedSubmissionError

from launcher.jobs.allocation import other_nodes, other_terms
from launcher.jobs.environment_reset import without_inherited
from launcher.jobs.job_record import job_comment
from slurm import control
from slurm.job_environment import interface_variables
from slurm.profile import Profile
from trainer.core.fields import Refused
from trainer.runs.run_folder import RunFolder


@dataclass(frozen=True)
class Request:
    """What a job asks the cluster for."""

    name: str
    nodes: str
    """4, or 2-4: what is free."""
    tasks_per_node: int
    cpus_per_task: int
    gpus_per_node: int
    time_min: int
    after: str | None
    """Start when this job has ended."""
    profile: Profile
    token: str = ""
    """Tells this job from any other of its number."""

    @property
    def cpus_per_node(self) -> int:
        """What the ranks of a node need together: without it, srun may start one rank a node only."""
        return self.tasks_per_node * self.cpus_per_task


class RunExecutor(SlurmExecutor):  # type: ignore[misc]  # submitit is untyped
    """submitit's executor for Slurm, whose tasks run a command.

    Tasks of submitit unpickle a function, and answer signals in its own way until then. Ours are plain programs, which
    note signals from their first line on, and there is nothing to unpickle.
    """

    def __init__(self, folder: Path, command: list[str], request: Request) -> None:
        super().__init__(folder)
        self.command, self.request = command, request

    @property
    def _submitit_command_str(self) -> str:
        # What submitit writes behind `srun` in its script, in place of its own program that unpickles.
        return shlex.join(self.command)

    def _make_submission_command(self, submission_file_path: Path) -> list[str]:
        # sbatch itself must run without them: its SBATCH_ variables win over what the script asks for.
        return without_inherited(os.environ, super()._make_submission_command(submission_file_path))

    def text(self) -> str:
        """Return the batch script."""
        return str(self._make_submission_file_text(self._submitit_command_str, ""))

    def submit_run(self) -> int:
        """Submit, and return Slurm's number of the job, which Slurm has taken as it was asked for.

        Raises:
            Refused: Slurm does not take it, or another one.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            with redirect_stderr(StringIO()):  # submitit repeats there what Slurm says
                number = int(self._submit_command(self._submitit_command_str).job_id)
        except FailedJobError as error:
            lines = [line for line in str(error).splitlines() if "error:" in line]
            raise Refused(f"Slurm does not take the job: {lines[-1] if lines else error}") from None
        except FailedSubmissionError as error:
            # sbatch has answered without a number, so whether the job is queued cannot be told from here.
            said = str(error).partition("\n")[0]
            raise Refused(f"Slurm may or may not have taken the job; see: squeue --me. {said}") from None
        self.compare(number)
        return number

    def compare(self, number: int) -> None:
        """Hold what Slurm has taken against the request, and say on standard error what differs.

        Raises:
            Refused: the number of nodes does; the job is cancelled.
        """
        try:
            taken = control.show_job(number)
            if taken is None:
                return
            if problem := other_nodes(self.request.nodes, taken):
                control.cancel_job(number)
                raise Refused(f"{problem}, and is cancelled: a plugin of the site does that, or a default; see: sinfo")
        except control.SlurmError:
            return  # it is away for a moment, and each attempt looks at its nodes itself
        for difference in other_terms(self.request.profile.partition, self.request.time_min, taken):
            print(f"note: {difference}", file=sys.stderr)


def run_executor(run: RunFolder, request: Request, code: Path) -> RunExecutor:
    """Return what submits a run's job, with the script that it will be."""
    path = run.path.resolve()
    setup = setup_lines(path, code, request.profile)
    return executor_of(run.logs.resolve() / "slurm", ["launcher.jobs.rank", str(path)], setup, request)


def executor_of(
    folder: Path, module: list[str], setup: list[str], request: Request, together: bool = True
) -> RunExecutor:
    """Return what submits a job whose ranks run a module of ours with its arguments; Slurm speaks into `folder`.

    Args:
        together: as in `srun_arguments`.
    """
    profile = request.profile
    made = RunExecutor(folder, rank_command(profile, module), request)
    made.update_parameters(
        job_name=request.name,
        time=request.time_min,
        cpus_per_task=request.cpus_per_task,
        setup=setup,
        # --signal=USR2@warn_s: to the ranks it means the same as SIGTERM.
        signal_delay_s=profile.warn_s,
        # One file: what Slurm says of an end must stand behind the mark of its attempt (exit_cause.py).
        stderr_to_stdout=True,
        # submitit would ask for a wckey of its own name.
        wckey=None,
        comment=job_comment(request.token) if request.token else None,
        # submitit takes no range of nodes, and never asks for a requeue. mincpus: what srun asks for by itself does not
        # widen the allocation of the batch script, so that several ranks a node would not fit in.
        additional_parameters={"nodes": request.nodes, "requeue": True, "mincpus": request.cpus_per_node},
        srun_args=srun_arguments(request, together),
        **{
            name: value
            for name, value in {
                "partition": profile.partition,
                "account": profile.account,
                "qos": profile.qos,
                "constraint": profile.constraint,
                "gpus_per_node": request.gpus_per_node,
                "mem": f"{profile.memory_gb}GB" if profile.memory_gb else None,
                "exclusive": profile.exclusive,
                # afterany: also behind a run that has failed, whose nodes are free as well then.
                "dependency": f"afterany:{request.after}" if request.after else None,
            }.items()
            # What is empty is left out: then sbatch takes the site's own default.
            if value
        },
    )
    return made


def srun_arguments(request: Request, together: bool = True) -> list[str]:
    """Return how srun starts the ranks. A range of nodes gets all that are free only if the script names no tasks.

    Args:
        together: the end of one is that of all.
    """
    profile = request.profile
    # --wait=0: ranks end at different times, and a site's WaitTime would kill those that still save.
    arguments = [f"--kill-on-bad-exit={int(together)}", "--wait=0", f"--ntasks-per-node={request.tasks_per_node}"]
    if request.cpus_per_task > 1:
        arguments.append(f"--cpus-per-task={request.cpus_per_task}")  # since Slurm 22.05 srun does not inherit it
    if request.gpus_per_node:
        # Each rank sees all of its node's GPUs and takes that of its number; then, of all the job's cores there, its
        # share of those beside that GPU. Slurm's own binding alternates sockets, and knows of no GPU.
        arguments += ["--gpu-bind=none", "--cpu-bind=none"]
    if profile.container == "pyxis":
        arguments.append(f"--container-image={profile.image}")
        arguments += [f"--container-mounts={','.join(profile.mounts)}"] if profile.mounts else []
    return [*arguments, *profile.srun]


def rank_command(profile: Profile, module: list[str]) -> list[str]:
    """Return what runs a module of ours on a node, with its arguments."""
    prefix = (
        ["apptainer", "exec", *apptainer_arguments(profile), profile.image] if profile.container == "apptainer" else []
    )
    return [*prefix, profile.python or sys.executable, "-m", *module]


def apptainer_arguments(profile: Profile) -> list[str]:
    """Return apptainer's arguments for the folders that the container sees, and for its GPUs."""
    return ["--nv", *(f"--bind={mount}" for mount in profile.mounts)]


def setup_lines(run: Path, code: Path, profile: Profile) -> list[str]:
    """Return the lines of shell around srun: bash waits out signals, `begin` opens the attempt, `ended` closes it."""
    return [*environment_lines(code, profile), *guard_lines(shlex.quote(str(run)))]


def guard_lines(run: str, srun: str = "srun", at_end: str = "exit $?", begin: str = "begin") -> list[str]:
    """Return the lines that guard an attempt of the run that the word `run` names in shell.

    Args:
        srun: the function that takes the place of srun, and is patient with it.
        at_end: what the trap does last.
        begin: "begin", or "begin-alone" for a single process, which meets nobody.
    """
    # Not in the container: it asks Slurm's commands, which an image need not have.
    batch = shlex.join([sys.executable, "-m", "launcher.jobs.batch"])
    return [
        "# The ranks answer what ends an attempt; bash waits for them, and passes SIGTERM on to `begin` alone.",
        "trap 'kill -TERM ${RENDEZVOUS_PID:-} 2>/dev/null' TERM",
        # Slurm may send these to the batch script as well, and bash ends at USR1 or USR2 unless it traps them.
        "trap : USR1 USR2 CONT",
        # submitit writes the line that calls srun, so a function of that name takes its place. It starts srun in the
        # background, since bash runs no trap while a command in the foreground lasts; `wait` returns at each signal.
        f'{srun}() {{ command srun "$@" & local ranks=$! code',
        "  while wait $ranks; code=$?; kill -0 $ranks 2>/dev/null; do :; done; return $code; }",
        # Closing its input ends `begin`, and with it the store: nobody meets there any more.
        'ended() { code=$?; [ -n "${RENDEZVOUS[1]:-}" ] && exec {RENDEZVOUS[1]}>&-',
        f"  {batch} ended {run} $code; {at_end}; }}",
        "trap ended EXIT",
        f"coproc RENDEZVOUS {{ exec {batch} {begin} {run}; }}",
        # No address: `begin` has found that this attempt must not train. The trap at EXIT runs all the same.
        'read -r MASTER_ADDR MASTER_PORT <&"${RENDEZVOUS[0]}" || exit 1',
        "export MASTER_ADDR MASTER_PORT",
    ]


def environment_lines(code: Path, profile: Profile) -> list[str]:
    """Return the lines of shell that lead to the code, and to the site's ways."""
    # One thread, as the number of threads changes the bits on a CPU. Unbuffered: a kill takes what is in a buffer.
    variables = {"PYTHONPATH": str(code), "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    if profile.interface:
        variables |= interface_variables(profile.interface)
    variables |= dict(variable.split("=", 1) for variable in profile.environment)
    return [
        # `python -m` looks into the current folder first: from the checkout it would run what was edited since.
        f"cd {shlex.quote(str(code))} || exit 1",
        *(f"export {name}={shlex.quote(value)}" for name, value in variables.items()),
        # Last: the site's own lines have the last word.
        *profile.setup,
    ]
