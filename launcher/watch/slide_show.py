"""Sample grids on the bare screen, in a terminal that shows pictures pixel by pixel."""

from __future__ import annotations

import os
import select
import termios
import tty
from collections.abc import Callable
from pathlib import Path

from launcher.watch.graphics import ESC, Graphics, as_kitty, as_sixel, cell_size, fit
from launcher.watch.screens import picture_title, read_picture

LOOK_S = 0.2  # so often it is asked whether this is to end
CLEAR = f"{ESC}[2J{ESC}[H"
FORGET = f"{ESC}_Ga=d,d=A,q=2{ESC}\\"  # kitty keeps pictures apart from the text, and must be told to remove them
EARLIER, LATER = (f"{ESC}[D", f"{ESC}OD"), (f"{ESC}[C", f"{ESC}OC")


def show_grids(
    name: str, grids: list[tuple[int, Path]], graphics: Graphics, ending: Callable[[], bool], terminal: tuple[int, int]
) -> None:
    """Show the newest grid, and others by the arrow keys, until another key is pressed.

    Args:
        name: of the run.
        grids: with the images seen, the newest last; at least one.
        graphics: what the terminal can show.
        ending: tells whether to leave without a key.
        terminal: the descriptors of the keyboard and of the screen.
    """
    keyboard, screen = terminal
    before, number = termios.tcgetattr(keyboard), len(grids) - 1
    try:
        tty.setcbreak(keyboard)
        while True:
            write_all(screen, page(name, grids, number, graphics, screen))
            key = read_key(keyboard, ending)
            if key not in EARLIER + LATER:
                return
            number = max(0, min(len(grids) - 1, number + (1 if key in LATER else -1)))
    except OSError:
        return  # the terminal is gone, and what follows finds that out as well
    finally:
        try:
            write_all(screen, (FORGET if graphics is Graphics.KITTY else "") + CLEAR)
            termios.tcsetattr(keyboard, termios.TCSANOW, before)
        except (OSError, termios.error):
            pass


def page(name: str, grids: list[tuple[int, Path]], number: int, graphics: Graphics, screen: int) -> str:
    """Return the sequences that show one grid below its title."""
    images, path = grids[number]
    columns, rows = os.get_terminal_size(screen)
    wide, high = cell_size(screen)
    keys = "   ← → others, any other key: back"
    title = f"{picture_title(name, images, number, len(grids))}{keys}"[:columns]
    picture = read_picture(path)
    # Below the title a line is left free: where a picture reaches the last line, a terminal scrolls.
    if isinstance(picture, str):
        shown = picture
    else:
        fitted = fit(picture, columns * wide, max(1, rows - 2) * high)
        shown = as_kitty(fitted) if graphics is Graphics.KITTY else as_sixel(fitted)
    return f"{FORGET if graphics is Graphics.KITTY else ''}{CLEAR}{title}\r\n{shown}"


def read_key(keyboard: int, ending: Callable[[], bool]) -> str:
    """Return a key as the terminal tells it; empty: this is to end."""
    while not ending():
        if select.select([keyboard], [], [], LOOK_S)[0]:
            return os.read(keyboard, 32).decode(errors="replace")
    return ""


def write_all(screen: int, text: str) -> None:
    """Write to the terminal, which may take less than all at once."""
    data = memoryview(text.encode())
    while data:
        data = data[os.write(screen, data) :]
