"""Pictures in a terminal: by kitty's graphics protocol, as sixels, or as half blocks that every terminal can show."""

from __future__ import annotations

import base64
import fcntl
import io
import os
import re
import select
import struct
import termios
import time
import tty
from enum import StrEnum
from itertools import groupby

import numpy as np
from PIL import Image
from rich.color import Color
from rich.style import Style
from rich.text import Text

ANSWER_S = 1.0  # for the terminal, over a slow connection too
CELL = (10, 20)  # pixels, where a terminal does not tell
CHUNK = 4096  # bytes of base64 in one of kitty's sequences, at most
COLOURS = 256  # of a sixel picture
SHADES = " ░▒▓█"
ESC = "\x1b"
# Is this picture understood (kitty)? What are you (all terminals answer, and 4 stands for sixels)?
QUESTION = f"{ESC}_Gi=31,s=1,v=1,a=q,t=d,f=24;AAAA{ESC}\\{ESC}[c"


class Graphics(StrEnum):
    """How a terminal shows pictures, pixel by pixel."""

    KITTY = "kitty"
    SIXEL = "sixel"


def find_graphics(keyboard: int, screen: int) -> Graphics | None:
    """Ask the terminal what it can show; None: letters alone. It is asked because ssh hides the variables that tell.

    Args:
        keyboard: the descriptor that the terminal answers on.
        screen: the one that it is asked by.
    """
    before = termios.tcgetattr(keyboard)
    try:
        tty.setcbreak(keyboard)
        os.write(screen, QUESTION.encode())
        return judge_answer(read_answer(keyboard))
    except OSError:  # the terminal is gone
        return None
    finally:
        termios.tcsetattr(keyboard, termios.TCSANOW, before)


def read_answer(keyboard: int) -> str:
    """Return what the terminal says until it has said what it is, or for ANSWER_S."""
    said, until = "", time.monotonic() + ANSWER_S
    while not re.search(r"\x1b\[\?[\d;]*c", said):
        if not select.select([keyboard], [], [], max(0.0, until - time.monotonic()))[0]:
            break
        data = os.read(keyboard, 1024)
        if not data:
            break
        said += data.decode(errors="replace")
    return said


def judge_answer(said: str) -> Graphics | None:
    """Return what a terminal can show that has answered QUESTION so."""
    if f"{ESC}_Gi=31;OK" in said:
        return Graphics.KITTY
    attributes = re.search(r"\x1b\[\?([\d;]*)c", said)
    # The first number is the class of the terminal; those that follow say what it can do.
    return Graphics.SIXEL if attributes and "4" in attributes[1].split(";")[1:] else None


def cell_size(screen: int) -> tuple[int, int]:
    """Return the width and height of a letter in pixels."""
    try:
        rows, columns, width, height = struct.unpack("HHHH", fcntl.ioctl(screen, termios.TIOCGWINSZ, b"\0" * 8))
    except OSError:
        return CELL
    return (width // columns, height // rows) if width and height and columns and rows else CELL


def fit(picture: Image.Image, width: int, height: int) -> Image.Image:
    """Return a picture as large as fits into so many pixels, with its proportions; it grows by whole times only."""
    scale = min(width / picture.width, height / picture.height)
    if scale >= 1:
        scale = int(scale)  # so that each pixel stays a square
    size = (max(1, int(picture.width * scale)), max(1, int(picture.height * scale)))
    return picture.resize(size, Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.BOX)


def as_kitty(picture: Image.Image) -> str:
    """Return the sequences that show a picture where the cursor is, by kitty's graphics protocol."""
    file = io.BytesIO()
    picture.save(file, "PNG")
    data = base64.b64encode(file.getvalue()).decode()
    chunks = [data[start : start + CHUNK] for start in range(0, len(data), CHUNK)]
    last = len(chunks) - 1
    # q=2: the terminal does not answer, as nobody would read it.
    heads = ("a=T,f=100,q=2," if n == 0 else "" for n in range(len(chunks)))
    return "".join(f"{ESC}_G{head}m={int(n < last)};{chunks[n]}{ESC}\\" for n, head in enumerate(heads))


def as_sixel(picture: Image.Image) -> str:
    """Return the sequence that shows a picture where the cursor is, as sixels of at most COLOURS colours."""
    reduced = picture.quantize(COLOURS, dither=Image.Dither.NONE)
    palette = np.array(reduced.getpalette() or [], dtype=int).reshape(-1, 3)
    pixels = np.asarray(reduced)
    used = np.unique(pixels)
    # Colours are told in hundredths.
    colours = "".join(f"#{n};2;{';'.join(str(round(v * 100 / 255)) for v in palette[n])}" for n in used)
    bands = [sixel_band(pixels[top : top + 6]) for top in range(0, pixels.shape[0], 6)]
    return f'{ESC}Pq"1;1;{pixels.shape[1]};{pixels.shape[0]}{colours}{"-".join(bands)}{ESC}\\'


def sixel_band(rows: np.ndarray) -> str:
    """Return up to six rows of pixels: one pass of each colour, one letter a column, whose bits are the rows."""
    passes = []
    for colour in np.unique(rows):
        bits = ((rows == colour) << np.arange(len(rows))[:, None]).sum(axis=0)
        runs = ((chr(63 + int(bit)), len([*same])) for bit, same in groupby(bits))
        passes.append(
            f"#{colour}" + "".join(f"!{count}{letter}" if count > 3 else letter * count for letter, count in runs)
        )
    return "$".join(passes)


def as_blocks(picture: Image.Image, columns: int, rows: int, colours: bool) -> Text:
    """Return a picture as letters, each of two pixels, one above the other; without colours, as shades.

    Args:
        picture: RGB.
        columns: how many letters fit beside each other.
        rows: how many lines fit.
        colours: whether the terminal shows colours.
    """
    pixels = np.asarray(fit(picture, columns, 2 * rows))
    if len(pixels) % 2:
        pixels = np.concatenate([pixels, np.zeros_like(pixels[:1])])
    made = Text(no_wrap=True)
    for upper, lower in zip(pixels[::2], pixels[1::2], strict=True):
        if colours:
            for above, below in zip(upper.tolist(), lower.tolist(), strict=True):
                made.append("▀", Style.from_color(Color.from_rgb(*above), Color.from_rgb(*below)))
        else:
            light = np.stack([upper, lower]).mean(axis=(0, 2))
            made.append("".join(SHADES[min(4, int(value * 5 / 256))] for value in light))
        made.append("\n")
    made.right_crop()
    return made
