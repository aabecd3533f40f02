"""How often the collapse monitor misses a collapse, and how often it is wrong: `python -m bench.collapse_monitor`.

Two sets of runs, of other data, seeds, networks and provocations. From the first the bounds in
trainer/collapse/monitor_state.py were chosen; the second was run afterwards, and is what the report is about. Each
set has healthy runs and provoked ones: copies of a healthy run, halfway, that go on with one setting changed so that
training breaks. So the moment is known, and the delay is what the run saw from then to the alarm.

Whether a provoked run has really collapsed is judged without the monitor: by its coverage of the data (Naeem et al.
2020) on features of a random VGG, over more pictures, against that of its healthy twin at the same moment. Where the
healthy twin itself covers next to nothing there is nothing to lose, and the runs are left out of the counts.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from scipy.stats import binomtest

from bench.measure import run_module, spread, table
from shards.dataset.files import INDEX
from shards.dataset.index import Index
from shards.dataset.stream import Reader
from trainer.collapse.monitor_state import BOUNDS, Health, MonitorState
from trainer.core.fields import identity_hash, overlay_settings, to_json
from trainer.core.file_hash import file_sha256
from trainer.core.migration import with_schema
from trainer.extractors import EXTRACTORS
from trainer.metrics import prdc
from trainer.runs import journal
from trainer.runs.checkpoint import MANIFEST, TENSORS, VALUES, newest_whole
from trainer.runs.config_loading import read_config
from trainer.runs.run_folder import RunFolder
from trainer.sampling.sampler import Sampler, real_samples

HALF, WHOLE = 48_000, 72_000  # images: the moment of the provocation, and the end
EVERY = 1_600
NUMBER = 1_024  # pictures on each side where truth is judged
REALLY = 0.5  # of its twin's coverage: less is a collapse
LEARNT = 0.2  # coverage by a healthy twin: with less it has not learnt to paint
SMALL = (
    *("dcgan-32", "--network.g-channels", "24", "--network.d-channels", "24", "--network.z-dim", "64"),
    *("--batch-size", "64", "--micro-batch-size", "32", "--flip", "--processes", "1", "--tracking.mode", "disabled"),
    *("--collapse.every-images", str(EVERY), "--log-every-images", str(EVERY)),
    *("--checkpoint-every-images", "8000", "--anchor-every-images", "8000", "--sample-every-images", "1000000"),
)
Nested = dict[str, Any]


def rates(g: float, d: float) -> Nested:
    """Return learning rates as an overlay of settings."""
    return {"optimizer": {"g_lr": g, "d_lr": d}}


@dataclass(frozen=True)
class Set:
    """Runs of one kind of data."""

    data: tuple[str, ...]
    """What the shards are built from, and how."""
    seeds: range
    networks: dict[str, tuple[str, ...]]
    """Settings that make a run healthy, by name."""
    provocations: dict[str, Nested]
    """Settings that break it, by name; the first one, empty, is the healthy twin."""


FAST = ("--optimizer.g-lr", "1e-3", "--optimizer.d-lr", "1e-3")  # for networks so narrow
SMOOTH = (*FAST, "--network.no-d-batch-norm", "--penalties.r1.weight", "0.1")
SETS = {
    "first": Set(
        ("/usr/share/openclipart/png",),
        range(3),
        {"DCGAN": FAST, "with R1": SMOOTH},
        {
            "none": {},
            "G 20 times as fast": rates(2e-2, 1e-3),
            "D stands still": rates(5e-3, 1e-7),
            "both 20 times as fast": rates(2e-2, 2e-2),
            "both 300 times as fast": rates(0.3, 0.3),
        },
    ),
    "second": Set(
        ("examples/clipart.zip",),
        range(20, 22),
        {
            "RpGAN, R1": (*FAST, "--objective", "relativistic-pairing", "--penalties.r1.weight", "0.1"),
            **{f"{objective}, R1": (*SMOOTH, "--objective", objective) for objective in ("least-squares", "hinge")},
        },
        {
            "none": {},
            "G 50 times as fast": rates(5e-2, 1e-3),
            "D 1000 times as slow": rates(1e-2, 1e-6),
            "both 50 times as fast": rates(5e-2, 5e-2),
            "D 30 times as fast": rates(1e-3, 3e-2),
        },
    ),
}
JUDGED = tuple(SETS)


def sabotage(run: RunFolder, changes: Nested) -> None:
    """Change what may not be changed: identity settings of a run that has begun, halfway."""
    config = overlay_settings(read_config(run), changes, "sabotage")
    run.config.write_text(json.dumps(with_schema(to_json(config))))
    checkpoint = newest_whole(run.checkpoints, lambda *_: None)
    assert checkpoint
    values = json.loads((checkpoint.path / VALUES).read_text()) | {"identity": identity_hash(config)}
    (checkpoint.path / VALUES).write_text(json.dumps(values))
    files = {n: checkpoint.path / n for n in (TENSORS, VALUES)}
    written = {name: {"bytes": path.stat().st_size, "sha256": file_sha256(path)} for name, path in files.items()}
    (checkpoint.path / MANIFEST).write_text(json.dumps(with_schema({"files": written})))


@dataclass(frozen=True)
class Trial:
    """One run of a set: a healthy base, or what became of its copy."""

    of: str
    network: str
    seed: int
    provocation: str
    run: RunFolder

    @property
    def twin(self) -> str:
        """What its twin is called, too."""
        return f"{self.of}/{self.network}/{self.seed}"


def trials(out: Path, name: str) -> Iterator[Trial]:
    """Yield the runs of a set."""
    of = SETS[name]
    for network in of.networks:
        for seed in of.seeds:
            for k, provocation in enumerate(of.provocations):
                folder = out / name / f"{[*of.networks].index(network)}-{seed}-{k}"
                yield Trial(name, network, seed, provocation, RunFolder(folder))


def train(run: RunFolder, data: Path, until: int, settings: Sequence[str]) -> None:
    """Train, as a user would; a run that has got there is left alone."""
    if journal.last_row(run.metrics).get("images_seen", 0) >= until:
        return
    run_module("trainer", "train", "--run", str(run.path), "--total-images", str(until), *settings, "--data", str(data))


def carry_out(data: Path, group: Sequence[Trial]) -> None:
    """Train a healthy base to half its time, then each of its copies to the end."""
    of = SETS[group[0].of]
    settings = [*SMALL, "--seed", str(group[0].seed), *of.networks[group[0].network]]
    base = RunFolder(group[0].run.path.with_name(f"{group[0].run.path.name}-base"))
    train(base, data, HALF, settings)
    for trial in group:
        if not trial.run.path.exists():
            temporary = trial.run.path.with_suffix(".tmp")
            shutil.rmtree(temporary, ignore_errors=True)
            shutil.copytree(base.path, temporary)
            sabotage(RunFolder(temporary), of.provocations[trial.provocation])
            temporary.rename(trial.run.path)
        train(trial.run, data, WHOLE, ["--processes", "1"])


def carry_out_all(out: Path, name: str, processes: int) -> tuple[list[list[Trial]], Reader]:
    """Train what is not trained yet of a set; return its runs, each group with its healthy twin first, and its data."""
    data = shards(out, name)
    everything = list(trials(out, name))
    groups = [[t for t in everything if t.twin == twin] for twin in dict.fromkeys(t.twin for t in everything)]
    with ThreadPoolExecutor(processes) as pool:
        list(pool.map(partial(carry_out, data), groups))
    return groups, Reader(Index.open(data), "train", lambda *_: None)


def shards(out: Path, name: str) -> Path:
    """Build the data of a set, or find it built."""
    data = out / f"data-{name}"
    command = [sys.executable, "-m", "shards", "build", *SETS[name].data, "--out", str(data), "--size", "32"]
    if not (data / INDEX).exists():
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return data


@dataclass(frozen=True)
class Verdict:
    """What the collapse monitor said of a run, and what the run really was."""

    trial: Trial
    covered: float
    """Coverage at the end, against that of the healthy twin."""
    warned: int | None
    """Images from the provocation to the first warning or alarm; None: there was none."""
    alarmed: int | None
    early: int
    """Alarms before the provocation."""

    @property
    def collapsed(self) -> bool:
        """Tell whether it really did."""
        return self.covered < REALLY


def judged_anew(rows: Sequence[journal.Row], logistic: bool) -> Iterator[tuple[int, int]]:
    """Yield (images seen, state) by the bounds as they are now, from what was seen of the pictures then."""
    record = MonitorState()
    for row in rows:
        seen = {k.removeprefix("collapse/"): v for k, v in row.items() if k.startswith("collapse/")}
        record = replace(record, steps=1, gap=seen["gap"], magnitude=seen["magnitude"])
        record, _ = record.add_measurement(seen, row["images_seen"], logistic)
        yield row["images_seen"], record.health


def verdict(trial: Trial, covered: float) -> Verdict:
    """Judge what the collapse monitor said."""
    rows = [row for row in journal.read_rows(trial.run.metrics) if "collapse/health" in row]
    states = list(judged_anew(rows, "collapse/saturation" in rows[0]))
    after = [(seen - HALF, state) for seen, state in states if seen > HALF]
    warned, alarmed = (
        next((seen for seen, state in after if state >= least), None) for least in (Health.WARNING, Health.COLLAPSED)
    )
    early = sum(state >= Health.COLLAPSED for seen, state in states if seen <= HALF)
    return Verdict(trial, covered, warned, alarmed, early)


def coverage(trial: Trial, reader: Reader) -> float:
    """Return the coverage of the data by what the generator paints in the end, without its average."""
    kept = trial.run.path / "coverage.json"
    if not kept.exists():
        config = read_config(trial.run)
        checkpoint = newest_whole(trial.run.checkpoints, lambda *_: None)
        assert checkpoint
        tensors, _ = checkpoint.read()
        sampler = Sampler(config, torch.device("cpu"))
        prefix = "generator."
        sampler.load({name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)})
        number = min(NUMBER, reader.split.samples)
        extractor = EXTRACTORS["random-vgg"]()
        real, fake = real_samples(reader, number, 1).images, sampler.generate(number, "truth", config.seed)
        seen = prdc(extractor(real).features, extractor(fake).features)
        kept.write_text(json.dumps(seen["coverage"]))
    return float(json.loads(kept.read_text()))


def binomial(hits: int, of: int) -> str:
    """Return a share with its 95 % interval (Clopper and Pearson 1934)."""
    if not of:
        return "–"
    interval = binomtest(hits, of).proportion_ci(method="exact")
    return f"{hits} of {of} ({interval.low:.0%}–{interval.high:.0%})"


def report(verdicts: Sequence[Verdict]) -> None:
    """Print what the collapse monitor said, by provocation and in all."""
    kinds = list(dict.fromkeys((v.trial.of, v.trial.provocation) for v in verdicts))

    def rows() -> Iterator[list[str]]:
        for kind in kinds:
            some = [v for v in verdicts if (v.trial.of, v.trial.provocation) == kind]
            delays = [v.alarmed for v in some if v.alarmed is not None]
            late = f"{np.median(delays):,.0f} ({min(delays):,}–{max(delays):,})" if delays else "–"
            covered = spread([v.covered for v in some])
            alarms, warned = len(delays), sum(v.warned is not None for v in some)
            yield [kind[0], kind[1], covered, f"{warned} of {len(some)}", f"{alarms} of {len(some)}", late]

    table(("set", "provocation", "coverage × twin's", "warned", "alarm", "images from it to the alarm"), rows())
    for name in JUDGED:
        some = [v for v in verdicts if v.trial.of == name]
        really = [v for v in some if v.collapsed]
        healthy = [v for v in some if v.trial.provocation == "none"]
        hits = sum(v.alarmed is not None for v in really)
        wolves = sum(v.alarmed is not None or v.early > 0 for v in healthy)
        print(
            f"{name}: alarm in {binomial(hits, len(really))} that collapsed, {binomial(wolves, len(healthy))} healthy"
        )


def main(out: Path, only: str | None = None, processes: int = 2) -> None:
    """Train what is not trained yet, and report.

    Args:
        out: a folder for some hundred MB of runs; what is there already is not done again.
        only: first or second, the set.
        processes: runs at the same time.
    """
    verdicts = []
    for name in JUDGED if only is None else (only,):
        groups, reader = carry_out_all(out, name, processes)
        for group in groups:
            twin = coverage(group[0], reader)
            if twin < LEARNT:
                print(f"left out: {group[0].twin}, whose healthy twin covers {twin:.2f}")
                continue
            verdicts += [verdict(trial, coverage(trial, reader) / twin) for trial in group]
    report(verdicts)
    print(f"bounds: {', '.join(f'{name} {bound.warning:g}, {bound.alarm:g}' for name, bound in BOUNDS.items())}")


if __name__ == "__main__":
    tyro.cli(main)
