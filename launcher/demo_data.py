"""The bundled pictures, for a first run without data of one's own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from trainer.settings import Refused

HOME = Path(__file__).parent.parent
ARCHIVE = HOME / "examples" / "clipart.zip"


def demo_shards(size: int) -> Path:
    """Return the demo's shards of this size, built from the bundled pictures when they are not there.

    Raises:
        Refused: there are no bundled pictures, or they cannot be built.
    """
    shards = HOME / "demo" / f"shards-{size}"
    if (shards / "index.json").exists():
        return shards
    if not ARCHIVE.exists():
        raise Refused(
            "no data is named, and the bundled pictures are not here: use --data DIR, a folder that python -m shards "
            "build made, or name it for good with: python -m launcher init --data DIR"
        )
    print(f"no data is named: building {shards} from the bundled pictures", file=sys.stderr)
    command = [sys.executable, "-m", "shards", "build", str(ARCHIVE), "--out", str(shards), "--size", str(size)]
    if subprocess.run([*command, "--resume"], cwd=HOME, check=False).returncode:
        raise Refused(f"the bundled pictures could not be made into shards: see above; remove {shards} and try again")
    return shards
