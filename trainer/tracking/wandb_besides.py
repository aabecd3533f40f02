"""What W&B has of a run besides rows: tables in its summary, and what it uses and makes, as artifacts by reference.

Of an artifact nothing is uploaded but names, places and hashes:

    dataset       its index.json; the run uses it
    checkpoint    the best one, and the newest when an attempt ends
    bundle        what `trainer export` has made of a checkpoint (RUN/exports.jsonl)

The same content under the same name is the same version in W&B, so sending one twice is harmless.
RUN/wandb/besides.json says what each W&B run has.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shards.atomic_files import write_atomically
from shards.storage.place import Url, parse_place
from trainer.core.fields import hash_of
from trainer.core.migration import load_json, with_schema
from trainer.runs import journal
from trainer.runs.run_folder import RunFolder
from trainer.tracking.attempt_rows import TABLE
from trainer.tracking.wandb_config import data_tables, read_description
from trainer.tracking.wandb_run import WandbRun

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Reference:
    """An artifact that lies elsewhere."""

    kind: str
    name: str
    files: Mapping[str, str]
    """By name, the URL of each."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Name it, with what W&B is to call it, among those that were sent."""
        return hash_of({"kind": self.kind, "name": self.name, "files": dict(self.files), "aliases": self.aliases})


class Besides:
    """The tables and artifacts of a run that a W&B run lacks.

    Args:
        run: the run folder.
    """

    def __init__(self, run: RunFolder) -> None:
        self.run, self.path = run, run.wandb / "besides.json"
        self.refused: set[str] = set()
        """What this process does not try again."""
        self.sent: dict[str, dict[str, str]] = load_json(self.path) if self.path.exists() else {}

    def send_tables(self, to: WandbRun, attempts: Sequence[Sequence[Any]]) -> None:
        """Send the tables that W&B has not as they are now."""
        tables = {**data_tables(self.run), "attempts": (TABLE, attempts)}
        for name, (columns, rows) in tables.items():
            if self.is_new(to, f"table {name}", key := hash_of({name: rows})):
                to.table(name, columns, rows)
                self.note(to, f"table {name}", key)

    def send_artifacts(self, to: WandbRun, ended: bool) -> None:
        """Send the artifacts that W&B has not.

        Args:
            to: the W&B run.
            ended: an attempt has ended, so its newest checkpoint counts.
        """
        for one in self.found(to.name, ended):
            if one.key in self.refused or not self.is_new(to, one.key, one.key):
                continue
            try:
                to.artifact(one.kind, one.name, one.files, one.metadata, one.aliases)
                self.note(to, one.key, one.key)
            except Exception as error:  # W&B's failures have many types, and its server may have no room for this one
                self.refused.add(one.key)
                print(f"{one.kind} {one.name} is not sent: {error}", flush=True)

    def is_new(self, to: WandbRun, name: str, content: str) -> bool:
        """Tell whether W&B lacks this content under this name."""
        return self.sent.get(to.id, {}).get(name) != content

    def note(self, to: WandbRun, name: str, content: str) -> None:
        """Note that W&B has it."""
        self.sent.setdefault(to.id, {})[name] = content
        write_atomically(self.path, json.dumps(with_schema(self.sent)).encode())

    def found(self, name: str, ended: bool) -> Iterator[Reference]:
        """Yield what there is now; `name` is the run's in W&B."""
        if dataset := read_description(self.run).get("dataset"):
            yield dataset_reference(dataset)
        best, newest = read_best(self.run), self.run.newest_checkpoint()
        if best:
            facts, path = {best["column"]: best["value"]}, self.run.checkpoints / best["checkpoint"]
            yield from checkpoint_reference(path, f"{name}-checkpoint", "best", facts)
        if newest and ended:
            yield from checkpoint_reference(newest[1], f"{name}-checkpoint", "newest", {})
        for row in journal.read_rows(self.run.exports):
            yield from bundle_reference(row, f"{name}-bundle")


def read_best(run: RunFolder) -> dict[str, Any] | None:
    """Return what best.json says; None: no checkpoint was chosen yet."""
    try:
        return load_json(run.best)
    except (OSError, ValueError):
        return None


def dataset_reference(dataset: Mapping[str, Any]) -> Reference:
    """Return the index of a dataset; its hash names all shards."""
    place = parse_place(dataset["place"])
    index = f"{place}/index.json" if isinstance(place, Url) else (Path(place) / "index.json").resolve().as_uri()
    facts = {key: dataset[key] for key in ("hash", "pictures", "size", "excluded")}
    return Reference("dataset", f"dataset-{dataset['hash'][:12]}", {"index.json": index}, facts)


def checkpoint_reference(path: Path, name: str, alias: str, facts: Mapping[str, Any]) -> Iterator[Reference]:
    """Yield a checkpoint, with the hashes of its files; nothing if it was pruned or is damaged."""
    try:
        files = load_json(path / MANIFEST)["files"]
    except (OSError, ValueError, KeyError):
        return
    images_seen = int(path.name.partition("-")[0])
    hashes = {file: content["sha256"] for file, content in files.items()}
    metadata = {"images_seen": images_seen, "sha256": hashes, **facts}
    yield Reference("checkpoint", name, references(path, files), metadata, (alias, f"images-{images_seen}"))


def bundle_reference(export: Mapping[str, Any], name: str) -> Iterator[Reference]:
    """Yield a bundle as exports.jsonl names it; nothing if it was moved or removed."""
    path = Path(export["place"])
    if not (path / MANIFEST).exists():
        return
    facts = {key: export[key] for key in ("checkpoint", "images_seen", "fingerprint", "averaged")}
    files = [file.name for file in path.iterdir() if file.is_file()]
    yield Reference("bundle", name, references(path, files), facts, (f"images-{export['images_seen']}",))


def references(folder: Path, files: Any) -> dict[str, str]:
    """Return the URL of each file of a folder, and of its manifest."""
    return {name: (folder / name).resolve().as_uri() for name in sorted({*files, MANIFEST})}
