"""Sheets: pictures in rows and columns that have names."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from shards.images.display import over_checkerboard
from trainer.sampling.sampler import Images

LEAST_CELL = 64  # pixels: smaller pictures are enlarged, so that their names have room
FONT = 12
MARGIN = 6


def enlargement(height: int, width: int) -> int:
    """Return how many times as large pictures of this size are on a sheet."""
    return max(1, -(-LEAST_CELL // min(height, width)))


def labelled_sheet(pictures: Images, rows: Sequence[str], columns: Sequence[str]) -> Image.Image:
    """Return pictures with the names of their rows on the left and of their columns above.

    Args:
        pictures: (rows, columns, h, w, c). Small ones are enlarged by a whole number, each pixel to a square.
        rows, columns: their names; as many as there are rows and columns, or none.
    """
    shown = over_checkerboard(pictures)
    times = enlargement(*shown.shape[2:4])
    shown = shown.repeat(times, axis=2).repeat(times, axis=3)
    down, across, height, width, _ = shown.shape
    measure = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    left = max((round(measure.textlength(name, font_size=FONT)) + 2 * MARGIN for name in rows), default=0)
    top = FONT + 2 * MARGIN if columns else 0
    sheet = Image.new("RGB", (left + across * width, top + down * height), "white")
    sheet.paste(Image.fromarray(shown.swapaxes(1, 2).reshape(down * height, across * width, 3)), (left, top))
    draw = ImageDraw.Draw(sheet)
    for k, name in enumerate(rows):
        draw.text((MARGIN, top + (k + 0.5) * height), name, fill="black", font_size=FONT, anchor="lm")
    for k, name in enumerate(columns):
        draw.text((left + (k + 0.5) * width, top / 2), name, fill="black", font_size=FONT, anchor="mm")
    return sheet


def named_grid(pictures: Images, names: Sequence[str], columns: int) -> Image.Image:
    """Return pictures, (n, h, w, c), in rows of `columns`, each with its name above it."""
    shown = over_checkerboard(pictures)
    times = enlargement(*shown.shape[1:3])
    shown = shown.repeat(times, axis=1).repeat(times, axis=2)
    n, height, width, _ = shown.shape
    top = FONT + MARGIN
    sheet = Image.new("RGB", (columns * width, -(-n // columns) * (top + height)), "white")
    draw = ImageDraw.Draw(sheet)
    for k, (picture, name) in enumerate(zip(shown, names, strict=True)):
        x, y = k % columns * width, k // columns * (top + height)
        sheet.paste(Image.fromarray(picture), (x, y + top))
        draw.text((x + width / 2, y + top / 2), name, fill="black", font_size=FONT, anchor="mm")
    return sheet


def blank(picture: Images) -> Images:
    """Return a white picture of the same shape, for a place of a sheet that stays empty."""
    return np.full_like(picture, 255)
