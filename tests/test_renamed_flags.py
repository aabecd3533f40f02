"""Flags that were renamed are understood for one version, with a hint."""

from __future__ import annotations

from pathlib import Path

import pytest

from command_line.arguments import RENAMED_FLAGS, rename_flags
from tests.conftest import run


@pytest.mark.parametrize("words", [["--like", "stylegan3"], ["--like=stylegan3"]])
def test_an_old_flag_becomes_the_new_one(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert rename_flags(["evaluate", *words, "--num-samples", "64"])[1:-2] == (
        ["--reference-convention", "stylegan3"] if len(words) == 2 else ["--reference-convention=stylegan3"]
    )
    assert capsys.readouterr().err.startswith("note: --like is called --reference-convention now")


def test_other_words_stay_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["evaluate", "like", "--out", "--", "--likely=1"]
    assert rename_flags(words) == words
    assert not capsys.readouterr().err


def test_no_flag_is_renamed_twice() -> None:
    assert not RENAMED_FLAGS.keys() & {*RENAMED_FLAGS.values()}


@pytest.mark.parametrize("package", ["trainer", "launcher"])
def test_evaluate_understands_the_old_flag(package: str, tmp_path: Path) -> None:
    done = run(package, "evaluate", str(tmp_path), "--like", "stylegan")
    assert done.returncode == 2
    assert "note: --like is called --reference-convention now" in done.stderr
    assert "Unrecognized" not in done.stderr
