"""Folders of earlier versions: sampled, evaluated, resumed to the same bits and reported on; later ones are refused."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from launcher.__main__ import main
from launcher.jobs import attempts
from launcher.jobs.evaluation_target import EvaluationTarget
from launcher.jobs.job_record import JobRecord
from launcher.study.analysis import results
from launcher.study.folder import StudyFolder
from launcher.study.plan import StudyPlan
from shards.dataset.index import DataError, Index
from tests.command_server import CommandServer
from tests.ranks import start
from trainer.core.fields import Refused
from trainer.core.formats import COLUMNS, FIRST, SCHEMA
from trainer.core.migration import invert_names, new_name
from trainer.evaluation.best_record import BestCheckpoint
from trainer.gan.fingerprint import fingerprint
from trainer.runs import journal
from trainer.runs.checkpoint import Checkpoint, newest_or_refuse
from trainer.runs.config_loading import read_config
from trainer.runs.init_from import read_pretrained
from trainer.runs.journal import Follower
from trainer.runs.run_folder import RunFolder
from trainer.runs.weight_files import ALL_PREFIXES, read_tensors
from trainer.tracking.tracker import Identity

OLD = Path(__file__).parent / "old"
EXPECTED = {version.name: json.loads((version / "expected.json").read_text()) for version in sorted(OLD.glob("v*"))}
# Where steps have had other bits since: StyleGAN2's, whose second derivatives and filters are other operations now.
CHANGED = json.loads((OLD / "changed.json").read_text())
RUNS = [(v, run) for v, expected in EXPECTED.items() for run in expected["runs"] if not run.endswith("-s1")]
NEWER = 99
NEWEST = "runs/finished/checkpoints/000000000128-r00"


class Trainer:
    """`python -m trainer` with the instructions that all processors have, without the seconds of its imports."""

    def __init__(self, folder: Path) -> None:
        self.server, self.log = CommandServer(), folder / "log"

    def __call__(self, *arguments: object, size: int = 1, code: int = 0, mistake: str | None = None) -> str:
        """Run a command in so many processes, and return what it has said."""
        self.log.unlink(missing_ok=True)
        codes = start([*map(str, arguments)], size, self.log, mistake, server=self.server).wait()
        said = self.log.read_text()
        assert codes == [code] * size, said
        return said


@pytest.fixture(scope="module")
def trainer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trainer]:
    with pytest.MonkeyPatch.context() as patch:
        for expected in EXPECTED.values():
            assert expected["torch"] == torch.__version__, "see tests/old/README.md"
            for name, value in expected["variables"].items():
                patch.setenv(name, value)
        process = Trainer(tmp_path_factory.mktemp("trainer"))
        yield process
        process.server.close()


@pytest.fixture(params=EXPECTED)
def old(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of all folders of a version, to write in."""
    return copied(str(request.param), tmp_path)


def copied(version: str, folder: Path) -> Path:
    """Copy a version's folders; a study knows other folders by their full paths, so these are put right."""
    out = Path(shutil.copytree(OLD / version, folder / version))
    for path in (*out.glob("study/*.*"), *out.glob("study/runs/*/study.json")):
        if path.suffix in (".json", ".toml"):
            path.write_text(path.read_text().replace(f"/lienzo-{version}", str(out)))
    return out


def state(run: Path) -> dict[str, object]:
    """Return what a run is, to the bit; its rows with the names of the first format."""
    found = newest_or_refuse(RunFolder(run))
    rows = hashlib.sha256(b"".join(map(with_first_names, journal.read_rows(run / "metrics.jsonl")))).hexdigest()
    return {"images_seen": found.images_seen, "fingerprint": fingerprint(*found.read()), "metrics": rows}


def with_first_names(row: journal.Row) -> bytes:
    """Return a row of metrics as the first format writes it."""
    for number in range(SCHEMA, FIRST, -1):
        row = {new_name(name, invert_names(COLUMNS[number]), "/"): value for name, value in row.items()}
    return journal.encode_row(row)


def pixels(path: Path) -> str:
    """Return the SHA-256 of a picture's pixels."""
    return hashlib.sha256(np.asarray(Image.open(path)).tobytes()).hexdigest()


