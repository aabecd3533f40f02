"""The names of a dataset's files, beside its shards."""

from __future__ import annotations

INDEX, TABLE, EXCLUDED = "index.json", "table.npy", "excluded.jsonl"
CARDS = ("card.md", "card.html")
LABELS = "labels.npy"  # beside them, where the table of labels has further columns
BUILD_AGAIN = "build the shards again, into a new folder"
