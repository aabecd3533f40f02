"""From what a user asks for to a checked value, which whoever acts only reads: nothing is written here.

`prepare_run` is for `submit` and `resume`: it resolves the settings once, and decides where the run is trained.
`prepare_job` and `fit_job` are its part about Slurm, which studies and evaluations use as well.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path

from launcher.jobs import checks, job_record
from launcher.jobs.batch_script import Request
from launcher.jobs.demo_data import demo_shards
from launcher.jobs.resource_request import ResourceRequest, node_range, refuse_processes, use_slurm
from slurm import control
from slurm import profile as profiles
from slurm.errors import SlurmUsageError
from slurm.profile import Profile, with_site_defaults
from slurm.records import Partition
from trainer.config.batch_scaling import ScaleRule, Scaling
from trainer.config.config import Config
from trainer.config.recipes import scaling_of
from trainer.core.fields import Refused
from trainer.distributed.rank_environment import refuse_crowd
from trainer.launch.prepared_training import PreparedTraining, prepare_training
from trainer.runs.config_defaults import read_project_file
from trainer.runs.run_folder import RunFolder

DEFAULT_TIME_MIN = 24 * 60
# NVIDIA's before Ampere, and AMD's before CDNA. "rtx6000" is one of Turing's, unless `ada` stands behind it.
WITHOUT_BF16 = re.compile(
    r"(?<![a-z0-9])((k40|k80|m40|m60|p4|p40|p100|v100s?|t4|mi50|mi60)(?![a-z0-9])|gtx|titan|rtx_?20|2080|quadro"
    r"|rtx_?[568]000(?!.?ada))"
)


@dataclass(frozen=True)
class TrainingRequest:
    """What `submit` or `resume` asks for."""

    run: RunFolder
    config: Config
    resources: ResourceRequest
    may_grow: bool
    """A new run may get more micro-batches, so that each process has one."""
    names_processes: bool
    """The command line says --processes, which is of this machine."""
    scale_rule: ScaleRule = "none"
    """What sets rates, penalties and moving average of a run with another batch than its recipe's."""


@dataclass(frozen=True)
class PreparedJob:
    """A checked request, and where it goes."""

    request: Request
    partition: Partition

    @property
    def max_processes(self) -> int:
        """Processes when all nodes asked for are there."""
        return node_range(self.request.nodes)[1] * self.request.tasks_per_node


@dataclass(frozen=True)
class PreparedRun:
    """A run that is ready to be trained, on Slurm or on this machine."""

    training: PreparedTraining
    job: PreparedJob | None
    """None: it is trained on this machine."""
    resources: ResourceRequest
    batch_asked: int
    """The batch size before it has grown."""
    scaling: Scaling | None
    """What the paper's rule does to a run that begins; None: nothing."""
    scaled: bool
    """That was done."""


def prepare_run(asked: TrainingRequest) -> PreparedRun:
    """Check everything, and resolve the settings.

    Raises:
        Refused: something is wrong.
    """
    # Inside torchrun or srun every process would submit the run once.
    refuse_crowd("launcher submit")
    node_range(asked.resources.nodes)
    on_slurm = use_slurm(asked.resources)
    asked.config.check()  # what follows divides by its values
    config = asked.config if asked.config.data else replace(asked.config, data=demo_shards(asked.config.network))
    job = prepare_job(asked.run, config, asked.resources) if on_slurm else None
    if job:
        refuse_processes(asked.names_processes, job.request.gpus_per_node > 0)
        config = with_precision_of_nodes(config, job)
    processes = job.max_processes if job else config.processes
    batch_asked = config.batch_size
    # Only for a run that begins: the number of micro-batches is part of what its bits follow from.
    if processes and processes > config.micro_batches and asked.may_grow and not asked.run.config.exists():
        config = config.grown_to(processes)
    scaling, scaled = scaling_of(config), asked.scale_rule == "paper"
    if scaling and scaled:
        # Of a run that exists, too: what it has by the rule stays, and what it has not is refused by its name.
        config = scaling.apply(config)
    begins = not asked.run.config.exists()
    training = prepare_training(asked.run, config, job.max_processes if job else None)
    return PreparedRun(training, job, asked.resources, batch_asked, scaling if begins else None, scaled)


