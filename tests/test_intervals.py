"""Intervals in seconds: what is due, how all ranks learn of it at once, and that no bit of the state changes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from launcher.doctor.run_facts import RunFacts
from launcher.doctor.timing import judge_interval, lost_share, mean_time_between_failures
from launcher.study.prepare import speed_run_config
from tests.conftest import TINY, run
from trainer.commands.train import Train, read_train
from trainer.config.config import Config
from trainer.config.groups import CollapseSettings
from trainer.config.intervals import default_interval
from trainer.core.fields import Refused, from_json, identity_settings, to_json
from trainer.gan.state import TrainState
from trainer.networks.network_settings import NetworkSettings
from trainer.runs.config_defaults import load_defaults, resolve_length
from trainer.runs.config_loading import read_config, write_config
from trainer.runs.config_resolution import resolve_config
from trainer.runs.run_folder import RunFolder
from trainer.training.due import Clock, Signal, Timer, read_signal, read_signals
from trainer.training.step_verdict import StepCheck, StepVerdict

GOOD = {"loss_d": 1.0, "loss_g": 1.0, "grad_norm_d": 1.0, "grad_norm_g": 1.0, "replaced": 0.0}


class Now:
    """A clock that stands until it is set."""

    def __init__(self) -> None:
        self.s = 0.0

    def __call__(self) -> float:
        return self.s


@pytest.mark.parametrize("micro_batches", [1, 2, 3, 64, 1000, 4096, 2**20 - 1])
@pytest.mark.parametrize("signal", Signal)
def test_a_mean_over_micro_batches_tells_one_thing(micro_batches: int, signal: Signal) -> None:
    for answered in {1, (micro_batches + 1) // 2, micro_batches}:
        mean = torch.tensor(answered * signal.value) / torch.tensor(float(micro_batches))
        assert mean.dtype == torch.float32
        assert read_signal(mean.item()) is signal
    assert read_signal(0.0) is None
    # Some are asked to stop while rank 0 has something due: the stop is seen.
    assert read_signal((1 + (micro_batches - 1) * Signal.SAVE.value) / micro_batches) is Signal.STOP


def test_a_clock_tells_what_is_due_until_it_is_done() -> None:
    now, asked = Now(), [False]
    clock = Clock(Config(checkpoint_every_s=10, sample_every_s=4), lambda: asked[0], main=True, now=now)
    assert clock() == 0
    now.s = 3.99
    assert clock() == 0
    now.s = 4
    assert [clock(), clock()] == [Signal.SAMPLE.value] * 2, "in each micro-batch, until it is done"
    clock.restart({Signal.SAMPLE})
    assert clock() == 0
    now.s = 10
    assert clock() == Signal.SAVE.value, "one at a time"
    clock.restart({Signal.SAVE, Signal.STOP})
    assert clock() == Signal.SAMPLE.value
    asked[0] = True
    assert clock() == Signal.STOP.value
    other = Clock(Config(checkpoint_every_s=10), lambda: False, main=False, now=now)
    now.s = 1000
    assert other() == 0, "rank 0 alone looks at a clock"
    by_images = Clock(Config(), lambda: False, main=True, now=now)
    now.s = 10_000
    assert by_images() == 0
    assert not Timer(None, now).is_due()


class Late:
    """Scalars that arrive a step late, as on a GPU."""

    def __init__(self, check: StepCheck) -> None:
        check.scalars.lag = 1


def check_steps(stops: Sequence[float], broken: int = -1) -> list[tuple[int, StepVerdict, int, set[Signal]]]:
    """Return of each step: the rows that it gave, its verdict, where it was broken, and what is due."""
    check = StepCheck(Config(), torch.device("cpu"), False, lambda: None)
    Late(check)
    found = []
    for number, stop in enumerate(stops, 1):
        values = GOOD | {"stop": stop} | ({"loss_g": float("nan")} if number == broken else {})
        state = TrainState.__new__(TrainState)
        state.images_seen = number
        rows, verdict, at = check(state, {name: torch.tensor(value) for name, value in values.items()}, wait=False)
        found.append((len(rows), verdict, at, read_signals(rows)))
    return found


def test_what_is_due_is_done_with_a_state_that_was_checked() -> None:
    save = Signal.SAVE.value
    go_on, stop, back = StepVerdict.GO_ON, StepVerdict.STOP, StepVerdict.ROLL_BACK
    # The second step tells it; it is read after the third, whose own scalars are waited for then.
    assert check_steps([0, save, save, 0, 0]) == [
        (0, go_on, 0, set()),
        (1, go_on, 0, set()),
        (2, go_on, 0, {Signal.SAVE}),
        (0, go_on, 0, set()),
        (1, go_on, 0, set()),
    ]
    assert check_steps([0, save, 0], broken=3)[2] == (2, back, 3, {Signal.SAVE})
    assert check_steps([0, save, 1.0])[2] == (2, stop, 0, {Signal.SAVE, Signal.STOP}), "a stop that came meanwhile"
    assert check_steps([0, save, 0], broken=2)[2] == (1, back, 2, {Signal.SAVE}), "no later step hides where it broke"


def test_the_command_line_wins_over_files_and_names_one_of_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("log", "sample", "checkpoint"):
        images, seconds = f"{name}_every_images", f"{name}_every_s"
        flags = (f"--{images.replace('_', '-')}", "64"), (f"--{seconds.replace('_', '-')}", "1.5")
        Path("lienzo.toml").write_text(f"{seconds} = 30.0\n")
        assert getattr(load_defaults("dcgan-32", None), seconds) == 30
        train = Train(Path("r"), "dcgan-32")
        by_images = read_train(train, ["dcgan-32", "--run", "r", *flags[0]]).config
        assert (getattr(by_images, images), getattr(by_images, seconds)) == (64, None)
        assert getattr(read_train(train, ["dcgan-32", "--run", "r", *flags[1]]).config, seconds) == 1.5
        with pytest.raises(Refused, match=f"{flags[1][0]} and {flags[0][0]} both tell when to .*: name one of them"):
            resolve_length(Config(), [*flags[0], *flags[1]])
        Path("lienzo.toml").write_text(f"{seconds} = 30.0\n{images} = 64\n")
        with pytest.raises(
            Refused, match=f"lienzo.toml: {seconds} and {images} both tell when to .*: keep one of them"
        ):
            load_defaults("dcgan-32", None)


def test_seconds_are_no_identity_and_old_folders_have_none() -> None:
    config = Config(log_every_s=1, sample_every_s=2, checkpoint_every_s=3)
    assert identity_settings(config) == identity_settings(Config())
    stored = {name: value for name, value in to_json(Config()).items() if not name.endswith("_every_s")}
    read = from_json(Config, stored | {"stall_after_s": 300.0}, "config.json")
    assert (read.log_every_s, read.sample_every_s, read.checkpoint_every_s) == (None, None, None)
    assert (config.interval("log"), config.interval("sample"), config.interval("checkpoint")) == (0, 0, 0)
    assert Config().interval("sample") == 64_000
    paced = speed_run_config(config)
    assert not paced.generates_grids
    assert paced.interval("checkpoint") > paced.interval("log") > 0


def test_the_doctor_judges_seconds_too() -> None:
    facts = RunFacts(config=Config(checkpoint_every_s=60), stall_s=0.01, save_s=1.0, images_per_s=100.0)
    found = judge_interval(facts, 1)
    assert found.measured.startswith("every 60 s; one stops training for")
    mean = mean_time_between_failures(facts, 1)[0]
    assert found.meaning.startswith(f"saves and repeated work cost {lost_share(60, 0.01, 1.0, mean):.2%} of the time")
    assert judge_interval(RunFacts(config=Config(checkpoint_every_s=60)), 1).measured.startswith(
        "60 s; the run has not"
    )


def events(folder: Path, kind: str) -> list[int]:
    rows = map(json.loads, (folder / "events.jsonl").read_text().splitlines())
    return [row["images_seen"] for row in rows if row.get("kind") == kind]


@pytest.mark.parametrize("processes", [1, 3])
def test_a_run_by_seconds_has_the_bits_of_one_by_images(processes: int, shards32: Path, tmp_path: Path) -> None:
    """Uneven shares: three ranks have 2, 1 and 1 micro-batches; all must save after the same step, or one hangs."""
    length = ("--total-images", "960", "--data", str(shards32), "--processes", str(processes))
    for name, intervals in {
        "images": (),
        "seconds": ("--log-every-s", "0.3", "--sample-every-s", "0.4", "--checkpoint-every-s", "0.3"),
    }.items():
        settings = TINY
        if intervals:  # the images of TINY would win
            at = [TINY.index(f"--{one}-every-images") for one in ("log", "sample", "checkpoint")]
            settings = [word for place, word in enumerate(TINY) if not {place, place - 1} & {*at}]
        done = run("trainer", "train", *settings, *length, *intervals, "--run", str(tmp_path / name))
        assert done.returncode == 0, done.stderr
    prints = [run("trainer", "fingerprint", str(tmp_path / name)).stdout for name in ("images", "seconds")]
    assert prints[0] == prints[1] != ""
    folder = tmp_path / "seconds"
    assert len(events(folder, "checkpoint")) > 3
    assert len(list((folder / "samples").glob("*.png"))) > 2, "and not the last one alone"
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert all("stop" not in row for row in rows)


def test_rows_come_at_intervals_in_seconds(shards32: Path, tmp_path: Path) -> None:
    at = TINY.index("--log-every-images")
    settings = (*TINY[:at], *TINY[at + 2 :], "--log-every-s", "0.2", "--total-images", "1920", "--data", str(shards32))
    done = run("trainer", "train", *settings, "--processes", "1", "--run", str(tmp_path / "r"))
    assert done.returncode == 0, done.stderr
    system = map(json.loads, (tmp_path / "r/system.jsonl").read_text().splitlines())
    seconds = [row["elapsed_s"] for row in system if "elapsed_s" in row]
    between = [after - before for before, after in pairwise(seconds[:-1])]  # the last row is that of the end
    assert len(between) > 1
    assert min(between) > 0.19


def test_a_long_run_is_measured_as_often_as_a_short_one() -> None:
    """Shorter ones, and so those of earlier versions, have the numbers of pictures that every run had."""
    for total in (1, 1_280_000, 2_048_000):
        assert default_interval("collapse", total) == 32_000
        assert {default_interval(of, total) for of in ("sample", "checkpoint", "anchor")} == {64_000}
    assert default_interval("collapse", 25_000_000) == 391_000
    assert default_interval("anchor", 25_000_000) == 782_000
    named = Config(epochs=100, anchor_every_images=5, collapse=CollapseSettings(every_images=0)).with_intervals(250_000)
    found = [named.interval(of) for of in ("collapse", "anchor", "sample", "checkpoint", "log")]
    assert found == [0, 5, 782_000, 782_000, 2_560]
    assert Config(sample_every_s=1.0).with_intervals(1).interval("sample") == 0


def test_a_run_keeps_the_intervals_that_it_began_with(shards32: Path, tmp_path: Path) -> None:
    """They are a part of what it computes; the length is not."""
    asked = Config(
        data=shards32,
        mixed_precision="no",
        total_images=10_000_000,
        network=NetworkSettings(size=32),
        generator="dcgan",
    )
    folder = RunFolder(tmp_path)
    begun = resolve_config(folder, asked).config
    assert (begun.collapse.every_images, begun.anchor_every_images) == (157_000, 313_000)
    write_config(folder, begun)
    extended = resolve_config(folder, replace(read_config(folder), total_images=20_000_000)).config
    assert (extended.collapse.every_images, extended.sample_every_images) == (157_000, 313_000)
