"""The bits of training on one device, with 1, 2 and 4 pretended ranks (gpu_ranks.py): `python -m bench.gpu_bits`."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
import tyro
from torch.amp.grad_scaler import GradScaler

from bench.gpu_ranks import PretendedRanks
from bench.measure import machine, table
from launcher.doctor.memory import autocast, settle
from trainer.config.config import Config
from trainer.config.recipes import recipe_config
from trainer.distributed.numerical_environment import choose_kernels
from trainer.distributed.world import World
from trainer.gan.assembly import assemble_step, create_state, reduce_exactly
from trainer.gan.fingerprint import fingerprint
from trainer.gan.flops import empty_batches
from trainer.gan.state import TrainState
from trainer.losses.batch import Batch

WORLDS = (1, 1, 2, 4)  # the first again: does the device repeat its own bits?
STEPS = 2
FP16_SCALE = 2.0**8
Precision = Literal["no", "bf16", "fp16"]


@dataclass(frozen=True)
class Bench:
    """Compare the bits. Exit code 1: with deterministic kernels they differ, or a run trained nothing."""

    device: str = "cuda"
    recipes: tuple[str, ...] = ("dcgan-64", "wgan-gp-64", "sngan-64", "stylegan2-ada-64")
    precisions: tuple[Precision, ...] = ("no", "bf16", "fp16")
    deterministic: bool = True
    """False: kernels are chosen by timing, as with --no-deterministic; what differs is told, and is no failure."""
    micro_batches: int = 6
    """With 4 ranks the shares are uneven: 1, 2, 1 and 2."""
    micro_batch_size: int = 4
    channels: int | None = None
    """Of both networks; default: the recipe's."""


def make_updates(config: Config, device: torch.device, steps: int = STEPS) -> list[list[list[Batch]]]:
    """Return for each step and each of D's updates in it all micro-batches, of noise in place of pictures."""
    noise = torch.Generator().manual_seed(0)

    def on_device(batch: Batch) -> Batch:
        real = torch.rand(batch.real.shape, generator=noise).mul(2).sub(1)
        batch = replace(batch, real=real.contiguous(memory_format=torch.channels_last))
        return batch.map(lambda t: t.to(device))

    starts = [step * config.step_images for step in range(steps)]
    return [[[on_device(one) for one in update] for update in empty_batches(config, start)] for start in starts]


def train(config: Config, device: torch.device, updates: Sequence[Sequence[Sequence[Batch]]], world: World) -> str:
    """Train as one rank, and return the fingerprint of the state.

    Raises:
        RuntimeError: no weight of G or D has moved, so equal bits would say nothing.
    """
    if device.type == "cpu":
        torch.set_num_threads(1)  # their number changes the bits, and a new thread has its own
    state = create_state(config, "bits", device)
    fp16 = config.mixed_precision == "fp16"
    # Training begins at a larger scale and lowers it in its first steps, which it leaves out: here there are too few.
    state.g_scaler, state.d_scaler = (GradScaler(device.type, FP16_SCALE, enabled=fp16) for _ in range(2))
    step = assemble_step(config, state, reduce_exactly(config, world), lambda: autocast(config, device))
    before = weights_of(state)
    share = world.share(config.micro_batches)
    for number, of_step in enumerate(updates):
        state.images_seen = number * config.step_images
        step([[update[j] for j in share] for update in of_step], lambda: False)
    if any(now == was for now, was in zip(weights_of(state), before, strict=True)):
        raise RuntimeError("no weight has moved: every step overflowed")
    return fingerprint(state.tensors(), {})


def weights_of(state: TrainState) -> list[str]:
    """Return the fingerprints of G's and D's weights; buffers move without an optimizer step, too."""
    return [fingerprint(dict(network.named_parameters()), {}) for network in (state.generator, state.discriminator)]


def compare(config: Config, device: torch.device) -> list[bool]:
    """Tell of each world after the first whether all of its ranks end with the first one's bits."""
    updates = make_updates(config, device)
    found = [set(PretendedRanks(size).run(lambda world: train(config, device, updates, world))) for size in WORLDS]
    return [bits == found[0] and len(bits) == 1 for bits in found[1:]]


def configuration(args: Bench, recipe: str, precision: Precision) -> Config:
    """Return the settings of one comparison."""
    size, count = args.micro_batch_size, args.micro_batches
    config = replace(settle(recipe_config(recipe)), mixed_precision=precision, deterministic=args.deterministic)
    config = replace(config, micro_batch_size=size, batch_size=size * count)
    if args.channels is None:
        return config
    return replace(config, network=replace(config.network, g_channels=args.channels, d_channels=args.channels))


def main(args: Bench) -> int:
    """Compare all, and return the exit code."""
    choose_kernels(args.deterministic)
    device, failed = torch.device(args.device), False

    def rows() -> Iterator[list[str]]:
        nonlocal failed
        for precision in args.precisions:
            for recipe in args.recipes:
                began = time.perf_counter()
                try:
                    equal = compare(configuration(args, recipe, precision), device)
                    cells = ["equal" if same else "differ" for same in equal]
                    failed |= args.deterministic and not all(equal)
                except RuntimeError as error:
                    cells, failed = [str(error).partition("\n")[0], "", ""], True
                yield [recipe, precision, *cells, f"{time.perf_counter() - began:.1f}"]

    kernels = "deterministic" if args.deterministic else "not deterministic"
    print(f"{machine()}; {args.device}, {kernels}; {args.micro_batches} micro-batches, {STEPS} steps\n")
    table(["recipe", "mixed precision", "1 rank again", "2 ranks", "4 ranks", "s"], rows())
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Bench)))
