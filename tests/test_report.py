"""The report: in a real browser, as text, and what stands in it compared with what the run folder says."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Browser, Page

from command_line import arguments as command_line
from launcher.__main__ import main
from launcher.cli.report import named_runs
from launcher.cli.submit import Submit
from launcher.jobs.attempts import Cause, Decision
from launcher.pages.drawing import RIGHT
from launcher.pages.pictures import fit_image
from launcher.report import making
from launcher.report.cost import cost_of, energy_kwh
from launcher.report.curves import Curve, Point, draw_curves, thin_out
from launcher.report.gallery import Room
from launcher.report.page import GENERATOR, build_report
from launcher.report.run_facts import gather_runs, name_runs
from launcher.report.settings import command_for
from shards.building.build import run_build
from shards.building.options import Build
from tests.conftest import HOME
from tests.drawn_runs import make_run, small_config
from tests.made_runs import MadeRun
from trainer import __main__ as trainer_commands
from trainer.config.recipes import recipe_config
from trainer.core.fields import identity_hash, overlay_settings
from trainer.core.randomness import philox
from trainer.runs.config_defaults import load_defaults
from trainer.runs.config_loading import write_config
from trainer.runs.journal import encode_row
from trainer.runs.run_folder import RunFolder

HOSTILE = "<img src=x onerror=alert(1)>"
PHONE, DESKTOP = {"width": 390, "height": 844}, {"width": 1280, "height": 800}
FIGURE = {"better": "lower", "value": 24.0, "low": 21.5, "high": 26.5, "count": 256, "floor": {"value": 1.5}}


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of two classes, one of which is named by markup, and a file that is none."""
    folder = tmp_path_factory.mktemp("pictures")
    for k in range(24):
        path = folder / "source" / ("cats", HOSTILE)[k % 2] / f"{k}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(philox("report", k).integers(0, 256, (32, 32, 3), np.uint8)).save(path)
    (folder / "source" / "cats" / "broken.png").write_bytes(b"no picture")
    assert run_build(Build((folder / "source",), folder / "data", size=("32",), labels="folders", workers=1)) == 0
    return folder / "data"


def rows(path: Path, *many: dict[str, object]) -> None:
    with path.open("ab") as file:
        file.writelines(encode_row(row) for row in many)


def full_run(folder: Path, data: Path, **changes: object) -> RunFolder:
    """Make a run of two attempts on a cluster, with everything that a report tells of."""
    made = MadeRun(folder)
    made.run.config.unlink()
    config = overlay_settings(recipe_config("dcgan-32"), {"batch_size": 32, "data": str(data), **changes}, "here")
    write_config(made.run, replace(config, mixed_precision="no"))
    made.submitted(-900)
    first = made.began(0, -800)
    made.event("environment", -799, device="H200", cuda="12.9", threads=1, processes=4, torch="2.13.0")
    made.event("collapse alarm", -790, state="collapsed", problem=f"{HOSTILE} variety is gone", images_seen=96)
    made.steps(*((32 * k, 60.0 * k, 10.0 + k) for k in range(5)), after_s=-795)
    made.ended(first, Cause.PREEMPTED, Decision.GO_ON, f"by {HOSTILE}", 96)
    second = made.began(1, -300, 96)
    made.event("environment", -299, device="H200", cuda="12.9", threads=1, processes=2, torch="2.13.0")
    made.steps((160, 60.0, 5.0), (192, 120.0, 5.0), after_s=-299)
    made.ended(second, Cause.FINISHED, Decision.END, "", 192)
    for k in (64, 128, 192):
        figures = {"fid_256/random-vgg": FIGURE | {"value": 24.0 + k / 64, "high": 40.0}, f"{HOSTILE}_2": FIGURE}
        rows(made.run.evaluations, {"images_seen": k, "seed_set": "report", "figures": figures})
    rows(made.run.metrics, {"images_seen": 192, HOSTILE: 1.0, "swd_512": 5.0}, {"images_seen": 224, HOSTILE: 2.0})
    made.run.samples.mkdir()
    for k in (64, 128, 192):
        grid = np.full((64, 132, 3), k, np.uint8)
        grid[:, :64] = 9
        Image.fromarray(grid).save(made.run.sample(k))
    Image.fromarray(grid).save(made.run.alarm_images(96, 0))
    return made.run


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory, shards: Path) -> list[RunFolder]:
    home = tmp_path_factory.mktemp("runs")
    return [full_run(home / HOSTILE, shards), full_run(home / "other", shards, seed=7, flip=True)]


