"""Pictures that end the worker process, and workers that die for other reasons: what is left out, and what is not.

The decoder of these builds looks behind the end of each JPEG for a word that says how it is to fail.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import HOME
from tests.made_sources import jpeg
from tests.test_shards_decode import png_of

PLANTED = """
import os, signal, sys
from pathlib import Path
import shards.building.shard, shards.building.workers
real_decode, real_work = shards.building.shard.decode_image, shards.building.workers.run_worker
folder = Path(sys.argv[0]).parent

def first(name):
    try:
        (folder / name).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True

def others():
    parent = os.getppid()
    return len(Path(f"/proc/{parent}/task/{parent}/children").read_text().split()) > 2  # this one, and Python's tracker

def decode(data, settings, frames=None):
    word = data.rpartition(b"\\xff\\xd9")[2].decode()
    with (folder / "decoded").open("a") as log:
        log.write(word + "\\n")
    if word.startswith("SIG"):
        os.kill(os.getpid(), getattr(signal, word))
    if word == "exit":
        os._exit(3)
    if word == "memory":
        raise MemoryError
    while word == "hang":
        pass
    if word == "once" and first("once"):
        os.kill(os.getpid(), signal.SIGKILL)
    if word == "stranger" and first("stranger"):
        os.kill(os.getpid(), signal.SIGALRM)
    if word == "crowd" and others():
        os.kill(os.getpid(), signal.SIGKILL)
    return real_decode(data, settings, frames)

def run_worker(connection, options, done):
    shards.building.shard.decode_image = decode
    if (folder / "no start").exists():
        os._exit(1)
    real_work(connection, options, done)

shards.building.workers.run_worker, shards.building.workers.MAX_CPU_S = run_worker, 1.0
if (folder / "few").exists():
    import shards.building.make_shards
    shards.building.make_shards.MAX_LEFT_OUT = 3, 0.01
if __name__ == "__main__":
    from shards.__main__ import main
    sys.exit(main(sys.argv[1:]))
"""
OPTIONS = ("--size", "16", "--shard-samples", "10", "--holdout", "0.2")
WORDS = {
    "SIGSEGV": ("kills_worker", "its process was ended by SIGSEGV"),
    "SIGKILL": ("kills_worker", "its process was ended by SIGKILL, as when memory runs out"),
    "exit": ("kills_worker", "its process ended with exit code 3"),
    "memory": ("out_of_memory", "its process ran out of memory"),
    "hang": ("too_slow", "its process had computed for 1 s"),
}

PLACES = (3, 4, 17, 31, 49)  # of those words


def make_source(folder: Path, words: dict[int, str]) -> Path:
    folder.mkdir()
    for i in range(50):
        (folder / f"{i:04d}.jpg").write_bytes(jpeg(i) + words.get(i, "").encode())
    return folder


def command(tmp_path: Path, source: Path, out: Path, *args: str) -> list[str]:
    program = tmp_path / "program.py"
    program.write_text(PLANTED)
    return [sys.executable, str(program), "build", str(source), "--out", str(out), *OPTIONS, *args]


def build(tmp_path: Path, source: Path, out: Path, *args: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(HOME)}
    arguments = command(tmp_path, source, out, *args)
    return subprocess.run(arguments, cwd=HOME, env=environment, capture_output=True, text=True, timeout=100)


def excluded(out: Path) -> dict[str, tuple[str, str]]:
    lines = map(json.loads, (out / "excluded.jsonl").read_text().splitlines())
    return {line["file"]: (line["reason"], line["detail"]) for line in lines}


def files(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.iterdir()}


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    path.touch()
    try:
        yield
    finally:
        path.unlink()


@pytest.fixture(scope="module")
def deadly(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a source with each way to die, two of them in one shard."""
    words = dict(zip(PLACES, WORDS, strict=True))
    return make_source(tmp_path_factory.mktemp("deadly") / "source", words)


