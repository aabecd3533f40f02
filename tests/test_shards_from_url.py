"""`python -m shards build URL` makes the bytes of a build from the same files on a local disk."""

from __future__ import annotations

import shutil
import time
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from shards.__main__ import main
from shards.exclusion import Excluded
from shards.sources.remote_folder import RemoteFolder
from shards.storage.place import Url
from shards.storage.read_ahead import read_ahead
from shards.storage.storage import Storage, open_storage
from tests.made_sources import build, digests, jpeg, make_source, refuse, said_by
from tests.s3_server import Bucket, Fault, serve_bucket

OPTIONS = ("--size", "16", "--shard-samples", "10", "--holdout", "0.2", "--workers", "1")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bucket]:
    with serve_bucket(tmp_path_factory.mktemp("s3") / "buckets") as bucket:
        source = make_source(bucket.root / "set", 60)
        (source / "notes.txt").write_text("not a picture")
        (source / "empty.png").touch()
        (source / ".git").mkdir()
        for name in ".git/a", ".git/b", ".git-a", "class 0/.hidden.jpg", "class 0/odd + name é.jpg":
            (source / name).write_bytes(jpeg(1))
        rows = [f"{path.name},{path.parent.name}" for path in source.rglob("0*.jpg")]
        (source / "labels.csv").write_text("\n".join(["file,label", *rows]))
        with zipfile.ZipFile(bucket.root / "set.zip", "w") as archive:
            for path in sorted(source.rglob("*.jpg")):
                archive.write(path, path.relative_to(source))
        yield bucket


