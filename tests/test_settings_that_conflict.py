"""Settings that could be ignored: each does what it says, is refused, or is said to be overridden and by what."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from command_line.arguments import flag_given
from launcher.jobs.resource_request import ResourceRequest, describe_this_machine, refuse_processes
from tests.conftest import TINY, fingerprint, run, train
from trainer.config.config import Config
from trainer.config.groups import TrackingSettings
from trainer.config.wandb_environment import overridden_variables
from trainer.core.fields import Refused
from trainer.runs.config_defaults import load_defaults, resolve_length
from trainer.runs.config_loading import write_config
from trainer.runs.run_folder import RunFolder
from trainer.tracking.tracker import Identity


def test_a_run_of_epochs_goes_on_by_images(shards32: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    train(folder, shards32, "--total-images", "32")
    stored = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(stored | {"epochs": 1}))  # as if it had begun so
    train(folder, shards32, "--total-images=96")
    assert fingerprint(folder)[0] == 96
    assert json.loads((folder / "config.json").read_text())["epochs"] is None


def test_a_total_below_what_was_seen_is_refused(shards32: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    train(folder, shards32, "--total-images", "96")
    before = fingerprint(folder)
    assert "has seen 96 images already, and is to end at 32" in train(
        folder, shards32, "--total-images", "32", expect=2
    )
    assert "finished: 96 images" in train(folder, shards32, "--total-images", "90"), "rounded up to whole steps"
    assert fingerprint(folder) == before


def test_lengths_that_contradict_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Refused, match="name one of them"):
        resolve_length(Config(), ["--epochs=2", "--total_images", "9"])
    assert resolve_length(Config(epochs=2), ["--seed", "9"]).epochs == 2
    monkeypatch.chdir(tmp_path)
    Path("lienzo.toml").write_text("epochs = 2\ntotal_images = 9\n")
    with pytest.raises(Refused, match=r"lienzo\.toml: epochs and total_images .* keep one of them"):
        load_defaults(None, None)


def test_a_setting_is_said_in_any_spelling() -> None:
    for word in ("--total-images", "--total_images", "--total-images=3"):
        assert flag_given(["x", word], "total_images")
    assert not flag_given(["--total-images-more", "total-images"], "total_images")


def test_requests_to_slurm_are_named_where_there_is_none() -> None:
    assert describe_this_machine(ResourceRequest(cluster="local")) == "this machine"
    told = describe_this_machine(ResourceRequest(cluster="local", time="60", gpus_per_node=2))
    assert told == "this machine (not used, as they are of Slurm: --gpus-per-node, --time)"


def test_processes_on_slurm_are_refused_with_what_to_say() -> None:
    with pytest.raises(Refused, match="use --gpus-per-node"):
        refuse_processes(named=True, job_has_gpus=True)
    with pytest.raises(Refused, match="use --nodes"):
        refuse_processes(named=True, job_has_gpus=False)
    refuse_processes(named=False, job_has_gpus=False)


def test_wandb_variables_name_a_new_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over lienzo.toml, under the command line, and never those of a run that exists."""
    monkeypatch.chdir(tmp_path)
    Path("lienzo.toml").write_text('[tracking]\nproject = "from-file"\ngroup = "from-file"\n')
    for name in ("PROJECT", "NAME", "ENTITY", "NOTES", "JOB_TYPE"):
        monkeypatch.setenv(f"WANDB_{name}", f"my-{name.lower()}")
    monkeypatch.setenv("WANDB_TAGS", "a, b")
    monkeypatch.setenv("WANDB_RUN_ID", "mine")
    config, folder = load_defaults(None, None), RunFolder(tmp_path / "run")
    identity = Identity.create(folder, config.tracking)
    assert (identity.project, identity.name, identity.entity) == ("my-project", "my-name", "my-entity")
    assert (identity.group, identity.job_type, identity.notes) == ("from-file", "my-job_type", "my-notes")
    assert identity.tags == ("a", "b")
    assert identity.segments[0].id != "mine"
    assert [line.split(":")[0] for line in overridden_variables()] == ["WANDB_RUN_ID is not used"]
    folder.path.mkdir()
    identity.save(folder.wandb_identity)
    assert Identity.load(folder.wandb_identity) == identity
    write_config(folder, config)
    monkeypatch.setenv("WANDB_PROJECT", "another")
    assert load_defaults(None, folder).tracking == config.tracking


def test_tags_of_the_command_line_are_those_of_the_run(tmp_path: Path) -> None:
    settings = TrackingSettings(tags=" a,b c ,", notes="first try", job_type="train")
    identity = Identity.create(RunFolder(tmp_path), settings)
    assert (identity.tags, identity.notes, identity.job_type) == (("a", "b c"), "first try", "train")
    assert settings.check() is None
    assert "at most 64 letters" in str(TrackingSettings(tags="ok," + "x" * 65).check())


def test_a_run_stays_in_its_wandb_run(shards32: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    train(folder, shards32, "--total-images", "32")
    told = train(folder, shards32, "--total-images", "64", "--tracking.project", "another", expect=2)
    assert "tracking.project is 'lienzo' in" in told
    assert "cannot become 'another'" in told


def test_wandb_variables_that_wandb_would_refuse_are_refused(shards32: Path, tmp_path: Path) -> None:
    command = ["trainer", "train", *TINY, "--run", str(tmp_path / "run"), "--data", str(shards32)]
    done = run(*command, WANDB_PROJECT="a/b")
    assert done.returncode == 2
    assert "tracking.project must not hold /, but is 'a/b'" in done.stderr
