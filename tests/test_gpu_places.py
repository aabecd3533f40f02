"""One rank a GPU: who takes which, and what is refused before NCCL is touched; on GPUs that are only pretended."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from launcher.study.local_runner import LocalRunner, gpu_shares
from launcher.study.plan import StudyTask
from launcher.study.run_progress import next_tasks
from tests.conftest import HOME, TINY
from tests.pretended_gpus import Gpu, place, pretend
from tests.studies import plan
from trainer.config.config import Config
from trainer.core.fields import Refused
from trainer.distributed import process_group
from trainer.distributed.gpu_places import RankPlace, RefusedEverywhere, exchange_places, own_place, unusable
from trainer.distributed.rank_environment import rank_environment
from trainer.launch.prepared_training import refuse_shared_gpus

EIGHT = tuple(Gpu(bus=bus) for bus in range(1, 9))
NO_GPU: dict[str, Any] = {"gpus": 0, "name": "", "uuid": "", "bus": ""}
SLICE = "NVIDIA A100-SXM4-40GB MIG 3g.20gb"


@pytest.mark.parametrize(
    ("gpus", "local_rank", "index", "bus"),
    [
        (EIGHT, 5, 5, "0000:06:00.0"),
        (EIGHT[3:4], 3, 0, "0000:04:00.0"),  # --gpu-bind=single, or a CUDA_VISIBLE_DEVICES of its own
        (EIGHT[2:4], 2, 0, "0000:03:00.0"),  # two GPUs a task
        ((), 1, 0, ""),
    ],
)
def test_a_rank_takes_the_gpu_of_its_local_rank(
    gpus: tuple[Gpu, ...], local_rank: int, index: int, bus: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, gpus)
    found = own_place({"RANK": "13", "LOCAL_RANK": str(local_rank)}, "n1")
    assert (found.rank, found.local_rank, found.node, found.gpus) == (13, local_rank, "n1", len(gpus))
    assert (found.index, found.bus) == (index, bus)
    assert {*found.cores} == os.sched_getaffinity(0)


def test_a_torch_that_tells_no_address_is_told_apart_by_uuid() -> None:
    first, second = (replace(place(rank), bus="") for rank in (0, 1))
    assert unusable([first, second]) == ""
    assert "have the same GPU (NVIDIA H100 80GB HBM3, uuid-0)" in unusable([first, replace(second, uuid=first.uuid)])


@pytest.mark.parametrize(
    "places",
    [
        [place(rank) for rank in range(16)],
        [place(rank, gpus=1, index=0) for rank in range(8)],  # bound by Slurm
        [place(0), place(8, card=0)],  # the same address on another machine
        [place(rank, **NO_GPU) for rank in range(4)],
        [place(0, gpus=1, name=SLICE), place(1, gpus=1, name=SLICE)],  # slices of two cards
        [place(0)],
    ],
)
def test_right_places_are_accepted(places: list[RankPlace]) -> None:
    assert unusable(places) == ""


@pytest.mark.parametrize(
    ("places", "words"),
    [
        (
            [place(rank, card=rank % 2, gpus=2, index=rank % 2) for rank in range(4)],
            "rank 0 and rank 2 on n0 have the same GPU (NVIDIA H100 80GB HBM3, 0000:00:00.0): 4 processes for 2 GPUs "
            "there. Start one process a GPU: --processes 2 on this machine, --gpus-per-node 2 on Slurm",
        ),
        ([place(0), place(1, card=0)], "something gives them the same CUDA_VISIBLE_DEVICES"),
        ([place(0, gpus=1), place(1, card=0, gpus=1, index=0)], "2 processes for 1 GPUs there"),
        (
            [place(0, gpus=1, name=SLICE, uuid="a"), place(1, card=0, gpus=1, name=SLICE, uuid="b")],
            "cut into MIG slices: NCCL joins whole cards only, so use one slice (--processes 1",
        ),
        ([place(0), place(8, host="boot 0", card=0, gpus=1, index=0)], "rank 0 and rank 8 on n1 have the same GPU"),
        ([place(0), place(8, **NO_GPU)], "rank 8 on n1 sees no GPU, and rank 0 on n0 sees 8"),
    ],
)
def test_wrong_places_are_refused_by_name(places: list[RankPlace], words: str) -> None:
    assert words in unusable(places)


def meet(places: list[RankPlace]) -> list[list[RankPlace] | str]:
    """Let ranks exchange their places through one store, and return what each got, or was refused with."""
    server = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    found: dict[int, list[RankPlace] | str] = {}

    def exchange(mine: RankPlace) -> None:
        store = TCPStore("127.0.0.1", server.port, is_master=False, timeout=timedelta(seconds=30))
        try:
            found[mine.rank] = exchange_places(store, mine, len(places))
        except RefusedEverywhere as error:
            found[mine.rank] = str(error)

    threads = [threading.Thread(target=exchange, args=(mine,)) for mine in places]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return [found[rank] for rank in range(len(places))]


def test_all_ranks_see_the_same_table() -> None:
    places = [place(rank) for rank in range(3)]
    assert meet(places) == [places] * 3


def test_all_ranks_refuse_together() -> None:
    first, second, third = meet([place(0), place(1), place(2, card=1)])
    assert first == second == third
    assert "rank 1 and rank 2 on n0 have the same GPU" in str(first)


@pytest.mark.parametrize("size", [2, 1])
def test_nccl_is_told_its_device(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not before the places were found right; a rank alone has nobody to connect to."""
    pretend(monkeypatch, EIGHT[:2])
    done: list[object] = []

    def exchange(store: object, mine: RankPlace, size: int) -> list[RankPlace]:
        done.append((mine, size))
        return []

    rank = size - 1
    monkeypatch.setattr(dist, "rendezvous", lambda url: iter([("store", rank, size)]))
    monkeypatch.setattr(dist, "PrefixStore", lambda prefix, store: (prefix, store))
    monkeypatch.setattr(process_group, "exchange_places", exchange)
    monkeypatch.setattr(torch.cuda, "set_device", done.append)
    monkeypatch.setattr(dist, "init_process_group", lambda *args, **named: done.append((args, named)))
    environment = {"RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_RANK": str(rank)}
    mine, _ = process_group.join_process_group("n0", environment)
    device = torch.device("cuda", 1) if size > 1 else None
    named = {"store": ("default_pg", "store"), "rank": rank, "world_size": size, "device_id": device}
    assert done == [(mine, size), rank, (("nccl",), named)]