def with_precision_of_nodes(config: Config, job: PreparedJob) -> Config:
    """Return the settings with the precision that the job's GPUs, if any, have: this machine may have others."""
    if config.mixed_precision != "auto" or not job.request.gpus_per_node:
        return config
    # What Slurm or the site calls them, such as gpu:v100:8; of GPUs without a name most have bf16 by now, and a rank
    # that has not says so.
    named = f"{job.partition.gres_per_node} {job.request.profile.constraint}".lower()
    return replace(config, mixed_precision="no" if WITHOUT_BF16.search(named) else "bf16")


def prepare_job(run: RunFolder, config: Config, resources: ResourceRequest) -> PreparedJob:
    """Check a run's job against the cluster, and derive what it asks for.

    Raises:
        Refused: the cluster cannot give it; the run has a job already; the run folder will not do.
    """
    job = fit_job(run, resources, run.path.resolve().name, config.micro_batches)
    # Asked once more when the folder is held (submission.py): here, so that no plan is shown that cannot be.
    checks.refuse_live_job(run)
    checks.check_wandb_key(config)
    return job


def fit_job(run: RunFolder, resources: ResourceRequest, name: str, parts: int) -> PreparedJob:
    """Derive what a job asks Slurm for from what its user asks for and what the cluster has.

    Args:
        run: that the job works on.
        resources: that its user asks for.
        name: of the job, unless its user names it.
        parts: of the work: without GPUs, there are no more processes than these.

    Raises:
        Refused: the cluster cannot give it; the run folder will not do.
    """
    try:
        site = site_profile(resources)
        partition = checks.choose_partition(resources.partition or site.partition, control.list_partitions())
        # As asked for, else as the site says, else all that a node has: an idle GPU is paid for too.
        usual = site.gpus_per_node or partition.gpus_per_node
        gpus = usual if resources.gpus_per_node is None else resources.gpus_per_node
        time_min = time_limit(resources.time, site.time, partition)
        checks.check_partition_limits(resources.nodes, time_min, gpus, partition)
        checks.check_run_folder(run, [node for node in control.list_nodes() if node.name in partition.nodes])
        checks.check_container_mounts(run, site)
    except (control.SlurmError, SlurmUsageError) as error:
        raise Refused(str(error)) from error
    _, most = node_range(resources.nodes)
    request = Request(
        name=resources.name or name,
        nodes=resources.nodes,
        # Without GPUs, one process a core; but on all nodes together no more than there are parts for.
        tasks_per_node=gpus or max(1, min(partition.cores_per_node, parts // most)),
        # The cores of a node are shared out among its GPUs: a rank decodes pictures as well.
        cpus_per_task=max(1, partition.cores_per_node // partition.gpus_per_node) if gpus else 1,
        gpus_per_node=gpus,
        time_min=time_min,
        after=job_to_wait_for(resources.after) if resources.after else None,
        profile=checks.limit_warning_time(replace(site, partition=partition.name), time_min),
    )
    return PreparedJob(request, partition)


def site_profile(resources: ResourceRequest) -> Profile:
    """Return the profile of the command line, else that of lienzo.toml, else an empty one, and sbatch's variables."""
    named = resources.profile or read_project_file().get("profile")
    return with_site_defaults(profiles.load_profile(str(named)) if named else Profile(), os.environ)


def time_limit(asked: str | None, profile: str, partition: Partition) -> int:
    """Return the minutes of one attempt: as asked for, else the profile's, else the partition's default, else a day."""
    if asked is not None:
        return checks.parse_minutes(asked)
    if profile:
        return checks.parse_minutes(profile, "time in the profile")
    return partition.default_time_min or min(DEFAULT_TIME_MIN, partition.max_time_min or DEFAULT_TIME_MIN)


def job_to_wait_for(path: Path) -> str:
    """Return what Slurm calls the job of another run.

    Raises:
        Refused: it has none.
    """
    record = job_record.find_record(RunFolder(path))
    if record is None:
        raise Refused(f"--after {path}: this run was never submitted to a cluster")
    return record.name
