"""The live view: runs as rows, the chosen one in full below, and keys."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from rich.text import Text
from textual.app import App, ComposeResult, SuspendNotSupported
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.message import Message
from textual.widgets import DataTable, Footer, Static

from command_line.printable import printable
from command_line.signals import signals_to_handle
from launcher.status.facts import RunState
from launcher.watch import commands
from launcher.watch.graphics import Graphics
from launcher.watch.rows import COLUMNS, cells, column_widths
from launcher.watch.screens import LogScreen, PictureScreen, Question
from launcher.watch.slide_show import show_grids
from launcher.watch.watched import Watched, changes, clock, summary
from trainer.core.fields import Refused
from trainer.runs.run_folder import RunFolder

EVERY_S = 3.0
KEYBOARD, SCREEN = 0, 2  # textual draws on standard error, so that standard output stays free


class WatchApp(App[None]):
    """All runs, live.

    Args:
        look: looks at the runs anew; it may take long, where Slurm does not answer.
        graphics: how the terminal shows pictures pixel by pixel; None: it does not.
    """

    CSS_PATH = "watch.tcss"
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        ("l", "logs", "logs"),
        ("p", "pictures", "pictures"),
        ("c", "cancel", "cancel"),
        ("r", "resume", "resume"),
        ("q", "quit", "quit"),
        Binding("ctrl+c", "quit", show=False, priority=True),
    ]

    class Looked(Message):
        """The runs, or why they cannot be looked at."""

        def __init__(self, found: Sequence[Watched] | Exception) -> None:
            super().__init__()
            self.found = found

    def __init__(self, look: Callable[[], Sequence[Watched]], graphics: Graphics | None = None) -> None:
        # The terminal's own colours, which its user has chosen and can read; NO_COLOR takes them away.
        self.colours = not os.environ.get("NO_COLOR")
        super().__init__(ansi_color=True)
        self.theme = "ansi-dark"
        self.look, self.graphics = look, graphics
        self.found: dict[str, Watched] = {}
        self.trouble, self.looked = "", ""
        self.over = threading.Event()
        self.handlers: dict[signal.Signals, Any] = {}
        self.errands: set[asyncio.Task[None]] = set()

    def compose(self) -> ComposeResult:
        """Show a title, the runs, the chosen one, and the keys."""
        yield Static(id="title")
        yield DataTable[Text](cursor_type="row", zebra_stripes=False, id="runs")
        with VerticalScroll(id="details"):
            yield Static(id="chosen")
        yield Footer(show_command_palette=False)

    def on_mount(self) -> None:
        """Begin to look."""
        loop = asyncio.get_running_loop()

        def end(number: int, frame: object) -> None:
            self.over.set()
            loop.call_soon_threadsafe(self.exit)

        for number in signals_to_handle((signal.SIGTERM, signal.SIGHUP)):
            # Not the loop's own handler, which does not run while pictures have the terminal.
            self.handlers[number] = signal.signal(number, end)
        self.query_one(DataTable).focus()
        # Not one of textual's workers: whoever leaves would wait for a Slurm that does not answer.
        threading.Thread(target=self.look_again_and_again, name="look", daemon=True).start()

    def on_unmount(self) -> None:
        """End to look."""
        self.over.set()
        for number, handler in self.handlers.items():
            signal.signal(number, handler)

    def look_again_and_again(self) -> None:
        """Look, in a thread of its own, and say what was found."""
        while not self.over.is_set():
            try:
                self.post_message(self.Looked(self.look()))
            except Exception as error:  # what it is, is judged where it is shown
                self.post_message(self.Looked(error))
            self.over.wait(EVERY_S)

    def on_watch_app_looked(self, message: Looked) -> None:
        """Show what was found."""
        if isinstance(message.found, Exception):
            if not isinstance(message.found, Refused | OSError):
                raise message.found
            self.trouble = printable(message.found)
        else:
            before, self.trouble, self.looked = self.found, "", clock()
            self.found = {str(watched.path): watched for watched in message.found}
            for text, wrong in changes(before, self.found):
                self.say(text, wrong)
                if wrong:
                    self.bell()
            self.draw()
        self.draw_title()

    def say(self, text: str, wrong: bool = False) -> None:
        """Show a message for some seconds."""
        self.notify(text, severity="error" if wrong else "information", timeout=10, markup=False)

    def on_resize(self) -> None:
        """Give the columns other widths."""
        self.draw()

    def draw(self) -> None:
        """Show the rows; the one that was chosen stays chosen."""
        table = self.query_one("#runs", DataTable)
        widths, chosen = column_widths(self.size.width), self.chosen_key()
        order = [str(row.value) for row in table.rows]
        if order == [*self.found] and {str(c.key.value): c.width for c in table.ordered_columns} == widths:
            for key, watched in self.found.items():
                for name, cell in cells(watched, widths).items():
                    table.update_cell(key, name, cell)
        else:
            table.clear(columns=True)
            for name in COLUMNS:
                table.add_column(Text(name), width=widths[name], key=name)
            for key, watched in self.found.items():
                table.add_row(*cells(watched, widths).values(), key=key)
            if chosen in self.found:
                table.move_cursor(row=[*self.found].index(chosen))
        self.draw_chosen()

    def draw_title(self) -> None:
        """Show how many runs there are, and when they were looked at; what is wrong, if they could not be."""
        said = summary(self.found.values(), self.looked)
        style, shown = ("bold red", f"{said}; {self.trouble}") if self.trouble else ("bold", said)
        self.query_one("#title", Static).update(Text(shown, style, no_wrap=True, overflow="ellipsis"))

    def draw_chosen(self) -> None:
        """Show the chosen run in full."""
        watched = self.chosen()
        self.query_one("#chosen", Static).update(watched.details if watched else "")

    def on_data_table_row_highlighted(self) -> None:
        """Follow the cursor."""
        self.draw_chosen()

    def chosen_key(self) -> str | None:
        """Return the folder of the run that the cursor is on."""
        table = self.query_one("#runs", DataTable)
        if not table.is_valid_row_index(table.cursor_row):
            return None
        return str(table.coordinate_to_cell_key(table.cursor_coordinate).row_key.value)

    def chosen(self) -> Watched | None:
        """Return the run that the cursor is on."""
        return self.found.get(self.chosen_key() or "")

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Have the keys of runs count only where runs are shown."""
        return action not in ("logs", "pictures", "cancel", "resume") or len(self.screen_stack) == 1

    def action_logs(self) -> None:
        """Show what the processes of the chosen run say."""
        if watched := self.chosen():
            self.push_screen(LogScreen(watched.name, watched.path))

    def action_pictures(self) -> None:
        """Show the sample grids of the chosen run."""
        if not (watched := self.chosen()):
            return
        grids = RunFolder(watched.path).sample_grids()
        if not grids:
            self.say(f"{watched.name} has no pictures{'' if watched.prepares else ' yet'}")
        elif self.graphics and self.colours:
            try:
                with self.suspend():
                    show_grids(watched.name, grids, self.graphics, self.over.is_set, (KEYBOARD, SCREEN))
                self.refresh()
            except SuspendNotSupported:
                self.push_screen(PictureScreen(watched.name, grids, self.colours))
        else:
            self.push_screen(PictureScreen(watched.name, grids, self.colours))

    def action_cancel(self) -> None:
        """Save and end the chosen run, after a question."""
        if not (watched := self.chosen()):
            return
        if watched.state.live or watched.state is RunState.UNKNOWN:  # where Slurm does not answer
            self.ask(f"Save and end {watched.name}, which is {watched.state_words}?", commands.cancel_words(watched))
        else:
            self.say(f"nothing to cancel: {watched.name} is {watched.state_words}")

    def action_resume(self) -> None:
        """Go on with the chosen run, after a question."""
        if not (watched := self.chosen()):
            return
        if watched.resumable:
            going_on = "Where there is no Slurm it trains here, also when this view has ended."
            text = f"Go on with {watched.name}, which is {watched.state_words}? {going_on}"
            self.ask(text, commands.resume_words(watched))
        else:
            self.say(f"nothing to resume: {watched.name} is {watched.state_words}")

    def ask(self, text: str, words: list[str]) -> None:
        """Ask, and on yes carry out a command of the launcher."""
        watched = self.chosen()
        assert watched

        def answered(yes: bool | None) -> None:
            if yes:
                errand = asyncio.create_task(self.carry_out(words, watched))
                self.errands.add(errand)  # else nobody would hold it, and it could be lost
                errand.add_done_callback(self.errands.discard)

        self.push_screen(Question(f"{text}\n\n{commands.typed(words)}"), answered)

    async def carry_out(self, words: list[str], watched: Watched) -> None:
        """Carry out a command, and tell how it ended."""
        self.say(f"started: {commands.typed(words)}")
        try:
            code, said = await commands.carry_out(words, watched.path)
        except OSError as error:
            self.say(f"{watched.name}: {error}", wrong=True)
        else:
            self.say(said or f"{commands.typed(words)} ended with {code}", wrong=code != 0)
