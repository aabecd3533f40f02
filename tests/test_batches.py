"""From shards to batches: prepared by any number of threads, and brought to the device in one copy."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from shards.dataset.index import Index
from shards.dataset.stream import Reader
from tests.zoo_cases import CASES
from trainer.config.config import Config
from trainer.core.randomness import Draws
from trainer.distributed.world import World
from trainer.gan import batches
from trainer.gan.batches import BatchLoader, workers_of
from trainer.gan.staging import PinnedStaging
from trainer.losses.batch import Batch

CPU = torch.device("cpu")


@dataclass
class CopyEvent:
    """What a GPU's event would be: done when it is told so."""

    done: bool = True

    def query(self) -> bool:
        return self.done


@dataclass
class PackedStaging(PinnedStaging):
    """The staging of a GPU without one: its buffers are plain memory."""

    allocated: int = 0
    events: list[CopyEvent] = field(default_factory=list)
    slow: bool = False

    def allocate(self, numel: int) -> Tensor:
        self.allocated += 1
        return torch.empty(numel, dtype=torch.uint8)

    def copied(self) -> Any:
        self.events.append(CopyEvent(not self.slow))
        return self.events[-1]


class CountCopies(TorchDispatchMode):
    """Counts the copies to another device."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch
        self.copies = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        device = (kwargs or {}).get("device")
        self.copies += func is torch.ops.aten._to_copy.default and device is not None and device != args[0].device
        return func(*args, **(kwargs or {}))


def loader_of(config: Config, data: Path) -> BatchLoader:
    reader = Reader(Index.open(data), "train", lambda sample, problem: None)
    return BatchLoader(config, World(), CPU, reader, Path("unused"))


def steps(loader: BatchLoader, count: int) -> list[list[list[Batch]]]:
    made = loader.steps(loader.config, 0, Draws(3, 0))
    return [next(made) for _ in range(count)]


def tensors(batch: Batch) -> list[Tensor]:
    return [batch.real, *batch.latent.tensors(), *(t for parts in batch.draws.values() for t in parts.values())]


CASE = CASES["recipe stylegan2-ada-64"]


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_packed_or_not_and_by_any_number_of_threads_they_are_the_same(workers: int, shards32: Path) -> None:
    plain = loader_of(replace(CASE, workers=0, flip=True), shards32)
    packed = loader_of(replace(CASE, workers=workers, flip=True), shards32)
    packed.staging = PackedStaging(CPU)
    for one, other in zip(steps(plain, 3), steps(packed, 3), strict=True):
        for a, b in zip(one[0], other[0], strict=True):
            assert (a.micro_batch, a.images_seen, a.replaced) == (b.micro_batch, b.images_seen, b.replaced)
            assert len(tensors(a)) == len(tensors(b)) > 10
            for x, y in zip(tensors(a), tensors(b), strict=True):
                assert x.dtype == y.dtype
                assert torch.equal(x, y)


def test_one_copy_a_micro_batch(shards32: Path) -> None:
    """As many as it has tensors before: more than twenty for StyleGAN2-ADA."""
    loader = loader_of(replace(CASE, workers=0), shards32)
    loader.staging = PackedStaging(torch.device("meta"))
    prepared = loader.prepare(batches.RandomInputs(loader.config), Draws(3, 0), next(loader.plan(0)))
    with CountCopies() as count:
        batch = loader.bring(prepared)
    assert count.copies == 1
    assert all(tensor.is_meta for tensor in tensors(batch))


def test_a_buffer_is_used_again_when_its_copy_is_done() -> None:
    staging, data = PackedStaging(CPU), [torch.arange(5), torch.rand(3, 2)]
    for _ in range(4):
        staging.bring(staging.stage(data))
    assert staging.allocated == 1
    staging.slow = True
    staging.bring(staging.stage(data))
    staging.bring(staging.stage(data))
    assert staging.allocated == 2, "the device still reads from the first one"
    for event in staging.events:
        event.done = True
    staging.bring(staging.stage(data))
    assert staging.allocated == 2
    staging.bring(staging.stage([torch.zeros(10_000)]))
    assert staging.allocated == 3, "none is as large"


ALL = set(range(96))


@pytest.mark.parametrize(
    ("beside", "workers"),
    [
        ([("here", ALL)] * 8, 11),
        ([("here", set(range(12 * k, 12 * k + 12))) for k in range(8)], 11),
        ([("here", {0, 1}), ("here", {0, 1})], 0),
        ([("here", {0, 1}), ("there", {0, 1})], 1),
        ([("here", {0})], 0),
        ([("here", ALL)], 16),
    ],
)
def test_threads_follow_from_the_cores_of_a_rank(
    beside: list[tuple[str, set[int]]], workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shared with the ranks beside it, or its own because it is bound to them."""
    monkeypatch.setattr(platform, "node", lambda: "here")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: beside[0][1])
    monkeypatch.setattr(batches, "gather_values", lambda world, mine: beside)
    assert workers_of(CASE, World(0, len(beside))) == workers
    assert workers_of(replace(CASE, workers=5), World()) == 5
