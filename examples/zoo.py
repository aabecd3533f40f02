"""The zoo: every recipe at 32 pixels and little width, trained for some minutes on the bundled flags of openclipart.

    python examples/zoo.py               all of them, two at a time, into runs/zoo, docs/zoo and docs/zoo.md
    python examples/zoo.py r3gan-32      one of them: its picture and its part of the page; the rest stays as it is

A run that was stopped goes on; one whose settings have changed since is refused until its folder is removed.

What is shown is that each learns, not how good it is: sizes, batches and times are those of two cores, not of papers.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import tyro
from PIL import Image
from tyro.conf import Positional

from trainer.config.recipes import RECIPES

HOME = Path(__file__).resolve().parent.parent
SHARDS = HOME / "runs" / "zoo" / "shards-32"
RUNS = HOME / "runs" / "zoo"
PICTURES = HOME / "docs" / "zoo"
PAGE = HOME / "docs" / "zoo.md"
SIDE = 256  # pixels of a grid of 8 x 8

SMALL = [
    *("--network.size", "32", "--batch-size", "32", "--micro-batch-size", "16"),
    *("--network.g-channels", "32", "--network.d-channels", "32", "--network.max-channels", "128"),
    *("--optimizer.ema-half-life-images", "2000", "--processes", "1", "--tracking.mode", "disabled"),
]
FAST = ["--optimizer.g-lr", "1e-3", "--optimizer.d-lr", "3e-4"]  # G learns faster than D, which sees few pictures
DENSE = [
    *("--network.g-channels", "512", "--network.d-channels", "128", "--micro-batch-size", "32"),
    *("--optimizer.g-lr", "5e-4", "--optimizer.d-lr", "5e-4", "--optimizer.ema-half-life-images", "8000"),
    *("--optimizer.lr-final", "0.1", "--optimizer.decay-images", "128000"),
    *("--penalties.r1.weight", "0.3", "--augment.kind", "diffaugment", "--augment.policy", "translation"),
]
RESNET = ["--network.g-channels", "64", "--network.d-channels", "64", "--d-steps", "2", *FAST]
BIGGAN = ["--network.g-channels", "16", "--network.d-channels", "16", "--d-steps", "1", *FAST]
# Of few pictures these networks soon know each by heart: a stronger R1 and an augmentation keep D from that. The path
# length penalty would take a seventh of the time, and adds nothing at this size. Flags are not mirrored.
STYLE = [
    *("--batch-size", "16", "--network.z-dim", "64", "--network.mapping-layers", "2", "--network.max-channels", "64"),
    *("--penalties.r1.weight", "0.1", "--penalties.r1.every", "8", "--penalties.path-length.weight", "0"),
    *("--optimizer.ema-half-life-images", "4000", "--no-flip"),
]
FEW = ["--augment.kind", "diffaugment", "--augment.policy", "translation,cutout"]
ADAPTIVE = ["--augment.speed-images", "50000"]  # p may rise by 1 in so many
R3 = [
    *("--batch-size", "16", "--network.max-channels", "48", "--optimizer.ema-half-life-images", "4000", "--no-flip"),
    *("--penalties.r1.weight", "1", "--penalties.r1.final", "0.3", "--penalties.r1.every", "4"),
    *("--penalties.r2.weight", "1", "--penalties.r2.final", "0.3", "--penalties.r2.every", "4"),
    *("--optimizer.g-lr", "7e-4", "--optimizer.d-lr", "7e-4"),
    *("--optimizer.lr-final", "0.1", "--optimizer.decay-images", "80000"),
    *(*FEW, "--augment.p-final", "None", "--optimizer.ema-half-life-final", "None", "--optimizer.ema-ramp", "0.05"),
]

DEEP = ["--network.g-channels", "8", "--network.d-channels", "8", "--d-steps", "1", *FAST]
# Among so few pictures its generator stays at plain colours while its weights are normalised.
MSG = [
    *("--network.max-channels", "64", "--network.d-channels", "16", "--network.no-g-spectral-norm"),
    *("--optimizer.g-lr", "5e-4"),
]
# Without the blur, and with a weaker R1, D was far ahead from the beginning. Which of the two helps was not tried.
ALIAS_FREE = [
    *("--processes", "2", "--batch-size", "16", "--micro-batch-size", "8", "--network.z-dim", "32"),
    *("--network.mapping-layers", "2", "--network.g-channels", "8", "--network.max-channels", "16"),
    *("--network.d-channels", "16", "--penalties.r1.weight", "0.5", "--penalties.r1.every", "8", "--no-flip", *FEW),
    *("--augment.blur-sigma", "2.5", "--augment.blur-images", "30000"),
]
PROJECTED = ["--network.features-side", "128"]

# The recipe, the pictures to see, and what differs from it besides SMALL. Sizes of one recipe that are the same network
# at 32 pixels stand here once.
ZOO: dict[str, tuple[int, list[str]]] = {
    "dcgan-32": (80_000, FAST),
    "gan-32": (128_000, DENSE),
    "lsgan-64": (80_000, FAST),
    "ragan-64": (80_000, FAST),
    "dragan-64": (80_000, FAST),
    "pacgan-64": (80_000, FAST),
    "acgan-64": (80_000, FAST),
    "can-64": (80_000, FAST),
    "wgan-gp-32": (20_000, RESNET),
    "sngan-32": (32_000, RESNET),
    "projection-64": (32_000, RESNET),
    "bcr-32": (24_000, RESNET),
    "icr-32": (12_000, BIGGAN),
    "msg-gan-64": (48_000, MSG),
    "sagan-64": (24_000, RESNET),
    "biggan-32": (20_000, BIGGAN),
    "lecam-32": (20_000, BIGGAN),
    "diffaugment-32": (20_000, BIGGAN),
    "biggan-deep-128": (20_000, DEEP),
    "unet-128": (16_000, [*DEEP, "--network.z-dim", "64"]),
    "stylegan2-64": (120_000, [*STYLE, *FEW]),
    "stylegan2-ada-64": (120_000, [*STYLE, *ADAPTIVE]),
    "stylegan3-t-256": (50_000, ALIAS_FREE),
    "apa-256": (100_000, [*STYLE, *FEW, *ADAPTIVE]),
    "projected-256": (16_000, PROJECTED),
    "fastgan-256": (12_000, ["--network.max-channels", "256"]),
    "r3gan-32": (80_000, R3),
}


@dataclass(frozen=True)
class Zoo:
    """Train every recipe small, and show what it has learned."""

    recipes: Positional[tuple[str, ...]] = ()
    """These recipes only; default: all."""
    jobs: int = 2
    """Recipes at a time, one process each."""


def run(*command: str, log: Path | None = None) -> int:
    """Run a module of ours, and return its exit code."""
    environment = os.environ | {"WANDB_SILENT": "true"}
    if log is None:
        return subprocess.run([sys.executable, "-m", *command], cwd=HOME, env=environment, check=False).returncode
    with log.open("a") as file:
        argv = [sys.executable, "-m", *command]
        return subprocess.run(argv, cwd=HOME, env=environment, stdout=file, stderr=file, check=False).returncode


def command(name: str) -> list[str]:
    """Return the command that trains a recipe."""
    total, settings = ZOO[name]
    moments = ["--total-images", str(total), "--sample-every-images", str(total // 4)]
    moments += ["--log-every-images", str(total // 40), "--checkpoint-every-images", str(total)]
    where = ["--data", str(SHARDS.relative_to(HOME)), "--run", f"runs/zoo/{name}"]
    return ["trainer", "train", name, *where, *SMALL, *settings, *moments]


def train(name: str) -> None:
    """Train a recipe, and lay its grids side by side."""
    folder = RUNS / name
    folder.mkdir(parents=True, exist_ok=True)
    code = run(*command(name), log=folder / "zoo.log")
    if code:
        raise SystemExit(f"{name} ended with {code}: see {folder / 'zoo.log'}")
    first, last = distances(name)
    print(f"{name}: distance {first:.0f} → {last:.0f}", flush=True)
    PICTURES.mkdir(parents=True, exist_ok=True)
    sheet(name).save(PICTURES / f"{name}.png", optimize=True)


def rows(name: str) -> list[dict[str, float]]:
    """Return a run's rows."""
    return [json.loads(line) for line in (RUNS / name / "metrics.jsonl").read_text().splitlines()]