@pytest.mark.parametrize(("version", "name"), RUNS)
def test_a_run_paints_and_goes_on_as_it_would_have(version: str, name: str, trainer: Trainer, tmp_path: Path) -> None:
    """The newest checkpoint, its pictures, and the state and the rows after more steps, on as many processes as may."""
    old, expected = copied(version, tmp_path), EXPECTED[version]["runs"][name]
    run, grid = old / name, tmp_path / "grid.png"
    assert state(run) == expected["is"]
    trainer("sample", run, "--num", 4, "--seed", 1, "--out", grid)
    assert pixels(grid) == expected["paints"]
    more = ("--data", old / "data", "--total-images", expected["resumed"]["images_seen"])
    trainer("train", "--run", run, *more, size=2 if name == "runs/killed" else 1)
    assert state(run) == CHANGED[version].get(name, expected["resumed"])


def test_planted_mistakes_are_seen(old: Path, trainer: Trainer) -> None:
    run, expected = old / "runs" / "rolled-back", EXPECTED[old.name]["runs"]["runs/rolled-back"]["resumed"]
    more = ("--data", old / "data", "--total-images", expected["images_seen"])
    other = shutil.copytree(run, old / "runs" / "other")
    said = trainer("train", "--run", other, *more, mistake="migration_to_other_bits", code=2)
    assert "belongs to other identity settings" in said
    trainer("train", "--run", run, *more, mistake="migration_that_forgets")
    assert state(run)["fingerprint"] != expected["fingerprint"]


def flat(figures: dict[str, Any], path: str = "") -> dict[str, object]:
    """Return what nested figures say, by where they say it."""
    found: dict[str, object] = {}
    for name, figure in figures.items():
        found |= flat(figure, f"{path}{name}.") if isinstance(figure, dict) else {path + name: figure}
    return found


def test_a_run_is_evaluated_and_its_best_checkpoint_known(old: Path, trainer: Trainer, tmp_path: Path) -> None:
    run, out = RunFolder(old / "runs" / "finished"), tmp_path / "figures.json"
    (before,) = journal.read_rows(run.evaluations)
    asked = ("--checkpoint", "best", "--against", old / "data", "--seed-set", "select")
    numbers = ("--metrics", "fid", "--num-samples", 32, "--cache", tmp_path / "cache", "--processes", 1)
    trainer("evaluate", run.path, *asked, *numbers, "--json", out)
    figures = json.loads(out.read_text())["figures"]
    assert flat(figures) == pytest.approx(flat(before["figures"]))  # the last digits are the processor's
    best = BestCheckpoint.of(run)
    assert best
    assert best.images_seen == 128


def test_a_run_goes_on_as_another_one(old: Path, trainer: Trainer) -> None:
    """From the whole state of an old one, running scalars and all."""
    new = old / "runs" / "new"
    asked = ("--as", new, "--data", old / "data", "--optimizer.g-lr", 1e-4, "--total-images", 192)
    command = ["resume", old / "runs" / "stylegan2", *asked, "--cluster", "local", "--processes", 1]
    assert main(list(map(str, command))) == 0
    assert state(new) == CHANGED[old.name]["as another"]


