"""Samples from a bucket are those of the local shards: with a cache, without one, damaged, full, shared and killed."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import webdataset

from shards.dataset import remote_shards, remote_table
from shards.dataset.cache_settings import CacheSettings
from shards.dataset.file_cache import PART, FileCache, Filled, Needs
from shards.dataset.index import DataError, Index
from shards.dataset.order import Order
from shards.dataset.shard_plan import shards_to_copy
from shards.dataset.stream import Reader
from shards.storage.errors import Unreachable
from shards.storage.place import parse_place
from tests.conftest import HOME, run
from tests.s3_server import RCLONE, Bucket, Fault, serve_bucket

ORDER_WINDOW = 2


@pytest.fixture(scope="module")
def served(shards32: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bucket]:
    with serve_bucket(tmp_path_factory.mktemp("s3") / "buckets") as bucket:
        yield bucket


@pytest.fixture
def bucket(served: Bucket, shards32: Path, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """A bucket with an intact dataset."""
    served.proxy.fault = Fault()
    for name, value in served.environment.items():
        monkeypatch.setenv(name, value)
    shutil.rmtree(served.root / "set", ignore_errors=True)
    shutil.copytree(shards32, served.root / "set")
    time.sleep(0.05)  # the server looks into its folder again after 20 ms
    served.proxy.requests.clear()
    return served


class Read:
    """What a reader of a bucket has read, and said."""

    def __init__(self, bucket: Bucket, cache: CacheSettings) -> None:
        self.index = Index.open(parse_place(f"{bucket.url}/set"), cache)
        self.damage: dict[int, str] = {}
        self.reader = Reader(self.index, "train", self.damage.__setitem__)
        self.order = Order(self.reader.split.shard_samples, 0, ORDER_WINDOW)

    def epoch(self, planned: bool = True, number: int | None = None, epochs: int = 10) -> np.ndarray:
        """Read the first epoch, or so many samples, as training over some epochs does, or without a plan."""
        images, size = [], 32
        for position in range(0, number or self.order.samples, size):
            if planned:
                self.reader.follow(self.order, position, epochs * self.order.samples)
            samples = self.order(np.arange(position, position + size))
            self.reader.announce(samples)
            images.append(self.reader(samples).images.copy())
        return np.concatenate(images)

    def close(self) -> None:
        files = self.reader.files
        assert isinstance(files, remote_shards.RemoteShards)
        for threads in (files.copier.copiers, files.copier.blocks, files.threads):
            threads.close()


@pytest.fixture
def readers(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Read]]:
    made: list[Read] = []
    yield made
    for one in made:
        one.close()


def read(readers: list[Read], bucket: Bucket, cache: Path, gb: float = 1.0, patience_s: float = 20.0) -> Read:
    readers.append(Read(bucket, CacheSettings(cache, gb, patience_s)))
    return readers[-1]


@pytest.fixture(scope="module")
def local(shards32: Path) -> np.ndarray:
    """The images of an epoch of the local shards."""
    reader = Reader(Index.open(shards32), "train", lambda sample, what: pytest.fail(what))
    order = Order(reader.split.shard_samples, 0, ORDER_WINDOW)
    return np.concatenate(
        [reader(order(np.arange(first, first + 32))).images.copy() for first in range(0, order.samples, 32)]
    )


def shard_bytes(bucket: Bucket) -> int:
    return sum(size for _, path, size in bucket.proxy.requests if ".tar" in path)


def test_each_shard_is_copied_once_and_the_second_epoch_reads_nothing(
    bucket: Bucket, readers: list[Read], local: np.ndarray, tmp_path: Path
) -> None:
    one = read(readers, bucket, tmp_path)
    assert (one.epoch() == local).all()
    assert shard_bytes(bucket) == sum(one.reader.split.columns["bytes"])
    bucket.proxy.requests.clear()
    # Another process of the same node, or the next job.
    assert (read(readers, bucket, tmp_path).epoch() == local).all()
    assert shard_bytes(bucket) == 0


def test_few_pictures_are_read_by_ranges(
    bucket: Bucket, readers: list[Read], local: np.ndarray, tmp_path: Path
) -> None:
    one = read(readers, bucket, tmp_path)
    assert (one.epoch(planned=False, number=64) == local[:64]).all()
    assert shard_bytes(bucket) < 64 * 8_000
    bucket.proxy.requests.clear()
    assert (read(readers, bucket, tmp_path).epoch(planned=False, number=64) == local[:64]).all()
    assert shard_bytes(bucket) == 0, "they were kept"


def test_without_room_all_is_read_by_ranges(
    bucket: Bucket, readers: list[Read], local: np.ndarray, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("no folder")
    for folder, gb in ((tmp_path / "small", 1e-6), (tmp_path / "file" / "x", 1.0), (Path("/proc/none"), 1.0)):
        caplog.clear()
        one = read(readers, bucket, folder, gb)
        assert (one.epoch() == local).all()
        said = [record.message for record in caplog.records]
        assert len(said) == 1, said
        assert "samples are read one by one" in said[0]


def test_a_full_disk_is_no_error(
    bucket: Bucket, readers: list[Read], local: np.ndarray, small_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    filler = small_disk / "filler"
    filler.write_bytes(b"\0" * (7 << 20))  # of 8 MiB: there is room for a shard or two
    assert (read(readers, bucket, small_disk / "cache").epoch() == local).all()
    assert [record.message for record in caplog.records if "no room" in record.message]
    assert not [*(small_disk / "cache").glob(f"*{PART}")]


def test_the_cache_stays_below_its_limit(
    bucket: Bucket, readers: list[Read], local: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit, most = 1_400_000, 0
    fill = FileCache.fill

    def watched(self: FileCache, *arguments: object) -> Filled:
        nonlocal most
        filled = fill(self, *arguments)  # type: ignore[arg-type]
        most = max(most, sum(file.stat().st_size for file in self.folder.iterdir()))
        return filled

    monkeypatch.setattr(FileCache, "fill", watched)
    one = read(readers, bucket, tmp_path / "cache", limit / 1e9)
    assert (one.epoch(epochs=1) == local).all()
    assert 1_000_000 < most <= limit
    # Two of five shards are wanted at a time, and those that come next are copied ahead: hardly anything comes twice.
    assert shard_bytes(bucket) < 1.2 * sum(one.reader.split.columns["bytes"])


def test_a_flipped_byte_in_the_cache_is_read_again(
    bucket: Bucket, readers: list[Read], local: np.ndarray, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert (read(readers, bucket, tmp_path).epoch() == local).all()
    one = read(readers, bucket, tmp_path)
    for shard in one.reader.split.shards:
        path = tmp_path / shard.sha256
        content = bytearray(path.read_bytes())
        content[len(content) // 2 : -20_000 : 1000] = bytes(len(content[len(content) // 2 : -20_000 : 1000]))
        path.write_bytes(content)
    assert (one.epoch() == local).all()
    assert not one.damage
    assert [record.message for record in caplog.records if "was damaged" in record.message]


@pytest.mark.parametrize("planned", [True, False])
def test_what_is_corrupted_on_the_way_is_read_again(
    planned: bool, bucket: Bucket, readers: list[Read], local: np.ndarray, tmp_path: Path
) -> None:
    one = read(readers, bucket, tmp_path)
    # In the first shard that is read as a whole, or in the first sample, twice.
    sample = one.reader.locate(one.order(np.arange(1)))[0]
    fault = Fault(corrupt_at=sample.offset + 10, times=2, only=f"train-{sample.shard:06d}")
    bucket.proxy.fault = fault
    assert (one.epoch(planned) == local).all()
    assert not one.damage
    assert fault.times == 0


def test_damage_in_the_bucket_is_replaced_as_in_local_data(
    bucket: Bucket, readers: list[Read], shards32: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(shards32, tmp_path / "copy")
    for number in (1, 3):
        content = bytearray((copy / f"train-00000{number}.tar").read_bytes())
        for at in range(100_000, 140_000, 1000):
            content[at] ^= 255
        (copy / f"train-00000{number}.tar").write_bytes(content[: 480_000 if number == 3 else None])
        shutil.copy(copy / f"train-00000{number}.tar", bucket.root / "set")
    time.sleep(0.05)
    damage: dict[int, str] = {}
    reader = Reader(Index.open(copy), "train", damage.__setitem__)
    one = read(readers, bucket, tmp_path / "cache")
    order = one.order
    for first in range(0, order.samples, 32):
        one.reader.follow(order, first, 10 * order.samples)
        planned = order(np.arange(first, first + 32))
        expected, found = reader(planned), one.reader(planned)
        assert (expected.used == found.used).all()
        assert (expected.images == found.images).all()
    assert one.damage == damage
    assert len(damage) > 4


def test_another_dataset_at_the_same_url_is_refused(
    bucket: Bucket, readers: list[Read], local: np.ndarray, shards32: Path, tmp_path: Path
) -> None:
    one = read(readers, bucket, tmp_path)
    for file in (bucket.root / "set").iterdir():
        content = file.read_bytes()
        file.write_bytes(content.replace(b'"schema"', b' "schema"') if file.suffix == ".json" else content[::-1])
    time.sleep(0.05)
    with pytest.raises(DataError, match=r"s3://pictures/set has changed under the run"):
        one.epoch()
    assert not one.damage, "nothing was replaced"
    # As the message says.
    shutil.copytree(shards32, bucket.root / "set", dirs_exist_ok=True)
    time.sleep(0.05)
    assert (read(readers, bucket, tmp_path).epoch() == local).all()


@pytest.mark.parametrize("planned", [True, False])
def test_a_server_that_stays_away_ends_the_reading(
    planned: bool, bucket: Bucket, readers: list[Read], tmp_path: Path
) -> None:
    one = read(readers, bucket, tmp_path, patience_s=1.0)
    bucket.proxy.disappear()
    try:
        with pytest.raises(Unreachable, match=r"s3://pictures/set/train-.* could not be read for"):
            one.epoch(planned)
    finally:
        bucket.proxy.appear()
    assert not one.damage


def test_a_server_that_comes_back_is_waited_for(
    bucket: Bucket, readers: list[Read], local: np.ndarray, tmp_path: Path
) -> None:
    one = read(readers, bucket, tmp_path)
    bucket.proxy.disappear()
    threading.Timer(2.0, bucket.proxy.appear).start()
    began = time.monotonic()
    assert (one.epoch() == local).all()
    assert time.monotonic() - began > 1.5


KILLED = """
import sys, time
from pathlib import Path
from shards.dataset.file_cache import FileCache, Needs
def blocks():
    yield b"1" * 1000
    print("half", flush=True)
    time.sleep(100)
