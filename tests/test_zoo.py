"""Every entry of every registry, in one process: shapes, gradients, golden losses, precision, state."""

from __future__ import annotations

import json
import os
from contextlib import nullcontext
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.made_batches import made_batches
from tests.zoo_cases import CASES, exchanged, parts
from trainer.config.config import Config
from trainer.config.recipes import RECIPES, recipe_config
from trainer.core.randomness import philox
from trainer.distributed.world import World
from trainer.gan.assembly import Autocast, assemble_step, create_state, reduce_exactly
from trainer.gan.fingerprint import fingerprint
from trainer.gan.optimizers import Adam
from trainer.gan.state import TrainState
from trainer.gan.step import GanStep
from trainer.losses.batch import Batch
from trainer.networks.spectral_norm import start_spectral_norm
from trainer.sampling.sampler import Sampler

pytestmark = pytest.mark.usefixtures("few_layers")

GOLDEN = Path(__file__).parent / "golden" / "zoo.json"
ROUNDED = "generator", "discriminator", "penalty"
STEP = 1e-10  # of the finite differences: small, since ReLU has a kink
CPU = torch.device("cpu")


def never() -> bool:
    return False


def make(config: Config, autocast: Autocast = nullcontext) -> tuple[TrainState, GanStep]:
    state = create_state(config, "data", CPU)
    return state, assemble_step(config, state, reduce_exactly(config, World()), autocast)


def double(batch: Batch) -> Batch:
    def wider(t: Tensor) -> Tensor:
        return t.double() if t.is_floating_point() else t

    return batch.map(wider)


class Exact:
    """A step in float64 that moves no weight: it tells losses and their gradients where the weights are.

    BatchNorm, spectral norm and running_scalars move; so each question is asked of a new one.
    """

    def __init__(self, config: Config, seed: int = 0) -> None:
        still = replace(config.optimizer, g_lr=0.0, d_lr=0.0)
        self.config = replace(config, optimizer=still, channels_last=False)
        self.state = create_state(self.config, "data", CPU)
        for network in (self.state.generator, self.state.discriminator):
            network.double()
            for k, parameter in enumerate(network.parameters()):  # off the kinks: first biases are 0, and so is ReLU's
                noise = torch.from_numpy(philox("off the kinks", k).normal(0, 0.02, tuple(parameter.shape)))
                parameter.data.add_(noise)
        for name in ("g", "d"):  # in float64: the power iterations of float32 differ between processors
            start_spectral_norm(self.network(name), 0, name)
        self.state.running_scalars = {name: value.double() for name, value in self.state.running_scalars.items()}
        self.state.g_optimizer = Adam(self.state.generator, 0.0, still)
        self.state.d_optimizer = Adam(self.state.discriminator, 0.0, still)
        self.step = assemble_step(self.config, self.state, reduce_exactly(self.config, World()), nullcontext)
        self.batches = [double(batch) for batch in made_batches(self.config, seed)]

    def network(self, name: str) -> nn.Module:
        return self.state.generator if name == "g" else self.state.discriminator

    @torch.no_grad()
    def shift(self, name: str, directions: list[Tensor], by: float) -> Exact:
        for parameter, direction in zip(self.network(name).parameters(), directions, strict=True):
            parameter.add_(direction, alpha=by)
        return self

    def loss(self, name: str) -> tuple[float, dict[str, float], list[Tensor]]:
        """Return what one network minimises, penalties included, every scalar, and the gradients."""
        if name == "d":
            scalars, _ = self.step.update_discriminator(self.batches)
        else:
            scalars = self.step.update_generator(self.batches, None, never)
        update = self.step.g if name == "g" else self.step.d
        total = scalars[f"loss_{name}"].item()
        for active in update.due(0):
            total += active.factor(0, self.config.optimizer.decay_images) * scalars[active.name].item()
        gradients = [p.grad.clone() for p in self.network(name).parameters() if p.grad is not None]
        return total, {key: value.item() for key, value in scalars.items()}, gradients


@cache
def first_loss(case: str, name: str) -> tuple[float, dict[str, float], list[Tensor]]:
    """Return what a network minimises at the begin of a run."""
    return Exact(CASES[case]).loss(name)


@pytest.mark.parametrize("case", CASES)
def test_gradients_are_those_of_finite_differences(case: str) -> None:
    """Along a random direction, in float64; that of a network whose every weight has a part in the loss."""
    config = CASES[case]
    for name in ("d", "g"):
        generator = torch.Generator().manual_seed(1)
        directions = [
            torch.randn(p.shape, generator=generator, dtype=torch.float64) * (p.detach().std(correction=0) + 0.01)
            for p in Exact(config).network(name).parameters()
        ]
        loss, _, gradients = first_loss(case, name)
        ours = sum(float((g * v).sum()) for g, v in zip(gradients, directions, strict=True))
        ahead, behind = (Exact(config).shift(name, directions, by).loss(name)[0] for by in (STEP, -STEP))
        assert ours == pytest.approx((ahead - behind) / (2 * STEP), rel=2e-4, abs=5e-5 * max(1, abs(loss))), name


