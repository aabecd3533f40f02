"""`--add` extends a finished dataset: its shards, sides, classes and exclusions stay, whatever happens on the way."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shards.__main__ import main
from shards.building.holdout import SPLITS, HoldOut
from shards.dataset.index import Index
from shards.inspect import Inspect, run_inspect
from shards.verify import Verify, run_verify
from tests.made_sources import build, digests, excluded, facts, jpeg, make_source, said_by, samples
from tests.s3_server import Bucket, serve_bucket

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # webdataset leaves its shards open
OPTIONS = ("--size", "16", "--labels", "folders", "--shard-samples", "10", "--holdout", "0.2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A source of 60 pictures, and another one of 45, of which 5 repeat some of the first one, in new classes too."""
    folder = tmp_path_factory.mktemp("pictures")
    old = make_source(folder / "old", 60, 2)
    (old / "notes.txt").write_text("not a picture")
    new = folder / "new"
    for number in range(40):
        place = new / ("another class", "class 1", "zebras")[number % 3]
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number:04d}.jpg").write_bytes(jpeg(1000 + number))
    for number in range(5):
        (new / "zebras" / f"again {number}.jpg").write_bytes(jpeg(12 * number))
    (new / "broken.jpg").write_bytes(jpeg(1)[:200])
    return folder


@pytest.fixture(scope="module")
def old(folder: Path) -> Index:
    return build(folder / "old", folder / "dataset", *OPTIONS)


@pytest.fixture(scope="module")
def added(folder: Path, old: Index) -> Index:
    before = digests(old.folder)
    index = add(folder, folder / "added", "--workers", "2")
    assert digests(old.folder) == before
    return index


def add(folder: Path, out: str | Path, *args: str | Path) -> Index:
    assert main(["build", *map(str, (folder / "new", "--add", folder / "dataset", "--out", out, *args))]) == 0
    return Index.open(Path(out))


def sides(index: Index) -> dict[int, set[str]]:
    """Return on which sides of the hold-out each picture is, by its hash."""
    found: dict[int, set[str]] = {}
    for name, split in index.splits.items():
        for row in index.table[split.first : split.first + split.samples]:
            found.setdefault(int(row["image_hash"]), set()).add(name)
    return found


def test_old_samples_stay_where_they_are(old: Index, added: Index) -> None:
    before, after = sides(old), sides(added)
    assert {content: after[content] for content in before} == before
    assert all(len(names) == 1 for names in after.values())
    drawn = HoldOut(0.2, 0)
    assert after == {content: {SPLITS[drawn.side_of(content)]} for content in after}
    for name, split in old.splits.items():
        there = added.splits[name]
        assert there.shards[: len(split.shards)] == split.shards
        assert len(there.shards) > len(split.shards)
        for shard in split.shards:
            assert (added.folder / shard.name).samefile(old.folder / shard.name)  # a hard link
        rows = added.table[there.first : there.first + split.samples]
        assert np.array_equal(rows, old.table[split.first : split.first + split.samples])


def test_it_is_a_dataset_like_any_other(old: Index, added: Index, folder: Path, tmp_path: Path) -> None:
    assert run_verify(Verify(added.folder, 1)) == 0
    assert run_inspect(Inspect(added.folder, tmp_path / "grid.png", duplicates=tmp_path / "sheet.png")) == 0
    keys, names = [], []
    for split in added.splits.values():
        read = samples(added, split.name)
        rows = added.table[split.first : split.first + split.samples]
        assert len(read) == split.samples
        for sample, row in zip(read, rows, strict=True):
            assert added.classes[row["label"]] == sample["json"]["label"]
            keys.append(sample["__key__"])
            names.append(sample["json"]["file"])
    assert len(set(keys)) == len(keys) == 105
    assert set(names) == {str(path.relative_to(source)) for source in (folder / "old", folder / "new")
                          for path in source.rglob("*.jpg")} - {"broken.jpg"}  # fmt: skip
    pixels = np.stack([sample["npy"] for name in added.splits for sample in samples(added, name)]).reshape(-1, 3)
    statistics = added.content["statistics"]
    assert np.allclose(statistics["mean"], pixels.mean(0), atol=1e-3)
    assert np.allclose(statistics["std"], pixels.std(0), atol=1e-3)
    assert statistics["formats"] == {"JPEG": 105}
    assert sum(statistics["widths"]["counts"]) == 105
    assert sum(statistics["duplicates"].values()) == 5
    assert excluded(added.folder) == {"notes.txt": "not_an_image", "broken.jpg": "truncated"}
    (step,) = added.content["added_to"]
    assert step["index"] == added.content["settings"]["add"] == old.hash
    assert step["classes"] == 2
    assert "build SRC --add OLD --out DIR" in (added.folder / "card.md").read_text()


