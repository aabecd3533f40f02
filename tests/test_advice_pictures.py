"""What `trainer sample` and `trainer evaluate` advise works, done literally."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests import small_shards
from tests.advice import do, refusal, told
from tests.evaluated_runs import blots, made_run
from trainer.core.fields import Refused
from trainer.core.stopping import Outcome
from trainer.evaluation import store
from trainer.evaluation.extraction import ExtractionTask
from trainer.runs.run_folder import RunFolder
from trainer.runs.trained_generator import parse_seeds

SAMPLE = "python -m trainer sample"
EVALUATE = "python -m trainer evaluate"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labelled shards of 32 px in a folder with a space; the pictures lie in ../source."""
    folder = tmp_path_factory.mktemp("data") / "my pictures"
    folder.mkdir()
    return blots(folder)


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run in a folder with a space."""
    return made_run(tmp_path_factory.mktemp("runs") / "a run", data, 16)


@pytest.fixture
def few(tmp_path: Path) -> tuple[str, ...]:
    """What makes an evaluation small."""
    options = ("--metrics", "fid", "--num-samples", "20", "--processes", "1", "--cache", str(tmp_path / "cache"))
    return (*options, "--extractor", "random-vgg")


def test_options_that_do_not_go_together(run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked: tuple[str, ...] = (str(run.path), "--out", str(tmp_path / "grid.png"))
    assert "leave --num and --seed out" in refusal(capsys, SAMPLE, *asked, "--seeds", "1", "--num", "3")
    assert do(SAMPLE, *asked, "--seeds", "1") == 0
    asked = (str(run.path), "--out", str(tmp_path / "pictures"), "--files")
    assert "use --seeds in place of --seed" in refusal(capsys, SAMPLE, *asked, "--seed", "3")
    assert do(SAMPLE, *asked, "--seeds", "3") == 0


def test_a_folder_that_is_not_empty(run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = (str(run.path), "--files", "--seeds", "1", "--out")
    assert do(SAMPLE, *asked, str(tmp_path / "a")) == 0
    assert "name another folder, or --force to replace it" in refusal(capsys, SAMPLE, *asked, str(tmp_path / "a"))
    (tmp_path / "a" / "letter.txt").touch()
    assert refusal(capsys, SAMPLE, *asked, str(tmp_path / "a")).endswith("letter.txt: name another folder, or --force")
    assert do(SAMPLE, *asked, str(tmp_path / "another folder")) == 0
    assert do(SAMPLE, *asked, str(tmp_path / "a"), "--force") == 0


def test_more_pictures_than_at_once() -> None:
    with pytest.raises(Refused, match="more than 1,000,000: sample them in several goes"):
        parse_seeds("0-1999999")
    assert sum(len(parse_seeds(part)) for part in ("0-999999", "1000000-1999999")) == 2_000_000


def test_metrics_that_want_something(
    run: RunFolder, few: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = (*few, "--out", str(tmp_path / "looks"))
    assert refusal(capsys, EVALUATE, str(run.path), *asked, "--metrics", "swd").endswith(": add fid")
    assert do(EVALUATE, str(run.path), *asked, "--metrics", "swd", "fid") == 0
    capsys.readouterr()
    assert do(EVALUATE, str(run.path), *few, "--metrics", "fid", "is") == 0
    assert "is is left out: random-vgg tells no classes; --extractor classifier does" in capsys.readouterr().out


def test_a_convention_has_its_own_extractor(
    run: RunFolder,
    few: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("LIENZO_WEIGHTS", str(tmp_path))
    said = refusal(capsys, EVALUATE, str(run.path), *few, "--reference-convention", "stylegan3")
    assert said == "--reference-convention stylegan3 is with inception-2015: leave --extractor random-vgg out"
    said = refusal(capsys, EVALUATE, str(run.path), *few[:-2], "--reference-convention", "stylegan3")
    assert said.startswith("inception-2015 needs pt_inception"), "the extractor is accepted; its weights are not here"


def test_what_is_compared_with_what(
    run: RunFolder, data: Path, few: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = str(data.parent / "source")
    assert "name the real pictures: --against DATA or a folder" in refusal(capsys, EVALUATE, plain, *few)
    for real in data, data.parent / "source":
        assert do(EVALUATE, plain, *few, "--against", str(real)) == 0
    said = refusal(capsys, EVALUATE, str(tmp_path / "nowhere"), *few, "--against", str(data))
    assert said.endswith("is no folder: name a run, a folder of shards or a folder of pictures")
    for subject in str(run.path), str(data), plain:
        assert do(EVALUATE, subject, *few, "--against", str(data)) == 0


def test_pictures_of_another_size(
    run: RunFolder, data: Path, few: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = small_shards.build(tmp_path, "png")
    said = refusal(capsys, EVALUATE, str(run.path), *few, "--against", str(other))
    command, _, instead = told(said, "build others with: ").partition("; or ")
    words = {"PICTURES": str(tmp_path / "source"), "NEW": str(tmp_path / "new")}
    assert do(shlex.join(words.get(word, word) for word in shlex.split(command))) == 0
    assert instead == "name PICTURES, which are resized"
    for path in (tmp_path / "source").rglob("*"):
        if path.name in ("empty.png", "text.jpg"):
            path.unlink()
    for real in words.values():
        assert do(EVALUATE, str(run.path), *few, "--against", real) == 0


def test_a_damaged_sample(
    run: RunFolder, data: Path, few: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged = Path(shutil.copytree(data, tmp_path / "damaged data"))
    shard = damaged / "train-000000.tar"
    shard.write_bytes(bytes(shard.stat().st_size))
    said = refusal(capsys, EVALUATE, str(run.path), *few, "--against", str(damaged))
    assert do(told(said, "; run: ").removesuffix(", and build the shards again, into a new folder")) == 1
    build = ["python", "-m", "shards", "build", str(data.parent / "source"), "--out", str(tmp_path / "new")]
    assert do(shlex.join([*build, "--size", "32", "--workers", "1"])) == 0
    assert do(EVALUATE, str(run.path), *few, "--against", str(tmp_path / "new")) == 0


def test_a_file_that_is_no_picture(
    data: Path, few: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(4):
        Image.fromarray(np.full((32, 32, 3), number, np.uint8)).save(tmp_path / f"{number}.png")
    (tmp_path / "words.png").write_text("no picture")
    said = refusal(capsys, EVALUATE, str(tmp_path), *few, "--against", str(data))
    assert said.endswith("; remove it")
    Path(said.partition(" is no usable picture")[0]).unlink()
    assert do(EVALUATE, str(tmp_path), *few, "--against", str(data)) == 0


def test_a_cache_that_cannot_be_written(
    run: RunFolder, few: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    asked = (*few, "--cache")
    said = refusal(capsys, EVALUATE, str(run.path), *asked, str(tmp_path / "file"))
    assert "cannot be kept in" in said
    assert said.endswith("; name a --cache")
    assert do(EVALUATE, str(run.path), *asked, str(tmp_path / "another")) == 0


def test_an_evaluation_that_is_stopped(
    data: Path, few: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(store, "GROUP_SIZE", 8)
    computed: list[int] = []
    compute = ExtractionTask.compute

    def counted(task: ExtractionTask, group: store.ImageGroup) -> store.Arrays:
        computed.append(group.start)
        if len(computed) == 4:
            raise KeyboardInterrupt
        return compute(task, group)

    monkeypatch.setattr(ExtractionTask, "compute", counted)
    command = (EVALUATE, str(data.parent / "source"), *few, "--against", str(data))
    assert do(*command) == Outcome.KILLED
    assert "stopped; the same command goes on from the features that are there" in capsys.readouterr().err
    assert do(*command) == 0
    assert len(computed) == 4 + 3 + 2, "five groups of fakes and reals were left, and the three are not computed again"