FileCache(Path(sys.argv[1]), 10**6).fill(sys.argv[2], 2000, blocks(), Needs())
"""


def test_what_a_killed_process_leaves_is_removed(tmp_path: Path) -> None:
    name = "a" * 64
    command = [sys.executable, "-c", KILLED, str(tmp_path), name]
    cache = FileCache(tmp_path, 2500)
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=HOME) as process:
        assert process.stdout
        assert process.stdout.readline() == b"half\n"
        assert cache.fill(name, 2000, [b"1" * 2000], Needs()) is Filled.BUSY
        assert cache.fill("b" * 64, 1000, [b""], Needs()) is Filled.NO_ROOM
        process.send_signal(signal.SIGKILL)
    assert (tmp_path / f"{name}{PART}").exists()
    # Its room is given to others.
    other = hashlib.sha256(b"2" * 1000).hexdigest()
    assert cache.fill(other, 1000, [b"2" * 1000], Needs()) is Filled.THERE
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(["lock", other])
    assert cache.fill(name, 4, [b"none"], Needs()) is Filled.DAMAGED
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(["lock", other])


def test_what_is_in_use_stays_and_what_is_needed_last_goes(tmp_path: Path) -> None:
    cache = FileCache(tmp_path, 300)
    names = [letter * 64 for letter in "abc"]
    for name in names:
        (tmp_path / name).write_bytes(b"1" * 100)
    assert cache.fill("d" * 64, 100, [], Needs()) is Filled.NO_ROOM, "others use them"
    (tmp_path / "somebody's.txt").write_text("not ours")
    needs = Needs(frozenset(names[:1]), {names[0]: 0, names[1]: 1, names[2]: 2})
    cache.fill("d" * 64, 100, [], needs)
    assert sorted(file.name[0] for file in tmp_path.iterdir()) == ["a", "b", "l", "s"]
    os.utime(tmp_path / names[0], (1, 1))
    cache.fill("d" * 64, 200, [], Needs(frozenset(names[1:])))
    assert sorted(file.name[0] for file in tmp_path.iterdir()) == ["b", "l", "s"]


def test_a_disk_that_is_smaller_than_the_limit_makes_room(small_disk: Path) -> None:
    cache, content = FileCache(small_disk, 10**9), bytes(5 << 20)
    old, new = "a" * 64, hashlib.sha256(content).hexdigest()
    (small_disk / old).write_bytes(content)
    os.utime(small_disk / old, (1, 1))
    assert cache.fill(new, len(content), [content], Needs()) is Filled.THERE
    assert not cache.has(old)


def test_a_large_table_is_read_in_pages(
    bucket: Bucket, readers: list[Read], local: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_table, "COPIED", 1000)
    monkeypatch.setattr(remote_table, "PAGE_ROWS", 50)
    monkeypatch.setattr(remote_table, "PAGES", 2)
    one = read(readers, bucket, tmp_path)
    assert isinstance(one.index.table, remote_table.RemoteTable)
    assert (one.epoch() == local).all()
    whole = Index.open(bucket.root / "set").table
    for rows in (slice(40, 120), 7, np.array([300, 2, 2])):
        assert (one.index.table[rows] == whole[rows]).all()
    assert len(one.index.table) == len(whole)


def test_the_plan_is_the_order_of_the_windows() -> None:
    order = Order([10] * 12, 0, 3)
    sizes = np.full(12, 100)
    windows = [order.epoch(0).shards[first : first + 3].tolist() for first in range(0, 12, 3)]
    need = shards_to_copy(order, 35, 10_000, sizes, 500)
    assert (list(need.shards), need.until) == (windows[1] + windows[2][:2], 60)
    # Less than a quarter of the window is still wanted: its samples are read by ranges.
    assert list(shards_to_copy(order, 58, 10_000, sizes, 500).shards) == windows[2] + windows[3][:2]
    assert list(shards_to_copy(order, 95, 97, sizes, 500).shards) == []
    assert list(shards_to_copy(order, 95, 119, sizes, 500).shards) == windows[3]
    # No window fits.
    assert list(shards_to_copy(order, 0, 10_000, sizes, 299).shards) == []
    # All shards stay where there is room for all, whatever the epoch.
    assert sorted(shards_to_copy(order, 100, 10_000, sizes, 1200).shards) == list(range(12))


def test_inspect_and_verify_take_a_url(bucket: Bucket, shards32: Path, tmp_path: Path) -> None:
    def said(command: str, place: str) -> tuple[int, str]:
        done = run("shards", command, place, TMPDIR=str(tmp_path))
        words = (done.stdout.partition(" MB,")[0] + done.stderr).replace(place, "HERE")
        return done.returncode, words.partition("┏")[2] if command == "inspect" else words  # its title is centred

    for command in ("inspect", "verify"):
        assert said(command, f"{bucket.url}/set") == said(command, str(shards32))
    content = bytearray((bucket.root / "set" / "train-000001.tar").read_bytes())
    content[100_000] ^= 1
    (bucket.root / "set" / "train-000001.tar").write_bytes(content)
    (bucket.root / "set" / "train-000002.tar").unlink()
    (bucket.root / "set" / "stranger.txt").write_text("?")
    time.sleep(0.05)
    local_copy = shutil.copytree(bucket.root / "set", tmp_path / "copy")
    assert said("verify", f"{bucket.url}/set") == said("verify", str(local_copy))
    assert said("verify", f"{bucket.url}/set")[0] == 1
    code, words = said("verify", f"{bucket.url}/none")
    assert (code, "HERE holds no finished shards: HERE/index.json does not exist (status 404)" in words) == (2, True)
    assert not [*tmp_path.glob("lienzo-*.tmp")]


def test_webdataset_reads_them_through_a_pipe(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the documentation says: with any program that writes an object to its standard output."""
    settings = {"PROVIDER": "Other", "ENV_AUTH": "true", "ENDPOINT": bucket.environment["AWS_ENDPOINT_URL"]}
    for name, value in settings.items():
        monkeypatch.setenv(f"RCLONE_S3_{name}", value)
    index = Index.open(parse_place(f"{bucket.url}/set"))
    cat = f"pipe:{RCLONE} cat --config {os.devnull} :s3:{bucket.url.removeprefix('s3://')}/set"
    urls = [f"{cat}/{one.name}" for one in index.splits["train"].shards]
    told = list(webdataset.WebDataset(urls, shardshuffle=False).decode())
    assert len(told) == index.splits["train"].samples
    reader = Reader(index, "train", lambda _, what: pytest.fail(what))
    images = reader(np.arange(len(told))).images
    assert all(np.array_equal(image, sample["npy"]) for image, sample in zip(images, told, strict=True))
