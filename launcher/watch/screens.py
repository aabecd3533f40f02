"""What the view shows in place of the runs: a question, logs, pictures."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from PIL import Image
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen, Screen
from textual.widgets import Footer, RichLog, Static

from launcher.watch.graphics import as_blocks
from launcher.watch.log_source import LogSource

MOST_LINES = 10_000
POLL_S = 0.5
BACK: BindingType = ("escape,q", "app.pop_screen", "back")


class Question(ModalScreen[bool]):
    """A question that only y answers with yes.

    Args:
        text: the question, and what it is about.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        ("y", "answer(True)", "yes"),
        ("n,escape,q,enter", "answer(False)", "no"),
    ]

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text

    def compose(self) -> ComposeResult:
        """Show it in the middle."""
        with Vertical(id="question"):
            yield Static(Text(self.text))
            yield Static(Text("y: yes   n: no", "bold"))

    def action_answer(self, answer: bool) -> None:
        """Take the answer."""
        self.dismiss(answer)


class LogScreen(Screen[None]):
    """What the processes of a run say, as they say it.

    Args:
        name: of the run.
        path: its folder.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        BACK,
        ("home", "scroll('home')", "first"),
        ("end", "scroll('end')", "last"),
    ]

    def __init__(self, name: str, path: Path) -> None:
        super().__init__()
        self.title_text, self.source, self.said = f"logs of {name}", LogSource(path), False

    def compose(self) -> ComposeResult:
        """Show a title, the lines, and the keys."""
        yield Static(Text(self.title_text, "bold", no_wrap=True, overflow="ellipsis"), classes="title")
        yield RichLog(max_lines=MOST_LINES, wrap=True, markup=False, highlight=False, min_width=20)
        yield Footer(show_command_palette=False)

    def on_mount(self) -> None:
        """Begin to read."""
        self.query_one(RichLog).focus()
        self.read_more()
        self.set_interval(POLL_S, self.read_more)

    def read_more(self) -> None:
        """Show what was added; who has scrolled back stays there."""
        shown = self.query_one(RichLog)
        lines = self.source.read()
        if not lines and not self.said:
            lines = ["nothing was said yet"]
        self.said = True
        for line in lines[-MOST_LINES:]:
            shown.write(Text(line.expandtabs()), scroll_end=shown.is_vertical_scroll_end)

    def action_scroll(self, where: str) -> None:
        """Go to the first or to the last line."""
        shown = self.query_one(RichLog)
        (shown.scroll_home if where == "home" else shown.scroll_end)(animate=False)


class PictureScreen(Screen[None]):
    """The sample grids of a run, in half blocks.

    Args:
        name: of the run.
        grids: with the images seen, the newest last; at least one.
        colours: whether the terminal shows colours.
    """

    BINDINGS: ClassVar[list[BindingType]] = [BACK, ("left", "turn(-1)", "earlier"), ("right", "turn(1)", "later")]

    def __init__(self, name: str, grids: list[tuple[int, Path]], colours: bool) -> None:
        super().__init__()
        self.run_name, self.grids, self.colours, self.number = name, grids, colours, len(grids) - 1

    def compose(self) -> ComposeResult:
        """Show a title, the picture, and the keys."""
        yield Static(classes="title")
        yield Static(id="picture")
        yield Footer(show_command_palette=False)

    def on_resize(self) -> None:
        """Draw it in the size that there is."""
        self.draw()

    def action_turn(self, by: int) -> None:
        """Go to an earlier or a later grid."""
        self.number = max(0, min(len(self.grids) - 1, self.number + by))
        self.draw()

    def draw(self) -> None:
        """Show the grid."""
        images, path = self.grids[self.number]
        self.query_one(".title", Static).update(
            Text(picture_title(self.run_name, images, self.number, len(self.grids)), "bold", no_wrap=True)
        )
        place = self.query_one("#picture", Static)
        picture = read_picture(path)
        width, height = self.size.width, self.size.height - 2  # the title and the keys
        if isinstance(picture, str):
            place.update(Text(picture))
        elif width > 0 and height > 0:
            place.update(as_blocks(picture, width, height, self.colours))


def picture_title(name: str, images: int, number: int, count: int) -> str:
    """Return what stands above a grid."""
    return f"{name}: {images:,} images seen, grid {number + 1} of {count}"


def read_picture(path: Path) -> Image.Image | str:
    """Read a picture; return what is wrong with it in words, where it cannot be read."""
    try:
        with Image.open(path) as file:
            return file.convert("RGB")
    # A training just writes it, or has removed it; a bomb is refused by Pillow.
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        return f"{path.name} cannot be shown: {error}"
