"""The options of `shards build` that say where labels come from, and which pictures a table chooses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import UseAppendAction

from shards.dataset.index import DataError
from shards.sources.label_file import find_label_file, open_file, source_with_table
from shards.sources.label_table import LabelTable
from shards.sources.parquet_labels import ParquetLabels
from shards.sources.parquet_source import parquet_files
from shards.storage.place import Place

PARQUET = "parquet"  # as --labels: columns of the files that hold the pictures
Labels = Literal["none", "folders"] | LabelTable


@dataclass(frozen=True, kw_only=True)
class LabelOptions:
    """Where labels come from."""

    labels: str = "none"
    """"none", "folders" (the first folder of the path), "parquet" (columns beside the pictures), or a table: a CSV, or
    StyleGAN's dataset.json; also one inside the source, or at a URL."""
    file_column: str = "file"
    """The table's column of file names: the path in the source, its last part, or that without extension."""
    label_column: tuple[str, ...] = ("label",)
    """The table's columns of labels, such as: style genre artist. Training uses the first by default; the others
    are stored beside it."""
    number_column: tuple[str, ...] = ()
    """Columns of numbers to store as well, such as: year."""
    filter: Annotated[tuple[str, ...], UseAppendAction] = ()
    """Take only pictures whose row has this value: COLUMN=VALUE; may be given several times."""
    normalise_labels: bool = False
    """Take class names for the same that differ only in case, white space or form of Unicode."""


def labels_of(args: LabelOptions, sources: Mapping[str, Place], max_bytes: int) -> Labels:
    """Return the source of the labels.

    Args:
        args: the options.
        sources: of the pictures, by their names; a single one has none.
        max_bytes: the longest member of an archive that is read.

    Raises:
        DataError: there is no such file, or an option does not fit.
    """
    match args.labels:
        case "none" | "folders" as known:
            if args.filter or args.number_column or len(args.label_column) > 1:
                raise DataError(
                    f"--labels {known} has no columns for --filter, --number-column or several in --label-column: give "
                    "a table"
                )
            return known
    if not args.label_column:
        raise DataError("--label-column names no column: name at least one")
    columns = (*args.label_column, *args.number_column)
    if twice := next((column for number, column in enumerate(columns) if column in columns[:number]), None):
        raise DataError(f"column {twice!r} is named twice in --label-column and --number-column: name it once")
    filters = tuple(parse_filter(text) for text in args.filter)
    numbers = args.number_column
    if args.labels == PARQUET:
        files = tuple((f"{name}/" if name else "", path) for name in sources for path in find_parquet(sources[name]))
        rest = (args.file_column, args.label_column, numbers, filters, args.normalise_labels)
        return ParquetLabels(min(sources.items())[1], partial(open_file, files[0][1]), *rest, files=files)
    path, opener = find_label_file(args.labels, source_with_table(args.labels, sources), max_bytes)
    return LabelTable(path, opener, args.file_column, args.label_column, numbers, filters, args.normalise_labels)


def find_parquet(source: Place) -> tuple[Path, ...]:
    """Return the Parquet files of a source.

    Raises:
        DataError: it has none.
    """
    if isinstance(source, Path) and (files := parquet_files(source)):
        return tuple(files)
    raise DataError(f"--labels {PARQUET}, but {source} is neither a Parquet file nor a folder of them: give a table")


def parse_filter(text: str) -> tuple[str, str]:
    """Return the column and the value of COLUMN=VALUE.

    Raises:
        DataError: it is not of this form.
    """
    column, equals, value = text.partition("=")
    if not equals or not column:
        raise DataError(f"--filter must be COLUMN=VALUE, such as style=Baroque, but got {text!r}")
    return column, value


def label_settings(args: LabelOptions) -> dict[str, Any]:
    """Return what of the options determines the bytes; what is not asked for is absent, as in older indexes."""
    return {
        "labels": args.labels if args.labels in ("none", "folders") else [args.file_column, *args.label_column],
        **({"number_columns": list(args.number_column)} if args.number_column else {}),
        **({"filters": list(args.filter)} if args.filter else {}),
        **({"normalise_labels": True} if args.normalise_labels else {}),
    }
