"""Make tiny folders with the code as it is: `python -m tests.old.make /lienzo-v1`; README.md beside this says more.

They are for later versions to read, so they hold what real ones do: a rollback, a process that was killed, a run that
goes on from another's state, a study, a job on a cluster if there is one.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

HOME = Path(__file__).parent.parent.parent
# The least that every x86-64 processor computes alike, so that one machine's fingerprints are another's.
BITS = {
    "ATEN_CPU_CAPABILITY": "default",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "MKL_CBWR": "COMPATIBLE",
    "WANDB_MODE": "disabled",
}
RANK = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}
FOLDERS, PICTURES = ("africa", "america", "asia"), 54  # of clipart.zip, of each
TINY = {
    "network.size": 16,
    "network.z-dim": 8,
    "network.g-channels": 4,
    "network.d-channels": 4,
    "batch-size": 32,
    "micro-batch-size": 8,
    "mixed-precision": "no",
    "log-every-images": 32,
    "sample-every-images": 1_000_000,
    "checkpoint-every-images": 64,
    "checkpoint.keep-last": 1,
}
SMALL_MAPPING = {"network.mapping-layers": 2, "network.max-channels": 8, "network.mbstd-group": 4}
CONDITIONAL = {"network.g-conditional": True, "network.d-head": "projection", "augment.interval": 1}
OFTEN = {"penalties.r1.every": 2, "penalties.path-length.every": 2, "augment.speed-images": 400}
COLLAPSE = {
    "collapse.every-images": 32,
    "anchor-every-images": 64,
    "collapse.policy": "roll-back",
    "collapse.changes": "augmentation",
}
STUDY = """\
data = "{data}"
seeds = 2
[budget]
images = 128
[evaluation]
metrics = ["fid"]
num_samples = 32
[settings]
network = {{ size = 16, g-channels = 4, d-channels = 4, z-dim = 8 }}
batch-size = 32
micro-batch-size = 8
mixed-precision = "no"
log-every-images = 32
checkpoint.keep-last = 1
tracking.mode = "disabled"
[arms.dcgan]
recipe = "dcgan-32"
[arms.hinge]
recipe = "dcgan-32"
settings.objective = "hinge"
"""


def flags(settings: dict[str, object]) -> list[str]:
    """Return settings as the command line has them."""
    found = []
    for name, value in settings.items():
        *group, last = name.split(".")
        if isinstance(value, bool):
            found.append(f"--{'.'.join([*group, last if value else f'no-{last}'])}")
        else:
            found += [f"--{name}", str(value)]
    return found


def run(*command: object, **environment: str) -> str:
    """Run a module of this checkout, far from it, and return what it prints."""
    words = [sys.executable, "-m", *map(str, command)]
    names = os.environ | BITS | {"PYTHONPATH": str(HOME)} | environment
    done = subprocess.run(words, env=names, cwd="/", text=True, stdout=subprocess.PIPE)
    if done.returncode:
        sys.exit(f"{' '.join(words)}: exit code {done.returncode}")
    return done.stdout


def train(folder: Path, recipe: str, data: Path, settings: dict[str, object], module: tuple[str, ...]) -> None:
    """Train a run to its end in one process, which may be one with a planted mistake."""
    asked = flags(TINY | settings | {"tracking.mode": "disabled"})
    run(*module, "train", recipe, "--run", folder, "--data", data, *asked, **RANK, MASTER_PORT="29517")


def kill(folder: Path, data: Path) -> None:
    """Train a run until it has rows beyond its last checkpoint, and kill it."""
    asked = flags(TINY | {"tracking.mode": "disabled", "total-images": 10**6, "checkpoint-every-images": 640})
    command = ["trainer", "train", "dcgan-32", "--run", folder, "--data", data, *asked]
    environment = os.environ | BITS | RANK | {"MASTER_PORT": "29518"}
    process = subprocess.Popen([sys.executable, "-m", *map(str, command)], env=environment, cwd=HOME)
    while len(list((folder / "checkpoints").glob("0*"))) < 1 or not (folder / "metrics.jsonl").exists():
        time.sleep(0.02)
    while (folder / "metrics.jsonl").read_bytes().count(b"\n") < 24:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (folder / "lease.json").unlink()  # it names this machine


def pictures(folder: Path) -> Path:
    """Unpack some of the bundled pictures, in folders that are their classes."""
    with zipfile.ZipFile(HOME / "examples" / "clipart.zip") as archive:
        for kind in FOLDERS:
            for name in sorted(n for n in archive.namelist() if n.startswith(f"{kind}/"))[:PICTURES]:
                archive.extract(name, folder)
    return folder


def on_cluster(out: Path, data: Path) -> None:
    """Train a run on two nodes of a real Slurm, and cancel it, which saves."""
    folder, cluster = out / "runs" / "cluster", out / "slurm"
    run("slurm", "up", "--nodes", 2, "--folder", cluster)
    slurm = {"SLURM_CONF": str(cluster / "slurm.conf")}
    asked = flags(TINY | {"tracking.mode": "disabled", "total-images": 10**6})
    run("launcher", "submit", "dcgan-32", "--run", folder, "--data", data, "--nodes", 2, *asked, **slurm)
    while len(list((folder / "checkpoints").glob("0*"))) < 2:
        time.sleep(0.1)
    run("launcher", "cancel", folder, **slurm)
    while (folder / "attempts.jsonl").read_bytes().count(b"\n") < 2:
        time.sleep(0.1)
    run("slurm", "down", "--folder", cluster)
    for path in (cluster, folder / "code"):
        shutil.rmtree(path)
    for script in (folder / "logs" / "slurm").glob("*.sh"):
        script.unlink()  # it names the Python of this machine


def make(out: Path) -> None:
    """Make a dataset, runs and a study."""
    data, runs = out / "data", out / "runs"
    build = ("--size", 16, "--labels", "folders", "--holdout", 0.2, "--shard-samples", 40, "--workers", 1)
    run("shards", "build", pictures(out / "source"), "--out", data, *build)
    shutil.rmtree(out / "source")
    trainer = ("trainer",)
    train(runs / "finished", "dcgan-32", data, {"total-images": 128}, trainer)
    evaluate = ("--metrics", "fid", "--num-samples", 32, "--seed-set", "select", "--processes", 1)
    run("trainer", "evaluate", runs / "finished", *evaluate, "--cache", out / "cache")
    shutil.rmtree(out / "cache")
    planted = ("tests.planted", "collapse_once")
    train(runs / "rolled-back", "dcgan-32", data, COLLAPSE | {"total-images": 224}, planted)
    style = TINY | SMALL_MAPPING | CONDITIONAL | OFTEN
    train(runs / "stylegan2", "stylegan2-ada-64", data, style | {"total-images": 128}, trainer)
    kill(runs / "killed", data)
    other = ("--as", runs / "continued", "--optimizer.g-lr", 1e-4, "--total-images", 192, "--cluster", "local")
    run("launcher", "resume", runs / "stylegan2", *other, "--processes", 1)
    on_cluster(out, data)
    (out / "study.toml").write_text(STUDY.format(data=data))
    here = ("--cluster", "local", "--processes", 1)
    run("launcher", "study", out / "study.toml", "--out", out / "study", *here)
    (out / "study.toml").unlink()
    shutil.rmtree(out / "study" / "features")
    for lock in (out / "study").glob("*.lock"):
        lock.unlink()  # as above


def pixels(path: Path) -> str:
    """Return the SHA-256 of a picture's pixels."""
    return hashlib.sha256(np.asarray(Image.open(path)).tobytes()).hexdigest()


