"""The documentation as a site, built offline and strictly; and the commands that the guides tell, which all parse."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tyro

from command_line.arguments import parse
from launcher.cli.completion import KINDS
from launcher.jobs.attempts import Cause
from launcher.status.facts import RunState
from shards import __main__ as shards
from slurm import __main__ as slurm
from tests.advice import all_messages
from tests.conftest import HOME
from trainer.benchmark.arguments import Benchmark
from trainer.commands.edit import Edit
from trainer.commands.nearest import Nearest
from trainer.commands.project import Project
from trainer.commands.sample import Interpolate, Sample
from trainer.commands.seeds import Seeds
from trainer.commands.stylemix import Stylemix
from trainer.commands.train import Fingerprint, Train
from trainer.config.recipes import RECIPES
from trainer.core.aliases import todays_flags
from trainer.evaluation.arguments import Evaluate
from trainer.exporting.arguments import Export, Pull, Push
from trainer.importing.arguments import Import
from trainer.serving.arguments import Serve

GUIDES = ("quickstart.md", "inicio-rapido.md", "tutorial.md")
MAKING = Seeds, Edit, Stylemix, Project, Nearest
OTHERS = Train, Sample, Interpolate, Fingerprint, Evaluate, Benchmark, Serve, Export, Import, Push, Pull
TRAINER: dict[str, Any] = {kind.__name__.lower(): kind for kind in (*MAKING, *OTHERS)}
LAUNCHER = {kind.__name__.lower(): kind for kind in KINDS}


DOCUMENTS = [HOME / "README.md", HOME / "CONTRIBUTING.md", *sorted((HOME / "docs").rglob("*.md"))]


def commands(document: Path) -> list[str]:
    """The commands in the blocks of a document, each in one line, without variables before and remarks behind them."""
    text = document.read_text().replace("\\\n", " ")
    lines = [
        re.match(r" *(?:[A-Z_]+=\S+ )*(python -m (?:launcher|trainer|shards|slurm) .*)", line)
        for line in text.splitlines()
    ]
    return [" ".join(line[1].partition("  #")[0].split()) for line in lines if line]


def parsed(command: str) -> Any:
    """What our own parser makes of a command."""
    _, _, package, *words = shlex.split(command)
    if package == "shards":
        return parse(shards.Command, words, f"python -m {package}", config=(tyro.conf.OmitArgPrefixes,))
    if package == "slurm":
        return parse(slurm.Command, words, f"python -m {package}")
    words = [words[0], *todays_flags(words[1:])]
    kind = (TRAINER if package == "trainer" else LAUNCHER)[words[0]]
    return parse(kind, words[1:], f"python -m {package} {words[0]}")


def test_the_documents_have_commands() -> None:
    assert sum(len(commands(document)) for document in DOCUMENTS) > 150
    assert all(len(commands(HOME / "docs" / name)) >= 10 for name in GUIDES)


@pytest.mark.parametrize(
    "document", [document for document in DOCUMENTS if commands(document)], ids=lambda path: path.stem
)
def test_commands_parse(document: Path) -> None:
    for command in commands(document):
        found = parsed(command)
        if (recipe := getattr(found, "recipe", None)) and isinstance(recipe, str):
            assert recipe in RECIPES, command


def test_a_command_that_is_wrong_does_not_parse(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("python -m launcher submit --nods 4", "python -m trainer export runs/x --to y"):
        with pytest.raises(SystemExit):
            parsed(command)
    assert capsys.readouterr().err


def test_both_quick_starts_are_of_the_same_commands() -> None:
    english, spanish = (commands(HOME / "docs" / name) for name in GUIDES[:2])
    assert english == spanish


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built with warnings as errors, as `make docs` does, and without a network."""
    out = tmp_path_factory.mktemp("docs") / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(out)]
    offline = {"PATH": "/nowhere", "HTTPS_PROXY": "http://127.0.0.1:1", "HTTP_PROXY": "http://127.0.0.1:1"}
    done = subprocess.run(command, cwd=HOME, env=offline, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    return out


def test_every_document_is_a_page(site: Path) -> None:
    documents = [path.relative_to(HOME / "docs") for path in (HOME / "docs").rglob("*.md")]
    documents = [path for path in documents if path.parts[0] != "zoo"]
    assert len(documents) > 20
    for path in documents:
        assert (site / path.with_suffix(".html")).is_file(), path


def test_pages_load_nothing_from_elsewhere(site: Path) -> None:
    pages = [*site.rglob("*.html")]
    assert len(pages) > 20
    loaded = re.compile(
        r"""<(?:script|img|iframe|source)[^>]*\ssrc=["']?(?:https?:)?//|<link[^>]*rel=["']?stylesheet[^>]*//"""
    )
    for page in pages:
        assert not loaded.search(page.read_text()), page


def test_the_reference_is_made_of_docstrings(site: Path) -> None:
    for page, name in (("metrics", "frechet_distance"), ("networks", "NetworkSettings"), ("shards", "Reader")):
        text = (site / "reference" / f"{page}.html").read_text()
        assert name in text
        assert "Raises" in text or "Parameters" in text


def test_it_can_be_searched(site: Path) -> None:
    found = json.loads((site / "search" / "search_index.json").read_text())["docs"]
    assert any("mode collapse" in doc["title"].lower() for doc in found)
    assert any("Inicio" in doc["title"] for doc in found)


def test_links_to_code_become_names(site: Path) -> None:
    text = "".join(page.read_text() for page in site.glob("*.html"))
    assert 'href="../trainer' not in text
    assert 'href="../README' not in text


TROUBLES = (HOME / "docs" / "troubleshooting.md").read_text()


def test_the_page_on_troubles_quotes_what_the_programs_say() -> None:
    said = "\n".join(all_messages("command_line", "shards", "trainer", "launcher"))
    quoted = re.findall(r"^ {4}(\S.*)$", TROUBLES, re.MULTILINE)
    assert len(quoted) > 15
    assert [message for message in quoted if message not in said] == []


def test_the_page_on_troubles_has_every_cause_and_every_state_that_ends() -> None:
    ends = (*Cause, RunState.NO_PROGRESS, RunState.NO_REQUEUE)
    assert [end.value for end in ends if f"`{end.value}`" not in TROUBLES] == []
