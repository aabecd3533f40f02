"""The folder, the ports and the slurm.conf of a development cluster."""

from __future__ import annotations

import os
import pwd
import random
import re
import socket
from pathlib import Path

from slurm.dev_settings import CLUSTER_NAME, DevClusterSettings
from slurm.errors import SlurmUsageError

# The path of a unix socket has at most 107 characters; our longest is FOLDER/spool/n1234/n1234_12345678.4294967295.
LONGEST_FOLDER = 107 - len("/spool/n1234/n1234_12345678.4294967295")

# linuxproc and task/none need no cgroups, so several slurmd run on one host without root. config_overrides lets a node
# have more cores and memory than this machine. ReturnToService=2 and SlurmdTimeout=10: a dead node is noticed soon, and
# comes back without an administrator. MinJobAge: without accounting, the controller alone remembers jobs that ended.
TEMPLATE = """\
ClusterName={name}
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
# cred_expire is also how long a requeued job waits before it may start again
AuthInfo=socket={folder}/munge/socket,cred_expire={settings.requeue_delay_s}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/pids/slurmctld
SlurmdPidFile={folder}/pids/%n
SlurmctldLogFile={folder}/logs/slurmctld.log
SlurmdLogFile={folder}/logs/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=1,sched_interval=2,bf_interval=1,sched_min_interval=100000
ReturnToService=2
SlurmdTimeout=10
InactiveLimit=0
KillWait={settings.kill_wait_s}
MinJobAge=3600
MailProg=/bin/true
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/none
JobRequeue={requeue}
NodeName=n[1-{settings.nodes}] NodeHostname={host} NodeAddr=127.0.0.1 Port={node_ports} Sockets=1 \
CoresPerSocket={settings.cores} ThreadsPerCore=1 RealMemory={settings.memory_mb} State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime={settings.time_limit} PriorityTier=1 \
GraceTime={settings.grace_s} State=UP
PartitionName=urgent Nodes=ALL MaxTime=UNLIMITED PriorityTier=10 PreemptMode=OFF State=UP
"""

# How a site forbids requeueing: JobRequeue=0 alone is only a default, which sbatch --requeue overrides.
NEVER_REQUEUE = """\
function slurm_job_submit(job, partitions, user)
  job.requeue = 0
  return slurm.SUCCESS
end
function slurm_job_modify(job, record, partitions, user)
  return slurm.SUCCESS
end
"""


def check_folder(folder: Path) -> None:
    """Check that Slurm can use a folder.

    Raises:
        SlurmUsageError: its path is too long for sockets or has characters that slurm.conf cannot hold, or it holds
            something else.
    """
    there = {path.name for path in folder.iterdir()} if folder.exists() else set()
    # The lock is made before the settings, so a killed first `up` leaves it alone in the folder.
    if "settings.json" not in there and there - {"lock"}:
        raise SlurmUsageError(f"{folder} holds something else: give another --folder")
    if len(str(folder)) > LONGEST_FOLDER:
        raise SlurmUsageError(
            f"{folder}: {len(str(folder))} characters; give a --folder of at most {LONGEST_FOLDER} (sockets)"
        )
    if odd := re.sub(r"[\w./+-]", "", str(folder)):
        raise SlurmUsageError(f"{folder}: slurm.conf cannot hold {odd!r} in a path; give another --folder")


def free_ports(count: int) -> list[int]:
    """Return distinct ports that nothing listens on.

    They lie below the range of outgoing connections: none of these may take the port of a node that is down for now.

    Raises:
        SlurmUsageError: there are too few.
    """
    first_taken = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    # More candidates than needed, because some ports are taken; random ones, because two clusters may start at once.
    candidates = random.sample(range(10_000, max(first_taken, 20_000)), k=10 * count + 50)
    ports: list[int] = []
    for port in candidates:
        with socket.socket() as probe:
            try:
                probe.bind(("", port))
            except OSError:
                continue
        ports.append(port)
        if len(ports) == count:
            return ports
    raise SlurmUsageError("there are not enough free ports on this machine")


def write_configuration(folder: Path, settings: DevClusterSettings) -> None:
    """Write the files that the daemons read, and make the folders that they write to."""
    for name in ("logs", "munge", "pids", "spool", "state"):
        (folder / name).mkdir(exist_ok=True)
    for node in settings.names:
        (folder / "spool" / node).mkdir(exist_ok=True)
    key = folder / "munge" / "key"
    if not key.exists():
        key.touch(mode=0o600)  # before the content: munged refuses a key that others can read
        key.write_bytes(os.urandom(128))
    (folder / "job_submit.lua").write_text(NEVER_REQUEUE)
    (folder / "slurm.conf").write_text(slurm_conf(folder, settings, free_ports(1 + settings.nodes)))


def slurm_conf(folder: Path, settings: DevClusterSettings, ports: list[int]) -> str:
    """Return the text of slurm.conf; the first port is the controller's, the others are the nodes'."""
    styles = {"term": "", "user": "SlurmctldParameters=preempt_send_user_signal\n"}
    # slurmctld does not start if it is built without the lua plugin, so it is asked for only if needed.
    never = "JobSubmitPlugins=lua\n" if settings.requeue == "no" else ""
    return (
        styles[settings.signal_style]
        + never
        + TEMPLATE.format(
            name=CLUSTER_NAME,
            folder=folder,
            host=socket.gethostname().partition(".")[0],
            user=user_name(),
            port=ports[0],
            node_ports=",".join(map(str, ports[1:])),
            requeue=int(settings.requeue == "yes"),
            settings=settings,
        )
    )


def user_name() -> str:
    """Return the name of the user, who runs the daemons.

    Raises:
        SlurmUsageError: the user has no name here, as in some containers.
    """
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        raise SlurmUsageError(
            f"user {os.getuid()} has no name on this machine (/etc/passwd), and Slurm needs one"
        ) from None
