"""`launcher init --profile`: a site profile from what the cluster says."""

from __future__ import annotations

import os
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest

from launcher.__main__ import main
from launcher.cli import site_profile
from slurm import control
from slurm.profile import Profile, load_profile
from tests.fake_slurm import GPU, FakeSlurm, fake_slurm
from trainer.runs.config_defaults import read_project_file

__all__ = ["fake_slurm"]


def accounting(fake: FakeSlurm, says: str) -> None:
    """Let the cluster's sacctmgr say something."""
    path = fake.folder / "sacctmgr"
    path.write_text(f"#!/bin/sh\n{says}\n")
    path.chmod(0o755)


def test_a_profile_says_what_the_cluster_says(fake_slurm: FakeSlurm, capsys: pytest.CaptureFixture[str]) -> None:
    accounting(fake_slurm, "echo art")
    assert main(["init", "--profile", "site.toml"]) == 0
    assert load_profile("site.toml") == Profile(partition="cpu", account="art", time="1-00:00:00")
    text = Path("site.toml").read_text()
    assert "#   gpu: 8 nodes with 96 CPUs, 8 GPUs and 500 GB each, at most 2-00:00:00" in text
    assert 'time = "1-00:00:00"  # the partition gives at most 2-00:00:00' in text
    assert "# memory_gb = 0  # its nodes have 62" in text
    assert "# warn_s = 120  # a preempted job gets 120 s (REQUEUE)" in text
    assert read_project_file()["profile"] == "site.toml"
    said = capsys.readouterr().out
    assert "wrote site.toml" in said
    assert "wrote lienzo.toml" in said
    assert main(["init", "--profile", "site.toml"]) == 2
    assert capsys.readouterr().err == "refused: site.toml exists already: edit it, or remove it first\n"


def test_every_setting_is_explained_and_can_be_switched_on(fake_slurm: FakeSlurm) -> None:
    text = site_profile.profile_text(Path("site.toml"), [GPU], "")
    assert tomllib.loads(text) == {"partition": "gpu", "time": "1-00:00:00", "gpus_per_node": 8}
    assert '# account = ""  # the cluster\'s accounting does not tell yours' in text
    assert "gpus_per_node = 8  # gpu:h100:8" in text
    names = [setting.name for setting in fields(Profile)]
    commented = [line[2:] for line in text.splitlines() if line.startswith("# ") and line.split()[1] in names]
    switched_on = tomllib.loads("\n".join([*commented, *(line for line in text.splitlines() if line[:1] != "#")]))
    assert set(switched_on) == set(names)
    Path("all.toml").write_text("\n".join(commented))
    load_profile("all.toml")
    for name, meaning, _ in site_profile.profile_settings():
        assert f"# {meaning}\n" in text, name


def test_an_existing_project_file_is_left_alone(fake_slurm: FakeSlurm, capsys: pytest.CaptureFixture[str]) -> None:
    accounting(fake_slurm, "echo sacctmgr: error: no slurmdbd >&2; exit 1")
    Path("lienzo.toml").write_text("seed = 3\n")
    assert main(["init", "--profile", "site.toml"]) == 0
    assert 'put this line above its first [table]: profile = "site.toml"' in capsys.readouterr().out
    assert Path("lienzo.toml").read_text() == "seed = 3\n"
    assert load_profile("site.toml").account == ""
    assert main(["init"]) == 2
    assert "lienzo.toml exists already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("site.conf", "--profile site.conf: a profile's name ends in .toml"),
        ("nowhere/site.toml", "nowhere/site.toml cannot be written: No such file or directory"),
    ],
)
def test_a_file_that_will_not_do_is_refused(
    name: str, message: str, fake_slurm: FakeSlurm, capsys: pytest.CaptureFixture[str]
) -> None:
    accounting(fake_slurm, "exit 1")
    assert main(["init", "--profile", name]) == 2
    assert capsys.readouterr().err == f"refused: {message}\n"
    assert os.listdir() == []


def test_without_a_cluster_there_is_no_profile(
    fake_slurm: FakeSlurm, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "find_cluster", lambda: None)
    assert main(["init", "--profile", "site.toml"]) == 2
    assert "there is none here" in capsys.readouterr().err
    assert os.listdir() == []
