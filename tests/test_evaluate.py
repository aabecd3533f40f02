"""Evaluation: the same bytes however it is shared out, kept features, refusals, the best checkpoint."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from shards.building.build import run_build
from shards.building.options import Build
from shards.dataset.index import Index
from tests.conftest import run as run_module
from tests.evaluated_runs import blots, made_run
from trainer.core.fields import Refused
from trainer.core.stopping import Outcome
from trainer.distributed.world import World
from trainer.evaluation import store
from trainer.evaluation.arguments import Evaluate, command_line
from trainer.evaluation.command import evaluate_as_rank, evaluate_locally, run_evaluate, select_gpu
from trainer.evaluation.extraction import ExtractionTask
from trainer.evaluation.generated_source import GeneratedImages
from trainer.evaluation.plan import EvaluationPlan
from trainer.evaluation.prepare import plan_evaluation, with_checkpoint_name
from trainer.evaluation.report import Evaluation
from trainer.evaluation.source import FolderImages, ShardImages
from trainer.evaluation.store import FeatureStore, ImageGroup, split_groups
from trainer.extractors import EXTRACTORS, Extractor, ExtractorOptions, Opener
from trainer.extractors.base import DEFAULT_OPTIONS
from trainer.launch import local_processes
from trainer.metrics.base import DEFINITIONS
from trainer.networks.base import Latent
from trainer.runs import journal
from trainer.runs.run_folder import RunFolder
from trainer.sampling.sampler import Images, Key

ROWS = np.arange(40)


@pytest.fixture(scope="module")
def labelled32(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Blots of three colours, which are their classes, a part of them held out."""
    return blots(tmp_path_factory.mktemp("labelled"))


