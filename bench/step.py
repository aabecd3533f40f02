"""Our step beside a bare loop and the reference DCGAN step: `python -m bench.step`. One process, one thread.

With `--device cuda` it is measured on a GPU: the clock is read when the GPU has done all that was queued.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial

import torch
import tyro
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits as bce
from torch.nn.functional import softplus

from bench.measure import has_bf16, machine, ratios, seconds, spread, table, take_turns
from trainer.config.config import Config
from trainer.config.recipes import recipe_config
from trainer.core.randomness import Draws
from trainer.distributed.numerical_environment import gpu_has_bf16, state_float32_kernels
from trainer.distributed.world import World
from trainer.gan.assembly import Autocast, assemble_step, create_state, reduce_exactly
from trainer.gan.batches import RandomInputs
from trainer.gan.optimizers import update_average
from trainer.losses.batch import Batch
from trainer.networks.base import Latent
from trainer.networks.batch_norm import BatchNorm2d

OURS, BARE, REFERENCE = "ours", "bare", "reference"
NAMES = {
    OURS: "our step: packets, exact reduction, norms, EMA",
    BARE: "bare loop over the same micro-batches: no reduction, norms, EMA",
    REFERENCE: "step of pytorch/examples dcgan: fp32, contiguous, whole batch",
}


@dataclass(frozen=True)
class Bench:
    """Measure the step."""

    recipe: str = "dcgan-64"
    batch_size: int = 128
    micro_batch_size: int = 32
    turns: int = 5
    device: str = "cpu"


def plain(network: nn.Module, memory_format: torch.memory_format) -> nn.Module:
    """Return a copy with torch's own BatchNorm, in a memory format."""
    network = copy.deepcopy(network)
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if isinstance(child, BatchNorm2d):
                norm = nn.BatchNorm2d(len(child.running_mean), affine=child.weight is not None)
                norm.load_state_dict(child.state_dict(), strict=False)
                setattr(parent, name, norm.to(child.running_mean.device))
    network.to(memory_format=memory_format)  # type: ignore[call-overload]  # torch's stub lacks it
    return network


def never() -> bool:
    return False


def our_step(config: Config, share: list[Batch], autocast: Autocast) -> Callable[[], object]:
    """Return the trainer's step, its moving average included."""
    state = create_state(config, "bench", share[0].real.device)
    step = assemble_step(config, state, reduce_exactly(config, World()), autocast)
    average, weights = list(state.ema.values()), [p.detach() for p in state.generator.parameters()]

    def run() -> None:
        step([share], never)
        state.images_seen += config.step_images
        update_average(average, weights, config.step_images, state.images_seen, config.optimizer)

    return run


def bare_loop(config: Config, share: list[Batch], autocast: Autocast) -> Callable[[], object]:
    """Return the least that does the same work: no graph where none is needed, gradients added up by autograd."""
    state = create_state(config, "bench", share[0].real.device)
    g, d = (plain(network, torch.channels_last) for network in (state.generator, state.discriminator))
    g_adam, d_adam = (torch.optim.Adam(n.parameters(), lr=2e-4, betas=(0.5, 0.999), fused=True) for n in (g, d))

    def judge(pictures: Tensor, batch: Batch) -> Tensor:
        logits: Tensor = d(pictures, batch.label).logits
        return logits.float()

    def run() -> None:
        for batch in share:
            with autocast():
                with torch.no_grad():
                    fake = g(batch.latent)
                loss = softplus(-judge(batch.real, batch)).mean() + softplus(judge(fake, batch)).mean()
            (loss / len(share)).backward()
        d_adam.step()
        d_adam.zero_grad()
        d.requires_grad_(False)
        for batch in share:
            with autocast():
                loss = softplus(-judge(g(batch.latent), batch)).mean()
            (loss / len(share)).backward()
        d.requires_grad_(True)
        g_adam.step()
        g_adam.zero_grad()

    return run


