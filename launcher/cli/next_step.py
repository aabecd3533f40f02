"""`lienzo` alone: where one stands, and what to do next. It looks at the current folder, and changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from launcher.jobs import runs
from launcher.jobs.runs import SlurmQueue
from launcher.status.facts import RunState
from launcher.status.run_status import RunStatus, gather_status
from shards.dataset.files import INDEX
from shards.dataset.index import DataError, Index
from shards.images.size import format_size
from trainer.core.advice import command

RECIPE_OF = {(32, 32): "dcgan-32", (64, 64): "dcgan-64"}  # what to begin with; of other sizes: see `recipes`
Steps = list[tuple[str, str]]
"""What a user may want to do, and the command for it."""


def print_next_step() -> int:
    """Say where the user stands, and what to do next; the exit code."""
    said, steps = next_step()
    print(said)
    if steps:
        print()
    width = max((len(text) for _, text in steps), default=0)
    for purpose, text in steps:
        print(f"  {text:<{width}}  {purpose}")
    print(f"\nall commands: {command('launcher', '--help')}")
    return 0


def next_step() -> tuple[str, Steps]:
    """Return where the user stands, and what to do next: about the newest run, else the data, else how to get some."""
    if found := runs.find_runs():
        status = gather_status(found[0], SlurmQueue())
        more = f", the newest of {len(found)} runs" if len(found) > 1 else ""
        why = f" ({status.reason})" if status.reason else ""
        return f"{status.run.path}{more}: {status.state}{why}", [*steps_of_run(status)]
    if data := [*find_datasets()]:
        index = data[0]
        size, several = format_size(index.size), f"; of {len(data)} datasets the first" if len(data) > 1 else ""
        samples = sum(split.samples for split in index.splits.values())
        return f"no runs yet, and shards in {index.path}: {samples:,} pictures of {size} px{several}", [
            *steps_of_data(index)
        ]
    return "no runs and no shards here", [
        ("shards of your pictures: a folder, a zip or a tar", shards_command()),
        ("or train on the bundled pictures first", command("launcher", "submit")),
        ("is this machine, or its cluster, fit for it", command("launcher", "doctor")),
    ]


def shards_command() -> str:
    """Return the command that makes shards of pictures."""
    return command("shards", "build", "MY_PICTURES", "--out", "my-shards", "--size", "64")


def steps_of_run(status: RunStatus) -> Iterator[tuple[str, str]]:
    """Yield what to do with a run."""
    path = status.run.path
    if status.state is RunState.UNKNOWN:
        return
    if status.state.live:
        yield "what it does, again and again", command("launcher", "status", path, "--watch")
        yield "what its processes say", command("launcher", "logs", path, "-f")
        yield "save and end", command("launcher", "cancel", path)
        return
    if status.state.resumable:
        yield "go on", command("launcher", "resume", path)
    if status.run.newest_checkpoint():
        yield "new pictures", command("trainer", "sample", path, "--num", 64, "--out", "grid.png")
    if status.state is RunState.FINISHED:
        yield "how good they are", command("trainer", "evaluate", path)
        yield "a page on which it paints", command("trainer", "serve", path)
        yield "for others: plain PyTorch and a model card", command("trainer", "export", path, "--out", "model")


def find_datasets() -> Iterator[Index]:
    """Yield the shards in this folder, in the order of their names."""
    for path in sorted(Path().glob(f"*/{INDEX}")):
        try:
            yield Index.open(path.parent)
        except DataError:
            continue  # it is some other index.json, or unfinished: `submit` says so if it is named


def steps_of_data(index: Index) -> Iterator[tuple[str, str]]:
    """Yield what to do with shards."""
    recipe = RECIPE_OF.get(index.size)
    if index.channels != 3 or recipe is None:
        yield "which recipes there are; choose one for these pictures", command("launcher", "recipes")
        recipe = "RECIPE"
    yield "train", command("launcher", "submit", recipe, "--data", index.path)
    yield "is all of it readable", command("shards", "verify", index.path)
