"""What `pip install lienzo` installs: all that the commands need, wherever the user stands.

`make wheel-test` installs it for real.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from setuptools import build_meta

from launcher.jobs.code_snapshot import PACKAGES
from tests.conftest import HOME

# Where the packages come from, what the program says, and what `submit` makes of pictures that nobody names.
FIRST_MINUTE = """
import launcher, sys
from launcher.program import main
print(launcher.__file__)
sys.argv[0] = "lienzo"
codes = [main(["--version"]), main([]), main(["slurm", "status"])]
codes += [main(["submit", "dcgan-32", "--cluster", "local", "--tracking.mode", "disabled", "--dry-run"])]
print(codes)
"""


def build(folder: Path, hook: str, out: Path) -> Path:
    """Build the sdist or the wheel of a source folder."""
    here = os.getcwd()
    os.chdir(folder)  # where a build backend is called
    try:
        return out / str(getattr(build_meta, hook)(str(out)))
    finally:
        os.chdir(here)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel, built of the source distribution, as pip does where there is no wheel."""
    folder = tmp_path_factory.mktemp("dist")
    with tarfile.open(build(HOME, "build_sdist", folder)) as archive:
        archive.extractall(folder, filter="data")
    (source,) = folder.glob("lienzo-*/")
    return build(source, "build_wheel", folder)


def files_of(folder: Path) -> dict[str, int]:
    """Return the files of the packages in a folder, with their sizes."""
    paths = (path for package in PACKAGES for path in (folder / package).rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.stat().st_size for path in paths if "__pycache__" not in path.parts}


def test_it_holds_every_file_of_the_packages(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = {member.filename: member.file_size for member in archive.infolist()}
        (points,) = (name for name in held if name.endswith("entry_points.txt"))
        assert "lienzo = launcher.program:start" in archive.read(points).decode()
    assert {name: size for name, size in held.items() if ".dist-info/" not in name} == files_of(HOME)


def test_it_works_where_there_is_no_checkout(wheel: Path, tmp_path: Path) -> None:
    """Every command is started in an empty folder, which holds all that they leave."""
    site, here = tmp_path / "site", tmp_path / "here"
    here.mkdir()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    before = files_of(site)
    done = subprocess.run(
        [sys.executable, "-c", FIRST_MINUTE],
        cwd=here,
        env=os.environ | {"PYTHONPATH": str(site), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    lines = done.stdout.splitlines()
    assert lines[:3] == [str(site / "launcher" / "__init__.py"), version(), "no runs and no shards here"], done.stderr
    assert lines[-1] == "[0, 0, 2, 0]", done.stderr
    assert f"data        {here}/demo/shards-32: " in done.stdout
    assert "go on with: lienzo resume " in done.stdout
    assert (here / "demo" / "shards-32" / "index.json").exists()
    assert files_of(site) == before, "nothing is left among the packages"


def project() -> Mapping[str, Any]:
    """Return what pyproject.toml says of the project."""
    table: Mapping[str, Any] = tomllib.loads((HOME / "pyproject.toml").read_text())["project"]
    return table


def version() -> str:
    """Return the project's version."""
    return str(project()["version"])


def test_the_oldest_versions_are_those_that_we_accept() -> None:
    """`make lowest` installs them."""
    stated = [line for line in (HOME / "constraints-lowest.txt").read_text().splitlines() if line[0] != "#"]
    extras = project()["optional-dependencies"].items()
    optional = {name: needs for name, needs in extras if name not in ("dev", "docs")}  # those of a checkout
    accepted = [need for needs in (project()["dependencies"], *optional.values()) for need in needs]
    assert len(accepted) > 20
    assert sorted(stated) == sorted(need.replace(">=", "==") for need in accepted)
