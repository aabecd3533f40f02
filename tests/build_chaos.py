"""A build into a bucket, killed at random moments and resumed with other workers: the bytes of a local build.

`python -m tests.build_chaos --kills 5 --seed 0`: all pictures of Debian's openclipart-png, broken and gigantic ones
among them, and synthetic JPEGs of two megapixels; the seed replays the moments.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import tyro

from bench.sharding import make_pictures
from tests.conftest import HOME
from tests.made_sources import digests
from tests.s3_server import Bucket, serve_bucket

INTERRUPTED = 75


@dataclass(frozen=True)
class Chaos:
    """Kill builds into a bucket, and compare their bytes with those of a local one."""

    kills: int = 5
    """Of the one build into the bucket; every other one is a SIGTERM, after which it ends by itself."""
    seed: int = 0
    """Names the moments and the numbers of workers."""
    pictures: int = 3_000
    """Synthetic JPEGs beside those of --clipart."""
    clipart: Path = Path("/usr/share/openclipart/png")
    """A folder of pictures."""


def build(source: Path, out: str, *options: str, bucket: Bucket | None = None) -> subprocess.Popen[bytes]:
    """Begin a build."""
    command = [
        sys.executable,
        "-m",
        "shards",
        "build",
        str(source),
        "--out",
        out,
        "--size",
        "64",
        "--labels",
        "folders",
    ]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    environment |= bucket.environment if bucket else {}
    return subprocess.Popen([*command, *options], cwd=HOME, env=environment, start_new_session=True)


def disturb(source: Path, bucket: Bucket, work: Path, seconds: float, args: Chaos) -> None:
    """Build into the bucket through all kills, and print what was done."""
    chance, options = random.Random(args.seed), ["--work", str(work)]
    for number in range(args.kills):
        workers, moment = chance.randint(1, 4), chance.uniform(0.5, seconds / 2)
        process = build(source, f"{bucket.url}/set", *options, "--workers", str(workers), bucket=bucket)
        time.sleep(moment)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM if number % 2 else signal.SIGKILL)
        code = process.wait()
        assert code in (0, INTERRUPTED, -signal.SIGKILL), f"the build ended with {code}"
        print(f"{workers} workers, {moment:.1f} s: exit code {code}", flush=True)
        options = ["--work", str(work), "--resume"]
    assert build(source, f"{bucket.url}/set", *options, bucket=bucket).wait() == 0


def main() -> None:
    args = tyro.cli(Chaos)
    with tempfile.TemporaryDirectory() as temporary, serve_bucket(Path(temporary) / "buckets") as bucket:
        home, source = Path(temporary), Path(temporary) / "source"
        shutil.copytree(args.clipart, source / "clipart")
        (source / "photographs").mkdir()
        make_pictures(source / "photographs", args.pictures)
        began = time.monotonic()
        assert build(source, str(home / "local")).wait() == 0
        disturb(source, bucket, home / "work", time.monotonic() - began, args)
        expected, found = digests(home / "local"), digests(bucket.root / "set")
        assert found == expected, sorted(found.items() ^ expected.items())
        print(f"{len(found)} files, the same bytes")


if __name__ == "__main__":
    main()
