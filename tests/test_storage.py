"""Places and what is read and written there: local folders, memory, and a real S3 server that fails."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from shards.errors import DataError
from shards.storage.errors import NotFound, StorageError, Unreachable, read_problem
from shards.storage.place import Url, parse_place, seen_from
from shards.storage.storage import Storage, open_storage
from tests.s3_server import Bucket, Fault, serve_bucket
from trainer.config.config import Config
from trainer.core.fields import Refused, from_json, overlay_settings, to_json

CONTENT = bytes(range(256)) * 512


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bucket]:
    with serve_bucket(tmp_path_factory.mktemp("s3") / "buckets") as bucket:
        yield bucket


@pytest.fixture
def bucket(served: Bucket, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    served.use(monkeypatch)
    return served


@pytest.fixture(params=["local", "memory", "s3", "fsspec"])
def storage(request: pytest.FixtureRequest, tmp_path: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> Storage:
    monkeypatch.chdir(tmp_path)
    name = tmp_path.name
    places = {"local": f"{tmp_path}/place", "memory": f"memory://{name}/place", "s3": f"{bucket.url}/{name}"}
    return open_storage(parse_place(places.get(request.param, "local://place")), 5)


def test_a_place_is_a_path_or_a_url_as_typed() -> None:
    assert parse_place("shards/x") == Path("shards/x")
    assert parse_place("file:///shards/a%20b") == Path("/shards/a b")
    assert parse_place("~/x") == Path.home() / "x"
    url = parse_place("s3://bucket/a/b/")
    assert isinstance(url, Url)
    assert (str(url), url.root, url.key, url.name) == ("s3://bucket/a/b/", "s3://bucket", "a/b", "b")
    assert str(url / "c.tar") == "s3://bucket/a/b/c.tar"
    assert (str(url.parent), str(url.parent.parent)) == ("s3://bucket/a", "s3://bucket")


@pytest.mark.parametrize("text", ["https://me:secret@host/x", "https://host/x?X-Amz-Signature=secret", "s3:///x"])
def test_credentials_and_nothing_are_no_url(text: str) -> None:
    with pytest.raises(DataError) as raised:
        parse_place(text)
    assert "secret" not in str(raised.value)
    # As the messages say.
    assert str(parse_place("https://host/x")) == "https://host/x"
    assert str(parse_place("s3://BUCKET/FOLDER")) == "s3://BUCKET/FOLDER"


def test_a_url_among_settings_stays_as_it_was_typed(tmp_path: Path) -> None:
    for text in ("s3://bucket/a", "shards/a"):
        config = from_json(Config, to_json(Config()) | {"data": text}, "config.json")
        assert (config.data, to_json(config)["data"]) == (parse_place(text), text)
    assert seen_from(tmp_path, parse_place("s3://bucket/a")) == Url("s3://bucket/a")
    assert seen_from(tmp_path, parse_place("a")) == tmp_path / "a"
    with pytest.raises(Refused, match="with a password"):
        overlay_settings(Config(), {"data": "https://me:secret@host/x"}, "lienzo.toml")


def test_every_storage_does_the_same(storage: Storage, tmp_path: Path) -> None:
    (tmp_path / "local.bin").write_bytes(CONTENT)
    assert [*storage.list()] == []
    storage.write("a/one.txt", b"hello world")
    storage.write("a/two.bin", tmp_path / "local.bin")
    assert storage.read("a/one.txt") == b"hello world"
    assert storage.read_range("a/two.bin", 1000, 5000) == CONTENT[1000:6000]
    assert storage.read_range("a/one.txt", 6, 100) == b"world"
    assert [*storage.read_ranges("a/one.txt", [(0, 5), (6, 5), (0, 0)])] == [b"hello", b"world", b""]
    assert (storage.head("a/two.bin").name, storage.head("a/two.bin").size) == ("a/two.bin", len(CONTENT))
    assert [info.name for info in storage.list()] == ["a/one.txt", "a/two.bin"]
    assert [(info.name, info.size) for info in storage.list("a/o")] == [("a/one.txt", 11)]
    before = storage.head("a/one.txt").etag
    storage.write("a/one.txt", b"hello, you")
    assert storage.head("a/one.txt").etag != before or before is None
    assert storage.exists("a/one.txt")
    for _ in range(2):
        storage.delete("a/one.txt")
    assert not storage.exists("a/one.txt")
    with pytest.raises(NotFound, match=r"one\.txt does not exist"):
        storage.read("a/one.txt")


def test_a_failed_write_leaves_what_was_there(bucket: Bucket, tmp_path: Path) -> None:
    s3 = open_storage(parse_place(bucket.url), 1)
    s3.write("whole.bin", CONTENT)
    bucket.proxy.fault = Fault(status=503, methods=("PUT", "POST"))
    with pytest.raises(Unreachable):
        s3.write("whole.bin", b"other")
    with pytest.raises(StorageError):
        open_storage(tmp_path).write("here", tmp_path / "none")
    assert s3.read("whole.bin") == CONTENT
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize(
    "fault",
    [
        Fault(status=429, times=4),
        Fault(status=500, times=4),
        Fault(status=503, times=4),
        Fault(cut_after=70_000, times=2),
    ],
    ids=["429", "500", "503", "cut"],
)
def test_what_passes_is_tried_again(bucket: Bucket, fault: Fault) -> None:
    (bucket.root / "big.bin").write_bytes(CONTENT)
    bucket.proxy.fault = fault
    s3 = open_storage(parse_place(bucket.url), 20)
    assert s3.read("big.bin") == CONTENT
    assert s3.read_range("big.bin", 3, 100_000) == CONTENT[3:100_003]
    assert fault.times == 0


def test_a_server_that_is_gone_is_waited_for(bucket: Bucket) -> None:
    (bucket.root / "big.bin").write_bytes(CONTENT)
    s3 = open_storage(parse_place(bucket.url), 1)
    s3.read_range("big.bin", 0, 10)
    bucket.proxy.disappear()
    began = time.monotonic()
    with pytest.raises(
        Unreachable, match=r"s3://pictures/big\.bin could not be read for .* run the same command again"
    ):
        s3.read("big.bin")
    assert time.monotonic() - began < 15
    bucket.proxy.appear()
    assert s3.read("big.bin") == CONTENT


def test_refusals_are_said_at_once_and_without_secrets(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    began = time.monotonic()
    with pytest.raises(NotFound, match="there is no such bucket"):
        open_storage(parse_place("s3://elsewhere/x")).read("y")
    bucket.proxy.fault = Fault(status=403)
    with pytest.raises(StorageError, match=r"s3://pictures/y may not be read \(status 403\): check the credentials"):
        open_storage(parse_place(bucket.url)).read("y")
    bucket.proxy.fault = Fault()
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another-secret-key")
    with pytest.raises(StorageError, match="403") as raised:
        open_storage(parse_place(bucket.url)).read("y")
    assert "another-secret" not in str(raised.value)
    assert "Signature=" not in str(raised.value)
    with pytest.raises(StorageError, match=r"foo:// cannot be read: Protocol not known"):
        open_storage(parse_place("foo://x/y"))
    assert time.monotonic() - began < 5


def test_signatures_are_no_part_of_a_message() -> None:
    said = "GET https://me:password@host/x?X-Amz-Signature=abc123&X-Amz-Credential=AKIA failed: Signature=abc123"
    detail = read_problem(OSError(said)).detail
    assert "host/x" in detail
    assert not [word for word in ("abc123", "AKIA", "password") if word in detail]


def test_credentials_in_a_file_are_read_again(bucket: Bucket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A file that somebody renews: the old ones are refused, the new ones work, in the same process."""
    (bucket.root / "small").write_bytes(b"1")
    monkeypatch.setattr("shards.storage.aws_files.REREAD_AFTER", __import__("datetime").timedelta(seconds=0))
    file, entry = tmp_path / "credentials", "[me]\naws_access_key_id = {}\naws_secret_access_key = {}\n"
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    monkeypatch.setenv("AWS_PROFILE", "me")
    right = bucket.environment["AWS_ACCESS_KEY_ID"], bucket.environment["AWS_SECRET_ACCESS_KEY"]
    file.write_text(entry.format("expired", "old"))
    s3 = open_storage(parse_place(bucket.url), 2)
    with pytest.raises(StorageError, match="403"):
        s3.read("small")
    file.write_text(entry.format(*right))
    assert s3.read("small") == b"1"