def test_status_tells_of_old_runs(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = sorted((old / "runs").iterdir())
    assert main(["status", "--json", *map(str, runs)]) == 0
    found = {Path(one["run"]).name: one for one in json.loads(capsys.readouterr().out)}
    states = {name: one["state"] for name, one in found.items()}
    ended = {"finished", "rolled-back", "stylegan2", "continued"}
    assert states == {name: "finished" for name in ended} | {"killed": "failed", "cluster": "interrupted"}
    assert found["cluster"]["starts"][0]["cause"] == "cancelled"
    assert found["killed"]["images_seen"] == 768


def test_a_study_is_reported_on_and_grows(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = StudyFolder(old / "study")
    before = results.read_results(study.results)
    for path in (study.results, study.page, study.table, study.conclusions):
        path.unlink()
    assert main(["study", str(study.path), "--status"]) == 0
    assert capsys.readouterr().out.count("finished") == 4
    assert main(["study", str(study.path), "--report"]) == 0
    assert results.read_results(study.results).entries == before.entries
    assert study.page.stat().st_size > 100_000
    assert main(["study", str(study.path), "--seeds", "3", "--cluster", "local", "--processes", "1"]) == 0
    after = results.read_results(study.results)
    assert [(one.arm, one.seed, one.status) for one in after.entries] == [
        (arm, seed, "finished") for seed in range(3) for arm in ("dcgan", "hinge")
    ]
    assert after.entries[:4] == before.entries


def test_a_job_of_old_is_known(old: Path) -> None:
    run = RunFolder(old / "runs" / "cluster")
    record = JobRecord.load(run)
    assert (record.nodes, record.tasks_per_node, record.cancelled) == ("2", 2, True)
    assert [attempt.cause for attempt in attempts.read_attempts(run)] == ["cancelled"]
    assert Identity.load(run.wandb_identity).name == "cluster"


def newer_values(path: Path) -> None:
    """Let a JSON file, or the last row of a journal, be of a later version."""
    *rows, last = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
    path.write_text("\n".join([*rows, json.dumps(json.loads(last) | {"schema": NEWER}), ""]))


def newer_tensors(path: Path) -> None:
    """Let a safetensors file be of a later version."""
    with safe_open(path, framework="pt") as file:
        about = file.metadata() or {}
    save_file(load_file(path), path, about | {"lienzo_schema": str(NEWER)})


KINDS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "settings": ("runs/finished/config.json", lambda path: read_config(RunFolder(path.parent))),
    "events": ("runs/finished/events.jsonl", lambda path: list(journal.read_rows(path))),
    "times": ("runs/finished/system.jsonl", journal.last_row),
    "evaluations": ("runs/finished/evaluations.jsonl", lambda path: Follower(path).read()),
    "best": ("runs/finished/best.json", lambda path: BestCheckpoint.of(RunFolder(path.parent))),
    "wandb": ("runs/finished/wandb.json", Identity.load),
    "job": ("runs/cluster/job.json", lambda path: JobRecord.load(RunFolder(path.parent))),
    "attempts": ("runs/cluster/attempts.jsonl", lambda path: attempts.read_attempts(RunFolder(path.parent))),
    "manifest": (f"{NEWEST}/manifest.json", lambda path: newest_or_refuse(RunFolder(path.parents[2]))),
    "state": (f"{NEWEST}/state.json", lambda path: Checkpoint(path.parent, 0, 0).read()),
    "tensors": (f"{NEWEST}/state.safetensors", lambda path: read_tensors(path, ALL_PREFIXES)),
    "pretrained": ("runs/continued/initial.safetensors", lambda path: read_pretrained(RunFolder(path.parent), "")),
    "study": ("study/plan.json", lambda path: StudyPlan.open(StudyFolder(path.parent))),
    "results": ("study/results.json", results.read_results),
    "what a study measures": (
        "study/runs/dcgan-s0/study.json",
        lambda path: EvaluationTarget.of(RunFolder(path.parent)),
    ),
    "dataset": ("data/index.json", lambda path: Index.open(path.parent)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_later_version_wrote_is_refused(kind: str, old: Path) -> None:
    name, read = KINDS[kind]
    path = old / name
    read(path) if kind != "pretrained" else None
    (newer_tensors if path.suffix == ".safetensors" else newer_values)(path)
    with pytest.raises((Refused, DataError), match=f"has schema {NEWER}, and this version reads.* update lienzo"):
        read(path)


def test_a_run_of_a_later_version_is_left_as_it_is(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its newest checkpoint is not damaged, so it is neither set aside nor passed over."""
    run = old / "runs" / "finished"
    newer_values(run / "checkpoints" / "000000000128-r00" / "manifest.json")
    before = sorted(path.name for path in run.rglob("*"))
    command = ["resume", run, "--data", old / "data", "--total-images", 192, "--cluster", "local", "--processes", 1]
    assert main(list(map(str, command))) != 0
    assert sorted(path.name for path in run.rglob("*") if not path.name.startswith("lease")) == before
    newer_values(run / "config.json")
    capsys.readouterr()
    assert main(["resume", str(run)]) == 2
    assert "config.json was written by a newer version of lienzo" in capsys.readouterr().err
    assert main(["status", str(run)]) == 0
    assert "unknown" in (said := capsys.readouterr().out)
    assert "written by a newer version" in said
