"""The demo: bundled pictures → shards → a few minutes of training → something to look at, all by public commands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.ticker import EngFormatter
from PIL import Image, ImageDraw

from shards.dataset.index import Index
from shards.dataset.stream import Reader
from trainer.core.randomness import philox
from trainer.metrics.sliced_wasserstein import SlicedWasserstein
from trainer.sampling.sampler import real_samples

mpl.use("Agg")

HOME = Path(__file__).resolve().parent.parent
SHARDS = HOME / "demo" / "flags-32"
RUN = HOME / "runs" / "demo"
SIZE, WIDE, GAP, MARGIN, LINE = 32, 48, 4, 12, 26  # pixels: of a picture, as a flag is wide, between, around, of text
COLUMNS = 8  # of a grid
IMAGES = 170_000  # to see
GROUND = "#dddddd"  # so that white flags are seen
MOMENTS = (0, 1, 4)  # grids of the way that are shown

# Found by trial on two cores. Of 463 flags D would soon know each by heart: DiffAugment and R1 keep it from that.
SETTINGS = [
    *("--batch-size", "32", "--micro-batch-size", "16", "--total-images", str(IMAGES)),
    *("--network.g-channels", "48", "--network.d-channels", "48", "--network.mbstd-group", "4"),
    *("--network.no-d-batch-norm", "--penalties.r1.weight", "0.1", "--penalties.r1.every", "4"),
    *("--augment.kind", "diffaugment", "--augment.policy", "translation,cutout"),
    *("--optimizer.g-lr", "1.2e-3", "--optimizer.d-lr", "1.2e-3"),
    *("--optimizer.beta1", "0", "--optimizer.beta2", "0.99"),
    *("--optimizer.lr-final", "0.1", "--optimizer.decay-images", str(IMAGES)),
    *("--log-every-images", "4000", "--sample-every-images", "20000", "--checkpoint-every-images", "60000"),
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


def flags(path: Path) -> tuple[list[Image.Image], list[Image.Image]]:
    """Cut a grid into its pictures, the reals and the painted ones, row by row, and make each as wide as a flag.

    The shards hold whole flags, stretched to squares; 3:2 is the shape of most.
    """
    image = Image.open(path)
    half = COLUMNS * SIZE
    sides = []
    for left in (0, image.width - half):
        boxes = [(x, y, x + SIZE, y + SIZE) for y in range(0, half, SIZE) for x in range(left, left + half, SIZE)]
        sides.append([image.crop(box).resize((WIDE, SIZE), Image.Resampling.BICUBIC) for box in boxes])
    return sides[0], sides[1]


def panel(pictures: Sequence[Image.Image], columns: int, caption: str) -> Image.Image:
    """Lay pictures out in rows below a caption."""
    rows = len(pictures) // columns
    sheet = Image.new("RGB", (columns * (WIDE + GAP), LINE + rows * (SIZE + GAP)), GROUND)
    ImageDraw.Draw(sheet).text((0, 4), caption, fill="black", font_size=14)
    for i, picture in enumerate(pictures):
        sheet.paste(picture, (i % columns * (WIDE + GAP), LINE + i // columns * (SIZE + GAP)))
    return sheet


def progress(out: Path) -> None:
    """Show reals beside what was painted last, and below, from the same noise, what was painted earlier."""
    grids = sorted((RUN / "samples").glob("*.png"))
    distance = {int(row["images_seen"]): row["swd_512"] for row in rows() if "swd_512" in row}
    captions = [f"after {int(path.stem):,} pictures: distance {distance[int(path.stem)]:.0f}" for path in grids]
    real, painted = flags(grids[-1])
    last = panel(painted, COLUMNS, "painted " + captions[-1])
    columns = 2 * COLUMNS
    earlier = [panel(flags(grids[i])[1][:columns], columns, captions[i]) for i in MOMENTS if i < len(grids) - 1]
    height = last.height + sum(strip.height for strip in earlier)
    sheet = Image.new("RGB", (2 * last.width + 3 * MARGIN, height + 2 * MARGIN), GROUND)
    sheet.paste(panel(real, COLUMNS, "real flags"), (MARGIN, MARGIN))
    sheet.paste(last, (last.width + 2 * MARGIN, MARGIN))
    top = MARGIN + last.height
    for strip in earlier:
        sheet.paste(strip, (MARGIN, top))
        top += strip.height
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
    for axes in (left, right):
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    figure.savefig(out, dpi=110)


def main() -> None:
    """Build, train, and show."""
    os.environ.setdefault("WANDB_SILENT", "true")
    build = ["shards", "build", "examples/clipart.zip", "--out", str(SHARDS), "--size", str(SIZE)]
    build += ["--fit", "stretch"]  # whole flags: a square cut from the middle loses the canton of most
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
    print(f"  .venv/bin/python -m launcher resume {RUN} --total-images {2 * IMAGES}             train on")
    print("  .venv/bin/python -m shards build MY_PICTURES --out my-shards --size 64      use your own pictures")
    print(f"  .venv/bin/python -m trainer serve {RUN}                          open a page on which it paints")


if __name__ == "__main__":
    main()
