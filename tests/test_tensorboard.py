"""TensorBoard's copy of a run: the rows of the journals, once each, after kills, torn files and rollbacks."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

from launcher.cli.sync import Sync, run_sync
from tests.conftest import HOME
from trainer.config.config import Config
from trainer.config.groups import TrackingSettings
from trainer.core.fields import Refused
from trainer.core.migration import with_schema
from trainer.runs import journal
from trainer.runs.journal import Journal
from trainer.runs.run_folder import RunFolder
from trainer.tracking.tensorboard_mirror import write_events
from trainer.tracking.tracker import Identity, Tracker

SETTINGS = TrackingSettings("disabled")


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    return folder


def play(run: RunFolder, start: int, stop: int, rollback_to: int | None = None) -> None:
    """An attempt of a run, without a mirror."""
    tracker = Tracker(run, SETTINGS)
    tracker.start(start)
    for images_seen in range(start + 10, stop + 10, 10):
        tracker.system({"images_seen": images_seen, "images_per_s": 1.5})
        tracker.metrics({"images_seen": images_seen, "loss_d": images_seen / 8, "loss_g": float("nan")})
    if rollback_to is not None:
        tracker.new_segment(rollback_to, "rollback")
    tracker.close("finished")


def records(run: RunFolder, segment: int = 0) -> list[Any]:
    """What TensorBoard would read of a segment, in the order of its files."""
    folder = run.tensorboard / Identity.load(run.wandb_identity).segments[segment].id
    files = sorted(folder.glob("events.*"), key=lambda path: path.stat().st_mtime_ns)
    found = [event for path in files for event in LegacyEventFileLoader(str(path)).Load()]
    return [event for event in found if event.summary.value]


def scalars(run: RunFolder, tag: str, segment: int = 0) -> list[tuple[int, float]]:
    values = [(event.step, value) for event in records(run, segment) for value in event.summary.value]
    return [(step, value.simple_value) for step, value in values if value.tag == tag]


def test_the_rows_are_those_of_the_journals(run: RunFolder) -> None:
    run.samples.mkdir()
    Image.new("RGB", (6, 4), "red").save(run.sample(20))
    play(run, 0, 30)
    assert write_events(run) == 3
    assert scalars(run, "loss_d") == [(10, 1.25), (20, 2.5), (30, 3.75)]
    assert [step for step, value in scalars(run, "loss_g") if value != value] == [10, 20, 30]
    assert scalars(run, "system/images_per_s") == [(10, 1.5), (20, 1.5), (30, 1.5)]
    assert [value for _, value in scalars(run, "attempt/number")] == [1, 1, 1]
    (picture,) = [value.image for event in records(run) for value in event.summary.value if value.tag == "samples"]
    assert (picture.width, picture.height, picture.colorspace) == (6, 4, 3)
    assert picture.encoded_image_string == run.sample(20).read_bytes()
    times = [row["time"] for row in journal.read_rows(run.system)]
    assert [event.wall_time for event in records(run)] == times


def test_what_a_kill_has_torn_is_written_again_and_nothing_else(run: RunFolder) -> None:
    play(run, 0, 30)
    write_events(run)
    (file,) = run.tensorboard.glob("*/events.*")
    file.write_bytes(file.read_bytes()[:-7])
    assert [step for step, _ in scalars(run, "loss_d")] == [10, 20]
    play(run, 20, 50)  # it resumes from 20
    assert write_events(run) == 3
    assert scalars(run, "loss_d") == [(seen, seen / 8) for seen in range(10, 60, 10)]
    assert write_events(run) == 0


def test_a_rollback_goes_to_a_folder_of_its_own(run: RunFolder) -> None:
    play(run, 0, 40, rollback_to=20)
    play(run, 20, 40)
    write_events(run)
    assert [step for step, _ in scalars(run, "loss_d", 0)] == [10, 20]
    assert [step for step, _ in scalars(run, "loss_d", 1)] == [30, 40]


def test_evaluations_come_at_their_own_images_once(run: RunFolder) -> None:
    play(run, 0, 40)
    evaluations = Journal(run.evaluations)
    for images_seen, value in ((20, 3.5), (10, 9.0)):
        figures = {"fid_5k/x": {"value": value, "low": value - 1, "high": value + 1}}
        evaluations.append(with_schema({"images_seen": images_seen, "seed_set": "select", "figures": figures}))
        for _ in range(2):
            write_events(run)
    evaluations.close()
    assert scalars(run, "evaluation/select/fid_5k/x") == [(20, 3.5), (10, 9.0)]
    assert scalars(run, "evaluation/select/fid_5k/x/low") == [(20, 2.5), (10, 8.0)]


def mirrors(run: RunFolder) -> list[psutil.Process]:
    found = psutil.process_iter(["cmdline"])
    words = ["trainer.tracking.tensorboard_mirror", str(run.path)]
    return [process for process in found if all(word in (process.info["cmdline"] or []) for word in words)]


def test_beside_a_trainer_that_is_killed_with_its_mirror_each_row_is_there_once(run: RunFolder) -> None:
    command = [sys.executable, "-m", "tests.tracked_run", str(run.path), "--mode", "disabled", "--tensorboard"]
    trainer = subprocess.Popen([*command, "--stop", "100000", "--row-s", "0.02"], cwd=HOME)
    deadline = time.monotonic() + 60
    while not run.wandb_identity.exists() or not scalars(run, "d/loss"):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    for process in [psutil.Process(trainer.pid), *mirrors(run)]:
        process.kill()
    trainer.wait()
    reached = int(journal.last_row(run.metrics)["images_seen"])
    start = max(0, reached - 100)
    subprocess.run([*command, "--start", str(start), "--stop", str(start + 200)], cwd=HOME, check=True, timeout=60)
    assert not mirrors(run)
    recorded = [(row["images_seen"], row["d/loss"]) for row in journal.read_rows(run.metrics)]
    written = scalars(run, "d/loss")
    assert [step for step, _ in written] == [step for step, _ in recorded]
    assert [value for _, value in written] == pytest.approx([value for _, value in recorded], rel=1e-6)


def test_sync_writes_what_is_missing(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    play(run, 0, 30)
    assert run_sync(Sync(run.path, tensorboard=True)) == 0
    told = f"{run.tensorboard}: 3 rows written; look at them with: tensorboard --logdir {run.tensorboard}"
    assert capsys.readouterr().out.splitlines() == [told]
    assert run_sync(Sync(run.path / "nowhere", tensorboard=True)) == 1
    assert "is not a run folder" in capsys.readouterr().err


def test_without_the_package_it_is_refused(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    play(run, 0, 10)
    monkeypatch.setattr("trainer.config.groups.find_spec", lambda name: None)
    with pytest.raises(Refused, match=r"pip install 'lienzo\[tensorboard\]'"):
        run_sync(Sync(run.path, tensorboard=True))
    with pytest.raises(Refused, match=r"tracking\.tensorboard needs tensorboard"):
        Config(tracking=TrackingSettings(tensorboard=True)).check()
