"""Several sources in one build: their names, labels within each, tables, resuming, and the same bytes in any order."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from shards.__main__ import main
from shards.dataset.index import DataError, Index
from shards.sources.source_names import name_sources
from shards.storage.place import Url
from tests.made_sources import digests, excluded, facts, jpeg, make_source, said_by
from tests.s3_server import Bucket, serve_bucket

OPTIONS = ("--size", "16", "--shard-samples", "10", "--holdout", "0.2")


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A folder, a zip and a tar, with classes that have the same names in all of them."""
    folder = tmp_path_factory.mktemp("sources")
    for number, name in enumerate(("one", "two", "three")):
        for i in range(20):
            place = folder / name / ("baroque", f"only in {name}")[i % 2]
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{i:04d}.jpg").write_bytes(jpeg(100 * number + i))
        (folder / name / "notes.txt").write_text("not a picture")
    shutil.make_archive(str(folder / "two"), "zip", folder / "two")
    shutil.make_archive(str(folder / "three"), "tar", folder / "three")
    return [folder / "one", folder / "two.zip", folder / "three.tar"]


def build_from(sources: list[Path], out: Path, *args: str | Path) -> Index:
    assert main(["build", *map(str, (*sources, "--out", out, *OPTIONS, *args))]) == 0
    return Index.open(out)


def labels_of(index: Index) -> dict[str, str | None]:
    return {found["file"]: found["label"] for split in index.splits for found in facts(index, split)}


