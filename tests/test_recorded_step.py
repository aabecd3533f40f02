"""Steps that are recorded and replayed have the bits of those that are taken as they are; on a CPU, by a stand-in."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.amp.grad_scaler import GradScaler

from bench.gpu_ranks import PretendedRanks
from tests.made_batches import made_batches
from tests.recorded_operations import RecordedOperations
from tests.zoo_cases import CASES, small
from trainer.augment import pipeline
from trainer.config.config import Config
from trainer.config.recipes import recipe_config
from trainer.core import recording
from trainer.core.fields import Refused
from trainer.distributed import overlap
from trainer.distributed.flat_buffer import FlatLayout
from trainer.distributed.reduction import ExactReduction
from trainer.distributed.world import World
from trainer.gan import network_update, optimizers, recorded_step
from trainer.gan.assembly import assemble_step, create_state, set_up_device, uses_graphs, with_graphs
from trainer.gan.fingerprint import fingerprint
from trainer.gan.recorded_step import CudaGraphs, RecordedStep
from trainer.gan.state import TrainState
from trainer.gan.step import GanStep
from trainer.networks.spectral_norm import SpectralNorm

pytestmark = pytest.mark.usefixtures("few_layers")

STEPS = 6
STOP_AT = 4
FP16_SCALE = 2.0**10
Rows = list[dict[str, str]]


def sized(config: Config, micro_batches: int = 2) -> Config:
    """Return settings of narrow networks with so many micro-batches of four pictures."""
    network = replace(config.network, g_channels=8, d_channels=8, max_channels=16)
    return replace(config, network=network, micro_batch_size=4, batch_size=4 * micro_batches, top_k_images=30)


def recipe(name: str, micro_batches: int = 2) -> Config:
    return sized(small(recipe_config(name)), micro_batches)


def autocast(config: Config) -> AbstractContextManager[None]:
    return torch.autocast("cpu", torch.bfloat16) if config.mixed_precision == "bf16" else nullcontext()


def assemble(config: Config, world: World, between: bool) -> tuple[TrainState, GanStep]:
    def reduce(layout: FlatLayout) -> ExactReduction:
        return ExactReduction(layout, layout.network, config.micro_batches, world, overlap=not between)

    state = create_state(config, "data", torch.device("cpu"))
    fp16 = config.mixed_precision == "fp16"
    state.g_scaler, state.d_scaler = (GradScaler("cpu", FP16_SCALE, growth_interval=2, enabled=fp16) for _ in range(2))
    return state, assemble_step(config, state, reduce, lambda: autocast(config))


def take_steps(step: Any, config: Config, world: World) -> Rows:
    """Take steps, in the first update of each of which so many samples were replaced, and return their scalars."""
    rows: Rows = []
    for k in range(STEPS):
        starts = range(k * config.step_images, (k + 1) * config.step_images, config.batch_size)
        whole = [made_batches(config, images_seen=start) for start in starts]
        updates = [[batches[j] for j in world.share(config.micro_batches)] for batches in whole]
        if world.rank == 0:
            updates[0][0] = replace(updates[0][0], replaced=k)
        scalars: Mapping[str, Tensor] = step(updates, lambda: k == STOP_AT)  # noqa: B023  # called at once
        rows.append({name: float(value).hex() for name, value in scalars.items()})
    return rows


def train(config: Config, world: World | None = None) -> tuple[str, Rows]:
    """Return the fingerprint of the state and the scalars of each step."""
    torch.set_num_threads(1)
    state, step = assemble(config, world or World(), between=False)
    rows = take_steps(step, config, world or World())
    return fingerprint(state.tensors(), scaler_states(state)), rows


def train_recorded(config: Config, world: World | None = None) -> tuple[str, Rows, RecordedOperations]:
    """Return the same of steps that are recorded, and where they were."""
    torch.set_num_threads(1)
    state, step = assemble(config, world or World(), between=True)
    scales = [s for scaler in (state.g_scaler, state.d_scaler) for s in scaler_tensors(scaler)]
    graphs = RecordedOperations([*state.tensors().values(), *scales])
    rows = take_steps(RecordedStep(step, graphs, required=True), config, world or World())
    return fingerprint(state.tensors(), scaler_states(state)), rows, graphs


def scaler_tensors(scaler: GradScaler) -> list[Tensor]:
    """Return the tensors of a scaler that is on, which it makes when it is first used."""
    scaler.scale(torch.zeros(()))
    return [scaler._scale, scaler._growth_tracker] if scaler.is_enabled() else []  # type: ignore[list-item]


def scaler_states(state: TrainState) -> dict[str, Any]:
    return {"g": state.g_scaler.state_dict(), "d": state.d_scaler.state_dict()}


@pytest.mark.parametrize("name", CASES)
def test_recorded_steps_have_the_same_bits(name: str) -> None:
    config = sized(CASES[name])
    *bits, graphs = train_recorded(config)
    assert [*train(config)] == bits
    assert graphs.replays >= STEPS - 2 * graphs.captured, "most steps must be replays"


SCHEDULED: dict[str, Config] = {
    "rates": replace(
        recipe("dcgan-32"),
        optimizer=replace(Config().optimizer, warmup_images=20, decay_images=40, lr_final=0.25),
    ),
    "beta2": recipe("r3gan-32"),
    "top-k": replace(recipe("dcgan-32"), top_k=0.25),
    "an adaptive p": replace(recipe("dcgan-32"), augment=recipe("stylegan2-ada-64").augment),
    "one micro-batch": recipe("dcgan-32", 1),
    "one micro-batch, betas": recipe("r3gan-32", 1),
    "bf16": replace(recipe("stylegan2-64", 1), mixed_precision="bf16"),
    "fp16's scaler": replace(recipe("dcgan-32"), mixed_precision="fp16"),
    "several updates of D": replace(recipe("wgan-gp-32"), d_steps=3),
}


@pytest.mark.parametrize("name", SCHEDULED)
def test_what_moves_from_step_to_step_moves_in_a_replay(name: str) -> None:
    config = SCHEDULED[name]
    *bits, graphs = train_recorded(config)
    expected = train(config)
    assert [*expected] == bits
    assert graphs.replays
    assert len({row["stop"] for row in expected[1]}) == 2
    assert len({row["replaced"] for row in expected[1]}) == STEPS


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("name", ["dcgan-32", "r3gan-32"])
def test_ranks_exchange_between_graphs(name: str, size: int) -> None:
    config = recipe(name, 4)
    alone = train(config)
    found: list[tuple[str, Rows, RecordedOperations]] = []

    def rank(world: World) -> str:
        found.append(train_recorded(config, world))
        return ""

    PretendedRanks(size).run(rank)
    assert [(bits, rows) for bits, rows, _ in found] == [alone] * size
    # Before the first exchange, between the two, and after the second; R3GAN's Adam adds two.
    assert {graphs.captured for *_, graphs in found} == {3 if name == "dcgan-32" else 5}


def plain(compute: Callable[[int], float], images_seen: int, dtype: torch.dtype = torch.float32) -> float:
    return compute(images_seen)


def kept_sigma(self: RecordedStep) -> None:
    return


MISTAKES = {
    "the rate stays a plain number": (optimizers, "number", plain, "rates"),
    "a penalty's factor stays a plain number": (network_update, "number", plain, "beta2"),
    "p stays a plain number": (pipeline, "number", plain, "beta2"),
    "Adam is inside": (network_update, "between_graphs", lambda act, images_seen: act(images_seen), "beta2"),
    "a p that moves is no kind": (recorded_step, "kind_of", lambda step, updates: 0, "an adaptive p"),
    "k is no kind": (recorded_step, "kind_of", lambda step, updates: 0, "top-k"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_planted_mistake_is_seen(mistake: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, name, wrong, case = MISTAKES[mistake]
    expected = train(SCHEDULED[case])
    monkeypatch.setattr(module, name, wrong)
    *bits, _ = train_recorded(SCHEDULED[case])
    assert [*expected] != bits


def test_a_sigma_that_is_kept_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    config = recipe("sngan-32")
    expected = train(config)
    monkeypatch.setattr(RecordedStep, "forget_sigmas", kept_sigma)
    *bits, _ = train_recorded(config)
    assert [*expected] != bits


def test_no_stale_sigma_is_left_to_others() -> None:
    state, step = assemble(recipe("sngan-32"), World(), between=True)
    take_steps(RecordedStep(step, RecordedOperations([*state.tensors().values()]), True), recipe("sngan-32"), World())
    norms = [m for n in (state.generator, state.discriminator) for m in n.modules() if isinstance(m, SpectralNorm)]
    assert norms
    assert not any(norm.known for norm in norms)


def test_what_cannot_be_recorded_is_trained_as_it_is(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    config = recipe("sngan-32")
    expected = train(config)
    update_scalars = network_update.NetworkUpdate.update_scalars

    def fail(self: Any, *args: Any) -> Any:
        if self.name == "g" and recording._RECORDER.get():
            raise RuntimeError("operation not permitted when stream is capturing\nmore")
        return update_scalars(self, *args)

    monkeypatch.setattr(network_update.NetworkUpdate, "update_scalars", fail)
    with pytest.raises(RuntimeError, match="not permitted"):
        train_recorded(config)
    state, step = assemble(config, World(), between=True)
    graphs = RecordedOperations([*state.tensors().values()])
    with caplog.at_level(logging.WARNING):
        rows = take_steps(RecordedStep(step, graphs, required=False), config, World())
    assert (fingerprint(state.tensors(), scaler_states(state)), rows) == expected
    assert graphs.replays == 0
    (told,) = caplog.messages
    assert "no CUDA graphs" in told
    assert told.endswith("not permitted when stream is capturing")


def test_few_recordings_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorded_step, "MOST_KINDS", 1)
    *bits, graphs = train_recorded(recipe("stylegan2-64"))
    assert [*train(recipe("stylegan2-64"))] == bits
    assert graphs.replays == 0  # its kinds take turns


CUDA = torch.device("cuda", 0)


@pytest.mark.parametrize(
    ("changes", "world", "device", "used"),
    [
        ({}, World(), CUDA, True),
        ({}, World(), torch.device("cpu"), False),
        ({"cuda_graphs": "off"}, World(), CUDA, False),
        ({}, World(0, 2), CUDA, False),
        ({"cuda_graphs": "on"}, World(0, 2), CUDA, True),
        ({"compile": True}, World(), CUDA, False),
        ({"reduction": "ddp"}, World(), CUDA, False),
        ({"mixed_precision": "fp16"}, World(), CUDA, True),
        ({"mixed_precision": "fp16", "optimizer": SCHEDULED["beta2"].optimizer}, World(), CUDA, False),
    ],
)
def test_who_uses_graphs(changes: dict[str, Any], world: World, device: torch.device, used: bool) -> None:
    assert uses_graphs(replace(Config(), **changes), world, device) == used


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"reduction": "ddp"}, "reduction ddp"),
        ({"compile": True}, "compile"),
        ({"mixed_precision": "fp16", "optimizer": SCHEDULED["beta2"].optimizer}, "optimizer.beta2_final"),
    ],
)
def test_what_no_graph_can_hold_is_refused_by_name(changes: dict[str, Any], named: str) -> None:
    replace(Config(), **changes).check()
    with pytest.raises(Refused, match=rf"cuda_graphs on does not go with .*{named}"):
        replace(Config(), cuda_graphs="on", **changes).check()


def test_without_a_gpu_steps_are_taken_as_they_are() -> None:
    config = recipe("dcgan-32")
    _, step = assemble(config, World(), between=False)
    assert with_graphs(step, config, World(), torch.device("cpu")) is step
    with pytest.raises(Refused, match="cuda_graphs on needs a GPU"):
        set_up_device(replace(config, cuda_graphs="on"), "here")


def test_an_exchange_between_graphs_starts_no_hook() -> None:
    """A hook would be called when the graph is captured, and never again."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(overlap, "exchange_levels", lambda world, micro_batches: [])
        layout = FlatLayout(torch.nn.Linear(2, 2), ("x",))
        ExactReduction(layout, layout.network, 2, World(0, 2), overlap=False)
        assert not any(p._post_accumulate_grad_hooks for p in layout.parameters)
        ExactReduction(layout, layout.network, 2, World(0, 2))
        assert all(p._post_accumulate_grad_hooks for p in layout.parameters)


