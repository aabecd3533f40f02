"""Every command of the tutorial and of the quick start, in order, on an imitation of their pictures, on one machine."""

from __future__ import annotations

import re
import shlex
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import HOME, fingerprint, run
from tests.test_docs_site import commands
from tests.wandb_server import WandbServer

LITTLE = (
    *("--network.max-channels", "8", "--network.g-channels", "8", "--network.d-channels", "8", "--network.z-dim", "8"),
    *("--batch-size", "16", "--micro-batch-size", "8", "--total-images", "64"),
    *("--cluster", "local", "--processes", "2", "--tracking.mode", "offline"),
)
FEW = ("--num-samples", "32", "--extractor", "random-vgg")
MORE: Mapping[str, tuple[str, ...]] = {
    "submit": LITTLE,
    "resume": ("--total-images", "96", "--cluster", "local", "--processes", "1"),
    "evaluate": FEW,
}
"""What else is said to a command: a network for a test, and where it runs."""
ELSEWHERE = {
    "doctor --nodes": "test_doctor.py, on real nodes",
    "trainer serve": "test_serving.py",
    "slurm up": "test_slurm_dev_cluster.py",
}
OF_JOBS = {
    "launcher status pbn-64": "look at it with: python -m shards inspect pbn-64",
    "launcher logs": "it was trained by hand or on one machine",
}
"""Commands for jobs of Slurm, and what they say where there were none."""


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> Iterator[WandbServer]:
    with WandbServer() as server:
        server.use(monkeypatch)
        yield server
        assert not server.unknown


def follow(guide: str, folder: Path) -> Iterator[str]:
    """Run the commands of a guide, and yield the verb of each when it has ended."""
    for command in commands(HOME / "docs" / guide):
        if any(words in command for words in ELSEWHERE):
            continue
        command = re.sub(r" --nodes \S+", "", command).replace("s3://bucket/", "bucket/")
        _, _, package, verb, *words = shlex.split(command)
        done = run(package, verb, *words, *MORE.get(verb, ()), folder=folder)
        if said := [said for beginning, said in OF_JOBS.items() if beginning in command]:
            assert said[0] in done.stderr
        else:
            assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        yield verb


def test_every_command_runs(competition: Path, wandb: WandbServer) -> None:
    made = []
    for verb in follow("tutorial.md", competition):
        if verb in ("prepare", "build"):
            made.append({path.name: path.read_bytes() for path in (competition / "pbn-64").glob("*.tar")})
        if verb == "verify":
            (competition / "pbn-64").rename(competition / "prepared")
    assert made[0] == made[1] != {}
    assert fingerprint(competition / "runs" / "paintings")[0] == 96
    for file in ("nearest/nearest.png", "grid.png", "way.gif"):
        Image.open(competition / file).verify()
    pushed = {path.name for path in (competition / "bucket" / "paintings").iterdir()}
    assert pushed == {path.name for path in (competition / "paintings").iterdir()} >= {"README.md"}
    assert len(wandb.runs) == 1


def test_the_quick_start_runs(competition: Path) -> None:
    with zipfile.ZipFile(competition / "train.zip") as archive:
        archive.extractall(competition / "MY_PICTURES")
    assert "export" in [*follow("quickstart.md", competition)]
    assert fingerprint(competition / "runs" / "first")[0] == 96
    assert (competition / "model" / "README.md").exists()