def distances(name: str) -> tuple[float, float]:
    """Return the first and the last distance between real and generated pictures."""
    measured = [row["swd_512"] for row in rows(name) if "swd_512" in row]
    return measured[0], measured[-1]


def sheet(name: str) -> Image.Image:
    """Return reals, then what was generated after a quarter of the pictures and at the end."""
    grids = sorted((RUNS / name / "samples").glob("*.png"))
    panels = []
    for path, left in ((grids[-1], True), (grids[0], False), (grids[-1], False)):
        image = Image.open(path)
        panels.append(image.crop((0, 0, SIDE, SIDE) if left else (image.width - SIDE, 0, image.width, SIDE)))
    out = Image.new("RGB", (SIDE * 3 + 16, SIDE), "white")
    for i, panel in enumerate(panels):
        out.paste(panel, (i * (SIDE + 8), 0))
    return out


def row(name: str) -> str:
    """Return a recipe's row of the page's table."""
    first, last = distances(name)
    return f"| [{name}](#{name}) | {int(rows(name)[-1]['images_seen']):,} | {first:.0f} | {last:.0f} |"


def section(name: str) -> str:
    """Return a recipe's section of the page."""
    lines = [f"## {name}", "", f"{RECIPES[name].paper}", "", f"![{name}](zoo/{name}.png)", ""]
    return "\n".join([*lines, "```", "python -m " + " ".join(command(name)), "```"])


