"""What `launcher study` advises works, done literally."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from launcher.__main__ import main
from launcher.jobs.runs import SlurmQueue
from launcher.study.folder import StudyFolder
from launcher.study.plan import StudyPlan
from launcher.study.run_progress import next_tasks, task_progress
from launcher.study.settings_file import parse_study
from slurm import control
from tests.advice import do, refusal, told
from tests.made_runs import MadeRun
from tests.studies import TOML, pace, plan
from tests.test_study_command import home
from trainer.core.fields import Refused

__all__ = ["home"]

STUDY = "python -m launcher study"
LOCAL = ("--cluster", "local")


def test_the_plan_tells_how_to_watch(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(control, "find_cluster", lambda *_: None)
    assert do(STUDY, "colours.toml", *LOCAL, "--out", "my study") == 0
    watch, each = told(capsys.readouterr().out, "watch       ").split("; each run: ")
    assert do(watch) == 0
    run = MadeRun(Path("my study/runs/plain-s7"))
    assert do(each.replace("RUN", f"'{run.folder}'")) == 0


def test_another_study_in_the_folder(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert do(STUDY, "colours.toml", *LOCAL, "--out", "a") == 0
    (home / "colours.toml").rename(home / "shapes.toml")
    asked = ("shapes.toml", *LOCAL, "--out")
    assert refusal(capsys, STUDY, *asked, "a").endswith("name another --out")
    assert do(STUDY, *asked, "another") == 0


def test_a_budget_that_is_lowered(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert do(STUDY, "colours.toml", *LOCAL) == 0
    folder = StudyFolder(home / "studies" / "colours")
    (folder.run("plain", 7).checkpoints / "000000001600-r00").mkdir(parents=True)
    (home / "colours.toml").write_text((home / "colours.toml").read_text().replace("1600", "800"))
    assert refusal(capsys, STUDY, "colours.toml", *LOCAL).endswith("name another --out")
    assert do(STUDY, "colours.toml", *LOCAL, "--out", "another") == 0


def test_a_study_in_other_hands(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with StudyFolder(Path("studies/colours")).held():
        said = refusal(capsys, STUDY, "colours.toml", *LOCAL)
        assert said.endswith(": wait for it, or end it")
        assert f"process {os.getpid()} on " in said, "whom to end"
    assert do(STUDY, "colours.toml", *LOCAL) == 0


def test_a_study_of_another_version(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert do(STUDY, "colours.toml", *LOCAL) == 0
    folder = StudyFolder(Path("studies/colours"))
    content = json.loads(folder.plan.read_text())
    folder.plan.write_text(json.dumps({name: value for name, value in content.items() if name != "home"}))
    said = refusal(capsys, STUDY, "colours.toml", *LOCAL)
    assert said.endswith(": remove it, and begin the study again by its TOML file")
    Path(said.partition(" is of another version")[0]).unlink()
    assert do(STUDY, "colours.toml", *LOCAL) == 0
    assert StudyPlan.open(folder).home == home


def test_a_short_run_that_told_no_speed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "find_cluster", lambda *_: None)
    made = plan(tmp_path, budget={"seconds": 20.0})
    run = MadeRun(made.folder.pace("a").path)
    pace(made, "a", 64.0, 1, 1, 1, 1, 1)
    run.event("start", -10, owner="a run on this machine")
    run.event("end", -5, outcome="finished")
    reason = task_progress(made, next(iter(made.stages()))[0], SlurmQueue()).reason
    assert "a" not in [task.arm for task in next_tasks(made, retry=False)[1]]
    assert reason.endswith(f"remove {run.folder} and use --retry")
    assert main(["rm", str(run.folder), "--yes"]) == 0
    assert "a" in [task.arm for task in next_tasks(made, retry=True)[1]]


@pytest.mark.parametrize(
    ("wrong", "told", "right"),
    [
        ({"evaluation": {"metric": "swd"}}, "take one of the figures that `metrics` give", {}),
        ({"arms": {}}, r"add \[arms.NAME\] with a recipe", {"arms": {"NAME": {"recipe": "dcgan-32"}}}),
        ({"seeds": [1000], "halving": {"rungs": 1, "keep": 0.5, "seeds": 1}}, "take others", {"seeds": [3]}),
        (
            {"arms": {"a/b": {"recipe": "dcgan-32"}}},
            "use letters, digits",
            {"arms": {"aB-3_.": {"recipe": "dcgan-32"}}},
        ),
    ],
)
def test_settings_of_a_study(wrong: dict[str, object], told: str, right: dict[str, object]) -> None:
    with pytest.raises(Refused, match=told) as error:
        assert parse_study(TOML | wrong, "study.toml", "made").better
    if "metric" in told:
        right = {"evaluation": {"metric": str(error.value).rpartition(": ")[2].split(", ")[0]}}
    assert parse_study(TOML | wrong | right, "study.toml", "made").better
