"""Runs whose networks are told several labels: the same bits, pictures with chosen labels, and figures."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from shards.dataset.index import Index
from shards.dataset.labels import LabelReader
from tests.advice import do, refusal
from tests.advice import told as advised
from tests.conftest import TINY, fingerprint, train
from tests.labelled_shards import build_labelled
from tests.s3_server import serve_bucket
from tests.test_same_bits import kill_at, planted
from trainer.__main__ import main
from trainer.core.fields import Refused
from trainer.evaluation.arguments import Evaluate
from trainer.evaluation.generated_source import GeneratedImages
from trainer.evaluation.prepare import plan_evaluation, with_checkpoint_name
from trainer.runs.config_loading import read_config
from trainer.runs.run_folder import RunFolder
from trainer.runs.run_labels import read_labels
from trainer.runs.trained_generator import SamplingOptions, TrainedGenerator

COLUMNS = ("--network.label-columns", "genre,style,year", "--network.g-conditional", "--network.d-head", "projection")
SUBMIT = "python -m launcher submit"
TOLD = (*COLUMNS, "--total-images", "128", "--checkpoint-every-images", "32", "--collapse.every-images", "64")


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_labelled(tmp_path_factory.mktemp("labelled"))


@pytest.fixture(scope="module")
def told(labelled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on two columns of classes and a number, of one process, that nothing disturbs."""
    folder = tmp_path_factory.mktemp("told") / "run"
    train(folder, labelled, *TOLD)
    return folder


