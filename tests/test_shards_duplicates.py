"""The same picture twice: counted, shown with an example, and left out on request; never on both sides."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageDraw

from shards.__main__ import main
from shards.building import duplicates, layout
from shards.building.near import HashIndex, find_near
from shards.dataset.index import Index
from shards.images.fingerprint import MAX_BITS, agree, fingerprint
from shards.near_duplicates import find_groups
from tests.made_sources import build, digests, facts, jpeg, run_shards, samples

pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # webdataset leaves its shards open


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
            (index.folder / split.shards[shard].name).read_bytes()[row["offset"] :][: row["size"]]
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


# What is left out


def near_source(folder: Path) -> Path:
    """Return 30 pictures, of which 8 are there again as they are and 8 saved again at another size and quality."""
    pictures(folder, *range(30), *range(8))
    for i in range(8, 16):
        image = Image.open(folder / f"{i:03d}.jpg").resize((54, 36), Image.Resampling.LANCZOS)
        image.save(folder / f"small {i}.jpg", quality=95, subsampling=0)
    return folder


def left_out(out: Path) -> dict[str, tuple[str, str]]:
    lines = map(json.loads, (out / "excluded.jsonl").read_text().splitlines())
    return {line["file"]: (line["reason"], line["detail"]) for line in lines}


EXACT = {f"{i + 30:03d}.jpg": ("duplicate", f"has the pixels of '{i:03d}.jpg'") for i in range(8)}
NEAR = {f"small {i}.jpg": ("near_duplicate", f"is nearly equal to '{i:03d}.jpg'") for i in range(8, 16)}


@pytest.mark.parametrize(("how", "expected"), [("exact", EXACT), ("near", EXACT | NEAR)])
def test_deduplication_leaves_out_all_but_the_first(tmp_path: Path, how: str, expected: dict[str, object]) -> None:
    """What is left is, but for keys, what a build of a source without the copies has, statistics and all."""
    source, options = near_source(tmp_path / "source"), ("--holdout", "0.3", "--shard-samples", "6", "--labels", "none")
    index = build(source, tmp_path / "out", "--deduplicate", how, *options)
    assert left_out(tmp_path / "out") == expected
    assert main(["verify", str(tmp_path / "out")]) == 0
    assert index.content["statistics"]["duplicates"] == {"train": 0, "holdout": 0}
    for name in expected:
        (source / name).unlink()
    clean = build(source, tmp_path / "clean", *options)
    assert clean.content["statistics"] == index.content["statistics"]
    for split in "train", "holdout":
        assert facts(clean, split) == facts(index, split)
        assert [s["npy"].tobytes() for s in samples(clean, split)] == [
            s["npy"].tobytes() for s in samples(index, split)
        ]
    assert np.array_equal(clean.table["image_hash"], index.table["image_hash"])


def test_a_near_copy_is_never_on_the_other_side(tmp_path: Path) -> None:
    """Of near copies on two sides, which another hash of the pixels puts there, the first by name stays alone."""
    source = near_source(tmp_path / "source")
    plain = build(source, tmp_path / "plain", "--holdout", "0.5")
    assert any(len({place.split for place in group}) > 1 for group in find_groups(plain))
    index = build(source, tmp_path / "out", "--holdout", "0.5", "--deduplicate", "near")
    assert find_groups(index) == []


def test_workers_kills_and_resuming_leave_out_the_same(tmp_path: Path) -> None:
    source = near_source(tmp_path / "source")
    (source / "black.png").write_bytes(flat((0, 0, 0)))
    options = ("--size", "16", "--holdout", "0.3", "--shard-samples", "5", "--deduplicate", "near")
    for workers in "1", "3":
        assert main(["build", str(source), "--out", str(tmp_path / workers), *options, "--workers", workers]) == 0
    for kill in range(3):  # while shards are renamed and copied, and again at the same place
        again = ["build", str(source), "--out", str(tmp_path / "killed"), *options, "--workers", "2"]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(layout, "write_shard_file", stop_after(layout.write_shard_file, 2 + kill))
            assert main([*again, *(["--resume"] if kill else [])]) == 75
    assert main([*again, "--resume"]) == 0
    assert digests(tmp_path / "1") == digests(tmp_path / "3") == digests(tmp_path / "killed")


def stop_after(function: Callable[..., Any], calls: int) -> Callable[..., Any]:
    """Return a function that is killed, as far as others see, after some calls."""
    made = iter(range(calls))

    def call(*args: Any) -> Any:
        if next(made, None) is None:
            raise KeyboardInterrupt
        return function(*args)

    return call


def flat(colour: tuple[int, int, int]) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (40, 40), colour).save(buffer, "PNG")
    return buffer.getvalue()


def ellipse(*box: int, fill: str, dot: bool = False) -> npt.NDArray[np.uint8]:
    image = Image.new("RGB", (64, 64), "white")
    draw = ImageDraw.Draw(image)
    draw.ellipse(box, fill=fill)
    if dot:
        draw.rectangle((28, 24, 31, 36), fill="white")
    return np.asarray(image)


def speck(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    changed = pixels.copy()
    changed[29:31, 29:31] = 255
    return changed


def test_drawings_that_differ_in_colour_or_detail_are_not_near() -> None:
    """They have the same perceptual hash, or nearly: flat ones, empty pages, one shape in two colours, a digit more."""
    made = [
        *(np.full((64, 64, 3), level, np.uint8) for level in (0, 40, 255)),
        ellipse(30, 30, 33, 33, fill="green"),
        ellipse(30, 30, 33, 33, fill="blue"),
        ellipse(3, 50, 6, 53, fill="black"),
        ellipse(12, 12, 13, 13, fill="#c0c0c0"),
        ellipse(48, 44, 49, 45, fill="#c0c0c0"),
        ellipse(6, 6, 57, 57, fill="black"),
        speck(ellipse(6, 6, 57, 57, fill="black")),
        ellipse(10, 10, 50, 50, fill="#c80000"),
        ellipse(10, 10, 50, 50, fill="#006600"),
        ellipse(10, 10, 50, 50, fill="#c80000", dot=True),
    ]
    prints = np.stack([fingerprint(pixels) for pixels in made])
    assert len(set(prints["hash"].tolist())) < len(made) - 2, "this shows nothing"
    assert find_near(prints).tolist() == [*range(len(made))]


def test_the_first_of_a_chain_decides() -> None:
    """Each of a slow change is near to the one before it; what is left out is near to one that stays."""
    prints = np.stack([fingerprint(ellipse(5, 5, 30 + x, 58, fill="#dddddd")) for x in range(24)])
    first = find_near(prints)
    assert len(set(first.tolist())) > 2
    for number, leader in enumerate(first.tolist()):
        assert first[leader] == leader <= number
        assert agree(prints["cells"][number], prints["cells"][[leader]])[0]


def test_the_index_finds_what_comparing_all_finds() -> None:
    rng = np.random.default_rng(0)
    hashes, flips = rng.integers(0, 1 << 64, 300, dtype=np.uint64).tolist(), rng.integers(0, 64, (2, 300)).tolist()
    hashes += [number ^ (1 << a) ^ (1 << b) for number, a, b in zip(hashes, *flips, strict=True)]
    index = HashIndex()
    for number in hashes:
        index.add(number)
    for number in hashes:
        assert index.near(number) == {other for other in hashes if (other ^ number).bit_count() <= MAX_BITS}


def test_a_sheet_of_groups(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    index = build(near_source(tmp_path / "source"), tmp_path / "out", "--holdout", "0.5")
    capsys.readouterr()
    assert main(["inspect", str(index.path), "--duplicates", str(tmp_path / "sheet.png")]) == 0
    said = capsys.readouterr().out
    assert re.search(r"equal or nearly equal: 16 pictures repeat one of 16 others; on both sides: \d", said)
    assert "'000.jpg', '030.jpg'" in said
    assert "'small 8.jpg'" in said
    sheet = Image.open(tmp_path / "sheet.png")
    assert sheet.size == (2 * 20, 16 * 20)
    assert len({place for group in find_groups(index) for place in group}) == 32
