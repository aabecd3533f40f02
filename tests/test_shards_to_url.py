"""`python -m shards build --out URL` ends with the objects of a local build, whatever happens on the way."""

from __future__ import annotations

import hashlib
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from shards.__main__ import main
from shards.building.remote_out import PROBE
from shards.dataset.index import Index
from shards.storage.place import parse_place
from shards.storage.storage import open_storage
from shards.verify import Verify, run_verify
from tests.conftest import HOME
from tests.made_sources import build, digests, jpeg, make_source, refuse
from tests.s3_server import Bucket, Fault, serve_bucket

OPTIONS = ("--size", "16", "--labels", "folders", "--shard-samples", "10", "--holdout", "0.2")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_source(tmp_path_factory.mktemp("source"), 150)
    (folder / "notes.txt").write_text("not a picture")
    for number in range(5):  # their originals, on both sides of the hold-out, repeat them
        (folder / f"again {number}.jpg").write_bytes(jpeg(20 * number))
    return folder


@pytest.fixture(scope="module")
def built(source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The hashes of the files of a local build."""
    out = tmp_path_factory.mktemp("built") / "shards"
    build(source, out, *OPTIONS)
    return digests(out)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bucket]:
    with serve_bucket(tmp_path_factory.mktemp("s3") / "buckets") as bucket:
        yield bucket


@pytest.fixture
def bucket(served: Bucket, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    served.use(monkeypatch)
    return served


def objects(url: str) -> dict[str, str]:
    storage = open_storage(parse_place(url))
    return {one.name: hashlib.sha256(storage.read(one.name)).hexdigest() for one in storage.list()}


def build_to(source: Path, url: str, work: Path, *args: str) -> int:
    return main(["build", str(source), "--out", url, "--work", str(work), *OPTIONS, "--workers", "1", *args])


def test_the_objects_are_the_files_of_a_local_build(source: Path, built: dict[str, str], tmp_path: Path) -> None:
    url = f"memory://{tmp_path.name}/sets/a"
    assert build_to(source, url, tmp_path / "work") == 0
    assert objects(url) == built
    assert [*(tmp_path / "work").iterdir()] == []
    assert run_verify(Verify(parse_place(url))) == 0


def test_what_is_left_out_leaves_the_same_objects(source: Path, tmp_path: Path) -> None:
    """Shards of which samples are left out are copied, so they are uploaded when all are made."""
    url, options = f"memory://{tmp_path.name}", ("--deduplicate", "exact", "--encode", "png")
    assert build_to(source, url, tmp_path / "work", *options) == 0
    build(source, tmp_path / "local", *OPTIONS, *options)
    assert objects(url) == digests(tmp_path / "local")
    assert Index.open(tmp_path / "local").content["excluded"]["duplicate"] == 5


def test_shards_are_uploaded_and_removed_while_others_are_made(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[str] = []

    def look(work: Path, *_: object) -> None:
        left.extend(path.name for path in work.glob("*.tar"))
        raise KeyboardInterrupt

    monkeypatch.setattr("shards.building.phases.deduplicate_samples", lambda *given: look(given[2]))
    url = f"memory://{tmp_path.name}"
    assert build_to(source, url, tmp_path / "work") == 75
    assert left
    assert {name[0] for name in left} == {"1"}  # parts of the hold-out
    assert len([name for name in objects(url) if name.startswith("train-")]) == 16
    assert "index.json" not in objects(url)


def test_kills_change_no_byte(source: Path, built: dict[str, str], bucket: Bucket, tmp_path: Path) -> None:
    url, kept = f"{bucket.url}/killed", 0
    command = [sys.executable, "-m", "shards", "build", str(source), "--out", url, "--work", str(tmp_path), *OPTIONS]
    for kill, workers in enumerate("213"):
        resumed = ["--resume"] if kill else []
        process = subprocess.Popen(
            [*command, "--workers", workers, *resumed], cwd=HOME, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        deadline = time.monotonic() + 40
        while time.monotonic() < deadline and kept <= 4 * kill and process.poll() is None:
            with suppress(FileNotFoundError):  # the server removes the folder with the object that tries the bucket
                kept = len([*bucket.root.glob("killed/train-*")])
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert 8 < kept < 16
    assert not (bucket.root / "killed/index.json").exists()
    assert build_to(source, url, tmp_path, "--resume") == 0
    assert objects(url) == built
    bucket.proxy.requests.clear()
    assert build_to(source, url, tmp_path, "--resume") == 0  # it is complete
    assert not [path for method, path, _ in bucket.proxy.requests if method == "PUT" and PROBE not in path]


def test_a_kill_before_and_after_the_index(source: Path, built: dict[str, str], bucket: Bucket, tmp_path: Path) -> None:
    program = """
import os, sys
from shards.building.target import RemoteTarget
real = RemoteTarget.upload
def upload(self, made, name):
    if name == "index.json":
        sys.argv[1] == "after" and self.storage.write(name, made)
        os.kill(os.getpid(), 9)
    real(self, made, name)
RemoteTarget.upload = upload
from shards.__main__ import main
main(sys.argv[2:])
"""
    for when in "before", "after":
        url = f"{bucket.url}/{when}"
        words = ["build", str(source), "--out", url, "--work", str(tmp_path), *OPTIONS, "--workers", "1"]
        done = subprocess.run([sys.executable, "-c", program, when, *words], cwd=HOME, capture_output=True, text=True)
        assert done.returncode == -signal.SIGKILL, done.stderr
        assert (bucket.root / when / "index.json").exists() == (when == "after")
        assert build_to(source, url, tmp_path, "--resume") == 0
        assert objects(url) == built
        assert [*tmp_path.iterdir()] == []


def test_what_may_not_be_written_shows_before_the_work_begins(
    source: Path, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("--work", tmp_path)
    bucket.proxy.fault = Fault(status=403)
    said = refuse(source, f"{bucket.url}/x", "may not be written (status 403): check the credentials", *words)
    assert f"{bucket.url}/x/{PROBE}" in said
    bucket.proxy.fault = Fault()
    refuse(source, "s3://nowhere/x", "there is no such bucket (status 404)", *words)
    short = partial(open_storage, patience_s=1.0)
    monkeypatch.setattr("shards.building.remote_out.open_storage", short)
    bucket.proxy.fault = Fault(status=503)
    refuse(source, f"{bucket.url}/x", "check the network and the server", *words)
    assert [*tmp_path.iterdir()] == []


def test_what_fails_on_the_way_goes_on_with_resume(
    source: Path, built: dict[str, str], bucket: Bucket, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"{bucket.url}/stopped"
    bucket.proxy.fault = Fault(status=403, methods=("PUT", "POST"), only="train-000003")
    assert build_to(source, url, tmp_path) == 75
    (said,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("shards build:"))
    assert "train-000003.tar may not be written (status 403)" in said
    assert said.endswith("finished shards are kept, and --resume goes on")
    bucket.proxy.fault = Fault(status=503, times=3)
    assert build_to(source, url, tmp_path, "--resume") == 0
    assert objects(url) == built


def test_a_place_that_holds_something_is_refused(source: Path, bucket: Bucket, tmp_path: Path) -> None:
    url = f"{bucket.url}/taken"
    open_storage(parse_place(url)).write("theirs.txt", b"x")
    said = refuse(source, url, "is not empty", "--work", tmp_path)
    assert "build into a new folder, or name the --work with which the build began" in said
    refuse(source, url, "is not empty", "--work", tmp_path, "--resume")
    assert build_to(source, f"{url}-new", tmp_path) == 0
    shutil.rmtree(bucket.root / "taken-new")


def test_an_unfinished_build_asks_for_resume(
    source: Path, built: dict[str, str], bucket: Bucket, tmp_path: Path
) -> None:
    url = f"{bucket.url}/unfinished"
    bucket.proxy.fault = Fault(status=403, methods=("PUT", "POST"), only="table.npy")
    assert build_to(source, url, tmp_path / "work") == 75
    bucket.proxy.fault = Fault()
    refuse(source, url, "go on with --resume", *OPTIONS, "--work", tmp_path / "work")
    refuse(source, url, "name the --work with", *OPTIONS, "--work", tmp_path / "other", "--resume")
    assert build_to(source, url, tmp_path / "work", "--resume") == 0
    assert objects(url) == built


def test_a_shard_that_somebody_removed_is_missed(source: Path, bucket: Bucket, tmp_path: Path) -> None:
    url = f"{bucket.url}/robbed"
    bucket.proxy.fault = Fault(status=403, methods=("PUT", "POST"), only="table.npy")
    assert build_to(source, url, tmp_path) == 75
    bucket.proxy.fault = Fault()
    open_storage(parse_place(url)).delete("train-000002.tar")
    refuse(source, url, "is gone or has changed since it was uploaded", *OPTIONS, "--work", tmp_path, "--resume")
    shutil.rmtree(bucket.root / "robbed")  # as the message says
    time.sleep(0.05)
    assert build_to(source, url, tmp_path) == 0


def test_work_is_for_urls(source: Path, tmp_path: Path) -> None:
    refuse(source, tmp_path / "out", "--work is for --out URL", "--work", tmp_path)
