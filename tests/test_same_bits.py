"""The promise: any number of processes, any interruption, the same bits."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from shards.dataset.index import Index
from tests.conftest import TINY, begin, fingerprint, run, train
from tests.ranks import train_planted

TOTAL = 640  # twenty steps, more than one epoch


@pytest.fixture(scope="module")
def undisturbed(shards32: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one process that nothing disturbs."""
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    train(folder, shards32, "--total-images", str(TOTAL), "--record-samples")
    return folder


def recorded(folder: Path) -> dict[tuple[int, int], list[list[int]]]:
    """Return the planned and used samples of each micro-batch; all processes and attempts must agree."""
    found: dict[tuple[int, int], list[list[int]]] = {}
    for file in sorted((folder / "plan").iterdir()):
        for line in file.read_text().splitlines():
            row = json.loads(line)
            key, value = (row["images_seen"], row["micro_batch"]), [row["planned"], row["used"]]
            assert found.setdefault(key, value) == value, "an attempt saw other samples than another"
    return found


@pytest.mark.parametrize("processes", [2, 3, 4])
def test_any_number_of_processes(processes: int, undisturbed: Path, shards32: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    workers = str(processes - 2)  # in line, and by one thread or two
    settings = ("--total-images", str(TOTAL), "--record-samples", "--workers", workers)
    train(folder, shards32, *settings, processes=processes)
    assert fingerprint(folder) == fingerprint(undisturbed)
    assert (folder / "metrics.jsonl").read_bytes() == (undisturbed / "metrics.jsonl").read_bytes()
    assert recorded(folder) == recorded(undisturbed)


def test_three_kills_each_resumed_on_another_number(undisturbed: Path, shards32: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    chance = random.Random(20)
    moments = sorted(chance.sample(range(64, TOTAL - 64), 3))
    for moment, processes in zip(moments, (2, 4, 3), strict=True):
        kill_at(folder, shards32, moment, processes)
    train(folder, shards32, "--total-images", str(TOTAL), "--record-samples", processes=1)
    assert fingerprint(folder) == fingerprint(undisturbed)
    assert (folder / "metrics.jsonl").read_bytes() == (undisturbed / "metrics.jsonl").read_bytes()
    assert recorded(folder) == recorded(undisturbed)


def kill_at(folder: Path, data: Path, images: int, processes: int, *settings: str) -> None:
    """Start or resume a run, and SIGKILL the parent, and so all of it, when it has seen so many pictures."""
    command = ["trainer", "train", *TINY, "--run", str(folder), "--data", str(data)]
    command += ["--total-images", str(TOTAL), "--record-samples", "--processes", str(processes), *settings]
    parent = begin(*command, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while last_images(folder) < images:
        assert parent.poll() is None, "the run has ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    wait_for_no_process(folder)


def last_images(folder: Path) -> int:
    """Return how many pictures the last row of metrics stands for."""
    try:
        lines = (folder / "metrics.jsonl").read_bytes().split(b"\n")
        return int(json.loads(lines[-2])["images_seen"]) if len(lines) > 1 else 0
    except FileNotFoundError:
        return 0


def wait_for_no_process(folder: Path) -> None:
    """Wait until no process of a run is left."""
    deadline = time.monotonic() + 20
    while subprocess.run(["pgrep", "-f", str(folder)], stdout=subprocess.DEVNULL, check=False).returncode == 0:
        assert time.monotonic() < deadline, "a process has outlived its parent"
        time.sleep(0.05)


def test_each_epoch_is_a_permutation_of_the_training_set(undisturbed: Path, shards32: Path) -> None:
    n = Index.open(shards32).splits["train"].samples
    assert n < TOTAL, "less than an epoch would show nothing"
    stream = [sample for _, (planned, _) in sorted(recorded(undisturbed).items()) for sample in planned]
    assert sorted(stream[:n]) == list(range(n))
    assert len(set(stream[n:])) == TOTAL - n
    assert all(planned == used for planned, used in recorded(undisturbed).values())


def test_the_fingerprint_tells_runs_apart(undisturbed: Path, shards32: Path, tmp_path: Path) -> None:
    """Else equality would mean nothing: another seed, and the same run a step earlier, are other bits."""
    train(tmp_path / "seed", shards32, "--total-images", str(TOTAL), "--seed", "1")
    seen, digest = fingerprint(undisturbed)
    assert seen == TOTAL
    assert fingerprint(tmp_path / "seed")[1] != digest
    train(tmp_path / "short", shards32, "--total-images", "32")
    begun = fingerprint(tmp_path / "short")
    assert begun[0] == 32
    assert begun[1] != digest
    # The same run, extended: total_images is operational.
    train(tmp_path / "short", shards32, "--total-images", str(TOTAL), processes=2)
    assert fingerprint(tmp_path / "short") == (seen, digest)


def test_bf16_and_odd_shares(shards32: Path, tmp_path: Path) -> None:
    """Eight micro-batches on three processes: shares of 2, 3 and 3, none of them whole subtrees only."""
    settings = [
        *("--micro-batch-size", "4", "--mixed-precision", "bf16", "--total-images", "192"),
        *("--d-steps", "2", "--order-window", "2", "--objective", "hinge"),
    ]
    prints = defaultdict(list)
    for processes in (1, 3):
        train(tmp_path / str(processes), shards32, *settings, processes=processes)
        prints[fingerprint(tmp_path / str(processes))].append(processes)
    assert list(prints.values()) == [[1, 3]]


def planted(mistake: str, folder: Path, data: Path, processes: int, *settings: str) -> tuple[int, str]:
    """Train with a mistake planted, and return the fingerprint."""
    train_planted(mistake, folder, data, processes, *settings)
    return fingerprint(folder)


@pytest.mark.parametrize("mistake", ["reduction_order", "draw_by_rank", "live_statistics"])
def test_a_planted_mistake_turns_world_sizes_red(mistake: str, shards32: Path, tmp_path: Path) -> None:
    prints = {planted(mistake, tmp_path / str(p), shards32, p, "--total-images", "96") for p in (1, 3)}
    assert len(prints) == 2, "the fingerprint does not see this mistake"


@pytest.mark.parametrize("mistake", ["lost_buffer", "lost_average"])
def test_a_planted_mistake_turns_resuming_red(mistake: str, shards32: Path, tmp_path: Path) -> None:
    train(tmp_path / "whole", shards32, "--total-images", "128")
    train(tmp_path / "parts", shards32, "--total-images", "64")
    assert planted(mistake, tmp_path / "parts", shards32, 1, "--total-images", "128") != fingerprint(tmp_path / "whole")


def test_torchrun_is_another_door_to_the_same_run(undisturbed: Path, shards32: Path, tmp_path: Path) -> None:
    done = run(
        *("torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "--", "trainer", "train"),
        *(*TINY, "--run", str(tmp_path / "run"), "--data", str(shards32), "--total-images", str(TOTAL)),
    )
    assert done.returncode == 0, done.stderr
    assert fingerprint(tmp_path / "run") == fingerprint(undisturbed)


def test_accelerate_is_another_door_to_the_same_run(undisturbed: Path, shards32: Path, tmp_path: Path) -> None:
    done = run(
        *("accelerate.commands.launch", "--cpu", "--num_processes", "1", "-m", "trainer", "train", *TINY),
        *("--run", str(tmp_path / "run"), "--data", str(shards32), "--total-images", str(TOTAL)),
    )
    assert done.returncode == 0, done.stderr
    assert fingerprint(tmp_path / "run") == fingerprint(undisturbed)


def test_ddp_trains_and_repeats_itself(shards32: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        train(tmp_path / name, shards32, "--reduction", "ddp", "--total-images", "96", processes=2)
    assert fingerprint(tmp_path / "a") == fingerprint(tmp_path / "b")
    exact = train(tmp_path / "exact", shards32, "--total-images", "96", processes=2)
    rows = [json.loads((tmp_path / n / "metrics.jsonl").read_text().splitlines()[-1]) for n in ("a", "exact")]
    assert np.isclose(rows[0]["loss_d"], rows[1]["loss_d"], rtol=0.05), exact
