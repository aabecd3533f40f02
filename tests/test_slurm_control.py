"""What Slurm's commands print, read as it was recorded from Slurm 22.05; and commands that fail."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from slurm import control
from slurm.accounting import as_ended_job
from slurm.client import run_slurm
from slurm.errors import SlurmError
from slurm.parsing import as_job, as_node, as_partition, limit_minutes, parse_records
from slurm.records import Node, count_gpus

HELD = """\
JobId=11 JobName=two words UserId=me
   UserId=root(0) GroupId=root(0) MCS_label=N/A
   Priority=0 Nice=0 Account=(null) QOS=(null)
   JobState=PENDING Reason=JobHeldUser Dependency=(null)
   Requeue=1 Restarts=0 BatchFlag=1 Reboot=0 ExitCode=0:0
   RunTime=00:00:00 TimeLimit=1-02:04:00 TimeMin=N/A
   SubmitTime=1795557496 EligibleTime=Unknown
   AccrueTime=Unknown
   StartTime=Unknown EndTime=Unknown Deadline=N/A
   SuspendTime=None SecsPreSuspend=0 LastSchedEval=1795557496 Scheduler=Main
   Partition=urgent AllocNode:Sid=localhost:3892
   ReqNodeList=(null) ExcNodeList=(null)
   NodeList=
   NumNodes=1-1 NumCPUs=1 NumTasks=1 CPUs/Task=1 ReqB:S:C:T=0:0:*:*
   TRES=cpu=1,mem=4G,node=1,billing=1
   Socks/Node=* NtasksPerN:B:S:C=0:0:*:* CoreSpec=*
   MinCPUsNode=1 MinMemoryNode=0 MinTmpDiskNode=0
   Features=(null) DelayBoot=00:00:00
   OverSubscribe=OK Contiguous=0 Licenses=(null) Network=(null)
   Command=(null)
   WorkDir=/tmp
   Comment=JobState=FAILED of my own 
   StdErr=/tmp/slurm-11.out
   StdIn=/dev/null
   StdOut=/tmp/slurm-11.out
   Power=
   

"""

PREEMPTED = """\
JobId=9 JobName=trap.sh
   JobState=RUNNING Reason=None Dependency=(null)
   Requeue=1 Restarts=2 BatchFlag=1 Reboot=0 ExitCode=0:9
   RunTime=00:00:05 TimeLimit=365-00:00:00 TimeMin=N/A
   SubmitTime=1795557436 EligibleTime=1795557436
   StartTime=1795557439 EndTime=1795557460 Deadline=N/A
   PreemptEligibleTime=1795557439 PreemptTime=1795557440
   ReqNodeList=(null) ExcNodeList=(null)
   NodeList=n[1-2]
   BatchHost=n1
   NumNodes=2 NumCPUs=2 NumTasks=2 CPUs/Task=1 ReqB:S:C:T=0:0:*:*
   Command=/tmp/trap.sh --reason Reason=none
"""

NODES = """\
NodeName=n3 Arch=x86_64 CoresPerSocket=2 
   CPUAlloc=0 CPUEfctv=2 CPUTot=2 CPULoad=1.15
   Gres=gpu:a100:4(S:0-1)
   NodeAddr=10.0.0.3 NodeHostName=vm Port=21676 Version=22.05.8
   OS=Linux 6.18.44-fc-v769 #1 SMP PREEMPT_DYNAMIC @0 
   RealMemory=4096 AllocMem=0 FreeMem=22978 Sockets=1 Boards=1
   State=IDLE+DRAIN ThreadsPerCore=1 TmpDisk=0 Weight=1 Owner=N/A MCS_label=N/A
   BootTime=1795555177 SlurmdStartTime=1795556963
   Reason=two words [root@1795556981]

NodeName=n4 Arch=x86_64 CoresPerSocket=2 
   CPUAlloc=0 CPUEfctv=4 CPUTot=4 CPULoad=1.15
   Gres=(null)
   NodeAddr=10.0.0.4 NodeHostName=vm Port=21677 Version=22.05.8
   RealMemory=2048 AllocMem=0 FreeMem=22978 Sockets=1 Boards=1
   State=IDLE ThreadsPerCore=1 TmpDisk=0 Weight=1 Owner=N/A MCS_label=N/A
