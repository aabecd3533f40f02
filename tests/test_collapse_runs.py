"""The collapse monitor in real training processes: what it changes is exact, on any ranks, after any interruption."""

from __future__ import annotations

import json
import re
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import TINY, run
from tests.ranks import Ranks, start_ranks
from trainer.core.randomness import philox
from trainer.core.stopping import Outcome
from trainer.gan.fingerprint import fingerprint
from trainer.runs import journal
from trainer.runs.checkpoint import newest_whole
from trainer.runs.run_folder import RunFolder

LOOKS = ("--collapse.every-images", "32", "--anchor-every-images", "64")
ROLL_BACK = (*LOOKS, "--collapse.policy", "roll-back")


def start(folder: Path, data: Path, size: int, *settings: str, mistake: str | None) -> Ranks:
    """Start a run of 320 pictures, or go on with it."""
    arguments = (*TINY, "--data", str(data), "--checkpoint-every-images", "64", *settings)
    return start_ranks(RunFolder(folder), size, *arguments, mistake=mistake)


def go(folder: Path, data: Path, size: int, *settings: str, mistake: str | None, code: int = 0) -> tuple[str, bytes]:
    """Train to the end; return the fingerprint and the rows."""
    codes = start(folder, data, size, "--total-images", "320", *settings, mistake=mistake).wait()
    assert codes == [code] * size, Path(f"{folder}.log").read_text()
    return state_of(folder), (folder / "metrics.jsonl").read_bytes()


def state_of(folder: Path) -> str:
    """Return the fingerprint of the newest checkpoint."""
    found = newest_whole(RunFolder(folder).checkpoints, lambda checkpoint, problem: None)
    assert found
    return fingerprint(*found.read())


def events(folder: Path, kind: str) -> list[journal.Row]:
    """Return a run's events of one kind."""
    return [row for row in journal.read_rows(RunFolder(folder).events) if row["kind"] == kind]


@pytest.mark.parametrize("change", ["learning-rate", "penalty", "augmentation", "packing", "draws"])
def test_a_rollback_changes_something_and_keeps_the_bits(change: str, shards32: Path, tmp_path: Path) -> None:
    """Undisturbed on one process; on two, killed after the rollback, and resumed on three."""
    settings = (*ROLL_BACK, "--collapse.changes", change, "--network.no-d-batch-norm")
    undisturbed = go(tmp_path / "1", shards32, 1, *settings, mistake="collapse_once")
    (made,) = events(tmp_path / "1", "rollback")
    assert (made["from"], made["to"], made["why"], made["change"]) == (192, 128, "collapsed", change)
    ranks = start(tmp_path / "2", shards32, 2, "--total-images", "1000000", *settings, mistake="collapse_once")
    deadline = time.monotonic() + 60
    while (
        journal.last_row(tmp_path / "2" / "metrics.jsonl").get("images_seen", 0) < 224 and time.monotonic() < deadline
    ):
        time.sleep(0.02)
    assert ranks.kill() == [-signal.SIGKILL] * 2, Path(f"{tmp_path / '2'}.log").read_text()
    assert go(tmp_path / "2", shards32, 3, *settings, mistake="collapse_once") == undisturbed


def test_each_change_leads_elsewhere(shards32: Path, tmp_path: Path) -> None:
    ends = set()
    for change in ("learning-rate", "penalty", "draws"):
        settings = (*ROLL_BACK, "--collapse.changes", change)
        ends.add(go(tmp_path / change, shards32, 1, *settings, mistake="collapse_once")[0])
    ends.add(go(tmp_path / "none", shards32, 1, *ROLL_BACK, mistake=None)[0])
    assert len(ends) == 4


def test_a_monitor_that_forgets_on_resume_is_seen(shards32: Path, tmp_path: Path) -> None:
    """The collapse is met at 160 for the first time, at 192 for the second; a stop in between must not matter."""
    ends = []
    for mistake in ("collapse_once", "collapse_and_forget"):
        folder = tmp_path / mistake
        settings = (*ROLL_BACK, "--total-images", "160")
        assert start(folder, shards32, 1, *settings, mistake=mistake).wait() == [0]
        ends.append(go(folder, shards32, 1, *ROLL_BACK, mistake=mistake))
    undisturbed = go(tmp_path / "undisturbed", shards32, 1, *ROLL_BACK, mistake="collapse_once")
    assert ends[0] == undisturbed
    assert ends[1] != undisturbed


def test_neither_stops_nor_savings_decide_where_a_rollback_goes(shards32: Path, tmp_path: Path) -> None:
    """The collapse is sure at 192; a stop or a saving at 128 leaves a newer healthy state than the anchor at 96."""
    settings = ("--collapse.every-images", "32", "--anchor-every-images", "96", "--collapse.policy", "roll-back")
    undisturbed = go(tmp_path / "undisturbed", shards32, 1, *settings, mistake="collapse_once")
    (made,) = events(tmp_path / "undisturbed", "rollback")
    assert (made["from"], made["to"]) == (192, 96)
    stopped, often = tmp_path / "stopped", (*settings, "--checkpoint-every-images", "32")
    assert start(stopped, shards32, 1, *settings, "--total-images", "128", mistake="collapse_once").wait() == [0]
    assert go(stopped, shards32, 1, *settings, mistake="collapse_once") == undisturbed
    assert go(tmp_path / "often", shards32, 1, *often, mistake="collapse_once") == undisturbed


