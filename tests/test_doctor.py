"""`launcher doctor`: what it measures, here and on a real Slurm, and what it refuses."""

from __future__ import annotations

import errno
import json
import os
import socket
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from launcher.__main__ import main
from launcher.doctor import disk as doctor_disk
from launcher.doctor import network as doctor_network
from launcher.doctor import run_facts as doctor_run
from launcher.doctor import timing as times
from launcher.doctor.measured import Probe, ProbeMessages
from launcher.doctor.plan import ProbePlan
from launcher.doctor.start import find_silent_tasks
from launcher.jobs import attempts
from launcher.jobs.attempts import Attempt, Cause, to_seconds
from slurm.dev_cluster import DevCluster
from slurm.profile import Profile
from tests.conftest import train
from tests.fake_slurm import CPU, GPU, FakeSlurm, fake_slurm
from tests.test_doctor_judgement import JUDGES, probe
from tests.test_launcher import launch
from trainer.config.config import Config
from trainer.core.fields import to_json
from trainer.runs.run_folder import RunFolder

__all__ = ["fake_slurm"]


def test_failures_are_counted_over_the_runs_beside(shards32: Path, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "a")
    train(run.path, shards32, "--total-images", "256")
    for folder, causes in (("a", [Cause.NODE_FAILED, Cause.PREEMPTED]), ("b", [Cause.CRASHED, None])):
        for number, cause in enumerate(causes):
            add_start(tmp_path / folder, number, cause, saved=64)
    facts = doctor_run.read_run_facts(run)
    assert (facts.failures, facts.watched_s) == (2, 3 * 3600)
    assert facts.checkpoints == len(list(run.checkpoints.iterdir()))
    assert times.mean_time_between_failures(facts, 1)[0] == 1.5 * 3600
    assert facts.step_s
    assert facts.save_s
    assert facts.stall_s is not None
    assert facts.stall_s < facts.save_s
    newest = max(run.checkpoints.iterdir())
    assert facts.checkpoint_bytes == sum(path.stat().st_size for path in newest.iterdir())
    assert 0.1 < facts.exchanged_mb < facts.checkpoint_bytes / 1e6
    assert facts.environment["threads"] == 1


def add_start(folder: Path, number: int, cause: Cause | None, saved: int = 0) -> None:
    """Add a start of an hour, or one that goes on."""
    folder.mkdir(exist_ok=True)
    ended = "2030-01-01T01:00:00+00:00" if cause else None
    start = Attempt(number, 0, "2030-01-01T00:00:00+00:00", ("n1",), 0, ended, cause, saved=saved)
    attempts.write_attempt(RunFolder(folder), start)


def test_what_goes_on_is_watched_and_a_crash_loop_is_no_failure_of_the_cluster(tmp_path: Path) -> None:
    run, other, damaged = (RunFolder(tmp_path / name) for name in "abc")
    add_start(run.path, 1, None)
    run.config.write_text(json.dumps(to_json(Config())))
    run.system.touch()
    newest_row = to_seconds("2030-01-01T05:00:00+00:00")
    os.utime(run.system, (newest_row, newest_row))
    for number in range(3):
        add_start(other.path, number, Cause.CRASHED)
    add_start(other.path, 3, Cause.NODE_FAILED)
    damaged.path.mkdir()
    damaged.attempts.write_text('{"kind": 3}\n')
    run.job.write_text('{"job": 1')
    facts = doctor_run.read_run_facts(run)
    assert (facts.failures, facts.watched_s, facts.warn_s) == (1, (5 + 4) * 3600, None)


def test_no_node_goes_on_while_another_may_still_knock(tmp_path: Path) -> None:
    """What comes next takes seconds in which nothing answers."""
    second = ProbeMessages(tmp_path, 1, 2)
    found: list[Any] = []
    first = threading.Thread(
        target=lambda: found.append(doctor_network.connect_to_all(ProbeMessages(tmp_path, 0, 2), "n1", "127.0.0.1"))
    )
    first.start()
    with doctor_network.serve_clock() as listener:
        second.write("listener", {"node": "n2", "address": "127.0.0.1", "port": listener.getsockname()[1]})
        assert second.wait_for_first("met", timeout_s=10) == []
        first.join(0.1)
        assert found == []
        second.write("met", [])
        first.join(10)
    ((address, (reached,), all_met),) = found
    assert (address, reached.problem, all_met) == ("127.0.0.1", "", True)


