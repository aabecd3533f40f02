"""The exchange between ranks: regions sent during the backward pass, one level or two, and always the same bits."""

from __future__ import annotations

import hashlib
import multiprocessing as mp
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from multiprocessing.queues import SimpleQueue
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import TCPStore  # type: ignore[attr-defined]  # re-exported without a word
from torch.testing._internal.distributed.fake_pg import FakeStore

from tests.planted import MISTAKES
from tests.ranks import start_ranks
from tests.zoo_cases import CASES, fit, small
from trainer.config.config import Config
from trainer.core.randomness import philox
from trainer.distributed import exchange
from trainer.distributed.exchange import RegionMean, exchange_groups, exchange_levels
from trainer.distributed.flat_buffer import FlatLayout
from trainer.distributed.reduction import ExactReduction
from trainer.distributed.regions import WHOLE, GradientRegions
from trainer.distributed.world import World
from trainer.gan.assembly import create_state, regions_of
from trainer.gan.fingerprint import fingerprint
from trainer.networks import GENERATORS
from trainer.runs.checkpoint import newest_whole
from trainer.runs.config_loading import write_config
from trainer.runs.config_resolution import resolve_config
from trainer.runs.run_folder import RunFolder


def deep_network() -> nn.Sequential:
    """Return layers of odd sizes, one of which is never used."""
    torch.manual_seed(0)
    layers = [layer for k in range(5) for layer in (nn.Linear(7 + k, 8 + k), nn.Tanh())]
    return nn.Sequential(*layers, nn.Linear(12, 1))


def train_in_process(
    rank: int, size: int, nodes: int, micro_batches: int, mistake: str | None, port: int, queue: SimpleQueue[str]
) -> None:
    """Take five steps of gradient descent with a region for every few weights, and hash weights and means."""
    torch.set_num_threads(1)
    each = size // nodes
    os.environ |= {"LOCAL_RANK": str(rank % each), "LOCAL_WORLD_SIZE": str(each)}
    MISTAKES.get(mistake or "", lambda: None)()
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=size)
    world, network = World(rank, size), deep_network()
    reduction = ExactReduction(FlatLayout(network, ("loss",)), network, micro_batches, world, region_numel=50)
    digest = hashlib.sha256()
    for step in range(5):
        for j in world.share(micro_batches):
            with reduction.micro_batch(j) as buffer:
                x = torch.randn(3, 7, generator=torch.Generator().manual_seed(100 * step + j))
                loss = network(x).square().mean()
                loss.backward()
                buffer.record(loss=loss)
        mean = reduction.mean()
        digest.update(mean.flat[: reduction.layout.numel].numpy().tobytes())
        with torch.no_grad():
            for p in network.parameters():
                assert p.grad is not None
                p.sub_(p.grad)
    queue.put(digest.hexdigest())
    dist.barrier()
    dist.destroy_process_group()


def trained_by(size: int, nodes: int, micro_batches: int, mistake: str | None = None) -> set[str]:
    """Return the hashes of the ranks."""
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # only for a port that is free
    port, context = store.port, mp.get_context("fork")
    del store
    queue: SimpleQueue[str] = context.SimpleQueue()
    args = [(rank, size, nodes, micro_batches, mistake, port, queue) for rank in range(size)]
    processes = [context.Process(target=train_in_process, args=one) for one in args]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    return {queue.get() for _ in range(size)}


WORLDS = [(2, 1), (3, 1), (4, 1), (4, 2), (4, 4), (6, 2), (6, 3), (8, 2)]


@pytest.mark.parametrize("micro_batches", [8, 11])
def test_the_same_bits_in_one_level_and_in_two(micro_batches: int) -> None:
    """With 11, the share of no node is one whole subtree: two sums or three go between the nodes."""
    alone = trained_by(1, 1, micro_batches)
    assert len(alone) == 1
    for size, nodes in WORLDS:
        assert trained_by(size, nodes, micro_batches) == alone, (size, nodes)


@pytest.mark.parametrize("mistake", ["order_between_ranks", "region_early", "lost_summand"])
def test_a_planted_mistake_is_seen(mistake: str) -> None:
    assert trained_by(4, 2, 11, mistake) != trained_by(1, 1, 11)


def places_on_nodes(size: int, each: int) -> Callable[..., list[tuple[int, int]]]:
    """Return what the ranks would say of their places."""
    return lambda *_: [(rank % each, each) for rank in range(size)]


@pytest.fixture
def pretended_ranks(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int, int], World]]:
    """Join a group of ranks that are not there, on nodes of so many."""

    def join(size: int, each: int) -> World:
        monkeypatch.setattr(exchange, "gather_values", places_on_nodes(size, each))
        dist.init_process_group("fake", store=FakeStore(), rank=5, world_size=size)
        return World(5, size)

    exchange_groups.cache_clear()
    yield join
    exchange_groups.cache_clear()
    dist.destroy_process_group()


