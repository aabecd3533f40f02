"""The card of a dataset, card.md and card.html: what is in it, what is not, and how it was made.

It says nothing of time, host or paths, so that it is the same bytes for the same input.
"""

from __future__ import annotations

import hashlib
import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from shards.atomic_files import write_chunks_atomically
from shards.building.build_db import Exclusions
from shards.building.card_page import Block, Code, Pictures, Section, Table, Text, printable, to_html, to_markdown
from shards.building.card_pictures import (
    EXAMPLES,
    ReadPictures,
    count_for_mean,
    mean_picture,
    spread,
    to_png,
)
from shards.dataset.files import CARDS, EXCLUDED, LABELS, TABLE
from shards.dataset.index import ORIGINAL
from shards.dataset.splits import shard_name
from shards.exclusion import NOTES, REASONS
from shards.images.size import format_size
from shards.sources.label_names import near_equal_labels

MAX_CLASSES = 20  # rows of the largest classes, and as many of the smallest
VERSIONS = {"pillow": "pillow", "simplejpeg": "simplejpeg"}  # settings that are versions of packages -> the packages
OPTION_SETTINGS = ("channels", "encode", "fit", "crop", "background", "scaled_decode", "max_pixels", "max_bytes",
                   "min_size", "max_aspect", "holdout", "seed", "shard_samples", "deduplicate", "member")  # fmt: skip
"""Settings that are options of the same name."""
CHANNELS = {1: ("grey",), 3: ("red", "green", "blue"), 4: ("red", "green", "blue", "alpha")}


def write_cards(
    content: dict[str, Any], exclusions: Exclusions, read: ReadPictures, out: Path, work: Path
) -> dict[str, str]:
    """Write card.md and card.html, and return their SHA-256 by name.

    Args:
        content: of index.json, but for these hashes and its own.
        exclusions: all of them.
        read: yields training pictures by their numbers.
        out: the folder.
        work: the folder inside it for unfinished files.

    Raises:
        OSError: one cannot be written, or a shard cannot be read.
    """
    samples = sum(split["samples"] for split in content["splits"].values())
    title = f"A dataset of {samples:,} pictures"
    sections = [
        Section("Counts", list(count_blocks(content))),
        Section("Pictures", list(picture_blocks(content, read))),
        Section("Originals", list(original_blocks(content["statistics"]))),
        Section("Labels", list(label_blocks(content, samples))),
        Section("Duplicates", [Text(describe_duplicates(content))]),
        Section("Left out", list(exclusion_blocks(exclusions))),
        Section("How it was made", list(provenance_blocks(content))),
    ]
    forms = (to_markdown(title, sections), to_html(title, sections))
    return {
        name: write_chunks_atomically(out / name, [form.encode()], work)
        for name, form in zip(CARDS, forms, strict=True)
    }


def count_blocks(content: dict[str, Any]) -> Iterator[Block]:
    """Yield samples, shards and bytes of both sides."""
    rows = [
        (name, split["samples"], len(split["shards"]["samples"]), sum(split["shards"]["bytes"]))
        for name, split in content["splits"].items()
    ]
    yield Table("Both sides of the hold-out", ["side", "pictures", "shards", "bytes"], rows)
    settings = content["settings"]
    channels, size = (
        CHANNELS[settings["channels"]],
        f"{settings['height']} x {settings['width']} pixels (height x width)",
    )
    yield Text(f"Each picture has {size}, {', '.join(channels)}, stored as {settings['encode']}.")


def picture_blocks(content: dict[str, Any], read: ReadPictures) -> Iterator[Block]:
    """Yield the mean and the examples."""
    samples, settings = content["splits"]["train"]["samples"], content["settings"]
    chosen = spread(samples, count_for_mean(settings))
    mean = mean_picture(read(chosen))
    yield Pictures(f"Mean of {len(chosen):,} training pictures, evenly spread", [(to_png(mean), "the mean picture")])
    examples = [(to_png(pixels), name) for name, pixels in read(spread(samples, EXAMPLES))]
    yield Pictures("Examples of training pictures, evenly spread over the names", examples)
    rows = [
        (channel, f"{mean:.2f}", f"{std:.2f}")
        for channel, mean, std in zip(
            CHANNELS[settings["channels"]], content["statistics"]["mean"], content["statistics"]["std"], strict=True
        )
    ]
    yield Table("Values of the pixels, 0 to 255, before they are encoded", ["channel", "mean", "deviation"], rows)


def original_blocks(statistics: dict[str, Any]) -> Iterator[Block]:
    """Yield sizes, aspect ratios, modes, formats and notes of the originals."""
    for title, name in (
        ("Widths, in pixels", "widths"),
        ("Heights, in pixels", "heights"),
        ("Width by height", "aspects"),
    ):
        rows = list(histogram_rows(statistics[name]))
        yield Table(title, ["from", "to below", "pictures"], rows, bars=True)
    for title, name in ("Formats", "formats"), ("Modes", "modes"):
        ranked = sorted(statistics[name].items(), key=lambda item: (-item[1], item[0]))
        yield Table(title, [name.removesuffix("s"), "pictures"], ranked, bars=True)
    yield Text(f"Enlarged, as a side is shorter than that of the stored pictures: {statistics['enlarged']:,}.")
    if noted := statistics.get("noted"):
        rows = [(note, NOTES[note], count) for note, count in noted.items()]
        yield Table("Guessed or ignored", ["note", "meaning", "pictures"], rows)


def histogram_rows(histogram: Mapping[str, Sequence[Any]]) -> Iterator[tuple[str, str, int]]:
    """Yield the bins that are not empty."""
    bounds = ["0", *(f"{edge:,}" for edge in histogram["edges"]), "any"]
    for i, count in enumerate(histogram["counts"]):
        if count:
            yield bounds[i], bounds[i + 1], count


