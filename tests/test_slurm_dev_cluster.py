"""A real Slurm with several nodes on this machine: it preempts, loses nodes and forgets nothing."""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from slurm import control, programs
from slurm.__main__ import main
from slurm.configuration import LONGEST_FOLDER, check_folder, user_name
from slurm.dev_cluster import DevCluster
from slurm.dev_settings import CLUSTER_NAME, DevClusterSettings
from slurm.errors import SlurmUsageError
from slurm.processes import find_processes
from tests.conftest import run
from tests.slurm_cluster import clear, wait_for

# Logs what reaches the batch script and its task; the first task asks to be requeued at its first signal, if it should.
JOB = """\
#!/bin/bash
say() {{ echo "${{SLURM_RESTART_COUNT:-0}} $*" >> {log}; }}
export -f say
trap 'say script TERM' TERM
trap 'say script USR2' USR2
trap 'say script EXIT' EXIT
srun --kill-on-bad-exit=1 bash -c '
  ended() {{
    say task $SLURMD_NODENAME $1
    sleep 1
    [ $SLURM_PROCID = 0 ] && [ $REQUEUES ] && scontrol requeue $SLURM_JOB_ID
    while true; do sleep 0.1; done
  }}
  trap "ended TERM" TERM
  trap "ended USR2" USR2
  say task $SLURMD_NODENAME started
  while true; do sleep 0.1; done'
"""


