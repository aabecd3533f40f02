"""The packages and what they import, read from the code: `python tools/package_graph.py` draws docs/packages.svg.

A room is a package that holds modules; a module directly under one of the five top packages is a room of its own.
Imports under TYPE_CHECKING and inside functions count as well.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path
from textwrap import shorten

HOME = Path(__file__).resolve().parent.parent
TOPS = ("command_line", "slurm", "shards", "trainer", "launcher")

# What a picture passes on its way into weights and out again.
DATA_PATH = (
    "shards.sources.source",
    "shards.images.decode",
    "shards.building.finalize",
    "shards.dataset.order",
    "shards.dataset.stream",
    "trainer.gan.batches",
    "trainer.gan.step",
    "trainer.distributed.reduction",
    "trainer.runs.checkpoint_writer",
    "trainer.sampling.sampler",
)


def modules(home: Path = HOME) -> dict[str, Path]:
    """Return every module of the five packages by its dotted name."""
    paths = sorted(path for top in TOPS for path in (home / top).rglob("*.py"))
    return {".".join(path.relative_to(home).with_suffix("").parts).removesuffix(".__init__"): path for path in paths}


def imports(path: Path, known: dict[str, Path]) -> Iterator[tuple[str, str]]:
    """Yield (known module, name taken from it or "") of each import of a file."""
    yield from imports_of(path.read_text(), known)


def imports_of(code: str, known: dict[str, Path]) -> Iterator[tuple[str, str]]:
    """Yield (known module, name taken from it or "") of each import of some code."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom) and node.module in known:
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield (full, "") if full in known else (node.module, alias.name)


def room(module: str, known: dict[str, Path]) -> str:
    """Return the room that a module lies in."""
    if known[module].name == "__init__.py":
        return module
    package = module.rpartition(".")[0]
    return package if "." in package else module


def graph(known: dict[str, Path]) -> dict[str, set[str]]:
    """Return for each room the rooms that it imports."""
    found: dict[str, set[str]] = {room(module, known): set() for module in known if "." in module}
    for module, path in known.items():
        for other, _ in imports(path, known):
            here, there = room(module, known), room(other, known)
            if here != there and there in found:
                found[here].add(there)
    return found


def layers(top: str, rooms: dict[str, set[str]]) -> list[str]:
    """Return the rooms of a top package, each above those that it imports.

    Raises:
        graphlib.CycleError: rooms import each other.
    """
    inside = {name: {other for other in needs if other.startswith(f"{top}.")} for name, needs in rooms.items()}
    sorter = TopologicalSorter({name: sorted(needs) for name, needs in sorted(inside.items()) if name.startswith(top)})
    return [*reversed([*sorter.static_order()])]


def summary(module: str, known: dict[str, Path]) -> str:
    """Return the first sentence of a module's docstring."""
    text = ast.get_docstring(ast.parse(known[module].read_text())) or ""
    return text.partition("\n\n")[0].replace("\n", " ").partition(". ")[0].rstrip(".")


def draw(out: Path) -> None:
    """Draw the top packages, their rooms from entry to foundation, and the way of a picture, as SVG."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    mpl.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "lienzo", "font.family": "sans-serif", "font.size": 8}
    known = modules()
    rooms = graph(known)
    figure = plt.figure(figsize=(13, 9.4))
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, 2), ylim=(-46, 0))
    axes.axis("off")

    def column(x: float, top: float, title: str, rows: list[tuple[str, str]]) -> float:
        """Draw a box of rows, and return where the next one may begin."""
        axes.text(x + 0.02, top - 1.1, title, weight="bold", size=11)
        axes.add_patch(
            plt.Rectangle((x + 0.01, top - len(rows) - 1.9), 0.96, len(rows) + 0.5, fill=False, color="#999")
        )
        for y, (name, what) in enumerate(rows):
            axes.text(x + 0.02, top - y - 2.1, name)
            axes.text(x + 0.25, top - y - 2.1, shorten(what, 80, placeholder=" …"), color="#444444", size=7.5)
        return top - len(rows) - 2.2

    def described(top: str) -> list[tuple[str, str]]:
        return [(name.removeprefix(f"{top}."), summary(name, known)) for name in layers(top, rooms)]

    left = column(0, 0, "launcher/   imports trainer, shards and slurm", described("launcher"))
    left = column(0, left, "trainer/   imports shards", described("trainer"))
    right = column(1, 0, "shards/", described("shards"))
    column(1, right, "slurm/   knows none of the others", described("slurm"))
    way = [
        (f"{number}. {module.partition('.')[2]}", summary(module, known)) for number, module in enumerate(DATA_PATH, 1)
    ]
    column(0, left, "The way of a picture, into weights and out again", way)
    note = "In each box a room may import those below it. All may import command_line/."
    axes.text(1.02, -31.5, note, style="italic")
    figure.savefig(out, format="svg", metadata={"Date": None})
    plt.close(figure)


if __name__ == "__main__":
    draw(HOME / "docs" / "packages.svg")