def test_ports_answer_and_closed_ones_are_reported() -> None:
    with doctor_network.serve_clock() as listener:
        seen = doctor_network.exchange_clocks(1, "n1", "127.0.0.1", listener.getsockname()[1])
    assert seen.problem == ""
    assert abs(seen.offset_s) < 0.05
    assert 0 < seen.round_trip_s < 0.5
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    assert doctor_network.exchange_clocks(1, "n1", "127.0.0.1", port).problem == f"127.0.0.1:{port}: Connection refused"


def test_a_folder_is_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = doctor_disk.measure_disk(tmp_path, 0)
    assert (found.rename, found.link) == ("", "")
    assert len(found.fsync_s) == doctor_disk.FSYNCS

    def no_links(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    assert doctor_disk.try_link(tmp_path / "other") == "Operation not permitted"
    monkeypatch.setattr(os, "link", lambda *_: None)
    assert doctor_disk.try_link(tmp_path / "another") == "a link replaced a file that was there"


def test_nodes_read_what_others_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_disk, "BEAT_S", 0.05)
    first, second = ProbeMessages(tmp_path, 0, 2), ProbeMessages(tmp_path, 1, 2)
    writer = threading.Thread(target=doctor_disk.measure_visibility, args=(first, 0.0))
    writer.start()
    delays = doctor_disk.measure_visibility(second, 0.0)
    writer.join()
    assert 1 <= len(delays) <= doctor_disk.BEATS
    assert max(delays) < 1
    second.write_probe(probe(1))
    assert second.read_probes() == [probe(1)]
    assert ProbeMessages(tmp_path, 0, 3).wait_for_all("probe", timeout_s=0.05).keys() == {1}
    with pytest.raises(TimeoutError, match="said nothing of its store"):
        second.wait_for_first("store", timeout_s=0.05)


def test_who_does_not_answer_is_named_with_its_last_words() -> None:
    said = """\
srun: job 5 has been allocated resources
1: Traceback (most recent call last):
1: ModuleNotFoundError: No module named 'torch'
srun: error: n[7]: task 1: Exited with exit code 1
3: slurmstepd-n9: error: execve(): /py: No such file or directory
srun: error: n9: tasks 2-3: Exited with exit code 2"""
    assert find_silent_tasks(said.splitlines(), 4, {0}) == {
        "n[7] (task 1)": "ModuleNotFoundError: No module named 'torch'",
        "n9 (task 2)": "srun: error: n9: tasks 2-3: Exited with exit code 2",
        "n9 (task 3)": "slurmstepd-n9: error: execve(): /py: No such file or directory",
    }


