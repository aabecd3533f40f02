"""`lienzo sync RUN`: send W&B what it lacks of a run, from wherever there is a network."""

from __future__ import annotations

import shlex
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Annotated, ClassVar

import tyro

from command_line.help_page import HelpPage
from trainer.config.groups import TrackingSettings
from trainer.config.wandb_environment import has_key, server_url
from trainer.core.fields import Refused
from trainer.runs import journal
from trainer.runs.journal import EventKind
from trainer.runs.run_folder import RunFolder
from trainer.tracking.mirror_process import one_line, sole_sender
from trainer.tracking.tracker import Identity
from trainer.tracking.wandb_run import WandbRun
from trainer.tracking.wandb_uploader import Uploader, abandon_service


@dataclass(frozen=True)
class Sync:
    """Send W&B the rows of a run that it does not have yet. Harmless at any time, and as often as you like."""

    help_page: ClassVar[HelpPage] = HelpPage(
        examples={
            "runs/NAME": "send what W&B lacks",
            "runs/NAME --follow": "and go on until the run has ended",
        },
    )

    run: Annotated[Path, tyro.conf.Positional]
    """the run folder"""
    follow: bool = False
    """go on until the run has ended"""
    tensorboard: bool = False
    """write what RUN/tensorboard lacks instead; nothing is sent"""


class Interrupt:
    """Answers Ctrl-C between two rows: inside of wandb it may be lost, or leave half a message behind."""

    def __enter__(self) -> Interrupt:
        self.noted, self.before = False, signal.getsignal(signal.SIGINT)
        if self.before is signal.default_int_handler:  # else somebody wants it ignored
            signal.signal(signal.SIGINT, self.note)
        return self

    def __exit__(self, *error: object) -> None:
        signal.signal(signal.SIGINT, self.before)

    def note(self, number: int, frame: FrameType | None) -> None:
        """Handle the signal; a second one interrupts at once."""
        self.noted = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def check(self) -> None:
        """Raise KeyboardInterrupt if the signal has come."""
        if self.noted:
            raise KeyboardInterrupt


def run_sync(arguments: Sync) -> int:
    """Carry out the command; its exit code."""
    if arguments.tensorboard:
        return write_tensorboard(arguments.run)
    return sync_run(arguments.run, arguments.follow)


def write_tensorboard(path: Path) -> int:
    """Write the event files of the run in `path`.

    Raises:
        Refused: TensorBoard is not installed.
    """
    run = RunFolder(path)
    if not run.wandb_identity.exists():
        return print_problem(f"{path} is not a run folder: it has no {run.wandb_identity.name}")
    if problem := TrackingSettings(tensorboard=True).check():
        raise Refused(problem)
    from trainer.tracking.tensorboard_mirror import write_events

    try:
        written, folder = write_events(run), shlex.quote(str(run.tensorboard))
        print(f"{run.tensorboard}: {written} rows written; look at them with: tensorboard --logdir {folder}")
    except BlockingIOError:
        return print_problem(f"another process is writing {run.tensorboard}, perhaps the training itself")
    return 0


def sync_run(path: Path, follow: bool) -> int:
    """Send what W&B lacks of the run in `path`; 0 when it has everything."""
    run = RunFolder(path)
    if not run.wandb_identity.exists():
        return print_problem(f"{path} is not a run folder: it has no {run.wandb_identity.name}")
    if not has_key():
        return print_problem(f"no W&B key for {server_url()}: set WANDB_API_KEY, or run: wandb login")
    run.wandb.mkdir(exist_ok=True)
    try:
        # Two senders would each send what they see as missing, and W&B would have it twice.
        with sole_sender(run.wandb / "online.lock", wait=False), Interrupt() as interrupt:
            return send_rows(run, follow, interrupt)
    except BlockingIOError:
        return print_problem(f"another process is sending {path} to W&B already, perhaps the training itself")
    except KeyboardInterrupt:
        return print_problem("stopped; the same command sends the rest", code=130)
    except Exception as error:  # W&B's failures have many types
        return print_problem(f"W&B at {server_url()} has not taken everything: {one_line(error)}")
    finally:
        abandon_service()


def send_rows(run: RunFolder, follow: bool, interrupt: Interrupt) -> int:
    """Send the rows, tell how many went where, and ask W&B whether it kept them."""
    uploader = Uploader(run, online=True, before_row=interrupt.check)

    def ended() -> bool:
        interrupt.check()
        # Asked at each look: whoever follows a run that trains learns only at its end how W&B is to show it.
        uploader.outcome = last_outcome(run) or "interrupted"
        return not follow or uploader.outcome != "interrupted"

    try:
        if follow:
            uploader.run_until(ended)
        while not follow and not uploader.follow(ended):
            pass
    except KeyboardInterrupt:
        uploader.finish()
        raise
    return max((confirm_rows(uploader, number) for number in {opened.number for opened in uploader.opened}), default=0)


def confirm_rows(uploader: Uploader, number: int) -> int:
    """Report on one segment. W&B's client does not tell of rows that the server has refused, so ask the server."""
    opened = [opened for opened in uploader.opened if opened.number == number]
    sent, last = sum(one.sent for one in opened), opened[-1].last
    if sent:
        again = WandbRun(uploader.run, Identity.load(uploader.run.wandb_identity), number, online=True)
        again.finish(uploader.outcome)
        if again.last < last:
            return print_problem(f"W&B run {again.id} has kept the rows up to images_seen {again.last} only, of {last}")
    print(f"W&B run {opened[-1].id}: {sent} rows sent, complete up to images_seen {last}")
    return 0


def last_outcome(run: RunFolder) -> str | None:
    """How the last attempt ended; None while it goes on, or if it was killed. An interrupted run is resumed."""
    last = [event for event in journal.read_rows(run.events) if event["kind"] in (EventKind.START, EventKind.END)][-1:]
    return last[0].get("outcome") if last else None


def print_problem(message: str, code: int = 1, of: str = "sync") -> int:
    """One line on standard error; the exit code."""
    print(f"lienzo {of}: {message}", file=sys.stderr)
    return code
