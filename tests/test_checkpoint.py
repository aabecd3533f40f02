"""Checkpoints are whole or not there; what is damaged is found, passed by, and kept."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.conftest import TINY, run
from trainer.config.groups import CheckpointSettings
from trainer.runs.checkpoint import Checkpoint, Damaged, find_checkpoints, newest_whole, quarantine
from trainer.runs.checkpoint_writer import Checkpoints, Saved, Snapshot

Tensors = dict[str, torch.Tensor]


@pytest.fixture
def tensors() -> Tensors:
    weight = torch.randn(4, 3, 5, 5).contiguous(memory_format=torch.channels_last)
    return {"weight": weight, "step": torch.tensor(3.0), "bias": torch.randn(7)}


def values(images_seen: int, rollbacks: int = 0) -> dict[str, object]:
    return {"images_seen": images_seen, "rollbacks": [{"from": 1, "to": 0}] * rollbacks}


def save(folder: Path, tensors: Tensors, *images: int, settings: CheckpointSettings | None = None) -> Checkpoints:
    checkpoints = Checkpoints(folder, settings or CheckpointSettings(keep_last=10), lambda: None)
    for images_seen in images:
        checkpoints.save(tensors, values(images_seen))
        assert isinstance(checkpoints.result(wait=True), Saved)
    checkpoints.close()
    return checkpoints


def test_what_is_saved_is_read_back_to_the_bit(tmp_path: Path, tensors: Tensors) -> None:
    save(tmp_path, tensors, 64)
    read, scalars = find_checkpoints(tmp_path)[0].read()
    assert scalars == values(64)
    assert read.keys() == tensors.keys()
    assert all(torch.equal(read[name], tensors[name]) for name in tensors)


def test_training_may_go_on_while_the_snapshot_is_written(tmp_path: Path, tensors: Tensors) -> None:
    before = {name: tensor.clone() for name, tensor in tensors.items()}
    checkpoints = Checkpoints(tmp_path, CheckpointSettings(), lambda: None)
    checkpoints.save(tensors, values(64))
    for tensor in tensors.values():
        tensor.fill_(-1)
    assert isinstance(checkpoints.result(wait=True), Saved)
    checkpoints.close()
    read, _ = find_checkpoints(tmp_path)[0].read()
    assert all(torch.equal(read[name], before[name]) for name in before)


def test_a_snapshot_reuses_its_memory(tensors: Tensors) -> None:
    snapshot = Snapshot()
    snapshot.take(tensors)
    places = {name: tensor.data_ptr() for name, tensor in snapshot.copies.items()}
    snapshot.take(tensors)
    assert places == {name: tensor.data_ptr() for name, tensor in snapshot.copies.items()}


def flip_byte(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


HARM: dict[str, Callable[[Path], None]] = {"flipped": flip_byte, "truncated": truncate, "missing": Path.unlink}


@pytest.mark.parametrize("file", ["state.safetensors", "state.json", "manifest.json"])
@pytest.mark.parametrize("harm", HARM)
def test_damage_is_found_and_walked_back(tmp_path: Path, tensors: Tensors, file: str, harm: str) -> None:
    save(tmp_path, tensors, 64, 128)
    newest = find_checkpoints(tmp_path)[0]
    HARM[harm](newest.path / file)
    with pytest.raises(Damaged):
        newest.verify()
    told: list[str] = []
    found = newest_whole(tmp_path, lambda checkpoint, problem: told.append(problem))
    assert found is not None
    assert found.images_seen == 64
    assert len(told) == 1


def test_damaged_ones_are_set_aside_and_never_pruned(tmp_path: Path, tensors: Tensors) -> None:
    save(tmp_path, tensors, 64)
    moved = quarantine(find_checkpoints(tmp_path)[0])
    save(tmp_path, tensors, 64, 128, 192, settings=CheckpointSettings(keep_last=1))
    again = quarantine(find_checkpoints(tmp_path)[0])
    assert moved.exists()
    assert again.exists()
    assert moved != again
    assert newest_whole(tmp_path, lambda *_: None) is None


def test_a_half_written_checkpoint_is_none(tmp_path: Path, tensors: Tensors) -> None:
    """A kill leaves the temporary folder; the next save of the same state replaces it."""
    save(tmp_path, tensors, 64)
    torn = tmp_path / ".writing-000000000128-r00"
    shutil.copytree(find_checkpoints(tmp_path)[0].path, torn)
    assert [c.images_seen for c in find_checkpoints(tmp_path)] == [64]
    save(tmp_path, tensors, 128)
    assert not torn.exists()
    assert [c.images_seen for c in find_checkpoints(tmp_path)] == [128, 64]


def test_a_manifest_names_all_files(tmp_path: Path, tensors: Tensors) -> None:
    save(tmp_path, tensors, 64)
    manifest = find_checkpoints(tmp_path)[0].path / "manifest.json"
    content = json.loads(manifest.read_text())
    content["files"] = {"state.json": content["files"]["state.json"]}
    manifest.write_text(json.dumps(content))
    with pytest.raises(Damaged):
        find_checkpoints(tmp_path)[0].verify()


def test_the_last_and_one_of_each_interval_stay(tmp_path: Path, tensors: Tensors) -> None:
    settings = CheckpointSettings(keep_last=2, keep_every_images=100)
    save(tmp_path, tensors, *range(0, 400, 32), settings=settings)
    assert [c.images_seen for c in reversed(find_checkpoints(tmp_path))] == [0, 128, 224, 320, 352, 384]


def test_what_a_rollback_left_behind_is_older() -> None:
    names = ["000000000128-r00", "000000000064-r01", "000000000064-r00"]
    ages = [checkpoint.age for name in names if (checkpoint := Checkpoint.parse(Path(name)))]
    assert sorted(ages) == [(0, 64), (0, 128), (1, 64)]
    assert Checkpoint.parse(Path("damaged-000000000128-r00-1")) is None
    assert Checkpoint.parse(Path(".writing-000000000128-r00")) is None


def test_a_full_disk_keeps_the_old_one(small_disk: Path) -> None:
    """8 MiB take one checkpoint of 5 MB and not two; when there is room again, saving works again."""
    tensors = {"weight": torch.randn(1_250_000)}
    checkpoints = Checkpoints(small_disk / "checkpoints", CheckpointSettings(keep_last=1), lambda: None)
    checkpoints.save(tensors, values(64))
    assert isinstance(checkpoints.result(wait=True), Saved)
    checkpoints.save(tensors, values(128))
    error = checkpoints.result(wait=True)
    assert isinstance(error, OSError)
    assert "space" in str(error)
    assert [c.images_seen for c in find_checkpoints(small_disk / "checkpoints")] == [64]
    find_checkpoints(small_disk / "checkpoints")[0].verify()
    assert not list((small_disk / "checkpoints").glob(".writing*"))
    shutil.rmtree(find_checkpoints(small_disk / "checkpoints")[0].path)
    checkpoints.save(tensors, values(192))
    assert isinstance(checkpoints.result(wait=True), Saved)
    checkpoints.close()


def test_nothing_is_promised_before_the_metrics_are_durable(tmp_path: Path, tensors: Tensors) -> None:
    def refuse() -> None:
        raise OSError("no space for the metrics")

    checkpoints = Checkpoints(tmp_path, CheckpointSettings(), refuse)
    checkpoints.save(tensors, values(64))
    assert isinstance(checkpoints.result(wait=True), OSError)
    checkpoints.close()
    assert find_checkpoints(tmp_path) == []


def test_a_run_folder_that_moves_while_a_checkpoint_is_written(tmp_path: Path, tensors: Tensors) -> None:
    """In the moment between the checkpoint's rename and the look at what is to be pruned."""
    folder, elsewhere = tmp_path / "run" / "checkpoints", tmp_path / "elsewhere"
    folder.parent.mkdir()

    class Moving(Checkpoints):
        def prune(self) -> None:
            folder.parent.rename(elsewhere)
            super().prune()

    checkpoints = Moving(folder, CheckpointSettings(), lambda: None)
    checkpoints.save(tensors, values(64))
    result = checkpoints.result(wait=True)
    assert isinstance(result, OSError)
    assert "holds no checkpoints any more" in str(result)
    checkpoints.close()


def test_training_survives_a_full_disk(small_disk: Path, shards32: Path) -> None:
    """The run folder is full at the second checkpoint: loud, training goes on, and the end says what is not saved."""
    wide = ["--network.g-channels", "32", "--network.d-channels", "32", "--checkpoint.keep-last", "1"]
    done = run(
        *("trainer", "train", *TINY, *wide, "--run", str(small_disk / "run"), "--data", str(shards32)),
        *("--total-images", "192", "--checkpoint-every-images", "64"),
    )
    assert done.returncode == 1, done.stderr
    assert "THE CHECKPOINT WAS NOT WRITTEN" in done.stderr
    assert "No space left on device" in done.stderr
    assert "192 / 192 images" in done.stderr
    assert "not durable" in done.stderr
    assert "Traceback" not in done.stderr
    assert [c.images_seen for c in find_checkpoints(small_disk / "run" / "checkpoints")] == [0]
    find_checkpoints(small_disk / "run" / "checkpoints")[0].verify()