def label_blocks(content: dict[str, Any], samples: int) -> Iterator[Block]:
    """Yield how balanced the classes of each label column are."""
    named = content["settings"]["labels"]
    if named == "none":
        yield Text("None.")
        return
    columns = [{"name": named[1] if isinstance(named, list) else "folder", "kind": "class"}]
    columns[0] |= {"classes": content["classes"], "counts": content["class_counts"]}
    for column in [*columns, *content.get("attributes", {}).get("columns", [])]:
        if column["kind"] == "class":
            yield from class_blocks(
                column["name"], dict(zip(column["classes"], column["counts"], strict=True)), samples
            )
        else:
            yield Text(f"{column['name']}: a {column['kind']} for each picture, in {LABELS}.")


def class_blocks(name: str, counts: dict[str, int], samples: int) -> Iterator[Block]:
    """Yield the balance of one column, and its largest and smallest classes."""
    if not counts:
        return
    labelled, ranked = sum(counts.values()), sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    shares = [count / labelled for count in counts.values()]
    effective = math.exp(-sum(share * math.log(share) for share in shares))
    yield Text(
        f"{name}: {len(counts):,} classes, {samples - labelled:,} pictures of none. The largest has {ranked[0][1]:,} "
        f"pictures, the smallest {ranked[-1][1]:,}. The effective number of classes, which is that of equal classes "
        f"with the same entropy, is {effective:,.1f}."
    )
    kept = ranked if len(ranked) <= 2 * MAX_CLASSES else [*ranked[:MAX_CLASSES], *ranked[-MAX_CLASSES:]]
    what = "Classes" if kept is ranked else f"The {MAX_CLASSES} largest and the {MAX_CLASSES} smallest classes"
    yield Table(f"{what} of {name}", ["class", "pictures"], kept, bars=True)
    for group in near_equal_labels(counts)[:MAX_CLASSES]:
        yield Text(f"Names that people take for one: {', '.join(map(repr, group))}.")


def describe_duplicates(content: dict[str, Any]) -> str:
    """Return what is known of repeated pictures."""
    found = content["statistics"]["duplicates"]
    left = {reason: content["excluded"].get(reason, 0) for reason in ("duplicate", "near_duplicate")}
    return (
        f"Pictures that have the pixels of another one: {found['train']:,} to train on and {found['holdout']:,} held "
        f"out; none is on both sides. Left out: {left['duplicate']:,} equal ones, and nearly "
        f"equal ones: {left['near_duplicate']:,}."
    )


def exclusion_blocks(exclusions: Exclusions) -> Iterator[Block]:
    """Yield the reasons, with an example of each."""
    if not exclusions.count:
        yield Text("Nothing.")
        return
    ranked = sorted(exclusions.reasons.items(), key=lambda item: (-item[1].count, item[0]))
    rows = [(reason, REASONS[reason], f"{f.name}: {f.detail}"[:300], f.count) for reason, f in ranked]
    yield Table(
        f"Files that are not in the shards; {EXCLUDED} has all", ["reason", "meaning", "example", "files"], rows
    )


def provenance_blocks(content: dict[str, Any]) -> Iterator[Block]:
    """Yield settings, the command that makes the same bytes from the same source, and the hashes."""
    settings = content["settings"]
    yield Table("Settings", ["setting", "value"], [(name, str(value)) for name, value in settings.items()])
    packages = " ".join(f"{package}=={settings[name]}" for name, package in VERSIONS.items())
    commands = (f"pip install {packages}", reproduce_command(settings), "python -m shards verify DIR")
    yield Text("The same source, settings and versions give the same bytes:")
    yield Code("\n".join(commands))
    names = {TABLE: content["table_sha256"], EXCLUDED: content["excluded_sha256"]}
    if attributes := content.get("attributes"):
        names[LABELS] = attributes["sha256"]
    names["all shards, as sha256sum lists them"] = hash_shards(content["splits"])
    yield Table("SHA-256", ["file", "hash"], list(names.items()))


def reproduce_command(settings: dict[str, Any]) -> str:
    """Return the command that builds with these settings; SRC, OLD, DIR and TABLE stand for unknown paths."""
    sources = [f"SRC/{name}" for name in settings.get("sources", [])] or ["SRC"]
    words = ["python", "-m", "shards", *(["index", "TARS"] if settings["encode"] == ORIGINAL else ["build", *sources])]
    words += [*(["--add", "OLD"] if "add" in settings else []), "--out", "DIR"]
    labels = settings["labels"]
    if isinstance(labels, list):
        words += ["--labels", "TABLE", "--file-column", labels[0], "--label-column", *labels[1:]]
    elif labels != "none":
        words += ["--labels", labels]
    words += ["--number-column", *settings["number_columns"]] if "number_columns" in settings else []
    for text in settings.get("filters", []):
        words += ["--filter", text]
    words += [f"--{name.replace('_', '-')}" for name in ("normalise_labels", "follow_links") if settings.get(name)]
    words += ["--size", format_size((settings["height"], settings["width"]))]
    for name in OPTION_SETTINGS:
        if settings.get(name) not in (None, ORIGINAL):
            words += [f"--{name.replace('_', '-')}", str(settings[name])]
    return printable(shlex.join(words))


def hash_shards(splits: Mapping[str, Any]) -> str:
    """Return the SHA-256 of the lines that sha256sum prints for all shards."""
    digest = hashlib.sha256()
    for name, split in splits.items():
        names = split["shards"].get("names")
        for number, sha256 in enumerate(split["shards"]["sha256"]):
            digest.update(f"{sha256}  {names[number] if names else shard_name(name, number)}\n".encode())
    return digest.hexdigest()
