"""What a shell has in its environment: what of it reaches the ranks, what stays behind, what is refused."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from launcher.jobs.allocation import other_nodes, other_terms, other_world
from launcher.jobs.attempts import Cause
from launcher.jobs.environment_reset import stays_behind, without_inherited
from launcher.jobs.job_record import JobRecord
from slurm import control
from slurm.dev_cluster import DevCluster
from slurm.job_environment import TaskInfo
from slurm.profile import Profile, with_site_defaults
from tests.conftest import HOME, TINY, fingerprint, train
from tests.fake_slurm import live_job
from tests.ordeal import Ordeal
from trainer.core.fields import Refused
from trainer.distributed.numerical_environment import environment_differences, numerical_environment
from trainer.distributed.rank_environment import COUNTED_BY, rank_environment, refuse_crowd
from trainer.distributed.world import World
from trainer.runs import journal
from trainer.runs.journal import now
from trainer.runs.run_folder import RunFolder
from trainer.training.worker import refuse_other_world

TOTAL = ("--total-images", "256")

# A shell in a step of another job, in which somebody has tried things out.
ANOTHER_JOB = {
    **{"SLURM_JOB_ID": "424242", "SLURM_PROCID": "0", "SLURM_NTASKS": "1", "SLURM_NPROCS": "1", "SLURM_NNODES": "1"},
    **{"SLURM_JOB_NUM_NODES": "1", "SLURM_NTASKS_PER_NODE": "1", "SLURM_STEP_NUM_TASKS": "1", "SLURM_NODELIST": "n9"},
    **{"SLURM_EXPORT_ENV": "NONE", "SBATCH_EXPORT": "NONE", "SBATCH_TIMELIMIT": "1", "SBATCH_NO_REQUEUE": "1"},
    **{"SLURM_DISTRIBUTION": "arbitrary", "SCANCEL_INTERACTIVE": "1", "SQUEUE_FORMAT": "%i"},
}
ANOTHER_LAUNCHER = {
    **{"RANK": "5", "WORLD_SIZE": "7", "LOCAL_RANK": "5", "MASTER_ADDR": "10.9.8.7", "MASTER_PORT": "1"},
    **{"PMI_SIZE": "1", "PMI_RANK": "3", "TORCHELASTIC_RUN_ID": "x", "FORK_LAUNCHED": "1"},
    **{"ACCELERATE_USE_CPU": "false", "ACCELERATE_USE_FSDP": "true", "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4"},
}
HABITS = {
    **{"PYTHONWARNINGS": "error", "PYTHONOPTIMIZE": "1", "OPENBLAS_NUM_THREADS": "4", "OMP_PROC_BIND": "true"},
    **{"OMP_NUM_THREADS": "8", "CUDA_VISIBLE_DEVICES": "7", "POSIXLY_CORRECT": "1", "SHELLOPTS": "errexit:nounset"},
}


@pytest.fixture(scope="module")
def undisturbed(shards32: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[int, str]:
    """The fingerprint of a run from a plain shell."""
    folder = tmp_path_factory.mktemp("undisturbed") / "r"
    train(folder, shards32, *TOTAL, processes=2)
    return fingerprint(folder)


def launch(arguments: tuple[str, ...], variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run the launcher in a shell with these variables; it is the ranks' environment that is tried, not its own."""
    command = [sys.executable, "-W", "ignore", "-m", "launcher", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, cwd=HOME, env=os.environ | variables, check=False, timeout=240
    )


def test_a_run_on_this_machine_is_the_same_from_any_shell(
    shards32: Path, tmp_path: Path, undisturbed: tuple[int, str]
) -> None:
    settings = ("submit", *TINY, *TOTAL, "--run", str(tmp_path / "r"), "--data", str(shards32), "--processes", "2")
    variables = ANOTHER_JOB | ANOTHER_LAUNCHER | HABITS
    done = launch((*settings, "--cluster", "local"), {n: v for n, v in variables.items() if n != "PYTHONWARNINGS"})
    assert done.returncode == 0, done.stderr
    assert fingerprint(tmp_path / "r") == undisturbed
    recorded = [row for row in journal.read_rows(RunFolder(tmp_path / "r").events) if row["kind"] == "environment"]
    assert recorded[0]["processes"] == 2


def test_a_job_is_as_planned_from_any_shell(
    on_slurm: DevCluster, shards32: Path, tmp_path: Path, undisturbed: tuple[int, str]
) -> None:
    ordeal = Ordeal(on_slurm, shards32, tmp_path / "r", settings=TOTAL)
    settings = ("submit", *TINY, *TOTAL, "--run", str(tmp_path / "r"), "--data", str(shards32), "--nodes", "2")
    done = launch(settings, ANOTHER_JOB | ANOTHER_LAUNCHER | HABITS | on_slurm.environment)
    assert done.returncode == 0, done.stderr
    assert ordeal.wait_for_end().cause is Cause.FINISHED, ordeal.story()
    assert len(ordeal.attempts()[0].nodes) == 2
    recorded = [row for row in journal.read_rows(ordeal.run.events) if row["kind"] == "environment"]
    assert recorded[0]["processes"] == 4, "two nodes of two cores"
    assert fingerprint(tmp_path / "r") == undisturbed


