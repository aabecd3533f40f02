"""The data that runs learn from: how many pictures, of which classes, what was left out and why."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from launcher.pages.document import term_list
from launcher.pages.markup import Markup, tag
from launcher.pages.tables import build_table
from launcher.report.run_facts import RunFacts
from shards.dataset.files import CARDS
from shards.dataset.index import Index
from shards.errors import DataError
from shards.exclusion import REASONS
from shards.images.size import format_size
from shards.storage.place import Url, parse_place
from trainer.core.advice import command

MOST_CLASSES = 12
CHANNELS = {1: "grey", 3: "RGB", 4: "RGBA"}


def dataset_parts(found: Sequence[RunFacts]) -> list[Markup]:
    """Return a card of each dataset."""
    places = dict.fromkeys(str(facts.config.get("data") or "") for facts in found)
    parts = []
    for place in places:
        users = [facts.name for facts in found if str(facts.config.get("data") or "") == place]
        heading = [tag("h3", f"Data of {', '.join(users)}")] if len(places) > 1 else []
        card = dataset_card(place) if place else [tag("p", "No shards: these runs learn from points.", class_="note")]
        parts += [*heading, *card]
    return parts


def dataset_card(place: str) -> list[Markup]:
    """Return what the index of a dataset says; data elsewhere is named, and not fetched."""
    look = f"{command('shards', 'inspect', place)} tells more"
    try:
        if isinstance(parse_place(place), Url):
            return [tag("p", f"The shards are at {place}, which a report does not ask: {look}.", class_="note")]
        index = Index.open(Path(place))
    except DataError as error:
        return [tag("p", f"The shards in {place} cannot be read from here: {error}", class_="note")]
    content = index.content
    parts = [term_list(counts(place, index))]
    if content.get("class_counts"):
        parts.append(class_table(dict(zip(index.classes, content["class_counts"], strict=True))))
    parts.append(left_out(content.get("excluded", {})))
    card = Path(place) / CARDS[-1]
    return [*parts, tag("p", f"{card} has all of it; {look}." if card.exists() else f"{look}.", class_="note")]


def counts(place: str, index: Index) -> Iterator[tuple[str, str]]:
    """Yield what is in a dataset."""
    form = f"{format_size(index.size)} pixels{'' if index.size[0] == index.size[1] else ' (height x width)'}"
    yield "Folder", place
    yield "Pictures", "; ".join(f"{name}: {split.samples:,}" for name, split in index.splits.items())
    yield "Form", f"{form}, {CHANNELS[index.channels]}, stored as {index.encoding}"
    if index.classes:
        yield "Classes", f"{len(index.classes):,}"
    yield "SHA-256 of the index", index.hash


def class_table(sizes: dict[str, int]) -> Markup:
    """Return the largest classes, and what the others have together."""
    ranked, whole = sorted(sizes.items(), key=lambda item: (-item[1], item[0])), max(1, sum(sizes.values()))
    shown, rest = ranked[:MOST_CLASSES], ranked[MOST_CLASSES:]
    rows = [[name, f"{count:,}", f"{count / whole:.1%}"] for name, count in shown]
    if rest:
        others = sum(count for _, count in rest)
        rows.append([f"{len(rest):,} smaller classes", f"{others:,}", f"{others / whole:.1%}"])
    return build_table("Pictures by class", ("Class", "Pictures", "Share"), rows)


def left_out(excluded: dict[str, Any]) -> Markup:
    """Return what is not in the shards, and why."""
    if not excluded:
        return tag("p", "Nothing was left out.", class_="note")
    ranked = sorted(excluded.items(), key=lambda item: (-item[1], item[0]))
    rows = [[reason, f"{count:,}", REASONS.get(reason, "")] for reason, count in ranked]
    return build_table("Files that are not in the shards", ("Reason", "Files", "Meaning"), rows)
