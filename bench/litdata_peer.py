"""Loading by litdata, as a peer in an environment of its own; run by bench.loading_256 and bench.streaming.

`.bench-venv/bin/python bench/litdata_peer.py FOLDER make FILE…` writes a dataset of these files. `… FOLDER read WORKERS
BATCH WARM BATCHES` prints the samples a second of so many batches after so many others, decoded by Pillow to bytes;
`… URL epoch WORKERS BATCH CACHE` prints the seconds of an epoch from a bucket through a cache.
"""

from __future__ import annotations

import io
import sys
import time
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from litdata import StreamingDataLoader, StreamingDataset, optimize  # type: ignore[import-not-found]  # as above
from litdata.streaming import downloader  # type: ignore[import-not-found]
from PIL import Image


def sample_of(path: str) -> dict[str, object]:
    """Return a picture as it is stored."""
    return {"image": Path(path).read_bytes(), "class": 0}


class Decoded(StreamingDataset):  # type: ignore[misc]
    """Decodes what is stored: litdata's own decoding of JPEGs wants torchvision."""

    def __getitem__(self, index: object) -> tuple[torch.Tensor, int]:
        stored = super().__getitem__(index)
        with Image.open(io.BytesIO(stored["image"])) as image:
            return torch.from_numpy(np.array(image.convert("RGB"))), stored["class"]


def epoch_seconds(url: str, workers: int, batch: int, cache: str) -> float:
    """Return the seconds of one epoch, without Python's start."""
    downloader._OBSTORE_CLIENT_OPTIONS["allow_http"] = True  # of the server on loopback; it has no setting for that
    began = time.perf_counter()
    data = Decoded(url, cache_dir=cache, shuffle=True)
    samples = sum(len(images) for images, _ in StreamingDataLoader(data, batch_size=batch, num_workers=workers))
    assert samples == len(data), f"{samples} of {len(data)} samples"
    return time.perf_counter() - began


def main() -> None:
    folder, act, *rest = sys.argv[1:]
    if act == "make":
        optimize(fn=sample_of, inputs=rest, output_dir=folder, num_workers=1, chunk_bytes="8MB")
        return
    if act == "epoch":
        print(epoch_seconds(folder, int(rest[0]), int(rest[1]), rest[2]))
        return
    workers, batch, warm, count = map(int, rest)
    loader = StreamingDataLoader(Decoded(folder, shuffle=True), batch_size=batch, num_workers=workers, drop_last=True)
    endless = (one for _ in range(warm + count) for one in loader)
    for _ in islice(endless, warm):
        pass
    began = time.perf_counter()
    for _ in islice(endless, count):
        pass
    print(batch * count / (time.perf_counter() - began))


if __name__ == "__main__":
    main()
