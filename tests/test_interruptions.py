"""Signals, lost processes, NaN and damaged data: what happens, and what is said."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from shards.dataset.index import Index
from tests.conftest import TINY, begin, fingerprint, train
from tests.ranks import start_ranks, train_planted
from tests.test_same_bits import last_images, wait_for_no_process
from trainer.core.stopping import REQUESTS, Outcome
from trainer.runs.run_folder import RunFolder

LONG = ("--total-images", "100000")


def start(folder: Path, data: Path, *settings: str, processes: int = 2) -> subprocess.Popen[str]:
    """Start a run and wait until it has taken steps."""
    command = ("trainer", "train", *TINY, "--run", str(folder), "--data", str(data))
    parent = begin(*command, "--processes", str(processes), *settings, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while last_images(folder) < 64:
        assert parent.poll() is None, parent.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return parent


def events(folder: Path, kind: str) -> list[dict[str, object]]:
    rows = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    return [row for row in rows if row["kind"] == kind]


def children(parent: subprocess.Popen[str]) -> list[int]:
    return [int(pid) for pid in subprocess.check_output(["pgrep", "-P", str(parent.pid)], text=True).split()]


@pytest.mark.parametrize("number", REQUESTS)
def test_a_signal_saves_and_stops(number: signal.Signals, shards32: Path, tmp_path: Path) -> None:
    parent = start(tmp_path / "run", shards32, *LONG)
    parent.send_signal(number)
    said = parent.communicate(timeout=60)[1]
    assert parent.returncode == 75, said
    assert "interrupted and saved" in said
    assert "Traceback" not in said
    seen, _ = fingerprint(tmp_path / "run")
    assert seen >= last_images(tmp_path / "run")
    assert events(tmp_path / "run", "end")[-1]["outcome"] == "interrupted"


def test_one_process_that_is_asked_stops_all(shards32: Path, tmp_path: Path) -> None:
    """As a cluster may signal one node only."""
    parent = start(tmp_path / "run", shards32, *LONG)
    os.kill(children(parent)[-1], signal.SIGTERM)
    said = parent.communicate(timeout=60)[1]
    assert parent.returncode == 75, said


def test_a_stop_leaves_no_row_behind_where_scalars_come_late(shards32: Path, tmp_path: Path) -> None:
    """As on a GPU, where the row that carries the stop is that of the step before the last."""
    folder = tmp_path / "run"
    rank = start_ranks(RunFolder(folder), 1, *TINY, "--data", str(shards32), *LONG, mistake="late_scalars")
    deadline = time.monotonic() + 120
    while last_images(folder) < 64:
        assert not rank.ended()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    rank.processes[0].send_signal(signal.SIGTERM)
    assert rank.wait() == [Outcome.INTERRUPTED]
    assert fingerprint(folder)[0] == last_images(folder)


def test_a_second_interrupt_stops_at_once(shards32: Path, tmp_path: Path) -> None:
    parent = start(tmp_path / "run", shards32, *LONG)
    while parent.poll() is None:  # an impatient user: signals that come too close together count as one
        parent.send_signal(signal.SIGINT)
        time.sleep(0.02)
    parent.communicate()
    assert parent.returncode == 130
    wait_for_no_process(tmp_path / "run")
    seen, _ = fingerprint(tmp_path / "run")  # the last durable checkpoint serves
    train(tmp_path / "run", shards32, "--total-images", str(seen + 32))


def test_a_process_that_dies_ends_the_run_with_a_message(shards32: Path, tmp_path: Path) -> None:
    parent = start(tmp_path / "run", shards32, *LONG)
    os.kill(children(parent)[-1], signal.SIGKILL)
    said = parent.communicate(timeout=90)[1]
    assert parent.returncode == 1
    assert "process 1 was killed by SIGKILL" in said
    assert "launcher resume" in said
    assert "Traceback" not in said
    wait_for_no_process(tmp_path / "run")
    total = fingerprint(tmp_path / "run")[0] + 64  # wherever it was killed, there is something left to train
    for name in ("run", "undisturbed"):
        train(tmp_path / name, shards32, "--total-images", str(total))
    assert fingerprint(tmp_path / "run") == fingerprint(tmp_path / "undisturbed")
    assert fingerprint(tmp_path / "run")[0] == total


@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_stands_still_is_named(rank: int, shards32: Path, tmp_path: Path) -> None:
    """SIGSTOP: it holds its connections, and so nothing but its silence tells."""
    folder = tmp_path / "run"
    parent = start(folder, shards32, *LONG, "--stall-after-s", "4")
    os.kill(children(parent)[rank], signal.SIGSTOP)
    said = parent.communicate(timeout=120)[1]
    assert parent.returncode == 1, said
    assert f"stalled: no step for 4 s: rank {rank} on this machine gives no sign of life" in said
    assert "reduction.py" in said, "the stack of the one that waits"
    assert [e["places"] for e in events(folder, "stalled")] == [["this machine"]]
    wait_for_no_process(folder)


def test_two_runs_in_one_folder_are_refused(shards32: Path, tmp_path: Path) -> None:
    parent = start(tmp_path / "run", shards32, *LONG)
    said = train(tmp_path / "run", shards32, expect=2)
    assert "another process trains in" in said
    parent.send_signal(signal.SIGTERM)
    parent.communicate(timeout=60)
    assert parent.returncode == 75


def test_nan_rolls_back_with_other_draws_and_the_same_bits(shards32: Path, tmp_path: Path) -> None:
    """One step is poisoned. Both world sizes go back to the same checkpoint and on to the same end."""
    prints = set()
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        train_planted("nan_once", folder, shards32, processes, "--total-images", "256", "--anchor-every-images", "128")
        assert [(e["from"], e["to"]) for e in events(folder, "rollback")] == [(224, 128)]
        assert len(json.loads((folder / "wandb.json").read_text())["segments"]) == 2
        rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        assert [row["images_seen"] for row in rows] == list(range(32, 288, 32))
        prints.add(fingerprint(folder))
    assert len(prints) == 1
    train(tmp_path / "undisturbed", shards32, "--total-images", "256")
    assert fingerprint(tmp_path / "undisturbed") not in prints


def test_nan_that_comes_back_stops_the_run(shards32: Path, tmp_path: Path) -> None:
    said = train(tmp_path / "run", shards32, "--optimizer.g-lr", "1e30", "--max-rollbacks", "2", expect=1)
    assert "after 2 rollbacks" in said
    assert "Traceback" not in said
    assert len(events(tmp_path / "run", "rollback")) == 2
    assert events(tmp_path / "run", "end")[-1]["outcome"] == "failed"


def damage(data: Path, folder: Path, samples: list[int]) -> Path:
    """Copy shards and flip one byte in each of these training samples."""
    shutil.copytree(data, folder)
    index = Index.open(folder)
    train_split = index.splits["train"]
    for sample in samples:
        shard, within = 0, sample
        while within >= train_split.shards[shard].samples:
            within -= train_split.shards[shard].samples
            shard += 1
        with (folder / train_split.shards[shard].name).open("r+b") as file:
            place = int(index.table[sample]["offset"]) + 500
            file.seek(place)
            byte = file.read(1)[0]
            file.seek(place)
            file.write(bytes([byte ^ 1]))
    return folder


def test_a_damaged_sample_is_replaced_the_same_way_everywhere(shards32: Path, tmp_path: Path) -> None:
    """Samples 7 and 8 are damaged, so both become 9; reported once, although each epoch meets them again."""
    data = damage(shards32, tmp_path / "data", [7, 8])
    n = Index.open(data).splits["train"].samples
    settings = ("--total-images", str(2 * n), "--record-samples")
    for processes in (1, 3):
        said = train(tmp_path / str(processes), data, *settings, processes=processes)
        assert said.count("sample 7 is damaged") == 1
        assert said.count("sample 8 is damaged") == 1
        assert {e["sample"] for e in events(tmp_path / str(processes), "damaged sample")} == {7, 8}
        pairs = set()
        for file in (tmp_path / str(processes) / "plan").iterdir():
            for line in file.read_text().splitlines():
                row = json.loads(line)
                pairs |= {(p, u) for p, u in zip(row["planned"], row["used"], strict=True) if p != u}
        assert pairs == {(7, 9), (8, 9)}
    assert fingerprint(tmp_path / "1") == fingerprint(tmp_path / "3")


@pytest.mark.parametrize("harm", ["flipped", "truncated", "missing"])
def test_a_damaged_checkpoint_is_walked_back(harm: str, shards32: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    train(folder, shards32, "--total-images", "256")
    newest = folder / "checkpoints" / "000000000256-r00" / "state.safetensors"
    data = bytearray(newest.read_bytes())
    if harm == "missing":
        newest.unlink()
    else:
        data[len(data) // 2] ^= 1
        newest.write_bytes(data[:-9] if harm == "truncated" else data)
    said = train(folder, shards32, "--total-images", "320", processes=2)
    assert "000000000256-r00 is damaged" in said
    assert "resuming at 128 images" in said
    assert (folder / "checkpoints" / "damaged-000000000256-r00-1").is_dir()
    assert events(folder, "damaged checkpoint")
    train(tmp_path / "undisturbed", shards32, "--total-images", "320")
    assert fingerprint(folder) == fingerprint(tmp_path / "undisturbed")
    assert (folder / "metrics.jsonl").read_bytes() == (tmp_path / "undisturbed" / "metrics.jsonl").read_bytes()
