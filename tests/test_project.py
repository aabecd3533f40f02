"""The shape of the project: directions of imports, documents that are true, nothing left lying about."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from launcher.__main__ import COMMANDS
from launcher.job.snapshot import PACKAGES
from tests.conftest import HOME

MAY_IMPORT = {
    "command_line": {"command_line"},
    "shards": {"shards", "command_line"},
    "trainer": {"trainer", "shards", "command_line"},
    "slurm": {"slurm", "command_line"},
    "launcher": {"launcher", "trainer", "shards", "slurm", "command_line"},
}
SOURCES = sorted(path for package in MAY_IMPORT for path in (HOME / package).rglob("*.py"))
DOCUMENTS = [HOME / "README.md", HOME / "CONTRIBUTING.md", *sorted((HOME / "docs").glob("*.md"))]


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.partition(".")[0])
    return names


def test_imports_point_one_way() -> None:
    assert len(SOURCES) > 40
    for path in SOURCES:
        package = path.relative_to(HOME).parts[0]
        assert imported(path) & MAY_IMPORT.keys() <= MAY_IMPORT[package], path


def test_a_job_gets_every_package() -> None:
    assert {*PACKAGES} == MAY_IMPORT.keys()


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_packages_come_from_this_tree(package: str) -> None:
    module = __import__(package)
    assert Path(str(module.__file__)).is_relative_to(HOME)


def test_the_step_fits_a_screen() -> None:
    lines = (HOME / "trainer" / "step.py").read_text().splitlines()
    code = [line for line in lines[lines.index("class GanStep:") :] if line.strip()]
    assert len(code) < 80


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text()):
        if not target.startswith("http"):
            assert (document.parent / target).exists(), f"{document.name}: {target}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_commands_in_documents_exist(document: Path) -> None:
    """Every `python -m package.or.command verb` names a module of ours, and a verb of it."""
    verbs = {"shards": {"build", "verify", "inspect"}}
    verbs |= {"trainer": {"train", "sample", "interpolate", "fingerprint", "evaluate", "benchmark"}}
    verbs |= {"launcher": {*COMMANDS}, "slurm": {"up", "down", "status", "fail", "heal", "drain"}}
    for module, verb in re.findall(r"python -m ([a-z.]+) ?([a-z]*)", document.read_text()):
        if module in verbs:
            assert verb in verbs[module], f"{document.name}: python -m {module} {verb}"
        elif module.startswith("bench"):
            assert (HOME / module.replace(".", "/")).with_suffix(".py").exists() or (HOME / module).is_dir(), module


def test_make_targets_in_documents_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (HOME / "Makefile").read_text(), re.MULTILINE))
    for document in DOCUMENTS:
        for target in re.findall(r"`make ([a-z-]+)", document.read_text()):
            assert target in targets, f"{document.name}: make {target}"


def test_nothing_can_run_what_comes_from_outside() -> None:
    """No unpickling, no shell."""
    for path in SOURCES:
        text = path.read_text()
        for word in ("pickle.load", "shell=True", "os.system", "allow_pickle=True", "weights_only=False", "eval("):
            found = [line for line in text.splitlines() if word in line and "self.generator.eval()" not in line]
            assert not [line for line in found if not line.rstrip().endswith(".eval()")], f"{path}: {word}"
