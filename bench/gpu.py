"""All that only a GPU can show, in at most nine minutes, and one report of it: `make gpu`, or `python -m bench.gpu`.

Each part is a process with a time limit of its own; what it leaves of that is the next one's. A part that fails or is
late is told in the report, and the rest still runs. Exit code 1: some part did not pass; 2: there is no GPU. Until the
first part has installed torch there is none, so this module needs nothing but Python.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from bench.gpu_report import Report, Result, read_tables, read_usage

HOME = Path(__file__).parent.parent
REPORTS = HOME / "runs" / "gpu"
LAST_LINES = 30
DEVICE = "device"
NO_GPU = 2


@dataclass(frozen=True)
class Part:
    """A process."""

    name: str
    limit_s: int
    command: str
    """{python} is the Python that the first part has installed into."""
    refuses: str = ""
    """What must not be in its output, whatever its exit code."""


# The limits add up to less than nine minutes; what is left is for ending what is late.
PARTS = (
    Part("install", 140, f"make setup PYTHON={shlex.quote(sys.executable)}"),
    Part(DEVICE, 15, "{python} -m bench.gpu --describe cuda"),
    Part("tests marked gpu", 100, "{python} -m pytest -n0 -m gpu tests/test_real_gpu.py", refuses="SKIPPED"),
    Part("bits", 60, "{python} -m bench.gpu_bits"),
    Part("bits, kernels chosen by timing", 15, "{python} -m bench.gpu_bits --no-deterministic --recipes dcgan-64"),
    Part("graphs", 60, "{python} -m bench.gpu_graphs"),
    Part("step", 30, "{python} -m bench.step --device cuda --turns 9"),
    Part("step, large", 20, "{python} -m bench.step --device cuda --batch-size 1024 --micro-batch-size 256"),
    Part("StyleGAN2's operations", 15, "{python} -m bench.style_operations --device cuda"),
    Part("loading", 20, "{python} -m bench.loading --samples 6400 --turns 3"),
    Part("checkpoint", 20, "{python} -m bench.checkpoint --device cuda"),
    Part("memory", 30, "{python} -m launcher doctor --recipe dcgan-64"),
)


def run_part(part: Part, log: Path, uuid: str) -> Result:
    """Run a part until it ends, or its time is over.

    Args:
        part: to be run.
        log: takes its output. A pipe would stay open as long as anything that the part started holds it.
        uuid: of the GPU to watch meanwhile; empty: none.
    """
    command = part.command.replace("{python}", shlex.quote(current_python()))
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}  # else a late part would have said nothing
    began, late = time.monotonic(), False
    with log.open("wb") as out, watched(uuid, log.with_suffix(".csv")) as usage:
        process = subprocess.Popen(
            ["sh", "-c", f"exec {command}"],  # it tells of a program that is not there, too
            cwd=HOME,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
        try:
            process.wait(part.limit_s)
        except subprocess.TimeoutExpired:
            late = True
        finally:
            with suppress(ProcessLookupError):  # what it started ends with it
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    lines = log.read_text(errors="replace").splitlines()
    passed = process.returncode == 0 and not (part.refuses and any(part.refuses in line for line in lines))
    outcome = "late" if late else "passed" if passed else "failed"
    rest = [line for line in lines if not line.startswith("|")]
    seconds = round(time.monotonic() - began, 1)
    facts = (part.name, command, part.limit_s, outcome, process.returncode, seconds)
    return Result(*facts, usage, rest[-LAST_LINES:], read_tables(lines))


def current_python() -> str:
    """Return the Python of the installation, where that is whole, else the one that runs this."""
    # A node without a network cannot install; its own Python may have all that is needed.
    return str(HOME / ".venv/bin/python") if (HOME / ".venv/.installed").exists() else sys.executable


@contextmanager
def watched(uuid: str, log: Path) -> Iterator[dict[str, tuple[float, float]]]:
    """Ask nvidia-smi twice a second inside, and fill what is yielded at the end."""
    usage: dict[str, tuple[float, float]] = {}
    if not uuid or not shutil.which("nvidia-smi"):
        yield usage
        return
    query = "utilization.gpu,memory.used,power.draw,temperature.gpu"
    command = ["nvidia-smi", "-i", uuid, f"--query-gpu={query}", "--format=csv,noheader,nounits", "-lms", "500"]
    with log.open("wb") as out, subprocess.Popen(command, stdout=out, stderr=out) as process:
        try:
            yield usage
        finally:
            process.kill()
    usage.update(read_usage(log.read_text(errors="replace")))


def run_parts(parts: Sequence[Part], folder: Path) -> int:
    """Run the parts, write the report after each, and return the exit code."""
    folder.mkdir(parents=True, exist_ok=True)
    report, left_s = Report(commit()), 0
    for number, part in enumerate(parts, 1):
        part = replace(part, limit_s=part.limit_s + left_s)
        print(f"{number}/{len(parts)} {part.name}, at most {part.limit_s} s: ", end="", flush=True)
        result = run_part(part, folder / f"{number}.log", str(report.device.get("uuid", "")))
        print(f"{result.outcome} after {result.seconds:.0f} s", flush=True)
        left_s = max(0, int(part.limit_s - result.seconds))
        if part.name == DEVICE and result.exit_code == NO_GPU:
            print(result.last_lines[-1], file=sys.stderr)
            return NO_GPU
        if part.name == DEVICE and result.outcome == "passed":
            report.device = json.loads(result.last_lines[-1])
        report.parts.append(result)
        report.write(folder)
    print(f"report: {folder / 'report.md'} and report.json")
    return int(any(result.outcome != "passed" for result in report.parts))


def commit() -> str:
    """Return the commit of this tree, and whether files differ from it."""
    try:
        found, changed = (
            subprocess.run(["git", "-C", HOME, *words], capture_output=True, text=True, check=True).stdout.strip()
            for words in (("rev-parse", "HEAD"), ("status", "--porcelain"))
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown: no git here"
    return f"{found}, with changes" if changed else found


def gpu_in_sight() -> bool:
    """Tell whether this machine has a GPU, before there is torch to ask."""
    files = any(Path("/dev").glob("nvidia[0-9]*")) or Path("/dev/kfd").exists()
    return files or (
        shutil.which("nvidia-smi") is not None
        and not subprocess.run(["nvidia-smi", "-L"], capture_output=True).returncode
    )


def describe(name: str) -> int:
    """Print what torch finds, as a line of JSON."""
    import torch

    from trainer.distributed.numerical_environment import numerical_environment

    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        print(f"there is no GPU here that torch {torch.__version__} can use: its build or the driver does not fit")
        return NO_GPU
    facts = {"python": sys.version.split()[0]} | numerical_environment(device)
    if device.type == "cuda":
        found = torch.cuda.get_device_properties(0)
        facts |= {"uuid": f"GPU-{found.uuid}", "capability": f"{found.major}.{found.minor}"}
        facts |= {"memory_mib": found.total_memory >> 20, "gpus": torch.cuda.device_count()}
    print(json.dumps(facts))
    return 0


def main(arguments: Sequence[str]) -> int:
    """Run all parts, or describe the device that is named."""
    if arguments[:1] == ["--describe"]:
        return describe(arguments[1])
    if not gpu_in_sight():
        print("there is no GPU here: make gpu needs at least one", file=sys.stderr)
        return NO_GPU
    return run_parts(PARTS, REPORTS)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
