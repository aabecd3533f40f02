"""What does not go together, of all that combines freely otherwise."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from trainer.augment import AUGMENTATIONS
from trainer.core.registry import choose_from
from trainer.losses.objectives import OBJECTIVES
from trainer.networks import DISCRIMINATORS, GENERATORS

if TYPE_CHECKING:
    from trainer.config.config import Config


ATTENDING = {"sagan", "biggan", "biggan-deep"}


def config_problems(config: Config) -> Iterator[str]:
    """Yield what is wrong with the parts of a run, one message each.

    Raises:
        Refused: there is no part of such a name.
    """
    network, augment = config.network, config.augment
    generator = choose_from(GENERATORS, config.generator, "generator")
    discriminator = choose_from(DISCRIMINATORS, config.discriminator, "discriminator")
    objective = choose_from(OBJECTIVES, config.objective, "objective")
    augmentation = choose_from(AUGMENTATIONS, augment.kind, "augmentation")
    if problem := generator.problem(network) or discriminator.problem(network) or augmentation.problem(augment):
        yield problem
    if network.size == 0 and augment.kind != "none":
        yield f"augment.kind {augment.kind} is for pictures: it does not go with points (network.size 0)"
    if bool(augment.blur_sigma) != bool(augment.blur_images):
        yield "augment.blur_sigma fades over augment.blur_images: set both, or neither"
    if network.size == 0 and augment.blur_sigma:
        yield "augment.blur_sigma is for pictures: it does not go with points (network.size 0)"
    yield from micro_batch_problems(config)
    if network.attention and not {config.generator, config.discriminator} & ATTENDING:
        yield f"network.attention is of {', '.join(sorted(ATTENDING))}: neither network attends"
    if not network.g_tanh and config.generator != "fastgan":
        yield f"network.g_tanh is of the generator fastgan: {config.generator} ends as its paper says"
    if not re.fullmatch(r"auto|in-line|cpu|cuda(:\d+)?", config.measure_on):
        yield f"measure_on must be auto, in-line, cpu or cuda:N, but is {config.measure_on!r}"
    if config.top_k < 1 and objective.pairs:
        yield f"top_k below 1 does not go with objective {config.objective}: it compares pairs"
    if config.g_batches > config.d_steps:
        yield (
            f"g_batches must be at most d_steps, the discriminator's updates in a step, which is {config.d_steps}, but "
            f"is {config.g_batches}"
        )
    if config.top_k < 1 and discriminator.several_logits:
        yield f"top_k below 1 does not go with the discriminator {config.discriminator}: it has several logits"
    yield from schedule_problems(config)
    yield from penalty_problems(config)
    yield from side_problems(config)
    if config.cuda_graphs == "on" and (problem := graphs_problem(config)):
        yield f"cuda_graphs on does not go with {problem}"
    yield from checkpointing_problems(config)


def micro_batch_problems(config: Config) -> Iterator[str]:
    """Yield what is wrong with what is computed over a micro-batch, one message each."""
    network = config.network
    # A pack is made of pictures of one micro-batch: ranks share nothing smaller.
    if config.micro_batch_size % network.pack:
        yield f"network.pack {network.pack} does not divide micro_batch_size {config.micro_batch_size}"
    if config.generator == "mlp" and config.micro_batch_size < 2:
        yield "generator mlp wants a micro_batch_size of at least 2: its BatchNorm sees one point a picture"
    packs, group = config.micro_batch_size // network.pack, network.mbstd_group
    # Within a group of one nothing deviates, and the layer would say nothing.
    if group == 1 or (group and packs % group):
        yield f"network.mbstd_group {group} must be at least 2, and divide the {packs} packs of a micro-batch"


def schedule_problems(config: Config) -> Iterator[str]:
    """Yield what would move nowhere, or has nobody to move for."""
    augment = config.augment
    if not augment.uses_p and (augment.p or augment.p_final is not None):
        idle = "augment.p" if augment.p else "augment.p_final"
        yield f"{idle} does nothing for augment.kind {augment.kind} without augment.apa"
    if augment.uses_p and not augment.adaptive and not augment.p and not augment.p_final:
        yield "augment.p is 0 and stays there: set --augment.p, --augment.p-final or --augment.adaptive"
    moving = [f"penalties.{one.name}.final" for one in config.penalties.active() if one.weighted.final is not None]
    moving += ["augment.p_final"] if config.augment.p_final is not None else []
    moving += ["optimizer.lr_final"] if config.optimizer.lr_final != 1 else []
    moving += [
        f"optimizer.{name}"
        for name in ("beta2_final", "ema_half_life_final")
        if getattr(config.optimizer, name) is not None
    ]
    if moving and not config.optimizer.decay_images:
        yield f"{moving[0]} is reached after optimizer.decay_images, which is 0: set that too"
    if config.augment.p_final is not None and config.augment.adaptive:
        yield "augment.p_final wants --augment.no-adaptive: an adaptive p goes where it must"


def penalty_problems(config: Config) -> Iterator[str]:
    """Yield what penalties want of the networks, and of how they are run."""
    active = {one.name: one.penalty for one in config.penalties.active()}
    discriminator = choose_from(DISCRIMINATORS, config.discriminator, "discriminator")
    rebuilds, head = discriminator.reconstructs, config.network.d_head
    if config.network.size == 0 and "bcr" in active:
        yield "penalties.bcr is for pictures: it does not go with points (network.size 0)"
    drawing = sorted(name for name, one in active.items() if one.network_name == "g" and one.draws)
    if config.g_batches > 1 and drawing:
        yield f"penalties.{drawing[0]} goes with g_batches 1: it draws for the fakes of one update"
    if head != "classifier" and (guess := sorted(name for name, one in active.items() if one.wants_classes)):
        yield f"penalties.{guess[0]} wants a discriminator that guesses: --network.d-head classifier"
    several = len(config.network.label_names) > 1
    if several and (single := sorted(name for name, one in active.items() if one.one_label)):
        yield (
            f"penalties.{single[0]} is about one set of classes (Elgammal et al. 2017): network.label_columns must "
            f"name one column, but is {config.network.label_columns}"
        )
    if head == "classifier" and not active.keys() & {"classes_d", "style"}:
        weights = "--penalties.classes-d.weight or --penalties.style.weight"
        yield f"network.d_head classifier learns nothing: it needs {weights}"
    if "reconstruction" in active and not rebuilds:
        yield f"penalties.reconstruction wants a discriminator that rebuilds pictures, not {config.discriminator}"
    if not discriminator.judges_pixels and (finer := sorted(name for name, one in active.items() if one.wants_pixels)):
        yield f"penalties.{finer[0]} wants a discriminator that judges pixels, such as unet, not {config.discriminator}"
    if discriminator.several_logits and (of_one := sorted(name for name, one in active.items() if one.wants_features)):
        yield f"penalties.{of_one[0]} is about the features of one logit, and {config.discriminator} has several"
    # DDP waits until each weight has had its gradient.
    if config.reduction == "ddp" and (idle := idle_weights(config)):
        yield f"reduction ddp wants every weight in every loss: {idle} in every update"
    if config.reduction == "ddp" and config.compile:
        yield "compile does not go with reduction ddp"


def side_problems(config: Config) -> Iterator[str]:
    """Yield what a generator that makes pictures of all sides does not go with."""
    generator, augment = config.generator, config.augment
    if not choose_from(GENERATORS, generator, "generator").makes_all_sides:
        return
    if not choose_from(DISCRIMINATORS, config.discriminator, "discriminator").takes_all_sides:
        able = ", ".join(name for name, network in DISCRIMINATORS.items() if network.takes_all_sides)
        yield f"generator {generator} makes pictures of all sides: it wants --discriminator {able}"
    if augment.kind != "none" or augment.apa or augment.blur_sigma:
        yield (
            f"augmentations are of one picture, and generator {generator} shows the discriminator one of each side: "
            "leave augment.kind, augment.apa and augment.blur_sigma out"
        )
    if of_one := sorted({one.name for one in config.penalties.active()} & {"bcr", "wgan_gp"}):
        yield f"penalties.{of_one[0]} is of one picture: generator {generator} makes one of each side"


def graphs_problem(config: Config) -> str | None:
    """Return the settings of which no CUDA graph can be made, and why, or None."""
    if config.reduction == "ddp":
        return "reduction ddp: its buckets are sent by hooks, which a graph does not call"
    if config.compile:
        return "compile: torch.compile may compile anew in any step"
    if config.mixed_precision == "fp16" and config.optimizer.beta2_final is not None:
        return "mixed_precision fp16 with optimizer.beta2_final: one wants Adam inside a graph, the other outside"
    return None


def checkpointing_problems(config: Config) -> Iterator[str]:
    """Yield what activation checkpointing does not go with: networks without blocks, and the compiler."""
    if config.activation_checkpointing and config.compile:
        yield "activation_checkpointing does not go with compile, which decides itself what is computed again"
    for kind, registry, name in (
        ("generator", GENERATORS, config.generator),
        ("discriminator", DISCRIMINATORS, config.discriminator),
    ):
        if config.activation_checkpointing and not registry[name].has_blocks:
            able = ", ".join(one for one, network in registry.ours() if network.has_blocks)
            yield f"activation_checkpointing is for networks of blocks ({able}), not for the {kind} {name}"


def idle_weights(config: Config) -> str | None:
    """Return the penalty without which some of D's weights are in no loss, or in none of some updates; or None."""
    # Where a penalty is not due, what it alone reads of D is in no loss of that update.
    always = {one.name for one in config.penalties.active() if one.weighted.every == 1}
    if config.network.d_head == "classifier" and not always & {"classes_d", "style"}:
        return "penalties.classes_d or penalties.style"
    if DISCRIMINATORS[config.discriminator].reconstructs and "reconstruction" not in always:
        return "penalties.reconstruction"
    return None
