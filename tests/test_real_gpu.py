"""What is only pretended elsewhere, on a GPU that is there."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from launcher.doctor import memory
from launcher.doctor.gpu_rank import count_peers
from trainer.config.config import Config
from trainer.config.recipes import recipe_config
from trainer.distributed.cpu_affinity import SYSFS, local_cpus
from trainer.distributed.gpu_places import own_place
from trainer.distributed.numerical_environment import numerical_environment
from trainer.launch.out_of_memory import is_out_of_memory, out_of_memory_message
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
