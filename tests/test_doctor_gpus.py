"""`launcher doctor` on GPUs: a rank each, what connects them, what is said of it; on CPUs, by made-up measurements."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from launcher.doctor import gpu_rank, gpu_ranks, links
from launcher.doctor.finding import Finding
from launcher.doctor.gpus import judge_gpus
from launcher.doctor.measured import GpuRank, Probe, ProbeMessages
from launcher.doctor.plan import ProbePlan
from launcher.doctor.run_facts import RunFacts
from slurm.profile import Profile
from tests.conftest import HOME
from tests.fake_slurm import GPU
from tests.pretended_gpus import Gpu, place, pretend
from tests.test_doctor_judgement import probe

NVLINK = {"inside_mb_s": 150e3, "inside_via": ("P2P/CUMEM",), "peers": 7, "nvlinks": 18}
INFINIBAND = {"between_mb_s": 5e3, "between_via": ("NET/IB",), "infiniband": ("mlx5_0",)}


def well(rank: int, **changes: Any) -> GpuRank:
    """A rank on a node of eight GPUs that is well."""
    made = GpuRank(rank, f"n{rank // 8}", "NVIDIA H100 80GB HBM3", 0.004, **NVLINK, **INFINIBAND)  # type: ignore[arg-type]
    return replace(made, **changes)


def examined(nodes: int = 2, **of_the_last: Any) -> list[Probe]:
    """Nodes of eight GPUs, of which the last rank is particular."""
    ranks = [well(rank) for rank in range(8 * nodes)]
    ranks[-1] = replace(ranks[-1], **of_the_last)
    return [probe(n, exchange_s=0.004, gpus=tuple(ranks[8 * n : 8 * n + 8])) for n in range(nodes)]


def found(check: str, probes: list[Probe]) -> Finding:
    """Return what is said of one thing."""
    return next(one for one in judge_gpus(probes) if one.check == check)


def test_gpus_that_are_well_are_ok() -> None:
    findings = judge_gpus(examined())
    assert [(one.check, one.state) for one in findings] == [("gpus", "ok"), ("gpu links", "ok"), ("gpu network", "ok")]
    assert findings[0].measured == "16 × NVIDIA H100 80GB HBM3, on 2 nodes"
    assert "over NVLink, rank 0 on n0; 18 NVLinks up; it reaches 7 other GPUs directly" in findings[1].measured
    assert "5,000 MB/s each way over NET/IB" in findings[2].measured
    assert judge_gpus([probe(0), probe(1)]) == [], "without GPUs there is nothing to say"


@pytest.mark.parametrize(
    ("check", "particular", "state", "words"),
    [
        ("gpus", {"name": ""}, "problem", "rank 15 on n1 sees no GPU"),
        (
            "gpus",
            {"problem": "rank 3 and rank 15 have the same GPU"},
            "problem",
            "rank 15 on n1: rank 3 and rank 15 have",
        ),
        (
            "gpu links",
            {"inside_mb_s": 900.0, "inside_via": ("SHM/direct",)},
            "warning",
            "900 MB/s each way over SHM/dir",
        ),
        ("gpu links", {"inside_mb_s": 9e3}, "warning", "9,000 MB/s each way over NVLink, rank 15 on n1"),
        (
            "gpu links",
            {"inside_mb_s": 900.0, "inside_via": ("SHM/direct",), "peers": 0, "nvlinks": None},
            "warning",
            "it reaches 0 other GPUs directly",
        ),
        ("gpu network", {"between_mb_s": 900.0, "between_via": ("NET/Socket",)}, "warning", "the node has mlx5_0"),
        (
            "gpu network",
            {"between_mb_s": 90.0, "between_via": ("NET/Socket",), "infiniband": ()},
            "warning",
            "NET/Socket",
        ),
        ("gpu network", {"between_mb_s": 300.0}, "warning", "300 MB/s each way over NET/IB, rank 15 on n1"),
    ],
)
def test_gpus_that_are_not_well_are_named(check: str, particular: dict[str, Any], state: str, words: str) -> None:
    one = found(check, examined(**particular))
    assert one.state == state
    assert words in one.measured
    assert one.meaning
    assert one.todo


def test_a_detour_is_named_however_fast_it_is() -> None:
    one = found("gpu links", examined(inside_mb_s=5e3, inside_via=("SHM/direct",)))
    assert (one.state, one.meaning) == ("warning", "NCCL takes a detour, though the GPUs reach each other")


def test_tcp_is_fast_enough_where_there_is_nothing_else() -> None:
    one = found("gpu network", examined(between_mb_s=300.0, between_via=("NET/Socket",), infiniband=()))
    assert one.state == "ok"


def test_the_reduction_names_its_ways_and_gpus_want_more_of_it() -> None:
    good = links.judge_reduction(examined(), RunFacts())
    assert (good.state, good.measured) == (
        *("ok", "36 MB over 16 GPUs of 2 nodes in 4 ms: 9,000 MB/s (NET/IB, P2P/CUMEM)"),
    )
    slow = [replace(one, exchange_s=0.06) for one in examined()]
    assert links.judge_reduction(slow, RunFacts()).state == "warning"
    assert links.judge_reduction([replace(one, gpus=()) for one in slow], RunFacts()).state == "ok", "enough for CPUs"


def test_one_node_with_several_gpus_has_a_reduction() -> None:
    (alone,) = examined(nodes=1)
    reduction = links.judge_links([alone], "", RunFacts())[-1]
    assert "over 8 GPUs of 1 nodes" in reduction.measured
    broken = replace(alone, exchange_s=None, problems={"exchange": "NCCL failed"})
    assert links.judge_links([broken], "", RunFacts())[-1].state == "problem"


LOG = """\
n1:812:901 [0] NCCL INFO Channel 00/0 : 0[0] -> 1[1] via P2P/CUMEM/read
n1:812:901 [0] NCCL INFO Channel 01/0 : 0[0] -> 1[1] via P2P/CUMEM/read
n1:812:901 [0] NCCL INFO Channel 00 : 3[b7000] -> 2[9f000] via SHM/direct/direct
n1:812:901 [0] NCCL INFO Channel 00/0 : 0[0] -> 8[0] [send] via NET/IB/0/GDRDMA
n1:812:901 [0] NCCL INFO Channel 00/0 : 9[1] -> 0[0] [receive] via NET/Socket/0
n1:812:901 [0] NCCL INFO Bootstrap: Using eth0:10.0.0.1<0>
"""


def test_nccl_tells_its_ways(tmp_path: Path) -> None:
    (tmp_path / "nccl-0-7.log").write_text(LOG)
    assert gpu_rank.channels(tmp_path.glob("nccl-0-*.log")) == {
        (frozenset({0, 1}), "P2P/CUMEM"),
        (frozenset({2, 3}), "SHM/direct"),
        (frozenset({0, 8}), "NET/IB"),
        (frozenset({0, 9}), "NET/Socket"),
    }


def test_each_rank_has_a_partner_inside_and_between_nodes() -> None:
    places = [place(rank) for rank in range(16)]
    assert [gpu_rank.partners(mine, places) for mine in places[:3]] == [(1, 8), (0, 9), (3, 10)]
    assert gpu_rank.partners(places[15], places) == (14, 7)
    three = [place(rank) for rank in range(3)]
    assert [gpu_rank.partners(mine, three) for mine in three] == [(1, None), (0, None), (None, None)]
    uneven = [place(0), place(1), place(8)]
    assert [gpu_rank.partners(mine, uneven) for mine in uneven] == [(1, 8), (0, None), (None, 0)]


def test_what_the_machine_has_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, [Gpu(bus=bus) for bus in range(4)])
    monkeypatch.setattr(torch.cuda, "can_device_access_peer", lambda mine, other: other != 3)
    assert gpu_rank.count_peers(place(0, gpus=4)) == 2
    assert gpu_rank.count_nvlinks(place(0)) is None, "there is no NVIDIA driver here"
    assert gpu_rank.adapters(tmp_path) == ()
    (tmp_path / "class/infiniband/mlx5_0").mkdir(parents=True)
    assert gpu_rank.adapters(tmp_path) == ("mlx5_0",)


def test_the_probe_asks_for_all_gpus_of_a_node() -> None:
    command = ProbePlan(Path("/f"), 2, GPU, 8, Profile()).command()
    assert {"--ntasks-per-node=1", "--gpus-per-node=8", "--cpus-per-task=96"} <= {*command}
    assert {"--gpus-per-node=4", "--cpus-per-task=48"} <= {*ProbePlan(Path("/f"), 2, GPU, 4, Profile()).command()}


def test_two_ranks_are_started_and_measured_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On CPUs, with gloo in NCCL's place: all but the GPUs is real."""
    monkeypatch.setenv("PYTHONPATH", str(HOME))
    first, second = gpu_ranks.measure_gpus(ProbeMessages(tmp_path, 0, 1), "127.0.0.1", True, 2)
    for one in (first, second):
        assert (one.problem, one.name) == ("", "")
        assert one.exchange_s
        assert one.inside_mb_s
        assert one.between_mb_s is None
    made = probe(0, gpus=(first, second))
    assert found("gpus", [made]).measured.endswith("sees no GPU"), "as a job that was promised some must say"
    messages = ProbeMessages(tmp_path, 0, 1)
    messages.write_probe(made)
    assert messages.read_probes() == [made]


def test_a_rank_that_dies_says_its_last_words(tmp_path: Path) -> None:
    assert gpu_ranks.read_result(tmp_path, 3, "a\nSegmentation fault\n").problem == "Segmentation fault"
    assert gpu_ranks.read_result(tmp_path, 3, "").problem == "it ended without a word"