@pytest.fixture(scope="module")
def made(labelled32: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run with two checkpoints."""
    return made_run(tmp_path_factory.mktemp("made") / "run", labelled32, 16, 32)


@pytest.fixture
def asked(made: RunFolder, tmp_path: Path) -> Callable[..., Evaluate]:
    """Makes the arguments of a small evaluation in a process of its own cache."""

    def ask(**options: Any) -> Evaluate:
        usual: dict[str, Any] = {"subject": made.path, "metrics": ("fid", "swd"), "num_samples": 60, "processes": 1}
        return Evaluate(**usual | {"cache": tmp_path / "cache"} | options)

    return ask


@pytest.fixture
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of 16 pictures, so that few pictures make many."""
    monkeypatch.setattr(store, "GROUP_SIZE", 16)


def figures(path: Path) -> dict[str, Any]:
    """Return the figures of a JSON file."""
    found: dict[str, Any] = json.loads(path.read_text())["figures"]
    return found


@pytest.mark.usefixtures("small_groups")
def test_any_number_of_processes_gives_the_same_bytes(asked: Callable[..., Evaluate], tmp_path: Path) -> None:
    """Each takes its parts in turn; the main process, which comes last here, finds what the others have left."""
    found = set()
    for size in (1, 2, 3):
        args = with_checkpoint_name(asked(json=tmp_path / f"{size}.json", cache=tmp_path / f"cache {size}"))
        for rank in range(1, size):
            assert evaluate_as_rank(args, World(rank, size)) is Outcome.FINISHED
        assert evaluate_as_rank(args, World(0, size)) is Outcome.FINISHED
        found.add((tmp_path / f"{size}.json").read_bytes())
    assert len(found) == 1


@pytest.mark.usefixtures("small_groups")
def test_the_main_process_waits_for_nobody(asked: Callable[..., Evaluate], tmp_path: Path) -> None:
    """Two of three processes never come."""
    usual = with_checkpoint_name(asked(metrics=("fid",)))
    whole, alone = (replace(usual, json=tmp_path / name, cache=tmp_path / f"{name} cache") for name in "ab")
    evaluate_as_rank(whole, World())
    evaluate_as_rank(alone, World(0, 3))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_rank_that_others_have_started_finds_the_checkpoint(asked: Callable[..., Evaluate], tmp_path: Path) -> None:
    """As torchrun starts it: nobody has looked for the newest one before."""
    assert evaluate_as_rank(asked(metrics=("fid",), json=tmp_path / "a"), World(0, 2)) is Outcome.FINISHED
    assert json.loads((tmp_path / "a").read_text())["checkpoint"] == "000000000032-r00"
    assert evaluate_as_rank(asked(checkpoint="7"), World(1, 2)) is Outcome.FINISHED, (
        "the main process says what is wrong"
    )


def test_accelerate_tells_a_process_that_is_alone_no_rank(
    asked: Callable[..., Evaluate], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    for variable in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.delenv(variable, raising=False)
    assert run_evaluate(asked(metrics=("fid",))) is Outcome.FINISHED


def test_each_rank_takes_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for there in (True, False):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        for rank in range(3):
            select_gpu(rank)
    assert taken == [0, 1, 0]


def test_a_rank_takes_its_gpu_first(asked: Callable[..., Evaluate], monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr("trainer.evaluation.command.select_gpu", seen.append)
    monkeypatch.setattr("trainer.evaluation.command.evaluate_as_rank", lambda args, world: seen.append(world))
    for variable, value in {"RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "4"}.items():
        monkeypatch.setenv(variable, value)
    run_evaluate(asked())
    assert seen == [1, World(3, 4)]


@pytest.mark.usefixtures("small_groups")
@pytest.mark.parametrize(
    ("main", "others", "outcome"),
    [
        ("exit 2", "exit 0", Outcome.REFUSED),
        ("sleep 0.5", "kill -9 $$", Outcome.FINISHED),
        ("exit 0", "exec sleep 1000", Outcome.FINISHED),
        ("kill -9 $$", "exec sleep 1000", Outcome.FAILED),
    ],
)
def test_the_main_process_says_how_it_ended(
    asked: Callable[..., Evaluate], monkeypatch: pytest.MonkeyPatch, main: str, others: str, outcome: Outcome
) -> None:
    """A refusal keeps its code, and a worker that is killed takes nobody with it: the main process takes over."""

    def start(arguments: list[str], rank: int, size: int, port: int, owner: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(["sh", "-c", others if rank else main], stdin=subprocess.PIPE)

    monkeypatch.setattr(local_processes, "start", start)
    monkeypatch.setattr(local_processes, "LINGER_S", 0)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    assert evaluate_locally(asked(processes=3)) is outcome


def test_real_processes(shards32: Path, tmp_path: Path) -> None:
    """By the command, of pictures that are two parts."""
    run = made_run(tmp_path / "run", shards32, 16)
    usual = Evaluate(run.path, metrics=("fid",), num_samples=300)
    run_evaluate(replace(usual, processes=1, cache=tmp_path / "1", json=tmp_path / "1.json"))
    two = replace(usual, processes=2, cache=tmp_path / "2", json=tmp_path / "2.json")
    done = run_module("trainer", *command_line(two))
    assert done.returncode == 0, done.stderr
    assert "fid_300/random-vgg" in done.stdout
    assert (tmp_path / "1.json").read_bytes() == (tmp_path / "2.json").read_bytes()


def test_pictures_go_by_their_numbers(asked: Callable[..., Evaluate]) -> None:
    """Whatever is painted beside them, and by whom."""
    source = plan_evaluation(with_checkpoint_name(asked())).fake.source
    whole = source.images(ROWS)
    assert np.array_equal(source.images(ROWS[7:19]), whole[7:19])
    assert np.array_equal(source.images(ROWS[::-1])[::-1], whole)
    other = plan_evaluation(with_checkpoint_name(asked(seed_set="select"))).fake.source
    assert not np.array_equal(other.images(ROWS[:8]), whole[:8])


def test_painted_classes_have_the_frequencies_of_the_data(labelled32: Path, tmp_path: Path) -> None:
    run = made_run(tmp_path / "run", labelled32, 16, g_conditional=True)
    plan = plan_evaluation(with_checkpoint_name(Evaluate(run.path, metrics=("swd",), cache=tmp_path)))
    count = plan.count
    fake, real = plan.fake.source.labels(np.arange(count)), plan.real.source.labels(np.arange(count))
    assert count == Index.open(labelled32).splits["train"].samples
    assert fake is not None
    assert real is not None
    assert np.array_equal(np.sort(fake), np.sort(real))
    assert {*fake.tolist()} == {0, 1, 2}


def built(folder: Path, *classes: str) -> Path:
    """Build shards of noise: of the first class 20 pictures, of each other one 10 less."""
    for place, name in enumerate(classes):
        (folder / "source" / name).mkdir(parents=True)
        for number in range(20 - 10 * place):
            pixels = np.random.default_rng([place, number]).integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "source" / name / f"{number}.png")
    asked = Build((folder / "source",), folder / "data", size=("32",), labels="folders", holdout=0, workers=1)
    assert run_build(asked) == 0
    return folder / "data"


def test_painted_classes_are_those_of_the_reals_by_their_names(
    labelled32: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of other shards, which have two of the three: green is 0 there, and 1 to the generator."""
    run = made_run(tmp_path / "run", labelled32, 16, g_conditional=True)
    against = built(tmp_path, "green", "red")
    plan = plan_evaluation(with_checkpoint_name(Evaluate(run.path, against, metrics=("swd",), cache=tmp_path)))
    fake, real = plan.fake.source, plan.real.source
    rows = np.arange(plan.count)
    assert plan.count == 30
    assert fake.classes == real.classes == ("green", "red")
    assert np.array_equal(fake.labels(rows), real.labels(rows))  # type: ignore[arg-type]
    assert isinstance(fake, GeneratedImages)
    told: list[Sequence[float] | None] = []
    latent = fake.trained.sampler.latent

    def watched(i: int, key: Key, label: Sequence[float] | None, truncation: float | None) -> Latent:
        told.append(label)
        return latent(i, key, label, truncation)

    monkeypatch.setattr(fake.trained.sampler, "latent", watched)
    fake.images(rows)
    known = Index.open(labelled32).classes
    names = [real.classes[label] for label in real.labels(rows)]  # type: ignore[union-attr]
    assert [known[int(label[0])] for label in told if label is not None] == names
    with pytest.raises(Refused, match=r"was not trained with the class 'pink' of .*, but with blue, green, red"):
        plan_evaluation(
            with_checkpoint_name(
                Evaluate(run.path, built(tmp_path / "b", "green", "pink"), metrics=("swd",), cache=tmp_path)
            )
        )


def test_classes_with_other_names_are_not_compared(
    labelled32: Path, asked: Callable[..., Evaluate], tmp_path: Path
) -> None:
    subject = built(tmp_path, "green", "red")
    run_evaluate(asked(subject=subject, against=labelled32, metrics=("swd", "intra_fid"), json=tmp_path / "a"))
    assert "different classes" in json.loads((tmp_path / "a").read_text())["left_out"]["intra_fid"]


def test_a_sample_of_a_set_is_random_and_without_repetition(labelled32: Path) -> None:
    shards = ShardImages(Index.open(labelled32), "train")
    used = shards.reader(np.arange(0)).used
    assert used.size == 0
    labels = shards.labels(np.arange(shards.count))
    assert labels is not None
    in_order = Index.open(labelled32).table["label"][: shards.count]
    assert np.array_equal(np.sort(labels), np.sort(in_order))
    assert not np.array_equal(labels, in_order)


def test_a_folder_is_measured_like_the_shards_of_its_pictures(
    labelled32: Path, asked: Callable[..., Evaluate], tmp_path: Path
) -> None:
    """All of both sets are compared with the same pictures, so their order does not matter but for rounding."""
    index = Index.open(labelled32)
    shards = ShardImages(index, "train")
    (tmp_path / "plain" / "deeper").mkdir(parents=True)
    for number, picture in enumerate(shards.images(np.arange(shards.count))):
        Image.fromarray(picture).save(tmp_path / "plain" / ("deeper" if number % 2 else "") / f"{number:04d}.png")
    for name, subject in (("folder", tmp_path / "plain"), ("shards", labelled32)):
        args = asked(subject=subject, against=labelled32, metrics=("fid",), num_samples=1000, json=tmp_path / name)
        assert run_evaluate(args) is Outcome.FINISHED
    (folder,), (same,) = (figures(tmp_path / name).values() for name in ("folder", "shards"))
    assert folder["count"] == same["count"] == shards.count
    assert folder["value"] == pytest.approx(0, abs=1e-6 * abs(folder["floor"]["value"]))
    assert same["value"] == pytest.approx(0, abs=1e-6 * abs(folder["floor"]["value"]))


def saved(images: Images, folder: Path) -> Path:
    """Write pictures into a new folder, by number."""
    folder.mkdir()
    for number, picture in enumerate(images):
        Image.fromarray(picture).save(folder / f"{number:04d}.png")
    return folder


def test_a_copy_of_the_data_is_not_measured_against_the_same_sample(
    labelled32: Path, asked: Callable[..., Evaluate], tmp_path: Path
) -> None:
    """Another sample of the same pictures is: a distance of 0 would be of the order, not of the pictures."""
    shards = ShardImages(Index.open(labelled32), "train")
    real, copy = (saved(shards.images(np.arange(80)), tmp_path / name) for name in ("real", "copy"))
    run_evaluate(asked(subject=copy, against=real, metrics=("fid",), num_samples=40, json=tmp_path / "a"))
    (figure,) = figures(tmp_path / "a").values()
    assert figure["value"] > 0.1 * figure["floor"]["value"] > 0


def test_copies_are_looked_for_in_the_whole_training_set(
    labelled32: Path, asked: Callable[..., Evaluate], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Those fakes are the last pictures of it; other metrics compare as many reals as fakes."""
    shards = ShardImages(Index.open(labelled32), "train")
    copies = saved(shards.images(np.arange(shards.count - 20, shards.count)), tmp_path / "copies")
    metrics = ("fid", "authpct", "memorisation")
    run_evaluate(asked(subject=copies, against=labelled32, metrics=metrics, json=tmp_path / "a"))
    found = figures(tmp_path / "a")
    fid, authentic, nearer, _ = found.values()
    assert (authentic["value"], nearer["value"]) == (0, 1)
    assert (fid["count"], fid["reals"], fid["held_out"], fid["floor"]["reals"]) == (20, 20, None, 20)
    assert (authentic["count"], authentic["reals"], authentic["held_out"]) == (20, shards.count, None)
    assert (nearer["count"], nearer["reals"], nearer["held_out"]) == (20, shards.count, 20)
    assert (nearer["floor"]["count"], nearer["floor"]["reals"]) == (20, shards.count - 20)
    kept = [column.endswith(f"/of-{shards.count}-reals") for column in found]
    assert kept == [False, True, True, True]
    out = capsys.readouterr().out
    assert f"20 against {shards.count} and 20 held out" in out
    (p_value,) = (line for line in out.splitlines() if "memorisation_p" in line)
    assert "none" in p_value, "a p-value has no interval"
    assert out.count("none") == 1
    assert f"(of 20 against {shards.count - 20} and 20 held out)" in out


def test_figures_of_fakes_alone_have_a_floor_of_as_many_reals(asked: Callable[..., Evaluate], tmp_path: Path) -> None:
    """Nothing has to be left for a second half."""
    run_evaluate(asked(metrics=("vendi", "ms_ssim", "fid"), num_samples=100, json=tmp_path / "a"))
    vendi, similarity, fid = figures(tmp_path / "a").values()
    for figure in (vendi, similarity):
        assert (figure["count"], figure["floor"]["count"]) == (100, 100)
        assert (figure["reals"], figure["floor"]["reals"]) == (None, None)
    assert 50 < fid["floor"]["count"] == fid["floor"]["reals"] < 100


def test_a_file_of_figures_says_what_computed_them(asked: Callable[..., Evaluate], tmp_path: Path) -> None:
    run_evaluate(asked(metrics=("swd",), json=tmp_path / "a"))
    made = json.loads((tmp_path / "a").read_text())["made_with"]
    assert made == {"lienzo": version("lienzo"), "torch": torch.__version__, "definitions": DEFINITIONS}


def test_pictures_of_a_folder_are_brought_to_the_size_of_the_data(tmp_path: Path) -> None:
    for number, (width, height) in enumerate([(40, 20), (20, 20), (10, 30)]):
        pixels = np.full((height, width, 3), 10 * number + 10, np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    assert FolderImages(tmp_path).form == (20, 20, 3)
    seen = FolderImages(tmp_path, (16, 16, 3)).images(np.arange(3))
    assert seen.shape == (3, 16, 16, 3)
    assert sorted(np.unique(seen)) == [10, 20, 30]


def test_features_of_data_are_kept_and_those_of_paintings_are_not(
    asked: Callable[..., Evaluate], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    computed: list[str] = []
    compute = ExtractionTask.compute

    def watched(self: ExtractionTask, group: ImageGroup) -> store.Arrays:
        computed.append(self.source.key[0])
        return compute(self, group)

    monkeypatch.setattr(ExtractionTask, "compute", watched)
    args = asked(metrics=("fid",), json=tmp_path / "a")
    run_evaluate(args)
    assert {*computed} == {"shards", "painted"}
    computed.clear()
    run_evaluate(args)
    assert {*computed} == {"painted"}
    first = (tmp_path / "a").read_bytes()
    parts = sorted((tmp_path / "cache" / "features").rglob("*.part"))
    assert parts
    assert len({part.parent for part in parts}) == 1, "only the data's features stay"
    raw = bytearray(parts[0].read_bytes())
    raw[len(raw) // 2] ^= 1
    parts[0].write_bytes(raw)
    computed.clear()
    run_evaluate(args)
    assert computed.count("shards") == 1, "a damaged part is computed again"
    assert (tmp_path / "a").read_bytes() == first
    assert parts[0].read_bytes() != bytes(raw)


def painted_parts(folder: Path) -> set[Path]:
    """Return the parts of all features of painted pictures in a cache."""
    return {*(folder / "painted").rglob("*.part")}


def test_painted_features_belong_to_one_evaluation(asked: Callable[..., Evaluate], tmp_path: Path) -> None:
    """One with other metrics takes nothing of them away; the same command goes on from them, then they go."""
    args = with_checkpoint_name(asked(metrics=("fid",)))
    plan_evaluation(args).extract(World())  # and is killed
    (part,) = painted_parts(tmp_path / "cache")
    before = part.stat().st_ino
    run_evaluate(asked(metrics=("fid", "kid")))
    assert painted_parts(tmp_path / "cache") == {part}
    plan_evaluation(replace(args, processes=7)).extract(World())
    assert painted_parts(tmp_path / "cache") == {part}
    assert part.stat().st_ino == before, "it is not computed again"
    run_evaluate(asked(metrics=("fid",)))
    assert not painted_parts(tmp_path / "cache")


def test_what_killed_evaluations_have_left_goes_after_a_day(asked: Callable[..., Evaluate], tmp_path: Path) -> None:
    for metrics in (("fid", "swd"), ("kid",)):
        plan_evaluation(with_checkpoint_name(asked(metrics=metrics))).extract(World())
    old, new = painted_parts(tmp_path / "cache")
    yesterday = old.stat().st_mtime - 25 * 3600
    os.utime(old.parent, (yesterday, yesterday))
    run_evaluate(asked(metrics=("fid",)))
    assert painted_parts(tmp_path / "cache") == {new}
    assert not old.parent.exists()


@pytest.mark.usefixtures("small_groups")
def test_a_process_that_is_late_does_not_begin_again(
    asked: Callable[..., Evaluate], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One of the same launch, that is; the next launch shares its work again."""
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    args = with_checkpoint_name(asked(metrics=("fid",)))
    evaluate_as_rank(args, World(0, 2))
    evaluate_as_rank(args, World(1, 2))
    plan_evaluation(args).extract(World(1, 2))
    assert not painted_parts(tmp_path / "cache")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    plan_evaluation(args).extract(World(1, 2))
    assert painted_parts(tmp_path / "cache")


def test_a_main_process_begins_whatever_was_before(
    asked: Callable[..., Evaluate], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A launch may look like one before, such as two of torchrun."""
    monkeypatch.setenv("MASTER_PORT", "29500")
    args = with_checkpoint_name(asked(metrics=("fid",)))
    evaluate_as_rank(args, World(0, 2))
    plan_evaluation(args).extract(World(0, 2))
    assert painted_parts(tmp_path / "cache")


def test_features_of_another_machine_are_others(
    asked: Callable[..., Evaluate], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their bits may differ with the processor and with Pillow."""
    task = plan_evaluation(with_checkpoint_name(asked())).real
    folders = {replace(task).store.folder}
    with monkeypatch.context() as patch:
        patch.setattr("trainer.distributed.numerical_environment.cpu_model", lambda: "another one")
        folders.add(replace(task).store.folder)
    monkeypatch.setattr("PIL.__version__", "0")
    folders.add(replace(task).store.folder)
    assert len(folders) == 3


def test_parts_are_whole_or_not_there(tmp_path: Path) -> None:
    kept, group = FeatureStore(tmp_path, "a", "b"), ImageGroup(256, 300)
    assert kept.read(group) is None
    kept.write(group, {"features": np.ones((44, 2), np.float32)})
    assert np.array_equal(kept.read(group)["features"], np.ones((44, 2)))  # type: ignore[index]
    assert FeatureStore(tmp_path, "a b").read(group) is None, "another key"
    assert kept.read(ImageGroup(256, 301)) is None, "another number of pictures"
    whole = kept.path(group).read_bytes()
    for length in (0, 10, 20, len(whole) - 1):
        kept.path(group).write_bytes(whole[:length])
        assert kept.read(group) is None
    assert [g.stop - g.start for g in split_groups(600)] == [256, 256, 88]


def test_the_best_is_chosen_on_one_seed_set_and_reported_on_the_other(
    labelled32: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = made_run(tmp_path / "run", labelled32, 16, 32)
    usual = Evaluate(run.path, metrics=("fid",), num_samples=60, processes=1, cache=tmp_path / "cache")
    with pytest.raises(Refused, match="no best checkpoint yet"):
        run_evaluate(replace(usual, checkpoint="best"))
    for name in ("16", "32"):
        assert run_evaluate(replace(usual, checkpoint=name, seed_set="select")) is Outcome.FINISHED
    values = {
        row["checkpoint"]: next(iter(row["figures"].values()))["value"] for row in journal.read_rows(run.evaluations)
    }
    best = min(values, key=lambda name: values[name])
    assert len(values) == 2
    assert json.loads(run.best.read_text())["checkpoint"] == best
    (other,) = values.keys() - {best}
    row = journal.last_row(run.evaluations)
    lucky = {column: figure | {"value": -1.0} for column, figure in row["figures"].items()}
    with run.evaluations.open("ab") as file:
        file.write(journal.encode_row(row | {"checkpoint": other, "seed_set": "report", "figures": lucky}))
    run_evaluate(replace(usual, checkpoint=other, seed_set="select"))
    assert json.loads(run.best.read_text())["checkpoint"] == best, "what was reported chooses nothing"
    capsys.readouterr()
    assert run_evaluate(replace(usual, checkpoint="best")) is Outcome.FINISHED
    last = journal.last_row(run.evaluations)
    assert (last["checkpoint"], last["seed_set"]) == (best, "report")
    rows = len(list(journal.read_rows(run.evaluations)))
    run_evaluate(replace(usual, checkpoint="best"))
    assert len(list(journal.read_rows(run.evaluations))) == rows, "the same evaluation is one row"


def test_a_checkpoint_is_not_chosen_by_other_data(labelled32: Path, shards32: Path, tmp_path: Path) -> None:
    """Figures against other pictures have the same column, and are no reason."""
    run = made_run(tmp_path / "run", labelled32, 16, 32)
    usual = Evaluate(run.path, metrics=("fid",), num_samples=60, seed_set="select", processes=1, cache=tmp_path / "c")
    run_evaluate(replace(usual, checkpoint="16", against=shards32))
    assert not run.best.exists()
    row = journal.last_row(run.evaluations)
    lucky = {column: figure | {"value": -1.0} for column, figure in row["figures"].items()}
    with run.evaluations.open("ab") as file:
        file.write(journal.encode_row(row | {"figures": lucky}))
    run_evaluate(replace(usual, checkpoint="32"))
    assert json.loads(run.best.read_text())["checkpoint"] == "000000000032-r00"


def test_a_checkpoint_that_is_pruned_meanwhile_is_not_chosen(
    labelled32: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The evaluation ends as any other, and its painted features go."""
    run = made_run(tmp_path / "run", labelled32, 16)
    measure = EvaluationPlan.measure

    def pruned(self: EvaluationPlan) -> Evaluation:
        shutil.rmtree(run.checkpoints / "000000000016-r00")
        return measure(self)

    monkeypatch.setattr(EvaluationPlan, "measure", pruned)
    args = Evaluate(run.path, metrics=("fid",), num_samples=60, seed_set="select", processes=1, cache=tmp_path / "c")
    assert run_evaluate(args) is Outcome.FINISHED
    assert not run.best.exists()
    assert len({part.parent for part in (tmp_path / "c").rglob("*.part")}) == 1, "only the data's features stay"


def test_a_run_with_better_pictures_is_better(labelled32: Path, asked: Callable[..., Evaluate], tmp_path: Path) -> None:
    """Noise is farther from the data than other pictures of the data are."""
    (tmp_path / "noise").mkdir()
    for number in range(60):
        pixels = np.random.default_rng(number).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "noise" / f"{number}.png")
    run_evaluate(asked(subject=tmp_path / "noise", against=labelled32, metrics=("fid",), json=tmp_path / "a"))
    (figure,) = figures(tmp_path / "a").values()
    assert figure["low"] > figure["floor"]["high"] > figure["floor"]["value"] > 0.001, "other pictures than themselves"
    assert figure["floor"]["count"] == 60


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metrics": ("fidd",)}, "no metric 'fidd'; did you mean 'fid'"),
        ({"extractor": "random-vg"}, "no extractor 'random-vg'; did you mean 'random-vgg'"),
        ({"reference_convention": "stylegan"}, "no convention 'stylegan'; did you mean 'stylegan3'"),
        (
            {"reference_convention": "stylegan3", "extractor": "clip"},
            "--reference-convention stylegan3 is with inception-2015",
        ),
        ({"reference_convention": "stylegan3", "weights": Path("nowhere.pth")}, "nowhere.pth"),
        ({"metrics": ()}, "--metrics names none; there are fid, "),
        ({"metrics": ("swd",), "out": Path("looks")}, "--out shows the nearest pictures .* add fid"),
        ({"num_samples": 1}, "--num-samples must be at least 2"),
        ({"checkpoint": "48"}, "no checkpoint '48'; there is 000000000032-r00, 000000000016-r00"),
        ({"processes": 0}, "--processes must be positive"),
        ({"against": Path("nowhere")}, "nowhere is no folder"),
        ({"against": Path("slurm/profiles")}, "slurm/profiles holds no run, no shards and no pictures"),
        ({"subject": Path("docs")}, "name the real pictures: --against"),
        ({"json": Path("nowhere/a.json")}, "there is no folder nowhere"),
        ({"num_samples": 3, "metrics": ("prdc",)}, "prdc cannot be measured"),
    ],
)
def test_refusals(asked: Callable[..., Evaluate], options: dict[str, Any], message: str) -> None:
    with pytest.raises(Refused, match=message):
        run_evaluate(asked(**options))


def test_what_out_lacks_is_said_before_anything_is_computed(
    asked: Callable[..., Evaluate], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(EvaluationPlan, "extract", lambda *_: pytest.fail("it computes"))
    with pytest.raises(Refused, match="--out shows"):
        run_evaluate(asked(metrics=("swd",), out=Path("looks")))


def test_what_cannot_be_read_is_named(labelled32: Path, asked: Callable[..., Evaluate], tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(tmp_path / "plain" / "a.png")
    (tmp_path / "plain" / "b.png").write_text("no picture")
    with pytest.raises(Refused, match=r"b\.png is no usable picture"):
        run_evaluate(asked(subject=tmp_path / "plain", against=labelled32))
    shutil.copytree(labelled32, tmp_path / "damaged")
    shard = tmp_path / "damaged" / "train-000000.tar"
    shard.write_bytes(bytes(shard.stat().st_size))
    with pytest.raises(Refused, match=r"sample \d+ of .* is damaged"):
        run_evaluate(asked(against=tmp_path / "damaged"))


def test_what_a_metric_lacks_is_said(
    shards32: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], made: RunFolder
) -> None:
    """The others are measured."""
    asked_for = ("swd", "intra_fid", "is")
    run_evaluate(Evaluate(made.path, shards32, asked_for, 60, processes=1, cache=tmp_path, json=tmp_path / "a"))
    left_out = json.loads((tmp_path / "a").read_text())["left_out"]
    assert {*left_out} == {"intra_fid", "is"}
    assert "have no classes" in left_out["intra_fid"]
    assert "tells no classes" in left_out["is"]
    assert "intra_fid is left out" in capsys.readouterr().out


def test_the_nearest_real_pictures_are_shown(labelled32: Path, tmp_path: Path) -> None:
    """Pictures of the data itself are their own nearest ones."""
    (tmp_path / "copies").mkdir()
    shards = ShardImages(Index.open(labelled32), "train")
    for number, picture in enumerate(shards.images(np.arange(20))):
        Image.fromarray(picture).save(tmp_path / "copies" / f"{number}.png")
    args = Evaluate(tmp_path / "copies", labelled32, ("memorisation",), out=tmp_path / "out", processes=1)
    assert run_evaluate(replace(args, cache=tmp_path)) is Outcome.FINISHED
    shown = np.asarray(Image.open(tmp_path / "out" / "nearest.png"))
    assert shown.shape == (16 * 32, 6 * 32 + 4, 3)
    assert np.array_equal(shown[:, :32], shown[:, 36:68])
    assert not np.array_equal(shown[:, :32], shown[:, 68:100])


def test_how_good_the_classifier_is_is_said(
    asked: Callable[..., Evaluate], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    run_evaluate(asked(metrics=("is",), extractor="classifier", json=tmp_path / "a"))
    note = json.loads((tmp_path / "a").read_text())["extractor_note"]
    assert "of 13 unseen pictures rightly" in note
    assert note in capsys.readouterr().out


def test_the_main_process_alone_learns_the_classifier(
    asked: Callable[..., Evaluate], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def opened(options: ExtractorOptions = DEFAULT_OPTIONS, /) -> Extractor:
        seen.append(options.missing)
        raise Refused("enough")

    opener: Opener = opened
    monkeypatch.setitem(EXTRACTORS, "classifier", opener)
    args = asked(metrics=("is",), extractor="classifier")
    evaluate_as_rank(args, World(1, 2))
    with pytest.raises(Refused, match="enough"):
        evaluate_as_rank(args, World(0, 2))
    assert seen == ["wait", "learn"]


def test_a_command_line_says_the_same_again(asked: Callable[..., Evaluate]) -> None:
    args = with_checkpoint_name(asked(json=Path("a.json"), checkpoint="16"))
    assert command_line(args) == [
        "evaluate",
        str(args.subject.resolve()),
        *("--metrics", "fid", "swd", "--num-samples", "60", "--checkpoint", "000000000016-r00"),
        *("--processes", "1", "--json", str(Path("a.json").resolve()), "--cache", str(args.cache)),
    ]
