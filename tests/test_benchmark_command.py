"""`trainer benchmark`: it goes on where it was stopped, tells what it measured, and refuses what it cannot do."""

from __future__ import annotations

import json
import math
import subprocess
import time
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from tests.conftest import begin, run
from trainer.__main__ import main
from trainer.benchmark import run_trials
from trainer.benchmark.mixtures import RING
from trainer.benchmark.protocol import Figures, Published
from trainer.benchmark.report import Summary, results_table
from trainer.benchmark.results import Result, Trial
from trainer.core.stopping import Outcome

SHORT = ["--recipe", "disconnected", "gan", "--steps", "2", "--seeds", "2", "--processes", "1"]


def benchmark(out: Path, *more: str, protocols: tuple[str, ...] = ("ring",)) -> int:
    return main(["benchmark", *protocols, "--out", str(out), *SHORT, *more])


def lasting(out: Path) -> dict[str, object]:
    """What was kept of each training but its seconds, by file."""
    found = {}
    for path in sorted(out.glob("*/*/seed-*.json")):
        values = json.loads(path.read_text())
        assert values.pop("cpu_s") > 0
        found[str(path.relative_to(out))] = values
    return found


def alive(process: psutil.Process) -> bool:
    """A zombie, which whoever inherits it may not reap, is not."""
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def size_of(picture: Path) -> tuple[int, int]:
    with Image.open(picture) as opened:
        return opened.size


def refusal(capsys: pytest.CaptureFixture[str], out: Path, *more: str, protocols: tuple[str, ...] = ("ring",)) -> str:
    assert benchmark(out, *more, protocols=protocols) == Outcome.REFUSED
    return capsys.readouterr().err


