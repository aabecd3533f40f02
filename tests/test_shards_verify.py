"""verify finds every damaged byte and names its sample."""

from __future__ import annotations

import json
import random
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from shards.dataset.files import EXCLUDED, INDEX, TABLE
from shards.dataset.index import Index
from shards.verify import Verify, run_verify
from tests.small_shards import build

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module", params=["raw", "jpg"])
def pristine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Several shards in two splits; json comes before the image with one encoding, after it with the other."""
    return build(tmp_path_factory.mktemp("pristine"), encode=request.param)


@pytest.fixture
def data(pristine: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(pristine, tmp_path / "data"))


def flip(path: Path, position: int, bit: int = 0) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1 << bit
    path.write_bytes(content)


def verify(path: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, list[str]]:
    """Return the exit code and the findings."""
    code = run_verify(Verify(path, workers=2))
    *findings, summary = capsys.readouterr().out.splitlines()
    assert re.search(f"DAMAGED, findings: {len(findings)};" if findings else "whole", summary)
    return code, findings


def places(shard: Path) -> Iterator[tuple[str, range]]:
    """Yield the kinds of places in a shard and where they are."""
    end = 0
    with tarfile.open(shard) as archive:
        for member in archive:
            kind = "json" if member.name.endswith(".json") else "image"
            stop = member.offset_data + member.size
            end = member.offset_data + -(-member.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
            yield f"header of {kind}", range(member.offset, member.offset_data)
            yield kind, range(member.offset_data, stop)
            yield "padding", range(stop, end)
    yield "end", range(end, shard.stat().st_size)


def test_whole(pristine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify(pristine, capsys) == (0, [])


def test_names_the_sample_of_every_flipped_byte(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw = random.Random(0)
    index = Index.open(data)
    for split in index.splits.values():
        for number, shard in enumerate(split.shards):
            first = sum(before.samples for before in split.shards[:number])
            starts = index.table["start"][split.first + first :][: shard.samples].tolist()
            path = data / shard.name
            kinds = set()
            for kind, where in places(path):
                if not where:
                    continue
                kinds.add(kind)
                position = draw.choice(where)
                flip(path, position, bit := draw.randrange(8))
                code, (finding,) = verify(data, capsys)
                flip(path, position, bit)
                sample = first + sum(start <= position for start in starts) - 1
                place = "bytes outside any sample" if kind == "end" else rf"sample {sample} of {split.name} \(.*\)"
                assert code == 1
                assert re.match(rf"{shard.name}: {place}", finding), (kind, position)
            assert kinds == {"header of json", "json", "header of image", "image", "padding", "end"}
    assert verify(data, capsys) == (0, [])


def test_names_the_picture_that_a_damaged_sample_was_made_from(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    index = Index.open(data)
    shard = index.splits["train"].shards[0]
    image = next(where for kind, where in places(data / shard.name) if kind == "image")
    with tarfile.open(data / shard.name) as archive:
        member = next(member for member in archive if member.name.endswith(".json"))
        file = archive.extractfile(member)
        assert file is not None
        source = json.load(file)["file"]
    flip(data / shard.name, image.start)
    key = member.name.removesuffix(".json")
    assert verify(data, capsys) == (1, [f"{shard.name}: sample 0 of train ({key}, {source}) is damaged"])


def test_names_every_damaged_sample(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    index = Index.open(data)
    shard = index.splits["train"].shards[0]
    for start in index.table["start"][[1, 3]].tolist():
        flip(data / shard.name, start + 700)
    flip(data / shard.name, shard.bytes - 1)
    code, findings = verify(data, capsys)
    assert code == 1
    assert [finding.split(" (")[0] for finding in findings] == [
        f"{shard.name}: sample 1 of train",
        f"{shard.name}: sample 3 of train",
        f"{shard.name}: bytes outside any sample, from {index_end(data / shard.name)} on, are damaged",
    ]


def index_end(shard: Path) -> int:
    return list(places(shard))[-1][1].start


@pytest.mark.parametrize("name", [TABLE, EXCLUDED, INDEX])
def test_finds_flips_beside_the_shards(name: str, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw = random.Random(name)
    size = (data / name).stat().st_size
    for position in {0, size - 1, *(draw.randrange(size) for _ in range(60))}:
        flip(data / name, position, bit := draw.randrange(8))
        code, findings = verify(data, capsys)
        flip(data / name, position, bit)
        assert code == 1, position
        assert any(name in finding for finding in findings), (position, findings)
    assert verify(data, capsys) == (0, [])


@pytest.mark.parametrize("name", [TABLE, EXCLUDED, "shard"])
def test_missing_files(name: str, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = Index.open(data).splits["train"].shards[1].name if name == "shard" else name
    (data / name).unlink()
    assert verify(data, capsys) == (1, [f"{name}: missing"])


def test_truncated_shard(pristine: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    index = Index.open(data)
    shard = index.splits["train"].shards[0]
    path = data / shard.name
    start = int(index.table["start"][1])
    for size, what in [
        (start + 100, f"ends {shard.bytes - start - 100} bytes early: sample 1 of train"),
        (start, f"ends {shard.bytes - start} bytes early: sample 1 of train"),
        (0, f"ends {shard.bytes} bytes early: sample 0 of train"),
        (shard.bytes - 1, f"bytes outside any sample, from {index_end(path)} on, are damaged (-1 bytes)"),
    ]:
        path.write_bytes(path.read_bytes()[:size])
        code, (finding,) = verify(data, capsys)
        assert code == 1
        assert finding.startswith(f"{shard.name}: {what}")
        assert ("and all that follow" in finding) == ("early" in what)
        shutil.copy(pristine / shard.name, path)


def test_shard_that_is_too_long(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shard = Index.open(data).splits["holdout"].shards[0]
    with (data / shard.name).open("ab") as file:
        file.write(bytes(100))
    code, (finding,) = verify(data, capsys)
    assert code == 1
    assert finding.startswith(f"{shard.name}: bytes outside any sample")
    assert finding.endswith("(+100 bytes)")


def test_files_that_do_not_belong(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(data / Index.open(data).splits["train"].shards[0].name, data / "train-99999.tar")
    (data / "notes").mkdir()
    (data / "notes" / "mine.txt").write_text("mine")
    code, findings = verify(data, capsys)
    assert code == 1
    assert [finding.split(":")[0] for finding in findings] == ["notes/mine.txt", "train-99999.tar"]


def test_damaged_table_and_shard(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shard = Index.open(data).splits["train"].shards[0]
    flip(data / shard.name, 600)
    flip(data / TABLE, 300)
    code, findings = verify(data, capsys)
    assert code == 1
    assert [finding.split(":")[0] for finding in findings] == [TABLE, shard.name]


def command(*args: object) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "shards", "verify", *map(str, args)]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("pristine", ["raw"], indirect=True)
def test_exit_codes(data: Path, tmp_path: Path) -> None:
    whole = command(data)
    assert (whole.returncode, whole.stderr) == (0, "")
    assert "whole" in whole.stdout
    flip(data / Index.open(data).splits["train"].shards[0].name, 600)
    assert command(data).returncode == 1
    refused = command(tmp_path / "nothing")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "does not exist" in refused.stderr
    assert refused.stderr.count("\n") == 1


def test_refuses_a_folder_without_an_index(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_verify(Verify(tmp_path)) == 2
    assert "holds no finished shards" in capsys.readouterr().err
