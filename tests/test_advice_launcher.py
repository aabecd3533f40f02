"""What the launcher advises works, done literally; what trains is in test_advice_runs.py."""

from __future__ import annotations

import re
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from launcher.cli import cancel
from launcher.cli.init import TEMPLATE
from launcher.doctor import links, timing
from launcher.doctor.run_facts import RunFacts
from launcher.jobs import demo_data
from slurm import control
from slurm import profile as profiles
from slurm.errors import SlurmUsageError
from slurm.profile import Profile
from tests.advice import do, refusal, told
from tests.conftest import HOME, TINY
from tests.evaluated_runs import blots, made_run
from tests.fake_slurm import CPU, FakeSlurm, fake_slurm, live_job
from tests.made_runs import MadeRun, job, slurm_says
from tests.test_doctor_judgement import FACTS, nodes
from trainer.distributed.rank_environment import COUNTED_BY
from trainer.runs.config_defaults import PROJECT_FILE
from trainer.runs.run_folder import RunFolder

__all__ = ["fake_slurm"]

SUBMIT = "python -m launcher submit"
RESUME = "python -m launcher resume RUN"
LOCAL = ("--cluster", "local", "--dry-run")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labelled shards of 32 px in a folder with a space; the pictures lie in ../source."""
    folder = tmp_path_factory.mktemp("data") / "my pictures"
    folder.mkdir()
    return blots(folder)


@pytest.fixture
def run(data: Path, tmp_path: Path) -> RunFolder:
    """A run in a folder with a space."""
    return made_run(tmp_path / "a run", data, 16)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to stand in."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def tiny(data: Path, *settings: str) -> tuple[str, ...]:
    return (*TINY, "--data", str(data), *settings)


def test_slurm_that_is_not_here(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(control, "find_cluster", lambda *_: None)
    said = refusal(capsys, SUBMIT, *tiny(data, "--cluster", "slurm", "--dry-run"))
    assert "use --cluster local to train on this machine" in said
    assert do(SUBMIT, *tiny(data, *LOCAL)) == 0
    assert told(said, "with: ") == "python -m slurm up"  # which test_slurm_dev_cluster.py does


def test_without_data_and_bundled_pictures(
    data: Path, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo_data, "FOLDER", here / "demo")
    monkeypatch.setattr(demo_data, "ARCHIVE", here / "nowhere.zip")
    said = refusal(capsys, SUBMIT, *TINY, *LOCAL)
    assert "use --data DIR, a folder that python -m shards build made" in said
    assert do(SUBMIT, *tiny(data, *LOCAL)) == 0
    assert do(told(said, "for good with: ").replace("DIR", shlex.quote(str(data)))) == 0
    assert do(SUBMIT, *TINY, *LOCAL) == 0


def test_bundled_pictures_that_cannot_be_built(
    data: Path, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = shutil.make_archive(str(here / "pictures"), "zip", data.parent / "source")
    monkeypatch.setattr(demo_data, "FOLDER", here / "demo")
    monkeypatch.setattr(demo_data, "ARCHIVE", Path(pictures))
    in_the_way = here / "demo" / "shards-32" / "letter.txt"
    in_the_way.parent.mkdir(parents=True)
    in_the_way.touch()
    monkeypatch.setenv("PYTHONPATH", str(HOME))
    said = refusal(capsys, SUBMIT, *TINY, *LOCAL)
    assert said.endswith("; remove what is there, or name --data")
    assert do(SUBMIT, *tiny(data, *LOCAL)) == 0
    shutil.rmtree(said.partition(" cannot be made")[0])
    good = Path(pictures).read_bytes()
    Path(pictures).write_bytes(good[:100])
    assert refusal(capsys, SUBMIT, *TINY, *LOCAL).endswith("name --data")
    Path(pictures).write_bytes(good)
    assert do(SUBMIT, *TINY, *LOCAL) == 0


def test_init(data: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert do("python -m launcher init", "--data", str(data)) == 0
    assert do(told(capsys.readouterr().out, "; next: "), *TINY, *LOCAL) == 0
    command = re.search(r"`(.+ --help-all)`", TEMPLATE)
    assert command
    with pytest.raises(SystemExit, match="0"):
        do(command[1])
    assert refusal(capsys, "python -m launcher init").endswith("exists already: edit it, or remove it first")
    PROJECT_FILE.write_text(PROJECT_FILE.read_text().replace('"lienzo"', '"art"'))
    assert do(SUBMIT, *TINY, *LOCAL) == 0
    assert "project art" in capsys.readouterr().out
    PROJECT_FILE.unlink()
    assert do("python -m launcher init") == 0


def test_a_profile_that_is_written(fake_slurm: FakeSlurm, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In a folder with a space; lienzo.toml is there already."""
    PROJECT_FILE.write_text("[tracking]\n")
    Path("my site").mkdir()
    init = ("python -m launcher init", "--profile", "my site/p.toml")
    assert do(*init) == 0
    line = told(capsys.readouterr().out, "above its first [table]: ")
    PROJECT_FILE.write_text(f"{line}\n{PROJECT_FILE.read_text()}")
    assert do(SUBMIT, *tiny(data, "--dry-run")) == 0
    said = re.search(r"Use it with `([^`]+)`, or\n# with the line `([^`]+)`", Path("my site/p.toml").read_text())
    assert said
    assert said[2] == line
    assert do(said[1], *tiny(data, "--dry-run")) == 0
    assert refusal(capsys, *init).endswith("exists already: edit it, or remove it first")
    Path("my site/p.toml").write_text('partition = "gpu"\n')
    assert do(said[1], *tiny(data, "--dry-run")) == 0
    assert "Slurm partition gpu" in capsys.readouterr().out
    Path("my site/p.toml").unlink()
    assert do(*init) == 0


