"""Journals: whole lines whatever happens, and the same bytes after a kill, a cut and a replay."""

from __future__ import annotations

import math
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from trainer.runs.journal import Follower, Journal, last_row, read_rows

ROOT = Path(__file__).parent.parent


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "metrics.jsonl"


def write(path: Path, *images_seen: int) -> None:
    journal = Journal(path)
    for number in images_seen:
        journal.append({"images_seen": number, "loss": math.sqrt(number)})
    journal.close()


def seen(path: Path) -> list[int]:
    return [row["images_seen"] for row in read_rows(path)]


def test_rows_come_back_as_they_were(path: Path) -> None:
    row = {"images_seen": 1, "tenth": 0.1, "tiny": 5e-324, "up": math.inf, "down": -math.inf, "text": "é"}
    journal = Journal(path)
    journal.append(row)
    journal.append({"images_seen": 2, "broken": math.nan})
    journal.sync()
    journal.close()
    first, second = read_rows(path)
    assert first == row
    assert math.isnan(second["broken"])
    assert "NaN" in path.read_text().splitlines()[1]
    assert ": NaN" not in path.read_text()  # which no other reader of JSON would take


def test_numbers_that_json_lacks_may_be_nested(path: Path) -> None:
    journal = Journal(path)
    journal.append({"kind": "collapse alarm", "evidence": {"growth": math.inf, "gap": math.nan, "size": 1.5}})
    journal.close()
    assert last_row(path)["evidence"] == {"growth": "Infinity", "gap": "NaN", "size": 1.5}


def test_no_file_has_no_rows(path: Path) -> None:
    assert seen(path) == []
    Journal(path).cut(0)
    assert not path.exists()


def test_kill_cut_and_replay_give_the_same_bytes(path: Path, tmp_path: Path) -> None:
    undisturbed = tmp_path / "undisturbed.jsonl"
    write(undisturbed, *range(10, 100, 10))
    write(path, *range(10, 60, 10))
    with path.open("ab") as file:
        file.write(b'{"images_seen": 60, "lo')
    journal = Journal(path)
    journal.cut(30)
    journal.close()
    assert seen(path) == [10, 20, 30]
    write(path, *range(40, 100, 10))
    assert path.read_bytes() == undisturbed.read_bytes()


def test_a_torn_last_line_is_no_row_and_is_dropped_by_the_next_append(path: Path) -> None:
    write(path, 10, 20)
    with path.open("ab") as file:
        file.write(b'{"images_seen": 30')
    assert seen(path) == [10, 20]
    write(path, 40)
    assert seen(path) == [10, 20, 40]


def test_a_torn_only_line(path: Path) -> None:
    path.write_bytes(b'{"images')
    write(path, 10)
    assert seen(path) == [10]


def test_a_line_of_zeros_as_a_crashed_machine_leaves_it_is_no_row(path: Path) -> None:
    write(path, 10)
    with path.open("ab") as file:
        file.write(b"\0" * 40 + b"\n")
    write(path, 20, 30)
    assert seen(path) == [10, 20, 30]
    Journal(path).cut(20)
    assert path.read_bytes().count(b"\n") == 2


def test_a_cut_that_drops_nothing_leaves_the_file_alone(path: Path) -> None:
    write(path, 10, 20)
    before = path.stat().st_ino
    Journal(path).cut(20)
    assert path.stat().st_ino == before


def test_append_goes_on_after_a_cut(path: Path) -> None:
    journal = Journal(path)
    for number in (10, 20, 30):
        journal.append({"images_seen": number})
    journal.cut(10)
    journal.append({"images_seen": 15})
    journal.close()
    assert seen(path) == [10, 15]


def test_a_cut_that_fails_leaves_the_old_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(path, 10, 20, 30)
    before = path.read_bytes()

    def fail(file: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="Input/output"):
        Journal(path).cut(10)
    assert path.read_bytes() == before


def test_follower_sees_whole_rows_once_and_notices_a_cut(path: Path) -> None:
    follower = Follower(path)
    assert follower.read() == []
    assert not follower.replaced()
    write(path, 10)
    assert [row["images_seen"] for row in follower.read()] == [10]
    with path.open("ab") as file:
        file.write(b'{"images_seen"')
        file.flush()
        assert follower.read() == []
        file.write(b": 20}\n")
    assert [row["images_seen"] for row in follower.read()] == [20]
    assert follower.read() == []
    assert not follower.replaced()
    Journal(path).cut(10)
    assert follower.replaced()
    follower.close()


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file of this process may grow beyond 1000 bytes: as a full disk, which needs no root."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    signal.signal(signal.SIGXFSZ, before)


def lift_limit() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.getrlimit(resource.RLIMIT_FSIZE)[1],) * 2)


@pytest.mark.usefixtures("small_files")
def test_a_full_disk_loses_no_row_and_warns_once(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    journal = Journal(path)
    for number in range(10, 1010, 10):
        journal.append({"images_seen": number})
    assert path.stat().st_size == 1000  # a short write, in the middle of a row
    assert [record.message for record in caplog.records] == [f"{path}: File too large; its rows wait in memory"]
    with pytest.raises(OSError, match="too large"):
        journal.sync()
    lift_limit()
    journal.append({"images_seen": 1010})
    journal.sync()
    journal.close()
    assert seen(path) == list(range(10, 1020, 10))


def test_rows_survive_the_kill_of_their_writer(path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from trainer.runs.journal import Journal\n"
        "journal = Journal(Path(sys.argv[1]))\n"
        "for number in range(1, 101): journal.append({'images_seen': number})\n"
        "os.kill(os.getpid(), 9)"
    )
    ended = subprocess.run([sys.executable, "-c", code, str(path)], cwd=ROOT, check=False)
    assert ended.returncode == -signal.SIGKILL
    assert seen(path) == list(range(1, 101))


def test_the_last_row_is_the_last_whole_one(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    assert last_row(path) == {}
    path.write_bytes(b'{"images_seen": 32}\n{"images_seen": 64}\n{"images_se')
    assert last_row(path) == {"images_seen": 64}
