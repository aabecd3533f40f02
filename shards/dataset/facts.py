"""Read what a shard tells of a sample besides its picture: file, label, and size of the original."""

from __future__ import annotations

import json
import tarfile
from typing import Any

import numpy as np

from shards.dataset.index import Index


def read_facts(index: Index, split: str, sample: int) -> dict[str, Any]:
    """Return the content of the json member of a sample, which is numbered in its split.

    Raises:
        OSError: the shard cannot be read.
        ValueError: it is damaged there.
    """
    described = index.splits[split]
    shard = int(np.searchsorted(np.cumsum(described.shard_samples), sample, side="right"))
    with (index.folder / described.shards[shard].name).open("rb") as file:
        file.seek(int(index.table[described.first + sample]["start"]))
        try:
            with tarfile.open(fileobj=file, mode="r:") as archive:
                for member in archive:
                    if member.name.endswith(".json") and (content := archive.extractfile(member)):
                        facts: dict[str, Any] = json.load(content)
                        return facts
        except tarfile.TarError as error:
            raise ValueError(f"{described.shards[shard].name}: {error}") from error
    raise ValueError(f"{described.shards[shard].name}: no json member of sample {sample}")
