"""The bundled pictures: as documented, safe, varied, broken where they should be, and made again byte by byte."""

from __future__ import annotations

import hashlib
import io
import re
import subprocess
import sys
import zipfile
from collections import Counter
from pathlib import Path, PurePosixPath

import pytest
from PIL import Image

from shards.dataset.index import Index

EXAMPLES = Path(__file__).parent.parent / "examples"
ARCHIVE = EXAMPLES / "clipart.zip"
README = (EXAMPLES / "README.md").read_text()
PACKAGE = Path("/usr/share/openclipart/png")


@pytest.fixture(scope="module")
def content() -> dict[str, bytes]:
    with zipfile.ZipFile(ARCHIVE) as archive:
        names = archive.namelist()
        assert len(names) == len(set(names))
        return {name: archive.read(name) for name in names}


def make(*args: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(EXAMPLES / "make_archive.py"), *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_readme_names_size_and_digest(content: dict[str, bytes]) -> None:
    assert ARCHIVE.stat().st_size <= 30_000_000
    assert f"`{hashlib.sha256(ARCHIVE.read_bytes()).hexdigest()}`" in README
    assert f"{len(content)} files ({ARCHIVE.stat().st_size / 1e6:.1f} MB)" in README


def test_readme_counts_the_folders(content: dict[str, bytes]) -> None:
    stated: dict[str, int] = {}
    for folders, counts in re.findall(r"^\| ((?:`\w+` ?)+) \| ([\d, ]+) \|", README, re.MULTILINE):
        stated |= dict(zip(re.findall(r"\w+", folders), map(int, re.findall(r"\d+", counts)), strict=True))
    assert stated == Counter(name.split("/")[0] for name in content)


def test_readme_counts_the_modes(content: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    modes: Counter[str] = Counter()
    for name, data in content.items():
        if name not in {"spoiled/empty.png", "spoiled/text.png"}:
            with Image.open(io.BytesIO(data)) as image:
                modes[image.mode] += 1
    assert modes == {mode: int(n) for mode, n in re.findall(r"^\| ([A-Z]+) \| (\d+) \|", README, re.MULTILINE)}
    assert len(modes) >= 5


def test_members_are_plain_files_inside_the_archive() -> None:
    with zipfile.ZipFile(ARCHIVE) as archive:
        assert archive.testzip() is None
        for member in archive.infolist():
            path = PurePosixPath(member.filename)
            assert not path.is_absolute()
            assert ".." not in path.parts
            assert re.fullmatch(r"[\w.+/-]+\.png", member.filename)
            assert member.external_attr >> 16 == 0o644


def test_some_are_broken(content: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 120_000_000)
    broken = set()
    for name in content:
        if name.startswith(("spoiled/", "others/")):
            try:
                with Image.open(io.BytesIO(content[name])) as image:
                    image.load()
            except (OSError, Image.DecompressionBombError):
                broken.add(name)
    assert broken == set(re.findall(r"^\| `([a-z]+/\S+)` \|", README, re.MULTILINE))
    assert len(broken) == 4


def test_a_build_excludes_what_the_readme_says(shards32: Path) -> None:
    index = Index.open(shards32)
    assert index.content["excluded"] == {
        "empty": 1,
        "not_an_image": 1,
        "too_many_pixels": 1,
        "too_small": 4,
        "truncated": 1,
    }
    assert f"the other {len(index.table)} become samples" in README


def test_makes_the_same_bytes_again_or_says_what_is_missing(tmp_path: Path) -> None:
    out = tmp_path / "clipart.zip"
    done = make("--out", out)
    if PACKAGE.is_dir():
        assert done.returncode == 0, done.stderr
        assert out.read_bytes() == ARCHIVE.read_bytes()
    else:
        assert done.returncode == 2
        assert "apt-get install openclipart-png" in done.stderr


def test_refuses_a_folder_without_flags(tmp_path: Path) -> None:
    done = make("--source", tmp_path, "--out", tmp_path / "clipart.zip")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "apt-get install openclipart-png" in done.stderr
    assert list(tmp_path.iterdir()) == []
