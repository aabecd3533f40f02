"""Parse what `scontrol show` prints."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping

from slurm.records import Node, Partition, SlurmJob

Fields = dict[str, str]

# Text that people wrote, with any characters: it reaches to the end of its line.
FREE_TEXT = {"JobName", "Comment", "AdminComment", "SystemComment", "Command", "WorkDir", "StdErr", "StdIn", "StdOut"}
FREE_TEXT |= {"Reason", "OS", "Extra"}
KEY = re.compile(r"(?:^|\s+)([A-Za-z][\w/:]*)=")
NOTHING = {"", "(null)", "None", "N/A", "Unknown", "NONE", "n/a"}


def parse_records(text: str) -> Iterator[Fields]:
    """Yield the records of `scontrol show` without --oneliner, in which a line's end also ends free text."""
    for block in re.split(r"\n\s*\n", text):
        fields: Fields = {}
        for line in block.splitlines():
            for key, value in parse_line(line.strip()):
                fields.setdefault(key, value)  # the first one counts: details further down repeat keys
        if fields:
            yield fields


def parse_line(line: str) -> Iterator[tuple[str, str]]:
    """Yield the fields of one line."""
    keys = list(KEY.finditer(line))
    for index, match in enumerate(keys):
        # The Reason of a job is one word inside a line; that of a node is free text on its own line.
        if match[1] in FREE_TEXT and not (match[1] == "Reason" and match.start()):
            yield match[1], line[match.end() :].strip()
            return
        end = keys[index + 1].start() if index + 1 < len(keys) else len(line)
        yield match[1], line[match.end() : end].strip()


def text_field(fields: Fields, key: str) -> str:
    """Return a field; empty where Slurm writes that there is nothing."""
    value = fields.get(key, "")
    return "" if value in NOTHING else value


def number_field(fields: Fields, key: str, default: int = 0) -> int:
    """Return the number that a field begins with."""
    match = re.match(r"-?\d+", fields.get(key, ""))
    return int(match[0]) if match else default


def time_field(fields: Fields, key: str) -> float | None:
    """Return a time in seconds since 1970, as SLURM_TIME_FORMAT=%s prints it; None: there is none."""
    value = fields.get(key, "")
    return float(value) if value.isdigit() else None


def limit_minutes(value: str) -> int | None:
    """Return [days-]hours:minutes:seconds in minutes, rounded down; None: there is no limit."""
    match = re.fullmatch(r"(?:(\d+)-)?(\d+):(\d+):(\d+)", value)
    if not match:
        return None
    days, hours, mins, _ = (int(part or 0) for part in match.groups())
    return (days * 24 + hours) * 60 + mins


def expand_node_list(node_list: str) -> tuple[str, ...]:
    """Return the names in a list such as n[1-3,07]-a,m5, as `scontrol show hostnames` prints them."""
    names: list[str] = []
    for part in re.findall(r"(?:[^,\[]|\[[^\]]*\])+", node_list):
        pieces = re.split(r"\[([^\]]*)\]", part)  # text and ranges in turn
        choices = [expand_range(piece) if index % 2 else [piece] for index, piece in enumerate(pieces)]
        names += map("".join, itertools.product(*choices))
    return tuple(names)


def expand_range(ranges: str) -> list[str]:
    """Return the numbers in 1-3,07, with their leading zeros."""
    numbers = []
    for part in ranges.split(","):
        first, _, last = part.partition("-")
        numbers += [str(number).zfill(len(first)) for number in range(int(first), int(last or first) + 1)]
    return numbers


def as_job(fields: Fields) -> SlurmJob:
    """Return the job of a record."""
    node_list = text_field(fields, "NodeList")
    return SlurmJob(
        id=fields["JobId"],
        name=fields.get("JobName", ""),
        state=fields.get("JobState", ""),
        reason=text_field(fields, "Reason"),
        node_list=node_list,
        nodes=expand_node_list(node_list),
        restarts=number_field(fields, "Restarts"),
        submit_time=time_field(fields, "SubmitTime"),
        start_time=time_field(fields, "StartTime"),
        end_time=time_field(fields, "EndTime"),
        preempt_time=time_field(fields, "PreemptTime"),
        comment=text_field(fields, "Comment"),
        # A pending array has a range of ids, such as 4-9, and is no task yet.
        task=f"{fields['ArrayJobId']}_{fields['ArrayTaskId']}" if fields.get("ArrayTaskId", "").isdigit() else "",
        partition=text_field(fields, "Partition"),
        nodes_asked=text_field(fields, "NumNodes"),
        time_min=limit_minutes(fields.get("TimeLimit", "")),
        requeues=fields.get("Requeue") != "0",
    )


def as_node(fields: Fields) -> Node:
    """Return the node of a record."""
    return Node(
        name=fields["NodeName"],
        address=text_field(fields, "NodeAddr") or fields["NodeName"],
        state=fields.get("State", ""),
        cpus=number_field(fields, "CPUEfctv")
        or number_field(fields, "CPUTot"),  # CPUEfctv: without cores that the site reserves for the system
        memory_mb=number_field(fields, "RealMemory"),
        gres=text_field(fields, "Gres"),
        # Slurm appends who set it and when: " [root@2026-01-31T12:00:00]".
        reason=text_field(fields, "Reason").rpartition(" [")[0] or text_field(fields, "Reason"),
        port=number_field(fields, "Port", 6818),
        slurmd_start_time=time_field(fields, "SlurmdStartTime"),
    )


def as_partition(fields: Fields, known: Mapping[str, Node]) -> Partition:
    """Return the partition of a record; `known` are the nodes of the cluster, by name."""
    names = expand_node_list(text_field(fields, "Nodes"))
    nodes = [known[name] for name in names if name in known]
    nodes = [node for node in nodes if node.gpus] or nodes  # in a mixed partition, jobs of ours want the GPU nodes
    return Partition(
        name=fields["PartitionName"],
        default=fields.get("Default") == "YES",
        state=fields.get("State", ""),
        max_time_min=limit_minutes(fields.get("MaxTime", "")),
        default_time_min=limit_minutes(fields.get("DefaultTime", "")),
        max_nodes=number_field(fields, "MaxNodes", -1) if fields.get("MaxNodes", "").isdigit() else None,
        total_nodes=number_field(fields, "TotalNodes"),
        nodes=names,
        cores_per_node=min((node.cpus for node in nodes), default=0),
        memory_mb_per_node=min((node.memory_mb for node in nodes), default=0),
        gpus_per_node=max((node.gpus for node in nodes), default=0),
        gres_per_node=nodes[0].gres if len({node.gres for node in nodes}) == 1 else "",
        preempt_mode=text_field(fields, "PreemptMode"),
        grace_s=number_field(fields, "GraceTime"),
    )
