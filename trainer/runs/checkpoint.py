"""Checkpoints: whole or not there, written while training goes on.

    checkpoints/000000064000-r00/     images seen, number of rollbacks
        state.safetensors             every tensor of the state
        state.json                    every other value of it
        manifest.json                 size and SHA-256 of both; written last

A checkpoint is written under a temporary name, each file fsynced, and then renamed. Reading checks the hashes and walks
back to the newest one that is whole; a damaged one is set aside, never deleted.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from trainer.core.fields import Refused
from trainer.core.file_hash import file_sha256
from trainer.core.formats import FIRST
from trainer.core.migration import known_schema, load_json, tensor_name, upgrade_values
from trainer.runs.run_folder import RunFolder

TENSORS, VALUES, MANIFEST = "state.safetensors", "state.json", "manifest.json"


class Damaged(Exception):
    """A checkpoint is not what its manifest says; the message says how."""


@dataclass(frozen=True)
class Checkpoint:
    """A folder that holds, or should hold, a state."""

    path: Path
    images_seen: int
    rollbacks: int

    @classmethod
    def parse(cls, path: Path) -> Checkpoint | None:
        """Read a folder's name; None when it is not a checkpoint's."""
        images, _, rollbacks = path.name.partition("-r")
        return cls(path, int(images), int(rollbacks)) if images.isdigit() and rollbacks.isdigit() else None

    @property
    def age(self) -> tuple[int, int]:
        """Sorts checkpoints from old to new: what a rollback has left behind is older than what came after it."""
        return self.rollbacks, self.images_seen

    def verify(self) -> None:
        """Compare every file with the manifest.

        Raises:
            Damaged: a file is missing, of another size or other content.
            Refused: a later version wrote it.
        """
        try:
            manifest = load_json(self.path / MANIFEST)
            for name in (TENSORS, VALUES):
                expected = manifest["files"][name]
                file = self.path / name
                # The size first: it costs nothing, and a torn write shows in it.
                if file.stat().st_size != expected["bytes"]:
                    raise Damaged(f"{name} has {file.stat().st_size} bytes in place of {expected['bytes']}")
                if file_sha256(file) != expected["sha256"]:
                    raise Damaged(f"{name} has changed since it was written")
        except OSError as error:
            raise Damaged(f"{Path(str(error.filename)).name} cannot be read ({error.strerror})") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:  # no JSON, or of another shape
            raise Damaged(f"{MANIFEST} is not a manifest") from error

    def read(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return the tensors and the other values, both without unpickling anything.

        Raises:
            Damaged: they cannot be read.
            Refused: a later version wrote them.
        """
        try:
            values = json.loads((self.path / VALUES).read_text())
            schema = known_schema(values.get("schema", FIRST), str(self.path / VALUES))
            tensors = {tensor_name(name, schema): tensor for name, tensor in load_file(self.path / TENSORS).items()}
            return tensors, upgrade_values(VALUES, values, str(self.path / VALUES))
        except (OSError, ValueError, SafetensorError) as error:
            raise Damaged(str(error)) from error

    def healthy(self) -> bool:
        """Tell whether the collapse monitor had seen no sign of collapse or divergence when the state was saved."""
        try:
            # What cannot be read is not healthy: a rollback had better go further back.
            return bool(load_json(self.path / VALUES)["collapse_monitor"]["sound"])
        except (OSError, ValueError, KeyError):
            return False


def find_checkpoints(folder: Path) -> list[Checkpoint]:
    """Return the checkpoints in a folder, from new to old, unverified."""
    found = [Checkpoint.parse(path) for path in folder.iterdir()] if folder.is_dir() else []
    return sorted((c for c in found if c), key=lambda c: c.age, reverse=True)


def newest_whole(
    folder: Path, on_damage: Callable[[Checkpoint, str], None], wanted: Callable[[Checkpoint], bool] = lambda _: True
) -> Checkpoint | None:
    """Walk back to the newest wanted checkpoint that is whole, telling `on_damage` of the damaged ones passed by."""
    for checkpoint in find_checkpoints(folder):
        try:
            # Before `wanted`, which may read the files.
            checkpoint.verify()
            if wanted(checkpoint):
                return checkpoint
        except Damaged as error:
            on_damage(checkpoint, str(error))
    return None


def newest_or_refuse(run: RunFolder, refusal: str = "") -> Checkpoint:
    """Return the newest whole checkpoint, naming on standard error those that are damaged.

    Args:
        run: the run.
        refusal: what to say if there is none; default: that the run holds none.

    Raises:
        Refused: there is none.
    """
    found = newest_whole(
        run.checkpoints,
        lambda checkpoint, problem: print(f"passed over damaged {checkpoint.path}: {problem}", file=sys.stderr),
    )
    if found is None:
        raise Refused(refusal or f"{run.path} holds no whole checkpoint")
    return found


def quarantine(checkpoint: Checkpoint) -> Path:
    """Rename a damaged checkpoint so that nothing takes it for one, and nothing prunes it."""
    # A run that comes by again writes the same checkpoint, which may be damaged again.
    for attempt in range(1, 1000):
        target = checkpoint.path.with_name(f"damaged-{checkpoint.path.name}-{attempt}")
        if not target.exists():
            return checkpoint.path.rename(target)
    raise FileExistsError(checkpoint.path)
