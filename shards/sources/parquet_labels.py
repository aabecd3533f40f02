"""Labels in the columns of the Parquet files that hold the pictures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shards.errors import DataError
from shards.sources.label_table import LabelTable, TableRow
from shards.sources.parquet_source import hub_features, numbered_rows, open_parquet
from shards.sources.source_entry import decode_name, quote_name

BATCH = 4096  # rows


@dataclass(frozen=True)
class ParquetLabels(LabelTable):
    """The columns beside the pictures."""

    files: tuple[tuple[str, Path], ...] = ()
    """Each with what the names of its pictures begin with, where there are several sources."""

    def rows(self) -> Iterator[TableRow]:
        """Yield a row for each picture.

        Raises:
            DataError: a file is damaged or lacks a column, or there is no number where one is asked for.
        """
        for prefix, path in self.files:
            yield from self.rows_of(prefix, path, open_parquet(path))

    def rows_of(self, prefix: str, path: Path, file: Any) -> Iterator[TableRow]:
        """Yield the rows of one file."""
        wanted = (*self.label_columns, *self.number_columns, *(column for column, _ in self.filters))
        columns = file.schema_arrow.names
        if missing := next((column for column in wanted if column not in columns), None):
            raise DataError(
                f"{path} has no column {missing!r}; it has: {', '.join(map(quote_name, columns))}: name another one "
                "with --label-column"
            )
        names = {column: class_names(hub_features(file).get(column, {})) for column in wanted}
        rows = numbered_rows(path, file)
        for batch in file.iter_batches(BATCH, columns=list(dict.fromkeys(wanted)), use_threads=False):
            for cells in batch.to_pylist():
                _, number, name = next(rows)
                text = {column: to_text(cell, names[column]) for column, cell in cells.items()}
                yield self.parse_row({self.file_column: prefix + decode_name(name), **text}, ",", number)


def class_names(feature: dict[str, Any]) -> list[str]:
    """Return the names of the classes of a column of the hub; empty: it has none."""
    return [str(name) for name in feature.get("names") or []] if feature.get("_type") == "ClassLabel" else []


def to_text(cell: Any, names: list[str]) -> str:
    """Return a cell as the text that it would be in a CSV; an unknown class (-1) is empty, as a missing cell."""
    if cell is None:
        return ""
    if names and isinstance(cell, int):
        return names[cell] if 0 <= cell < len(names) else ""
    return str(cell)
