"""What other packages add by entry points: tests/plugin_example adds one of each, and touches nothing of ours."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from command_line import plugins
from command_line.plugins import PluginError, Registry, all_plugins
from launcher.__main__ import main
from launcher.cli.plugins import GROUPS, all_registries
from tests.conftest import HOME
from tests.secrets import CANARY, SECRETS
from trainer.config.config import Config
from trainer.core.fields import Refused
from trainer.losses.objectives import OBJECTIVES, OUR_OBJECTIVES
from trainer.runs.config_loading import read_config
from trainer.runs.run_folder import RunFolder

# One process after the other would load torch each time.
USE_ALL = """
import sys
from launcher.program import main
sizes = "--network.d-channels", "8", "--network.z-dim", "16", "--batch-size", "8", "--micro-batch-size", "4"
parts = "--generator", "linear", "--discriminator", "quadratic", "--objective", "exponential"
parts += "--penalties.drift.weight", "0.1", "--augment.kind", "upside-down"
quiet = "--tracking.mode", "disabled", "--collapse.every-images", "1000000"
for command in (
    ["plugins"],
    ["shards", "build", "stripes://made/24", "--out", "data", "--size", "32", "--holdout", "0"],
    ["trainer", "train", "dcgan-32", *sizes, *parts, *quiet, "--data", "data", "--run", "run", "--total-images", "16"],
    ["trainer", "evaluate", "run", "--num-samples", "16", "--metrics", "brightness", "--extractor", "thumbnail"],
    ["trainer", "export", "run", "--out", "model"],
):
    print(command[:2], main(command), flush=True)
