"""Install the wheel into bare environments, outside the checkout, and use it as somebody who has just done that.

    python tools/wheel_test.py                                        with each Python of 3.11 to 3.14 that is here
    python tools/wheel_test.py --constraints constraints-lowest.txt   with the oldest versions that we accept

It needs the package index, and a few minutes for each Python. It needs nothing but Python itself: `make wheel-test`.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

HOME = Path(__file__).resolve().parent.parent
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
SMALL = ("--network.g-channels", "8", "--network.d-channels", "8", "--batch-size", "32", "--micro-batch-size", "8")
RUN = ("--run", "runs/one", "--total-images", "64", "--tracking.mode", "disabled", "--cluster", "local")
FIRST_HOUR = (  # what is typed, one after the other, in an empty folder
    ("--version",),
    (),
    ("plugins",),
    ("submit", "dcgan-32", *SMALL, *RUN),
    ("status",),
    ("trainer", "sample", "runs/one", "--num", "4", "--out", "grid.png"),
    ("trainer", "export", "runs/one", "--out", "model"),
    ("shards", "verify", "demo/shards-32"),
)
LEFT_BEHIND = ("demo/shards-32/index.json", "runs/one/config.json", "grid.png", "model/model.safetensors")


class Failed(Exception):
    """A step that did not do what it should; the message holds its output."""


def do(*command: str | Path, cwd: Path) -> str:
    """Run a command and return its output.

    Raises:
        Failed: its exit code is not 0.
    """
    done = subprocess.run([*map(str, command)], cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failed(f"{' '.join(map(str, command))}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def find_pythons(wanted: list[str]) -> Iterator[tuple[str, str | None]]:
    """Yield each version with the path of its interpreter; None: it is not here."""
    for version in wanted:
        found = shutil.which(f"python{version}")
        # Of a manager of versions there can be a name that starts nothing.
        works = found and subprocess.run([found, "--version"], capture_output=True, check=False).returncode == 0
        yield version, found if works else None


def make_wheel(folder: Path, python: str) -> Path:
    """Build the source distribution and of that the wheel, with the tools of an environment of its own."""
    tools = folder / "build-tools"
    do(python, "-m", "venv", tools, cwd=folder)
    do(tools / "bin" / "python", "-m", "pip", "install", "--quiet", "build", cwd=folder)
    do(tools / "bin" / "python", "-m", "build", HOME, "--outdir", folder / "dist", cwd=folder)
    (wheel,) = (folder / "dist").glob("*.whl")
    return wheel


def try_wheel(wheel: Path, python: str, constraints: Path, folder: Path) -> float:
    """Install a wheel into a bare environment and type the first hour; return the seconds that all took.

    Raises:
        Failed: a step failed, or did not leave its file.
    """
    began, venv, here = time.monotonic(), folder / "venv", folder / "here"
    here.mkdir(parents=True)
    do(python, "-m", "venv", venv, cwd=here)
    do(venv / "bin" / "pip", "install", "--quiet", "-c", constraints.resolve(), wheel, cwd=here)
    do(venv / "bin" / "pip", "check", cwd=here)
    for arguments in FIRST_HOUR:
        do(venv / "bin" / "lienzo", *arguments, cwd=here)
    if missing := [name for name in LEFT_BEHIND if not (here / name).exists()]:
        raise Failed(f"{missing[0]} is not there")
    return time.monotonic() - began


def main() -> int:
    """Try the wheel with each Python; 0: it works with all that are here."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--constraints", type=Path, default=HOME / "constraints.txt", help="versions of what we need")
    parser.add_argument("--pythons", nargs="+", default=[*PYTHONS], help="versions, such as 3.12")
    args = parser.parse_args()
    found = dict(find_pythons(args.pythons))
    failed = 0
    with TemporaryDirectory(prefix="lienzo-wheel-") as name:
        folder = Path(name)
        wheel = make_wheel(folder, sys.executable)
        print(f"{wheel.name}, {wheel.stat().st_size / 1e6:.1f} MB")
        for version, python in found.items():
            if python is None:
                print(f"Python {version}: not tried, it is not here")
                continue
            try:
                seconds = try_wheel(wheel, python, args.constraints, folder / version)
                print(f"Python {version}: works ({seconds:.0f} s)")
            except Failed as error:
                print(f"Python {version}: {error}")
                failed += 1
            shutil.rmtree(folder / version, ignore_errors=True)  # an environment takes gigabytes
    if not any(found.values()):
        print("none of these Pythons is here", file=sys.stderr)
        return 1
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