@pytest.mark.parametrize(("each", "crossing"), [(8, 2 * 3 / 4 / 8), (1, 2 * 31 / 32)])
def test_what_crosses_the_network_at_32_ranks(
    each: int, crossing: float, pretended_ranks: Callable[[int, int], World], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four nodes of eight: a rank sends an eighth of the buffer to the others, and four collectives do it all."""
    world, numel, calls, sent = pretended_ranks(32, each), 32 * 1000, [], 0.0

    def all_to_all(out: Tensor, inp: Tensor, out_sizes: list[int], in_sizes: list[int], group: object) -> None:
        calls.append("all-to-all")
        count_bytes(inp.numel() / len(in_sizes), len(in_sizes))

    def all_gather(whole: Tensor, piece: Tensor, group: object) -> None:
        calls.append("all-gather")
        count_bytes(piece.numel(), whole.numel() // piece.numel())

    def count_bytes(piece: float, ranks: int) -> None:
        nonlocal sent
        if ranks != each or each == 1:  # else inside a node
            sent += piece * (ranks - 1)

    monkeypatch.setattr(dist, "all_to_all_single", all_to_all)
    monkeypatch.setattr(dist, "all_gather_single", all_gather)
    levels = exchange_levels(world, 32)
    buffer = torch.zeros(numel)
    RegionMean(levels, slice(0, numel), buffer)([buffer], buffer, 32)
    assert calls == ["all-to-all", "all-gather"] if each == 1 else ["all-to-all"] * 2 + ["all-gather"] * 2
    assert sent == crossing * numel


def test_nodes_that_differ_are_one_level(monkeypatch: pytest.MonkeyPatch) -> None:
    for places in ([(0, 2), (1, 2), (0, 1)], [(0, 2), (0, 2), (1, 2), (1, 2)]):
        monkeypatch.setattr(exchange, "gather_values", lambda *_, p=places: p)
        exchange_groups.cache_clear()
        (group,) = exchange_groups(World(0, len(places)))
        assert (group.process_group, group.ranks) == (None, range(len(places)))
    exchange_groups.cache_clear()


def test_regions_leave_during_the_backward_pass_in_order() -> None:
    """All but the last, which has scalars and statistics; a weight without a gradient holds back what follows."""
    network = deep_network()
    layout = FlatLayout(network, ("loss",))
    regions, sent, moments = GradientRegions(layout, 1, 100), [], []
    assert len(regions.regions) > 4
    assert regions.regions[0].stop == layout.numel
    assert regions.regions[-1].start == 0
    assert all(later.stop == earlier.start for earlier, later in pairwise(regions.regions))

    def send(k: int) -> None:
        sent.append(k)
        moments.append(inside)

    for used in (network, network[2:]):
        sent.clear()
        moments.clear()
        with regions.send_when_ready(send):
            inside = True
            x = torch.randn(3, 7 + (used is not network))
            used(x).sum().backward(inputs=list(used.parameters()))
            inside = False
        assert sent == [*range(len(regions.regions))]
        early = sum(moments)
        assert early == len(regions.regions) - 1 if used is network else 0 < early < len(regions.regions) - 1


def test_a_pass_that_fails_sends_nothing_more() -> None:
    regions, sent = GradientRegions(FlatLayout(deep_network(), ("loss",)), 1, 100), list[int]()
    with pytest.raises(KeyError), regions.send_when_ready(sent.append):
        raise KeyError
    assert not sent
    assert regions.complete is None


@pytest.mark.parametrize("case", ["recipe dcgan-32", "recipe stylegan2-ada-64", "recipe sngan-32"])
def test_runs_on_pretended_nodes(case: str, shards32: Path, tmp_path: Path) -> None:
    """A run that goes from three nodes of two to two of two; of one network two nodes of two and of three as well."""
    plans = {"1": [(1, 1)], "3 x 2, then 2 x 2": [(6, 3), (4, 2)]}
    if case == "recipe dcgan-32":
        plans |= {"2 x 2": [(4, 2)], "2 x 3": [(6, 2)]}
    found = {}
    for name, plan in plans.items():
        run, config = prepared(CASES[case], tmp_path / name.replace(" ", "-"), shards32)
        for k, (size, nodes) in enumerate(plan, 1):
            total = str(4 * config.step_images * k // len(plan))
            ranks = start_ranks(run, size, "--total-images", total, mistake="small_regions", nodes=nodes)
            assert ranks.wait() == [0] * size, Path(f"{run.path}.log").read_text()
        newest = newest_whole(run.checkpoints, lambda checkpoint, problem: None)
        assert newest
        found[name] = fingerprint(*newest.read())
    assert len(set(found.values())) == 1, found


def prepared(config: Config, folder: Path, data: Path) -> tuple[RunFolder, Config]:
    """Write the settings of a run of six micro-batches."""
    run = RunFolder(folder)
    config = replace(
        config,
        data=data,
        micro_batch_size=4,
        batch_size=24,
        sample_every_images=0,
        tracking=replace(config.tracking, mode="disabled"),
    )
    write_config(run, resolve_config(run, config).config)
    return run, config


@pytest.mark.parametrize("name", [name for name in GENERATORS if name not in ("mlp", "disconnected")])  # of points
def test_a_network_says_whether_its_gradients_come_last(name: str) -> None:
    """If they do its buffer is one region; else regions leave while the backward pass runs."""
    config = fit(small(replace(Config(), generator=name)))
    generator = create_state(config, "data", torch.device("cpu")).generator
    named = dict(generator.named_parameters())
    # Where the way of the feature maps begins: a backward pass comes by there when it has seen all convolutions.
    first = next(name for name, p in named.items() if p.ndim > 1)
    start = named[next(name for name in ("constant", "input.weight", first) if name in named)]
    side = 0 if name == "stylegan3-r" else 1  # whose convolutions are of single places
    weights = [p for n, p in named.items() if p.ndim == 4 and p.shape[-1] > side and p is not start and "rgb" not in n]
    arrived: list[bool] = []
    for parameter in [*weights, start]:
        parameter.register_post_accumulate_grad_hook(lambda p: arrived.append(p is start))
    latent = generator.draw(config.network, philox("late"), torch.zeros(8, dtype=torch.int64))
    generator(latent).sum().backward()
    early = arrived.index(True) / len(weights)
    assert early == 0 if generator.gradients_last else early == 1
    assert regions_of(generator) == (WHOLE if generator.gradients_last else None)
