"""The program `lienzo`: one name for the commands of all packages, and a first word for whoever types it alone."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from command_line.program import program
from launcher.__main__ import COMMANDS
from launcher.cli import next_step
from launcher.program import HELP, VERBS, main
from tests.conftest import HOME
from tests.small_shards import SIZE, build
from trainer.config.recipes import RECIPES
from trainer.core.advice import command


@pytest.fixture
def as_lienzo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/lienzo"])


def test_one_page_lists_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    page = capsys.readouterr().out
    assert len(page.splitlines()) <= 50
    for name in COMMANDS:
        assert f"  lienzo {name} " in page
    for package, verbs in VERBS.items():
        section = HELP.partition(f"lienzo {package} VERB")[2].partition("\n\n")[0].partition("lienzo")[0]
        assert set(section.partition(":")[2].replace(",", " ").split()) == {*verbs}
    assert not {*COMMANDS} & {*VERBS}, "no command hides a package"


@pytest.mark.parametrize("package", VERBS)
def test_it_starts_the_packages(package: str, as_lienzo: None, capsys: pytest.CaptureFixture[str]) -> None:
    with suppress(SystemExit):
        assert main([package, "--help"]) == 0
    said = capsys.readouterr().out
    if said.startswith("usage"):
        assert said.startswith(f"usage: lienzo {package} [-h] ")
        listed = said.partition("{")[2].partition("}")[0].replace("\n", "").replace(" ", "").split(",")
    else:
        assert f"lienzo {package} COMMAND --help" in said
        listed = re.findall(r"^  ([a-z]+)  ", said, re.MULTILINE)
    assert {*listed} == {*VERBS[package]}


def test_help_and_messages_use_the_word_that_was_typed(as_lienzo: None, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["status", "--help"])
    assert capsys.readouterr().out.startswith("usage: lienzo status [OPTIONS] ")
    assert command("launcher", "resume", "my run") == "lienzo resume 'my run'"
    assert command("trainer", "sample", "r") == "lienzo trainer sample r"


def test_without_it_messages_say_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["launcher/__main__.py"])
    assert program("launcher") == ["python", "-m", "launcher"]


@pytest.mark.parametrize(
    ("typed", "answer"),
    [
        ("statsu", "did you mean 'status'?"),
        ("train", "did you mean 'lienzo trainer train'?"),
        ("shard", "did you mean 'shards'?"),
        ("xyz", "see: lienzo --help"),
    ],
)
def test_a_command_that_there_is_none_of(typed: str, answer: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([typed]) == 2
    assert capsys.readouterr().err == f"refused: there is no command {typed!r}; {answer}\n"


def alone(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Return what `lienzo` says, and check that each command of it is one."""
    assert main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    for line in lines[2:-2]:
        words = shlex.split(line.strip())
        assert words[0] == "lienzo"
        assert words[1] in COMMANDS or words[2] in VERBS[words[1]], line
    return lines


def test_alone_it_says_what_to_do_next(
    as_lienzo: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    lines = alone(capsys)
    assert lines[0] == "no runs and no shards here"
    assert lines[2].strip().startswith("lienzo shards build MY_PICTURES --out my-shards")
    assert lines[-1] == "all commands: lienzo --help"
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "index.json").write_text("{}")
    assert alone(capsys)[0] == "no runs and no shards here", "some other index.json"
    build(tmp_path, "raw").rename(tmp_path / "my shards")
    capsys.readouterr()
    lines = alone(capsys)
    assert lines[0].startswith("no runs yet, and shards in my shards: ")
    assert "lienzo submit RECIPE --data 'my shards'" in lines[3], "no recipe is for 20 pixels"
    monkeypatch.setattr(next_step, "RECIPE_OF", {(SIZE, SIZE): "dcgan-32"})
    assert "lienzo submit dcgan-32 --data 'my shards'" in alone(capsys)[2]
    run = tmp_path / "runs" / "one"
    run.mkdir(parents=True)
    (run / "config.json").write_text("{}")
    assert alone(capsys)[0] == "runs/one: not started"
    assert next_step.next_step()[1] == [("go on", "lienzo resume runs/one")]
    (run / "checkpoints" / "000000000064-r00").mkdir(parents=True)
    events = [{"kind": "start", "time": "2026-01-01T00:00:00+00:00"}]
    events += [{"kind": "end", "time": "2026-01-01T00:01:00+00:00", "outcome": "finished"}]
    (run / "events.jsonl").write_text("".join(f"{json.dumps(event)}\n" for event in events))
    lines = alone(capsys)
    assert lines[0] == "runs/one: finished"
    assert [line.split()[1:3] for line in lines[2:-2]] == [
        ["trainer", verb] for verb in ("sample", "evaluate", "serve", "export")
    ]


def test_what_it_begins_with_fits_the_data() -> None:
    for size, recipe in next_step.RECIPE_OF.items():
        assert RECIPES[recipe].config.network.shape == size


def test_the_first_word_comes_at_once(tmp_path: Path) -> None:
    """Without torch, which takes seconds."""
    code = "import sys; from launcher.program import main; main([]); main(['--help']); print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(HOME)},
        check=False,
    )
    assert done.stdout.splitlines()[-1] == b"False", done.stderr
