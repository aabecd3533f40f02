"""Describe Slurm's job reason codes in plain words."""

from __future__ import annotations

import re

DESCRIPTIONS = {
    "None": "no reason given",
    "Resources": "waiting for free nodes",
    "Priority": "waiting behind jobs of higher priority",
    "BeginTime": "waiting for its earliest start time (a requeued job waits a while)",
    "Dependency": "waiting for another job",
    "DependencyNeverSatisfied": "waits for a job that can no longer end as it should: it will never start",
    "JobHeldUser": "held by its owner: scontrol release",
    "JobHeldAdmin": "held by an administrator",
    "JobHoldMaxRequeue": "held: it was requeued too often",
    "JobLaunchFailure": "could not be launched on its nodes",
    "launch_failed_requeued_held": "held: it could not be launched on its nodes: scontrol release",
    "Licenses": "waiting for licenses",
    "NodeDown": "a node that it needs is down",
    "ReqNodeNotAvail": "a node that it needs is down, drained or reserved",
    "Nodes_required_for_job_are_DOWN,_DRAINED_or_reserved_for_jobs_in_higher_priority_partitions": (
        "too few of its partition's nodes are up and free of jobs of higher priority"
    ),
    "BadConstraints": "no nodes have what it asks for: it will never start",
    "PartitionConfig": "asks for more than its partition has",
    "PartitionDown": "its partition starts no jobs now",
    "PartitionInactive": "its partition takes no jobs now",
    "PartitionNodeLimit": "asks for more nodes than its partition has, or some of them are down",
    "PartitionTimeLimit": "asks for more time than its partition allows",
    "Reservation": "waiting for its reservation",
    "ReservationDeleted": "its reservation is gone",
    "Cleaning": "its last run is being cleaned up",
    "Prolog": "its nodes are being prepared",
    "JobArrayTaskLimit": "waiting for other tasks of its array",
    "InvalidAccount": "its account is not valid",
    "InvalidQOS": "its quality of service is not valid",
    "AccountNotAllowed": "its account may not use the partition",
    "QOSNotAllowed": "its quality of service may not use the partition",
    "Reserved_for_maintenance": "waiting for the end of maintenance",
    "NonZeroExitCode": "its script ended with an error",
    "RaisedSignal": "its script was ended by a signal",
    "TimeLimit": "reached its time limit",
    "OutOfMemory": "ran out of memory",
    "DeadLine": "could not end before its deadline",
    "NodeFail": "a node failed",
    "Preempted": "gave way to a job of higher priority",
}

# The some hundred codes of limits are built of parts, as QOSMaxJobsPerUserLimit or AssocGrpCpuLimit.
LIMIT = re.compile(r"(QOS|Assoc)(Max|Grp|Min)(\w*?)(Limit|PerUser|PerAccount|PerJob)?")


def describe_reason(reason: str) -> str:
    """Return a description of a reason code; an unknown one is returned verbatim."""
    plain = reason.partition("(")[0].partition(":")[0].strip()  # RaisedSignal:53(Real-time signal 19)
    if reason in DESCRIPTIONS or plain in DESCRIPTIONS:
        return DESCRIPTIONS.get(reason) or DESCRIPTIONS[plain]
    word = plain.partition(",")[0]  # ReqNodeNotAvail, UnavailableNodes:n1
    if word in DESCRIPTIONS:
        rest = reason.partition(",")[2].strip().lstrip("_").replace("_", " ")
        return f"{DESCRIPTIONS[word]} ({rest})" if rest else DESCRIPTIONS[word]
    if LIMIT.fullmatch(plain):
        return f"waiting for a limit of its {'quality of service' if plain.startswith('QOS') else 'account'} ({reason})"
    return reason
