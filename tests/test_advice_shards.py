"""Every piece of advice that a message of the shards package gives is done here, or in a test that is named here.

The messages are read from the source: one that is new, or reworded, turns `test_every_advice_is_done` red until
`DONE` names the test that does what it says, literally.
"""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from shards.__main__ import main
from shards.building import build as building
from shards.building import phases
from shards.dataset.index import DataError, Index
from shards.dataset.stream import Reader
from tests.advice import advice, named_test, no_longer_given, not_done
from tests.made_sources import build, jpeg, make_source, refuse, run_shards, said_by

DONE = {  # a part of the message -> the test that does it
    "if it is a tar, unpack it once with": "test_shards_archives.test_a_compressed_tar_is_named_whatever_its_name",
    "archive, which cannot be read: unpack it": "test_archives_of_other_kinds",
    "with something that is no tar member": "test_shards_archives.test_what_lies_behind_a_tar",
    "is damaged at byte {}, and what follows cannot be found: get it again": "test_damaged_archives",
    "is damaged ({}): get it again": "test_damaged_archives",
    "or has more behind its end: get it again, whole": "test_damaged_archives",
    "its directory lists {}: get it again": "test_damaged_archives",
    "parts of a split archive: join them with": "test_a_split_zip",
    "take them apart with": "test_shards_archives.test_zips_behind_one_another_are_refused",
    "or unpack what it lists with": "test_shards_archives.test_a_member_that_no_directory_lists_is_refused",
    "that would be left out: if it is of no use": "test_shards_archives.test_a_zip_with_something_behind_its_end",
    "unpack the zip, and build from": "test_shards_messages.test_members_that_are_packed_as_nobody_else_does",
    "not looked into: unpack them": "test_shards_messages.test_archives_in_a_folder_are_named",
    "is a file: name a folder": "test_folders_to_build_in",
    "is not empty: build into a new folder": "test_folders_to_build_in",
    "build all of them again, into another folder": "test_shards_add.test_what_cannot_be_added_to",
    "is damaged or missing; see": "test_shards_add.test_what_cannot_be_added_to",
    "name a table of the new pictures with --labels": "test_shards_add.test_several_label_columns_and_numbers",
    "and --size names {}: leave it away": "test_shards_add.test_options_are_those_of_the_dataset",
    "leave that option away": "test_shards_add.test_options_are_those_of_the_dataset",
    "labels of the same kind": "test_shards_add.test_vectors",
    "build outside of it": "test_folders_to_build_in",
    "name a folder of pictures, an archive or a URL": "test_shards_sources.test_sources_that_are_refused",
    "make one table of them": "test_shards_sources.test_a_table_in_one_of_the_sources",
    "holds an unfinished build: go on with --resume, or build into another": "test_an_unfinished_build",
    "finished shards are kept, and --resume goes on": "test_an_unfinished_build",
    "holds an unfinished build: go on with the command": "test_an_unfinished_build",
    "resume with the same settings": "test_other_settings_or_pictures",
    "build into another folder": "test_other_settings_or_pictures",
    "another build is at work": "test_another_build",
    "build into a new folder, or name the --work": "test_shards_to_url.test_a_place_that_holds_something_is_refused",
    "build of {}: go on with --resume": "test_shards_to_url.test_an_unfinished_build_asks_for_resume",
    "same command again when it is complete": "test_shards_from_url.test_a_zip_that_changes_while_it_is_copied",
    "pip install lienzo[parquet]": "test_shards_parquet.test_without_pyarrow_it_is_named",
    "several columns of pictures": "test_shards_parquet.test_columns_that_may_not_be_meant",
    "make one, as the datasets library does": "test_shards_parquet.test_columns_that_may_not_be_meant",
    "name another one with --label-column": "test_shards_parquet.test_labels_without_the_metadata_of_the_hub",
    "was uploaded: empty": "test_shards_to_url.test_a_shard_that_somebody_removed_is_missed",
    "unfinished: leave --work": "test_shards_to_url.test_work_is_for_urls",
    "without locks": "test_without_locks",
    "give a lower --holdout": "test_a_lower_holdout",
    "--follow-links takes the files": "test_shards_messages.test_the_cache_of_the_hub",
    "it is a folder: copy it into the source": "test_shards_messages.test_other_links_that_leave_the_source",
    "build from {}": "test_shards_labels.test_one_folder_around_the_classes_is_told",
    "unpack the archive and build from it": "test_shards_labels.test_one_folder_around_the_classes_is_told",
    "name two of them with --file-column": "test_columns",
    "name another column with --file-column": "test_columns",
    "write it so, or a CSV with the columns": "test_shards_labels.test_the_json_of_stylegan",
    "make all of them classes": "test_shards_labels.test_vectors_are_stored",
    "leave --label-column": "test_shards_labels.test_json_has_no_columns",
    "give a table": "test_shards_labels.test_json_has_no_columns",
    "name it once": "test_shards_labels.test_columns_that_cannot_be",
    "give at least one, such as 64": "test_shards_sizes.test_sizes_that_cannot_be_are_refused",
    "name at least one": "test_shards_labels.test_columns_that_cannot_be",
    "write the values as there": "test_shards_labels.test_filters",
    "is longer than --max-bytes": "test_shards_labels.test_a_table_inside_the_source",
    "correct it, or leave the cell empty": "test_shards_labels.test_numbers_with_a_comma",
    "pip install lienzo[formats] reads it": "test_shards_plugins.test_they_are_decoded",
    "pip install {}": "test_shards_card.test_the_command_on_it_builds_the_same_bytes",
    "--normalise-labels joins": "test_shards_labels.test_names_that_people_take_for_one",
    "save it as CSV": "test_shards_labels.test_separators_and_encodings",
    "different labels for {}: keep one of them": "test_rows_with_different_labels",
    "different labels, {} and {}, for {}: keep one": "test_rows_with_different_labels",
    "write their whole paths in column": "test_shards_labels.test_a_row_that_fits_two_pictures_is_refused",
    "put the pictures of each class into a folder": "test_labels_by_folder",
    "build the shards again, into a new folder": "test_damaged_shards",
    "or build again, into a new folder": "test_damaged_shards",
    "is damaged; run: ": "test_shards_messages.test_damage_is_told_with_a_command",
    "python -m shards verify {}": "test_shards_that_cannot_be_read",
    "can be read; run: ": "test_shards_that_cannot_be_read",
    "build them with python -m shards build SRC": "test_a_folder_without_shards",
    "if it is pictures": "test_shards_messages.test_pictures_in_the_place_of_shards",
    "name {}, which does": "test_shards_messages.test_pictures_in_the_place_of_shards",
    "leave one of them out": "test_shards_shapes.test_transparency_and_other_encodings",
    "is not the one that was indexed: put it back": "test_indexing.test_a_tar_that_was_replaced_is_refused",
    "holds an unfinished dataset: go on with --resume": "test_indexing.test_an_interrupted_indexing_goes_on",
    "what is done is kept, and --resume goes on": "test_indexing.test_an_interrupted_indexing_goes_on",
    "the tars are not those with which this began": "test_indexing.test_an_interrupted_indexing_goes_on",
    "look for it with: tar -tf TAR": "test_indexing.test_refusals",
    "names no tar: name tars, a folder of them": "test_indexing.test_refusals",
    "put the dataset back, or": "test_remote_shards.test_another_dataset_at_the_same_url_is_refused",
    "then run the same command again": "test_bucket_training.test_a_bucket_that_stays_away_ends_the_run",
    "names no bucket or host: write {}": "test_storage.test_credentials_and_nothing_are_no_url",
    "name it without, and put credentials into": "test_storage.test_credentials_and_nothing_are_no_url",
    "name fewer, or use a wildcard": "test_hostile_data.test_braces_and_places",
    "does not fit into memory: give a lower --num": "test_hostile_data.test_a_grid_that_does_not_fit_into_memory",
    "which is not looked into: unpack it": "test_shards_formats.test_the_advice_to_unpack_an_archive",
}
# Other programs' words, by which their errors are told apart, the name of the command, and its page of help.
NO_ADVICE = ("From pictures to tar shards.", "python -m shards", "end of file", "unpack requires", "CAST(name")


