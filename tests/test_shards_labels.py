"""Labels: a row that fits several pictures, names that are the same to people, tables as spreadsheets write them, and
labels that were asked for and are not there."""

from __future__ import annotations

import json
import os
import shutil
import unicodedata
import zipfile
from pathlib import Path

import numpy as np
import pytest

from shards.__main__ import main
from shards.dataset.labels import LabelReader
from tests.made_sources import build, digests, excluded, facts, jpeg, refuse, said_by


def pictures(folder: Path, *names: str) -> Path:
    for i, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(jpeg(i))
    return folder


def table(path: Path, *rows: str, header: str = "file,label", encoding: str = "utf-8") -> Path:
    path.write_text("\n".join((header, *rows, "")), encoding=encoding)
    return path


def labels(source: Path, out: Path, csv: Path) -> dict[str, str | None]:
    index = build(source, out, "--labels", csv, "--holdout", "0")
    return {picture["file"]: picture["label"] for picture in facts(index)}


# A row that fits several pictures


@pytest.mark.parametrize(
    ("names", "row", "what"),
    [
        (("train/0.jpg", "test/0.jpg"), "0.jpg", "last part"),
        (("train/0.jpg", "test/0.png"), "0", "last part without extension"),
        (("a.jpg", "a.png"), "a", "last part without extension"),
        (("a.jpg", "A.jpg"), "A.JPG", "path"),
        (("x/a.jpg", "y/A.jpg"), "a.JPG", "last part"),
    ],
)
def test_a_row_that_fits_two_pictures_is_refused(tmp_path: Path, names: tuple[str, str], row: str, what: str) -> None:
    source, csv = pictures(tmp_path / "source", *names), tmp_path / "labels.csv"
    first, last = sorted(names)
    said = f"the row of {row!r} fits the {what} of 2 files, {first!r} and {last!r} for two: write their whole paths"
    refuse(source, tmp_path / "out", said, "--labels", table(csv, f"{row},A"))
    table(csv, *(f"{name},{number}" for number, name in enumerate(names)))  # as it advises
    assert labels(source, tmp_path / "out", csv) == {names[0]: "0", names[1]: "1"}


def test_the_most_exact_row_counts(tmp_path: Path) -> None:
    source = pictures(tmp_path / "source", "0.jpg", "test/0.jpg", "train/0.jpg", "train/1.jpg", "train/1.jpg.png")
    csv = table(tmp_path / "labels.csv", "0.jpg,top", "train/0.jpg,A", "1.jpg,B", "1.jpg,B")
    assert labels(source, tmp_path / "out", csv) == {
        "0.jpg": "top",  # its own path: no row for others
        "test/0.jpg": None,
        "train/0.jpg": "A",
        "train/1.jpg": "B",
        "train/1.jpg.png": None,
    }
    index = build(source, tmp_path / "again", "--labels", csv)
    assert index.content["labels"] == {"rows_with_picture": 4, "rows_without_picture": 0, "pictures_without_row": 2}


def test_a_path_of_its_own_frees_the_other(tmp_path: Path) -> None:
    source = pictures(tmp_path / "source", "test/0.jpg", "train/0.jpg")
    csv = table(tmp_path / "labels.csv", "0.jpg,A", "test/0.jpg,B")
    assert labels(source, tmp_path / "out", csv) == {"test/0.jpg": "B", "train/0.jpg": "A"}


def test_texts_beside_pictures_fit_no_row(tmp_path: Path) -> None:
    source = pictures(tmp_path / "source", "a.jpg", "b.webp")
    for name in "a.txt", "a.json", "b.txt":
        (source / name).write_text("a caption")
    csv = table(tmp_path / "labels.csv", "a,A", "b,B")
    assert labels(source, tmp_path / "out", csv) == {"a.jpg": "A", "b.webp": "B"}


# Names that are the same to people


