"""Files get the modes that the umask says, whatever writes them: as docs/security.md promises."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from tests.conftest import HOME, TINY

UMASK = 0o027  # the group may read, others may not


def run(*command: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=HOME, umask=UMASK, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_dataset_and_a_run_have_the_modes_of_the_umask(tmp_path: Path) -> None:
    pictures, data, folder = tmp_path / "pictures", tmp_path / "data", tmp_path / "run"
    pictures.mkdir()
    for number in range(70):
        pixels = np.random.default_rng(number).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(pictures / f"{number}.png")
    run("shards", "build", str(pictures), "--out", str(data), "--size", "32", "--holdout", "0.1")
    settings = ("--total-images", "64", "--checkpoint-every-images", "32", "--sample-every-images", "64")
    run("trainer", "train", *TINY, "--run", str(folder), "--data", str(data), "--processes", "1", *settings)
    run("launcher", "report", str(folder), "--out", str(tmp_path / "report.html"))
    found = [path for top in (data, folder) for path in (top, *top.rglob("*"))]
    names = {path.name for path in found}
    assert {"index.json", "config.json", "metrics.jsonl", "000000000064.png", "state.safetensors"} <= names, names
    for path in (*found, tmp_path / "report.html"):
        mode = stat.S_IMODE(path.lstat().st_mode)
        assert mode == (0o750 if path.is_dir() else 0o640), (path, oct(mode))
