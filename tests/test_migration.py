"""Names that change: settings, states and tensors of the format before, and what users still write by the old names."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from launcher.study.settings_file import parse_study, read_settings
from trainer.config.config import Config
from trainer.core import aliases, formats, migration
from trainer.core.aliases import todays_flags, todays_settings
from trainer.core.fields import Refused, from_json, hash_of, hashed_settings, identity_hash, to_json
from trainer.core.migration import identity_hashes, upgrade_values, with_schema
from trainer.runs.config_loading import read_config
from trainer.runs.run_folder import RunFolder

SETTINGS = {2: {"optimizer.g_rate": "optimizer.g_lr", "mirror": "flip", "net": "network"}}
ADDED = {2: {"top_k": 1.0, "optimizer.ema_ramp": 0.05}}


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> None:
    """A format before, in which three settings were called otherwise and two were not there."""
    monkeypatch.setitem(formats.SETTINGS, 2, SETTINGS[2])
    monkeypatch.setitem(formats.ADDED, 2, ADDED[2])
    monkeypatch.setitem(formats.SCALARS, 2, {"a": "b", "b.x": "b.y"})
    monkeypatch.setitem(formats.TENSORS, 2, {"memory": "scalars"})
    aliases.hint.cache_clear()


def of_before(config: Config) -> dict[str, object]:
    """Return the settings as the format before wrote them."""
    values = to_json(config)
    del values["top_k"], values["optimizer"]["ema_ramp"]
    values["optimizer"]["g_rate"] = values["optimizer"].pop("g_lr")
    values["mirror"], values["net"] = values.pop("flip"), values.pop("network")
    return values


@pytest.mark.usefixtures("tables")
def test_settings_are_upgraded() -> None:
    config = replace(Config(), flip=True, seed=3)
    assert from_json(Config, upgrade_values("config.json", of_before(config), "here"), "here") == config
    assert from_json(Config, upgrade_values("config.json", with_schema(to_json(config)), "here"), "here") == config


@pytest.mark.usefixtures("tables")
def test_settings_keep_the_hash_that_the_format_before_gave_them() -> None:
    config = replace(Config(), flip=True)
    named = hashed_settings(config)
    before = {
        name.replace("optimizer.g_lr", "optimizer.g_rate").replace("flip", "mirror").replace("network.", "net."): value
        for name, value in named.items()
        if name not in ADDED[2]
    }
    assert identity_hashes(config) == (identity_hash(config), hash_of(before))
    assert identity_hashes(replace(config, top_k=0.5)) == (identity_hash(replace(config, top_k=0.5)),), (
        "it had none such"
    )


@pytest.mark.usefixtures("tables")
def test_states_and_tensors_are_upgraded_and_hashed_by_their_first_names() -> None:
    first = {"a": {"x": 1, "z": 2}, "c": 3}
    now = {"b": {"y": 1, "z": 2}, "c": 3}
    assert upgrade_values("state.json", first, "here") == now
    assert migration.with_first_names(now) == first
    assert migration.tensor_name("memory.p", 1) == "scalars.p"
    assert migration.tensor_name("scalars.p", 2) == "scalars.p"
    assert migration.first_tensor_name("scalars.p") == "memory.p"
    assert migration.first_tensor_name("scalars_of_others") == "scalars_of_others"


@pytest.mark.usefixtures("tables")
def test_flags_by_the_names_before_are_taken_with_a_hint(capsys: pytest.CaptureFixture[str]) -> None:
    old = [
        "dcgan-32",
        "--no-mirror",
        "--optimizer.g-rate=1e-4",
        "--net.z_dim",
        "8",
        "--net.no-d-batch-norm",
        "--seed",
        "1",
    ]
    new = ["dcgan-32", "--no-flip", "--optimizer.g-lr=1e-4", "--network.z-dim", "8", "--network.no-d-batch-norm"]
    assert todays_flags(old) == [*new, "--seed", "1"]
    said = capsys.readouterr().err.splitlines()
    ends = "now; the next version will not know the old name"
    assert said[0] == f"note: --no-mirror is called --no-flip {ends}"
    assert said[1] == f"note: --optimizer.g-rate is called --optimizer.g-lr {ends}"
    assert todays_flags(old) == [*new, "--seed", "1"]
    assert not capsys.readouterr().err, "each is said once"
    assert todays_flags(new) == new


@pytest.mark.usefixtures("tables")
def test_files_by_the_names_before_are_taken_with_a_hint(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert todays_settings({"net": {"z_dim": 8}, "mirror": True}, "f") == {"network": {"z_dim": 8}, "flip": True}
    hints = capsys.readouterr().err
    assert "note: f: mirror is called flip now" in hints
    assert "note: f: net is called network now" in hints
    with pytest.raises(Refused, match="f: mirror is called flip now, and both are there: keep flip"):
        todays_settings({"mirror": True, "flip": False}, "f")
    assert todays_settings({"flip": False}, "f") == {"flip": False}
    arm = {"recipe": "dcgan-32", "settings": {"optimizer": {"g-rate": 1e-4}}}
    study = parse_study({"data": "d", "seeds": 1, "budget": {"images": 64}, "arms": {"a": arm}}, "s", "s")
    assert study.arms["a"].settings == {"optimizer": {"g_lr": 1e-4}}
    assert "optimizer.g_rate is called optimizer.g_lr now" in capsys.readouterr().err
    toml = tmp_path / "study.toml"
    toml.write_text('data = "d"\nseeds = 1\nbudget.images = 64\nsettings.mirror = true\narms.a.recipe = "dcgan-32"\n')
    assert read_settings(toml, kept=True).settings == {"flip": True}
    assert not capsys.readouterr().err, "nobody is to change the copy that a study keeps"


def test_a_run_from_before_the_first_release_is_refused_with_what_reads_it(tmp_path: Path) -> None:
    values = to_json(Config())
    del values["top_k"]
    (tmp_path / "config.json").write_text(json.dumps(values))
    with pytest.raises(Refused, match=r"'top_k' is missing; versions before 0\.1\.0 wrote such runs, and no other"):
        read_config(RunFolder(tmp_path))


@pytest.mark.parametrize("schema", [0, -1, "2", None, True, 2.0])
def test_a_number_that_is_none_is_refused(schema: object) -> None:
    with pytest.raises(Refused, match="here is damaged: its schema is"):
        upgrade_values("config.json", {"schema": schema}, "here")