def present() -> tuple[dict[str, str], dict[str, str]]:
    """Return the rows and the sections of the page as it is, by recipe."""
    head, *parts = PAGE.read_text().split("\n## ") if PAGE.exists() else [""]
    table = {line.split("[")[1].split("]")[0]: line for line in head.splitlines() if line.startswith("| [")}
    return table, {part.splitlines()[0]: "## " + part.rstrip("\n") for part in parts}


def page(trained: Sequence[str]) -> str:
    """Return docs/zoo.md, with new rows for what was trained; the others stay."""
    lines = [
        "# The zoo: every recipe, small, on two cores",
        "",
        "Made by `make zoo`, which trains each recipe at 32 pixels and little width for some minutes of one core on",
        "the flags of openclipart that the repository bundles, and writes this page. It shows that each learns; it",
        "does not compare them: widths, rates and numbers of pictures were chosen to fit the minutes, and one seed",
        "says nothing. Where so few pictures need it, a penalty or an augmentation is added: the commands show it.",
        "StyleGAN3 has learned colours and smooth, sharp edges in its minutes, and no flags.",
        "",
        "Each row of pictures: reals, generated after a quarter of the training, generated at its end. The distance is",
        "sliced Wasserstein on 512 pictures (`swd_512`, lower is nearer); uniform noise stands at 890. What a recipe",
        "is, and what its paper reports, is told by `python -m launcher recipes`.",
        "",
        "| recipe | pictures seen | distance after a quarter | at the end |",
        "|---|---|---|---|",
    ]
    table, sections = present()
    table |= {name: row(name) for name in trained}
    sections |= {name: section(name) for name in trained}
    shown = [name for name in ZOO if name in table]
    lines += [table[name] for name in shown]
    return "\n\n".join(["\n".join(lines), *(sections[name] for name in shown)]) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Build the shards, train, and write the page."""
    args = tyro.cli(Zoo, args=arguments, description=__doc__)
    names = args.recipes or tuple(ZOO)
    if unknown := [name for name in names if name not in ZOO]:
        raise SystemExit(f"the zoo has no recipe {unknown[0]!r}; it has {', '.join(ZOO)}")
    build = ["shards", "build", "examples/clipart.zip", "--out", str(SHARDS), "--size", "32", "--labels", "folders"]
    if not (SHARDS / "index.json").exists() and run(*build, "--resume"):
        raise SystemExit("the shards were not built")
    with ThreadPoolExecutor(args.jobs) as pool:
        for done in [pool.submit(train, name) for name in names]:
            done.result()
    PAGE.write_text(page(names))


if __name__ == "__main__":
    main()
