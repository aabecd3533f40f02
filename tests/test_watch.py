"""`launcher watch`: what it shows, what its keys do, and where there is no such terminal."""

from __future__ import annotations

import asyncio
import base64
import io
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from PIL import Image
from rich.segment import Segment
from textual.color import Color
from textual.filter import NoColor
from textual.pilot import Pilot

from launcher.__main__ import main
from launcher.cli import status as status_command
from launcher.cli import watch as watch_command
from launcher.cli.watch import Watch, look, run_watch
from launcher.jobs.attempts import Cause, Decision
from launcher.watch import commands
from launcher.watch.app import WatchApp
from launcher.watch.graphics import Graphics, as_blocks, as_kitty, as_sixel, fit, judge_answer
from launcher.watch.rows import column_widths, shorten
from launcher.watch.screens import LogScreen, PictureScreen, Question, read_picture
from launcher.watch.slide_show import show_grids
from launcher.watch.watched import sparkline
from tests.conftest import HOME
from tests.made_runs import JOB, MadeRun, job, slurm_says
from trainer.core.fields import Refused
from trainer.runs.lease_holder import THIS_MACHINE, Holder

HOSTILE = "\x1b]0;owned\x07[red]x[/red]"  # a terminal would take a title from it, and rich a colour


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, MadeRun]:
    """A run that trains here, one that has failed, and one whose job waits."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NO_COLOR", raising=False)
    slurm_says(monkeypatch, job("PENDING", "Resources"))
    trains, failed, queued = (MadeRun(Path("runs") / name) for name in ("trains", "failed", "queued"))
    trains.holds(Holder.this_process(THIS_MACHINE, 0, trains.folder))
    # After the start of this process, which holds the lease.
    trains.event("start", 1, images_seen=0)
    trains.steps((320, 1, 100), (640, 2, 800), after_s=2)
    trains.run.samples.mkdir()
    for images, colour in ((320, "blue"), (640, "red")):
        Image.new("RGB", (16, 8), colour).save(trains.run.sample(images))
    failed.event("start", -100, images_seen=0)
    failed.event("end", -10, outcome="failed", signal=None, problem=HOSTILE)
    queued.submitted()
    # The newest first.
    for age, one in enumerate((trains, failed, queued)):
        os.utime(one.run.config, (1_000 - age, 1_000 - age))
    return {"trains": trains, "failed": failed, "queued": queued}


def show(
    script: Callable[[WatchApp, Pilot[None]], Awaitable[None]], app: WatchApp | None = None, width: int = 80
) -> WatchApp:
    """Open the view, wait for the first look and for the keys below it, and carry out a script."""
    app = app or WatchApp(lambda: look(Watch()))
    whole = re.compile(r"^ queued .*run +runs/trains.*^ *l +logs", re.MULTILINE | re.DOTALL)

    async def carry_out() -> None:
        async with app.run_test(size=(width, 24)) as pilot:
            await until(pilot, lambda: whole.search(screen_text(app)))
            await script(app, pilot)

    asyncio.run(carry_out())
    return app


async def until(pilot: Pilot[None], true: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        await pilot.pause(0.02)


def screen_text(app: WatchApp) -> str:
    """Return what the screen shows, as text."""
    return "\n".join(strip.text.rstrip() for strip in app.screen._compositor.render_strips())


def parts(app: WatchApp) -> list[Segment]:
    """Return what the screen shows, with its styles."""
    return [part for strip in app.screen._compositor.render_strips() for part in strip]


def test_it_shows_all_runs_and_the_chosen_one_in_full(made: dict[str, MadeRun]) -> None:
    async def script(app: WatchApp, pilot: Pilot[None]) -> None:
        shown = screen_text(app)
        lines = shown.splitlines()
        assert re.match(r"3 runs, 2 live, \d\d:\d\d:\d\d", lines[0])
        assert re.search(r"^ trains +training +62% +800 +▂█ +0 s", lines[2]), lines[2]
        assert re.search(r"^ failed +failed +0% +! 1", lines[3]), lines[3]
        assert re.search(r"^ queued +queued", lines[4]), lines[4]
        assert "run       runs/trains" in shown
        assert "640 of 1,024, 62%" in shown
        assert all(len(line) <= 80 for line in lines)
        await pilot.press("down")
        await pilot.pause()
        shown = screen_text(app)
        assert re.search(r"^! \d\d:\d\d The run has failed: \\x1b\]0;owned\\x07\[red\]x\[/red\]$", shown, re.MULTILINE)
        assert "\x1b" not in shown
        assert "next     python -m launcher resume runs/failed" in shown
        assert lines[-1].split() == ["l", "logs", "p", "pictures", "c", "cancel", "r", "resume", "q", "quit"]

    show(script)


def test_a_new_state_and_a_new_alert_are_told_and_the_chosen_run_stays(made: dict[str, MadeRun]) -> None:
    async def script(app: WatchApp, pilot: Pilot[None]) -> None:
        await pilot.press("down", "down")
        made["queued"].event("checkpoint failed", 0, problem=HOSTILE)
        made["trains"].event("end", 60, outcome="finished", signal=None)
        made["trains"].run.lease.unlink()
        MadeRun(Path("runs/newest"))
        app.on_watch_app_looked(app.Looked(look(Watch())))
        await pilot.pause()
        told = [(one.message, one.severity) for one in app._notifications]
        assert ("trains: training → finished", "information") in told
        assert next(text for text, severity in told if severity == "error").endswith(
            "A checkpoint was not written: \\x1b]0;owned\\x07[red]x[/red]; training goes on, the last one stays"
        )
        assert app.query_one("#runs").row_count == 4  # type: ignore[attr-defined]
        chosen = app.chosen()
        assert chosen
        assert chosen.name == "queued"
        app.on_watch_app_looked(app.Looked(Refused("runs/x holds no run: \x1b[2J")))
        await pilot.pause()
        assert "runs/x holds no run: \\x1b[2J" in screen_text(app)

    show(script)


def test_cancel_and_resume_ask_and_then_do_it(made: dict[str, MadeRun], monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[list[str]] = []

    async def carry_out(words: list[str], path: Path) -> tuple[int, str]:
        done.append(words)
        return 2, "refused: it cannot be"

    monkeypatch.setattr(commands, "carry_out", carry_out)

    async def script(app: WatchApp, pilot: Pilot[None]) -> None:
        for key in ("n", "escape", "enter"):
            await pilot.press("c")
            await pilot.pause()
            assert isinstance(app.screen, Question)
            assert "python -m launcher cancel runs/trains" in screen_text(app)
            await pilot.press("c", "r", key)
            await pilot.pause()
            assert not isinstance(app.screen, Question)
        assert done == []
        await pilot.press("r")
        await pilot.pause()
        assert app.screen_stack == [app.screen]
        assert [one.message for one in app._notifications] == ["nothing to resume: trains is training"]
        await pilot.press("c", "y")
        await pilot.pause()
        await pilot.press("down", "c", "r", "y")
        await until(pilot, lambda: len(done) == 2)
        await pilot.pause()
        told = {one.message: one.severity for one in app._notifications}
        assert told["refused: it cannot be"] == "error"
        assert "nothing to cancel: failed is failed" in told

    show(script)
    assert done == [["cancel", "runs/trains"], ["resume", "runs/failed"]]


def test_a_command_is_a_process_whose_last_words_are_kept(made: dict[str, MadeRun]) -> None:
    words = commands.cancel_words(look(Watch((Path("runs/failed"),)))[0])
    env = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(HOME)
    try:
        code, said = asyncio.run(commands.carry_out(words, Path("runs/failed")))
    finally:
        os.environ.pop("PYTHONPATH") if env is None else os.environ.update(PYTHONPATH=env)
    assert (code, said) == (0, "nothing to cancel: runs/failed is failed (\\x1b]0;owned\\x07[red]x[/red])")
    assert made["failed"].run.resume_log.read_bytes().startswith(b"nothing to cancel: runs/failed")


def test_a_resume_asks_for_the_nodes_of_before(made: dict[str, MadeRun]) -> None:
    queued, failed = (look(Watch((Path("runs") / name,)))[0] for name in ("queued", "failed"))
    assert commands.resume_words(queued) == ["resume", "runs/queued", "--nodes", "2"]
    assert commands.resume_words(failed) == ["resume", "runs/failed"]


def test_logs_grow_over_attempts(made: dict[str, MadeRun]) -> None:
    run = made["queued"]

    def says(restart: int, text: str) -> None:
        path = run.run.log(JOB, restart, 0)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            file.write(text)

    run.began()
    says(0, f"2026-11-24T12:00:01.000Z [rank 0] first {HOSTILE}\n")

    async def script(app: WatchApp, pilot: Pilot[None]) -> None:
        await pilot.press("down", "down", "l")
        await pilot.pause()
        assert isinstance(app.screen, LogScreen)
        await until(pilot, lambda: "first" in screen_text(app))
        shown = screen_text(app)
        assert f"── job, attempt 0: job {JOB} on n1, n2" in shown
        assert "[rank 0] first \\x1b]0;owned\\x07[red]x[/red]" in shown
        run.ended(run.began(), Cause.PREEMPTED, Decision.GO_ON, "saved")
        run.began(restart=1)
        says(1, "2026-11-24T12:00:09.000Z [rank 0] second\n")
        await until(pilot, lambda: "second" in screen_text(app))
        await pilot.press("c")
        assert isinstance(app.screen, LogScreen), "keys of runs count among the runs only"
        await pilot.press("q", "up", "l")
        await until(pilot, lambda: "end: outcome failed" in screen_text(app))
        assert "Z start: images_seen 0" in screen_text(app)

    show(script)


def test_pictures_through_time(made: dict[str, MadeRun]) -> None:
    async def script(app: WatchApp, pilot: Pilot[None]) -> None:
        await pilot.press("down", "p")
        await pilot.pause()
        assert [one.message for one in app._notifications] == ["failed has no pictures yet"]
        await pilot.press("up", "p")
        await pilot.pause()
        assert isinstance(app.screen, PictureScreen)
        assert "trains: 640 images seen, grid 2 of 2" in screen_text(app)
        # Four whole times, in half blocks: the largest that is below 22 lines.
        assert screen_text(app).count("▀" * 80) == 20
        await pilot.press("left", "left")
        await pilot.pause()
        assert "trains: 320 images seen, grid 1 of 2" in screen_text(app)
        made["trains"].run.sample(640).write_bytes(b"no picture")
        await pilot.press("right")
        await pilot.pause()
        assert "000000000640.png cannot be shown" in screen_text(app)

    show(script)


def test_without_colours_nothing_is_coloured(made: dict[str, MadeRun], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")

    async def script(app: WatchApp, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: any(part.style and part.style.reverse for part in parts(app)))
        (no_colour,) = [one for one in app._filters if isinstance(one, NoColor)]
        styles = [part.style for part in no_colour.apply(parts(app), Color(0, 0, 0)) if part.style]
        assert {colour.name for one in styles for colour in (one.color, one.bgcolor) if colour} == {"default"}
        assert any(one.reverse for one in styles), "the chosen run is seen all the same"
        await pilot.press("p")
        await until(pilot, lambda: screen_text(app).count("░" * 80) == 20)  # red is a third of white
        assert "▀" not in screen_text(app)

    show(script)


def test_columns_fit_every_width() -> None:
    for width in range(80, 300):
        widths = column_widths(width)
        assert sum(widths.values()) + 2 * len(widths) + 2 <= width
        assert width < 110 or widths["state"] == 22
    assert shorten("dcgan-64-20261130-094500", 15) == "dcgan…30-094500"
    assert shorten("short", 15) == "short"


def test_the_line_of_speeds_begins_at_nothing() -> None:
    assert sparkline((0.0, 50.0, 100.0), 10) == "▁▅█"
    assert sparkline((1.0, 80.0, 100.0), 2) == "▇█"
    assert sparkline((), 10) == sparkline((0.0,), 10) == ""


def test_what_terminals_answer() -> None:
    assert judge_answer("\x1b_Gi=31;OK\x1b\\\x1b[?62;c") is Graphics.KITTY
    assert judge_answer("\x1b[?62;4;6c") is Graphics.SIXEL
    assert judge_answer("\x1b_Gi=31;EINVAL\x1b\\\x1b[?64;1c") is None
    assert judge_answer("\x1b[?4;6c") is None, "the first number is a class"
    assert judge_answer("") is None


def picture() -> Image.Image:
    """Return a picture of 19 rows, which is no multiple of six, with a colour for each place."""
    made = Image.new("RGB", (7, 19))
    for x in range(7):
        for y in range(19):
            made.putpixel((x, y), (x // 3 * 51, y // 4 * 51, 102))
    return made


def test_sixels_say_what_the_picture_is() -> None:
    """Read back as a terminal reads them."""
    said = as_sixel(picture())
    head = re.match(r'\x1bPq"1;1;7;19((?:#\d+;2;\d+;\d+;\d+)+)(.*)\x1b\\$', said, re.DOTALL)
    assert head
    palette = {int(n): tuple(int(v) for v in rgb.split(";")) for n, rgb in re.findall(r"#(\d+);2;([\d;]+)", head[1])}
    seen: dict[tuple[int, int], tuple[int, ...]] = {}
    for band, text in enumerate(head[2].split("-")):
        for one in text.split("$"):
            colour, letters = re.match(r"#(\d+)(.*)", one, re.DOTALL).groups()  # type: ignore[union-attr]
            letters = re.sub(r"!(\d+)(.)", lambda found: found[2] * int(found[1]), letters)
            for x, letter in enumerate(letters):
                for bit in range(6):
                    if ord(letter) - 63 >> bit & 1:
                        assert seen.setdefault((x, band * 6 + bit), palette[int(colour)]) == palette[int(colour)]
    wanted = picture()
    assert {*seen} == {(x, y) for x in range(7) for y in range(19)}
    for place, colour in seen.items():
        pixel = wanted.getpixel(place)
        assert isinstance(pixel, tuple)
        assert colour == tuple(round(value * 100 / 255) for value in pixel)


def test_kitty_gets_the_picture_in_pieces() -> None:
    noise = Image.effect_noise((120, 90), 90).convert("RGB")
    pieces = re.findall(r"\x1b_G([^;]*);([^\x1b]*)\x1b\\", as_kitty(noise))
    assert len(pieces) > 1
    assert all(len(data) <= 4096 for _, data in pieces)
    assert pieces[0][0] == "a=T,f=100,q=2,m=1"
    assert pieces[-1][0] == "m=0"
    sent = Image.open(io.BytesIO(base64.b64decode("".join(data for _, data in pieces))))
    assert sent.tobytes() == noise.tobytes()


def test_pictures_fit_and_small_ones_grow_by_whole_times() -> None:
    assert fit(picture(), 30, 60).size == (21, 57)
    assert fit(picture(), 4, 4).size == (1, 4)
    blocks = as_blocks(Image.new("RGB", (3, 3), (255, 0, 0)), 3, 2, colours=True)
    assert blocks.plain == "▀▀▀\n▀▀▀"
    assert str(blocks.spans[-1].style) == "#ff0000 on #000000", "below the last row nothing is"


def test_a_picture_that_is_a_bomb_is_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40)
    Image.new("RGB", (16, 8)).save(tmp_path / "x.png")
    assert "x.png cannot be shown" in str(read_picture(tmp_path / "x.png"))


def read_until(keyboard: int, whole: Callable[[bytes], bool]) -> bytes:
    """Return what a terminal shows; it comes in pieces."""
    said = b""
    while not whole(said):
        assert select.select([keyboard], [], [], 60)[0], said
        said += os.read(keyboard, 65536)
    return said


@pytest.mark.parametrize(("graphics", "begins"), [(Graphics.KITTY, b"\x1b_Ga=T"), (Graphics.SIXEL, b"\x1bPq")])
def test_a_terminal_with_graphics_gets_the_bare_screen(
    graphics: Graphics, begins: bytes, made: dict[str, MadeRun]
) -> None:
    keyboard, terminal = pty.openpty()
    try:
        termios.tcsetwinsize(terminal, (4, 40))  # a small picture, that the terminal takes without a reader
        before = termios.tcgetattr(terminal)
        grids = [(n, made["trains"].run.sample(n)) for n in (320, 640)]
        asked = []

        def ending() -> bool:
            asked.append(read_until(keyboard, lambda said: begins in said and said.endswith(b"\x1b\\")))
            os.write(keyboard, b"\x1b[D" if len(asked) == 1 else b"q")
            return False

        show_grids("trains", grids, graphics, ending, (terminal, terminal))
        assert b"640 images seen, grid 2 of 2" in asked[0]
        assert begins in asked[0]
        assert b"320 images seen, grid 1 of 2" in asked[1]
        left = read_until(keyboard, lambda said: said.endswith(b"\x1b[2J\x1b[H"))
        assert (b"\x1b_Ga=d" in left) is (graphics is Graphics.KITTY)
        assert termios.tcgetattr(terminal) == before
    finally:
        os.close(keyboard)
        os.close(terminal)


def test_in_a_pipe_it_is_status_again_and_again(
    made: dict[str, MadeRun], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    looks = iter((False, False, True))
    monkeypatch.setattr(status_command, "reader_gone", lambda: next(looks))
    monkeypatch.setattr(time, "sleep", lambda _: None)
    assert main(["watch"]) == 0
    said = capsys.readouterr().out
    assert len(re.findall(r"^\d\d:\d\d:\d\d$", said, re.MULTILINE)) == 2
    assert said.count("runs/trains") == 2
    assert "\x1b" not in said


@pytest.mark.parametrize("term", ["dumb", "", "unknown", "xterm"])
def test_a_terminal_that_cannot_go_back_gets_lines(term: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", term)
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        monkeypatch.setattr(stream, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="utf-8"))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert watch_command.can_show_screens() is (term == "xterm")


def test_what_is_refused(made: dict[str, MadeRun], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_command, "can_show_screens", lambda: True)
    with pytest.raises(Refused, match="nowhere holds no run"):
        run_watch(Watch((Path("nowhere"),)))
    monkeypatch.setattr(watch_command, "find_spec", lambda _: None)
    with pytest.raises(Refused, match=r"pip install 'lienzo\[watch\]'.*python -m launcher status --watch$"):
        run_watch(Watch())
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    with pytest.raises(Refused, match=r"no runs under ./runs; begin one with: python -m launcher submit"):
        run_watch(Watch())


@pytest.mark.parametrize("ended_by", ["\x03", "closed"])
def test_on_a_real_terminal(ended_by: str, made: dict[str, MadeRun]) -> None:
    """It takes the screen, asks what the terminal can show, and gives the screen back; nothing of it stays."""
    keyboard, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (24, 80))
    before = termios.tcgetattr(terminal)
    env = os.environ | {"PYTHONPATH": str(HOME), "TERM": "xterm-256color", "PYTHONUTF8": "1"}
    command = [sys.executable, "-m", "launcher", "watch"]
    view = subprocess.Popen(command, env=env, stdin=terminal, stdout=terminal, stderr=terminal, start_new_session=True)
    try:
        said = read_until(keyboard, lambda said: b"\x1b[c" in said)
        os.write(keyboard, b"\x1b[?62;c")
        said += read_until(keyboard, lambda said: b"trains" in said)
        if ended_by == "closed":
            view.send_signal(signal.SIGHUP)
        else:
            os.write(keyboard, ended_by.encode())
        while view.poll() is None:
            if select.select([keyboard], [], [], 0.02)[0]:
                said += os.read(keyboard, 65536)
        while select.select([keyboard], [], [], 0)[0]:
            said += os.read(keyboard, 65536)
        assert view.returncode == 0, said
        assert b"\x1b[?1049h" in said
        assert b"\x1b[?1049l" in said
        assert b"Traceback" not in said
        assert termios.tcgetattr(terminal) == before
    finally:
        view.kill()
        view.wait()
        os.close(keyboard)
        os.close(terminal)
