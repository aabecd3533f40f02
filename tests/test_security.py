"""What strangers' names must not do to a terminal (docs/security.md)."""

from __future__ import annotations

from pathlib import Path

import pytest

from command_line.printable import printable
from launcher.__main__ import main as launcher
from launcher.jobs.runs import SlurmQueue
from launcher.status.run_status import gather_status
from shards.__main__ import main as shards
from trainer.__main__ import main as trainer
from trainer.runs.run_folder import RunFolder

CLEAR_SCREEN = "\x1b[2J\x1b]0;owned\x07"  # of a terminal, and its title
SHOWN = "\\x1b[2J\\x1b]0;owned\\x07"


def test_what_a_terminal_would_obey_is_shown() -> None:
    assert printable(f"a{CLEAR_SCREEN}b") == f"a{SHOWN}b"
    assert printable("\x9b31m\x7f\r") == "\\x9b31m\\x7f\\x0d"
    assert printable("gnp.\u202eexe") == "gnp.\\u202eexe"
    assert printable("Ñandú — 絵\n\t🎨") == "Ñandú — 絵\n\t🎨"


def test_messages_show_hostile_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Folders are named by whoever has made them, and completed by a shell without a look."""
    monkeypatch.chdir(tmp_path)
    name = f"set{CLEAR_SCREEN}"
    commands = (
        (launcher, ["logs", name]),
        (launcher, ["submit", "--data", name, "--cluster", "local"]),
        (trainer, ["sample", name, "--out", "a.png"]),
        (shards, ["build", name, "--out", "out", "--size", "32"]),
        (shards, ["verify", name]),
        (shards, ["inspect", name]),
    )
    for main, arguments in commands:
        assert main(arguments) == 2, arguments
        said = "".join(capsys.readouterr())
        assert "\x1b" not in said, arguments
        assert SHOWN.replace("\\x07", "") in said.replace("\\x07", ""), said


def test_a_build_shows_hostile_names_of_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "source" / "flags"
    folder.mkdir(parents=True)
    (folder / f"{CLEAR_SCREEN}.png").write_text("no picture")
    arguments = ["build", str(tmp_path / "source"), "--out", str(tmp_path / "out"), "--size", "32", "--workers", "1"]
    shards(arguments)
    said = "".join(capsys.readouterr())
    assert "x1b[2J" in said
    assert "\x1b" not in said


def test_status_shows_what_another_run_folder_says(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.config.write_text("{}")
    row = '{"kind": "refused", "time": "2026-01-01T00:00:00+00:00", "problem": "no \\u001b[2J luck"}\n'
    run.events.write_text(row)
    assert "\x1b" not in gather_status(run, SlurmQueue()).reason
    assert gather_status(run, SlurmQueue()).reason == "no \\x1b[2J luck"
