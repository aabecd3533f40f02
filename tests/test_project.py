"""The shape of the project: directions of imports, documents that are true, nothing left lying about."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from launcher.__main__ import COMMANDS
from launcher.jobs.code_snapshot import PACKAGES
from launcher.program import VERBS
from tests.conftest import HOME
from tools import package_graph

# Each may import those to its left in its line, and what the lines above it hold as its package may: see PACKAGES.
LAYERS = {
    "command_line": "parent loading signals streams suggestion printable program plugins options help_page arguments",
    "shards": "atomic_files errors exclusion npy_header images storage dataset sources building indexing verify "
    "near_duplicates inspect __main__",
    "slurm": "errors command_environment client records parsing dev_settings processes node_readiness programs "
    "configuration daemons dev_cluster accounting reason_codes status_tables profile control job_environment __main__",
    "trainer": "core extractors networks augment losses losses.penalties distributed metrics config sampling collapse "
    "gan runs serving benchmark launch tracking evaluation exporting importing training commands __main__",
    "launcher": "pages jobs status prepare watch study.analysis study.report study report doctor cli __main__ program",
}
MAY_IMPORT = {
    "command_line": {"command_line"},
    "shards": {"shards", "command_line"},
    "trainer": {"trainer", "shards", "command_line"},
    "slurm": {"slurm", "command_line"},
    "launcher": {"launcher", "trainer", "shards", "slurm", "command_line"},
}
MODULES = package_graph.modules()
SOURCES = sorted(MODULES.values())
DOCUMENTS = [HOME / "README.md", HOME / "CONTRIBUTING.md", *sorted((HOME / "docs").glob("*.md"))]


def test_imports_point_one_way() -> None:
    assert len(SOURCES) > 40
    for path in SOURCES:
        package = path.relative_to(HOME).parts[0]
        assert {module.partition(".")[0] for module, _ in package_graph.imports(path, MODULES)} <= MAY_IMPORT[
            package
        ], path


def test_packages_inside_the_packages_import_one_way() -> None:
    rank = {f"{top}.{name}": n for top, names in LAYERS.items() for n, name in enumerate(names.split())}
    assert {package_graph.room(module, MODULES) for module in MODULES} - MAY_IMPORT.keys() == rank.keys()
    for module, path in MODULES.items():
        here = package_graph.room(module, MODULES)
        for other, _ in package_graph.imports(path, MODULES):
            there = package_graph.room(other, MODULES)
            if here != there and there.partition(".")[0] == here.partition(".")[0] and there in rank:
                assert rank[there] < rank[here], f"{module} imports {other}"


def loaded_at_start(module: str) -> set[str]:
    """Return the modules of ours that a module loads with it, itself among them, without its functions' own imports."""
    found, ahead = set(), [module]
    while ahead:
        if (name := ahead.pop()) not in found:
            found.add(name)
            body = ast.parse(MODULES[name].read_text()).body
            text = "\n".join(ast.unparse(node) for node in body if isinstance(node, ast.Import | ast.ImportFrom))
            ahead += [other for other, _ in package_graph.imports_of(text, MODULES)]
            ahead += [name.rpartition(".")[0]] if "." in name else []
    return found


@pytest.mark.parametrize("module", ["trainer.__main__", "trainer.commands.train"])
def test_a_training_starts_without_what_it_does_not_need(module: str) -> None:
    """Each rank and its parent load these: whatever they load, all of them wait for."""
    others = {"benchmark", "evaluation", "exporting", "importing", "metrics", "sampling", "serving", "training"}
    loaded = loaded_at_start(module)
    assert "trainer.core.fields" in loaded
    assert not {name for name in loaded if name.split(".")[1:2] and name.split(".")[1] in others}
    assert {name for name in loaded if name.startswith("trainer.commands.")} <= {module}


def test_the_diagram_is_that_of_the_code(tmp_path: Path) -> None:
    package_graph.draw(tmp_path / "packages.svg")
    drawn, kept = (path / "packages.svg" for path in (tmp_path, HOME / "docs"))
    assert drawn.read_text() == kept.read_text(), "draw it anew: make diagram"


def test_what_is_private_is_not_imported() -> None:
    for module, path in MODULES.items():
        for other, name in package_graph.imports(path, MODULES):
            private = [part for part in (*other.split("."), name) if part.startswith("_") and part != "__main__"]
            inside = package_graph.room(other, MODULES) == package_graph.room(module, MODULES)
            assert inside or not private, f"{module} imports {other}.{name}"


def test_a_job_gets_every_package() -> None:
    assert {*PACKAGES} == MAY_IMPORT.keys()


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_packages_come_from_this_tree(package: str) -> None:
    module = __import__(package)
    assert Path(str(module.__file__)).is_relative_to(HOME)


def test_the_step_fits_a_screen() -> None:
    lines = (HOME / "trainer" / "gan" / "step.py").read_text().splitlines()
    code = [line for line in lines[lines.index("class GanStep:") :] if line.strip()]
    assert len(code) < 80


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text()):
        if not target.startswith("http"):
            assert (document.parent / target).exists(), f"{document.name}: {target}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_commands_in_documents_exist(document: Path) -> None:
    """Every `python -m package.or.command verb` names a module of ours, and a verb of it; `lienzo verb` as well."""
    verbs = {name: {*known} for name, known in VERBS.items()} | {"launcher": {*COMMANDS}}
    for line in re.findall(r"^(?:`|\$ )?lienzo ((?:[a-z]+ ?)+)", document.read_text(), re.MULTILINE):
        first, *rest = line.split()
        assert first in COMMANDS or (rest and rest[0] in VERBS[first]), f"{document.name}: lienzo {line}"
    for module, verb in re.findall(r"python -m ([a-z._]+) ?([a-z]*)", document.read_text()):
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


def test_functions_fit_in_a_head() -> None:
    """No function is longer than 47 lines, and none takes more than 8 parameters besides self."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                names = [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
                assert (node.end_lineno or 0) - node.lineno < 47, f"{path}: {node.name}"
                assert len(names) - (names[:1] in (["self"], ["cls"])) <= 8, f"{path}: {node.name}"


def test_what_is_read_first_stays_short() -> None:
    first = ("gan/step.py", "training/loop.py", "gan/state.py", "distributed/reduction.py")
    assert sum(len((HOME / "trainer" / name).read_text().splitlines()) for name in first) <= 450