def reference(config: Config, share: list[Batch]) -> Callable[[], object]:
    """Return the step of pytorch/examples, dcgan/main.py; its D ends in a sigmoid, which is in the loss here."""
    state = create_state(config, "bench", share[0].real.device)
    g, d = (plain(network, torch.contiguous_format) for network in (state.generator, state.discriminator))
    g_adam, d_adam = (torch.optim.Adam(n.parameters(), lr=2e-4, betas=(0.5, 0.999)) for n in (g, d))
    real, latent = torch.cat([b.real for b in share]).contiguous(), Latent.cat([b.latent for b in share])
    ones, zeros = real.new_ones(len(real)), real.new_zeros(len(real))

    def backward(pictures: Tensor, target: Tensor) -> float:
        logits: Tensor = d(pictures, latent.label).logits
        loss = bce(logits, target)
        loss.backward()
        return loss.item() + logits.mean().item()

    def run() -> None:
        d.zero_grad()
        backward(real, ones)
        fake = g(latent)
        backward(fake.detach(), zeros)
        d_adam.step()
        g.zero_grad()
        backward(fake, ones)
        g_adam.step()

    return run


def make_batches(config: Config, device: str = "cpu") -> list[Batch]:
    """Return a whole batch of noise in place of pictures, on a device; classes go round."""
    n, classes = config.micro_batch_size, config.network.classes
    label = torch.arange(n) % classes if classes else torch.full((n,), -1)
    drawer, batches = RandomInputs(config), []
    for j in range(config.micro_batches):
        real = torch.rand(n, *config.network.data_shape).mul(2).sub(1)
        latent, draws = drawer(Draws(0, 0), label, 0, j)
        batch = Batch(j, 0, real.contiguous(memory_format=torch.channels_last), latent, draws, 0)
        batches.append(batch.map(lambda t: t.to(device)))
    return batches


def kernels_of(name: str) -> AbstractContextManager[None]:
    """Let a GPU use, inside, the kernels of training; the reference those that its own script asks for, and TF32."""
    own = name != REFERENCE
    kernels: AbstractContextManager[None] = torch.backends.cudnn.flags(
        enabled=True, benchmark=not own, deterministic=own, allow_tf32=not own
    )
    return kernels


def seconds_on_gpu(name: str, peaks: list[int], run: Callable[[], object]) -> float:
    """Return how long a step takes, and note the most bytes that it had besides what was there before."""

    def run_to_end() -> None:
        run()
        torch.cuda.synchronize()

    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    with kernels_of(name):
        time = seconds(run_to_end)
    peaks.append(torch.cuda.max_memory_allocated() - before)
    return time


def measure(config: Config, precision: str, autocast: Autocast, args: Bench) -> None:
    """Take turns and print the table of one precision."""
    cuda, turns = args.device.startswith("cuda"), args.turns
    share = make_batches(config, args.device)
    runs = {
        OURS: our_step(config, share, autocast),
        BARE: bare_loop(config, share, autocast),
        REFERENCE: reference(config, share),
    }
    peaks: dict[str, list[int]] = {name: [] for name in runs}
    candidates = {
        name: partial(seconds_on_gpu, name, peaks[name], run) if cuda else partial(seconds, run)
        for name, run in runs.items()
    }
    take_turns(candidates, 1)
    times = take_turns(candidates, turns)
    title = (
        f"{config.recipe}, {precision}, batch {config.batch_size} = {config.micro_batches} micro-batches, {turns} turns"
    )
    rows = []
    for name, what in NAMES.items():
        speeds = [config.batch_size / s for s in times[name]]
        beside = [spread(ratios(times[other], times[name])) for other in (BARE, REFERENCE)]
        memory = [f"{max(peaks[name]) / 1e6:,.0f}"] if peaks[name] else []
        rows.append([what, spread(speeds, 1), *beside, *memory])
    on_gpu = ["MB besides states"] if cuda else []
    table([title, "images/s", "× bare loop", "× reference", *on_gpu], rows)


def main(args: Bench) -> None:
    torch.set_num_threads(1)
    print(f"{machine()}; 1 process, 1 thread, {args.device}\n")
    cuda = args.device.startswith("cuda")
    if cuda:
        state_float32_kernels()
    config = replace(recipe_config(args.recipe), batch_size=args.batch_size, micro_batch_size=args.micro_batch_size)
    measure(config, "fp32", nullcontext, args)
    if gpu_has_bf16(0) if cuda else has_bf16():
        autocast = partial(torch.autocast, torch.device(args.device).type, torch.bfloat16)
        measure(config, "bf16 (the reference: fp32)", autocast, args)
    else:
        print(f"bf16: not measured, this {'GPU' if cuda else 'CPU'} does not have it\n")


if __name__ == "__main__":
    main(tyro.cli(Bench))
