"""What is only pretended elsewhere, on a GPU that is there: `make gpu` runs these."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bench import gpu_bits, gpu_graphs
from launcher.doctor import memory
from launcher.doctor.gpu_rank import count_peers
from tests.conftest import fingerprint, train
from trainer.config.config import Config
from trainer.config.recipes import recipe_config
from trainer.distributed.cpu_affinity import SYSFS, local_cpus
from trainer.distributed.gpu_places import own_place
from trainer.distributed.lane import lane_of
from trainer.distributed.numerical_environment import choose_kernels, numerical_environment
from trainer.distributed.world import World
from trainer.gan.recorded_step import CudaGraphs
from trainer.gan.staging import staging_for
from trainer.launch.out_of_memory import is_out_of_memory, out_of_memory_message
from trainer.runs.checkpoint_writer import Snapshot
from trainer.runs.run_folder import RunFolder

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="gpu: there is none"),
]


def test_it_has_an_address_that_the_machine_knows() -> None:
    mine = own_place({"RANK": "0", "LOCAL_RANK": "0"}, "here")
    assert re.fullmatch(r"[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.0", mine.bus)
    assert mine.uuid
    assert mine.name
    assert 0 <= count_peers(mine) < mine.gpus
    # A container may hide sysfs; where it is there, it must be understood.
    if (SYSFS / "bus/pci/devices" / mine.bus).is_dir():
        assert local_cpus(mine.bus, SYSFS)


def test_what_its_bits_depend_on_is_known() -> None:
    found = numerical_environment(torch.device("cuda", 0))
    assert all(found[name] for name in ("device", "cuda", "cudnn", "nccl"))


def test_its_allocator_is_understood() -> None:
    with pytest.raises(torch.OutOfMemoryError) as raised:
        torch.empty(10**15, device="cuda")
    assert is_out_of_memory(raised.value)
    told = out_of_memory_message(raised.value, Config(), RunFolder(Path("r")), "rank 0 on here")
    assert " were asked for, " in told
    assert " of the GPU's " in told


def test_larger_micro_batches_use_more_of_it() -> None:
    config = memory.settle(recipe_config("dcgan-32"))
    config = replace(config, network=replace(config.network, g_channels=8, d_channels=8))
    small, large = (memory.try_on(torch.device("cuda", 0), config, size) for size in (8, 256))
    assert 0 < small < large


def test_a_snapshot_is_whole_when_it_is_taken() -> None:
    """Copies come in the background, and what follows writes into the same tensors."""
    tensors = {f"{k}": torch.full((1 << 22,), float(k), device="cuda") for k in range(8)}
    snapshot = Snapshot()
    for change in range(3):
        snapshot.take(tensors)
        for tensor in tensors.values():
            tensor.add_(1)
        assert all((copy == float(name) + change).all() for name, copy in snapshot.arrived().items())


def test_batches_come_whole_though_buffers_are_used_again() -> None:
    staging, device = staging_for(torch.device("cuda", 0)), []
    sent = [[torch.randn(1000, generator=torch.Generator().manual_seed(k)), torch.arange(k, k + 7)] for k in range(20)]
    for tensors in sent:
        device.append(staging.bring(staging.stage(tensors)))
    for tensors, arrived in zip(sent, device, strict=True):
        assert all(
            there.is_cuda and torch.equal(here, there.cpu()) for here, there in zip(tensors, arrived, strict=True)
        )


def test_the_exchange_runs_after_what_it_reads_and_before_what_reads_it() -> None:
    lane, tensor = lane_of(torch.device("cuda", 0)), torch.zeros(1 << 24, device="cuda")

    def double() -> None:
        tensor.mul_(2)

    for _ in range(20):
        tensor.add_(1)
        lane.start(double)
        lane.wait()
    assert (tensor == 2**21 - 2).all()


def test_an_interrupted_run_goes_on_to_the_same_bits(shards32: Path, tmp_path: Path) -> None:
    """In other processes, and in fp16 with its loss scales."""
    settings = ("--mixed-precision", "fp16")
    train(tmp_path / "whole", shards32, "--total-images", "256", *settings)
    train(tmp_path / "parts", shards32, "--total-images", "128", *settings)
    train(tmp_path / "parts", shards32, "--total-images", "256", *settings)
    assert fingerprint(tmp_path / "parts") == fingerprint(tmp_path / "whole")


@pytest.mark.parametrize("recipe", ["wgan-gp-64", "r3gan-64", "stylegan2-ada-64"])
def test_what_was_computed_before_does_not_matter(recipe: str) -> None:
    """A second derivative's order of additions must not go by a count that a thread of autograd keeps."""
    choose_kernels(True)
    config = gpu_bits.configuration(gpu_bits.Bench(micro_batches=2), recipe, "no")
    device = torch.device("cuda", 0)
    updates = gpu_bits.make_updates(config, device, steps=2)
    assert len({gpu_bits.train(config, device, updates, World()) for _ in range(2)}) == 1


@pytest.mark.parametrize("recipe", ["dcgan-64", "r3gan-64", "stylegan2-ada-64"])
def test_steps_as_graphs_have_the_same_bits(recipe: str) -> None:
    choose_kernels(True)
    device = torch.device("cuda", 0)
    config = gpu_graphs.configuration(recipe, "no", 1, 4)
    plain, graphs = gpu_graphs.compare(config, device, lambda state: CudaGraphs(device))
    assert plain.bits == graphs.bits
