"""What the trainer advises about settings, data and weights works, done literally."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.advice import do, refusal, told
from tests.conftest import TINY
from tests.evaluated_runs import blots, made_run
from trainer.benchmark.arguments import Benchmark
from trainer.benchmark.command import plan_trials
from trainer.benchmark.results import Trial, read_result
from trainer.config.config import Config
from trainer.config.dataset import open_data
from trainer.config.recipes import RECIPES, recipe_config
from trainer.core.fields import Refused
from trainer.distributed import rank_environment
from trainer.distributed.world import World
from trainer.runs import init_from
from trainer.runs.checkpoint import find_checkpoints
from trainer.runs.checkpoint_writer import Checkpoints
from trainer.runs.config_loading import read_config, write_config
from trainer.runs.config_resolution import resolve_config
from trainer.runs.init_from import find_pretrained, read_pretrained
from trainer.runs.run_folder import RunFolder
from trainer.training import worker

HERE = ("--cluster", "local", "--dry-run")
SUBMIT = "python -m launcher submit"
RESUME = "python -m launcher resume"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labelled shards of 32 px in a folder with a space; the pictures lie in ../source."""
    folder = tmp_path_factory.mktemp("data") / "my pictures"
    folder.mkdir()
    return blots(folder)


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run with two checkpoints, in a folder with a space."""
    return made_run(tmp_path_factory.mktemp("runs") / "a run", data, 16, 32)


def tiny(data: Path, *settings: str) -> tuple[str, ...]:
    return (*TINY, "--data", str(data), *settings, *HERE)


def ask(data: Path, **network: object) -> Config:
    """Settings of a run on some data."""
    config = recipe_config("dcgan-32")
    return replace(config, data=data, network=replace(config.network, **network))  # type: ignore[arg-type]


def refused(config: Config) -> str:
    with pytest.raises(Refused) as error:
        open_data(config)
    return str(error.value)


def build(pictures: Path, out: Path, *options: str) -> Path:
    command = f"python -m shards build PICTURES --out DIR {' '.join(options)}"
    words = {"PICTURES": str(pictures), "NEW": str(out), "DIR": str(out)}
    assert do(shlex.join(words.get(word, word) for word in shlex.split(command)), "--workers", "1") == 0
    return out


@pytest.mark.parametrize("more", [(), ("--network.pack", "2", "--processes", "3"), ("--d-steps", "2")])
def test_the_batch_size_that_is_told(more: tuple[str, ...], data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refusal(capsys, SUBMIT, *tiny(data, "--batch-size", "30", *more))
    assert do(SUBMIT, *tiny(data, *more), *shlex.split(told(said, "; try "))) == 0


def test_the_number_of_processes_that_is_told(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = (*tiny(data), "--keep-batch")
    said = refusal(capsys, SUBMIT, *asked, "--processes", "5")
    assert "use at most 4 (--processes; " in said
    for works in ("--processes", "4"), ("--processes", "5", "--micro-batch-size", "4"):
        assert do(SUBMIT, *asked, *works) == 0
    assert do(SUBMIT, *asked, "--processes", "5", "--batch-size", "40") == 0


def test_data_that_is_not_named(data: Path, tmp_path: Path) -> None:
    said = refused(replace(ask(data), data=None))
    assert said == "no data is named: use --data DIR, a folder that python -m shards build made"
    assert open_data(ask(build(data.parent / "source", tmp_path / "new", "--size", "32"))).size == (32, 32)


def test_data_that_has_moved(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    moved = tmp_path / "moved data"
    shutil.copytree(data, moved)
    there = made_run(tmp_path / "r", moved, 16)
    moved.rename(tmp_path / "elsewhere")
    said = refusal(capsys, RESUME, str(there.path), *HERE)
    assert "if it has moved, name its new place with --data" in said
    assert do(RESUME, str(there.path), *HERE, "--data", str(tmp_path / "elsewhere")) == 0
    build(data.parent / "source", moved, "--size", "32")
    assert open_data(read_config(there)).size == (32, 32)


def test_points_are_no_pictures(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    networks = ("--generator", "mlp", "--discriminator", "mlp", "--network.size")
    said = refusal(capsys, SUBMIT, *tiny(data, *networks, "0"))
    assert "use a recipe of pictures (python -m launcher recipes lists them), or begin a new run with --netw" in said
    assert do("python -m launcher recipes") == 0
    assert do(SUBMIT, *tiny(data)) == 0
    assert do(SUBMIT, *tiny(data, *networks, "0"), *shlex.split(told(said, "begin a new run with "))) == 0


def test_pictures_of_another_size(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = (*tiny(data)[1:], "--network.size", "64")
    said = refusal(capsys, SUBMIT, *asked)
    command, _, other = said.partition(": build the shards again with ")[2].partition(", or begin a new run with ")
    assert do(SUBMIT, *asked, *shlex.split(other)) == 0
    new = build(data.parent / "source", tmp_path / "new", command)
    assert do(SUBMIT, *asked, "--data", str(new)) == 0


def test_a_size_that_no_network_has_is_not_advised(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = build(data.parent / "source", tmp_path / "odd", "--size", "17")
    assert refusal(capsys, SUBMIT, *tiny(odd)).endswith("build the shards again with --size 32")


@pytest.mark.parametrize("name", ["acgan-64", "projection-64", "biggan-32", "r3gan-32"])
def test_pictures_without_labels(name: str, data: Path, tmp_path: Path) -> None:
    config, size = RECIPES[name].config, RECIPES[name].config.network.size
    said = refused(replace(config, data=build(data.parent / "source", tmp_path / "plain", "--size", str(size))))
    options, _, other = said.partition(": build the shards again with ")[2].partition(", or begin a new run with ")
    folders, table = options.split(" or ")
    labelled = build(data.parent / "source", tmp_path / "labelled", folders, "--size", str(size))
    assert len(open_data(replace(config, data=labelled)).classes) == 3
    (tmp_path / "TABLE.csv").write_text("file,label\nred/0.png,A\n")
    table = table.replace("TABLE.csv", shlex.quote(str(tmp_path / "TABLE.csv")))
    assert open_data(replace(config, data=build(data.parent / "source", tmp_path / "t", table, "--size", str(size))))
    if other:
        assert do(SUBMIT, name, "--data", str(tmp_path / "plain"), *HERE, *shlex.split(other)) == 0
    else:
        assert name in ("acgan-64", "can-64"), "its penalties are of labels"


def test_a_shard_that_is_missing(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(data, tmp_path / "a copy")
    (tmp_path / "a copy" / "train-000001.tar").unlink()
    said = refusal(capsys, SUBMIT, *tiny(tmp_path / "a copy"))
    assert do(told(said, "; run: ")) == 1
    assert "train-000001.tar" in "".join(capsys.readouterr())


def test_settings_that_want_others(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = tiny(data, "--augment.kind", "ada", "--augment.no-adaptive")
    said = refusal(capsys, SUBMIT, *asked)
    assert said.endswith(": set --augment.p, --augment.p-final or --augment.adaptive")
    final = ("--augment.p-final", "0.2")
    for works in ("--augment.p", "0.2"), (*final, "--optimizer.decay-images", "6400"), ("--augment.adaptive",):
        assert do(SUBMIT, *asked, *works) == 0
    assert "optimizer.decay_images, which is 0: set that too" in refusal(capsys, SUBMIT, *asked, *final)
    asked = tiny(data, "--augment.blur-sigma", "2")
    assert refusal(capsys, SUBMIT, *asked).endswith(": set both, or neither")
    assert do(SUBMIT, *asked, "--augment.blur-images", "6400") == 0
    asked = tiny(data, "--penalties.classes-d.weight", "1")
    said = refusal(capsys, SUBMIT, *asked)
    assert do(SUBMIT, *asked, *shlex.split(told(said, "that guesses: "))) == 0
    asked = tiny(data, "--network.d-head", "classifier")
    for option in told(refusal(capsys, SUBMIT, *asked), ": it needs ").split(" or "):
        assert do(SUBMIT, *asked, option, "1") == 0


def test_identity_settings_that_cannot_change(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    seed, project = ("--seed", "3"), ("--tracking.project", "art")
    for setting, code in (("--network.g-channels", "16"), "submit"), (seed, "resume"), (project, "resume"):
        said = refusal(capsys, RESUME, str(run.path), *setting, *HERE)
        command = told(said, " new run: ")
        assert command.startswith(f"python -m launcher {code} ")
        assert do(command, *setting, *HERE) == 0
        assert str(read_config(run).data) in capsys.readouterr().out


def test_a_total_that_is_passed(run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refusal(capsys, RESUME, str(run.path), "--total-images", "16", *HERE)
    assert "name a larger total, or none to leave it as it is" in said
    for works in ("--total-images", "64"), ():
        assert do(RESUME, str(run.path), *works, *HERE) == 0
    option = told(said, "it can be sampled with ")
    assert do("python -m trainer sample", str(run.path), option, "16", "--out", str(tmp_path / "grid.png")) == 0


def test_two_lengths(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    both = ("--epochs", "2"), ("--total-images", "64")
    assert refusal(capsys, SUBMIT, *tiny(data), *both[0], *both[1]).endswith("name one of them")
    assert [do(SUBMIT, *tiny(data), *one) for one in both] == [0, 0]
    lines = "epochs = 2", "total_images = 64"
    Path("lienzo.toml").write_text("\n".join(lines))
    assert refusal(capsys, SUBMIT, *tiny(data)).endswith("keep one of them")
    for line in lines:
        Path("lienzo.toml").write_text(line)
        assert do(SUBMIT, *tiny(data)) == 0


def test_a_run_of_another_recipe(run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ("wgan-gp-32", "--data", str(read_config(run).data), *HERE)
    assert "name another --run" in refusal(capsys, SUBMIT, *asked, "--run", str(run.path))
    assert do(SUBMIT, *asked, "--run", str(tmp_path / "another")) == 0


def test_weights_that_a_run_did_not_begin_with(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    weights = ("--init-from", str(run.checkpoints / "000000000016-r00"))
    said = refusal(capsys, RESUME, str(run.path), *weights, *HERE)
    assert do(told(said, "; begin a new run with them: "), *SMALL, *weights, *HERE) == 0


SMALL = ("--network.g-channels", "8", "--network.d-channels", "8", "--network.z-dim", "16")


def test_weights_without_progress(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    file, asked = (
        find_checkpoints(run.checkpoints)[0].path / "state.safetensors",
        tiny(Path(str(read_config(run).data))),
    )
    said = refusal(capsys, SUBMIT, *asked, "--init-from", str(file), "--init-state", "all")
    assert said.endswith("name a run, or use --init-state weights")
    assert do(SUBMIT, *asked, "--init-from", str(run.path), "--init-state", "all") == 0
    assert do(SUBMIT, *asked, "--init-from", str(file), "--init-state", "weights") == 0


def test_a_state_that_does_not_fit(run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of other networks, and of other steps."""
    asked = (str(run.path), "--as", str(tmp_path / "new"), *HERE)
    for setting in ("--network.g-channels", "16"), ("--batch-size", "24"):
        said = refusal(capsys, RESUME, *asked, *setting)
        way = re.search(r"--init-state weights", said)
        assert way, said
        assert do(RESUME, *asked, *setting, *way[0].split()) == 0
    assert "keep its --batch-size and --d-steps" in said
    assert do(RESUME, *asked) == 0


