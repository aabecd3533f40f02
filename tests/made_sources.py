"""Sources of pictures, made for a test, and what `python -m shards build` says to them or makes of them."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webdataset
from PIL import Image

from shards.__main__ import main
from shards.dataset.index import Index
from shards.exclusion import REASONS


def jpeg(seed: int, size: tuple[int, int] = (60, 40)) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).resize(size).save(buffer, "JPEG")
    return buffer.getvalue()


def make_source(folder: Path, count: int, folders: int = 3) -> Path:
    for i in range(count):
        place = folder / f"class {i % folders}"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{i:04d}.jpg").write_bytes(jpeg(i))
    return folder


def build(source: str | Path, out: Path, *args: str | Path) -> Index:
    assert main(["build", *map(str, (source, "--out", out, "--size", "16", "--workers", "1", *args))]) == 0
    return Index.open(out)


def excluded(out: Path) -> dict[str, str]:
    lines = [json.loads(line) for line in (out / "excluded.jsonl").read_text().splitlines()]
    assert all(line["detail"] and line["reason"] in REASONS for line in lines)
    assert dict(Counter(line["reason"] for line in lines)) == Index.open(out).content["excluded"]
    assert lines == sorted(lines, key=lambda line: os.fsencode(line["file"]))
    return {line["file"]: line["reason"] for line in lines}


def samples(index: Index, split: str) -> list[dict[str, Any]]:
    """Read a split with webdataset's own reader."""
    urls = [str(index.path / shard.name) for shard in index.splits[split].shards]
    return list(webdataset.WebDataset(urls, shardshuffle=False).decode()) if urls else []


def facts(index: Index, split: str = "train") -> list[dict[str, Any]]:
    """Return what the shards tell of each picture of a split: file, label, width and height."""
    found = []
    for shard in index.splits[split].shards:
        with tarfile.open(index.folder / shard.name) as archive:
            for member in archive:
                if member.name.endswith(".json") and (content := archive.extractfile(member)):
                    found.append(json.load(content))
    return found


def digests(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def add(archive: tarfile.TarFile, name: str, data: bytes = b"", **attributes: Any) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for attribute, value in attributes.items():
        setattr(info, attribute, value)
    archive.addfile(info, io.BytesIO(data))


def said_by(*args: str | Path) -> str:
    """Return the one message of a command that refuses."""
    with pytest.MonkeyPatch.context() as patch:
        said = io.StringIO()
        patch.setattr(sys, "stderr", said)
        assert main([*map(str, args)]) == 2
    return said.getvalue()


def refuse(source: str | Path, out: str | Path, message: str, *args: str | Path) -> str:
    """Check that a build is refused in one line, and return it."""
    said = said_by("build", source, "--out", out, *args)
    assert message in said
    assert said.startswith("shards build: ")
    assert said.count("\n") == 1
    return said


def run_shards(*args: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a command as people do."""
    command = [sys.executable, "-m", "shards", *map(str, args)]
    return subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, timeout=60)
