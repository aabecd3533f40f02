"""Studies with a known truth: scores are drawn, nothing is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from launcher.study.analysis.results import Arm, Budget, Entry, Evaluation, Made, Point, Rung, Score, Study
from trainer.core.randomness import philox

METRIC = "fid_5k/random-vgg-v1"


def study(scores: Mapping[str, Mapping[int, float]], **more: object) -> Study:
    """Make a study of runs that all finished with these scores."""
    entries = tuple(entry(arm, seed, score) for arm, runs in scores.items() for seed, score in runs.items())
    return made(tuple(Arm(arm, "dcgan-32", {}) for arm in scores), entries, **more)


def made(arms: Sequence[Arm], entries: Sequence[Entry], **more: object) -> Study:
    values: dict[str, object] = {
        "name": "painters",
        "metric": METRIC,
        "better": "lower",
        "budget": Budget("images", 100_000),
        "evaluation": Evaluation("random VGG, version 1", 5_000, "report", 1.25),
        "made": Made("0.1.0", "python -m launcher study studies/painters/study.toml"),
        **more,
    }
    return Study(arms=tuple(arms), entries=tuple(entries), **values)  # type: ignore[arg-type]


def entry(arm: str, seed: int, score: float | None, **more: object) -> Entry:
    values: dict[str, object] = {
        "run": f"runs/{arm}-s{seed}",
        "status": "finished",
        "images_seen": 100_000,
        "seconds": 3_600.0,
        "node_seconds": 7_200.0,
        "flops": 4.2e15,
        "score": None if score is None else Score(score, score - 0.5, score + 0.5),
        **more,
    }
    return Entry(arm, seed, **values)  # type: ignore[arg-type]


def whole(folder: Path) -> Study:
    """Make one that has everything: curves, grids, failures with nasty words, an arm left behind at a rung."""
    truth = {"dcgan": (40.0, 2.0), "dcgan-hinge": (38.5, 2.5), "sagan <b>&\"'": (31.0, 1.5), "stylegan2": (24.0, 1.0)}
    entries = []
    for number, (arm, (mean, spread)) in enumerate(truth.items()):
        for seed in range(5):
            score = mean + spread * philox("made study", number, seed).normal()
            grid = f"runs/{number}-s{seed}.png"
            paint(folder / grid, number, seed)
            curve = tuple(
                Point(images, {METRIC: score * (1 + 8 * float(np.exp(-images / 15_000)))})
                for images in range(10_000, 100_001, 10_000)
            )
            hours = (number + 1) * 1_800.0
            entries.append(
                entry(arm, seed, score, curve=curve, grid=grid, seconds=hours, node_seconds=2 * hours, restarts=2)
            )
    reason = "rank 1 died: <script>alert(1)</script> out of memory"
    entries[4] = entry("dcgan", 4, None, status="failed", reason=reason, images_seen=32_000, curve=())
    arms = [Arm(arm, "dcgan-32", {"--optimizer.d-lr": "0.0004"} if number else {}) for number, arm in enumerate(truth)]
    arms.append(Arm("wgan-gp", "wgan-gp-32", {}))
    rung = Rung(25_000, {**{arm: mean + 40 for arm, (mean, _) in truth.items()}, "wgan-gp": 120.5}, tuple(truth))
    return made(arms, entries, rungs=(rung,))


def paint(path: Path, arm: int, seed: int) -> None:
    """Paint something that is not easily compressed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = philox("made grid", arm, seed).integers(0, 256, (320, 640, 3), np.uint8)
    Image.fromarray(noise).save(path)