def look_at(page: Page, file: Path, said: list[str]) -> None:
    """Open a page; nothing may be said, asked for from elsewhere, run, or keep people out."""
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("dialog", lambda dialog: said.append(dialog.message))
    page.on("request", lambda request: said.append(request.url) if not request.url.startswith("data:") else None)
    page.goto(file.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, "it never scrolls sideways"
    assert page.evaluate("[...document.images].every((i) => i.naturalWidth && i.src.startsWith('data:image/webp'))")
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()


def test_a_browser_shows_it(two: list[RunFolder], browser: Browser, tmp_path: Path) -> None:
    """Two runs on a desktop by day, with the keyboard alone; on a phone by night; and where no script runs."""
    file = tmp_path / "report.html"
    assert main(["report", *(str(run.path) for run in two), "--out", str(file)]) == 0
    said: list[str] = []
    page = browser.new_page(viewport=DESKTOP)  # type: ignore[arg-type]
    look_at(page, file, said)
    page.locator(".film input").first.focus()
    assert shown(page) == ["192 images seen"] * 2
    page.keyboard.press("ArrowLeft")
    assert shown(page) == ["128 images seen"] * 2
    assert page.locator(".film input").first.get_attribute("aria-valuetext") == "128 images seen"
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    assert page.locator(".film button").first.inner_text() == "Pause"
    page.locator(".film").first.get_by_role("button", name="Play").wait_for(timeout=10_000)
    assert shown(page) == ["192 images seen"] * 2
    page = browser.new_page(viewport=PHONE, color_scheme="dark")  # type: ignore[arg-type]
    look_at(page, file, said)
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 27)"
    assert said == [file.as_uri()] * 2
    page = browser.new_context(java_script_enabled=False).new_page()
    page.goto(file.as_uri())
    assert shown(page) == ["64 images seen", "128 images seen", "192 images seen"] * 2
    assert not page.locator(".player").first.is_visible()


def shown(page: Page) -> list[str]:
    """Return the words below the grids that are shown."""
    return [c.inner_text() for c in page.locator(".film").first.locator("figcaption").all() if c.is_visible()]


def test_what_stands_in_it(two: list[RunFolder]) -> None:
    text = build_report(gather_runs(two[:1]))
    assert "<img src=x" not in text
    assert "&lt;img src=x onerror=alert(1)&gt; variety is gone" in text
    for words in (
        "FID of 256 pictures: 27.0 (21.5 to 40.0).",
        "preempted: by &lt;img",
        "loss_d was no finite number in 7 rows, first at 0 images",
        "0.333 GPU-hours",
        "2 × H200, torch 2.13.0",
        "not_an_image",
        "--batch-size 32",
        "cats",
    ):
        assert words in text, words
    assert text.count("<h1>") == 1
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy
    assert policy[1].startswith("default-src &#x27;none&#x27;")
    assert not re.search(r'\son\w+="|\sstyle="|(?:src|href)="(?!data:|#)', text)
    assert "Settings that differ between the runs" in build_report(gather_runs(two))


def test_cost_and_energy(two: list[RunFolder]) -> None:
    """Four GPUs for 240 s, two for 120 s; power in trapezoids, node by node, and not over a gap of hours."""
    used = cost_of(gather_runs(two[:1])[0])
    assert (used.seconds, used.unit, used.energy_kwh) == (360, "GPU-hours", None)
    assert used.device_hours == pytest.approx((4 * 240 + 2 * 120) / 3600)
    power = [{"node": n, "time": t, "gpu/0/power_w": w, "gpu/1/power_w": 100} for n in (0, 1) for t, w in POWER]
    assert energy_kwh(power) == pytest.approx(2 * (10 * 300 + 10 * 500) / 3.6e6)
    assert energy_kwh([{"node": 0, "time": 1.0}]) is None


POWER = ((0.0, 100.0), (10.0, 300.0), (20_000.0, 300.0), (20_010.0, 500.0))


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 3, "flip": True, "channels_last": False, "penalties": {"r1": {"weight": 2.5, "final": 0.1}}},
        {"network": {"g_channels": 8}, "optimizer": {"beta2_final": 0.9}, "epochs": 3, "augment": {"kind": "ada"}},
    ],
)
def test_the_command_trains_the_same(changes: dict[str, object], tmp_path: Path) -> None:
    config = overlay_settings(recipe_config("dcgan-32"), changes, "here")
    config = replace(config, mixed_precision="no", data=tmp_path, recipe="dcgan-32")
    words = command_for(config).split()
    assert words[:4] == ["python", "-m", "launcher", "submit"]
    parsed = command_line.parse(
        Submit, words[4:], "python -m launcher submit", replace(Submit(), config=load_defaults("dcgan-32", None))
    )
    assert identity_hash(parsed.config) == identity_hash(config)
    assert (parsed.config.epochs, parsed.config.data) == (config.epochs, tmp_path)


def test_pictures_fit_their_room() -> None:
    noise = Image.fromarray(philox("room").integers(0, 256, (600, 600, 3), np.uint8))
    for most in (100_000, 20_000, 3_000):
        content, image = fit_image(noise, most)
        assert most / 4 < len(content) <= most
        assert image.width == image.height
    room = Room()
    assert (room.film + room.grids + room.nearest + room.ways) * 4 / 3 < 4_700_000  # of 5 MB
    flat = Image.new("RGB", (64, 64), "red")
    assert fit_image(flat, 1_000)[1].size == (64, 64)


