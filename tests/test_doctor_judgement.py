"""`launcher doctor`: what it says of made-up measurements."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from launcher.doctor import links as doctor_links
from launcher.doctor import nodes as doctor_nodes
from launcher.doctor import storage as doctor_storage
from launcher.doctor import timing as times
from launcher.doctor.finding import Finding
from launcher.doctor.measured import Disk, Probe, Reached
from launcher.doctor.run_facts import RunFacts
from slurm.profile import Profile
from tests.fake_slurm import CPU
from trainer.config.config import Config

DISK = Disk("nfs4", 10**12, 10**13, fsync_s=(0.01,) * 10, write_mb_s=500.0)
FACTS = RunFacts(Config(), images_per_s=1280.0, stall_s=0.1, save_s=4.9, checkpoint_bytes=10**8, exchanged_mb=18.0)


def probe(rank: int = 1, **changes: Any) -> Probe:
    """A node that is well."""
    others = tuple(Reached(r, f"n{r}", 1e-4, 1e-5) for r in range(3) if r != rank)
    made = Probe(
        *(rank, f"n{rank}", f"boot {rank}", f"10.0.0.{rank}", "ib0", ("lo", "eth0", "ib0"), "/py", 2.0),
        *({"python": "3.11.7", "torch": "2.13.0"}, {"device": "H100", "threads": 1}, others, 0.03, DISK),
        *(() if rank == 0 else (0.01, 0.02),),
    )
    return replace(made, **changes)


def nodes(**of_the_last: Any) -> list[Probe]:
    """Three nodes, of which the last one is particular."""
    return [probe(0), probe(1), probe(2, **of_the_last)]


def lost(rank: int) -> tuple[Reached, ...]:
    """A node reaches all but one."""
    return tuple(Reached(r, f"n{r}", problem="no route" if r == rank else "") for r in range(2))


JUDGES: dict[str, Callable[[list[Probe]], Finding]] = {
    "code": lambda probes: doctor_nodes.judge_code(probes, {}),
    "versions": doctor_nodes.judge_versions,
    "numerics": lambda probes: doctor_nodes.judge_numerics(probes, {"device": "H100", "threads": 1}),
    "clocks": doctor_nodes.judge_clocks,
    "rendezvous": lambda probes: doctor_links.judge_rendezvous(probes, "ib0"),
    "ports": doctor_links.judge_ports,
    "reduction": lambda probes: doctor_links.judge_reduction(probes, FACTS),
    "shared folder": lambda probes: doctor_storage.judge_storage(probes, FACTS)[0],
    "fsync": lambda probes: doctor_storage.judge_storage(probes, FACTS)[1],
    "visibility": doctor_storage.judge_visibility,
}
# check, what is particular of the last node, the state, what is said of it
CASES: list[tuple[str, dict[str, Any], str, str]] = [
    ("code", {"problems": {"import": "no torch"}}, "problem", "1 of 3 nodes cannot run it: n2: no torch"),
    ("versions", {"versions": {"python": "3.11.7", "torch": "2.9"}}, "problem", "n2: torch is '2.9', on n0 '2.13.0'"),
    ("versions", {"versions": {"python": "3.11.7"}}, "problem", "n2: torch is None"),
    ("numerics", {"environment": {"device": "A100", "threads": 1}}, "warning", "n2: device is 'A100', on n0 'H100'"),
    ("clocks", {"reached": (Reached(0, "n0", 1e-3, -0.8),)}, "warning", "at most 800 ms (± 500 µs) off n0's, on n2"),
    ("clocks", {"reached": (Reached(0, "n0", 1e-3, 61.0),)}, "problem", "at most 61 s"),
    ("rendezvous", {"reached": lost(0)}, "problem", "n0 (10.0.0.0) cannot be reached from n2: no route"),
    ("rendezvous", {"interface": "lo"}, "problem", "over ib0, lo"),
    ("rendezvous", {"interfaces": ("lo", "eth0")}, "problem", "n2 has no ib0"),
    ("ports", {"reached": lost(1)}, "problem", "1 of 6 ways are closed: n2 → n1: no route"),
    ("reduction", {"exchange_s": None, "problems": {"exchange": "reset"}}, "problem", "it fails: reset"),
    ("reduction", {"exchange_s": 0.12}, "warning", "300 MB/s; this run exchanges 18.0 MB in a step of 100 ms"),
    ("shared folder", {"disk": replace(DISK, link="not supported")}, "problem", "n2: hard links: not supported"),
    ("shared folder", {"disk": replace(DISK, rename="old")}, "problem", "n2: renaming: old"),
    ("shared folder", {"problems": {"disk": "Read-only file system"}}, "problem", "n2: Read-only file system"),
    ("fsync", {"disk": replace(DISK, fsync_s=(0.9,) * 100)}, "warning", "an fsync takes 900 ms"),
    ("visibility", {"visible_s": (0.1, 3.0)}, "warning", "at worst 3 s"),
    ("visibility", {"visible_s": (0.1, 30.0)}, "problem", "at worst 30 s"),
    ("visibility", {"problems": {"visibility": "never"}}, "problem", "n2: never"),
]


@pytest.mark.parametrize("check", JUDGES)
def test_nodes_that_are_well_are_ok(check: str) -> None:
    found = JUDGES[check](nodes())
    assert (found.check, found.state, found.todo) == (check, "ok", "")
    assert found.measured


@pytest.mark.parametrize(("check", "particular", "state", "words"), CASES)
def test_a_node_that_is_not_well_is_named(check: str, particular: dict[str, Any], state: str, words: str) -> None:
    found = JUDGES[check](nodes(**particular))
    assert (found.check, found.state) == (check, state)
    assert words in found.measured
    assert found.meaning
    assert found.todo


def test_every_check_has_a_case() -> None:
    assert {case[0] for case in CASES} == set(JUDGES)


def test_one_node_alone_is_compared_with_nothing() -> None:
    alone = [probe(0, reached=(), exchange_s=None)]
    found = (
        doctor_nodes.judge_nodes(alone, {}, {})
        + doctor_links.judge_links(alone, "", FACTS)
        + doctor_storage.judge_storage(alone, FACTS)
    )
    assert {finding.state for finding in found} == {"ok"}


def test_a_run_that_began_elsewhere_is_warned() -> None:
    found = doctor_nodes.judge_numerics(nodes(), {"device": "A100", "threads": 1, "kind": "environment"})
    assert found.state == "warning"
    assert "device was 'A100', is 'H100'" in found.measured


def test_space_is_compared_with_the_runs_checkpoints() -> None:
    config = Config()
    needed = 10**8 * (config.checkpoint.keep_last + 2)
    for free, state in ((needed, "ok"), (needed - 1, "warning"), (10**8, "problem")):
        assert doctor_storage.judge_space(replace(DISK, free_bytes=free), FACTS).state == state
    for there in (config.checkpoint.keep_last, config.checkpoint.keep_last + 3):
        facts = replace(FACTS, checkpoints=there)
        assert doctor_storage.judge_space(replace(DISK, free_bytes=2 * 10**8), facts).state == "ok", "they take no more"
        assert doctor_storage.judge_space(replace(DISK, free_bytes=2 * 10**8 - 1), facts).state == "problem"
    assert doctor_storage.judge_space(replace(DISK, free_bytes=10**9), RunFacts()).state == "warning"


@pytest.mark.parametrize(
    ("line", "state"),
    [
        ("/dev/sda1 100 0 1000 12 0 0", "ok"),
        ("/dev/sda1 950 1000 2000 12 0 0", "warning"),
        ("/dev/sda1 2000* 1000 2000 6days 12 0 0", "problem"),
        ("Disk quotas for user me (uid 5): none", "ok"),
    ],
)
def test_quota_is_read(line: str, state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "quota").write_text(f"#!/bin/sh\necho 'Disk quotas'\necho '     {line}'\n")
    (tmp_path / "quota").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert doctor_storage.judge_quota().state == state


def test_grace_is_compared_with_a_step_and_two_saves() -> None:
    assert times.needed_s(FACTS) == pytest.approx(2 * 4.9 + 0.1)
    for grace_s, state in ((9, "warning"), (10, "ok")):
        assert times.judge_grace_time(FACTS, replace(CPU, grace_s=grace_s)).state == state
    assert times.judge_grace_time(FACTS, replace(CPU, preempt_mode="OFF")).state == "ok"
    assert times.judge_grace_time(FACTS, replace(CPU, preempt_mode="CANCEL")).state == "warning"
    assert "not measured" in times.judge_grace_time(RunFacts(), CPU).meaning
    found = times.judge_warning_time(FACTS, Profile(warn_s=9))
    assert (found.state, found.todo) == ("problem", "warn_s = 20 in the profile, or a longer --time")
    assert times.judge_warning_time(FACTS, Profile()).state == "ok"
    assert times.judge_warning_time(replace(FACTS, warn_s=5), Profile()).state == "problem"


def test_young_and_daly() -> None:
    """Against the best of the expected run times with exponential failures, which Daly starts from."""
    cost, mean = 60.0, 86400.0
    assert times.young_interval(cost, mean) == pytest.approx(3219.94, abs=0.01)

    def expected(every: float) -> float:
        return mean * math.expm1((every + cost) / mean) / every

    best = min(range(1000, 6000), key=expected)
    assert times.daly_interval(cost, mean) == pytest.approx(best, abs=2)
    assert times.daly_interval(300.0, 100.0) == 100.0


def test_the_interval_is_judged_by_what_it_costs() -> None:
    often = replace(FACTS, failures=10, watched_s=10 * 3600.0)  # one an hour
    config = replace(Config(), checkpoint_every_images=640_000)  # 500 s
    found = times.judge_interval(replace(often, config=config), nodes=4)
    assert found.state == "warning"
    assert "every 640,000 images = 8 min" in found.measured
    assert "a job fails every 60 min (10 failures in 10 h of this run and those beside it)" in found.measured
    best = int(found.todo.split()[1])
    assert best % config.step_images == 0
    assert best / FACTS.images_per_s == pytest.approx(math.sqrt(2 * 0.1 * 3600), rel=0.02)
    assert times.judge_interval(replace(often, config=replace(config, checkpoint_every_images=best)), 4).state == "ok"
    rare = times.judge_interval(replace(FACTS, config=config), nodes=4)
    assert rare.state == "ok"
    assert "a job fails every 25 days (no failure known; assumed: one in 100 days a node)" in rare.measured
    slow = times.judge_interval(replace(often, config=config, save_s=60.0), nodes=4)
    assert "at 76,800 images" in slow.meaning, "it is advised to save before the last save is durable"
    assert "not saved" in times.judge_interval(replace(FACTS, stall_s=None), 4).measured