class Queue:
    """A stand-in for a stream, which tells what waits for what."""

    def __init__(self, name: str, told: list[str]) -> None:
        self.name, self.told = name, told

    def wait_stream(self, other: Queue) -> None:
        self.told.append(f"{self.name} waits for {other.name}")


def test_a_gpu_is_asked_for_graphs_beside_other_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    current, beside = Queue("current", told), Queue("beside", told)

    @contextmanager
    def on(stream: Queue) -> Iterator[None]:
        told.append(f"on {stream.name}")
        yield
        told.append(f"off {stream.name}")

    @contextmanager
    def graph(graph: Any, pool: str, stream: Queue, capture_error_mode: str) -> Iterator[None]:
        told.append(f"capture on {stream.name} into {pool}, {capture_error_mode}")
        try:
            yield
        finally:
            warnings.warn("The CUDA Graph is empty. This usually means", UserWarning, stacklevel=2)
            told.append("captured")

    cuda = SimpleNamespace(
        Stream=lambda device: beside,
        current_stream=lambda device: current,
        graph_pool_handle=lambda: "the pool",
        CUDAGraph=lambda: SimpleNamespace(replay=lambda: told.append("replay")),
        stream=on,
        graph=graph,
    )
    monkeypatch.setattr(torch, "cuda", cuda)
    graphs = CudaGraphs(CUDA)
    assert graphs.run_beside(lambda: told.append("act")) is None
    assert told == ["beside waits for current", "on beside", "act", "off beside", "current waits for beside"]
    told.clear()
    with warnings.catch_warnings(action="error"):
        for _ in range(2):
            with graphs.capture() as replay:
                told.append("act")
            replay()
    one = ["on beside", "capture on beside into the pool, thread_local", "act", "captured", "off beside", "replay"]
    assert told == one * 2
