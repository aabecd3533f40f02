"""Labels: a row that fits several pictures, names that are the same to people, tables as spreadsheets write them, and
labels that were asked for and are not there."""

from __future__ import annotations

import json
import subprocess
import unicodedata
import zipfile
from pathlib import Path

import pytest

from tests.made_sources import build, facts, jpeg, refuse, said_by


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


def test_the_json_of_stylegan(tmp_path: Path) -> None:
    source = pictures(tmp_path / "source", "00000/a.jpg", "00000/b.jpg")
    path = tmp_path / "my dataset.json"
    entries = [["00000/a.jpg", 5], ["00000/b.jpg", 7], *([f"{i}.png", 1] for i in range(20_000))]
    path.write_text(json.dumps({"labels": entries}))
    said = said_by("build", source, "--out", tmp_path / "out", "--labels", path)
    assert "is JSON and no CSV" in said
    assert len(said) < 800
    command = said.partition("make a CSV with\n")[2].partition("\nand give")[0]
    subprocess.run(["sh", "-c", command], cwd=tmp_path, check=True)
    assert labels(source, tmp_path / "out", tmp_path / "labels.csv") == {"00000/a.jpg": "5", "00000/b.jpg": "7"}


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