@pytest.fixture
def bucket(served: Bucket, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    served.use(monkeypatch)
    return served


def build_from(url: str, out: Path, *args: str) -> int:
    return main(["build", url, "--out", str(out), *OPTIONS, *args])


@pytest.mark.parametrize("labels", ["folders", "labels.csv"])
def test_a_prefix_of_a_bucket_is_like_a_folder(bucket: Bucket, tmp_path: Path, labels: str) -> None:
    bucket.proxy.fault = Fault(status=503, times=5)
    assert build_from(f"{bucket.url}/set", tmp_path / "out", "--labels", labels, "--workers", "2") == 0
    build(bucket.root / "set", tmp_path / "local", *OPTIONS, "--labels", labels)
    assert digests(tmp_path / "out") == digests(tmp_path / "local")
    read = [path for method, path, _ in bucket.proxy.requests if method == "GET" and ".jpg" in path]
    assert len(read) == len({*read}) == 61  # each once


def test_a_table_of_labels_at_a_url(bucket: Bucket, tmp_path: Path) -> None:
    table = f"{bucket.url}/set/labels.csv"
    build(bucket.root / "set", tmp_path / "out", *OPTIONS, "--labels", table)
    build(bucket.root / "set", tmp_path / "local", *OPTIONS, "--labels", "labels.csv")
    assert digests(tmp_path / "out") == digests(tmp_path / "local")
    said = said_by("build", f"{bucket.url}/set", "--out", tmp_path / "no", "--labels", "none.csv")
    assert f"there is no such file, neither here nor in {bucket.url}/set" in said


def test_several_pictures_are_asked_for_at_the_same_time(bucket: Bucket, tmp_path: Path) -> None:
    bucket.proxy.fault = Fault(delay_s=0.3, only=".jpg")
    began = time.monotonic()
    assert build_from(f"{bucket.url}/set", tmp_path / "out", "--shard-samples", "64") == 0
    assert time.monotonic() - began < 0.3 * 61 / 2


def test_reading_ahead_keeps_the_order_and_the_errors() -> None:
    begun: list[int] = []

    def request(number: int) -> int:
        begun.append(number)
        time.sleep(0.01 * (number % 3))
        if number == 5:
            raise Excluded("unreadable", "five")
        return number

    answers = read_ahead((lambda number=number: request(number) for number in range(20)), 4)  # type: ignore[misc]
    assert [next(answers)() for _ in range(5)] == [0, 1, 2, 3, 4]
    assert len(begun) <= 9
    with pytest.raises(Excluded, match="unreadable"):
        next(answers)()
    answers.close()
    assert len(begun) < 20


def test_a_zip_at_a_url_is_copied_once(bucket: Bucket, tmp_path: Path) -> None:
    url, out = f"{bucket.url}/set.zip", tmp_path / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("shards.building.phases.finalize_dataset", interrupt)
        assert build_from(url, out, "--labels", "folders") == 75
    read = bucket.proxy.bytes_read()
    assert build_from(url, out, "--labels", "folders", "--resume") == 0
    assert bucket.proxy.bytes_read() == read  # HEAD alone
    build(bucket.root / "set.zip", tmp_path / "local", *OPTIONS, "--labels", "folders")
    assert digests(out) == digests(tmp_path / "local")


def test_a_zip_that_changes_while_it_is_copied(bucket: Bucket, tmp_path: Path) -> None:
    place, url = bucket.root / "growing.zip", f"{bucket.url}/growing.zip"
    shutil.copyfile(bucket.root / "set.zip", place)
    real = open_storage(Url(bucket.url)).head("growing.zip")
    with pytest.MonkeyPatch.context() as patch:
        heads = iter([real, replace(real, etag="another")])
        patch.setattr(Storage, "head", lambda *_: next(heads, real))
        patch.setattr(Storage, "exists", lambda *_: True)
        refuse(url, tmp_path / "out", "changed while it was copied: run the same command again", *OPTIONS)
    assert build_from(url, tmp_path / "out") == 0


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_what_has_changed_is_noticed_on_resume(bucket: Bucket, tmp_path: Path) -> None:
    """With the same size, too."""
    shutil.copytree(bucket.root / "set" / "class 1", bucket.root / "changing")
    url, out = f"{bucket.url}/changing", tmp_path / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("shards.building.phases.finalize_dataset", interrupt)
        assert build_from(url, out) == 75
    path = bucket.root / "changing" / "0001.jpg"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    time.sleep(0.1)
    assert "'0001.jpg' is new or changed" in said_by("build", url, "--out", out, *OPTIONS, "--resume")
    path.write_bytes(content)
    time.sleep(0.1)
    assert build_from(url, out, "--resume") == 0


def test_a_bucket_that_refuses_on_the_way_stops_the_build(
    bucket: Bucket, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """It is no damage of a picture."""
    url, out = f"{bucket.url}/set", tmp_path / "out"
    bucket.proxy.fault = Fault(status=403, only="0030.jpg")
    assert build_from(url, out) == 75
    said = capfd.readouterr().err
    assert f"shards build: {url}/class 0/0030.jpg may not be read (status 403)" in said
    assert "Traceback" not in said
    bucket.proxy.fault = Fault(cut_after=100, times=4)
    assert build_from(url, out, "--resume") == 0
    build(bucket.root / "set", tmp_path / "local", *OPTIONS)
    assert digests(out) == digests(tmp_path / "local")


def test_urls_that_lead_nowhere(bucket: Bucket, tmp_path: Path) -> None:
    refuse("s3://nowhere/set", tmp_path / "a", "there is no such bucket")
    refuse(f"{bucket.url}/missing", tmp_path / "b", "the source has no files")
    bucket.proxy.fault = Fault(status=403)
    refuse(f"{bucket.url}/set", tmp_path / "c", "may not be read (status 403)")
    bucket.proxy.fault = Fault()
    refuse(f"{bucket.url}/set", f"{bucket.url}/set/shards", "lies inside the source")


def test_what_fsspec_knows_is_read_by_workers_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the way of hf://."""
    monkeypatch.chdir(tmp_path)
    source = make_source(tmp_path / "source", 20)
    assert build_from("local://source", tmp_path / "out", "--labels", "folders") == 0
    build(source, tmp_path / "local", *OPTIONS, "--labels", "folders")
    assert digests(tmp_path / "out") == digests(tmp_path / "local")


def test_objects_that_change_after_they_were_listed(tmp_path: Path) -> None:
    url = Url(f"memory://{tmp_path.name}/set")
    storage, source = open_storage(url), RemoteFolder(url)
    for name in "a.jpg", "b.jpg", "c/d.jpg":
        storage.write(name, jpeg(0))
    places = {entry.name: entry.place for entry in source.scan()}
    storage.delete("a.jpg")
    storage.write("b.jpg", b"short")
    for changed in b"a.jpg", b"b.jpg":
        with pytest.raises(Excluded) as raised:
            source.read(changed, places[changed], 1 << 20)
        assert raised.value.reason == "unreadable"
    assert source.read(b"c/d.jpg", places[b"c/d.jpg"], 1 << 20) == jpeg(0)
    with pytest.raises(Excluded) as raised:
        source.read(b"c/d.jpg", places[b"c/d.jpg"], 10)
    assert raised.value.reason == "too_many_bytes"