class Logged:
    """A job of two nodes that logs its signals."""

    def __init__(self, cluster: DevCluster, folder: Path, *options: str, requeues: bool = False) -> None:
        self.log = folder / "log"
        script = folder / "job.sh"
        script.write_text(JOB.format(log=self.log))
        command = ("sbatch", "--parsable", "-N2", "--ntasks-per-node=1", f"--output={folder}/out", *options)
        exported = f"--export=ALL,REQUEUES={'yes' if requeues else ''}"
        self.id = cluster.ask(*command, exported, str(script)).strip()

    def lines(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []

    def count(self, end: str) -> int:
        return sum(line.endswith(end) for line in self.lines())

    def started(self, attempt: int = 0) -> bool:
        return sum(line.startswith(f"{attempt} task") and line.endswith("started") for line in self.lines()) == 2

    def now(self) -> control.SlurmJob:
        job = control.show_job(self.id)
        assert job is not None
        return job

    def waits(self) -> bool:
        return self.now().state == "PENDING"


@pytest.fixture(scope="module")
def other_cluster() -> Iterator[DevCluster]:
    """A second cluster beside the first: two nodes, and it preempts with the job's own signal."""
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    cluster = DevCluster(folder)
    cluster.up(DevClusterSettings(nodes=2, signal_style="user", requeue_delay_s=5))
    yield cluster
    cluster.down()
    shutil.rmtree(folder)


def test_tasks_run_on_all_nodes_of_two_clusters(on_slurm: DevCluster, other_cluster: DevCluster) -> None:
    for cluster, names in ((on_slurm, ["n1", "n2", "n3", "n4"]), (other_cluster, ["n1", "n2"])):
        said = cluster.ask("srun", f"-N{len(names)}", "bash", "-c", "echo $SLURMD_NODENAME")
        assert sorted(said.split()) == names
    mine, others = on_slurm.daemons.running(), other_cluster.daemons.running()
    assert not {one.pid for one in mine} & {one.pid for one in others}
    assert sum(one.kind == "slurmd" for one in mine) == 4


def test_facts_of_the_cluster(on_slurm: DevCluster) -> None:
    assert control.find_cluster() == str(on_slurm.conf)
    assert [(node.name, node.address, node.cpus) for node in control.list_nodes()] == [
        (f"n{number}", "127.0.0.1", 2) for number in range(1, 5)
    ]
    assert control.show_node("n2").state == "IDLE"
    with pytest.raises(control.SlurmError, match="n7"):
        control.show_node("n7")
    main, urgent = control.list_partitions()
    assert (main.name, main.default, main.grace_s, main.preempt_mode) == ("main", True, 20, "REQUEUE")
    assert (urgent.name, urgent.default, urgent.total_nodes, urgent.max_time_min) == ("urgent", False, 4, None)
    assert (main.cores_per_node, main.memory_mb_per_node) == (2, 4096)
    assert control.show_job("999999") is None
    written = "r[1-2]c[08-10],n[1-3,07],login"
    assert control.expand_node_list(written) == tuple(on_slurm.ask("scontrol", "show", "hostnames", written).split())


def test_a_job_is_seen_and_changed(on_slurm: DevCluster, tmp_path: Path) -> None:
    job = Logged(on_slurm, tmp_path, "--hold", "--job-name=two words", "--comment=State=x y", "--time=90", "--requeue")
    seen = job.now()
    assert (seen.name, seen.comment, seen.state, seen.reason) == ("two words", "State=x y", "PENDING", "JobHeldUser")
    assert seen.restarts == 0
    control.exclude_nodes(job.id, ["n1", "n2"])
    on_slurm.ask("scontrol", "release", job.id)
    assert wait_for(job.started)
    assert job.now().nodes == ("n3", "n4")
    assert {node for _, node, _ in on_slurm.processes()} == {"n3", "n4"}
    control.send_signal(job.id, "CONT")
    control.cancel_job(job.id)
    assert wait_for(lambda: job.now().state == "CANCELLED")
    control.cancel_job(job.id)
    assert on_slurm.processes() == []


def test_a_dead_node_and_what_ran_on_it(on_slurm: DevCluster, tmp_path: Path) -> None:
    job = Logged(on_slurm, tmp_path, "--nodelist=n1,n2", "--requeue")
    assert wait_for(job.started)
    on_slurm.fail("n2")
    assert on_slurm.processes("n2") == []
    with pytest.raises(SlurmUsageError, match="dead already"):
        on_slurm.fail("n2")
    assert wait_for(lambda: job.now().restarts == 1, timeout_s=60)
    assert "DOWN" in control.show_node("n2").state
    assert wait_for(job.waits)
    on_slurm.heal("n2")
    assert control.show_node("n2").state == "IDLE"
    # It waits its time: what Slurm still had to tell the dead node would end the new attempt.
    assert wait_for(lambda: job.started(attempt=1))


def test_preemption_by_sigterm(on_slurm: DevCluster, tmp_path: Path) -> None:
    job = Logged(on_slurm, tmp_path, "--requeue", "--signal=USR2@60", requeues=True)
    assert wait_for(job.started)
    on_slurm.ask("sbatch", "-N4", "--exclusive", "--partition=urgent", "--output=/dev/null", "--wrap", "sleep 1")
    assert wait_for(lambda: job.count("TERM") == 2)
    assert job.now().preempt_time is not None
    assert job.count("script TERM") == 0, "the batch script hears nothing until it is ended"
    assert job.count("USR2") == 0
    assert wait_for(lambda: job.now().restarts == 1)
    assert wait_for(job.waits)
    on_slurm.ask("scontrol", "update", f"JobId={job.id}", "StartTime=now")
    assert wait_for(lambda: job.started(attempt=1))


def test_preemption_by_the_jobs_own_signal(
    other_cluster: DevCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_CONF", str(other_cluster.conf))
    job = Logged(other_cluster, tmp_path, "--requeue", "--signal=USR2@60", requeues=True)
    assert wait_for(job.started)
    other_cluster.ask("sbatch", "-N2", "--exclusive", "-purgent", "--output=/dev/null", "--wrap", "sleep 1")
    assert wait_for(lambda: job.count("USR2") == 2)
    assert job.count("TERM") == 0, "that comes at the end"
    assert job.now().preempt_time is not None
    assert wait_for(lambda: job.now().restarts == 1)
    clear(other_cluster)


def test_a_drained_node_gets_no_job(on_slurm: DevCluster) -> None:
    on_slurm.drain("n3", "its fan is loud")
    node = control.show_node("n3")
    assert ("DRAIN" in node.state, node.reason) == (True, "its fan is loud")
    on_slurm.heal("n3")
    assert control.show_node("n3").state == "IDLE"


def test_the_commands_and_a_site_that_never_requeues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(tempfile.mkdtemp(prefix="slurm-")) / "of its own"
    at = ("--folder", str(folder))
    refused = run("slurm", "up", *at)
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1), refused.stderr
    folder = folder.with_name(".slurm-dev")
    at = ("--folder", str(folder))
    for words in (["status"], ["fail", "n1"], ["down"]):
        said = run("slurm", *words, *at).stderr
        assert said == f"refused: no cluster lives in {folder}; start one with: python -m slurm up {' '.join(at)}\n"
    up = (*shlex.split(said.partition("with: ")[2])[2:], "--nodes", "1", "--requeue", "no")
    try:
        done = run(*up)
        assert f"export SLURM_CONF={folder}/slurm.conf\n" in done.stdout, done.stderr
        srun, status, down = (line.strip() for line in done.stdout.partition("next:\n")[2].splitlines())
        assert "up already" in run(*up).stdout
        other = run(*up, "--cores", "3")
        assert other.returncode == 2
        assert other.stderr.endswith(f"other settings is up in {folder}: stop it first with: {down}\n")
        for command in ("drain", "fail"):
            assert run(*printed(run("slurm", command, "n1", *at).stdout, "with: ")).stdout == "n1 is ready\n"
        run("slurm", "fail", "n1", *at)
        dead = run("slurm", "fail", "n1", *at)
        assert run(*printed(dead.stderr, "with: ")).returncode == 0
        monkeypatch.setenv("SLURM_CONF", "as it was, after the test")
        monkeypatch.delenv("SLURM_CONF")
        monkeypatch.setattr(control, "SYSTEM_CONFIGURATIONS", ())
        assert control.find_cluster(folder.parent) == f"{folder}/slurm.conf"
        job = subprocess.check_output(
            ["sbatch", "--parsable", "--requeue", "-o/dev/null", "--wrap", "sleep 99"], text=True
        )
        assert wait_for(lambda: (seen := control.show_job(job.strip())) and seen.state == "RUNNING")
        with pytest.raises(control.SlurmError, match="disabled"):
            control.requeue_job(job.strip())
        assert "RUNNING" in run(*printed(status)).stdout
        subprocess.run(["scancel", job.strip()], check=True)
        assert subprocess.check_output(shlex.split(srun), text=True) == f"{platform.node()}\n"
        assert run("slurm", "fail", "n9", *at).returncode == 2
    finally:
        assert run(*printed(down)).returncode == 0
    assert DevCluster(folder).daemons.running() == []
    shutil.rmtree(folder.parent)


def printed(said: str, before: str = "") -> list[str]:
    """Return the command of ours that was printed behind these words."""
    words = shlex.split(said.partition(before)[2] if before else said)
    assert words[:2] == ["python", "-m"]
    return words[2:]


def test_a_cluster_whose_processes_died_comes_up_again(tmp_path: Path) -> None:
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    cluster, settings = DevCluster(folder), DevClusterSettings(nodes=1)
    try:
        assert cluster.up(settings)
        cluster.ask("sbatch", "--no-requeue", "--output=/dev/null", "--wrap", "sleep 99")
        assert wait_for(lambda: any("sleep 99" in command for _, _, command in cluster.processes()))
        before = {pid for pid, _, _ in cluster.processes()}
        for one in cluster.daemons.running("controller", "munged", "slurmd"):
            subprocess.run(["kill", "-9", str(one.pid)], check=False)
        assert cluster.up(settings)
        # A controller that died before it wrote that the job runs starts it anew: what ran before is gone all the same.
        assert not before & {pid for pid, _, _ in cluster.processes()}, "what the dead cluster's job ran is gone"
        cluster.ask("scancel", "--user", user_name())
        assert cluster.ask("srun", "--immediate=60", "echo", "here") == "here\n"
    finally:
        cluster.down()
    assert cluster.daemons.running() == []
    shutil.rmtree(folder)


def test_missing_programs_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "PROGRAMS", ("sbatch", "slurmctld-of-tomorrow"))
    monkeypatch.setattr(programs, "INSTALL", tmp_path / "none")
    with tempfile.TemporaryDirectory(prefix="slurm-") as name:  # short
        folder = Path(name) / "dev"
        for _ in range(2):  # and once more, when somebody has waited for the lock of the first
            with pytest.raises(
                SlurmUsageError, match=r"missing: slurmctld-of-tomorrow \(.*apt-get install slurm-wlm munge\)"
            ):
                DevCluster(folder).up()
            assert not (folder / "settings.json").exists()
            folder.mkdir(exist_ok=True)
            (folder / "lock").touch()


