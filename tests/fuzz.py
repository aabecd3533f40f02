"""Fuzz all that reads other people's bytes: an exclusion or a clear error, and nothing else.

`python -m tests.fuzz --minutes 30 --seed 7`: random inputs for each target, in turn; what fails is made small, printed,
and stored, and `--replay FILE` runs it once. `--examples N` runs a fixed slice, as CI does.

Each target runs in a process of its own with a limit on its memory; CI runs all of them in one. A failure is any
undocumented error, the end of the process, an input that takes too long, and a file opened outside of the folder.
"""

from __future__ import annotations

import faulthandler
import os
import pickle
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from hypothesis import HealthCheck, Phase, given, seed, settings

MEMORY = 512 << 20  # bytes beyond what the process has at first
SECONDS = 10  # of one example
PHASES = (Phase.generate, Phase.shrink)
TARGETS = ("decoder", "tar", "zip", "index", "remote", "labels", "card", "place")


@dataclass(frozen=True)
class Fuzz:
    """Read hostile inputs until the time is over; exit code 0: all were read or refused, 1: a target failed."""

    minutes: float = 30.0
    """Time for all targets together."""
    seed: int = 0
    """Names the inputs."""
    examples: int = 0
    """Instead of a time: so many inputs of each target, always the same ones."""
    only: tuple[str, ...] = TARGETS
    """Targets."""
    out: Path = Path("runs/fuzz")
    """Folder for the inputs that fail."""
    replay: Path | None = None
    """An input that failed, to run once more."""
    inside: bool = False
    """Run all targets in this process, which the first failure ends."""


class TooSlow(BaseException):
    """An example takes too long. No Exception, which the code under test might take for one of its own."""


def on_alarm(*_: object) -> None:
    """End an example."""
    raise TooSlow(f"no end after {SECONDS} s")


@contextmanager
def time_limit() -> Iterator[None]:
    """End what takes too long: by an exception, or, where Python does not get to run, with the process."""
    faulthandler.dump_traceback_later(3 * SECONDS, exit=True)
    signal.signal(signal.SIGALRM, on_alarm)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        faulthandler.cancel_dump_traceback_later()


def limit_memory(beyond: int) -> None:
    """Limit the address space of this process to what it has and so many bytes more."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + beyond
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def watch_files(folder: Path, inside: Path) -> list[str]:
    """Return a list that is filled with the files that are opened in a folder, but outside of a folder in it."""
    found: list[str] = []

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(arguments[0], str | bytes):
            path = os.path.abspath(os.fsdecode(arguments[0]))
            if path.startswith(f"{folder}/") and not path.startswith(f"{inside}/"):
                found.append(path)

    sys.addaudithook(hook)
    return found


def guard(check: Callable[[Any], None], stored: Path, escaped: list[str]) -> Callable[[Any], None]:
    """Return a check of an example under all limits; the example is stored first, as it may end the process."""

    def checked(example: Any) -> None:
        stored.write_bytes(pickle.dumps((stored.stem, example)))
        escaped.clear()
        with time_limit():
            check(example)
        assert not escaped, f"opened outside of the folder: {escaped}"

    return checked


def run_inside(args: Fuzz) -> None:
    """Run targets in this process; raises what the smallest failing example of one raises."""
    from tests.fuzz_targets import targets

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary).resolve()
        found = targets(folder, args.only)
        args.out.mkdir(parents=True, exist_ok=True)
        escaped = watch_files(folder, folder / "inside")
        example = pickle.loads(args.replay.read_bytes())[1] if args.replay else None
        limit_memory(MEMORY)
        for name in args.only:
            stored = (args.out / f"{name}.pickle").resolve()
            checked = guard(found[name].check, stored, escaped)
            if args.replay:
                checked(example)
            else:
                run_examples(found[name].inputs, checked, args)
            stored.unlink(missing_ok=True)
            print(f"{name}: no failure", flush=True)


def run_examples(inputs: Any, checked: Callable[[Any], None], args: Fuzz) -> None:
    """Check examples until the time of a target is over, or the asked number."""
    options = settings(
        max_examples=args.examples or 500,
        derandomize=bool(args.examples),
        database=None,
        deadline=None,
        phases=PHASES,
        suppress_health_check=list(HealthCheck),
    )
    end, number = time.monotonic() + 60 * args.minutes / len(args.only), args.seed
    while True:
        test: Any = given(inputs)(checked)  # type: ignore[no-untyped-call]  # it keeps the types of the test alone
        seeded: Any = seed(number)
        run: Any = options(test if args.examples else seeded(test))
        run()
        number += 1
        if args.examples or time.monotonic() > end:
            return


def main() -> int:
    """Run the targets, one after the other, each in a process of its own; return the exit code."""
    args = tyro.cli(Fuzz)
    if args.inside:
        run_inside(args)
        return 0
    only = (pickle.loads(args.replay.read_bytes())[0],) if args.replay else args.only
    failed = 0
    for name in only:
        words = ["--inside", "--only", name, "--minutes", str(args.minutes / len(only)), "--seed", str(args.seed)]
        words += ["--examples", str(args.examples), "--out", str(args.out)]
        words += ["--replay", str(args.replay)] if args.replay else []
        code = subprocess.run([sys.executable, "-m", "tests.fuzz", *words], check=False).returncode
        if code:
            failed += 1
            again = args.replay or args.out / f"{name}.pickle"
            print(f"{name}: FAILED (exit code {code}); run it again with: python -m tests.fuzz --replay {again}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
