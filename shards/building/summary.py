"""The summary that `shards build` prints."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from shards.building.build_db import BuildDb, Exclusions
from shards.building.duplicates import Copies, count_copies, find_names
from shards.building.holdout import SPLITS
from shards.building.old_dataset import OldDataset
from shards.dataset.files import EXCLUDED, LABELS
from shards.exclusion import NOTES, REASONS
from shards.images.size import format_size
from shards.sources.label_names import near_equal_labels
from shards.sources.source_entry import quote_name
from shards.storage.place import Place

MAX_REASONS = 12  # lines of reasons
MAX_NEAR_EQUAL = 5  # lines of classes
EXAMPLE_LENGTH = 100  # characters of a name, and of a detail


def summary_lines(
    content: dict[str, Any], out: Place, exclusions: Exclusions, examples: dict[str, str]
) -> Iterator[str]:
    """Yield the lines of the summary.

    Args:
        content: of the index.
        out: the folder or URL.
        exclusions: of the build.
        examples: by split, two files with the same pixels.
    """
    train, holdout = (content["splits"][split] for split in SPLITS)
    shards, samples = [train["shards"], holdout["shards"]], train["samples"] + holdout["samples"]
    # Shards that were indexed in place may hold samples of both sides.
    sizes = {sha256: size for one in shards for sha256, size in zip(one["sha256"], one["bytes"], strict=True)}
    yield (
        f"{out}: {train['samples']:,} pictures to train on and {holdout['samples']:,} held out "
        f"in {len(sizes):,} shards, {sum(sizes.values()) / 1e6:,.1f} MB"
    )
    if enlarged := content["statistics"]["enlarged"]:
        size = format_size((content["settings"]["height"], content["settings"]["width"]))
        yield f"enlarged, as a side is shorter than {size}: {enlarged:,}"
    for note, count in content["statistics"].get("noted", {}).items():
        yield f"noted of {count:,}: {NOTES[note]}"
    if content["classes"]:
        unlabelled = samples - sum(content["class_counts"])
        yield f"classes: {len(content['classes']):,}; pictures of none: {unlabelled:,}"
    for column in content.get("attributes", {}).get("columns", []):
        of = f" of {len(column['classes']):,}" if column["kind"] == "class" else ""
        yield f"stored as well, in {LABELS}: {quote_name(column['name'])}, a {column['kind']}{of}"
    for group in near_equal_labels(content["classes"])[:MAX_NEAR_EQUAL]:
        yield f"classes that people take for one: {', '.join(map(quote_name, group))}; --normalise-labels joins them"
    if content["labels"]:
        yield "labels: " + ", ".join(f"{count:,} {what.replace('_', ' ')}" for what, count in content["labels"].items())
    for split, count in content["statistics"]["duplicates"].items():
        if count:
            example = f"; {examples[split]}" if split in examples else ""  # none is new
            yield f"repeated in {split}: {count:,} pictures have the pixels of another one of them{example}"
    if exclusions.count:
        yield f"excluded: {exclusions.count:,}, listed in {out / EXCLUDED}"
        yield from describe_exclusions(exclusions)


def example_copies(build_db: BuildDb, copies: Copies, old: OldDataset | None) -> dict[str, str]:
    """Return for each split in words which two files of it have the same pixels, if there are any."""
    trained = count_copies(build_db, copies)["train"]
    found = {}
    for split, pairs in zip(SPLITS, (copies[:trained], copies[trained:]), strict=True):
        if len(pairs):
            names = find_names(build_db, pairs[0], old)
            again, first = (quote_name(names[sample], EXAMPLE_LENGTH) for sample in pairs[0].tolist())
            found[split] = f"such as {again} those of {first}"
    return found


def describe_exclusions(exclusions: Exclusions) -> Iterator[str]:
    """Yield a line for each reason, the most frequent first, with an example; more than MAX_REASONS are summed."""
    ranked = sorted(exclusions.reasons.items(), key=lambda item: (-item[1].count, item[0]))
    for reason, files in ranked[:MAX_REASONS]:
        example = f"{quote_name(files.name, EXAMPLE_LENGTH)}: {shorten(files.detail)}"
        yield f"  {files.count:8,}  {reason}: {REASONS[reason]}; such as {example}"
    if len(ranked) > MAX_REASONS:
        yield f"  {sum(files.count for _, files in ranked[MAX_REASONS:]):8,}  for other reasons"
    if exclusions.archives:
        yield (
            f"  {exclusions.archives:,} of them have names of archives, as "
            f"{quote_name(exclusions.archive, EXAMPLE_LENGTH)}; archives "
            "in a source are not looked into: unpack them, or build from one"
        )


def shorten(text: str) -> str:
    """Return a text as one line of at most EXAMPLE_LENGTH characters."""
    text = " ".join(text.split())
    return text if len(text) <= EXAMPLE_LENGTH else text[: EXAMPLE_LENGTH - 1] + "…"
