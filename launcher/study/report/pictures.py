"""The pictures of a study's page: sample grids, made small and put inside."""

from __future__ import annotations

import base64
import io
from collections import Counter
from pathlib import Path

from PIL import Image

from launcher.pages.markup import Markup, join, tag
from launcher.study.analysis.results import Entry, Study

MOST_BYTES = 2_000_000  # of all pictures together
SIDES = (640, 480, 360, 256, 192, 128)  # a picture is made smaller until it fits its share


def sample_grids(study: Study, folder: Path) -> Markup:
    """Show a grid of each arm, of the seed that most arms have."""
    with_grid = [e for e in study.entries if e.role == "compare" and e.grid and (folder / e.grid).is_file()]
    if not with_grid:
        return Markup()
    # One seed for all, whose grids come from the same noise; of several the lowest.
    seed = max(sorted(Counter(e.seed for e in with_grid).items()), key=lambda item: item[1])[0]
    shown = [entry for arm in study.arms for entry in with_grid if (entry.arm, entry.seed) == (arm.name, seed)]
    share = MOST_BYTES // len(shown)
    cards = [
        tag(
            "figure",
            embed_picture(folder / str(entry.grid), share, f"Samples of {entry.arm}"),
            tag("figcaption", words_of(entry)),
        )
        for entry in shown
    ]
    note = tag("p", f"Seed {seed}, the same noise for each arm; the newest grid of each run.", class_="note")
    return join(note, tag("div", *cards, class_="grids"))


def words_of(entry: Entry) -> str:
    """Say what a grid shows."""
    return f"{entry.arm}, {entry.images_seen:,} images seen"


def embed_picture(path: Path, most: int, told: str) -> Markup:
    """Return a PNG inside the page, made small enough; words where it cannot be read."""
    try:
        with Image.open(path) as opened:
            image = opened.convert("RGB")
    except OSError as error:
        return tag("p", f"{path.name} cannot be read: {error}")
    for side in SIDES:
        smaller = image.copy()
        smaller.thumbnail((side, side), Image.Resampling.LANCZOS)
        content = io.BytesIO()
        smaller.save(content, "PNG", optimize=True)
        # The share counts in bytes, not pixels: grids of flat colours may stay large.
        if content.tell() <= most:
            break
    source = f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}"
    return tag("img", src=source, alt=told, width=float(smaller.width), height=float(smaller.height))
