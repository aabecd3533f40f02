"""A small dataset in the format of shards/index.py."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import webdataset
import xxhash

from shards.encode import ENCODINGS
from shards.index import EXCLUDED, INDEX, ROW, SCHEMA, TABLE

SIZE = 20
SPLITS = {"train": (7, 6, 5), "holdout": (3,)}


def shard(path: Path, first: int, samples: int, encode: str) -> tuple[dict[str, Any], npt.NDArray[np.void]]:
    encoding, rows, stream = ENCODINGS[encode], np.zeros(samples, ROW), io.BytesIO()
    writer = webdataset.TarWriter(stream, mtime=0, encoder=False)
    for i in range(first, first + samples):
        pixels = np.random.default_rng(i).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
        described = json.dumps({"source": f"folder/picture {i}.png", "width": 40 + i, "height": 30}).encode()
        writer.write({"__key__": f"{i:09}", encoding.extension: encoding.encode(pixels), "json": described})
    writer.close()
    data = stream.getvalue()
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        members = archive.getmembers()
    ends = [member.offset_data + -(-member.size // 512) * 512 for member in members]
    for i in range(samples):
        image = next(member for member in members[2 * i : 2 * i + 2] if not member.name.endswith("json"))
        start = members[2 * i].offset
        image_hash = xxhash.xxh3_64_intdigest(data[image.offset_data :][: image.size])
        region_hash = xxhash.xxh3_64_intdigest(data[start : ends[2 * i + 1]])
        rows[i] = (start, image.offset_data, image.size, i % 2, image_hash, region_hash)
    path.write_bytes(stream.getvalue())
    sha256 = hashlib.sha256(stream.getvalue()).hexdigest()
    return {"name": path.name, "samples": samples, "bytes": len(stream.getvalue()), "sha256": sha256}, rows


def build(folder: Path, encode: str) -> Path:
    folder.mkdir()
    tables, splits, first = [], {}, 0
    for split, counts in SPLITS.items():
        shards = []
        for i, samples in enumerate(counts):
            described, rows = shard(folder / f"{split}-{i:05}.tar", first, samples, encode)
            first += samples
            shards.append(described)
            tables.append(rows)
        splits[split] = {"samples": sum(counts), "shards": shards}
    np.save(folder / TABLE, np.concatenate(tables))
    reasons = "empty", "truncated", "empty"
    lines = [json.dumps({"source": f"{i}.png", "reason": reason, "detail": ""}) for i, reason in enumerate(reasons)]
    (folder / EXCLUDED).write_text("\n".join(lines) + "\n")
    content = {
        "schema": SCHEMA,
        "settings": {"size": SIZE, "encode": encode},
        "classes": ["flags", "others"],
        "splits": splits,
        "table_sha256": hashlib.sha256((folder / TABLE).read_bytes()).hexdigest(),
        "excluded_sha256": hashlib.sha256((folder / EXCLUDED).read_bytes()).hexdigest(),
        "index_sha256": "0" * 64,
    }
    text = json.dumps(content, indent=1)
    (folder / INDEX).write_text(text.replace("0" * 64, hashlib.sha256(text.encode()).hexdigest()))
    return folder
