"""Pictures in Parquet, as the Hugging Face hub has them, become the samples that the same files in a folder become."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shards.__main__ import main
from shards.sources.parquet_source import BATCH, Cursor, ParquetSource, parquet_files
from tests.made_sources import build, digests, excluded, facts, jpeg, make_source, refuse, samples

CLASSES = ["cat", "dog", "fox"]
pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # webdataset leaves its shards open
HUB = {
    "info": {
        "features": {
            "image": {"_type": "Image"},
            "label": {"_type": "ClassLabel", "names": CLASSES},
            "year": {"_type": "Value", "dtype": "int32"},
        }
    }
}
OPTIONS = ("--holdout", "0.2", "--shard-samples", "10")


def write(path: Path, pictures: list[bytes | None], first: int = 0, hub: bool = True, **columns: Any) -> Path:
    """Write a file as the datasets library does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cells = [
        None if data is None else {"bytes": data, "path": f"{number:04d}.jpg"} for number, data in enumerate(pictures)
    ]
    labels = [(first + number) % len(CLASSES) for number in range(len(pictures))]
    table = pa.table(
        {
            "image": pa.array(cells, pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
            "label": pa.array(labels, pa.int64()),
            "year": pa.array([1900 + number for number in range(len(pictures))], pa.int32()),
            **columns,
        }
    )
    if hub:
        table = table.replace_schema_metadata({"huggingface": json.dumps(HUB)})
    pq.write_table(table, path, row_group_size=2 * BATCH + 3)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A dataset of the hub: two files."""
    for number in range(2):
        pictures: list[bytes | None] = [jpeg(100 * number + i) for i in range(50)]
        write(tmp_path / "data" / f"train-{number:05d}-of-00002.parquet", pictures, 50 * number)
    return tmp_path / "data"


def test_the_rows_are_the_pictures(folder: Path, tmp_path: Path) -> None:
    index = build(folder, tmp_path / "out", *OPTIONS, "--labels", "parquet", "--number-column", "year")
    assert index.classes == ("cat", "dog", "fox")
    assert index.content["class_counts"] == [34, 33, 33]
    assert index.content["attributes"]["columns"] == [{"name": "year", "kind": "number"}]
    told = sorted(facts(index) + facts(index, "holdout"), key=lambda fact: str(fact["file"]))
    assert [fact["file"] for fact in told][::99] == ["train-00000-of-00002-000000000", "train-00001-of-00002-000000049"]
    assert [fact["label"] for fact in told] == [CLASSES[number % 3] for number in range(100)]
    assert [fact["numbers"]["year"] for fact in told] == [1900.0 + number % 50 for number in range(100)]
    # The pixels of row N are those of picture N.
    source = tmp_path / "files"
    for number in range(100):
        path = source / f"train-{number // 50:05d}-of-00002-{number % 50:09d}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(jpeg(100 * (number // 50) + number % 50))
    local = build(source, tmp_path / "local", *OPTIONS)
    for split in "train", "holdout":
        pairs = zip(samples(index, split), samples(local, split), strict=True)
        assert all((ours["npy"] == theirs["npy"]).all() for ours, theirs in pairs)


def test_one_file_in_a_bucket_and_workers_change_nothing(folder: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    name = "train-00000-of-00002.parquet"
    build(folder / name, tmp_path / "one", *OPTIONS, "--labels", "parquet")
    build(f"local://data/{name}", tmp_path / "url", *OPTIONS, "--labels", "parquet", "--workers", "2")
    assert digests(tmp_path / "one") == digests(tmp_path / "url")


def test_a_link_of_the_cache_of_the_hub_keeps_its_name(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link.parquet").symlink_to(folder / "train-00000-of-00002.parquet")
    (entry, *_) = ParquetSource(parquet_files(tmp_path / "link.parquet")).scan()
    assert entry.name == b"link-000000000"


def test_rows_are_read_in_any_order(folder: Path) -> None:
    source = ParquetSource(parquet_files(folder))
    places = [entry.place for entry in source.scan()]
    for number in 60, 30, 2, 99, 98, 0:
        assert source.read(b"", places[number], 1 << 20) == jpeg(100 * (number // 50) + number % 50)


def test_rows_that_are_no_pictures(tmp_path: Path) -> None:
    path = write(tmp_path / "x.parquet", [jpeg(0), None, b"", b"text", jpeg(0) + bytes(5000), jpeg(1)], hub=False)
    build(path, tmp_path / "out", "--holdout", "0", "--max-bytes", "5000")
    assert excluded(tmp_path / "out") == {
        "x-000000001": "unreadable",
        "x-000000002": "empty",
        "x-000000003": "not_an_image",
        "x-000000004": "too_many_bytes",
    }


def test_labels_without_the_metadata_of_the_hub(tmp_path: Path) -> None:
    style = pa.array([None, "cubism", "baroque"])
    path = write(tmp_path / "x.parquet", [jpeg(i) for i in range(3)], hub=False, style=style)
    options = ("--holdout", "0", "--labels", "parquet")
    assert build(path, tmp_path / "a", *options).classes == ("0", "1", "2")
    assert build(path, tmp_path / "b", *options, "--label-column", "style").classes == ("baroque", "cubism")
    assert len(build(path, tmp_path / "c", *options, "--filter", "style=cubism").table) == 1
    said = refuse(path, tmp_path / "d", "x.parquet has no column 'kind'", *options, "--label-column", "kind")
    assert "it has: 'image', 'label', 'year', 'style': name another one with --label-column" in said


def test_a_changed_file_is_noticed_on_resume(folder: Path, tmp_path: Path) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    words = ["build", str(folder), "--out", str(tmp_path / "out"), "--size", "16", "--workers", "1", *OPTIONS]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("shards.building.phases.finalize_dataset", interrupt)
        assert main(words) == 75
    write(folder / "train-00001-of-00002.parquet", [jpeg(7 + i) for i in range(50)])
    refuse(folder, tmp_path / "out", "is new or changed", *words[4:], "--resume")


def test_columns_that_may_not_be_meant(tmp_path: Path) -> None:
    cells = pa.array([{"bytes": jpeg(0), "path": ""}])
    pq.write_table(pa.table({"a": cells, "b": cells}), tmp_path / "two.parquet")
    refuse(tmp_path / "two.parquet", tmp_path / "out", "several columns of pictures, 'a', 'b': keep one of them")
    pq.write_table(pa.table({"a": cells}), tmp_path / "two.parquet")
    build(tmp_path / "two.parquet", tmp_path / "out", "--holdout", "0")
    pq.write_table(pa.table({"text": ["x"]}), tmp_path / "none.parquet")
    refuse(tmp_path / "none.parquet", tmp_path / "no", "has no column of pictures")
    pq.write_table(pa.table({"plain": [jpeg(0)]}), tmp_path / "plain.parquet")
    build(tmp_path / "plain.parquet", tmp_path / "plain", "--holdout", "0")


def test_a_damaged_file_and_one_that_is_none(folder: Path, tmp_path: Path) -> None:
    path = folder / "train-00000-of-00002.parquet"
    path.write_bytes(path.read_bytes()[:-9])
    refuse(folder, tmp_path / "out", "train-00000-of-00002.parquet is damaged")
    source = make_source(tmp_path / "source", 3)
    refuse(source, tmp_path / "out", "is neither a Parquet file nor a folder of them: give", "--labels", "parquet")
    (source / "x.parquet").write_bytes(path.read_bytes())
    assert parquet_files(source) == []
    build(source, tmp_path / "mixed", "--holdout", "0")
    assert excluded(tmp_path / "mixed") == {"x.parquet": "not_an_image"}


def test_without_pyarrow_it_is_named(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    refuse(folder, tmp_path / "out", "pip install lienzo[parquet]")


def test_few_pictures_of_a_large_row_group_are_in_memory(tmp_path: Path) -> None:
    table = pa.table({"image": [bytes([number]) * 1_000_000 for number in range(200)]})
    pq.write_table(table, tmp_path / "x.parquet", row_group_size=200, use_dictionary=False, write_batch_size=8)
    del table
    pool, cursor = pa.default_memory_pool(), Cursor(tmp_path / "x.parquet", 0, 0)
    before, peak = pool.bytes_allocated(), 0
    for row in range(200):
        assert cursor.read(row) == bytes([row]) * 1_000_000
        peak = max(peak, pool.bytes_allocated() - before)
    assert peak < 60e6