@pytest.fixture(scope="module")
def built(deadly: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the shards as one worker makes them."""
    folder = tmp_path_factory.mktemp("built")
    done = build(folder, deadly, folder / "out", "--workers", "1")
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "3  kills_worker: " in done.stdout
    for word in ("SIGSEGV", "SIGKILL", "exit code 3", "ran out of memory", "had computed"):
        assert word in done.stderr
    tried = (folder / "decoded").read_text().split()
    assert all(tried.count(word) == 2 for word in WORDS), "a second try, and no third"
    return folder / "out"


def test_pictures_that_end_the_worker_are_left_out(built: Path) -> None:
    assert excluded(built) == {f"{i:04d}.jpg": why for i, why in zip(PLACES, WORDS.values(), strict=True)}
    content = json.loads((built / "index.json").read_text())
    assert sum(split["samples"] for split in content["splits"].values()) == 45
    names = sorted(path.name for path in built.iterdir() if path.suffix != ".tar")
    assert names == ["card.html", "card.md", "excluded.jsonl", "index.json", "table.npy"]


def test_workers_change_no_byte_of_it(deadly: Path, built: Path, tmp_path: Path) -> None:
    assert build(tmp_path, deadly, tmp_path / "out", "--workers", "3").returncode == 0
    assert files(tmp_path / "out") == files(built)


def test_what_was_learnt_survives_a_kill(deadly: Path, built: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    environment = os.environ | {"PYTHONPATH": str(HOME)}
    process = subprocess.Popen(
        command(tmp_path, deadly, out, "--workers", "2"), cwd=HOME, env=environment, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr
    with process.stderr:
        told = next(line for line in process.stderr if "the picture is left out" in line)  # of the first one
        process.kill()
    process.wait()
    known = next(word for place, word in zip(PLACES, WORDS, strict=True) if f"{place:04d}.jpg" in told)
    log = tmp_path / "decoded"
    log.unlink()
    assert build(tmp_path, deadly, out, "--workers", "1", "--resume").returncode == 0
    assert known not in log.read_text().split(), "a picture that is known to be deadly was opened again"
    assert files(out) == files(built)


@pytest.mark.parametrize(("word", "workers"), [("once", "1"), ("once", "2"), ("stranger", "2"), ("crowd", "2")])
def test_a_good_picture_at_which_a_worker_died_is_taken(tmp_path: Path, word: str, workers: str) -> None:
    """It was killed by a person, by a signal that no picture sends, or as memory was too little for several workers."""
    source, out = make_source(tmp_path / "source", {13: word}), tmp_path / "out"
    done = build(tmp_path, source, out, "--workers", workers)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("worker process") == 1
    assert excluded(out) == {}
    content = json.loads((out / "index.json").read_text())
    assert sum(split["samples"] for split in content["splits"].values()) == 50


def test_a_machine_without_memory_ends_the_build_and_excludes_nothing(tmp_path: Path) -> None:
    source, out = make_source(tmp_path / "source", {}), tmp_path / "out"
    with held(tmp_path / "no start"):
        done = build(tmp_path, source, out, "--workers", "2")
    assert done.returncode == 75
    assert "see that the machine has memory left" in done.stderr.splitlines()[-1]
    assert "--resume goes on" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert build(tmp_path, source, out, "--workers", "1", "--resume").returncode == 0  # as it was told, with fewer
    assert excluded(out) == {}


def test_so_many_deadly_pictures_are_a_fault_of_the_machine(tmp_path: Path) -> None:
    """`--resume goes on` after the bound, which counts those of one attempt."""
    source, out = make_source(tmp_path / "source", dict.fromkeys(range(4), "exit")), tmp_path / "out"
    (tmp_path / "few").touch()
    done = build(tmp_path, source, out, "--workers", "1")
    assert done.returncode == 75
    assert "after 3 others" in done.stderr
    assert build(tmp_path, source, out, "--workers", "1", "--resume").returncode == 0
    assert len(excluded(out)) == 4


def test_a_real_picture_that_needs_more_memory_than_there_is(tmp_path: Path) -> None:
    source = make_source(tmp_path / "source", {})
    (source / "large.png").write_bytes(png_of(60_000, 60_000, b""))
    arguments = [sys.executable, "-m", "shards", "build", str(source), "--out", str(tmp_path / "out"), *OPTIONS]
    done = subprocess.run(
        [*arguments, "--workers", "2", "--max-pixels", str(1 << 32)],
        cwd=HOME,
        env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30)),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert excluded(tmp_path / "out") == {"large.png": ("out_of_memory", "its process ran out of memory")}


def test_a_kill_from_outside_at_a_good_picture(tmp_path: Path) -> None:
    source, out = make_source(tmp_path / "source", {}), tmp_path / "out"
    (source / "slow.png").write_bytes(png_of(16_000, 11_000, bytes(16_001 * 11_000)))
    arguments = [sys.executable, "-m", "shards", "build", str(source), "--out", str(out), *OPTIONS, "--workers", "2"]
    process = subprocess.Popen(arguments, cwd=HOME, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while not (large := [pid for pid in children.read_text().split() if resident(pid) > 120_000]):
        assert process.poll() is None
        time.sleep(0.005)
    os.kill(int(large[0]), signal.SIGKILL)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "was ended by SIGKILL" in err
    assert excluded(out) == {}


def resident(pid: str) -> int:
    """Return the memory of a process, in kB."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:")), 0)
