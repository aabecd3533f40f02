"""The trainer itself, with W&B online, killed twice and resumed: one history without gaps, doubles or zigzags."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.conftest import TINY, begin, train
from tests.ranks import train_planted
from tests.test_same_bits import last_images, wait_for_no_process
from tests.wandb_server import WandbServer

ONLINE = ("--tracking.mode", "online", "--sample-every-images", "320")


def history(server: WandbServer, folder: Path) -> list[dict[str, float]]:
    """Return the rows of metrics that the server holds."""
    identity = json.loads((folder / "wandb.json").read_text())["segments"][0]["id"]
    return [row for row in server.history(identity) if "loss_d" in row]


def test_a_run_killed_twice_has_one_history(shards32: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "run"
    monkeypatch.setenv("WANDB__FILE_STREAM_TRANSMIT_INTERVAL", "1")
    with WandbServer() as server:
        server.use(monkeypatch)
        for moment, processes in ((160, 2), (352, 3)):
            kill_everything_at(folder, shards32, moment, processes)
        train(folder, shards32, "--total-images", "640", *ONLINE, processes=1)
        rows = history(server, folder)
        assert not server.unknown
    assert [row["images_seen"] for row in rows] == list(range(32, 672, 32))
    recorded = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for mirrored, kept in zip(rows, recorded, strict=True):
        assert {key: mirrored[key] for key in kept} == kept
    train(tmp_path / "undisturbed", shards32, "--total-images", "640", "--sample-every-images", "320")
    assert (tmp_path / "undisturbed" / "metrics.jsonl").read_bytes() == (folder / "metrics.jsonl").read_bytes()


def test_a_collapse_is_alerted_once_with_its_picture(
    shards32: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    monkeypatch.setenv("WANDB__FILE_STREAM_TRANSMIT_INTERVAL", "1")
    settings = (*ONLINE, "--collapse.every-images", "32")
    with WandbServer() as server:
        server.use(monkeypatch)
        for total in ("256", "320"):  # the second time, the mirror begins anew after the alarm
            train_planted("collapse_once", folder, shards32, 1, *settings, "--total-images", total)
        (stored,) = server.runs.values()
        assert not server.unknown
    (alert,) = stored.alerts
    assert (alert["title"], alert["severity"]) == ("The generator has collapsed", "ERROR")
    assert "of its own best variety" in alert["text"]
    assert "after 192 images" in alert["text"]
    pictures = [json.loads(line) for line in stored.lines["wandb-history.jsonl"] if "collapse/picture" in line]
    assert [row["collapse/health"] for row in pictures] == [2]
    assert (folder / "samples" / "alarm-000000000192-r00.png").read_bytes() == stored.media[
        pictures[0]["collapse/picture"]["path"]
    ]


def kill_everything_at(folder: Path, data: Path, images: int, processes: int) -> None:
    """Train, and SIGKILL parent, processes and mirror at once."""
    command = ("trainer", "train", *TINY, "--run", str(folder), "--data", str(data), *ONLINE)
    parent = begin(*command, "--total-images", "640", "--processes", str(processes), stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while last_images(folder) < images:
        assert parent.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    subprocess.run(["pkill", "-KILL", "-f", str(folder)], check=False)
    assert parent.wait() == -signal.SIGKILL
    wait_for_no_process(folder)
