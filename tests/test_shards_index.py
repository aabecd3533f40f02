"""Opening a folder of shards: quick and small whatever its size, and clear about what is wrong."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shards.dataset.files import INDEX, TABLE
from shards.dataset.index import SCHEMA, DataError, Index
from shards.dataset.order import Order
from shards.dataset.splits import Shard
from shards.dataset.table import ROW


def write(folder: Path, shards: int, shard_samples: int) -> dict[str, Any]:
    """Write an index of equal shards, with a table of zeros that takes no place on the disk."""
    columns = {"samples": [shard_samples] * shards, "bytes": [10240] * shards, "sha256": ["0" * 64] * shards}
    holdout = {"samples": 0, "shards": {"samples": [], "bytes": [], "sha256": []}}
    content = {
        "schema": SCHEMA,
        "settings": {"height": 64, "width": 96, "channels": 3, "encode": "raw"},
        "classes": ["a", "b"],
        "splits": {"train": {"samples": shards * shard_samples, "shards": columns}, "holdout": holdout},
    }
    (folder / INDEX).write_text(json.dumps(content))
    with (folder / TABLE).open("wb") as file:
        shape = (shards * shard_samples,)
        header = {"descr": np.lib.format.dtype_to_descr(ROW), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(file.tell() + shape[0] * ROW.itemsize)
    return content


def test_opens_a_billion_samples_in_little_memory(tmp_path: Path) -> None:
    write(tmp_path, shards=100_000, shard_samples=10_000)
    tracemalloc.start()
    index = Index.open(tmp_path)
    sample = Order(index.splits["train"].shard_samples, seed=0)([123_456_789_012])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 50_000_000
    assert 0 <= sample[0] < index.splits["train"].samples == len(index.table) == 10**9


def test_describes_the_shards(tmp_path: Path) -> None:
    write(tmp_path, shards=3, shard_samples=5)
    index = Index.open(tmp_path)
    assert (index.size, index.channels, index.encoding, index.classes) == ((64, 96), 3, "raw", ("a", "b"))
    assert index.splits["train"].shard_samples.tolist() == [5, 5, 5]
    assert index.splits["train"].shards[2] == Shard("train-000002.tar", 5, 10240, "0" * 64)
    assert (index.splits["holdout"].first, index.splits["holdout"].shards) == (15, ())


def test_says_what_is_wrong(tmp_path: Path) -> None:
    content = write(tmp_path, shards=3, shard_samples=5)
    table = (tmp_path / TABLE).read_bytes()

    def refused(path: Path = tmp_path) -> str:
        with pytest.raises(DataError) as caught:
            Index.open(path)
        return str(caught.value)

    assert "does not exist: build them with python -m shards build" in refused(tmp_path / "nothing")
    for damaged in ["", "[]", "{}", json.dumps({"schema": SCHEMA}), json.dumps(content | {"splits": []})]:
        (tmp_path / INDEX).write_text(damaged)
        assert "index.json is damaged: build the shards again" in refused()
    (tmp_path / INDEX).write_text(json.dumps(content | {"schema": SCHEMA + 1}))
    assert f"has schema {SCHEMA + 1}, and this version reads those up to {SCHEMA}" in refused()
    (tmp_path / INDEX).write_text(json.dumps(content))
    for wrong in [b"", table[:-1], table[:40]]:
        (tmp_path / TABLE).write_bytes(wrong)
        assert "table.npy" in refused()
    np.save(tmp_path / TABLE, np.zeros(14, ROW))
    assert "it has not 15 rows" in refused()
    (tmp_path / TABLE).unlink()
    assert "table.npy cannot be read" in refused()
    (tmp_path / INDEX).unlink()
    assert "holds no finished shards: build them with python -m shards build" in refused()