def test_the_probe_starts_as_a_rank_would(monkeypatch: pytest.MonkeyPatch) -> None:
    site = Profile(
        account="art",
        container="pyxis",
        image="i.sqsh",
        mounts=("/a:/a",),
        python="python3",
        srun=("-v",),
        memory_gb=64,
    )
    command = ProbePlan(Path("/f"), 4, GPU, 8, site).command()
    assert command[:3] == ["srun", "--label", "--unbuffered"]
    assert {"--nodes=4", "--ntasks-per-node=1", "--partition=gpu", "--account=art", "--gpus-per-node=8"} <= {*command}
    assert "--mem=64GB" in command
    assert {"--container-image=i.sqsh", "--container-mounts=/a:/a"} <= {*command}
    assert command[-5:] == ["-v", "python3", "-m", "launcher.doctor.probe", "/f"]
    site = replace(site, container="apptainer", setup=("module load x",), environment=("A=b=c",), interface="ib0")
    plan = ProbePlan(Path("/f"), 1, replace(CPU, max_time_min=5), 0, site)
    command = plan.command()
    assert command[:5] == ["bash", "-c", 'module load x\nexec "$@"', "bash", "srun"]
    assert "--time=5" in command
    assert command[-9:-4] == ["apptainer", "exec", "--nv", "--bind=/a:/a", "i.sqsh"]
    for name, value in (("SLURM_JOB_ID", "5"), ("SLURM_NTASKS", "9"), ("SBATCH_RESERVATION", "high")):
        monkeypatch.setenv(name, value)
    kept = plan.environment(Path("/code"))
    assert "SLURM_NTASKS" not in kept
    assert kept["SLURM_RESERVATION"] == "high"
    assert (kept["PYTHONPATH"], kept["A"], kept["GLOO_SOCKET_IFNAME"]) == ("/code", "b=c", "ib0")
    assert kept["NCCL_SOCKET_IFNAME"] == "=ib0", "ib0 alone would be ib01 as well"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nowhere",), "nowhere holds no run: there is no config.json in it"),
        (("--partition", "gpus"), "did you mean 'gpu'?"),
        (("--nodes", "9"), "--nodes 9: partition cpu has 8 nodes"),
        (("--nodes", "0"), "--nodes must be a number"),
        (("--profile", "moon"), "there is no profile"),
    ],
)
def test_what_cannot_be_examined_is_refused(
    arguments: tuple[str, ...], message: str, fake_slurm: FakeSlurm, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", *arguments]) == 2
    said = capsys.readouterr().err
    assert said.startswith("refused: ")
    assert message in said
    assert len(said.splitlines()) == 1


def test_a_job_that_does_not_start_is_a_problem(fake_slurm: FakeSlurm, capsys: pytest.CaptureFixture[str]) -> None:
    fake_slurm.answer("echo 'srun: error: Unable to allocate resources: Invalid account' >&2; exit 1")
    assert main(["doctor"]) == 1
    said = capsys.readouterr().out
    assert "the probe's job did not run: srun: error: Unable to allocate resources: Invalid account" in said
    assert list(Path().iterdir()) == [], "the probe's folder is left"


def test_this_machine_is_examined_without_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_CONF", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    done = launch(tmp_path, "doctor", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert {finding["check"] for finding in found["findings"]} >= {"code", "versions", "disk", "fsync", "interval"}
    assert {finding["state"] for finding in found["findings"]} <= {"ok", "warning"}
    (here,) = found["nodes"]
    assert here["problems"] == {}
    assert here["environment"]["threads"] == 1
    assert list(tmp_path.iterdir()) == [], "the probe's folder is left"
    refused = launch(tmp_path, "doctor", "--nodes", "2")
    assert refused.returncode == 2
    assert "there is no Slurm here" in refused.stderr


def test_two_nodes_are_examined_from_a_run(on_slurm: DevCluster, shards32: Path, tmp_path: Path) -> None:
    train(tmp_path / "r", shards32, "--total-images", "256")
    before = sorted((tmp_path / "r").iterdir())
    done = launch(tmp_path, "doctor", "r", "--nodes", "2", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    states = {finding["check"]: finding["state"] for finding in found["findings"]}
    assert set(JUDGES) | {"disk", "quota", "grace time", "time limit", "interval"} == set(states)
    assert "problem" not in states.values()
    probes = [Probe.from_json(values) for values in found["nodes"]]
    assert len({one.node for one in probes}) == 2
    assert all(one.problems == {} and one.exchange_s and one.interface == "lo" for one in probes)
    assert probes[1].visible_s
    assert abs(probes[1].reached[0].offset_s) < 0.1
    assert sorted((tmp_path / "r").iterdir()) == before, "the probe's folder is left"
    (tmp_path / "bad.toml").write_text('python = "/nowhere/python"\n')
    done = launch(tmp_path, "doctor", "--profile", "bad.toml")
    assert done.returncode == 1
    assert "2 of 2 nodes cannot run it: n1 (task 0): " in done.stdout
    assert "/nowhere/python: No such file or directory" in done.stdout
