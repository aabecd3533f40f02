"""inspect shows what a folder of shards holds."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shards.dataset.files import INDEX
from shards.dataset.index import Index
from shards.dataset.stream import Reader
from shards.inspect import GAP, Inspect, histogram_rows, run_inspect
from tests.small_shards import CLASSES, EXCLUDED, PICTURES, SIZE, build

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("inspect"), encode="png")


def rows(text: str) -> dict[str, list[str]]:
    """Return the cells of all tables by the first of their row."""
    lines = [[cell.strip() for cell in line.strip("│┃").split("│")] for line in text.splitlines() if "│" in line]
    return {cells[0]: cells[1:] for cells in lines}


def test_tables(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_inspect(Inspect(data)) == 0
    text = capsys.readouterr().out
    cells, index = rows(text), Index.open(data)
    for name, split in index.splits.items():
        size = sum((data / shard.name).stat().st_size for shard in split.shards)
        assert cells[name] == [str(split.samples), str(len(split.shards)), f"{size / 1e6:.1f}"]
    assert sum(split.samples for split in index.splits.values()) == PICTURES * len(CLASSES)
    for name in CLASSES:
        assert cells[name] == [str(PICTURES)]
    assert {reason: int(cells[reason][0]) for reason in EXCLUDED} == EXCLUDED
    assert f"height {SIZE}, width {SIZE}, channels 3, fit crop" in text
    assert "encode png" in " ".join(text.split())
    assert "48 PNG, 48 RGB, 0 enlarged" in " ".join(text.split())


def test_histogram(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_inspect(Inspect(data))
    heights = rows(capsys.readouterr().out.split("heights")[1])
    # 31 to 53 pixels and, once in each class, 300.
    assert heights["16 to 31"][0] == "2"
    assert heights["32 to 63"] == ["44", "█" * 40]
    assert heights["128 to 255"] == ["0", ""]
    assert heights["256 to 383"] == ["2", "██"]
    assert "384 to 511" not in heights


def test_histogram_beyond_its_edges() -> None:
    assert [row[0] for row in histogram_rows([16, 32], [1, 0, 1])] == ["0 to 15", "16 to 31", "32 and more"]
    assert list(histogram_rows([16, 32], [0, 0, 0])) == []


def test_many_classes(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = Path(shutil.copytree(data, tmp_path / "data"))
    content = json.loads((copy / INDEX).read_text())
    content |= {"classes": [f"[bold]{i}" for i in range(30)], "class_counts": list(range(30))}
    (copy / INDEX).write_text(json.dumps(content))
    assert run_inspect(Inspect(copy)) == 0
    cells = rows(capsys.readouterr().out)
    assert cells["[bold]29"] == ["29"]
    assert cells["10 others"] == [str(sum(range(10)))]
    assert "[bold]9" not in cells


@pytest.mark.parametrize("num", [1, 5, 10_000])
def test_grid_shows_the_pictures(num: int, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "grid.png"
    assert run_inspect(Inspect(data, out=out, num=num)) == 0
    index = Index.open(data)
    samples = index.splits["train"].samples
    columns, lines = {1: (1, 1), 5: (3, 2)}.get(num, (-(-samples // 6), 6))
    with Image.open(out) as grid:
        assert grid.format == "PNG"
        pixels = np.asarray(grid)
    pitch = SIZE + GAP
    assert pixels.shape[1] == columns * pitch + GAP
    assert num > samples or pixels.shape[0] == lines * pitch + GAP
    stored = Reader(index, "train", lambda sample, what: pytest.fail(what))(np.arange(samples)).images
    shown = [
        pixels[top : top + SIZE, left : left + SIZE]
        for top in range(GAP, pixels.shape[0], pitch)
        for left in range(GAP, pixels.shape[1], pitch)
    ][: min(num, samples)]
    found = [next(i for i, image in enumerate(stored) if (image == picture).all()) for picture in shown]
    assert found == sorted(set(found))


def test_the_seed_names_the_choice(data: Path, tmp_path: Path) -> None:
    grids = []
    for i, seed in enumerate([0, 0, 1]):
        assert run_inspect(Inspect(data, out=tmp_path / f"{i}.png", num=9, seed=seed)) == 0
        grids.append((tmp_path / f"{i}.png").read_bytes())
    assert grids[0] == grids[1] != grids[2]


def test_damaged_samples_are_told_of(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = Path(shutil.copytree(data, tmp_path / "data"))
    index = Index.open(copy)
    shard = copy / index.splits["train"].shards[0].name
    content = bytearray(shard.read_bytes())
    content[int(index.table["offset"][2])] ^= 1
    shard.write_bytes(content)
    assert run_inspect(Inspect(copy, out=tmp_path / "grid.png", num=10_000)) == 0
    assert capsys.readouterr().err.startswith(f"sample 2: {shard.name}")


def command(*args: object) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "shards", "inspect", *map(str, args)]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=60)


def test_command(data: Path, tmp_path: Path) -> None:
    done = command(data, "--out", tmp_path / "grid.png", "--num", 4)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"grid\.png: \d+ x \d+ pixels\n$", done.stdout)
    refused = command(tmp_path / "nothing")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "does not exist" in refused.stderr


def test_refusals(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = Path(shutil.copytree(data, tmp_path / "data"))
    text = (copy / INDEX).read_text()
    (copy / INDEX).write_text(text.replace('"statistics"', '"statistic5"'))
    for args, what in [
        (Inspect(tmp_path), "holds no finished shards"),
        (Inspect(data, num=0), "--num 0"),
        (Inspect(data, out=tmp_path / "no folder" / "grid.png"), "No such file or directory"),
        (Inspect(copy), "is damaged; run: python -m shards verify"),
    ]:
        assert run_inspect(args) == 2
        error = capsys.readouterr().err
        assert what in error
        assert error.count("\n") == 1
