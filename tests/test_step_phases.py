"""Where the time of a step goes, by a clock that the test sets."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest
import torch

from trainer.core.step_phases import SPACING_S, DeviceClock, HostClock, StepTimes, clock_of, phase


class HandClock(HostClock):
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.time = 100.0

    def stamp(self) -> float:
        """Return its time."""
        return self.time

    def pass_s(self, seconds: float) -> None:
        """Move it on."""
        self.time += seconds


def small_step(clock: HandClock) -> None:
    """Play a step of one second."""
    with phase("data"):
        clock.pass_s(0.1)
        with phase("draws"):
            clock.pass_s(0.1)
        clock.pass_s(0.1)
    clock.pass_s(0.2)
    with phase("exchange"):
        clock.pass_s(0.1)
    clock.pass_s(0.2)
    with phase("optimizer"):
        clock.pass_s(0.2)


def test_a_phase_inside_another_one_interrupts_it() -> None:
    clock = HandClock()
    times = StepTimes(clock, clock.stamp)
    for _ in range(2):
        with times.step():
            small_step(clock)
        clock.pass_s(0.25)
    assert times.shares() == {
        "time/data": 0.16,
        "time/draws": 0.08,
        "time/forward_backward": 0.32,
        "time/exchange": 0.08,
        "time/optimizer": 0.16,
        "time/other": 0.2,
    }
    with times.step():
        clock.pass_s(1)
    assert times.shares()["time/forward_backward"] == 1, "an interval holds what the last one held"


def test_steps_that_were_not_measured_count_like_those_that_were() -> None:
    clock = HandClock()
    times = StepTimes(clock, clock.stamp)
    stamps = 0

    def count() -> float:
        nonlocal stamps
        stamps += 1
        return clock.time

    clock.stamp = count  # type: ignore[method-assign]  # it counts
    for _ in range(100):
        with times.step():
            with phase("data"):
                clock.pass_s(SPACING_S / 40)
            clock.pass_s(SPACING_S / 40)
    assert stamps == 4 * 5, "each step that is measured costs time"
    clock.pass_s(100 * SPACING_S / 20)  # as long as all steps
    assert times.shares()["time/other"] == pytest.approx(0.5, abs=0.001)


def test_shares_never_exceed_the_whole() -> None:
    clock = HandClock()
    times = StepTimes(clock, clock.stamp)
    for seconds in (1.0, 0.0, 0.0):  # the one that is measured is the longest
        times.due_at = 0 if seconds else 1e9
        with times.step():
            clock.pass_s(seconds)
    assert times.shares()["time/forward_backward"] == 1


def test_no_step_was_measured_no_shares() -> None:
    times = StepTimes(HostClock())
    assert times.shares() == {}
    times.due_at = time.perf_counter() + 1000
    with times.step():
        pass
    assert times.shares() == {}


def test_a_step_that_fails_is_not_counted() -> None:
    clock = HandClock()
    times = StepTimes(clock, clock.stamp)
    with pytest.raises(ValueError, match="broken"), times.step(), phase("data"):
        raise ValueError("broken")
    assert times.shares() == {}
    with phase("data"):  # nothing measures any more
        clock.pass_s(1)


def test_other_threads_are_not_measured() -> None:
    clock = HandClock()
    times = StepTimes(clock, clock.stamp)

    def draw() -> None:
        with phase("draws"):
            clock.pass_s(1)

    with times.step():
        thread = threading.Thread(target=draw)
        thread.start()
        thread.join()
    assert times.shares()["time/draws"] == 0


class FakeEvent:
    """An event of a GPU whose clock the test moves; to wait for it is a mistake."""

    done = False
    clock = 0.0

    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing

    def record(self) -> None:
        """Note the time."""
        FakeEvent.clock += 250.0
        self.at = FakeEvent.clock

    def query(self) -> bool:
        """Tell whether the GPU came by."""
        return FakeEvent.done

    def elapsed_time(self, end: FakeEvent) -> float:
        """Return milliseconds; torch refuses before the GPU came by."""
        assert FakeEvent.done
        return end.at - self.at

    def synchronize(self) -> None:
        """Wait."""
        raise AssertionError("the host waits for the GPU")


def test_a_gpu_is_asked_when_it_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "Event", FakeEvent)
    clock = HandClock()
    assert isinstance(clock_of(torch.device("cuda")), DeviceClock)
    times = StepTimes(DeviceClock(), clock.stamp)
    with times.step(), phase("exchange"):
        clock.pass_s(1.0)
    assert times.shares() == {}
    FakeEvent.done = True
    assert times.shares()["time/exchange"] == 0.25
    FakeEvent.done = False


def test_what_is_captured_in_a_graph_has_no_events(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = HandClock()
    times = StepTimes(clock, clock.stamp)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    with times.step(), phase("optimizer"):
        clock.pass_s(1)
    assert times.shares()["time/forward_backward"] == 1


def seconds_each(act: Callable[[], None], count: int) -> float:
    """Return the seconds of one call."""
    started = time.process_time()
    for _ in range(count):
        act()
    return (time.process_time() - started) / count


def test_a_step_that_is_not_measured_costs_microseconds() -> None:
    """A thousandth of the shortest step of a GPU (dcgan-64, 1.5 ms, bound by its launches), many times over."""
    times = StepTimes(HostClock())
    times.due_at = time.perf_counter() + 1000

    def step() -> None:
        with times.step():
            for _ in range(3):
                with phase("exchange"):
                    pass

    assert min(seconds_each(step, 200) for _ in range(20)) < 20e-6
    assert min(seconds_each(lambda: times.shares().clear(), 200) for _ in range(20)) < 20e-6