def test_an_attempt_with_fewer_processes_than_planned_is_refused(
    on_slurm: DevCluster, shards32: Path, tmp_path: Path
) -> None:
    """Set where no plan sees it: in the site's own lines."""
    ordeal = Ordeal(on_slurm, shards32, tmp_path / "r", settings=TOTAL)
    (tmp_path / "site.toml").write_text('setup = ["export SLURM_NTASKS=1 SLURM_NNODES=1"]\n')
    ordeal.submit("--nodes", "2", "--profile", str(tmp_path / "site.toml"))
    ended = ordeal.wait_for_end()
    assert ended.cause is Cause.REFUSED, ordeal.story()
    told = "the job asked for 2 nodes with 2 processes each, and this attempt has 2 nodes and 1 processes"
    assert told in ended.detail
    shown = json.loads(ordeal.command("status", str(tmp_path / "r"), "--json"))[0]
    assert (shown["state"], shown["reason"]) == ("refused", ended.detail)


def test_a_job_that_slurm_takes_with_fewer_nodes_is_cancelled_and_refused(
    on_slurm: DevCluster, shards32: Path, tmp_path: Path
) -> None:
    """As a plugin of a site may do it: here an sbatch in front of the real one."""
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "sbatch").write_text(f'#!/bin/sh\nexec {shutil.which("sbatch")} --nodes=1 --partition=urgent "$@"\n')
    (tools / "sbatch").chmod(0o755)
    settings = ("submit", *TINY, *TOTAL, "--run", str(tmp_path / "fewer"), "--data", str(shards32))
    path = {"PATH": f"{tools}:{os.environ['PATH']}"}
    done = launch((*settings, "--nodes", "2"), path | on_slurm.environment)
    assert done.returncode == 2
    assert "refused: Slurm has taken the job with 1 nodes in place of 2, and is cancelled" in done.stderr
    (job,) = [job for job in on_slurm.jobs() if job.name == "fewer"]
    assert job.state.startswith("CANCELLED")
    assert not (tmp_path / "fewer" / "job.json").exists()

    done = launch((*settings, "--nodes", "1"), path | on_slurm.environment)
    assert done.returncode == 0, done.stderr
    assert "note: Slurm has put the job into partition urgent in place of main" in done.stderr