def test_a_user_without_a_name_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container that runs as any number."""
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000_000)
    with pytest.raises(SlurmUsageError, match="user 4000000000 has no name"):
        user_name()


@pytest.mark.parametrize("told", ['{"nodes": 1, "colour": "red"}', "{"])
def test_a_cluster_of_another_version_goes_down_and_comes_up_again(told: str) -> None:
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    cluster = DevCluster(folder)
    (folder / "settings.json").write_text(told)
    (folder / "logs").mkdir()
    cluster.down()
    try:
        assert cluster.up(DevClusterSettings(nodes=1))
        (folder / "settings.json").write_text(told)
        with pytest.raises(SlurmUsageError, match="other settings is up"):
            cluster.up(DevClusterSettings(nodes=1))
        with pytest.raises(SlurmUsageError, match="another version has brought up") as error:
            cluster.fail("n1")
        for command in str(error.value).partition("; renew it with: ")[2].split(" && "):
            assert main(printed(command)[1:]) == 0
        assert cluster.require_up() == DevClusterSettings()
    finally:
        cluster.down()
    assert cluster.daemons.running() == []
    shutil.rmtree(folder)


def test_a_job_of_another_slurm_is_none_of_the_clusters(tmp_path: Path) -> None:
    """Within a job of the site, every process says on which node it is, and SLURM_CONF may be exported."""
    (tmp_path / "spool" / "n1").mkdir(parents=True)
    mine = {
        "SLURM_CONF": f"{tmp_path}/slurm.conf",
        "SLURM_CLUSTER_NAME": CLUSTER_NAME,
        "SLURMD_NODENAME": "n1",
    }
    changes: list[dict[str, str]] = [{}, {"SLURMD_NODENAME": "cn042"}, {"SLURM_CLUSTER_NAME": "atlas"}]
    changes += [{"SLURMD_NODENAME": ""}, {"SLURM_CONF": "/etc/slurm/slurm.conf"}]
    found = []
    for change in changes:
        with subprocess.Popen(["sleep", "60"], env=os.environ | mine | change) as process:
            found.append(process.pid in {one.pid for one in find_processes(tmp_path)})
            process.kill()
    assert found == [True, False, False, False, False]


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(SlurmUsageError, match="holds something else: give another --folder"):
        DevCluster(tmp_path).up()
    with pytest.raises(SlurmUsageError, match=rf"give a --folder of at most {LONGEST_FOLDER} \(sockets\)"):
        DevCluster(tmp_path / ("x" * 100)).up()
    with pytest.raises(SlurmUsageError, match="cannot hold ' ' in a path; give another --folder"):
        DevCluster("/a b").up()
    check_folder(Path("/" + "x" * (LONGEST_FOLDER - 1)))  # another one, of that length