"""

PARTITION = """\
PartitionName=main
   AllowGroups=ALL AllowAccounts=ALL AllowQos=ALL
   AllocNodes=ALL Default=YES QoS=N/A
   DefaultTime=NONE DisableRootJobs=NO ExclusiveUser=NO GraceTime=20 Hidden=NO
   MaxNodes=UNLIMITED MaxTime=02:00:00 MinNodes=0 LLN=NO MaxCPUsPerNode=UNLIMITED
   Nodes=n[3-4]
   PriorityJobFactor=1 PriorityTier=1 RootOnly=NO ReqResv=NO OverSubscribe=NO
   OverTimeLimit=NONE PreemptMode=REQUEUE
   State=UP TotalCPUs=6 TotalNodes=2 SelectTypeParameters=NONE
   JobDefaults=(null)
   DefMemPerNode=UNLIMITED MaxMemPerNode=UNLIMITED

"""


def test_a_job_whose_name_and_comment_look_like_fields() -> None:
    (fields,) = parse_records(HELD)
    job = as_job(fields)
    assert (job.id, job.name, job.comment) == ("11", "two words UserId=me", "JobState=FAILED of my own")
    assert (job.state, job.reason, job.restarts, job.nodes) == ("PENDING", "JobHeldUser", 0, ())
    assert (job.submit_time, job.start_time, job.preempt_time) == (1795557496, None, None)


def test_a_job_that_is_being_preempted() -> None:
    (fields,) = parse_records(PREEMPTED)
    job = as_job(fields)
    assert (job.reason, job.restarts, job.nodes) == ("", 2, ("n1", "n2"))
    assert (job.start_time, job.preempt_time, job.end_time) == (1795557439, 1795557440, 1795557460)


def test_nodes_and_a_partition_of_them() -> None:
    n3, n4 = (as_node(fields) for fields in parse_records(NODES))
    assert (n3.name, n3.address, n3.state, n3.reason) == ("n3", "10.0.0.3", "IDLE+DRAIN", "two words")
    assert (n3.cpus, n3.memory_mb, n3.gpus, n4.gpus) == (2, 4096, 4, 0)
    (fields,) = parse_records(PARTITION)
    main = as_partition(fields, {"n3": n3, "n4": n4})
    assert (main.name, main.default, main.state, main.nodes) == ("main", True, "UP", ("n3", "n4"))
    assert (main.max_time_min, main.default_time_min, main.max_nodes) == (120, None, None)
    assert (main.total_nodes, main.preempt_mode, main.grace_s) == (2, "REQUEUE", 20)
    assert (main.cores_per_node, main.memory_mb_per_node) == (2, 4096), "n3's, as n4 has no GPUs"
    assert (main.gpus_per_node, main.gres_per_node) == (4, n3.gres)
    assert as_partition(fields, {"n3": n3, "n4": replace(n3, name="n4")}).gres_per_node == "gpu:a100:4(S:0-1)"


@pytest.mark.parametrize(
    ("gres", "count"),
    [("", 0), ("gpu:2", 2), ("gpu:a100:4(S:0-1)", 4), ("gpu:a100:4(S:0,1),gpu:t4:1,shard:8", 5), ("mps:100", 0)],
)
def test_gpus_are_counted(gres: str, count: int) -> None:
    assert count_gpus(gres) == count


@pytest.mark.parametrize(
    ("written", "count"), [("UNLIMITED", None), ("Partition_Limit", None), ("00:30:59", 30), ("2-01:00:00", 2940)]
)
def test_time_limits_are_minutes(written: str, count: int | None) -> None:
    assert limit_minutes(written) == count


def test_node_lists_are_expanded() -> None:
    assert control.expand_node_list("") == ()
    assert control.expand_node_list("login") == ("login",)
    assert control.expand_node_list("n[1-3,07],m5") == ("n1", "n2", "n3", "n07", "m5")
    assert control.expand_node_list("r[1-2]c[08-09]-ib") == ("r1c08-ib", "r1c09-ib", "r2c08-ib", "r2c09-ib")


def test_a_line_of_accounting() -> None:
    line = "7|a|b|CANCELLED by 1000|None|n[1-2]|1795557400|1795557402|Unknown|mine"
    job = as_ended_job(line)
    assert (job.id, job.name, job.state, job.nodes, job.comment) == ("7", "a|b", "CANCELLED", ("n1", "n2"), "mine")
    assert (job.reason, job.submit_time, job.start_time, job.end_time) == ("", 1795557400, 1795557402, None)


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("Resources", "waiting for free nodes"),
        (
            "ReqNodeNotAvail, UnavailableNodes:n2",
            "a node that it needs is down, drained or reserved (UnavailableNodes:n2)",
        ),
        ("RaisedSignal:53(Real-time_signal_19)", "its script was ended by a signal"),
        ("QOSMaxNodePerUserLimit", "waiting for a limit of its quality of service (QOSMaxNodePerUserLimit)"),
        ("AssocGrpCPUMinutesLimit", "waiting for a limit of its account (AssocGrpCPUMinutesLimit)"),
        ("SomethingNew", "SomethingNew"),
        ("", ""),
    ],
)
def test_reasons_in_words(reason: str, words: str) -> None:
    assert control.describe_reason(reason) == words


def command(folder: Path, name: str, script: str) -> None:
    """A program of that name, first on PATH."""
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return tmp_path


def test_a_busy_controller_is_asked_again(programs: Path) -> None:
    busy = "slurm_load_jobs error: Unable to contact slurm controller (connect failure)"
    command(
        programs,
        "scontrol",
        f'[ -e {programs}/asked ] && echo here && exit; touch {programs}/asked; echo "{busy}" >&2; exit 1',
    )
    assert run_slurm("scontrol", "show", "job", "1") == "here\n"


def test_an_error_names_the_command_and_what_it_said(programs: Path) -> None:
    refusal = "Requested operation is presently disabled for job 8"
    command(programs, "scontrol", f"echo asked >> {programs}/calls; echo '{refusal}' >&2; exit 1")
    with pytest.raises(SlurmError, match="scontrol requeue 8: Requested operation is presently disabled for job 8"):
        control.requeue_job("8")
    assert (programs / "calls").read_text() == "asked\n", "not a matter of trying again"
    command(programs, "scontrol", "sleep 5")
    with pytest.raises(SlurmError, match="no answer within"):
        run_slurm("scontrol", "ping", timeout_s=0.2, tries=1)
    with pytest.raises(SlurmError, match="nowhere: No such file"):
        run_slurm("nowhere")


def test_a_forgotten_job(programs: Path) -> None:
    command(programs, "scontrol", "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1")
    command(programs, "sacct", "echo 'Slurm accounting storage is disabled' >&2; exit 1")
    assert control.show_job("8") is None
    command(programs, "sacct", "echo '8|mine|COMPLETED|None|n1|5|6|7|'")
    job = control.show_job(8)
    assert job is not None
    assert (job.state, job.end_time) == ("COMPLETED", 7)
    for state in ("RUNNING", "PENDING"):  # the controller was lost with it, and slurmdbd never heard of its end
        command(programs, "sacct", f"echo '8|mine|{state}|None|n1|5|6|Unknown|'")
        assert control.show_job(8) is None


def test_which_cluster_is_found(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "SYSTEM_CONFIGURATIONS", (programs / "slurm.conf",))
    monkeypatch.delenv("SLURM_CONF", raising=False)
    command(programs, "sbatch", "echo 'fatal: Could not establish a configuration source' >&2; exit 1")
    assert control.find_cluster(programs) is None
    command(programs, "sbatch", "echo slurm 22.05.8")
    assert control.find_cluster(programs) == "configless"
    (programs / "slurm.conf").touch()
    assert control.find_cluster(programs) == str(programs / "slurm.conf")
    monkeypatch.setenv("SLURM_CONF", str(programs / "gone.conf"))
    with pytest.raises(SlurmError, match="there is no such file"):
        control.find_cluster(programs)
    monkeypatch.setenv("PATH", str(programs / "empty"))
    assert control.find_cluster(programs) is None


def test_a_partition_where_some_nodes_have_gpus_is_known_by_them() -> None:
    login = Node("n1", "n1", "IDLE", 4, 1000, "", "")
    few, many = (replace(login, name=f"n{g}", cpus=12 * g, gres=f"gpu:{g}") for g in (4, 8))
    fields = {"PartitionName": "mixed", "State": "UP", "Nodes": "n1,n4,n8"}
    found = as_partition(fields, {node.name: node for node in (login, few, many)})
    assert (found.gpus_per_node, found.cores_per_node) == (8, 48)
    plain = as_partition(fields | {"Nodes": "n1"}, {"n1": login})
    assert (plain.gpus_per_node, plain.cores_per_node) == (0, 4)


def test_cores_that_the_site_keeps_for_itself_are_not_counted() -> None:
    assert as_node({"NodeName": "n1", "CPUEfctv": "94", "CPUTot": "96"}).cpus == 94
    assert as_node({"NodeName": "n1", "CPUTot": "96"}).cpus == 96
