"""What `python -m shards` says: what is wrong, where, and what to do, on one screen, and it works."""

from __future__ import annotations

import errno
import fcntl
import json
import shlex
import shutil
import zipfile
from pathlib import Path

import pytest

from shards.__main__ import main
from shards.dataset.index import DataError, Index
from tests.made_sources import add, build, excluded, facts, jpeg, make_source, refuse, run_shards, said_by

LONG = "n" * 200 + ".jpg"


# Sources of which nothing can be used


def test_reasons_examples_and_the_list_of_a_source_that_is_all_refused(tmp_path: Path) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    source.mkdir()
    for i in range(3):
        (source / f"{i}.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(100))
    (source / LONG).touch()
    said = said_by("build", source, "--out", out)
    assert f"there is no picture to train on; 4 files are excluded, see {out}/excluded.jsonl" in said
    assert "; such as '0.heic': " in said
    assert "nnn…nnn" in said
    assert max(map(len, said.splitlines())) < 300
    lines = [json.loads(line) for line in (out / "excluded.jsonl").read_text().splitlines()]
    assert [line["file"] for line in lines] == ["0.heic", "1.heic", "2.heic", LONG]
    (source / "good.jpg").write_bytes(jpeg(0))
    assert excluded(build(source, out, "--holdout", "0").folder).keys() == {"0.heic", "1.heic", "2.heic", LONG}


def test_members_that_are_packed_as_nobody_else_does(tmp_path: Path) -> None:
    path = tmp_path / "source.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.jpg", jpeg(0))
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 10] = 9  # Deflate64, as Windows packs what is large
    path.write_bytes(data)
    said = said_by("build", path, "--out", tmp_path / "out")
    assert "such as 'a.jpg': zip member: packed by method 9 (deflate64), which cannot be read: unpack" in said
    assert "unpack the zip, and build from the folder" in (tmp_path / "out" / "excluded.jsonl").read_text()


def test_archives_in_a_folder_are_named(tmp_path: Path) -> None:
    import tarfile

    source = tmp_path / "source"
    source.mkdir()
    for i in range(3):
        with tarfile.open(source / f"{i}.tar", "w") as archive:
            add(archive, f"{i}.jpg", jpeg(i))
    said = said_by("build", source, "--out", tmp_path / "out")
    assert "3 of them have names of archives, as '0.tar'; archives in a source are not looked into: unpack them" in said
    assert len(build(source / "0.tar", tmp_path / "out", "--holdout", "0").table) == 1
    for path in sorted(source.glob("*.tar")):
        with tarfile.open(path) as archive:
            archive.extractall(source, filter="data")
    assert len(build(source, tmp_path / "unpacked", "--holdout", "0").table) == 3


def test_no_message_is_longer_than_a_screen(tmp_path: Path) -> None:
    """All reasons at once, each with a name and a detail as long as they come."""
    from shards.building.build_db import ExcludedForReason, Exclusions
    from shards.building.summary import describe_exclusions
    from shards.exclusion import REASONS

    many = {reason: ExcludedForReason(10**6, "x" * 4000, "y" * 4000) for reason in REASONS}
    lines = [*describe_exclusions(Exclusions(many, 1, "z" * 4000))]
    assert len(lines) < 20
    assert max(map(len, lines)) < 400


