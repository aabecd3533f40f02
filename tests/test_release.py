"""What goes with a release: versions that agree, containers that install what is pinned, files for others to read."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

from launcher.__main__ import COMMANDS
from launcher.program import VERBS
from tests.conftest import HOME
from tools import release

VERSION = tomllib.loads((HOME / "pyproject.toml").read_text())["project"]["version"]
EXTRAS = {*tomllib.loads((HOME / "pyproject.toml").read_text())["project"]["optional-dependencies"]} - {"dev", "docs"}
CONTAINERS = ("Dockerfile", "lienzo.def")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The files that name a version."""
    for name in (*release.PLACES, "CHANGELOG.md"):
        shutil.copy(HOME / name, tmp_path)
    return tmp_path


def test_all_files_say_the_same_version() -> None:
    assert [problem for problem in release.problems(HOME, VERSION) if release.UNRELEASED not in problem] == []


def test_a_release_writes_version_and_date(checkout: Path) -> None:
    changelog = checkout / "CHANGELOG.md"
    changelog.write_text("# Changelog\n\n## 9.8.7 (unreleased)\n\n- All is new.\n")
    assert [problem.partition(" ")[0] for problem in release.problems(checkout, "9.8.7")] == [
        *release.PLACES,
        "CHANGELOG.md",
    ]
    release.write_version(checkout, "9.8.7", "2030-01-02")
    assert [*release.problems(checkout, "9.8.7")] == []
    assert "## 9.8.7 (2030-01-02)" in changelog.read_text()
    assert tomllib.loads((checkout / "pyproject.toml").read_text())["project"]["version"] == "9.8.7"
    changelog.write_text("# Changelog\n\n## 9.8.6 (2029-01-01)\n")
    assert [*release.problems(checkout, "9.8.7")] == [
        "CHANGELOG.md begins with '9.8.6 (2029-01-01)', not with 9.8.7: write what is new"
    ]


@pytest.mark.parametrize("name", CONTAINERS)
def test_containers_install_what_is_pinned(name: str) -> None:
    """They are not built here: that takes a network, and gigabytes."""
    text = (HOME / "containers" / name).read_text()
    code = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    (extras,) = re.findall(r"\[([a-z,]+)\]\"", code)
    assert {*extras.split(",")} == EXTRAS
    assert "--constraint " in code
    assert "constraints.txt" in code
    (python,) = {*re.findall(r"python:(\d+\.\d+)-slim", code)}
    wheel_test = (HOME / "tools" / "wheel_test.py").read_text()
    assert f'"{python}"' in wheel_test, "the image's Python is one that the wheel is tried with"
    for first, second in re.findall(r"\blienzo ([a-z]+)(?: ([a-z]+))?", text.partition("\nFROM")[0]):
        assert first in COMMANDS or second in VERBS.get(first, ()) or first in ("with", "for"), (first, second)


def test_images_hold_no_secrets_nor_runs() -> None:
    """What lies in a checkout and is not committed stays out of the image."""
    ignored = (HOME / ".dockerignore").read_text().split()
    for line in (HOME / ".gitignore").read_text().splitlines():
        folder = line.strip("/")
        if folder in ("runs", "demo", "data", "wandb", ".venv", "build", "dist"):
            assert folder in ignored
    assert ".git" in ignored


def test_hooks_run_commands_that_there_are() -> None:
    hooks = yaml.safe_load((HOME / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    assert len(hooks) >= 3
    lint = (HOME / "Makefile").read_text().partition("\nlint:")[2].partition("\n\n")[0]
    for hook in hooks:
        words = hook["entry"].split()
        assert words[:2] == [".venv/bin/python", "-m"]
        assert " ".join(words[2:4]).removesuffix(" --force-exclude") in lint or Path(HOME, words[-1]).exists()


def test_files_for_others_are_read() -> None:
    citation = yaml.safe_load((HOME / "CITATION.cff").read_text())
    assert citation["version"] == VERSION
    assert {"cff-version", "message", "title", "authors", "license"} <= citation.keys()
    forms = [path for path in (HOME / ".github" / "ISSUE_TEMPLATE").glob("*.yml") if path.name != "config.yml"]
    assert len(forms) == 2
    for path in forms:
        form = yaml.safe_load(path.read_text())
        assert {"name", "description", "body"} <= form.keys()
        ids = [field["id"] for field in form["body"]]
        assert len(ids) == len({*ids})


@pytest.mark.parametrize("target", ["audit", "sbom", "wheel-test", "lowest"])
def test_make_knows_the_commands_of_a_release(target: str) -> None:
    done = subprocess.run(["make", "--dry-run", target], cwd=HOME, capture_output=True, text=True, check=True)
    starts = {"audit": "pip-audit --strict", "sbom": "cyclonedx-py requirements constraints.txt"}
    assert starts.get(target, "tools/wheel_test.py") in done.stdout
