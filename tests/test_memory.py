"""The largest micro-batch that fits into a GPU: the search, on stand-ins; a trial, on the CPU; and what is said."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch

from launcher.__main__ import main
from launcher.doctor import memory
from launcher.doctor.memory import Fits, find_largest, judge_memory, largest_divisor, smallest_size
from trainer.config.config import Config
from trainer.config.recipes import recipe_config
from trainer.gan.step import GanStep, Scalars
from trainer.losses.batch import Batch


class Device:
    """A GPU with room for some pictures, that counts how often it is tried."""

    def __init__(self, room: int) -> None:
        self.room, self.tried = room, list[int]()

    def __call__(self, size: int) -> int:
        self.tried.append(size)
        if size > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return size * 1000


@pytest.mark.parametrize("room", [0, 1, 2, 3, 31, 32, 33, 47, 95, 4095, 4096, 10_000])
@pytest.mark.parametrize("unit", [1, 2, 4, 3])
def test_the_largest_is_found(room: int, unit: int) -> None:
    device = Device(room)
    found = find_largest(device, unit)
    assert max(found, default=0) == min(room, memory.MOST) // unit * unit
    assert all(size % unit == 0 and used == size * 1000 for size, used in found.items())
    assert len(device.tried) <= 25, "doubling, then bisection"
    assert len({*device.tried}) == len(device.tried), "nothing is tried twice"


def test_other_errors_are_not_taken_for_a_lack_of_memory() -> None:
    def broken(size: int) -> int:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    with pytest.raises(RuntimeError, match="illegal"):
        find_largest(broken, 1)


@pytest.mark.parametrize("recipe", ["dcgan-32", "stylegan2-ada-256"])
def test_each_recipe_has_a_smallest_size(recipe: str) -> None:
    config = recipe_config(recipe)
    size = smallest_size(config)
    memory.sized(config, size).check()
    assert 1 <= size <= config.micro_batch_size


@pytest.mark.parametrize("recipe", ["dcgan-32", "sngan-64"])
def test_a_trial_trains_every_kind_of_step(recipe: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = memory.settle(recipe_config(recipe))
    network = replace(config.network, g_channels=8, d_channels=8)
    steps: list[tuple[int, int]] = []
    update = GanStep.__call__

    def counting(step: GanStep, updates: Sequence[Sequence[Batch]], stop: Callable[[], bool]) -> Scalars:
        steps.append((len(updates), len(updates[0])))
        return update(step, updates, stop)

    monkeypatch.setattr(GanStep, "__call__", counting)
    assert memory.try_on(torch.device("cpu"), replace(config, network=network), 4) == 0
    assert {share for _, share in steps} == {1, 2}
    assert {updates for updates, _ in steps} == {config.d_steps}
    assert len(steps) >= 4, "one step makes the optimizers' states, another one has them"


GB = 10**9


@pytest.mark.parametrize(
    ("bytes_of", "state", "measured", "todo"),
    [
        ({32: 20 * GB, 96: 76 * GB}, "ok", "up to 96 fit; of 32 they fill 25% (20.0 GB of 80.0 GB), of 96 95%", ""),
        ({32: 75 * GB, 33: 79 * GB}, "warning", "of 32 they fill 94%", "set --micro-batch-size 16"),
        ({24: 79 * GB}, "problem", "H100: micro-batches of up to 24 fit, of 32 do not", "set --micro-batch-size 16"),
        ({}, "problem", "not one picture at a time fits", "--mixed-precision bf16"),
    ],
)
def test_what_is_said(bytes_of: dict[int, int], state: str, measured: str, todo: str) -> None:
    config = Config(batch_size=128, micro_batch_size=32)
    found = judge_memory(config, Fits(bytes_of, 80 * GB, "H100"))
    assert found.state == state
    assert measured in found.measured
    assert todo in found.todo
    assert largest_divisor(96, 40) == 32


def test_without_a_gpu_it_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--recipe", "dcgan-32", "--network.g-channels", "8"]) == 2
    assert "there is no GPU here to try --recipe on; on Slurm: srun --gpus=1" in capsys.readouterr().err
    assert main(["doctor", "--batch-size", "64"]) == 2
    assert "say something with --recipe only" in capsys.readouterr().err


def test_the_command_tells_what_it_finds(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    asked: list[Config] = []

    def find(config: Config) -> Fits:
        asked.append(config)
        return Fits({config.micro_batch_size: 20 * GB, 96: 76 * GB}, 80 * GB, "NVIDIA H100")

    monkeypatch.setattr(memory, "find_on_first_gpu", find)
    assert main(["doctor", "--recipe", "dcgan-32", "--network.g-channels", "8", "--micro-batch-size", "16"]) == 0
    said = capsys.readouterr().out
    assert "NVIDIA H100: micro-batches of up to 96 fit; of 16 they fill 25%" in said
    assert "1 GPU: 64 = 4 × 16 fits, fills 25% (20.0 GB of 80.0 GB); 8 GPUs: 64 = 8 × 8 fits; 32 GPUs: 512" in said
    assert (asked[0].network.g_channels, asked[0].recipe) == (8, "dcgan-32")
