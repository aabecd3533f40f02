"""Training from a bucket gives the bits of training from the same shards on a local disk, whatever the bucket does."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from tests.conftest import HOME, TINY, command_server, fingerprint
from tests.s3_server import Bucket, Fault, serve_bucket
from tests.slurm_cluster import wait_for

AWAY_S = 3.0  # the server; the acceptance of a release takes 20
SETTINGS = (*TINY, "--total-images", "640", "--order-window", "2")


@pytest.fixture(scope="module")
def bucket(shards32: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bucket]:
    with serve_bucket(tmp_path_factory.mktemp("s3") / "buckets") as served:
        shutil.copytree(shards32, served.root / "set")
        yield served


@contextmanager
def disk_of(folder: Path, size: int) -> Iterator[None]:
    """Put a file system of so many bytes at a folder."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture(autouse=True)
def healthy(bucket: Bucket) -> None:
    bucket.proxy.fault = Fault()
    bucket.proxy.requests.clear()


@pytest.fixture(scope="module")
def local(shards32: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[int, str]:
    """The fingerprint of training on the local disk."""
    folder = tmp_path_factory.mktemp("local") / "run"
    assert train(folder, str(shards32)).wait() == 0
    return fingerprint(folder)


def train(
    folder: Path, data: str, *settings: str, bucket: Bucket | None = None, cache: Path | None = None
) -> subprocess.Popen[str]:
    """Begin or go on training."""
    command = ["trainer", "train", *SETTINGS, "--run", str(folder), "--data", data]
    command += ["--cache", str(cache)] if cache else []
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    environment |= bucket.environment if bucket else {}
    if "--processes" not in settings:
        settings = (*settings, "--processes", "1")
    log = folder.with_suffix(".log").open("a")
    with log:
        streams = {"stdout": log, "stderr": log, "start_new_session": True}
        return command_server().begin([*command, *settings], HOME, environment, **streams)


def ends_like(local: tuple[int, str], folder: Path, process: subprocess.Popen[str]) -> None:
    assert process.wait(timeout=200) == 0, folder.with_suffix(".log").read_text()
    assert fingerprint(folder) == local


def test_on_one_process_each_shard_comes_once(bucket: Bucket, local: tuple[int, str], tmp_path: Path) -> None:
    run, cache = tmp_path / "run", tmp_path / "cache"
    ends_like(local, run, train(run, f"{bucket.url}/set", bucket=bucket, cache=cache))
    shards = [path for _, path, _ in bucket.proxy.requests if "train-" in path]
    assert len(shards) == len({*shards}) == 5
    assert not [*cache.glob("*.part"), *cache.glob("*.sparse")]
    assert json.loads((run / "config.json").read_text())["data"] == f"{bucket.url}/set"


def test_on_two_processes_through_all_faults(bucket: Bucket, local: tuple[int, str], tmp_path: Path) -> None:
    run = tmp_path / "run"
    training = train(run, f"{bucket.url}/set", "--processes", "2", bucket=bucket, cache=tmp_path / "cache")
    faults = [Fault(status=503, times=2), Fault(cut_after=100_000, times=2), Fault(status=429, times=1)]
    faults += [Fault(corrupt_at=150_000, times=1, only="train-"), Fault(delay_s=0.2, bytes_per_s=1e6, times=4)]
    gone = False
    while training.poll() is None:
        bucket.proxy.fault = replace(random.Random(len(bucket.proxy.requests)).choice(faults), bytes_per_s=5e5)
        time.sleep(0.2)
        if not gone and sum("train-" in path for _, path, _ in bucket.proxy.requests) > 1:
            gone = True
            bucket.proxy.disappear()
            time.sleep(3)
            bucket.proxy.appear()
            # A copy that somebody's disk has damaged meanwhile.
            for copy in (tmp_path / "cache").glob("?" * 64):
                if copy.stat().st_size > 300_000:
                    content = copy.read_bytes()
                    copy.write_bytes(content[:150_000] + bytes(100_000) + content[250_000:])
    assert gone
    ends_like(local, run, training)


def test_on_four_processes_with_a_full_cache_disk_and_a_server_that_is_away(
    bucket: Bucket, local: tuple[int, str], tmp_path: Path
) -> None:
    """The disk has room for one shard, and for none at times; the run is killed in the middle, and goes on with two."""
    with disk_of(tmp_path / "cache", 2 * max(path.stat().st_size for path in (bucket.root / "set").glob("*.tar"))):
        for processes in ("4", "2"):
            bucket.proxy.fault = Fault(bytes_per_s=4e5)
            bucket.proxy.requests.clear()
            (tmp_path / "cache" / "of others").write_bytes(bytes(200_000))
            run = train(
                tmp_path / "run", f"{bucket.url}/set", "--processes", processes, bucket=bucket, cache=tmp_path / "cache"
            )
            wait_for(lambda: sum("/train-" in path for _, path, _ in bucket.proxy.requests) > 2, timeout_s=60)
            bucket.proxy.disappear()
            time.sleep(AWAY_S)
            bucket.proxy.appear()
            (tmp_path / "cache" / "of others").unlink()
            if processes == "4":
                time.sleep(1)
                os.killpg(run.pid, signal.SIGKILL)
                run.wait()
        bucket.proxy.fault = Fault()
        ends_like(local, tmp_path / "run", run)


def test_two_jobs_that_share_a_cache_are_killed_and_go_on(
    bucket: Bucket, local: tuple[int, str], tmp_path: Path
) -> None:
    bucket.proxy.fault = Fault(bytes_per_s=4e5)
    for again in range(2):
        begun = {
            name: train(tmp_path / name, f"{bucket.url}/set", bucket=bucket, cache=tmp_path / "cache")
            for name in ("a", "b")
        }
        if not again:
            wait_for(lambda: any("/train-" in path for _, path, _ in bucket.proxy.requests), timeout_s=60)
            time.sleep(1)
            for process in begun.values():
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            bucket.proxy.fault = Fault()
    for name, process in begun.items():
        ends_like(local, tmp_path / name, process)


def test_a_bucket_that_stays_away_ends_the_run(bucket: Bucket, local: tuple[int, str], tmp_path: Path) -> None:
    """It is no damage: nothing is replaced, and the same command goes on later."""
    bucket.proxy.fault = Fault(status=503, only="train-")
    training = train(
        tmp_path / "run", f"{bucket.url}/set", "--stall-after-s", "4", bucket=bucket, cache=tmp_path / "cache"
    )
    assert training.wait(timeout=100) == 1
    said = (tmp_path / "run.log").read_text()
    assert "Traceback" not in said
    assert "s3://pictures/set/train-" in said
    assert "(status 503): check the network and the server, then run the same command again" in said
    assert "damaged" not in said
    bucket.proxy.fault = Fault()
    again = train(
        tmp_path / "run", f"{bucket.url}/set", "--stall-after-s", "300", bucket=bucket, cache=tmp_path / "cache"
    )
    ends_like(local, tmp_path / "run", again)