def given() -> list[str]:
    return [message for message in advice("shards") if not message.startswith(NO_ADVICE)]


def test_every_advice_is_done() -> None:
    assert len(given()) > 30
    assert not_done(given(), DONE) == []
    assert no_longer_given(given(), DONE) == []


def test_the_tests_that_do_it_are_there() -> None:
    for name in DONE.values():
        assert callable(named_test(name if "." in name else f"test_advice_shards.{name}")), name


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_source(tmp_path / "my source", 6, 2)


OPTIONS = ("--holdout", "0")


def test_archives_of_other_kinds(tmp_path: Path, source: Path) -> None:
    for magic in b"7z\xbc\xaf", b"Rar!\x1a":
        (tmp_path / "source.tar").write_bytes(magic + bytes(3000))
        refuse(tmp_path / "source.tar", tmp_path / "out", "unpack it, and build from the folder")
    assert len(build(source, tmp_path / "out", *OPTIONS).table) == 6


def test_damaged_archives(tmp_path: Path, source: Path) -> None:
    for kind in "tar", "zip":
        good = Path(shutil.make_archive(str(tmp_path / "good"), kind, source))
        data = good.read_bytes()
        header = data.rindex(b"./class 1/") + 150 if kind == "tar" else data.rindex(b"PK\x01\x02")
        bad = tmp_path / f"bad.{kind}"
        for damaged in data[: len(data) // 2], data[:header] + b"??" + data[header + 2 :]:
            bad.write_bytes(damaged)
            refuse(bad, tmp_path / "out", "get it again")
        bad.write_bytes(data)
        assert len(build(bad, tmp_path / f"out of {kind}", *OPTIONS).table) == 6


def test_a_split_zip(tmp_path: Path, source: Path) -> None:
    """Where Info-ZIP is at hand; else the command is at least the one that its manual has for this."""
    last = tmp_path / "my pictures.zip"
    (source / "large.txt").write_text("".join(map(str, range(100_000))))
    if shutil.which("zip"):
        subprocess.run(["zip", "-q", "-0", "-r", "-s", "100k", last, "."], cwd=source, check=True)
    else:
        data = bytearray(Path(shutil.make_archive(str(tmp_path / "x"), "zip", source)).read_bytes())
        data[data.rindex(b"PK\x05\x06") + 4] = 1
        last.write_bytes(data)
    said = refuse(last, tmp_path / "out", "parts of a split archive")
    command = said.rpartition("with: ")[2].strip()
    assert command == f"zip -s 0 {shlex.quote(str(last))} --out NEW.zip"
    if shutil.which("zip"):
        subprocess.run(["sh", "-c", command], cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)
        assert len(build(tmp_path / "NEW.zip", tmp_path / "out", *OPTIONS).table) == 6


def test_folders_to_build_in(tmp_path: Path, source: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").touch()
    refuse(source, tmp_path / "full" / "letter.txt", "is a file: name a folder")
    refuse(source, tmp_path / "full", "is not empty: build into a new folder")
    refuse(source, source / "class 0", "build outside of it")
    assert build(source, tmp_path / "a new folder", *OPTIONS).table.size


def begin(source: Path, out: Path) -> list[str]:
    """Begin a build that is interrupted once its shards are there, and return its command."""
    arguments = ["build", str(source), "--out", str(out), "--size", "16", "--workers", "1", *OPTIONS]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(phases, "finalize_dataset", interrupt)
        assert main(arguments) == 75
    return arguments


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_an_unfinished_build(tmp_path: Path, source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = begin(source, tmp_path / "out")
    assert "finished shards are kept, and --resume goes on" in capsys.readouterr().err
    assert "go on with --resume" in said_by(*arguments)
    with pytest.raises(DataError, match="go on with the command that began it and --resume"):
        Index.open(tmp_path / "out")
    assert len(build(source, tmp_path / "another folder", *OPTIONS).table) == 6
    assert main([*arguments, "--resume"]) == 0
    assert len(Index.open(tmp_path / "out").table) == 6


def test_other_settings_or_pictures(tmp_path: Path, source: Path) -> None:
    arguments = begin(source, tmp_path / "out")
    said = said_by(*arguments, "--resume", "--seed", "1")
    assert "resume with the same settings, or build into another folder" in said
    (source / "new.jpg").write_bytes(jpeg(9))
    assert "the source has changed since this build began" in said_by(*arguments, "--resume")
    assert len(build(source, tmp_path / "another folder", "--seed", "1", *OPTIONS).table) == 7
    (source / "new.jpg").unlink()
    assert main([*arguments, "--resume"]) == 0


def test_another_build(tmp_path: Path, source: Path) -> None:
    arguments = begin(source, tmp_path / "out")
    with building.lock_folder(tmp_path / "out" / ".build"):
        assert "wait for it, or end it" in said_by(*arguments, "--resume")
    assert main([*arguments, "--resume"]) == 0


def test_without_locks(tmp_path: Path, source: Path) -> None:
    build(source, tmp_path / "a local disk", *OPTIONS)
    moved = (tmp_path / "a local disk").rename(tmp_path / "there")
    assert main(["verify", str(moved)]) == 0


def test_a_lower_holdout(tmp_path: Path, source: Path) -> None:
    refuse(source, tmp_path / "out", "give a lower --holdout", "--holdout", "0.9999")
    assert build(source, tmp_path / "out", "--holdout", "0.1").table.size


def test_columns(tmp_path: Path, source: Path) -> None:
    table = tmp_path / "labels.csv"
    table.write_text("id;name;style\nx;0000.jpg;Rococo\n")
    refuse(source, tmp_path / "out", "it has: 'id', 'name', 'style': name two of them with --file", "--labels", table)
    refuse(source, tmp_path / "out", "name another column", "--labels", table, *columns("id", "style"))
    assert build(source, tmp_path / "out", "--labels", table, *columns("name", "style")).classes == ("Rococo",)


def columns(file: str, label: str) -> tuple[str, ...]:
    return "--file-column", file, "--label-column", label, *OPTIONS


def test_rows_with_different_labels(tmp_path: Path, source: Path) -> None:
    table = tmp_path / "labels.csv"
    for second in "0000.jpg", "0000.JPG":
        rows = ["file,label", f"{second.upper()},A", f"./{second},B" if second.isupper() else f"{second.upper()},B"]
        table.write_text("\n".join(rows))
        refuse(source, tmp_path / "out", "keep one of them", "--labels", table)
        table.write_text("\n".join(rows[:2]))
    assert build(source, tmp_path / "out", "--labels", table, *OPTIONS).classes == ("A",)


def test_labels_by_folder(tmp_path: Path, source: Path) -> None:
    flat = tmp_path / "flat"
    flat.mkdir()
    for path in source.rglob("*.jpg"):
        shutil.copy(path, flat)
    refuse(flat, tmp_path / "out", "put the pictures of each class into a folder", "--labels", "folders")
    (flat / "cats").mkdir()
    (flat / "0000.jpg").rename(flat / "cats" / "0000.jpg")
    assert build(flat, tmp_path / "out", "--labels", "folders", *OPTIONS).classes == ("cats",)
    assert build(flat, tmp_path / "without", *OPTIONS).classes == ()


def test_damaged_shards(tmp_path: Path, source: Path) -> None:
    out = build(source, tmp_path / "out", *OPTIONS).folder
    content = json.loads((out / "index.json").read_text())
    for damaged in "{}", json.dumps(content | {"schema": 99}):
        (out / "index.json").write_text(damaged)
        with pytest.raises(DataError, match="again, into a new folder"):
            Index.open(out)
    assert len(build(source, tmp_path / "new", *OPTIONS).table) == 6


def test_shards_that_cannot_be_read(tmp_path: Path, source: Path) -> None:
    index = build(source, tmp_path / "my shards", *OPTIONS)
    (index.folder / "train-000000.tar").write_bytes(b"")
    with pytest.raises(DataError, match="no sample in") as error:
        Reader(index, "train", lambda *_: None)(np.arange(3))
    command = shlex.split(str(error.value).rpartition("python -m ")[2])
    assert run_shards(*command[1:]).returncode == 1


def test_a_folder_without_shards(tmp_path: Path, source: Path) -> None:
    with pytest.raises(DataError) as error:
        Index.open(tmp_path / "my shards")
    command = shlex.split(str(error.value).partition("python -m shards ")[2].replace("SRC", shlex.quote(str(source))))
    assert main([*command, "--size", "16"]) == 0
    assert Index.open(tmp_path / "my shards").table.size
