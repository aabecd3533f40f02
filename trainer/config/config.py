"""All settings of a run: this file only composes those that each part owns."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from shards.dataset.cache_settings import CACHE_GB
from shards.storage.argument import OptionalPlace
from trainer.augment.base import AugmentSettings
from trainer.augment.pipeline import AugmentPipeline
from trainer.config.compatibility import config_problems
from trainer.config.groups import (
    LEAST_IMAGES,
    CheckpointSettings,
    CollapseSettings,
    MetricsSettings,
    OptimizerSettings,
    TrackingSettings,
)
from trainer.config.intervals import Interval, default_interval
from trainer.core.fields import Refused, check_limits, group, identity, later_identity, operational
from trainer.core.registry import one_of
from trainer.losses.objectives import OBJECTIVES
from trainer.losses.penalties import Active, Penalties
from trainer.networks import DISCRIMINATORS, GENERATORS
from trainer.networks.network_settings import NetworkSettings

Precision = Literal["auto", "no", "bf16", "fp16"]


@dataclass(frozen=True)
class Config:
    """The resolved settings of a run."""

    recipe: Annotated[str, tyro.conf.Suppress] = identity("custom")
    """The recipe that the settings started from."""
    seed: int = identity(0, "[0, inf)")
    """Names every draw and the order of the pictures."""
    batch_size: int = identity(128, "[1, inf)")
    """Real pictures per update of the discriminator, over all processes."""
    micro_batch_size: int = identity(32, "[1, inf)")
    """The unit of work, with its own BatchNorm statistics; divides the batch size."""
    d_steps: int = identity(1, "[1, inf)")
    """Updates of the discriminator per update of the generator."""
    g_batches: int = later_identity(1, "[1, inf)")
    """The generator learns from the fakes of so many of the discriminator's last updates, at most d_steps; with them a
    micro-batch of its own is so many times as large."""
    mixed_precision: Precision = identity("auto")
    """auto: bf16 where the hardware has it, else no; resolved when the run starts."""
    objective: Annotated[str, one_of(OBJECTIVES)] = identity("non-saturating")
    """What the networks minimise."""
    top_k: float = identity(1.0, "(0, 1]")
    """Only this share of the fakes, those that D finds best, moves G in the end (Sinha et al. 2020)."""
    top_k_images: int = identity(1_000_000, "[1, inf)")
    """Pictures after which that share is reached, from all of them."""
    flip: bool = identity(False)
    """Mirror each real picture with probability one half."""
    order_window: int = identity(0, "[0, inf)")
    """Shards per window of the sample order; 0: all, the uniform permutation."""
    generator: Annotated[str, one_of(GENERATORS)] = identity("dcgan")
    """The generator's architecture."""
    discriminator: Annotated[str, one_of(DISCRIMINATORS)] = identity("dcgan")
    """The discriminator's; any goes with any generator."""
    network: NetworkSettings = group(NetworkSettings)
    penalties: Penalties = group(Penalties)
    augment: AugmentSettings = group(AugmentSettings)
    optimizer: OptimizerSettings = group(OptimizerSettings)
    collapse: CollapseSettings = group(CollapseSettings)
    anchor_every_images: int | None = identity(None, "[1, inf)")
    """Rollbacks go to the state at a multiple of so many pictures: it is saved whatever else is, and stays. Default: a
    32nd of the run as it begins, and at least 64,000."""
    init_from: Path | None = operational(None)
    """A new run begins with the weights of this run, checkpoint, bundle or safetensors file (fine-tuning)."""
    init_state: Literal["weights", "all"] = identity("weights")
    """What it takes over: weights, or all: progress, optimizers and what penalties remember, too (resume --as)."""
    init_hash: Annotated[str, tyro.conf.Suppress] = identity("")
    """SHA-256 of the weights that it began with."""
    reduction: Literal["exact", "ddp"] = identity("exact")
    """exact: the same bits for any number of processes; ddp: overlapped buckets, exact for one number only."""
    deterministic: bool = identity(True)
    """Use deterministic kernels, and no choice of kernels by timing, where the device has them."""
    channels_last: bool = identity(True)
    """Keep pictures and weights in NHWC memory order."""
    compile: bool = identity(False)
    """Compile the networks with torch.compile, but for passes that a gradient penalty differentiates again."""

    total_images: int = operational(1_280_000, "[1, inf)")
    """Train until so many real pictures were seen; rounded up to whole steps."""
    epochs: int | None = operational(None, "[1, inf)")
    """In place of total_images: passes over the training pictures.
    A resume that names total_images goes by that again."""
    processes: int | None = operational(None, "[1, inf)")
    """Processes on this machine; default: one a GPU, or one a core, and at most one a micro-batch. On Slurm, its nodes
    decide."""
    workers: int | None = operational(None, "[0, 1024]")
    """Threads of each process that decode and draw ahead; 0: all in line. Default: its cores but one, at most 16."""
    cuda_graphs: Literal["auto", "on", "off"] = operational("auto")
    """Start each step on a GPU as CUDA graphs, at once and not kernel by kernel; the bits are the same.
    auto: a process that trains alone does, where the settings allow it."""
    activation_checkpointing: bool = operational(False)
    """Keep the inputs of the networks' blocks alone, and compute the rest again in backward passes: less memory, more
    time, the same bits."""
    data: OptionalPlace = operational(None)
    """The shards: a folder, or a URL such as s3://bucket/folder (docs/data.md)."""
    cache: Path | None = operational(None)
    """Where copies of shards at a URL are kept, on a disk of each node. Default: under $SLURM_TMPDIR or $TMPDIR, else
    ~/.cache/lienzo/shards."""
    cache_gb: float = operational(CACHE_GB, "[0, 1e6]")
    """All files there together have at most so many gigabytes."""
    log_every_images: int = operational(2_560, "[1, inf)")
    """Write a row of metrics each time so many pictures were seen."""
    sample_every_images: int | None = operational(None, "[0, inf)")
    """Generate the fixed grid, and measure its distance to the data, each time so many pictures were seen, and in the
    end; 0: never. Default: a 32nd of the run, and at least 64,000."""
    checkpoint_every_images: int | None = operational(None, "[1, inf)")
    """Save the state each time so many pictures were seen. Default: a 32nd of the run, and at least 64,000."""
    measure_on: Annotated[str, tyro.conf.arg(metavar="{auto,in-line,cpu,cuda:N}")] = operational("auto")
    """Where sample grids and the collapse monitor's measurements are made. in-line: by rank 0, and training waits; cpu
    or cuda:N: there, by a process of its own, beside training; auto: in-line if training is on a CPU, else beside it,
    on the CPU, or on rank 0's GPU if a picture takes more than 0.5 GFLOP. Evaluations take no GPU but a named one."""
    log_every_s: float | None = operational(None, "[0.1, 2678400]")
    """In place of log_every_images: each time so many seconds have passed."""
    sample_every_s: float | None = operational(None, "[0.1, 2678400]")
    """In place of sample_every_images: each time so many seconds have passed."""
    checkpoint_every_s: float | None = operational(None, "[0.1, 2678400]")
    """In place of checkpoint_every_images: each time so many seconds have passed."""
    record_samples: bool = operational(False)
    """Record the planned and the used index of each sample under plan/ in the run folder."""
    max_rollbacks: int = operational(3, "[0, inf)")
    """Roll back so often after NaN or Inf, or a collapse if collapse.policy says so; then stop."""
    system_every_s: float = operational(10.0, "[0.1, 86400]")
    """Measure the GPUs, processors, memory, disks and network of each node each time so many seconds have passed."""
    trace_steps: int = operational(0, "[0, 1000]")
    """In each attempt, write a trace of so many steps by torch.profiler, under traces/ in the run folder."""
    trace_rank: int = operational(0, "[0, inf)")
    """The rank that is traced."""
    stall_after_s: float = operational(300.0, "[1, inf)")
    """End all processes when there was no step for so long: one of them is stopped, or its node hangs."""
    checkpoint: CheckpointSettings = group(CheckpointSettings)
    metrics: MetricsSettings = group(MetricsSettings)
    tracking: TrackingSettings = group(TrackingSettings)

    @property
    def micro_batches(self) -> int:
        """M, the number of micro-batches in the global batch."""
        return self.batch_size // self.micro_batch_size

    @property
    def step_images(self) -> int:
        """Real pictures per step: d_steps updates of D, one of G."""
        return self.batch_size * self.d_steps

    def passed(self, every_images: int, images_seen: int) -> bool:
        """Tell whether the step that ended at `images_seen` passed a multiple of `every_images`; of 0: never."""
        # By division: a step may pass a multiple without ending at one.
        return bool(every_images) and images_seen // every_images != (images_seen - self.step_images) // every_images

    def last_passed(self, every_images: int, images_seen: int) -> int:
        """Return where the last step ended, up to `images_seen`, that passed a multiple of `every_images`."""
        multiple = images_seen // every_images * every_images
        return -(-multiple // self.step_images) * self.step_images

    def interval(self, of: Interval) -> int:
        """Return the pictures after which a row, a grid or the like is due; 0: never, or seconds decide."""
        if getattr(self, f"{of}_every_s", None) is not None:
            return 0
        named = self.collapse.every_images if of == "collapse" else getattr(self, f"{of}_every_images")
        return default_interval(of, self.total_images) if named is None else int(named)

    @property
    def generates_grids(self) -> bool:
        """Tell whether sample grids are generated at all."""
        return self.sample_every_s is not None or self.sample_every_images != 0

    def monitor_interval(self, samples: int) -> int:
        """Return the pictures between two measurements of the collapse monitor, of so many training `samples`."""
        return self.interval("collapse") if samples >= LEAST_IMAGES else 0

    def with_intervals(self, samples: int) -> Config:
        """Return settings with the intervals that nobody has named, by the length of a run over so many `samples`."""
        sized = replace(self, total_images=self.images_to_see(samples), epochs=None)
        return replace(
            self,
            anchor_every_images=sized.interval("anchor"),
            collapse=replace(self.collapse, every_images=sized.interval("collapse")),
            sample_every_images=default_interval("sample", sized.total_images)
            if self.sample_every_images is None
            else self.sample_every_images,
            checkpoint_every_images=self.checkpoint_every_images or default_interval("checkpoint", sized.total_images),
        )

    def images_to_see(self, samples: int) -> int:
        """Return the pictures at which training ends, in whole steps, for a training set of `samples`."""
        wanted = self.total_images if self.epochs is None else self.epochs * samples
        # Rounded up: the last step is a whole one.
        return -(-wanted // self.step_images) * self.step_images

    def check(self) -> None:
        """Refuse impossible values.

        Raises:
            Refused: with one message about the first of them.
        """
        # First: what follows divides by some of them.
        check_limits(self)
        if self.batch_size % self.micro_batch_size:
            raise Refused(
                f"batch_size {self.batch_size} is not a multiple of micro_batch_size {self.micro_batch_size}; "
                f"try --batch-size {-(-self.batch_size // self.micro_batch_size) * self.micro_batch_size}"
            )
        for part in (self.network, self.collapse, self.metrics, self.tracking):
            if problem := part.check():
                raise Refused(problem)
        for problem in config_problems(self):
            raise Refused(problem)

    def augment_pipeline(self) -> AugmentPipeline:
        """Return what the discriminator is shown in place of the pictures."""
        return AugmentPipeline(self.augment, self.network.data_shape, self.optimizer.decay_images, self.batch_size)

    def penalty_due(self, active: Active, images_seen: int) -> bool:
        """Tell whether a penalty is computed on the batch with which an update of D begins at `images_seen`.

        G's update uses the batch of D's last update of the step.
        """
        # `every` counts updates of the penalty's own network: for D each batch is one, for G each step.
        if active.penalty.network_name == "d":
            return active.due(images_seen // self.batch_size)
        last = (images_seen + self.batch_size) % self.step_images == 0
        return last and active.due(images_seen // self.step_images)

    def initial_scalars(self) -> dict[str, float]:
        """Return the running scalars of penalties and augmentation before the first step, by name."""
        initial = self.augment_pipeline().initial_scalars()
        for active in self.penalties.active():
            initial |= active.initial_scalars()
        return initial

    def check_world(self, size: int) -> None:
        """Refuse more processes than micro-batches.

        Raises:
            Refused: some processes would have nothing to do.
        """
        if size > self.micro_batches:
            raise Refused(
                f"{size} processes cannot share {self.micro_batches} micro-batches (batch_size {self.batch_size} / "
                f"micro_batch_size {self.micro_batch_size}): use at most {self.micro_batches} (--processes; "
                "on Slurm fewer --nodes or --gpus-per-node), or for a new run a smaller --micro-batch-size or a larger "
                "--batch-size"
            )

    def grown_to(self, processes: int) -> Config:
        """Return settings with micro-batches of the same size appended until each process has one."""
        # More of them, not smaller ones: their size is a part of what BatchNorm computes.
        return replace(self, batch_size=max(self.micro_batches, processes) * self.micro_batch_size)
