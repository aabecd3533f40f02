"""Training from a bucket gives the bits of training from the same shards on a local disk, whatever the bucket does."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import HOME, TINY, fingerprint
from tests.s3_server import Bucket, Fault, serve_bucket

WINDOW = ("--order-window", "2")
IMAGES = ("--total-images", "640")


@pytest.fixture(scope="module")
def bucket(shards32: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bucket]:
    with serve_bucket(tmp_path_factory.mktemp("s3") / "buckets") as served:
        shutil.copytree(shards32, served.root / "set")
        yield served


@pytest.fixture(autouse=True)
def healthy(bucket: Bucket) -> None:
    bucket.proxy.fault = Fault()
    bucket.proxy.requests.clear()


@pytest.fixture(scope="module")
def local(shards32: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str]]:
    """The fingerprints of training on the local disk, by window."""
    found = {}
    for name, window in (("window", WINDOW), ("all", ())):
        folder = tmp_path_factory.mktemp("local") / name
        assert train(folder, str(shards32), *window).wait() == 0
        found[name] = fingerprint(folder)
    return found


def train(
    folder: Path, data: str, *settings: str, bucket: Bucket | None = None, cache: Path | None = None
) -> subprocess.Popen[str]:
    """Begin or go on training."""
    command = [sys.executable, "-m", "trainer", "train", *TINY, *IMAGES, "--run", str(folder), "--data", data]
    command += ["--cache", str(cache)] if cache else []
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    environment |= bucket.environment if bucket else {}
    if "--processes" not in settings:
        settings = (*settings, "--processes", "1")
    log = folder.with_suffix(".log").open("a")
    with log:
        return subprocess.Popen([*command, *settings], cwd=HOME, env=environment, stdout=log, stderr=log, text=True)


def ends_like(local: tuple[int, str], folder: Path, process: subprocess.Popen[str]) -> None:
    assert process.wait(timeout=200) == 0, folder.with_suffix(".log").read_text()
    assert fingerprint(folder) == local


@pytest.mark.parametrize("processes", ["1", "2"])
def test_the_bits_are_those_of_local_training(
    processes: str, bucket: Bucket, local: dict[str, tuple[int, str]], tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    settings = (*WINDOW, "--processes", processes)
    ends_like(
        local["window"],
        tmp_path / "a",
        train(tmp_path / "a", f"{bucket.url}/set", *settings, bucket=bucket, cache=cache),
    )
    shards = [path for _, path, _ in bucket.proxy.requests if "train-" in path]
    # Each shard came once, whole, whatever the number of processes.
    assert sorted(shards) == sorted({*shards})
    assert not [*cache.glob("*.part"), *cache.glob("*.sparse")]