def test_a_killed_benchmark_does_only_what_is_missing(tmp_path: Path) -> None:
    assert benchmark(tmp_path, protocols=("ring", "grid")) == Outcome.FINISHED
    whole = lasting(tmp_path)
    assert len(whole) == 8
    lost = tmp_path / "grid" / "gan" / "seed-001.json"
    lost.unlink()  # its samples are there already: they are written first
    times = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/*/seed-*.json")}
    assert benchmark(tmp_path, protocols=("ring", "grid")) == Outcome.FINISHED
    assert lasting(tmp_path) == whole
    assert all(path.stat().st_mtime_ns == time for path, time in times.items())


def test_a_stop_keeps_what_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C in the second training; more seeds can be asked for later."""
    original = run_trials.run_trial
    done: list[Trial] = []

    def stopped(trial: Trial, out: Path) -> Trial:
        if done:
            raise KeyboardInterrupt
        done.append(trial)
        return original(trial, out)

    with monkeypatch.context() as patched:
        patched.setattr(run_trials, "run_trial", stopped)
        assert benchmark(tmp_path) == Outcome.INTERRUPTED
    assert list(lasting(tmp_path)) == ["ring/disconnected/seed-000.json"]
    assert not (tmp_path / "summary.json").exists()
    assert benchmark(tmp_path, "--seeds", "1") == Outcome.FINISHED
    few = lasting(tmp_path)
    assert benchmark(tmp_path) == Outcome.FINISHED
    assert few.items() < lasting(tmp_path).items()
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["ring"]["gan"]["seeds"] == 2
    assert benchmark(tmp_path, "--seeds", "1") == Outcome.FINISHED
    assert json.loads((tmp_path / "summary.json").read_text()) == summary, (
        "what was kept is told, however few are asked"
    )


def test_a_killed_training_is_no_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def killed(trial: Trial, out: Path) -> Trial:
        raise BrokenProcessPool

    monkeypatch.setattr(run_trials, "run_trial", killed)
    assert benchmark(tmp_path) == Outcome.FAILED
    assert "the same command goes on" in capsys.readouterr().err


def test_neither_processes_nor_a_kill_change_results(tmp_path: Path) -> None:
    """Trainings in processes of their own, as a user would start them; the kill leaves no process behind."""
    alone, killed = tmp_path / "alone", tmp_path / "killed"
    arguments = ["benchmark", "ring", "--recipe", "disconnected", "--steps", "40", "--seeds", "4", "--out"]
    assert main([*arguments, str(alone), "--processes", "1"]) == Outcome.FINISHED
    with begin("trainer", *arguments, str(killed), "--processes", "2", stderr=subprocess.DEVNULL) as begun:
        while not lasting(killed):
            assert begun.poll() is None
            time.sleep(0.02)
        children = psutil.Process(begun.pid).children()
        begun.kill()
    assert len(children) >= 2
    patience = time.monotonic() + 30
    while any(map(alive, children)):
        assert time.monotonic() < patience
        time.sleep(0.05)
    some = lasting(killed)
    assert some.items() <= lasting(alone).items()
    done = run("trainer", *arguments, str(killed), "--processes", "2", OMP_NUM_THREADS="2")
    assert done.returncode == 0, done.stderr
    assert f"{4 - len(some)} of {4 - len(some)}: ring, disconnected" in done.stderr
    assert lasting(killed) == lasting(alone)
    assert "| PacGAN2, published | 400,000 | 10 | 7.9 ± 0.1 |" in done.stdout


def test_tables_go_between_the_marks_and_nothing_else_changes(tmp_path: Path) -> None:
    document = tmp_path / "collapse.md"
    document.write_text("# Title\n\nbefore\n\n<!-- benchmark -->\nold\n<!-- /benchmark -->\n\nafter | é\n")
    assert benchmark(tmp_path / "out", "--markdown", str(document)) == Outcome.FINISHED
    text = document.read_text()
    assert text.startswith("# Title\n\nbefore\n\n<!-- benchmark -->\n\n### ring\n")
    assert text.endswith(")\n\n<!-- /benchmark -->\n\nafter | é\n")
    assert "old" not in text
    for recipe in ("disconnected", "gan"):
        assert f"(collapse/ring-{recipe}.png)" in text
        assert size_of(tmp_path / "collapse" / f"ring-{recipe}.png") == (320, 320)
    assert benchmark(tmp_path / "out", "--markdown", str(document)) == Outcome.FINISHED
    assert document.read_text() == text


def test_digits_are_shown_and_noted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["benchmark", "digits", "--recipe", "dcgan", "--steps", "1", "--seeds", "1", "--processes", "1"]
    assert main([*arguments, "--out", str(tmp_path)]) == Outcome.FINISHED
    told = capsys.readouterr().out
    assert "The classifier names 99.4 % of the held-out digits rightly." in told
    assert "| the data itself |  |  | 1000 |" in told
    assert size_of(tmp_path / "digits-dcgan.png") == (256, 256)
    assert np.load(tmp_path / "digits" / "dcgan" / "seed-000.npy").shape == (64, 3, 16, 16)


def test_refusals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "there is no ring recipe 'disconected'; did you mean 'disconnected'?" in refusal(
        capsys, tmp_path, "--recipe", "disconected"
    )
    assert "no digits recipe 'gan'" in refusal(capsys, tmp_path, "--recipe", "gan", protocols=("digits",))
    assert "name what to learn: ring, grid, digits" in refusal(capsys, tmp_path, protocols=())
    for name in ("seeds", "steps", "processes"):
        assert f"--{name} must be positive, but is 0" in refusal(capsys, tmp_path, f"--{name}", "0")
    document = tmp_path / "page.md"
    assert "cannot be read" in refusal(capsys, tmp_path, "--markdown", str(document))
    for text in (
        "no marks",
        "<!-- /benchmark --> <!-- benchmark -->",
        "<!-- benchmark -->" * 2 + "<!-- /benchmark -->",
    ):
        document.write_text(text)
        assert "must hold one line" in refusal(capsys, tmp_path, "--markdown", str(document))
        assert document.read_text() == text
    assert f"the folder {document} cannot be made" in refusal(capsys, document)
    assert not lasting(tmp_path)


def test_results_of_other_settings_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert benchmark(tmp_path) == Outcome.FINISHED
    kept = lasting(tmp_path)
    message = refusal(capsys, tmp_path, "--steps", "3")
    assert "seed-000.json holds a training of 2 steps" in message
    assert "the one asked for has 3" in message
    path = tmp_path / "ring" / "gan" / "seed-000.json"
    values = path.read_text()
    path.write_text(values.replace('"identity": "', '"identity": "0'))
    assert "or other settings" in refusal(capsys, tmp_path)
    path.write_text(values[:40])
    assert f"{path} cannot be read" in refusal(capsys, tmp_path)
    path.write_text(values)
    assert lasting(tmp_path) == kept


def test_summaries_are_means_with_standard_errors() -> None:
    figures = [Figures(8, 0.1, 0.97), Figures(7, 0.2, 0.95), Figures(8, 0.3, 0.99)]
    found = Summary.of([Result("", 50, "", f, 10.0 * k) for k, f in enumerate(figures)], 8)
    assert (found.seeds, found.steps, found.complete) == (3, 50, 2)
    for estimate, mean, deviation in (
        (found.modes, 23 / 3, math.sqrt(1 / 3)),
        (found.high_quality, 97, 2),
        (found.reverse_kl, 0.2, 0.1),
    ):
        assert estimate is not None
        assert estimate.mean == pytest.approx(mean)
        assert estimate.error == pytest.approx(deviation / math.sqrt(3))
    assert found.worst == pytest.approx(95)
    assert found.cells() == ("50", "3", "7.7 ± 0.3", "2 of 3", "97.00 ± 1.15", "95.00", "0.2000 ± 0.0577", "10 ± 6")
    alone = Summary.of([Result("", 50, "", Figures(900, 0.5), 1.0)], 1_000)
    assert alone.cells() == ("50", "1", "900.0", "0 of 1", "", "", "0.5000", "1")


def test_a_table_has_as_many_cells_in_every_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RING, "published", {"GAN": Published("6.3 ± 0.5", "0.45 ± 0.09", "98.2 ± 0.2")})
    summary = Summary.of([Result("", 50, "", Figures(8, 0.1, 0.97), 1.0)], 8)
    lines = results_table(RING, {"gan": summary}, Figures(8, 0.001, 0.989)).splitlines()
    assert {line.count("|") for line in lines[:5]} == {10}
    assert lines[2] == "| the data itself |  |  | 8 |  | 98.90 |  | 0.0010 |  |"
    assert lines[4] == "| GAN, published | 400,000 | 10 | 6.3 ± 0.5 |  | 98.2 ± 0.2 |  | 0.45 ± 0.09 |  |"
    assert lines[6].startswith("Published: Lin et al. 2018, table 1")