def test_several_processes_that_nobody_told_of_each_other_are_refused(
    on_slurm: DevCluster, shards32: Path, tmp_path: Path
) -> None:
    command = ["srun", "-N2", "-n2", sys.executable, "-m"]
    environment = os.environ | on_slurm.environment | {"PYTHONPATH": str(HOME)}
    for program in ("trainer", "train"), ("launcher", "submit", "--cluster", "local"):
        arguments = [*program, *TINY, "--run", str(tmp_path / "r"), "--data", str(shards32)]
        done = subprocess.run([*command, *arguments], env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 2, done.stderr
        assert f"srun has started `{' '.join(program[:2])}` 2 times (SLURM_STEP_NUM_TASKS)" in done.stderr
        assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("program", COUNTED_BY)
def test_every_launcher_that_counts_is_known(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in COUNTED_BY.values():
        monkeypatch.delenv(variable, raising=False)
    refuse_crowd("trainer train")
    monkeypatch.setenv(COUNTED_BY[program], "1")
    refuse_crowd("trainer train")
    monkeypatch.setenv(COUNTED_BY[program], "3")
    with pytest.raises(Refused, match=f"{program} has started `trainer train` 3 times"):
        refuse_crowd("trainer train")


def test_a_group_of_another_size_than_was_started_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    refuse_other_world(World(0, 2))
    with pytest.raises(Refused, match="2 processes were started, but this one is rank 0 of 1"):
        refuse_other_world(World(0, 1))


def test_a_rank_has_its_own_place_and_all_else_of_its_parents(monkeypatch: pytest.MonkeyPatch) -> None:
    parent = {**ANOTHER_LAUNCHER, **HABITS, "https_proxy": "http://proxy", "WANDB_API_KEY": "x", "PATH": "/bin"}
    made = rank_environment(parent, 1, 0, 3, 1)
    assert {made[name] for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")} == {"1", "0", "3"}
    assert made["OMP_NUM_THREADS"] == "1"
    assert not {"MASTER_ADDR", "PMI_SIZE", "ACCELERATE_USE_FSDP", "OPENBLAS_NUM_THREADS", "PYTHONWARNINGS"} & {*made}
    assert {"https_proxy", "WANDB_API_KEY", "PATH", "CUDA_VISIBLE_DEVICES"} <= {*made}


def test_no_value_of_the_environment_stands_in_the_command_that_submits(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in (ANOTHER_JOB | {"SBATCH_SECRET": "do not tell", "WANDB_API_KEY": "nor this"}).items():
        monkeypatch.setenv(name, value)
    command = without_inherited(os.environ, ["sbatch", "script"])
    assert command[0] == "env"
    assert command[-2:] == ["sbatch", "script"]
    assert "--unset=SLURM_NTASKS" in command
    assert "do not tell" not in " ".join(command)
    assert not any("WANDB_API_KEY" in word for word in command)


@pytest.mark.parametrize(
    "name", ["SLURM_CONF", "SLURM_CLUSTERS", "SLURM_JWT", "SBATCH_RESERVATION", "HOME", "NCCL_DEBUG"]
)
def test_what_says_where_the_cluster_is_and_who_pays_goes_along(name: str) -> None:
    assert not stays_behind(name)


def test_sbatchs_variables_fill_what_the_profile_leaves_open() -> None:
    shell = {"SBATCH_PARTITION": "p", "SBATCH_ACCOUNT": "a", "SBATCH_QOS": "q", "SBATCH_CONSTRAINT": "c"}
    filled = with_site_defaults(Profile(account="mine"), shell)
    assert (filled.partition, filled.account, filled.qos, filled.constraint) == ("p", "mine", "q", "c")
    assert with_site_defaults(Profile(), {}) == Profile()


def test_what_slurm_has_taken_is_held_against_the_plan() -> None:
    from dataclasses import replace

    waits = replace(live_job(7, "PENDING"), nodes=(), nodes_asked="2-4", partition="main", time_min=60)
    assert other_nodes("2-4", waits) is None
    assert other_nodes("4", replace(waits, nodes_asked="4-4")) is None
    assert other_nodes("4", waits) == "Slurm has taken the job with 2-4 nodes in place of 4"
    runs = replace(waits, nodes=("a", "b", "c"), nodes_asked="3")
    assert other_nodes("2-4", runs) is None
    assert other_nodes("4", runs)
    assert other_nodes("3-4", waits)
    assert list(other_terms("main", 60, waits)) == []
    said = list(other_terms("gpu", 90, replace(waits, requeues=False)))
    assert said == [
        "Slurm has put the job into partition main in place of gpu",
        "Slurm has given each attempt 60 minutes in place of 90 minutes",
        "Slurm will not start the job again: after an interruption, resume it",
    ]


def test_each_start_holds_its_world_against_what_was_asked() -> None:
    def place(size: int) -> TaskInfo:
        return TaskInfo(7, 0, 0, size, 0, 2, "n1")

    record = JobRecord(7, 1, "2-4", 2, 120, now())
    assert other_world(place(6), 3, record) is None
    for size, nodes in ((3, 3), (2, 1), (10, 5), (7, 3)):
        assert other_world(place(size), nodes, record)


def test_variables_that_change_bits_are_recorded_and_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    before = numerical_environment(torch.device("cpu"))
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    (difference,) = environment_differences(before, numerical_environment(torch.device("cpu")))
    assert difference.startswith("variables was ")
    assert "ONEDNN_MAX_CPU_ISA=AVX2" in difference


def test_scancel_does_not_ask(on_slurm: DevCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user who wants to be asked has set it for their own hands; a command of ours has nobody to answer."""
    job = subprocess.run(["sbatch", "--parsable", "--hold", "--wrap=true"], capture_output=True, text=True, check=True)
    monkeypatch.setenv("SCANCEL_INTERACTIVE", "1")
    control.cancel_job(job.stdout.strip())
    cancelled = control.show_job(job.stdout.strip())
    assert cancelled
    assert cancelled.state.startswith("CANCELLED")


def test_the_documentation_lists_what_is_decided() -> None:
    from launcher.jobs.environment_reset import GPUS, SHELL
    from slurm.command_environment import CLUSTER_VARIABLES, OPTION_PREFIXES, PASSED_ON
    from trainer.distributed.rank_environment import CHANGES_BITS, FOREIGN, FOREIGN_PREFIXES

    text = (HOME / "docs" / "cluster.md").read_text()
    named = {
        *FOREIGN,
        *FOREIGN_PREFIXES,
        *CHANGES_BITS,
        *OPTION_PREFIXES,
        *CLUSTER_VARIABLES,
        *PASSED_ON,
        *SHELL,
        *GPUS,
    }
    assert not sorted(name for name in named if name not in text)
