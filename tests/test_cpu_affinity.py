"""Ranks on the cores beside their GPUs: on machines whose sysfs is made up, and on this one's processes."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import HOME
from tests.pretended_gpus import place
from trainer.distributed.cpu_affinity import bind_to_gpu, cores_for, format_cpu_list, parse_cpu_list
from trainer.distributed.gpu_places import RankPlace

# Two sockets of 24 cores of two threads each; GPUs 0 to 3 are beside the first one, 4 to 7 beside the second.
NEAR = {0: "0-23,48-71", 1: "24-47,72-95"}


@pytest.fixture
def sysfs(tmp_path: Path) -> Path:
    """Such a machine's."""
    for card in range(8):
        folder = tmp_path / f"bus/pci/devices/0000:{card:02x}:00.0"
        folder.mkdir(parents=True)
        (folder / "local_cpulist").write_text(NEAR[card // 4] + "\n")
    for cpu in range(96):
        folder = tmp_path / f"devices/system/cpu/cpu{cpu}/topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(f"{cpu % 48},{cpu % 48 + 48}\n")
    return tmp_path


def shares(places: list[RankPlace], sysfs: Path) -> list[str]:
    """Return the cores of each rank."""
    return [format_cpu_list(cores_for(mine, places, sysfs)[0]) for mine in places]


def test_eight_ranks_share_the_cores_of_their_sockets(sysfs: Path) -> None:
    assert shares([place(rank) for rank in range(8)], sysfs) == [
        *("0-5,48-53", "6-11,54-59", "12-17,60-65", "18-23,66-71"),
        *("24-29,72-77", "30-35,78-83", "36-41,84-89", "42-47,90-95"),
    ]


def test_two_ranks_on_one_socket_have_half_of_it_each(sysfs: Path) -> None:
    assert shares([place(0), place(1)], sysfs) == ["0-11,48-59", "12-23,60-71"]
    assert shares([place(0), place(4)], sysfs) == list(NEAR.values())


def test_only_what_the_job_allows_is_used(sysfs: Path) -> None:
    few = tuple(range(4)) + tuple(range(24, 26))
    assert shares([place(0, cores=few), place(1, cores=few), place(4, cores=few)], sysfs) == ["0-1", "2-3", "24-25"]


def test_ranks_with_cores_of_their_own_keep_them(sysfs: Path) -> None:
    """Slurm has shared them out already."""
    own = [place(rank, cores=(2 * rank, 2 * rank + 1, 40 + rank)) for rank in range(3)]
    assert shares(own, sysfs) == ["0-1", "2-3", "4-5"]


def test_threads_of_one_core_go_to_one_rank(sysfs: Path) -> None:
    few = (0, 1, 48, 49)
    assert shares([place(0, cores=few), place(1, cores=few)], sysfs) == ["0,48", "1,49"]


def test_fewer_cores_than_ranks_are_for_all_of_them(sysfs: Path) -> None:
    assert shares([place(rank, cores=(0, 1)) for rank in range(3)], sysfs) == ["0-1"] * 3


def test_ranks_of_other_machines_take_nothing(sysfs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bound: list[set[int]] = []
    monkeypatch.setattr(os, "sched_setaffinity", lambda pid, cores: bound.append(cores))
    elsewhere = [place(rank, rank - 8) for rank in range(8, 12)]
    bind_to_gpu(place(0), [place(0), place(1), *elsewhere], sysfs)
    assert bound == [parse_cpu_list("0-11,48-59")]


@pytest.mark.parametrize(
    ("mine", "words"),
    [
        (place(0, cores=(24, 25)), "the job has given it none of those beside its GPU 0000:00:00.0 (0-23,48-71)"),
        (place(0, card=99), "the machine does not tell which are beside the GPU 0000:63:00.0"),
        (place(0, bus=""), "the machine does not tell which are beside the GPU NVIDIA H100 80GB HBM3"),
    ],
)
def test_what_cannot_be_done_is_said(
    mine: RankPlace, words: str, sysfs: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(os, "sched_setaffinity", lambda *args: pytest.fail("it was bound"))
    with caplog.at_level(logging.INFO):
        bind_to_gpu(mine, [mine], sysfs)
    assert f"rank 0 keeps its {len(mine.cores)} cores: {words}" in caplog.text


def test_nothing_is_done_on_cpus(sysfs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_setaffinity", lambda *args: pytest.fail("it was bound"))
    bind_to_gpu(place(0, gpus=0), [place(0, gpus=0)], sysfs)


@pytest.mark.parametrize("text", ["0-3,8,10-11", "5", ""])
def test_lists_of_cpus_are_read_and_written(text: str) -> None:
    assert format_cpu_list(parse_cpu_list(text + "\n")) == text


def test_what_a_bound_process_starts_inherits_its_cores(tmp_path: Path) -> None:
    """On this machine's own cores: the first one that the tests may use is beside the GPU."""
    mine = min(os.sched_getaffinity(0))
    (tmp_path / "bus/pci/devices/0000:00:00.0").mkdir(parents=True)
    (tmp_path / "bus/pci/devices/0000:00:00.0/local_cpulist").write_text(f"{mine}\n")
    program = f"""
import os, subprocess, sys
from pathlib import Path
from tests.pretended_gpus import place
from trainer.distributed.cpu_affinity import bind_to_gpu
here = place(0, cores=tuple(os.sched_getaffinity(0)))
bind_to_gpu(here, [here], Path({str(tmp_path)!r}))
subprocess.run([sys.executable, "-c", "import os; print(sorted(os.sched_getaffinity(0)))"], check=True)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=HOME, check=True)
    assert done.stdout.strip() == f"[{mine}]"
