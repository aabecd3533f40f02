"""The mean over micro-batches has the same bits for any number of processes, and is the mean."""

from __future__ import annotations

import hashlib
import multiprocessing as mp
import socket
from multiprocessing.queues import SimpleQueue

import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from trainer.distributed.flat_buffer import FlatLayout
from trainer.distributed.reduction import ExactReduction
from trainer.distributed.summation_tree import largest_subtrees, split_node, tree_sum
from trainer.distributed.world import World


def leaves(node: tuple[int, int]) -> list[int]:
    return list(range(*node))


@given(count=st.integers(1, 100), size=st.integers(1, 100))
def test_shares_are_contiguous_complete_and_even(count: int, size: int) -> None:
    shares = [World(rank, size).share(count) for rank in range(size)]
    assert [j for share in shares for j in share] == list(range(count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@given(count=st.integers(1, 64), size=st.integers(1, 64))
def test_the_ranks_subtrees_tile_the_tree(count: int, size: int) -> None:
    owned = [node for rank in range(size) for node in largest_subtrees((0, count), World(rank, size).share(count))]
    assert [j for node in owned for j in leaves(node)] == list(range(count))
    exact = {node: torch.tensor([float(sum(leaves(node)))]) for node in owned}
    assert tree_sum((0, count), exact).item() == sum(range(count))


@given(st.integers(2, 1000))
def test_the_left_child_is_the_larger_power_of_two(count: int) -> None:
    (first, middle), (again, last) = split_node((0, count))
    assert (first, again, last) == (0, middle, count)
    assert middle.bit_count() == 1
    assert middle >= count - middle


MICRO_BATCHES = 8


def reduce_in_process(rank: int, size: int, port: int, queue: SimpleQueue[tuple[int, str]]) -> None:
    """One process: gradients of a network with odd sizes, statistics and a scalar, reduced twice."""
    torch.set_num_threads(1)
    world = World(rank, size)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=size)
    first = nn.Linear(7, 5)
    network = nn.Sequential(first, nn.Linear(5, 3, bias=False))
    reduction = ExactReduction(FlatLayout(network, ("loss",)), network, MICRO_BATCHES, world)
    digest, numel = hashlib.sha256(), reduction.layout.numel
    for update in range(2):
        for j in world.share(MICRO_BATCHES):
            with reduction.micro_batch(j) as packet:
                packet.flat[:numel] = values(update, j, numel)
                packet.record(loss=float(j))
        mean = reduction.mean()
        expected = torch.stack([values(update, j, numel) for j in range(MICRO_BATCHES)]).mean(0)
        torch.testing.assert_close(mean.flat[1:numel], expected[1:])
        assert mean.named_scalars()["loss"].item() == sum(range(MICRO_BATCHES)) / MICRO_BATCHES
        assert first.weight.grad is not None
        assert first.weight.grad.data_ptr() == mean.flat[1:].data_ptr()
        digest.update(mean.flat[:numel].numpy().tobytes())
    queue.put((rank, digest.hexdigest()))
    dist.barrier()
    dist.destroy_process_group()


def values(update: int, j: int, numel: int) -> torch.Tensor:
    """Numbers of many magnitudes, whose sum depends on the order of additions."""
    generator = torch.Generator().manual_seed(100 * update + j)
    return torch.randn(numel, generator=generator) * 10.0 ** torch.randint(-4, 5, (numel,), generator=generator)


def reduced_by(size: int) -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = mp.get_context("fork")
    queue: SimpleQueue[tuple[int, str]] = context.SimpleQueue()
    processes = [context.Process(target=reduce_in_process, args=(r, size, port, queue)) for r in range(size)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    digests = {queue.get()[1] for _ in range(size)}
    assert len(digests) == 1, "the ranks disagree"
    return digests.pop()


@pytest.fixture(scope="module")
def alone() -> str:
    return reduced_by(1)


@pytest.mark.parametrize("size", [2, 3, 4, 5, 7, 8])
def test_any_number_of_processes_gives_the_same_bits(size: int, alone: str) -> None:
    assert reduced_by(size) == alone


def test_the_order_of_additions_matters_here() -> None:
    """Else the tests above could not fail: a sum from left to right has other bits than the tree's."""
    parts = [values(0, j, 50) for j in range(MICRO_BATCHES)]
    straight = torch.stack(parts)[0].clone()
    for part in parts[1:]:
        straight += part
    tree = tree_sum((0, MICRO_BATCHES), {(j, j + 1): parts[j].clone() for j in range(MICRO_BATCHES)})
    assert not torch.equal(straight, tree)
