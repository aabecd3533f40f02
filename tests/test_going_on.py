"""A run that cannot go on as it is goes on as a new one, from its last good state, with other settings."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from safetensors.torch import load_file

from launcher.jobs.attempts import Cause, Decision
from slurm.dev_cluster import DevCluster
from tests.conftest import TINY, fingerprint, run, train
from tests.ordeal import Ordeal
from trainer.runs import journal
from trainer.runs.checkpoint import find_checkpoints
from trainer.runs.run_folder import RunFolder

LOCAL = ("--cluster", "local")


def go_on(source: Path, new: Path, *settings: str, expect: int = 0) -> str:
    """Resume a run as a new one."""
    done = run("launcher", "resume", str(source), "--as", str(new), *LOCAL, *settings)
    assert done.returncode == expect, done.stderr
    return done.stderr


@pytest.fixture(scope="module")
def source(shards32: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 128 images with what penalties and augmentation remember."""
    folder = tmp_path_factory.mktemp("source") / "a run"
    memory = ("--penalties.lecam.weight", "0.1", "--network.g-spectral-norm", "--network.d-spectral-norm")
    train(folder, shards32, "--total-images", "128", *memory)
    return folder


def test_what_a_diverged_run_is_told_to_do_works(shards32: Path, tmp_path: Path) -> None:
    folder = tmp_path / "a run"
    said = train(folder, shards32, "--optimizer.g-lr", "1e30", "--max-rollbacks", "1", expect=1)
    told = said.partition("such as lower rates: ")[2].splitlines()[0]
    command, _, other_draws = told.partition("; or try other draws: ")
    shown = json.loads(run("launcher", "status", str(folder), "--json").stdout)[0]
    assert shown["state"] == "failed"
    assert "images, after 1 rollbacks. Go on from the last good state as a new run" in shown["reason"]
    assert command in shown["reason"], "whoever looks later is told the same"

    words = shlex.split(command)
    assert words[:3] == ["python", "-m", "launcher"]
    new = Path(words[words.index("--as") + 1])
    again = run(*words[2:], *LOCAL, "--total-images", "64")
    assert again.returncode == 1, "half of 1e30 is too much as well"
    assert f"--optimizer.g-lr {1e30 / 4:g}" in again.stderr, "and it says how to go on from there"
    assert new.is_dir()
    words[words.index("--as") + 1] = str(tmp_path / "good")
    good = run(*words[2:], *LOCAL, "--total-images", "64", "--optimizer.g-lr", "2e-4")
    assert good.returncode == 0, good.stderr
    assert fingerprint(tmp_path / "good")[0] == 64

    tried = run(*shlex.split(other_draws)[2:], *LOCAL)
    assert tried.returncode == 1
    assert "after 4 rollbacks" in tried.stderr, "it was tried three times more"


def test_it_goes_on_from_the_whole_state(source: Path, tmp_path: Path) -> None:
    said = go_on(source, tmp_path / "new", "--total-images", "160", "--optimizer.g-lr", "1e-5")
    assert "and optimizers and progress: 128 images" in said
    theirs = load_file(find_checkpoints(source / "checkpoints")[0].path / "state.safetensors")
    began = load_file(tmp_path / "new" / "checkpoints" / "000000000128-r00" / "state.safetensors")
    assert theirs.keys() == began.keys()
    assert all(bool((theirs[name] == began[name]).all()) for name in theirs)
    assert any(name.startswith("running_scalars.") and bool(tensor.any()) for name, tensor in began.items())
    assert fingerprint(tmp_path / "new")[0] == 160
    rows = list(journal.read_rows(RunFolder(tmp_path / "new").metrics))
    assert [row["images_seen"] for row in rows] == [160]


def test_with_the_same_settings_it_is_the_run_that_it_goes_on_from(
    source: Path, shards32: Path, tmp_path: Path
) -> None:
    """Nothing is lost on the way: what follows has the bits of a run that was resumed in its own folder."""
    go_on(source, tmp_path / "new", "--total-images", "256")
    memory = ("--penalties.lecam.weight", "0.1", "--network.g-spectral-norm", "--network.d-spectral-norm")
    train(tmp_path / "undisturbed", shards32, "--total-images", "256", *memory)
    assert fingerprint(tmp_path / "new") == fingerprint(tmp_path / "undisturbed")


def test_the_same_bits_on_any_number_of_processes_and_without_the_source(
    source: Path, shards32: Path, tmp_path: Path
) -> None:
    settings = ("--optimizer.d-lr", "1e-5", "--seed", "3")
    go_on(source, tmp_path / "one", "--total-images", "160", "--processes", "1", *settings)
    renamed = source.rename(source.with_name("renamed"))
    done = run("launcher", "resume", str(tmp_path / "one"), *LOCAL, "--total-images", "256", "--processes", "3")
    assert done.returncode == 0, done.stderr
    renamed.rename(source)
    go_on(source, tmp_path / "two", "--total-images", "256", "--processes", "2", *settings)
    assert fingerprint(tmp_path / "one") == fingerprint(tmp_path / "two")


def test_a_rollback_before_the_first_anchor_goes_to_where_it_began(source: Path, tmp_path: Path) -> None:
    settings = ("--total-images", "256", "--optimizer.g-lr", "1e30", "--max-rollbacks", "1")
    said = go_on(source, tmp_path / "new", *settings, expect=1)
    assert ": back to 128, with other draws" in said


def test_what_does_not_fit_is_refused(source: Path, tmp_path: Path) -> None:
    def refused(*settings: str) -> str:
        said = go_on(source, tmp_path / "new", *settings, expect=2)
        assert not (tmp_path / "new").exists()
        assert "Traceback" not in said
        return said

    assert "--init-state weights takes what fits" in refused("--network.g-channels", "16")
    assert "its 128 images are no whole number of this run's steps of 96" in refused("--batch-size", "96")
    weights = find_checkpoints(source / "checkpoints")[0].path / "state.safetensors"
    command = ("launcher", "submit", *TINY, *LOCAL, "--run", str(tmp_path / "new"), "--init-from", str(weights))
    done = run(*command, "--init-state", "all")
    assert done.returncode == 2
    assert "is a file of weights alone, without progress" in done.stderr
    assert not (tmp_path / "new").exists()


def test_memory_that_other_settings_do_not_want_stays_behind(source: Path, tmp_path: Path) -> None:
    go_on(source, tmp_path / "none", "--total-images", "160", "--penalties.lecam.weight", "0")
    assert fingerprint(tmp_path / "none")[0] == 160
    said = go_on(source, tmp_path / "more", "--total-images", "160", "--augment.kind", "ada")
    assert "is missing there" in said


def test_an_existing_run_is_not_begun_again(source: Path) -> None:
    said = go_on(source, source, expect=2)
    assert f"this run exists already; go on with it: python -m launcher resume '{source}'" in said


def test_a_run_that_diverges_on_slurm_is_not_started_again(
    on_slurm: DevCluster, shards32: Path, tmp_path: Path
) -> None:
    settings = ("--optimizer.g-lr", "1e30", "--max-rollbacks", "1")
    ordeal = Ordeal(on_slurm, shards32, tmp_path / "r", settings=settings)
    ordeal.submit("--nodes", "1")
    ended = ordeal.wait_for_end()
    assert (ended.cause, ended.decision) == (Cause.DIVERGED, Decision.END), ordeal.story()
    shown = json.loads(ordeal.command("status", str(ordeal.folder), "--json"))[0]
    assert shown["state"] == "failed"
    assert "python -m launcher resume" in shown["reason"]
    assert len(ordeal.attempts()) == 1