def test_classes_keep_their_numbers_and_new_ones_follow(old: Index, added: Index) -> None:
    assert old.classes == ("class 0", "class 1")
    assert added.classes == ("class 0", "class 1", "another class", "zebras")
    assert added.content["class_counts"] == [30, 43, 14, 18]
    assert np.bincount(added.table["label"]).tolist() == [30, 43, 14, 18]


def test_all_at_once_has_the_same_pictures_on_the_same_sides(added: Index, folder: Path, tmp_path: Path) -> None:
    assert main(["build", str(folder / "old"), str(folder / "new"), "--out", str(tmp_path / "out"), *OPTIONS]) == 0
    whole = Index.open(tmp_path / "out")
    assert sides(whole) == sides(added)
    for name in "mean", "std":
        assert np.allclose(whole.content["statistics"][name], added.content["statistics"][name], atol=2e-4)
    same = ("modes", "formats", "widths", "heights", "aspects", "enlarged", "duplicates")
    assert all(whole.content["statistics"][name] == added.content["statistics"][name] for name in same)


@pytest.mark.parametrize("link", [True, False])
def test_kills_change_no_byte(added: Index, folder: Path, tmp_path: Path, link: bool) -> None:
    """Killed while new shards are made, and when an old and a new shard have got their names; links, and copies."""
    program = """
import os, sys
import shards.building.target as target
import shards.building.make_shards as make
real, links = os.replace, sys.argv[1] == "True"
def replace(*names):
    real(*names)
    if os.fspath(names[1]).endswith(sys.argv[2]):
        os.kill(os.getpid(), 9)
def record(self, task, result, record=make.ShardMaker.record):
    record(self, task, result)
    if sys.argv[2] == "a task":
        os.kill(os.getpid(), 9)
def refuse(*names):
    raise OSError("another file system")
os.replace, make.ShardMaker.record = replace, record
if not links:
    os.link = refuse
from shards.__main__ import main
sys.exit(main(sys.argv[3:]))
"""
    out = tmp_path / "out"
    arguments = ["build", folder / "new", "--add", folder / "dataset", "--out", out, "--workers", "1"]
    places = ("a task", "train-000003.tar", "holdout-000002.tar") if link else ("train-000007.tar",)
    for number, place in enumerate(places):
        resume = ["--resume"] if number else []
        command = [sys.executable, "-c", program, link, place, *arguments, *resume]
        done = subprocess.run([*map(str, command)], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == -signal.SIGKILL, done.stderr
        assert not (out / "index.json").exists()
    command = [sys.executable, "-c", program, link, "nothing", *arguments, "--resume"]
    done = subprocess.run([*map(str, command)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert digests(out) == digests(added.folder)
    assert main([*map(str, arguments), "--resume"]) == 0


def test_options_are_those_of_the_dataset(folder: Path, old: Index, added: Index, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = ("build", folder / "new", "--add", old.folder, "--out", out)
    for option, what in {
        ("--size", "64"): "has height 16, and the options ask for 64",  # the default, and yet given
        ("--encode", "png"): "has encode 'raw', and the options ask for 'png'",
        ("--seed", "1"): "has seed 0, and",
        ("--holdout", "0.02"): "has holdout 0.2, and",
        ("--fit", "pad"): "has fit 'crop', and",
        ("--shard-samples", "11"): "has shard_samples 10, and",
        ("--labels", "none"): "has labels 'folders', and the options ask for 'none'",
        ("--normalise-labels",): "has normalise_labels",
    }.items():
        said = said_by(*command, *option)
        assert what in said
        assert "leave that option away" in said
        assert not out.exists()
    assert "one size, and --size names 2: leave it away" in said_by(*command, "--size", "16", "32")
    index = add(folder, out, *OPTIONS)  # given, and the same
    assert digests(index.folder) == digests(added.folder)


def test_what_cannot_be_added_to(folder: Path, old: Index, tmp_path: Path) -> None:
    new, out = folder / "new", tmp_path / "out"
    assert "does not exist" in said_by("build", new, "--add", tmp_path / "gone", "--out", out)
    assert "build outside of it" in said_by("build", new, "--add", old.folder, "--out", old.folder / "more")
    assert "build outside of it" in said_by("build", new, "--add", old.folder, "--out", old.folder)
    assert main(["index", str(old.folder), "--out", str(tmp_path / "indexed"), "--size", "16"]) == 0
    assert "index them together" in said_by("build", new, "--add", tmp_path / "indexed", "--out", out)
    shutil.copytree(old.folder, tmp_path / "by name")
    path = tmp_path / "by name" / "index.json"
    content = json.loads(path.read_text())
    del content["settings"]["holdout_by"]
    path.write_text(json.dumps(content))
    assert "which drew the hold-out by the names" in said_by("build", new, "--add", path.parent, "--out", out)
    for name in "train-000002.tar", "table.npy", "excluded.jsonl", "index.json":
        shutil.rmtree(tmp_path / "damaged", ignore_errors=True)
        shutil.copytree(old.folder, tmp_path / "damaged")
        damaged = tmp_path / "damaged" / name
        data = damaged.read_bytes()
        damaged.write_bytes(data.replace(b'"seed": 0', b'"seed": 1') if name == "index.json" else data[:-1])
        said = said_by("build", new, "--add", damaged.parent, "--out", out)
        assert f"{name} is damaged or missing; see: python -m shards verify" in said
        shutil.rmtree(out, ignore_errors=True)
    damaged = tmp_path / "damaged" / "train-000002.tar"
    shutil.copytree(old.folder, damaged.parent, dirs_exist_ok=True)
    data = damaged.read_bytes()
    damaged.write_bytes(data[:-1] + b"x")  # behind the samples
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.link", no_link)  # so that it is copied
        said = said_by("build", new, "--add", damaged.parent, "--out", out)
    assert "train-000002.tar is damaged or missing; see: python -m shards verify" in said
    shutil.rmtree(out)
    (tmp_path / "nothing" / "class").mkdir(parents=True)
    (tmp_path / "nothing" / "class" / "x.jpg").write_text("no")
    assert "there is no picture to add" in said_by("build", tmp_path / "nothing", "--add", old.folder, "--out", out)


def test_another_dataset_under_the_same_name_is_refused(folder: Path, old: Index, tmp_path: Path) -> None:
    shutil.copytree(old.folder, tmp_path / "old")
    command = ("build", folder / "new", "--add", tmp_path / "old", "--out", tmp_path / "out")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("shards.building.phases.finalize_dataset", interrupt)
        assert main([*map(str, command)]) == 75
    shutil.rmtree(tmp_path / "old")
    build(folder / "new", tmp_path / "old", *OPTIONS)
    assert "began with add" in said_by(*command, "--resume")


def no_link(*_: object) -> None:
    raise OSError("another file system")


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_duplicates_of_old_pictures_are_left_out_and_old_ones_stay(
    folder: Path, old: Index, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index = add(folder, tmp_path / "exact", "--deduplicate", "exact")
    left = {name: reason for name, reason in excluded(index.folder).items() if reason == "duplicate"}
    assert left == {f"zebras/again {number}.jpg": "duplicate" for number in range(5)}
    assert "has the pixels of 'class 0/0012.jpg'" in (index.folder / "excluded.jsonl").read_text()
    assert sides(index) == sides(add(folder, tmp_path / "none"))
    assert index.content["settings"]["deduplicate"] == "exact"
    assert sum(index.content["statistics"]["duplicates"].values()) == 0
    assert "such as 'zebras/again" in capsys.readouterr().out  # of the build that left none out


def test_near_duplicates_of_old_pictures_are_left_out_and_old_ones_stay(folder: Path, tmp_path: Path) -> None:
    """Old ones that are equal, or nearly equal, to one another stay too."""
    for name, quality in (("again", 95), ("more", 90)):
        (tmp_path / name / "class 0").mkdir(parents=True)
        for number in range(10):
            with Image.open(folder / "old" / f"class {number % 2}" / f"{number:04d}.jpg") as picture:
                picture.save(tmp_path / name / "class 0" / f"{number}.jpg", quality=quality)
    (tmp_path / "again" / "class 0" / "equal.jpg").write_bytes(jpeg(0))
    (tmp_path / "more" / "class 0" / "other.jpg").write_bytes(jpeg(77777))
    command = ["build", folder / "old", tmp_path / "again", "--out", tmp_path / "dataset", *OPTIONS]
    assert main([*map(str, command)]) == 0
    old = Index.open(tmp_path / "dataset")
    command = ["build", tmp_path / "more", "--add", old.folder, "--out", tmp_path / "out", "--deduplicate", "near"]
    assert main([*map(str, command)]) == 0
    index = Index.open(tmp_path / "out")
    left = {name for name, why in excluded(index.folder).items() if why in ("duplicate", "near_duplicate")}
    assert left == {f"class 0/{number}.jpg" for number in range(10)}
    assert "is nearly equal to 'again/class 0/" in (index.folder / "excluded.jsonl").read_text()
    assert len(index.table) == len(old.table) + 1
    assert index.content["statistics"]["duplicates"] == old.content["statistics"]["duplicates"]


def test_adding_twice(added: Index, folder: Path, tmp_path: Path) -> None:
    source = make_source(tmp_path / "third", 30, 1)
    for path in source.rglob("*.jpg"):
        path.write_bytes(jpeg(5000 + int(path.stem)))
    command = ["build", source, "--add", added.folder, "--out", tmp_path / "out", "--deduplicate", "exact"]
    assert main([*map(str, command)]) == 0
    index = Index.open(tmp_path / "out")
    assert len(index.table) == 135
    assert index.classes == added.classes
    assert excluded(index.folder) == excluded(added.folder)  # old pictures that repeat others are none
    assert index.content["statistics"]["duplicates"] == added.content["statistics"]["duplicates"]
    before, after = sides(added), sides(index)
    assert {content: after[content] for content in before} == before
    assert [step["index"] for step in index.content["added_to"]] == [
        added.content["settings"]["add"],
        added.hash,
    ]
    keys = [sample["__key__"] for name in index.splits for sample in samples(index, name)]
    assert len(set(keys)) == 135
    assert run_verify(Verify(index.folder, 1)) == 0


def test_several_label_columns_and_numbers(tmp_path: Path) -> None:
    old, new = make_source(tmp_path / "old", 8, 1), make_source(tmp_path / "new", 4, 1)
    for path in new.rglob("*.jpg"):
        path.write_bytes(jpeg(100 + int(path.stem)))
    for name, rows in {"old": 8, "new": 4}.items():
        lines = [f"{i:04d},{name} {i % 2},{'ab'[i % 2] if name == 'old' else 'zb'[i % 2]},{i}.5" for i in range(rows)]
        (tmp_path / f"{name}.csv").write_text("\n".join([f"{name}file,style,artist,year", *lines]))
    columns = ("--label-column", "style", "artist", "--number-column", "year")
    options = ("--labels", tmp_path / "old.csv", "--file-column", "oldfile", *columns, "--holdout", "0.3")
    before = build(old, tmp_path / "dataset", *options)
    command = ("build", new, "--add", tmp_path / "dataset", "--out", tmp_path / "out")
    assert "name a table of the new pictures with --labels" in said_by(*command)
    table = ("--labels", tmp_path / "new.csv", "--file-column", "newfile")
    assert "has labels ['style', 'artist'], and" in said_by(*command, *table, "--label-column", "style")
    assert main([*map(str, (*command, *table))]) == 0
    index = Index.open(tmp_path / "out")
    assert index.classes == ("old 0", "old 1", "new 0", "new 1")
    artist, year = index.content["attributes"]["columns"]
    assert (artist["classes"], artist["counts"], year["kind"]) == (["a", "b", "z"], [4, 6, 2], "number")
    rows = np.load(tmp_path / "out" / "labels.npy")
    told = [found for name in index.splits for found in facts(index, name)]
    assert [artist["classes"][row["artist"]] for row in rows] == [found["labels"]["artist"] for found in told]
    assert rows["year"].tolist() == [found["numbers"]["year"] for found in told]
    assert len(before.table) + 4 == len(rows)
    assert run_verify(Verify(index.folder, 1)) == 0


def test_vectors(tmp_path: Path) -> None:
    old, new = make_source(tmp_path / "old", 4, 1), make_source(tmp_path / "new", 3, 1)
    for path in new.rglob("*.jpg"):
        path.write_bytes(jpeg(100 + int(path.stem)))
    table = tmp_path / "dataset.json"

    def write(*labels: object) -> None:
        table.write_text(json.dumps({"labels": [[f"{i:04d}.jpg", label] for i, label in enumerate(labels)]}))

    write([1, 2], [3, 4])
    build(old, tmp_path / "dataset", "--labels", table, "--holdout", "0")
    command = ("build", new, "--add", tmp_path / "dataset", "--out", tmp_path / "out", "--labels", table)
    for labels in ("a", "b"), ([1, 2, 3],):
        write(*labels)
        assert "are vectors of 2 numbers, and those of the new pictures" in said_by(*command)
        assert not list(tmp_path.glob("out/*"))
    write([5, 6], [7, 8])
    assert main([*map(str, command)]) == 0
    rows = np.load(tmp_path / "out" / "labels.npy")["label"].tolist()
    assert rows[:2] + rows[4:6] == [[1, 2], [3, 4], [5, 6], [7, 8]]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bucket]:
    with serve_bucket(tmp_path_factory.mktemp("s3") / "buckets") as bucket:
        yield bucket


def test_from_a_bucket_into_a_bucket(
    served: Bucket, added: Index, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served.use(monkeypatch)
    shutil.copytree(folder / "dataset", served.root / "dataset")
    command = ["build", str(folder / "new"), "--add", f"{served.url}/dataset", "--out", f"{served.url}/added"]
    command += ["--work", str(tmp_path / "work")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("shards.building.finalize.write_cards", interrupt)
        assert main(command) == 75
    kept = (served.root / "added" / "train-000000.tar").stat().st_mtime_ns
    assert main([*command, "--resume"]) == 0
    assert digests(served.root / "added") == digests(added.folder)
    assert (served.root / "added" / "train-000000.tar").stat().st_mtime_ns == kept  # not uploaded again
    assert os.listdir(tmp_path / "work") == []
    local = ["build", str(folder / "new"), "--add", f"{served.url}/dataset", "--out", str(tmp_path / "local")]
    assert main(local) == 0
    assert digests(tmp_path / "local") == digests(added.folder)
