"""The bundled pictures, for a first run without data of one's own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from shards.images.size import shape_options
from trainer.core.fields import Refused
from trainer.networks.network_settings import NetworkSettings

HOME = Path(__file__).parents[2]  # of the packages: a checkout, or site-packages
ARCHIVE = Path(__file__).with_name("clipart.zip")
# An installed package leaves nothing among the packages: its demo lies where its runs lie.
FOLDER = HOME / "demo" if (HOME / "pyproject.toml").exists() else Path("demo")


def demo_shards(network: NetworkSettings) -> Path:
    """Return the demo's shards for these networks, built from the bundled pictures when they are not there.

    Raises:
        Refused: there are no bundled pictures, or they cannot be built.
    """
    options = shape_options(network.shape, network.channels).split()
    shards = FOLDER.absolute() / f"shards-{'-'.join(options[1::2])}"
    if (shards / "index.json").exists():
        return shards
    if not ARCHIVE.exists():
        raise Refused(
            "no data is named, and the bundled pictures are not here: use --data DIR, a folder that python -m shards "
            "build made, or name it for good with: python -m launcher init --data DIR"
        )
    print(f"no data is named: building {shards} from the bundled pictures", file=sys.stderr)
    try:
        shards.parent.mkdir(exist_ok=True)
        # Beside its place, so that a rename can move it: a build that is killed leaves nothing that looks complete.
        with TemporaryDirectory(dir=shards.parent, prefix=f".{shards.name}-") as folder:
            build_shards(Path(folder) / "shards", options)
            move_into_place(Path(folder) / "shards", shards)
    except OSError as error:
        raise Refused(f"{shards} cannot be made: {error.strerror}; remove what is there, or name --data") from error
    return shards


def build_shards(shards: Path, options: list[str]) -> None:
    """Build the bundled pictures into a new folder.

    Raises:
        Refused: it cannot be done.
    """
    command = [sys.executable, "-m", "shards", "build", str(ARCHIVE), "--out", str(shards), *options]
    # cwd: the package `shards` must be found wherever the user stands.
    if subprocess.run(command, cwd=HOME, check=False).returncode:
        raise Refused("the bundled pictures could not be made into shards: see above; name --data")


def move_into_place(built: Path, place: Path) -> None:
    """Give a folder its name, unless another process was faster: theirs holds the same bytes.

    Raises:
        OSError: it cannot be given.
    """
    try:
        # A rename onto a folder that is not empty fails, so that of two builds the second one is dropped.
        built.rename(place)
    except OSError:
        if not (place / "index.json").exists():
            raise
