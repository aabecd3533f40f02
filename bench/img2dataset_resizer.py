"""img2dataset's resizer (cv2, area filter, to JPEG), as a peer in an environment of its own; run by bench.sharding.

`.bench-venv/bin/python bench/img2dataset_resizer.py FOLDER SIZE PROCESSES` prints the seconds that it needs for all
pictures, in processes that were started before.
"""

from __future__ import annotations

import io
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from img2dataset.resizer import Resizer


def resize(path: Path, size: int) -> None:
    """Read, decode, resize and encode one picture."""
    *_, error = Resizer(size, "center_crop", False)(io.BytesIO(path.read_bytes()))
    if error:
        raise SystemExit(f"{path}: {error}")


def main() -> None:
    folder, size, processes = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    paths = sorted(folder.iterdir())
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        list(pool.map(partial(resize, size=size), paths[: 2 * processes]))
        started = time.perf_counter()
        list(pool.map(partial(resize, size=size), paths, chunksize=4))
        print(time.perf_counter() - started)


if __name__ == "__main__":
    main()