def test_few_points_hide_no_extreme() -> None:
    points = [(float(x), float(x == 700)) for x in range(1_000)]
    thin = thin_out(points, most=50)
    assert len(thin) == 50
    assert max(point.high for point in thin) == 1
    assert sum(point.y for point in thin) == pytest.approx(1 / 20)
    assert name_runs([Path("/a/x/r"), Path("/a/y/r")]) == ["x/r", "y/r"]


def test_names_of_curves_have_their_room() -> None:
    def drawn(*names: str) -> str:
        points = [Point(0, 1, 1, 1), Point(9, 2, 2, 2)]
        return str(draw_curves("t", "x", "y", [Curve(name, k, points) for k, name in enumerate(names)]))

    def room(drawing: str) -> float:
        (place,) = {float(x) for x in re.findall(r'<text x="([0-9.]+)"[^>]*class="name', drawing)}
        return RIGHT - place

    long, short = drawn("data", "forward backward"), drawn("data")
    assert "forward backward<" in long
    assert room(long) >= 9 * len("x forward backward") > room(short) > 0


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    assert main(["report", *map(str, words)]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    return said.err


def test_refusals(two: list[RunFolder], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, own = two[1].path, tmp_path / "own.html"
    own.write_text("mine")
    assert "name run folders" in refused(capsys)
    assert "holds no run" in refused(capsys, tmp_path)
    assert "is no report: name another --out" in refused(capsys, run, "--out", own)
    assert own.read_text() == "mine"
    assert "cannot be written" in refused(capsys, run, "--out", tmp_path / "none" / "r.html")
    assert "leave --pictures out" in refused(capsys, run, "--pictures")
    many = [MadeRun(tmp_path / f"{k}").folder for k in range(9)]
    assert "name at most 8" in refused(capsys, *many)
    assert len(named_runs(many[:8])) == 8
    assert main(["report", str(run), str(run), "--out", str(tmp_path / "another.html")]) == 0
    assert "another.html" in capsys.readouterr().out
    study = shutil.copytree(HOME / "tests" / "old" / "v1" / "study", tmp_path / "study")
    assert "name it alone" in refused(capsys, study, run)
    assert not list(tmp_path.glob(".*"))


def test_a_study_has_one_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = shutil.copytree(HOME / "tests" / "old" / "v1" / "study", tmp_path / "study")
    for _ in range(2):  # the second time it replaces its own
        assert main(["report", str(study)]) == 0
    assert str(study / "report.html") in capsys.readouterr().out
    text = (study / "report.html").read_text()
    assert GENERATOR in text
    assert text.count("<h1>") == 1
    ids = re.findall(r'<section id="([^"]*)"', text)
    assert len({*ids}) == len(ids)
    assert {"arms", "pairs", "pictures-through-time", "settings"} <= {*ids}
    assert "dcgan-s0" in text
    assert "hinge-s0" in text


@pytest.mark.parametrize("content", [b"", b"{", b"[1]\n", b'{"kind": 3}\n', b"\xff\xfe\n", b'{"images_seen": "x"}\n'])
def test_a_damaged_folder_has_a_page(content: bytes, tmp_path: Path) -> None:
    made = MadeRun(tmp_path / "r")
    made.steps((32, 1.0, 10.0))
    made.run.samples.mkdir()
    made.run.sample(32).write_bytes(content)
    run = made.run
    for path in (run.events, run.metrics, run.system, run.attempts, run.evaluations, run.config, run.job):
        before = path.read_bytes() if path.exists() else None
        path.write_bytes(content)
        assert "Train it again" in build_report(gather_runs([run]))
        path.unlink() if before is None else path.write_bytes(before)


def test_generators_make_what_only_they_can(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def in_this_process(words: list[str], **how: object) -> subprocess.CompletedProcess[str]:
        """Where torch is there already."""
        code = trainer_commands.main(words[3:])
        return subprocess.CompletedProcess(words, code, "", capsys.readouterr().err)

    monkeypatch.setattr(making, "subprocess", SimpleNamespace(run=in_this_process))
    config = replace(small_config("dcgan", {}), data=shards)
    run = RunFolder(make_run(tmp_path / "run", config))
    shards.rename(tmp_path / "away")
    assert "trainer nearest makes no pictures of" in refused(capsys, run.path, "--pictures")
    assert main(["report", str(run.path)]) == 0
    again = f"python -m launcher report {run.path} --pictures"
    assert again in (run.path / "report.html").read_text()
    (tmp_path / "away").rename(shards)
    assert main(["report", str(run.path), "--pictures"]) == 0
    newest = run.newest_checkpoint()
    assert newest
    folder = run.made_pictures / newest[1].name
    assert json.loads((folder / "nearest.json").read_text())["pictures"][0]["picture"] == "seed 0"
    text = (run.path / "report.html").read_text()
    assert "picture 40 of 40" in text
    assert f"checkpoint {folder.name}" in text
    assert "is not made yet" not in text