@pytest.mark.parametrize("case", CASES)
def test_losses_are_golden(case: str) -> None:
    """In float64, whose rounding differs between processors by far less than the tolerance."""
    found: dict[str, float] = {}
    for name in ("d", "g"):
        total, scalars, _ = first_loss(case, name)
        found |= {f"total_{name}": total} | {k: v for k, v in scalars.items() if k not in ("replaced", "stop")}
    golden: dict[str, Any] = json.loads(GOLDEN.read_text())
    if os.environ.get("LIENZO_GOLDEN") == "write":  # then look at what has changed
        GOLDEN.write_text(json.dumps(golden | {case: found}, indent=1, sort_keys=True) + "\n")
    else:
        assert found == pytest.approx(golden[case], rel=1e-6, abs=1e-9)


def test_every_golden_value_has_its_case() -> None:
    assert set(json.loads(GOLDEN.read_text())) == set(CASES)


def test_every_entry_of_every_registry_is_in_a_case() -> None:
    assert exchanged().keys() <= set[tuple[str, str]]().union(*map(parts, CASES.values()))


@pytest.mark.parametrize("case", CASES)
def test_every_weight_learns_and_every_buffer_is_state(case: str) -> None:
    """After two steps each weight of both networks has moved, all is finite, and one bit changes the fingerprint."""
    config = CASES[case]
    state, step = make(config)
    before = {name: tensor.clone() for name, tensor in state.tensors().items()}
    for images_seen in (0, config.step_images):
        share = made_batches(config, images_seen=images_seen)
        scalars = step([share] * config.d_steps, never)
    assert all(bool(torch.isfinite(value)) for value in scalars.values()), scalars
    tensors = state.tensors()
    networks = [name for name in tensors if name.startswith(("generator.", "discriminator."))]
    still = {name for name in networks if torch.equal(tensors[name], before[name]) and not one_row(name, tensors)}
    idle = {name for name in networks if ".decode_" in name and not config.penalties.reconstruction.weight}
    # Where losses do not mind a number added to all logits, or do not yet (hinge), the last bias learns nothing.
    drawn_once = {"generator.input.frequencies", "generator.input.phases"}  # StyleGAN3's: theirs do not learn either
    frozen = {name for name in networks if config.discriminator == "projected" and name.startswith(FROZEN)}
    assert frozen <= still
    assert still - idle - drawn_once - frozen <= {"discriminator.head.real.bias"}
    kinds = ("generator.", "discriminator.", "ema.", "g_optimizer.", "d_optimizer.")
    assert all(any(name.startswith(kind) for name in tensors) for kind in kinds)
    buffers = [*dict(state.generator.named_buffers()), *dict(state.discriminator.named_buffers())]
    assert all(any(name.endswith(buffer) for name in tensors) for buffer in buffers if persistent(state, buffer))
    base = fingerprint(tensors, state.scalars())
    for name in list(tensors)[:: max(1, len(tensors) // 20)]:
        assert fingerprint(tensors | {name: tensors[name] + 1}, state.scalars()) != base, name


FROZEN = tuple(f"discriminator.{part}." for part in ("features", "mix", "fuse"))  # Projected GAN's


def one_row(name: str, tensors: dict[str, Tensor]) -> bool:
    """Tell whether it is the left singular vector of a matrix of one row, 1 for ever, or of two, soon the same bits."""
    return name.endswith(".u") and tensors[name].numel() <= 2


def persistent(state: TrainState, buffer: str) -> bool:
    return any(buffer in network.state_dict() for network in (state.generator, state.discriminator))


def by_passes() -> dict[Any, str]:
    """Return one case for all of the same networks and penalties: what is rounded on their way is the same."""
    return {frozenset(part for part in parts(c) if part[0] in ROUNDED): case for case, c in CASES.items()}


@pytest.mark.parametrize("case", by_passes().values())
def test_bf16_is_near_float32(case: str) -> None:
    config = CASES[case]
    share = made_batches(config)
    _, plain = make(config)
    state, mixed = make(config, lambda: torch.autocast("cpu", torch.bfloat16))
    expected, found = plain([share] * config.d_steps, never), mixed([share] * config.d_steps, never)
    for name in ("loss_d", "loss_g"):
        assert found[name].item() == pytest.approx(expected[name].item(), rel=0.2, abs=0.2), name
    assert all(bool(torch.isfinite(value)) for value in found.values()), found
    assert all(p.dtype == torch.float32 for p in (*state.generator.parameters(), *state.ema.values()))


@pytest.mark.parametrize("case", {config.generator: case for case, config in CASES.items()}.values())
def test_averaged_weights_paint_pictures(case: str) -> None:
    """Each picture is a function of the weights, its key and its number: not of how many are painted beside it."""
    config = CASES[case]
    state, _ = make(config)
    sampler = Sampler(config, CPU)
    sampler.load(state.ema)
    pictures = sampler.generate(11, "test")
    assert pictures.shape == (11, 32, 32, 3)
    assert pictures.std() > 0
    assert (
        abs(pictures[:5].astype(int) - sampler.generate(5, "test").astype(int)).max() <= 1
    )  # rounding in other batches
    assert not (pictures == sampler.generate(11, "test", truncation=0.5)).all()


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_possible_at_its_own_size(name: str) -> None:
    config = recipe_config(name)
    config.check()
    assert config.recipe == name
    assert config.batch_size % config.micro_batch_size == 0
