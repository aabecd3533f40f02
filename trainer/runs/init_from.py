"""Fine-tuning: a new run starts from another's weights, or goes on from its whole state with other settings.

They are found and hashed when the settings are resolved, and copied into the run folder when it is made; from then on
the run needs nothing outside of it. With weights alone, optimizers, running scalars and progress begin anew.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from shards.atomic_files import fsync
from trainer.config.config import Config
from trainer.core.fields import Refused
from trainer.core.migration import load_json, schema_of, upgrade_values
from trainer.core.tensor_file import write_tensors
from trainer.gan.fingerprint import fingerprint
from trainer.gan.state import TrainState
from trainer.networks.spectral_norm import start_spectral_norm
from trainer.runs.bundle import plain_name
from trainer.runs.checkpoint import TENSORS, VALUES
from trainer.runs.more_classes import classes_before, shapes_before, take_old_classes
from trainer.runs.run_folder import RunFolder
from trainer.runs.weight_files import (
    ALL_PREFIXES,
    PREFIXES,
    RUNNING_SCALARS,
    is_of_bundle,
    network_shapes,
    read_tensors,
    read_weights,
    substitute_name,
    weights_file,
)

TAKEN_VALUES = "images_seen", "collapse_monitor", "g_scaler", "d_scaler"  # a new run has no rollbacks yet
SHOWN = 8  # tensors that were not taken, in the log; events.jsonl has them all


@dataclass(frozen=True)
class PretrainedWeights:
    """What a run takes over."""

    source: str
    """The file that the weights came from."""
    weights: dict[str, Tensor]
    """By their names in a state."""
    left: dict[str, str]
    """Tensors of the run that keep their own first values, and why; some but for the classes that there were."""
    values: dict[str, Any] = field(default_factory=dict)
    """With the whole state, TAKEN_VALUES; else empty."""

    @property
    def hash(self) -> str:
        """SHA-256 over all that is taken, as hex digits."""
        return fingerprint(self.weights, self.values)

    def taken(self) -> dict[str, int]:
        """Return how many tensors of each network were taken."""
        return {prefix[:-1]: sum(name.startswith(prefix) for name in self.weights) for prefix in PREFIXES}

    def words(self) -> str:
        """Say what was taken, and what was not."""
        taken = ", ".join(f"{count} of {network}" for network, count in self.taken().items())
        besides = f", and optimizers and progress: {self.values['images_seen']:,} images" if self.values else ""
        lines = [f"starting from {self.source}; tensors taken: {taken}{besides}"]
        lines += [f"  not taken: {name} {why}" for name, why in list(self.left.items())[:SHOWN]]
        more = len(self.left) - SHOWN
        return "\n".join(lines + ([f"  and {more} more: see events.jsonl"] if more > 0 else []))


def find_pretrained(config: Config) -> PretrainedWeights:
    """Find what a run with these settings takes over from `init_from`.

    Raises:
        Refused: that is no run, checkpoint or safetensors file, is damaged, or holds nothing that fits.
    """
    assert config.init_from is not None
    file = weights_file(config.init_from)
    if config.init_state == "all":
        return find_state(config, file)
    theirs, classes, of_bundle = read_weights(file), classes_before(config, file), is_of_bundle(file)
    weights, left, before = {}, {}, shapes_before(config, classes)
    for name, shape in network_shapes(config, with_vectors=False):
        source = plain_name(name) if of_bundle else name  # its weights are spectrally normalised already
        source = substitute_name(source) if substitute_name(source) in theirs and source not in theirs else source
        if source not in theirs:
            left[name] = "is missing there"
        elif tuple(theirs[source].shape) not in (shape, before.get(name)):
            left[name] = f"is {tuple(theirs[source].shape)} there, {shape} here"
        else:
            weights[name] = theirs[source] if source == name else theirs[source].clone()  # a file shares no memory
            if tuple(theirs[source].shape) != shape:
                left[name] = f"but for the {classes} classes there, of {config.network.classes} here"
    if not weights:
        raise Refused(f"--init-from {config.init_from}: none of its {len(theirs)} weights fits this run's networks")
    refuse_infinite(config, file, weights)
    return PretrainedWeights(str(file), weights, left)


def find_state(config: Config, file: Path) -> PretrainedWeights:
    """Find the whole state that a run with these settings goes on from, beside the tensors in `file`.

    Raises:
        Refused: it is of other networks, is damaged, or its progress does not fit this run's steps.
    """
    where = f"--init-from {config.init_from}"
    if file == config.init_from or is_of_bundle(file):
        raise Refused(f"{where} is a file of weights alone, without progress: name a run, or use --init-state weights")
    tensors, values = read_tensors(file, ALL_PREFIXES), load_json(file.parent / VALUES)
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items() if name.startswith(PREFIXES)}
    wanted = dict(network_shapes(config))
    for name in sorted(shapes.keys() | wanted.keys()):
        if shapes.get(name) != wanted.get(name):
            there, here = shapes.get(name, "missing"), wanted.get(name, "missing")
            raise Refused(f"{where}: {name} is {there} there, {here} here; --init-state weights takes what fits")
    # Whether an interval was passed is told from whole steps (Config.passed).
    if values["images_seen"] % config.step_images:
        raise Refused(
            f"{where}: its {values['images_seen']:,} images are no whole number of this run's steps of "
            f"{config.step_images:,}; keep its --batch-size and --d-steps, or use --init-state weights"
        )
    # The penalties may be others than there: those of this run alone begin anew, and those of that run alone are left.
    mine = {RUNNING_SCALARS + name for name in config.initial_scalars()}
    kept = {name for name in tensors if name.startswith(RUNNING_SCALARS)}
    left = {name: "is missing there" for name in sorted(mine - kept)}
    taken = {name: tensor for name, tensor in tensors.items() if name not in kept - mine}
    refuse_infinite(config, file, taken)
    return PretrainedWeights(str(file), taken, left, {name: values[name] for name in TAKEN_VALUES})


def refuse_infinite(config: Config, file: Path, tensors: dict[str, Tensor]) -> None:
    """Refuse to start from what has broken already.

    Raises:
        Refused: naming a tensor, and the checkpoints before the one that holds it.
    """
    if odd := [name for name, tensor in tensors.items() if not bool(tensor.isfinite().all())]:
        # Names begin with the images seen: they sort by age, and quarantined ones begin otherwise.
        older = [path for path in sorted(file.parent.parent.glob("0*")) if file.name == TENSORS and path < file.parent]
        instead = f"an older checkpoint, such as {older[-1]}" if older else "another one"
        raise Refused(f"--init-from {config.init_from}: {odd[0]} holds NaN or Inf; name {instead}")


def keep_pretrained(run: RunFolder, config: Config) -> None:
    """Copy what the run takes over into its folder.

    Raises:
        Refused: it is not what it was when the settings were resolved.
        OSError: it cannot be written.
    """
    pretrained = find_pretrained(config)
    if pretrained.hash != config.init_hash:
        raise Refused(f"--init-from {config.init_from} has changed just now, as a run that trains does; try again")
    temporary = run.initial_weights.with_suffix(".tmp")
    try:
        about = {
            "source": pretrained.source,
            "left": json.dumps(pretrained.left),
            "values": json.dumps(pretrained.values),
        }
        write_tensors(pretrained.weights, temporary, about)
    except SafetensorError as error:
        temporary.unlink(missing_ok=True)
        raise OSError(None, str(error)) from error
    # On the disk before it has its name: the run's identity has the hash of it.
    fsync(temporary)
    temporary.replace(run.initial_weights)
    fsync(run.path)


def read_pretrained(run: RunFolder, expected: str) -> PretrainedWeights:
    """Read what the run takes over from its own folder.

    Raises:
        Refused: it is not there, or not what the run was made with.
    """
    weights = read_tensors(run.initial_weights, ALL_PREFIXES)
    with safe_open(run.initial_weights, framework="pt") as file:
        about = {"source": str(run.initial_weights), "left": "{}", "values": "{}"} | (file.metadata() or {})
    stored = json.loads(about["values"]) | {"schema": schema_of(about, str(run.initial_weights))}
    values = upgrade_values(VALUES, stored, str(run.initial_weights))
    pretrained = PretrainedWeights(about["source"], weights, json.loads(about["left"]), values)
    if pretrained.hash != expected:
        raise Refused(f"{run.initial_weights} is not what the run was made with; start a new run with --init-from")
    return pretrained


def begins_at(run: RunFolder) -> int:
    """Return the images that a run had seen when it began: those of the state that it goes on from, or 0."""
    if not run.initial_weights.exists():
        return 0
    with safe_open(run.initial_weights, framework="pt") as file:
        values = json.loads((file.metadata() or {}).get("values", "{}"))
    return int(values.get("images_seen", 0))


@torch.no_grad()
def take_over(state: TrainState, pretrained: PretrainedWeights, seed: int) -> None:
    """Put what was taken in the place of what was drawn; with weights alone, spectral norm's vectors begin anew."""
    mine = state.tensors()
    for name, tensor in pretrained.weights.items():
        if mine[name].shape == tensor.shape:
            mine[name].copy_(tensor)
        else:
            take_old_classes(state, name, mine[name], tensor)
    if pretrained.values:
        state.load_scalars(pretrained.values)
    else:
        start_spectral_norm(state.generator, seed, "generator")
        start_spectral_norm(state.discriminator, seed, "discriminator")
