"""This rank's copy of the training state, and the step that trains it.

The settings in force are those of the run, amended by what its rollbacks have changed. They follow from the list of
rollbacks, which is a part of the state, so every rank and every resumed run has the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from torch import Tensor

from trainer.collapse.rollback_changes import apply_rollbacks, fit_state
from trainer.config.config import Config
from trainer.core.migration import identity_hashes
from trainer.core.randomness import Draws
from trainer.core.step_phases import phase
from trainer.core.stopping import Failed
from trainer.gan.assembly import assemble_step, create_state, reduce_as_asked, with_graphs, world_of
from trainer.gan.batches import BatchLoader
from trainer.gan.optimizers import update_average
from trainer.losses.batch import Batch
from trainer.networks.base import named_weights
from trainer.runs.checkpoint import Checkpoint, Damaged


class Replica:
    """Trains the state under the settings in force.

    Args:
        config: of the run.
        dataset: hash of the dataset's index.
        accelerator: device, process group and precision.
        draw: draw the weights of a run that begins.
    """

    def __init__(self, config: Config, dataset: str, accelerator: Accelerator, draw: bool) -> None:
        self.config, self.accelerator = config, accelerator
        self.build(config, dataset, draw)

    def build(self, in_force: Config, dataset: str, draw: bool) -> None:
        """Create a state, and a step that trains it, for these settings."""
        self.in_force = in_force
        self.state = create_state(in_force, dataset, self.accelerator.device, draw)
        # A rollback may change settings in force, but the run keeps the identity that it began with.
        self.state.identities = identity_hashes(self.config)
        reduce = reduce_as_asked(in_force, self.accelerator)
        step = assemble_step(in_force, self.state, reduce, self.accelerator.autocast)
        self.gan_step = with_graphs(step, in_force, world_of(self.accelerator), self.accelerator.device)

    def step(self, updates: Sequence[Sequence[Batch]], stop: Callable[[], float]) -> dict[str, Tensor]:
        """Update both networks and the average of the generator; the arguments and the result are GanStep's."""
        scalars = self.gan_step(updates, stop)
        state, settings, images = self.state, self.config.optimizer, self.config.step_images
        state.images_seen += images
        # Of the new weights, with the half-life counted in images: the batch size does not change the average.
        with phase("optimizer"):
            weights = [weight.detach() for _, weight in named_weights(state.generator)]
            update_average(list(state.ema.values()), weights, images, state.images_seen, settings)
        return scalars

    def passed(self, every_images: int) -> bool:
        """Tell whether the last step passed a multiple of `every_images`; 0: never."""
        return self.config.passed(every_images, self.state.images_seen)

    def batches(self, loader: BatchLoader) -> Iterator[list[list[Batch]]]:
        """Yield this rank's batches of each step from here on; each rollback changes the random draws."""
        draws = Draws(self.config.seed, len(self.state.rollbacks))
        return loader.steps(self.in_force, self.state.images_seen, draws)

    def load(self, path: Path) -> None:
        """Load a checkpoint that rank 0 has found whole.

        Raises:
            Failed: it is not whole here.
        """
        try:
            tensors, values = Checkpoint(path, 0, 0).read()
        except Damaged as error:
            raise Failed(f"checkpoint {path} is whole for the main process, but not here: {error}") from error
        if (in_force := apply_rollbacks(self.config, values["rollbacks"])) != self.in_force:
            self.build(in_force, self.state.dataset, draw=False)
        self.state.load(tensors, values, str(path))

    def set_rollbacks(self, rollbacks: list[dict[str, Any]]) -> None:
        """Put in force what these rollbacks change; the checkpoint that was loaded knows only of the earlier ones."""
        in_force = apply_rollbacks(self.config, rollbacks)
        if in_force != self.in_force:
            tensors, values = self.state.tensors(), self.state.scalars()
            self.build(in_force, self.state.dataset, draw=False)
            self.state.load(fit_state(tensors, self.state.tensors()), values, "the changed state")
        self.state.rollbacks = rollbacks
