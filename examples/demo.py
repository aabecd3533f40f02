"""The demo: bundled pictures → shards → a few minutes of training → something to look at, all by public commands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt
from PIL import Image, ImageDraw

from shards.dataset.index import Index
from shards.dataset.stream import Reader
from trainer.core.randomness import philox
from trainer.metrics.sliced_wasserstein import SlicedWasserstein
from trainer.sampling.sampler import real_samples

mpl.use("Agg")

HOME = Path(__file__).resolve().parent.parent
SHARDS = HOME / "demo" / "shards-32"
RUN = HOME / "runs" / "demo"
SIZE, SIDE, GAP = 32, 256, 12  # pixels: of a picture, of a grid of 8 x 8, between grids

# Found by trial on two cores: small batches for many steps in little time, and a generator that learns faster than
# its judge, which otherwise wins early on so few pictures.
SETTINGS = [
    *("--batch-size", "32", "--micro-batch-size", "16", "--total-images", "64000"),
    *("--network.g-channels", "32", "--network.d-channels", "32"),
    *("--optimizer.g-lr", "1e-3", "--optimizer.d-lr", "3e-4"),
    *("--log-every-images", "3200", "--sample-every-images", "8000", "--checkpoint-every-images", "16000"),
]


def run(*command: str) -> None:
    """Run one of our modules and end with its exit code if it is not 0."""
    print("$ python -m " + " ".join(command), flush=True)
    code = subprocess.run([sys.executable, "-m", *command], cwd=HOME, check=False).returncode
    if code:
        sys.exit(code)


def rows() -> list[dict[str, float]]:
    """Return the rows of metrics.jsonl."""
    return [json.loads(line) for line in (RUN / "metrics.jsonl").read_text().splitlines()]


def progress(out: Path) -> None:
    """Lay the grids of some moments side by side: reals first, then what was painted, with its distance."""
    grids = sorted((RUN / "samples").glob("*.png"))
    chosen = [grids[i] for i in np.unique(np.linspace(0, len(grids) - 1, 4).round().astype(int))]
    distance = {int(row["images_seen"]): row["swd_512"] for row in rows() if "swd_512" in row}
    panels = [("real pictures", Image.open(chosen[0]).crop((0, 0, SIDE, SIDE)))]
    for path in chosen:
        image = Image.open(path)
        caption = f"after {int(path.stem):,} images: distance {distance[int(path.stem)]:.0f}"
        panels.append((caption, image.crop((image.width - SIDE, 0, image.width, SIDE))))
    sheet = Image.new("RGB", (GAP + (SIDE + GAP) * len(panels), SIDE + 2 * GAP + 20), "white")
    pen = ImageDraw.Draw(sheet)
    for i, (caption, panel) in enumerate(panels):
        left = GAP + i * (SIDE + GAP)
        pen.text((left, GAP), caption, fill="black", font_size=14)
        sheet.paste(panel, (left, GAP + 20))
    sheet.save(out)


def distance_of_noise() -> float:
    """Return how far uniform noise is from the real pictures."""
    reader = Reader(Index.open(SHARDS), "train", lambda sample, problem: None)
    noise = philox("noise").integers(0, 256, (512, SIZE, SIZE, 3), dtype=np.uint8)
    return SlicedWasserstein(real_samples(reader, 512, seed=0).images)(noise)


def plot(out: Path) -> None:
    """Plot both losses, and the distance between real and painted pictures."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.5), layout="constrained")
    seen = [row["images_seen"] for row in rows()]
    left.plot(seen, [row["loss_d"] for row in rows()], label="discriminator")
    left.plot(seen, [row["loss_g"] for row in rows()], label="generator")
    left.set(title="losses", xlabel="images seen")
    left.legend()
    swd = [(row["images_seen"], row["swd_512"]) for row in rows() if "swd_512" in row]
    right.plot(*zip(*swd, strict=True), marker="o")
    right.set(title="sliced Wasserstein distance, 512 pictures", xlabel="images seen", ylim=(0, None))
    figure.savefig(out, dpi=110)


def main() -> None:
    """Build, train, and show."""
    os.environ.setdefault("WANDB_SILENT", "true")
    build = ["shards", "build", "examples/clipart.zip", "--out", str(SHARDS), "--size", str(SIZE)]
    if not (SHARDS / "index.json").exists():
        run(*build, "--resume")
    here = ("--cluster", "local")  # whatever cluster there is: the demo shows what it makes when this returns
    run("launcher", "submit", "dcgan-32", "--data", str(SHARDS), "--run", str(RUN), *here, *SETTINGS)
    progress(RUN / "progress.png")
    plot(RUN / "losses.png")
    swd = [row["swd_512"] for row in rows() if "swd_512" in row]
    noise = distance_of_noise()
    print(f"\ndistance to the real pictures: noise {noise:.0f}; painted {swd[0]:.0f} at first, {swd[-1]:.0f} now")
    print(f"look at:   {RUN / 'progress.png'}\n           {RUN / 'losses.png'}\nwhat to try next:")
    print(f"  .venv/bin/python -m trainer sample {RUN} --num 64 --seed 1 --out grid.png   paint more")
    print(f"  .venv/bin/python -m launcher resume {RUN} --total-images 200000             train on")
    print("  .venv/bin/python -m shards build MY_PICTURES --out my-shards --size 64      use your own pictures")


if __name__ == "__main__":
    main()