from slurm.profile import load_profile
print(load_profile("example-centre"))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example, installed into a folder of its own."""
    folder = tmp_path_factory.mktemp("plugin")
    shutil.copytree(HOME / "tests" / "plugin_example", folder / "source")
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*install, "--target", str(folder / "site"), str(folder / "source")], check=True)
    return folder / "site"


@pytest.fixture(scope="module")
def used(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder in which all of it was used, and what was said."""
    here = tmp_path_factory.mktemp("here")
    secrets = dict.fromkeys(SECRETS, CANARY)
    done = subprocess.run(
        [sys.executable, "-c", USE_ALL],
        cwd=here,
        env=os.environ | {"PYTHONPATH": f"{HOME}:{installed}"} | secrets,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return here, done.stdout + done.stderr


def test_one_of_each_is_used(used: tuple[Path, str]) -> None:
    here, said = used
    for command in ("'plugins'", "'shards', 'build'", "'trainer', 'train'", "'trainer', 'evaluate'"):
        assert f"[{command}] 0" in said, said
    assert "Profile(partition='gpu'" in said
    row = json.loads((here / "run" / "evaluations.jsonl").read_text().splitlines()[-1])
    assert "brightness" in json.dumps(row)
    logged = json.loads((here / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    assert any("drift" in name for name in logged)
    listed = [line.split()[:5] for line in said.splitlines() if " lienzo-example " in line]
    assert [line[0] for line in listed[:9]] == sorted(GROUPS)
    assert all(line[2:] == ["lienzo-example", "1.2.0", "yes"] for line in listed[:9])


def test_no_secret_is_written_or_said(used: tuple[Path, str]) -> None:
    """Whatever was built, trained, evaluated and refused here had them in its environment."""
    here, said = used
    assert CANARY not in said
    files = [path for path in here.rglob("*") if path.is_file()]
    assert {"config.json", "events.jsonl", "index.json", "evaluations.jsonl"} <= {path.name for path in files}
    assert [path for path in files if CANARY.encode() in path.read_bytes()] == []


def test_a_bundle_of_a_plugin_is_refused(used: tuple[Path, str]) -> None:
    here, said = used
    assert "['trainer', 'export'] 2" in said
    assert "refused: generator 'linear' is of the package lienzo-example 1.2.0: a bundle holds the code" in said
    assert not (here / "model").exists()


def test_a_run_says_what_it_uses_and_is_refused_without_it(used: tuple[Path, str]) -> None:
    run = RunFolder(used[0] / "run")
    adds = ["generators linear", "discriminators quadratic", "objectives exponential", "augmentations upside-down"]
    assert json.loads(run.plugins.read_text()) == {
        "lienzo-example": {"version": "1.2.0", "adds": [*adds, "penalties drift"]}
    }
    start = next(json.loads(line) for line in run.events.read_text().splitlines() if "environment" in line)
    assert "lienzo-example 1.2.0" in json.dumps(start), "another version may have other bits"
    with pytest.raises(Refused) as caught:
        read_config(run)
    assert str(caught.value).startswith(f"{run.path} uses the package lienzo-example 1.2.0 (generators linear, ")
    assert str(caught.value).endswith("is not installed here: pip install lienzo-example==1.2.0")
    run.plugins.write_text("[]")
    with pytest.raises(Refused, match=r"plugins\.json cannot be read"):
        read_config(run)


def package(site: Path, name: str, points: str, module: str = "") -> None:
    """Install a package by hand."""
    info = site / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(points)
    (site / f"{name}.py").write_text(module)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of packages that this process sees."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr(plugins, "LOADED", set())
    all_plugins.cache_clear()
    yield folder
    all_plugins.cache_clear()


def numbers() -> Registry[int]:
    return Registry("numbers", {"one": 1}, "a number", lambda value: isinstance(value, int))


def test_a_name_is_known_before_its_package_is_imported(site: Path) -> None:
    package(site, "more_numbers", "[lienzo.numbers]\ntwo = more_numbers:TWO\n", "print('imported')\nTWO = 2\n")
    registry = numbers()
    assert [*registry] == ["one", "two"]
    assert "more_numbers" not in sys.modules
    assert dict(registry.ours()) == {"one": 1}
    assert plugins.plugins_in_use() == ""
    assert registry["two"] == 2
    assert plugins.plugins_in_use() == "more_numbers 1.0"
    with pytest.raises(KeyError):
        registry["three"]


BROKEN = {
    "raise RuntimeError('no\\nluck')": "cannot be loaded: RuntimeError: no luck; ",
    "import nowhere_to_be_found": "cannot be loaded: ModuleNotFoundError: No module named 'nowhere_to_be_found'; ",
    "def (": "cannot be loaded: SyntaxError: ",
    "raise SystemExit('bye')": "cannot be loaded: SystemExit: bye; ",
    "": "cannot be loaded: AttributeError: ",
    "TWO = 'two'": "is 'two', but must be a number; ",
}


@pytest.mark.parametrize("number", range(len(BROKEN)))
def test_a_broken_one_is_one_message(number: int, site: Path) -> None:
    code, message = [*BROKEN.items()][number]
    name = f"broken_{number}"  # a module is imported once
    package(site, name, f"[lienzo.numbers]\ntwo = {name}:TWO\n", code)
    with pytest.raises(PluginError) as caught:
        numbers()["two"]
    said = str(caught.value)
    assert said.startswith(f"'two' of the package {name} 1.0 (lienzo.numbers) {message}")
    assert said.endswith(f"install a version of {name} that goes with this lienzo, or uninstall it")
    assert "\n" not in said
    assert numbers()["one"] == 1
    assert plugins.plugins_in_use() == ""


def test_nobody_replaces_ours_and_of_two_neither_wins(site: Path) -> None:
    package(site, "first", "[lienzo.numbers]\none = first:ONE\ntwo = first:TWO\n", "ONE, TWO = 11, 22\n")
    package(site, "second", "[lienzo.numbers]\ntwo = second:TWO\n", "TWO = 222\n")
    registry = numbers()
    assert registry["one"] == 1
    assert [*registry] == ["one"]
    assert {*registry.rejected.values()} == {
        "lienzo has 'one' itself, which no package replaces",
        "first 1.0 and second 1.0 add 'two': uninstall all but one",
    }
    with pytest.raises(PluginError, match=r"'two' cannot be used: first 1\.0 and second 1\.0 add"):
        registry["two"]


def test_the_list_says_what_cannot_be_used(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins"]) == 0
    assert capsys.readouterr().out.startswith("no installed package adds anything to lienzo; one can add generators, ")
    package(site, "odd", "[lienzo.generatots]\ntwo = odd:TWO\n")
    all_plugins.cache_clear()
    assert main(["plugins"]) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "generatots two odd 1.0 no: there is nothing called 'generatots' to add to; there are generators, " in said


def test_the_groups_are_those_of_the_registries() -> None:
    assert tuple(registry.group for registry in all_registries()) == GROUPS
    document = (HOME / "docs" / "plugins.md").read_text()
    assert all(f"| `lienzo.{group}` |" in document for group in GROUPS)


def test_a_part_that_does_not_load_is_refused(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package(site, "bad_loss", "[lienzo.objectives]\nbad = bad_loss:BAD\n", "BAD = 3\n")
    registry = Registry("objectives", OUR_OBJECTIVES, OBJECTIVES.wanted, OBJECTIVES.fits)
    monkeypatch.setattr("trainer.config.compatibility.OBJECTIVES", registry)
    with pytest.raises(Refused) as caught:
        replace(Config(), objective="bad").check()
    said = str(caught.value)
    assert said.startswith(
        "objective 'bad' of the package bad_loss 1.0 (lienzo.objectives) is 3, but must be an instance"
    )