def test_profiles_that_are_named() -> None:
    with pytest.raises(SlurmUsageError) as error:
        profiles.load_profile("moon")
    names = told(str(error.value), "name a .toml file, or one of ").split(", ")
    for name in (*names, str(profiles.PROFILES / f"{names[0]}.toml")):
        profiles.load_profile(name)


def test_processes_that_the_nodes_decide(
    fake_slurm: FakeSlurm, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = tiny(data, "--partition", "gpu", "--dry-run", "--keep-batch")
    few = ("--gpus-per-node", "2", "--nodes")
    for many, works in ((), ("--gpus-per-node", "4")), ((*few, "4"), (*few, "2")):
        said = refusal(capsys, SUBMIT, *asked, *many)
        assert "use at most 4 (--processes; on Slurm fewer --nodes or --gpus-per-node)" in said
        assert do(SUBMIT, *asked, *works) == 0
    for partition, option in ("gpu", "--gpus-per-node"), ("cpu", "--nodes"):
        asked = tiny(data, "--dry-run", "--partition", partition)
        assert refusal(capsys, SUBMIT, *asked, "--processes", "2").endswith(f": use {option}")
        assert do(SUBMIT, *asked, option, "2") == 0
    monkeypatch.setenv(COUNTED_BY["srun"], "2")
    said = refusal(capsys, SUBMIT, *tiny(data, "--dry-run"))
    monkeypatch.delenv(COUNTED_BY["srun"])
    command = said.partition("start it once: `")[2].partition("`")[0]
    assert do(command.replace("N", "2"), *tiny(data, "--dry-run")) == 0


def test_a_run_folder_on_a_disk_of_one_node(
    fake_slurm: FakeSlurm,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("launcher.jobs.checks.file_system", lambda path: "tmpfs" if path.name == "here" else "nfs4")
    asked = tiny(data, "--dry-run", "--run")
    assert "name a --run on a file system that all nodes share" in refusal(capsys, SUBMIT, *asked, "r")
    (tmp_path / "shared").mkdir()
    assert do(SUBMIT, *asked, str(tmp_path / "shared" / "r")) == 0


def test_wandb_without_a_key(
    fake_slurm: FakeSlurm, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("NETRC", "nowhere")
    asked = tiny(data, "--dry-run", "--tracking.mode")
    said = refusal(capsys, SUBMIT, *asked, "online")
    assert said.endswith("set WANDB_API_KEY, run `wandb login`, or use --tracking.mode offline")
    assert do(SUBMIT, *asked, "offline") == 0
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    assert do(SUBMIT, *asked, "online") == 0


def test_a_run_that_has_a_job(
    fake_slurm: FakeSlurm, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert do(SUBMIT, *tiny(data, "--run", "a run")) == 0
    states = ["PENDING"]
    monkeypatch.setattr(control, "show_job", lambda id: live_job(id, states[-1]))
    monkeypatch.setattr(control, "cancel_job", lambda id: states.append("CANCELLED"))
    said = refusal(capsys, "python -m launcher resume", "a run")
    watch, end = re.findall(r"`([^`]+)`", said)
    assert do(watch) == 0
    again = told(refusal(capsys, "python -m launcher rm 'a run' --yes"), "end it first: ")
    assert shlex.split(again)[:4] == shlex.split(end)[:4]
    assert (do(again), do(end)) == (0, 0)
    assert do("python -m launcher resume", "a run", "--dry-run") == 0
    assert do("python -m launcher rm 'a run' --yes") == 0


def test_cancel_without_slurms_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = MadeRun(tmp_path / "r")
    made.submitted()
    slurm_says(monkeypatch, "no answer within 30 s")
    end = shlex.join(["python", "-m", "launcher", "cancel", str(made.folder)])
    assert refusal(capsys, end).endswith("but it may still train: try again")
    slurm_says(monkeypatch, job("CANCELLED"))
    assert do(end) == 0


def test_a_wait_that_is_left(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def leave(seconds: float) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("launcher.cli.cancel.time.sleep", leave)
        assert cancel.wait_until_over(run, "process 7 to end", lambda: False, "") == 130
    assert do(told(capsys.readouterr().out, "watch it with: ")) == 0


def test_a_run_behind_a_link(run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "link").symlink_to(run.path)
    command = told(refusal(capsys, f"python -m launcher rm {tmp_path / 'link'}"), "leads to, as in: ")
    assert "only with --yes" in refusal(capsys, command)
    assert do(command, "--yes") == 0
    assert not run.path.exists()


def test_a_run_that_exists_is_gone_on_with(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    said = refusal(capsys, "python -m launcher resume", str(run.path), "--as", str(run.path), *LOCAL)
    assert do(told(said, "go on with it: "), *LOCAL) == 0


def test_status_tells_what_to_do_next(
    data: Path, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(control, "find_cluster", lambda *_: None)
    assert do("python -m launcher status") == 0
    assert do(told(capsys.readouterr().out, "begin one with: "), *tiny(data, *LOCAL)) == 0
    left = made_run(Path("runs/a run"), data, 16)
    capsys.readouterr()
    assert do("python -m launcher status") == 0
    command = told(capsys.readouterr().out, "go on with: ").strip()
    assert do(command.replace("RUN", shlex.quote(str(left.path))), *LOCAL) == 0


def test_recipes_tell_how_to_start_them(data: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert do("python -m launcher recipes") == 0
    said = capsys.readouterr().out
    for name in "dcgan-64", "projection-64":
        assert do(told(said, "all that one sets: ").strip().replace("NAME", name)) == 0
        build, start = re.findall(r"^(python -m .+?) *$", capsys.readouterr().out, re.MULTILINE)
        words = {"PICTURES": str(data.parent / "source"), "DIR": str(here / name)}
        for command, more in (build, ("--workers", "1")), (start, LOCAL):
            assert do(shlex.join(words.get(word, word) for word in shlex.split(command)), *more) == 0
        assert do(told(said, "start one: ").strip().replace("NAME", name).replace("DIR", str(here / name)), *LOCAL) == 0


def test_the_doctors_options(run: RunFolder) -> None:
    assert "name a RUN that has saved" in str(timing.judge_grace_time(RunFacts(), CPU))
    assert "a save is durable" in str(timing.judge_grace_time(FACTS, CPU))
    assert "name a RUN" in str(timing.judge_warning_time(RunFacts(), Profile()))
    assert "a save is durable" in str(timing.judge_warning_time(FACTS, Profile()))
    assert "name a RUN to have it compared" in str(links.judge_reduction(nodes(), RunFacts()))
    assert "this run exchanges" in str(links.judge_reduction(nodes(), FACTS))
    lost = links.judge_rendezvous(nodes(interfaces=("lo", "eth0")), "ib0")
    assert lost.state == "problem"
    assert "set interface in the profile to one of lo, eth0, ib0, or leave it out" in lost.todo
    for interface in "eth0", "":
        assert links.judge_rendezvous(nodes(interfaces=("lo", "eth0")), interface).state == "ok"
    short = timing.judge_grace_time(FACTS, replace(CPU, grace_s=5))
    assert short.todo.startswith("save more often: --checkpoint-every-images;")
    best = timing.judge_interval(replace(FACTS, stall_s=9.0), 100_000)
    for option in (short.todo.partition(": ")[2].partition(";")[0], "640"), shlex.split(best.todo)[:2]:
        assert do("python -m launcher resume", str(run.path), *option, *LOCAL) == 0
    assert timing.judge_grace_time(FACTS, replace(CPU, preempt_mode="CANCEL")).todo == "after a preemption: " + RESUME
    assert do(RESUME.replace("RUN", shlex.quote(str(run.path))), *LOCAL) == 0
