"""`~` stands for home wherever a path is given: a shell leaves it as it is in --run=~/x, and files have no shell."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from command_line.arguments import expand_user, parse
from launcher.study import settings_file as study
from shards.building.options import Build
from slurm import profile
from tests.conftest import run
from trainer.config.config import Config
from trainer.core.fields import Refused, overlay_settings


@dataclass(frozen=True)
class Paths:
    """Some paths."""

    one: Path
    two: Path | None = None
    many: tuple[Path, ...] = ()


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_command_lines(home: Path) -> None:
    parsed = parse(Paths, ["--one=~/x", "--two", "~/y", "--many", "~", "~/z", "./~"], "test")
    assert parsed == Paths(home / "x", home / "y", (home, home / "z", Path("./~")))
    built = parse(Build, ["~/pictures", "--out=~/shards"], "test")
    assert (built.sources, built.out) == ((home / "pictures",), home / "shards")


def test_project_file(home: Path) -> None:
    config = overlay_settings(Config(), {"data": "~/shards", "init_from": "~/a b"}, "lienzo.toml")
    assert (config.data, config.init_from) == (home / "shards", home / "a b")


def test_study_file(home: Path) -> None:
    file = home / "study.toml"
    file.write_text('data = "~/shards"\nseeds = 2\n[budget]\nimages = 64\n[arms.a]\nrecipe = "dcgan-32"\n')
    assert study.read_settings(file).data == home / "shards"


def test_site_profile(home: Path) -> None:
    (home / "site.toml").write_text('image = "~/image.sif"\nmounts = ["~/data:/data"]\ncontainer = "apptainer"\n')
    loaded = profile.load_profile("~/site.toml")
    assert (loaded.image, loaded.mounts) == (f"{home}/image.sif", (f"{home}/data:/data",))


def test_an_unknown_user_is_named_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"there is no user 'nobody-here'; .* write \./~nobody-here/x"):
        expand_user("~nobody-here/x")
    with pytest.raises(Refused, match=r"lienzo\.toml: data: there is no user"):
        overlay_settings(Config(), {"data": "~nobody-here/x"}, "lienzo.toml")
    done = run("trainer", "fingerprint", "~nobody-here/x")
    assert done.returncode == 2
    assert "there is no user" in done.stderr
    assert "Traceback" not in done.stderr
    assert expand_user("./~nobody-here/x") == Path("./~nobody-here/x")


def test_a_run_begins_and_goes_on_under_home(home: Path, shards32: Path) -> None:
    (home / "shards").symlink_to(shards32)
    said = run("launcher", "submit", "dcgan-32", "--run=~/x", "--data=~/shards", "--dry-run", "--cluster", "local")
    assert said.returncode == 0, said.stderr
    assert f"{home}/x" in said.stdout
    assert not (home / "x").exists()
