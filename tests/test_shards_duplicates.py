"""The same picture twice: counted, shown with an example, and left out on request; never on both sides."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from shards.__main__ import main
from shards.building import duplicates
from shards.dataset.index import Index
from tests.made_sources import build, jpeg, run_shards


def pictures(folder: Path, *contents: int) -> Path:
    folder.mkdir(parents=True)
    for i, seed in enumerate(contents):
        (folder / f"{i:03d}.jpg").write_bytes(jpeg(seed))
    return folder


def truth(index: Index) -> dict[str, int]:
    """Count by the pixels themselves, as they lie in the shards."""
    stored: dict[str, list[bytes]] = {}
    for split in index.splits.values():
        rows = index.table[split.first : split.first + split.samples]
        shards = np.repeat(np.arange(len(split.shards)), split.shard_samples)
        stored[split.name] = [
            (index.path / split.shards[shard].name).read_bytes()[row["offset"] :][: row["size"]]
            for shard, row in zip(shards, rows, strict=True)
        ]
    train, holdout = stored["train"], stored["holdout"]
    assert not set(train) & set(holdout)
    return {"train": len(train) - len(set(train)), "holdout": len(holdout) - len(set(holdout))}


@pytest.mark.parametrize("at_once", [1 << 20, 7])  # in one pass, and in many
def test_both_kinds_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    monkeypatch.setattr(duplicates, "HASHES_PER_PASS", at_once)
    source = pictures(tmp_path / "source", *range(30), *range(15), *range(5))
    index = build(source, tmp_path / "out", "--holdout", "0.3", "--shard-samples", "9")
    counted = index.content["statistics"]["duplicates"]
    assert counted == truth(index)
    assert counted["train"] > 2
    assert counted["holdout"] > 2


def test_the_summary_names_two(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = pictures(tmp_path / "source", *range(40), *range(40))
    index = build(source, tmp_path / "out", "--holdout", "0.2", "--shard-samples", "9")
    said = capsys.readouterr().out
    for split, count in index.content["statistics"]["duplicates"].items():
        found = re.search(rf"repeated in {split}: {count} pictures .* such as '(\d+).jpg' those of '(\d+).jpg'", said)
        assert found
        again, first = map(int, found.groups())
        assert again == first + 40
    for i in range(40, 80):
        (source / f"{i:03d}.jpg").unlink()
    again_built = build(source, tmp_path / "again", "--holdout", "0.2")
    assert again_built.content["statistics"]["duplicates"] == {"train": 0, "holdout": 0}
    assert "repeated" not in capsys.readouterr().out


def test_inspect_tells_of_them(tmp_path: Path) -> None:
    build(pictures(tmp_path / "source", 1, 1, 1, 2), tmp_path / "out", "--holdout", "0")
    done = run_shards("inspect", tmp_path / "out")
    assert "duplicates: 2 pictures to train on repeat another one of them" in done.stdout


def test_workers_and_resuming_count_the_same(tmp_path: Path) -> None:
    source = pictures(tmp_path / "source", *range(20), *range(10))
    options = ["--size", "16", "--holdout", "0.3", "--shard-samples", "4"]
    for workers in "1", "3":
        assert main(["build", str(source), "--out", str(tmp_path / workers), *options, "--workers", workers]) == 0
    assert (tmp_path / "1" / "index.json").read_bytes() == (tmp_path / "3" / "index.json").read_bytes()
