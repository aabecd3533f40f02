"""Fine-tuning: a new run starts from another's weights.

They are found and hashed when the settings are settled, and copied into the run folder when it is made; from then on
the run needs nothing outside of it. Optimizers, memory and progress are not taken over.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from shards.durable import flush
from trainer.checkpoint import MANIFEST, TENSORS, Checkpoint, Damaged, newest_whole
from trainer.config import Config
from trainer.networks import build_discriminator, build_generator
from trainer.networks.spectral_norm import SpectralNorm, start_spectral_norm
from trainer.run_folder import RunFolder
from trainer.settings import Refused
from trainer.state import TrainState, fingerprint

PREFIXES = GENERATOR, DISCRIMINATOR, AVERAGE = "generator.", "discriminator.", "ema."
SHOWN = 8  # tensors that were not taken, in the log; events.jsonl has them all


@dataclass(frozen=True)
class Initial:
    """What a run takes over."""

    source: str
    """The file that the weights came from."""
    weights: dict[str, Tensor]
    """By their names in a state."""
    left: dict[str, str]
    """Tensors of the run that keep their own first values, and why."""

    @property
    def hash(self) -> str:
        """SHA-256 over the weights, as hex digits."""
        return fingerprint(self.weights, {})

    def taken(self) -> dict[str, int]:
        """Return how many tensors of each network were taken."""
        return {prefix[:-1]: sum(name.startswith(prefix) for name in self.weights) for prefix in PREFIXES}

    def words(self) -> str:
        """Say what was taken, and what was not."""
        taken = ", ".join(f"{count} of {network}" for network, count in self.taken().items())
        lines = [f"starting from {self.source}; tensors taken: {taken}"]
        lines += [f"  not taken: {name} {why}" for name, why in list(self.left.items())[:SHOWN]]
        more = len(self.left) - SHOWN
        return "\n".join(lines + ([f"  and {more} more: see events.jsonl"] if more > 0 else []))


def find_initial(config: Config) -> Initial:
    """Find what a run with these settings takes over from `init_from`.

    Raises:
        Refused: that is no run, checkpoint or safetensors file, is damaged, or holds nothing that fits.
    """
    assert config.init_from is not None
    file = weights_file(config.init_from)
    theirs = read_tensors(file, PREFIXES)
    weights, left = {}, {}
    for name, shape in wanted(config):
        source = stand_in(name) if stand_in(name) in theirs and name not in theirs else name
        if source not in theirs:
            left[name] = "is missing there"
        elif tuple(theirs[source].shape) != shape:
            left[name] = f"is {tuple(theirs[source].shape)} there, {shape} here"
        else:
            weights[name] = theirs[source] if source == name else theirs[source].clone()  # a file shares no memory
    if not weights:
        raise Refused(f"--init-from {config.init_from}: none of its {len(theirs)} weights fits this run's networks")
    if odd := [name for name, tensor in weights.items() if not bool(tensor.isfinite().all())]:
        raise Refused(f"--init-from {config.init_from}: {odd[0]} holds NaN or Inf; name an older checkpoint")
    return Initial(str(file), weights, left)


def stand_in(name: str) -> str:
    """Return what takes a generator's weight's place in a file that lacks it: its average, and the other way round."""
    prefix, _, rest = name.partition(".")
    return {"generator": AVERAGE, "ema": GENERATOR}.get(prefix, DISCRIMINATOR) + rest


def weights_file(path: Path) -> Path:
    """Return the file that holds the weights of a run's newest whole checkpoint, of a checkpoint, or the file itself.

    Raises:
        Refused: there is none.
    """
    if path.is_file():
        return path
    if (path / MANIFEST).exists():
        try:
            Checkpoint(path, 0, 0).verify()
        except Damaged as error:
            raise Refused(f"--init-from {path}: this checkpoint is damaged: {error}") from error
        return path / TENSORS
    if not RunFolder(path).config.exists():
        raise Refused(f"--init-from {path} is no run folder, no checkpoint folder and no safetensors file")
    found = newest_whole(
        RunFolder(path).checkpoints,
        lambda checkpoint, problem: print(f"passed over damaged {checkpoint.path}: {problem}", file=sys.stderr),
    )
    if found is None:
        raise Refused(f"--init-from {path}: this run holds no whole checkpoint")
    return found.path / TENSORS


def read_tensors(path: Path, prefixes: tuple[str, ...]) -> dict[str, Tensor]:
    """Read those tensors of a safetensors file whose names begin so.

    Raises:
        Refused: it cannot be read, or is no such file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys() if name.startswith(prefixes)}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise Refused(f"{path} cannot be read as a safetensors file: {error}") from error


def wanted(config: Config) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield the name and shape of each tensor that a run can take over: of parameters and BatchNorm's statistics."""
    with torch.device("meta"):  # shapes alone: nothing is allocated
        generator = build_generator(config.generator, config.network)
        discriminator = build_discriminator(config.discriminator, config.network)
    for prefix, network in ((GENERATOR, generator), (DISCRIMINATOR, discriminator)):
        vectors = spectral_vectors(network)
        for name, tensor in network.state_dict().items():
            if name not in vectors:
                yield prefix + name, tuple(tensor.shape)
    for name, parameter in generator.named_parameters():
        yield AVERAGE + name, tuple(parameter.shape)


def spectral_vectors(network: nn.Module) -> set[str]:
    """Return the names of spectral norm's vectors, which follow from the weights."""
    norms = [name for name, module in network.named_modules() if isinstance(module, SpectralNorm)]
    return {f"{name}.{vector}" for name in norms for vector in ("u", "v")}


def keep_initial(run: RunFolder, config: Config) -> None:
    """Copy what the run takes over into its folder.

    Raises:
        Refused: it is not what it was when the settings were settled.
        OSError: it cannot be written.
    """
    initial = find_initial(config)
    if initial.hash != config.init_hash:
        raise Refused(f"--init-from {config.init_from} has changed just now, as a run that trains does; try again")
    temporary = run.initial.with_suffix(".tmp")
    try:
        save_file(initial.weights, temporary, {"source": initial.source, "left": json.dumps(initial.left)})
    except SafetensorError as error:
        temporary.unlink(missing_ok=True)
        raise OSError(None, str(error)) from error
    flush(temporary)
    temporary.replace(run.initial)
    flush(run.path)


def read_initial(run: RunFolder, expected: str) -> Initial:
    """Read what the run takes over from its own folder.

    Raises:
        Refused: it is not there, or not what the run was made with.
    """
    weights = read_tensors(run.initial, PREFIXES)
    with safe_open(run.initial, framework="pt") as file:
        about = {"source": str(run.initial), "left": "{}"} | (file.metadata() or {})
    initial = Initial(about["source"], weights, json.loads(about["left"]))
    if initial.hash != expected:
        raise Refused(f"{run.initial} is not what the run was made with; start a new run with --init-from")
    return initial


@torch.no_grad()
def take_over(state: TrainState, weights: dict[str, Tensor], seed: int) -> None:
    """Put weights in the place of those that were drawn, and let spectral norm's vectors begin anew."""
    mine = state.tensors()
    for name, tensor in weights.items():
        mine[name].copy_(tensor)
    start_spectral_norm(state.generator, seed, "generator")
    start_spectral_norm(state.discriminator, seed, "discriminator")