def state(folder: Path) -> dict[str, object]:
    """Return what a run is, to the bit."""
    seen, digest = run("trainer", "fingerprint", folder).splitlines()
    rows = hashlib.sha256((folder / "metrics.jsonl").read_bytes()).hexdigest()
    return {"images_seen": int(seen.split()[1]), "fingerprint": digest, "metrics": rows}


def expect(folder: Path, data: Path, scratch: Path) -> dict[str, object]:
    """Return what a run is, what it paints, and what it is after two steps more, or one, before it collapses again."""
    painted = scratch / "grid.png"
    run("trainer", "sample", folder, "--num", 4, "--seed", 1, "--out", painted)
    now = state(folder)
    resumed = Path(shutil.copytree(folder, scratch / folder.name))
    images = int(str(now["images_seen"])) + (1 if folder.name == "rolled-back" else 2) * 32
    more = ("--data", data, "--total-images", images, "--processes", 1)
    run("trainer", "train", "--run", resumed, *more)
    return {"is": now, "paints": pixels(painted), "resumed": state(resumed)}


def main(out: Path) -> None:
    """Make all of it, and write down what a later version must find there."""
    if not (out / "data").exists():
        make(out)
    scratch = out / "scratch"
    scratch.mkdir()
    folders = sorted(path.parent for path in (*out.glob("runs/*/config.json"), *out.glob("study/runs/*/config.json")))
    found = {str(folder.relative_to(out)): expect(folder, out / "data", scratch) for folder in folders}
    shutil.rmtree(scratch)
    content = {"torch": torch.__version__, "variables": BITS, "runs": found}
    (out / "expected.json").write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