def test_more_processes_than_gpus_are_refused_before_any_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_shared_gpus(64)  # on CPUs there is no such limit
    pretend(monkeypatch, EIGHT[:2])
    refuse_shared_gpus(2)
    with pytest.raises(Refused, match=r"--processes 3: this machine has 2 GPUs to see, .* use at most --processes 2"):
        refuse_shared_gpus(3)


def test_a_run_whose_ranks_share_a_gpu_ends_as_refused_on_every_rank(shards32: Path, tmp_path: Path) -> None:
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    settings = [*TINY, "--run", str(tmp_path / "r"), "--data", str(shards32), "--total-images", "64"]
    ranks = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.planted", "same_gpu", "train", *settings],
            env=rank_environment(os.environ, rank, rank, 2, 2)
            | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port)},
            cwd=HOME,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    said = [rank.communicate(timeout=240)[1] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [2, 2], said
    assert "refused: rank 0 and rank 1 on this machine have the same GPU (NVIDIA H100" in said[0]
    assert "refused" not in said[1], "both have one terminal, and one message is enough"
    assert "Traceback" not in "".join(said)


@pytest.mark.parametrize(
    ("visible", "count", "at_once", "shares"),
    [
        ("", 8, 4, ["0,1", "2,3", "4,5", "6,7"]),
        ("", 8, 3, ["0,1", "2,3,4", "5,6,7"]),
        ("4,6", 2, 2, ["4", "6"]),
        ("GPU-a,GPU-b", 2, 4, ["GPU-a", "GPU-a", "GPU-b", "GPU-b"]),
        ("", 0, 2, [None, None]),
    ],
)
def test_runs_of_a_study_that_train_at_once_share_the_gpus(
    visible: str, count: int, at_once: int, shares: list[str | None]
) -> None:
    assert gpu_shares({"CUDA_VISIBLE_DEVICES": visible} if visible else {}, count, at_once) == shares


def test_each_of_them_sees_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    study = plan(tmp_path, seeds=2)
    runner, seen = LocalRunner(study, at_once=2), set()

    def run_module(task: StudyTask, command: Sequence[str], gpus: str | None) -> bool:
        seen.add(gpus)
        busy.wait(timeout=60)  # until both are at it
        return False

    busy = threading.Barrier(2)
    monkeypatch.setattr(runner, "run_module", run_module)
    runner.train_and_measure([(task, Config()) for task in next_tasks(study, retry=False)[1][:2]])
    assert seen == {"0,1", "2,3"}
