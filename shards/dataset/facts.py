"""Read what a shard tells of a sample besides its picture: file, label, and size of the original."""

from __future__ import annotations

import io
import json
import tarfile
from typing import Any

import numpy as np

from shards.dataset.index import ORIGINAL, Index
from shards.storage.storage import open_storage

MOST_JSON = 1 << 20  # bytes that are read behind a picture; its json member may be there


def read_facts(index: Index, split: str, sample: int) -> dict[str, Any]:
    """Return the content of the json member of a sample, which is numbered in its split.

    Of shards that were indexed in place, the name of the picture is all that is known: their members are others' own.

    Raises:
        StorageError: the shard cannot be read.
        ValueError: it is damaged there.
    """
    described = index.splits[split]
    name, row = described.shard_name(described.shard_of(sample)), index.table[np.array([described.first + sample])][0]
    start, end = int(row["start"]), int(row["offset"]) + int(row["size"])
    data = open_storage(index.shards_at).read_range(name, start, end - start + MOST_JSON)
    return parse_facts(data, name, index.encoding == ORIGINAL)


def parse_facts(region: bytes, name: str, foreign: bool = False) -> dict[str, Any]:
    """Return the content of the json member of a sample.

    Args:
        region: its bytes; more may follow.
        name: of the shard.
        foreign: whether the shard was indexed in place.

    Raises:
        ValueError: it is damaged.
    """
    try:
        with tarfile.open(fileobj=io.BytesIO(region), mode="r:", errors="surrogateescape") as archive:
            while (member := archive.next()) is not None:
                if foreign:
                    return {"file": f"{name}/{member.name}"}
                if member.name.endswith(".json") and (content := archive.extractfile(member)):
                    facts: dict[str, Any] = json.load(content)
                    return facts
    except (tarfile.TarError, OverflowError, RecursionError) as error:
        raise ValueError(f"{name}: {error}") from error
    raise ValueError(f"{name}: no json member of a sample")