@pytest.fixture(scope="module")
def built(sources: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Index:
    out = tmp_path_factory.mktemp("built") / "shards"
    return build_from(sources, out, "--labels", "folders", "--workers", "2")


def test_names_begin_with_the_source_and_classes_are_those_within_each(built: Index, sources: list[Path]) -> None:
    assert built.classes == ("baroque", "only in one", "only in three", "only in two")
    assert built.content["class_counts"] == [30, 10, 10, 10]
    labels = labels_of(built)
    assert len(labels) == 60
    assert labels["two/baroque/0004.jpg"] == "baroque"
    assert all(label == name.split("/")[1] for name, label in labels.items())
    assert excluded(built.folder) == {f"{name}/notes.txt": "not_an_image" for name in ("one", "two", "three")}
    assert built.content["settings"]["sources"] == ["one", "three", "two"]
    assert "build SRC/one SRC/three SRC/two --out DIR" in (built.folder / "card.md").read_text()
    for name in "index.json", "card.md", "card.html":
        assert str(sources[0].parent) not in (built.folder / name).read_text()


def test_neither_order_nor_workers_nor_kind_change_a_byte(built: Index, sources: list[Path], tmp_path: Path) -> None:
    one, two, three = sources
    build_from([three, one, two], tmp_path / "other", "--labels", "folders", "--workers", "1")
    assert digests(tmp_path / "other") == digests(built.folder)
    build_from([two.with_suffix(""), three.with_suffix(""), one], tmp_path / "folders", "--labels", "folders")
    assert digests(tmp_path / "folders") == digests(built.folder)


def test_one_source_keeps_its_names(sources: list[Path], tmp_path: Path) -> None:
    index = build_from(sources[:1], tmp_path / "out")
    assert "sources" not in index.content["settings"]
    assert {name.split("/")[0] for name in labels_of(index)} == {"baroque", "only in one"}


def test_resuming_with_other_sources_is_refused(built: Index, sources: list[Path], tmp_path: Path) -> None:
    arguments = ["--out", str(tmp_path / "out"), *OPTIONS, "--labels", "folders", "--workers", "1"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("shards.building.phases.finalize_dataset", interrupt)
        assert main(["build", *map(str, sources), *arguments]) == 75
    other = "began with sources ['one', 'three', 'two'], and now it is"
    assert f"{other} ['one', 'two']" in said_by("build", *sources[:2], *arguments, "--resume")
    assert f"{other} None" in said_by("build", sources[0], *arguments, "--resume")
    assert main(["build", *map(str, reversed(sources)), *arguments, "--resume"]) == 0
    assert digests(tmp_path / "out") == digests(built.folder)
    assert f"{other} ['one', 'two']" in said_by("build", *sources[:2], *arguments, "--resume")


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_names_of_sources() -> None:
    def names(*paths: str) -> list[str]:
        return name_sources([Url(path) if "://" in path else Path(path) for path in paths])

    assert names("/x/a", "b.zip", "s3://bucket/c.TAR", "https://host/d/e.parquet") == ["a", "b", "c", "e"]
    assert names("/x/train", "/y/train.zip", "/y/test") == ["x-train", "y-train", "y-test"]
    assert names("s3://bucket", "s3://other/") == ["bucket", "other"]
    assert names(".", "..") == [Path.cwd().name, Path.cwd().parent.name]
    with pytest.raises(DataError, match="the source /x/a is named twice: name it once"):
        names("/x/a", "/y", "/x/../x/a/")
    with pytest.raises(DataError, match=r"/x/a and /x/a\.zip cannot be told apart by their names: rename one of them"):
        names("/x/a", "/x/a.zip")
    assert names("/x/a", "/x/b.zip") == ["a", "b"]  # that advice


def test_sources_that_are_refused(sources: list[Path], tmp_path: Path) -> None:
    assert "there is no source: name a folder of pictures" in said_by("build", "--out", tmp_path / "out")
    assert "lies inside the source" in said_by("build", *sources, "--out", sources[0] / "out")
    assert "does not exist" in said_by("build", sources[0], tmp_path / "gone", "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_row_names_a_picture_with_or_without_its_source(sources: list[Path], tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    rows = ["two/baroque/0000.jpg,with", "only in three/0001.jpg,within", "ONE\\Baroque\\0002.JPG,folded"]
    table.write_text("\n".join(["file,label", *rows]))
    labels = labels_of(build_from(sources, tmp_path / "out", "--labels", table))
    assert {name: label for name, label in labels.items() if label} == {
        "two/baroque/0000.jpg": "with",
        "three/only in three/0001.jpg": "within",
        "one/baroque/0002.jpg": "folded",
    }
    for row, what in ("baroque/0000.jpg", "path in the source"), ("0000.jpg", "last part"):
        table.write_text(f"file,label\n{row},x\n")
        said = said_by("build", *sources, "--out", tmp_path / "no", "--labels", table)
        assert f"the row of '{row}' fits the {what} of 3 files, 'one/baroque/0000.jpg' and 'two/" in said
        assert "write their whole paths" in said


def test_a_table_in_one_of_the_sources(tmp_path: Path) -> None:
    one, two = make_source(tmp_path / "one", 4, 1), make_source(tmp_path / "two", 3, 1)
    (two / "labels.csv").write_text("file,label\none/class 0/0000.jpg,x\ntwo/class 0/0001.jpg,y\n")
    index = build_from([one, two], tmp_path / "a", "--labels", "labels.csv", "--holdout", "0")
    assert index.classes == ("x", "y")
    for kind in "zip", "tar":
        packed = Path(shutil.make_archive(str(tmp_path / kind / "two"), kind, two))
        build_from([packed, one], tmp_path / f"of {kind}", "--labels", "labels.csv", "--holdout", "0")
        assert digests(tmp_path / f"of {kind}") == digests(tmp_path / "a")
    (one / "labels.csv").write_text("file,label\nclass 0/0000.jpg,z\n")
    said = said_by("build", one, two, "--out", tmp_path / "b", "--labels", "labels.csv")
    assert "--labels labels.csv is in several sources, such as one and two: make one table of them" in said
    both = tmp_path / "both.csv"
    both.write_text((two / "labels.csv").read_text() + "one/class 0/0001.jpg,z\n")
    assert build_from([one, two], tmp_path / "b", "--labels", both).classes == ("x", "y", "z")


def test_one_folder_around_the_classes_of_each_source(
    sources: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with zipfile.ZipFile(tmp_path / "wrapped.zip", "w") as archive:
        for path in sorted(sources[0].rglob("*.jpg")):
            archive.write(path, Path("around") / path.relative_to(sources[0]))
    build_from([sources[0], tmp_path / "wrapped.zip"], tmp_path / "out", "--labels", "folders")
    notes = [line for line in capsys.readouterr().err.splitlines() if line.startswith("note: ")]
    assert notes == [
        f"note: there is one class from {tmp_path / 'wrapped.zip'}, as everything lies in 'around'; for the folders in "
        "it as classes, unpack the archive and build from it"
    ]


def test_parquet_of_several_sources(tmp_path: Path) -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    for number, name in enumerate(("one", "two")):  # the rows of both have the same names
        (tmp_path / name).mkdir()
        cells = {"image": [jpeg(10 * number + i) for i in range(3)], "style": [f"{name} {i}" for i in range(3)]}
        parquet.write_table(arrow.table(cells), tmp_path / name / "train.parquet")
    places = [tmp_path / "one", tmp_path / "two"]
    options = ("--labels", "parquet", "--label-column", "style", "--holdout", "0")
    labels = labels_of(build_from(places, tmp_path / "out", *options))
    assert labels["one/train-000000001"] == "one 1"
    assert labels["two/train-000000002"] == "two 2"
    assert "is neither a Parquet file nor" in said_by(
        "build", places[0], make_source(tmp_path / "three", 1), "--out", tmp_path / "no", *options
    )


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bucket]:
    with serve_bucket(tmp_path_factory.mktemp("s3") / "buckets") as bucket:
        yield bucket


def test_buckets_and_folders_together(
    served: Bucket, built: Index, sources: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A prefix of a bucket, an archive at a URL and a local archive, of which one is read by one thread at a time."""
    served.use(monkeypatch)
    shutil.copytree(sources[0], served.root / "one")
    shutil.copy(sources[1], served.root / "two.zip")
    places = [f"{served.url}/two.zip", str(sources[2]), f"{served.url}/one"]
    assert main(["build", *places, "--out", str(tmp_path / "out"), *OPTIONS, "--labels", "folders"]) == 0
    assert digests(tmp_path / "out") == digests(built.folder)
    said = said_by("build", *places, "--out", f"{served.url}/one/out", *OPTIONS)
    assert "lies inside the source" in said