def test_a_long_name_is_cut_wherever_it_is_told(tmp_path: Path) -> None:
    source, out = make_source(tmp_path / "source", 2, 1), tmp_path / "out"
    deep = source / "/".join(["f" * 200] * 15)
    deep.mkdir(parents=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("shards.building.phases.finalize_dataset", interrupt)
        assert main(["build", str(source), "--out", str(out), "--size", "16"]) == 75
    (deep / LONG).write_bytes(jpeg(0))
    for args in (["--resume", "--size", "16"], ["--resume", "--size", "16", "--labels", table(tmp_path, "x")]):
        assert len(refuse(source, out, "", *args)) < 400
    two = deep.with_name("g" * 200)
    two.mkdir()
    (two / LONG).write_bytes(jpeg(1))
    assert len(refuse(source, tmp_path / "new", "fits the last part", "--labels", table(tmp_path, LONG))) < 500


def table(folder: Path, file: str) -> Path:
    (folder / "labels.csv").write_text(f"file,label\n{file},A\n")
    return folder / "labels.csv"


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


# Links that leave the source


def hub(folder: Path) -> Path:
    """Lay files out as the cache of the Hugging Face hub does, and return the snapshot."""
    snapshot = folder / "datasets--me--pets" / "snapshots" / "0123abc"
    blobs = folder / "datasets--me--pets" / "blobs"
    blobs.mkdir(parents=True)
    for i in range(40):
        (blobs / f"{i:064x}").write_bytes(jpeg(i))
        place = snapshot / "data" / ("cats" if i % 2 else "dogs")
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{i}.jpg").symlink_to(f"../../../../blobs/{i:064x}")
        (place / f"copy of {i}.jpg").symlink_to(f"../../../../blobs/{i:064x}")
    return snapshot


def test_the_cache_of_the_hub(tmp_path: Path) -> None:
    snapshot = hub(tmp_path)
    said = said_by("build", snapshot, "--out", tmp_path / "out")
    assert "80  outside_source: a link that leaves the source; --follow-links takes" in said
    options = ("--follow-links", "--labels", "folders", "--holdout", "0.3")
    index = build(snapshot / "data", tmp_path / "out", *options)
    assert index.classes == ("cats", "dogs")
    sides = [{name["file"].split()[-1].split("/")[-1] for name in facts(index, split)} for split in index.splits]
    assert len(sides[0]) + len(sides[1]) == 40
    assert not sides[0] & sides[1]  # both links to one file are on its side
    assert index.content["settings"]["follow_links"] is True
    moved = (tmp_path / "elsewhere").resolve()
    (tmp_path / "datasets--me--pets").rename(moved)
    build(moved / "snapshots" / "0123abc" / "data", tmp_path / "again", *options)
    for name in "index.json", "table.npy":  # wherever the cache lies
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "out" / name).read_bytes()


def test_other_links_that_leave_the_source(tmp_path: Path) -> None:
    pool = make_source(tmp_path / "pool", 2, 1)
    source = make_source(tmp_path / "source", 1, 1)
    (source / "absolute.jpg").symlink_to((pool / "class 0" / "0001.jpg").resolve())
    (source / "folder").symlink_to(pool)
    (source / "nothing.jpg").symlink_to("../missing.jpg")
    index = build(source, tmp_path / "out", "--follow-links", "--holdout", "0")
    assert [picture["file"] for picture in facts(index)] == ["absolute.jpg", "class 0/0000.jpg"]
    assert excluded(tmp_path / "out") == {"folder": "outside_source", "nothing.jpg": "dangling_link"}
    assert "it is a folder: copy it into the source" in (tmp_path / "out" / "excluded.jsonl").read_text()
    (source / "folder").unlink()
    shutil.copytree(pool, source / "folder")
    assert len(build(source, tmp_path / "again", "--follow-links", "--holdout", "0").table) == 4


# Paths to copy


def test_pictures_in_the_place_of_shards(tmp_path: Path) -> None:
    source = make_source(tmp_path / "my pictures", 3, 1)
    for path in source, source / "class 0" / "0001.jpg":
        with pytest.raises(DataError) as error:
            Index.open(path)
        assert "build" in str(error.value)
    with pytest.raises(DataError, match="holds no finished shards") as error:
        Index.open(source)
    command = shlex.split(str(error.value).partition("python -m shards ")[2].partition(" and ")[0])
    assert main([*command, "--size", "16", "--holdout", "0"]) == 0
    assert len(Index.open(Path(command[-1])).table) == 3
    with pytest.raises(DataError, match=r"name .*my pictures-shards', which does"):  # now it knows where they are
        Index.open(source)


def test_a_missing_and_an_unfinished_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        Index.open(tmp_path / "nothing here")
    (tmp_path / "begun" / ".build").mkdir(parents=True)
    with pytest.raises(DataError, match="unfinished build: go on with the command that began it and --resume"):
        Index.open(tmp_path / "begun")


def test_damage_is_told_with_a_command(tmp_path: Path) -> None:
    out = tmp_path / "my shards"
    build(make_source(tmp_path / "source", 3, 1), out)
    content = json.loads((out / "index.json").read_text())
    del content["statistics"]
    (out / "index.json").write_text(json.dumps(content))
    said = said_by("inspect", out)
    command = shlex.split(said.partition("run: python -m shards ")[2])
    assert command == ["verify", str(out)]
    assert main(command) == 1


# Where locks do not work


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def flock(*_: object) -> None:
        raise OSError(number, "no locks")

    monkeypatch.setattr(fcntl, "flock", flock)
    source = make_source(tmp_path / "source", 3, 1)
    refuse(source, tmp_path / "out", "is on a file system without locks (flock: no locks), which")
    assert not list((tmp_path / "out").iterdir())


def test_help_tells_of_all_options() -> None:
    assert "--follow-links" in run_shards("build", "--help-all").stdout