def test_two_processes_a_kill_and_a_bucket_give_the_same_bits(
    told: Path, labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Begun on two processes, killed, and gone on with on three, from a bucket."""
    run = tmp_path / "run"
    kill_at(run, labelled, 64, 2, *TOLD)
    with serve_bucket(tmp_path / "buckets") as bucket:
        for name, value in bucket.environment.items():
            monkeypatch.setenv(name, value)
        shutil.copytree(labelled, bucket.root / "set")
        there = ("--data", f"{bucket.url}/set", "--cache", str(tmp_path / "cache"))
        train(run, labelled, *TOLD, *there, processes=3)
    assert json.loads((run / "config.json").read_text())["data"].startswith("s3://")
    assert fingerprint(run) == fingerprint(told)
    assert (run / "metrics.jsonl").read_bytes() == (told / "metrics.jsonl").read_bytes()
    assert (run / "labels.json").read_bytes() == (told / "labels.json").read_bytes()


def test_a_planted_mistake_turns_the_bits_red(labelled: Path, told: Path, tmp_path: Path) -> None:
    """Labels by the order in which a process reads them."""
    assert planted("labels_by_arrival", tmp_path / "run", labelled, 2, *TOLD) != fingerprint(told)


@pytest.fixture
def alone(told: Path, tmp_path: Path) -> Path:
    """The run where its data is not."""
    shutil.copytree(told, tmp_path / "alone")
    stored = json.loads((told / "config.json").read_text())
    (tmp_path / "alone" / "config.json").write_text(json.dumps(stored | {"data": str(tmp_path / "gone")}))
    return tmp_path / "alone"


def test_labels_are_chosen_by_name(alone: Path) -> None:
    """Without the data; what is not chosen is as in training pictures of the same classes."""
    known = read_labels(RunFolder(alone))
    options = SamplingOptions(labels=("style=asia", "year=1650"))
    trained = TrainedGenerator(alone, options)
    assert trained.labels is not None
    asia = known.columns[1].classes.index("asia")
    fitting = known.rows[known.rows[:, 1] == asia]
    assert 20 < len(fitting) < len(known.rows)
    assert (trained.labels == np.stack([fitting[:, 0], fitting[:, 1], np.full(len(fitting), 1650)], 1)).all()
    latent = trained.latent(7)
    assert latent.label.tolist() == [trained.labels[7].tolist()]
    every = TrainedGenerator(alone, SamplingOptions())
    assert np.array_equal(every.latent(7).label[0].numpy(), known.rows[7], equal_nan=True)
    assert (trained.numbered(4, 0) != every.numbered(4, 0)).any((1, 2, 3)).all()
    by_class = TrainedGenerator(alone, SamplingOptions(label="late", labels=("style=asia", "year=1650")))
    assert {*map(tuple, np.asarray(by_class.labels))} == {(1.0, float(asia), 1650.0)}


WRONG = {
    "--label style=asai": "style has no 'asai'; did you mean 'asia'?",
    "--label style=9": "they are numbered from 0 to 8",
    "--label stile=asia": "are told no 'stile'; did you mean 'style'?",
    "--label year=old": "year must be a number, but is 'old'",
    "--label year=nan": "year must be a number, but is 'nan'",
    "--label asia": "must be COLUMN=VALUE",
    "--class nowhere": "genre has no 'nowhere'",
}


@pytest.mark.parametrize("options", WRONG)
def test_wrong_labels_are_refused(options: str, told: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sample", str(told), "--out", str(tmp_path / "grid.png"), *options.split()]) == 2
    assert WRONG[options] in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_labels_that_nobody_was_told(
    told: Path, labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(tmp_path / "run", labelled, "--network.g-conditional", "--total-images", "32")
    sample = ["sample", str(tmp_path / "run"), "--num", "1", "--out", str(tmp_path / "grid.png")]
    assert main([*sample, "--label", "style=asia"]) == 2
    assert "no --network.label-columns, whose names it takes: use --class" in capsys.readouterr().err
    assert main([*sample, "--class", "asia"]) == 0
    sample[1] = str(told)
    assert main([*sample, "--label", "genre=early", "--class", "early"]) == 2
    assert capsys.readouterr().err.endswith("or named by --label: leave it out\n")
    assert main([*sample, "--label", "genre=early"]) == 0
    (tmp_path / "run" / "config.json").write_text((told / "config.json").read_text())
    assert main([*sample[:1], str(tmp_path / "run"), *sample[2:]]) == 2
    assert "labels.json cannot be read" in capsys.readouterr().err


def test_settings_on_labels_that_want_others(labelled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    here = ("--data", str(labelled), "--cluster", "local", "--dry-run")
    asked = (*TINY, *here, "--network.label-columns", "genre,year")
    one, other = advised(refusal(capsys, SUBMIT, *asked), " does nothing without ").split(" or ")
    classifier = (one, other, "classifier", "--penalties.classes-d.weight", "1")
    said = refusal(capsys, SUBMIT, *asked, *classifier)
    head, columns = advised(said, "is a number: use ").split(", or other ")
    assert do(SUBMIT, *asked, one, *head.split()) == 0
    assert do(SUBMIT, *asked, *classifier, columns, "genre,style") == 0


def test_another_choice_on_resume_is_refused(told: Path, labelled: Path) -> None:
    said = train(told, labelled, *TOLD, "--network.label-columns", "style", expect=2)
    assert "network.label_columns is 'genre,style,year' in" in said


def test_figures_have_the_labels_of_the_data(told: Path, labelled: Path, tmp_path: Path) -> None:
    """G is told those of the reals; classes are those of the first column, and what learns them is of that, too."""
    args = Evaluate(told, metrics=("swd", "intra_fid"), cache=tmp_path, num_samples=64)
    plan = plan_evaluation(with_checkpoint_name(args))
    fake, real = plan.fake.source, plan.real.source
    assert isinstance(fake, GeneratedImages)
    assert fake.classes == real.classes == ("early", "late", "middle")
    assert not plan.left_out
    rows = np.arange(64)
    assert np.array_equal(fake.labels(rows), real.labels(rows))  # type: ignore[arg-type]
    index = Index.open(labelled)
    config = read_config(RunFolder(told))
    whole = LabelReader(index, config.network.label_names)(np.arange(index.splits["train"].samples)).tolist()
    assert all(str(row) in {str(one) for one in whole} for row in fake.told(rows))
    assert len({str(row) for row in fake.told(rows)}) > 50
    assert "genre" in real.key
    shutil.copytree(labelled, tmp_path / "other")
    content = (tmp_path / "other" / "index.json").read_text().replace('"middle"', '"muddle"')
    (tmp_path / "other" / "index.json").write_text(content)
    with pytest.raises(Refused, match="was not trained with the class 'muddle'"):
        plan_evaluation(with_checkpoint_name(Evaluate(told, tmp_path / "other", metrics=("swd",), cache=tmp_path)))