def test_of_few_pictures_nothing_is_said(tmp_path: Path) -> None:
    """A run on sixteen pictures trains, unwatched."""
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number, pixels in enumerate(philox("few pictures").integers(0, 256, (16, 32, 32, 3), np.uint8)):
        Image.fromarray(pixels).save(pictures / f"{number}.png")
    data = tmp_path / "few"
    done = run("shards", "build", str(pictures), "--out", str(data), "--size", "32", "--holdout", "0")
    assert done.returncode == 0, done.stderr
    go(tmp_path / "run", data, 1, *LOOKS, mistake=None)
    assert not any("collapse/health" in row for row in journal.read_rows(tmp_path / "run" / "metrics.jsonl"))


def test_the_policy_stop_saves_and_ends_and_a_resume_is_refused(shards32: Path, tmp_path: Path) -> None:
    folder, stop = tmp_path / "run", (*LOOKS, "--collapse.policy", "stop")
    go(folder, shards32, 2, *stop, mistake="collapse_once", code=Outcome.REFUSED)
    assert journal.last_row(folder / "metrics.jsonl")["collapse/health"] == 2
    go(folder, shards32, 1, *stop, mistake="collapse_once", code=Outcome.REFUSED)
    said = Path(f"{folder}.log").read_text()
    assert said.count("the run has collapsed by 192 images") == 2
    assert "Traceback" not in said
    (advice,) = {line.partition("; resume it with ")[2] for line in said.splitlines() if "refused: " in line}
    tell, back = re.findall(r"(?:--collapse.policy|or with) ([a-z-]+) to go on", advice)
    go(copied(folder, "told"), shards32, 1, *LOOKS, "--collapse.policy", tell, mistake="collapse_once")
    assert not events(tmp_path / "told", "rollback")
    go(copied(folder, "back"), shards32, 1, *LOOKS, "--collapse.policy", back, mistake="collapse_once")
    (made,) = events(tmp_path / "back", "rollback")
    assert (made["from"], f"{made['to']:012d}-r00") == (192, advice.rpartition(" ")[2])


def test_a_run_that_collapsed_at_its_end_goes_back_and_one_without_a_healthy_checkpoint_is_not_told_to(
    shards32: Path, tmp_path: Path
) -> None:
    folder, length = tmp_path / "run", ("--total-images", "192", *LOOKS, "--collapse.policy")
    assert start(folder, shards32, 1, *length, "stop", mistake="collapse_once").wait() == [Outcome.REFUSED]
    source = copied(folder, "source")
    assert start(folder, shards32, 1, *length, "roll-back", mistake="collapse_once").wait() == [0]
    assert [row["from"] for row in events(folder, "rollback")] == [192]
    assert journal.last_row(folder / "metrics.jsonl")["collapse/health"] < 2

    new = tmp_path / "new"
    began = ("--init-from", str(source), "--init-state", "all", "--collapse.policy", "stop", "--total-images", "192")
    assert start(new, shards32, 1, *LOOKS, *began, mistake=None).wait() == [Outcome.REFUSED]
    assert Path(f"{new}.log").read_text().rstrip().endswith("--collapse.policy tell to go on as it is")


def copied(folder: Path, name: str) -> Path:
    """Return a copy of a run."""
    return Path(shutil.copytree(folder, folder.with_name(name)))


def test_the_policy_tell_says_it_once_and_trains_on(shards32: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    go(folder, shards32, 1, *LOOKS, mistake="collapse_once")
    assert [(row["images_seen"], row["state"]) for row in events(folder, "collapse alarm")] == [
        (160, "warning"),
        (192, "collapsed"),
    ]
    for row in events(folder, "collapse alarm"):
        assert (folder / "samples" / row["picture"]).exists()
        assert "of its own best variety" in row["problem"]
    states = {row["images_seen"]: row["collapse/health"] for row in journal.read_rows(folder / "metrics.jsonl")}
    assert states == {seen: 0.0 if seen < 160 else 1.0 if seen == 160 else 2.0 for seen in range(32, 352, 32)}
    assert not events(folder, "rollback")


def test_the_last_healthy_checkpoint_is_never_pruned(shards32: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    settings = ("--checkpoint-every-images", "32", "--checkpoint.keep-last", "1", *LOOKS)
    go(folder, shards32, 1, *settings, mistake="collapse_once")
    kept = sorted(int(path.name.split("-")[0]) for path in (folder / "checkpoints").iterdir())
    assert kept == [128, 320]


def test_it_gives_up_after_the_allowed_rollbacks(shards32: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    settings = (*ROLL_BACK, "--max-rollbacks", "0")
    go(folder, shards32, 1, *settings, mistake="collapse_once", code=Outcome.FAILED)
    assert "collapsed at 192 images, after 0 rollbacks" in Path(f"{folder}.log").read_text()


def test_a_whole_look_costs_nothing_but_time(shards32: Path, tmp_path: Path) -> None:
    """The real witness looks, and leaves no trace in the weights."""
    watched, alone = tmp_path / "watched", tmp_path / "alone"
    go(watched, shards32, 2, "--collapse.every-images", "160", mistake=None)
    go(alone, shards32, 1, "--collapse.every-images", "0", mistake=None)
    states = []
    for folder in (watched, alone):
        found = newest_whole(RunFolder(folder).checkpoints, lambda checkpoint, problem: None)
        assert found
        states.append(fingerprint(found.read()[0], {}))
    assert states[0] == states[1]
    rows = {row["images_seen"]: row for row in journal.read_rows(watched / "metrics.jsonl")}
    assert {seen for seen, row in rows.items() if "collapse/diversity" in row} == {160, 320}
    assert json.dumps(rows[320]) == json.dumps(journal.last_row(watched / "metrics.jsonl"))