def test_weights_that_have_broken(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = made_run(tmp_path / "source", data, 16, 32, 48)
    newest = find_checkpoints(source.checkpoints)[0]
    tensors, values = newest.read()
    tensors["generator.convolutions.0.weight"][:] = torch.nan
    shutil.rmtree(newest.path)
    saver = Checkpoints(source.checkpoints, read_config(source).checkpoint, lambda: None)
    saver.save(tensors, values)
    saver.close()
    said = refusal(capsys, SUBMIT, *tiny(data), "--init-from", str(source.path))
    assert do(SUBMIT, *tiny(data), "--init-from", told(said, "an older checkpoint, such as ")) == 0
    alone = tmp_path / "weights.safetensors"
    save_file(load_file(find_checkpoints(source.checkpoints)[0].path / "state.safetensors"), alone)
    assert refusal(capsys, SUBMIT, *tiny(data), "--init-from", str(alone)).endswith("name another one")


def test_weights_that_change_just_now(run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = resolve_config(RunFolder(tmp_path / "r"), replace(read_config(run), init_from=run.path)).config
    found = find_pretrained(config)
    with monkeypatch.context() as patch:
        patch.setattr(init_from, "find_pretrained", lambda config: replace(found, weights={}))
        with pytest.raises(Refused, match="as a run that trains does; try again"):
            write_config(RunFolder(tmp_path / "r"), config)
    write_config(RunFolder(tmp_path / "r"), config)
    with pytest.raises(Refused, match="start a new run with --init-from"):
        read_pretrained(RunFolder(tmp_path / "r"), "another hash")
    assert do(SUBMIT, *tiny(Path(str(config.data))), "--run", str(tmp_path / "n"), "--init-from", str(run.path)) == 0


def test_a_crowd_that_knows_nothing_of_each_other(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    variable = rank_environment.COUNTED_BY["srun"]
    monkeypatch.setenv(variable, "2")
    assert "`--processes N` on one machine" in refusal(capsys, SUBMIT, *tiny(data))
    monkeypatch.delenv(variable)
    assert do(SUBMIT, *tiny(data), "--processes", "2") == 0


def test_variables_of_another_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(Refused, match="unset them"):
        worker.refuse_other_world(World())
    monkeypatch.delenv("WORLD_SIZE")
    worker.refuse_other_world(World())


def test_a_result_of_other_settings(tmp_path: Path) -> None:
    job = Trial("ring", "gan", 0, 10)
    job.file(tmp_path).parent.mkdir(parents=True)
    kept = {"identity": "a", "steps": 10, "weights": "", "figures": {"modes": 8, "reverse_kl": 0.1}, "cpu_s": 1.0}
    for content, advised in (json.dumps(kept), "name another --out, or remove the f"), ("{", "remove it, and its"):
        job.file(tmp_path).write_text(content)
        with pytest.raises(Refused, match=advised):
            read_result(job, tmp_path, ("b",))
        assert read_result(job, tmp_path / "another", ("b",)) is None
        job.file(tmp_path).unlink()
        assert read_result(job, tmp_path, ("b",)) is None


def test_a_benchmark_of_nothing() -> None:
    with pytest.raises(Refused) as error:
        plan_trials(Benchmark((), Path()))
    names = told(str(error.value), "name what to learn: ").split(", ")
    assert names == ["ring", "grid", "digits"]
    assert (
        len(plan_trials(Benchmark(("ring", "grid", "digits"), Path())))
        > len(plan_trials(Benchmark(("ring",), Path())))
        > 0
    )