def test_slashes_dots_case_and_forms_of_unicode(tmp_path: Path) -> None:
    decomposed = unicodedata.normalize("NFD", "café/é.jpg")
    source = pictures(tmp_path / "source", "x/1.jpg", "x/2.JPG", "3.jpg", decomposed, "y/b.jpg", "y/B.jpg")
    csv = table(
        tmp_path / "labels.csv", ".\\x\\1.jpg,A", "2.jpg,B", "./3.jpg,C", "café/é.jpg,D", "b.jpg,small", "B.jpg,large"
    )
    assert labels(source, tmp_path / "out", csv) == {
        "x/1.jpg": "A",
        "x/2.JPG": "B",
        "3.jpg": "C",
        decomposed: "D",
        "y/b.jpg": "small",  # exactly so goes before all
        "y/B.jpg": "large",
    }


def test_two_labels_for_what_is_the_same_to_people(tmp_path: Path) -> None:
    source = pictures(tmp_path / "source", "x.jpg")
    csv = table(tmp_path / "labels.csv", "./x.jpg,A", "X.jpg,B")
    refuse(source, tmp_path / "out", "different labels, './x.jpg' and 'X.jpg', for 'x.jpg'", "--labels", csv)


# Tables as spreadsheets write them


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_separators_and_encodings(tmp_path: Path, separator: str, encoding: str) -> None:
    source = pictures(tmp_path / "source", "é.jpg")
    csv = tmp_path / "labels.csv"
    table(csv, separator.join(("1", "é.jpg", "Öl")), header=separator.join(("id", "file", "label")), encoding=encoding)
    assert labels(source, tmp_path / "out", csv) == {"é.jpg": "Öl"}


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1"])
def test_old_encodings(tmp_path: Path, encoding: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Names in the table are those of files in UTF-8, and of files whose names are in the old encoding themselves."""
    source = pictures(tmp_path / "source", "é.jpg", os.fsdecode(b"\xfc.jpg"))
    unlike = "\x81" if encoding == "latin-1" else "€"  # which Windows-1252 has not, and Latin-1 not
    csv = table(tmp_path / "labels.csv", "é.jpg,Öl", f"ü.jpg,{unlike}", encoding=encoding)
    assert labels(source, tmp_path / "out", csv) == {"é.jpg": "Öl", "\udcfc.jpg": unlike}
    name = {"cp1252": "Windows-1252", "latin-1": "Latin-1"}[encoding]
    assert f"labels.csv is not in Unicode: read as {name}" in capsys.readouterr().err


# StyleGAN's dataset.json


def stylegan(path: Path, *entries: object) -> Path:
    path.write_text(json.dumps({"labels": list(entries)}))
    return path


def test_the_json_of_stylegan(tmp_path: Path) -> None:
    source = pictures(tmp_path / "source", "00000/a.jpg", "00000/b.jpg", "00000/c.jpg")
    path = stylegan(tmp_path / "my dataset.json", ["00000/a.jpg", 5], ["00000/b.jpg", 7], ["00000/c.jpg", None])
    assert labels(source, tmp_path / "out", path) == {"00000/a.jpg": "5", "00000/b.jpg": "7", "00000/c.jpg": None}


@pytest.mark.parametrize("kind", ["folder", "zip", "tar"])
def test_a_table_inside_the_source(tmp_path: Path, kind: str) -> None:
    source = pictures(tmp_path / "source", "00000/a.jpg", "00000/b.jpg")
    stylegan(source / "dataset.json", ["00000/a.jpg", 5], ["00000/b.jpg", 7])
    if kind != "folder":
        source = Path(shutil.make_archive(str(tmp_path / "archive"), kind, source))
    found = labels(source, tmp_path / "out", Path("dataset.json"))
    assert {**found} == {"00000/a.jpg": "5", "00000/b.jpg": "7"}
    refuse(source, tmp_path / "no", "'data.json', and there is no such file", "--labels", "data.json")
    if kind != "folder":
        said = "is longer than --max-bytes 3: give a higher one"
        refuse(source, tmp_path / "no", said, "--labels", "dataset.json", "--max-bytes", "3")


def test_vectors_are_stored(tmp_path: Path) -> None:
    source = pictures(tmp_path / "source", *(f"{i}.jpg" for i in range(6)))
    vectors = [[f"{i}.jpg", [i / 2, -i, 0.125]] for i in range(5)]
    path = stylegan(tmp_path / "dataset.json", *vectors, ["5.jpg", None])
    index = build(source, tmp_path / "out", "--labels", path, "--holdout", "0.4", "--shard-samples", "2")
    assert (index.classes, set(index.table["label"].tolist())) == ((), {-1})
    assert index.content["attributes"]["columns"] == [{"name": "label", "kind": "vector", "length": 3}]
    stored = np.load(index.folder / "labels.npy")["label"]
    told = [picture for split in ("train", "holdout") for picture in facts(index, split)]
    for row, picture in zip(stored, told, strict=True):
        number = int(picture["file"][0])
        assert picture.get("vector") == (vectors[number][1] if number < 5 else None)
        assert np.array_equal(row, picture.get("vector") or [np.nan] * 3, equal_nan=True)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"labels": null}', 'without the {"labels": [[file, label], …]} of StyleGAN\'s dataset.json: write it so'),
        ("[1, 2]", "without the"),
        (
            '{"labels": [["a.jpg", 1], ["b.jpg", [1.0]]]}',
            "its labels are of different kinds or lengths, see that of 'b.jpg'",
        ),
        ('{"labels": [["a.jpg", [1]], ["b.jpg", [1, 2]]]}', "or all of them vectors of one length"),
        ('{"labels": [["a.jpg"]]}', "entry 0 of its labels is no pair"),
        ('{"labels": [["a.jpg", {"x": 1}]]}', "is neither a class (a whole number or a text) nor a vector"),
        ('{"labels": [["a.jpg", [1, NaN]]]}', "is neither a class"),
        ('{"labels": [', "is damaged JSON"),
        ("[" * 100_000, "is damaged JSON"),
    ],
)
def test_other_json_is_refused(tmp_path: Path, content: str, said: str) -> None:
    source, path = pictures(tmp_path / "source", "a.jpg", "b.jpg"), tmp_path / "dataset.json"
    path.write_text(content)
    refuse(source, tmp_path / "out", said, "--labels", path)


def test_json_has_no_columns(tmp_path: Path) -> None:
    source, path = pictures(tmp_path / "source", "a.jpg"), stylegan(tmp_path / "dataset.json", ["a.jpg", 1])
    for option in ("--filter", "style=A"), ("--number-column", "year"), ("--label-column", "style", "genre"):
        refuse(source, tmp_path / "out", "leave --label-column, --number-column and", "--labels", path, *option)
        refuse(source, tmp_path / "out", "--labels none has no columns for --filter", *option)
    assert build(source, tmp_path / "out", "--labels", path, "--holdout", "0").classes == ("1",)


# Several columns


COLUMNS = ("--label-column", "style", "genre", "artist", "--number-column", "year")
ROWS = [
    ("Rococo", "portrait", "Ä", "1750"),
    ("Op Art", "abstract", "B", "1965.5"),
    ("", "portrait", "", ""),
    ("Rococo", "", "Ä", "1751"),
]


@pytest.fixture
def painted(tmp_path: Path) -> tuple[Path, Path]:
    """Return a source of 12 pictures and their table."""
    source = pictures(tmp_path / "source", *(f"{i:02d}.jpg" for i in range(12)))
    rows = (";".join((f"{i:02d}.jpg", *ROWS[i % 4])) for i in range(11))
    return source, table(tmp_path / "labels.csv", *rows, header="file;style;genre;artist;year")


def test_several_columns_are_stored(tmp_path: Path, painted: tuple[Path, Path]) -> None:
    source, csv = painted
    out, options = tmp_path / "out", ("--labels", csv, *COLUMNS, "--holdout", "0.4", "--shard-samples", "4")
    index = build(source, out, *options)
    assert index.classes == ("Op Art", "Rococo")
    assert index.content["settings"]["labels"] == ["file", "style", "genre", "artist"]
    columns = index.content["attributes"]["columns"]
    assert columns == [
        {"name": "genre", "kind": "class", "classes": ["abstract", "portrait"], "counts": [3, 6]},
        {"name": "artist", "kind": "class", "classes": ["B", "Ä"], "counts": [3, 5]},
        {"name": "year", "kind": "number"},
    ]
    stored = np.load(out / "labels.npy")
    told = [picture for split in ("train", "holdout") for picture in facts(index, split)]
    for row, label, picture in zip(stored, index.table["label"], told, strict=True):
        number = int(picture["file"][:2])
        style, genre, artist, year = ROWS[number % 4] if number < 11 else ("", "", "", "")
        assert (index.classes[label] if label >= 0 else "") == style
        assert (columns[0]["classes"][row["genre"]] if row["genre"] >= 0 else "") == genre
        assert (columns[1]["classes"][row["artist"]] if row["artist"] >= 0 else "") == artist
        assert np.array_equal(row["year"], float(year or "nan"), equal_nan=True)
        if number < 11:
            assert picture["labels"] == {"genre": genre or None, "artist": artist or None}
            assert picture["numbers"] == {"year": float(year) if year else None}
    assert main(["verify", str(out)]) == 0
    data = bytearray((out / "labels.npy").read_bytes())
    data[-1] ^= 1
    (out / "labels.npy").write_bytes(data)
    assert main(["verify", str(out)]) == 1


@pytest.mark.parametrize("names", [("époque", "artiste"), ("жанр", "год"), ("样式🎨", "年")])
def test_columns_of_any_script(tmp_path: Path, painted: tuple[Path, Path], names: tuple[str, str]) -> None:
    """NumPy's usual header has Latin-1 alone; rows are read by NumPy itself, and by the program."""
    source, csv = painted
    csv.write_text(csv.read_text().replace("genre", names[0]).replace("year", names[1]))
    options = ("--label-column", "style", names[0], "--number-column", names[1])
    index = build(source, tmp_path / "out", "--labels", csv, *options, "--holdout", "0.4")
    stored = np.load(tmp_path / "out" / "labels.npy", mmap_mode="r")
    assert stored.dtype.names == names
    assert (stored.offset if isinstance(stored, np.memmap) else 0) % 64 == 0
    rows = LabelReader(index, names)(np.arange(12))
    assert np.array_equal(rows[:, 0], stored[names[0]])
    assert np.array_equal(rows[:, 1], stored[names[1]], equal_nan=True)
    assert main(["verify", str(tmp_path / "out")]) == 0


def test_workers_and_leaving_out_keep_rows_together(tmp_path: Path, painted: tuple[Path, Path]) -> None:
    source, csv = painted
    (source / "00 copy.jpg").write_bytes((source / "04.jpg").read_bytes())  # comes first, and has no row
    options = ("--labels", csv, *COLUMNS, "--holdout", "0.4", "--shard-samples", "3", "--deduplicate", "exact")
    index = build(source, tmp_path / "out", *options)
    again = build(source, tmp_path / "again", *options, "--workers", "3")
    assert digests(index.folder) == digests(again.folder)
    told = [picture for split in ("train", "holdout") for picture in facts(index, split)]
    assert "04.jpg" not in {picture["file"] for picture in told}
    stored = np.load(index.folder / "labels.npy")
    for row, picture in zip(stored, told, strict=True):
        assert np.array_equal(row["year"], picture.get("numbers", {}).get("year") or np.nan, equal_nan=True)


def test_numbers_with_a_comma(tmp_path: Path) -> None:
    source = pictures(tmp_path / "source", "a.jpg")
    csv = table(tmp_path / "labels.csv", "a.jpg;A;3,5", header="file;label;size")
    options = ("--labels", csv, "--number-column", "size", "--holdout", "0")
    assert np.load(build(source, tmp_path / "out", *options).folder / "labels.npy")["size"].tolist() == [3.5]
    for wrong in "tall", "inf", "1,000.5":
        table(csv, f"a.jpg;A;{wrong}", header="file;label;size")
        refuse(source, tmp_path / "no", f"line 2, column 'size' has '{wrong}', which is no number", *options)
    table(csv, "a.jpg;A;", header="file;label;size")  # as it advises
    assert np.isnan(np.load(build(source, tmp_path / "b", *options).folder / "labels.npy")["size"]).all()


def test_columns_that_cannot_be(tmp_path: Path, painted: tuple[Path, Path]) -> None:
    source, csv = painted
    options = ("--labels", csv)
    twice = ("--label-column", "style", "--number-column", "style")
    refuse(source, tmp_path / "no", "column 'style' is named twice", *options, *twice)
    refuse(source, tmp_path / "no", "names no column: name at least one", *options, "--label-column")
    refuse(
        source, tmp_path / "no", "has no column 'colour'; it has: 'file', 'style'", *options, "--label-column", "colour"
    )
    assert build(source, tmp_path / "out", *options, "--label-column", "style").classes  # once


# --filter


def test_filters(tmp_path: Path, painted: tuple[Path, Path]) -> None:
    source, csv = painted
    options = ("--labels", csv, "--label-column", "style", "--holdout", "0")
    index = build(source, tmp_path / "out", *options, "--filter", "artist=Ä", "--filter", "genre=portrait")
    assert [picture["file"] for picture in facts(index)] == ["00.jpg", "04.jpg", "08.jpg"]
    assert set(excluded(index.folder).values()) == {"filtered"}
    assert len(excluded(index.folder)) == 9, "those of other values, and the one without a row"
    empty = build(source, tmp_path / "empty", *options[:2], "--label-column", "genre", "--filter", "artist=")
    assert {picture["file"] for picture in facts(empty)} == {"02.jpg", "06.jpg", "10.jpg"}
    said = refuse(source, tmp_path / "no", "fits --filter artist=a", *options, "--filter", "artist=a")
    assert "write the values as there" in said
    refuse(source, tmp_path / "no", "--filter must be COLUMN=VALUE", *options, "--filter", "artist")
    refuse(source, tmp_path / "no", "has no column 'painter'", *options, "--filter", "painter=B")


# Class names


def test_names_that_people_take_for_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = pictures(tmp_path / "source", *(f"{i}.jpg" for i in range(5)))
    names = ["Baroque", "baroque ", "Café  noir", "cafe\u0301 noir", "Rococo"]
    csv = table(tmp_path / "labels.csv", *(f"{i}.jpg,{name}" for i, name in enumerate(names)))
    options = ("--labels", csv, "--holdout", "0")
    assert set(build(source, tmp_path / "out", *options).classes) == set(names)
    said = capsys.readouterr().out
    assert "take for one: 'Baroque', 'baroque '; --normalise-labels joins them" in said
    assert said.count("take for one") == 2
    joined = build(source, tmp_path / "joined", *options, "--normalise-labels")
    assert joined.classes == ("baroque", "café noir", "rococo")
    assert joined.content["class_counts"] == [2, 2, 1]
    assert "take for one" not in capsys.readouterr().out
    folders = pictures(tmp_path / "folders", "Baroque/1.jpg", "BAROQUE/2.jpg")
    assert build(folders, tmp_path / "by folder", "--labels", "folders", "--normalise-labels").classes == ("baroque",)


def test_what_is_no_table_is_named(tmp_path: Path) -> None:
    source, path = pictures(tmp_path / "source", "a.jpg"), tmp_path / "labels.csv"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("xl/workbook.xml", "<workbook/>")
    refuse(source, tmp_path / "out", "is a spreadsheet or a zip and no CSV: save it as CSV", "--labels", path)
    path.write_bytes("file,label\na.jpg,A\n".encode("utf-16-le"))  # nothing at the start says so
    refuse(source, tmp_path / "out", "is no text and no CSV: save it as CSV", "--labels", path)
    path.write_bytes(b"PAR1\x15\x04")
    refuse(source, tmp_path / "out", "is Parquet and no CSV", "--labels", path)
    path.write_bytes(b"")
    refuse(source, tmp_path / "out", "has no column 'file'; it has: nothing", "--labels", path)


def test_a_missing_column_is_told_on_one_screen(tmp_path: Path) -> None:
    source, path = pictures(tmp_path / "source", "a.jpg"), tmp_path / "labels.csv"
    table(path, header=";".join(f"{i:05d} {'x' * 300}" for i in range(3000)))
    said = refuse(source, tmp_path / "out", "has no column 'file'; it has: '00000 xx", "--labels", path)
    assert "and 2,980 more: name two of them with --file-column and --label-column" in said
    assert len(said) < 2400
    path.write_text("x" * 300_000)
    assert len(said_by("build", source, "--out", tmp_path / "out", "--labels", path)) < 500


# Labels that were asked for and are not there


def test_a_table_that_fits_nothing_shows_both_sides(tmp_path: Path) -> None:
    source, csv = pictures(tmp_path / "source", "x/a.jpg"), tmp_path / "labels.csv"
    said = refuse(source, tmp_path / "out", "no row of", "--labels", table(csv, "images/0001.png,A"))
    assert "column 'file' has 'images/0001.png', the source has 'x/a.jpg'; its path, the last part" in said
    refuse(source, tmp_path / "out", "column 'file' has nothing", "--labels", table(csv))
    said = refuse(source, tmp_path / "out", "no row of", "--labels", table(csv, "a.jpg,"))
    assert "has a label: column 'label' is empty in all 1 that name a file" in said


def test_folders_that_are_not_there(tmp_path: Path) -> None:
    source = pictures(tmp_path / "source", "a.jpg", "b.jpg")
    refuse(source, tmp_path / "out", "no file of the source lies in a folder, see 'a.jpg'", "--labels", "folders")
    with zipfile.ZipFile(tmp_path / "flat.zip", "w") as archive:
        archive.writestr("cats\\1.jpg", jpeg(0))  # as from Unix, where this is a name
    refuse(tmp_path / "flat.zip", tmp_path / "out", "see 'cats\\\\1.jpg'", "--labels", "folders")


@pytest.mark.parametrize("kind", ["folders", "csv"])
def test_labels_of_unusable_pictures_alone_are_none(tmp_path: Path, kind: str) -> None:
    source = pictures(tmp_path / "source", "a.jpg", "cats/b.jpg")
    (source / "cats/b.jpg").write_bytes(b"")
    how = "folders" if kind == "folders" else table(tmp_path / "labels.csv", "b.jpg,cat")
    said = said_by("build", source, "--out", tmp_path / "out", "--labels", how, "--holdout", "0")
    assert "no usable picture has a label" in said


def test_one_folder_around_the_classes_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = pictures(tmp_path / "my source", "pictures/cats/1.jpg", "pictures/dogs/2.jpg")
    options = ("--labels", "folders", "--holdout", "0")
    assert build(source, tmp_path / "out", "--labels", "folders").classes == ("pictures",)
    said = capsys.readouterr().err
    assert "there is one class, as everything lies in 'pictures'" in said
    advised = said.rpartition("build from ")[2].strip()
    assert advised == f"'{source}/pictures'"
    assert build(Path(advised.strip("'")), tmp_path / "again", "--labels", "folders").classes == ("cats", "dogs")
    assert capsys.readouterr().err == ""
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in "pictures/cats/1.jpg", "pictures/dogs/2.jpg", "pictures/3.jpg":
            archive.writestr(name, jpeg(0))
    build(tmp_path / "a.zip", tmp_path / "third", *options)
    assert "unpack the archive" in capsys.readouterr().err
    build(pictures(tmp_path / "one", "cats/young/1.jpg"), tmp_path / "fourth", *options)
    assert capsys.readouterr().err == ""
    build(pictures(tmp_path / "two", "a/b/cats/1.jpg", "a/b/dogs/2.jpg", "a/3.jpg"), tmp_path / "fifth", *options)
    assert f"build from {tmp_path}/two/a/b\n" in capsys.readouterr().err
