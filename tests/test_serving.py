"""`trainer serve` as a whole: one real server, asked over HTTP and looked at in a real browser."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
import psutil
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Browser, Page
from torch import Tensor

from tests.conftest import HOME, run, train
from trainer.networks.base import Latent
from trainer.runs.trained_generator import SamplingOptions, TrainedGenerator
from trainer.serving.points import Point, Style
from trainer.serving.served import ServedGenerator

HOSTILE = "<img src=x onerror=alert(1)>"
STYLES = ("--generator", "stylegan2", "--network.mapping-layers", "2", "--network.max-channels", "16")
PHONE, DESKTOP = {"width": 390, "height": 844}, {"width": 1280, "height": 800}
TOKEN = "a-token-for-tests-only"


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures with two labels that are classes, one of which is named by markup, and one that is a number."""
    folder = tmp_path_factory.mktemp("labelled")
    (folder / "pictures").mkdir()
    rows = []
    for i in range(80):
        pixels = np.random.default_rng(i).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "pictures" / f"{i}.png")
        rows.append((f"{i}.png", ("cats", HOSTILE)[i % 2], ("early", "late")[i % 3 // 2], str(1600 + i)))
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file", "style", "genre", "year"), *rows])
    labels = ("--labels", str(folder / "labels.csv"), "--label-column", "style", "genre", "--number-column", "year")
    out = ("--out", str(folder / "shards"), "--size", "32")
    made = run("shards", "build", str(folder / "pictures"), *out, *labels)
    assert made.returncode == 0, made.stderr
    return folder / "shards"


@pytest.fixture(scope="module")
def folders(labelled: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Runs: with two checkpoints, whose code is z; told a class, whose code is w; told three labels."""
    folder = tmp_path_factory.mktemp("runs")
    train(folder / "plain", labelled, "--total-images", "32", "--checkpoint-every-images", "32")
    train(folder / "styled", labelled, *STYLES, "--network.g-conditional", "--total-images", "32")
    columns = ("--network.label-columns", "style,genre,year", "--network.g-conditional")
    train(folder / "told", labelled, *columns, "--total-images", "32")
    return folder / "plain", folder / "styled", folder / "told"


class Served:
    """A server in a process of its own."""

    def __init__(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "trainer", "serve", *arguments, "--port", "0"]
        self.process = subprocess.Popen(command, cwd=HOME, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self.process.stdout
        self.said = self.process.stdout.readline()
        found = re.search(r"http://[^:]+:(\d+)/\S*", self.said)
        if not found:
            raise AssertionError(self.process.communicate(timeout=60))
        self.link, self.port = found[0], int(found[1])

    def get(self, path: str, headers: dict[str, str] | None = None, **query: Any) -> tuple[HTTPResponse, bytes]:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request("GET", f"{path}?{urlencode(query, doseq=True)}" if query else path, headers=headers or {})
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        return answer, body

    def pixels(self, path: str, **query: Any) -> np.ndarray[Any, np.dtype[np.uint8]]:
        answer, body = self.get(path, **query)
        assert answer.status == 200, body
        return np.asarray(Image.open(io.BytesIO(body)))

    def end(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, str]:
        self.process.send_signal(number)
        _, said = self.process.communicate(timeout=30)
        return self.process.returncode, said


@pytest.fixture(scope="module")
def server(folders: tuple[Path, Path, Path]) -> Iterator[Served]:
    served = Served(*map(str, folders))
    yield served
    assert served.end() == (0, ""), "a clean stop, and nothing was said of errors"


def test_the_picture_of_a_seed_is_that_of_sample(server: Served, folders: tuple[Path, Path, Path]) -> None:
    for folder in folders:
        sampled = np.concatenate([*TrainedGenerator(folder, SamplingOptions()).seeded([3, 7, 1003])])
        seeds = (3, 7, 1003)
        for seed, picture in zip(seeds, sampled, strict=True):
            assert (server.pixels("/generate", run=folder.name, seed=seed) == picture).all()
        wall = server.pixels("/wall", run=folder.name, seed=3, columns=5, rows=2)
        assert (wall[:32, :32] == sampled[0]).all()
        assert (wall[:32, 128:] == sampled[1]).all()
        assert (wall[32:, :32] == sampled[2]).all()
    name = folders[1].name
    options = SamplingOptions(label=HOSTILE, truncation=0.5)
    sampled = next(TrainedGenerator(folders[1], options).seeded([4]))
    assert (server.pixels("/generate", run=name, seed=4, truncation=0.5, **{"class": HOSTILE}) == sampled[0]).all()
    sampled = next(TrainedGenerator(folders[0], SamplingOptions(truncation=0.7)).seeded([4]))
    assert (server.pixels("/generate", seed=4, truncation=0.7) == sampled[0]).all(), (
        "BatchNorm's statistics are its own"
    )
    old = next(TrainedGenerator(folders[0], SamplingOptions(checkpoint="0")).seeded([4]))
    assert (server.pixels("/generate", seed=4, checkpoint=0) == old[0]).all()
    assert (server.pixels("/generate", seed=4) != old[0]).any(), "the newest is what it was before"


def test_labels_are_those_of_sample(server: Served, folders: tuple[Path, Path, Path]) -> None:
    for labels in ((), ("style=cats", "year=1700")):
        sampled = np.concatenate([*TrainedGenerator(folders[2], SamplingOptions(labels=labels)).seeded([4, 5])])
        for seed, picture in zip((4, 5), sampled, strict=True):
            assert (server.pixels("/generate", run="told", seed=seed, label=labels) == picture).all()
    answer, body = server.get("/generate", run="told", label="stile=cats")
    assert (answer.status, json.loads(body)["detail"]) == (
        400,
        "label: the networks are told no 'stile'; did you mean 'style'?",
    )


def test_every_parameter_makes_another_answer(server: Served) -> None:
    """None is forgotten where answers are kept."""
    base = {"run": "styled", "seed": 3, "mix": 8, "share": 0.5}
    other: list[dict[str, Any]] = [
        *({"run": "plain"}, {"checkpoint": 0}, {"seed": 4}, {"dx": 0.5}, {"dy": 0.5}, {"mix": 9}, {"share": 0.25}),
        *({"layers": "fine"}, {"class": "cats"}, {"truncation": 0.5}, {"move": "0:1"}, {"move": ["0:1", "1:1"]}),
        *({"format": "webp"}, {}),
    ]
    tags = [server.get("/generate", **{**base, **one})[0].getheader("etag") for one in other]
    assert None not in tags
    assert len({*tags}) == len(other)


def test_films_mixtures_and_directions(server: Served, folders: tuple[Path, Path, Path]) -> None:
    way = TrainedGenerator(folders[0], SamplingOptions()).way([3, 7], 3, loop=True)
    _, film = server.get("/interpolate", seeds="3,7", steps=3)
    with Image.open(io.BytesIO(film)) as frames:
        assert getattr(frames, "n_frames", 1) == 6
        for i in range(6):
            frames.seek(i)
            assert (np.asarray(frames.convert("RGB")) == way[i]).all()
    assert (server.pixels("/generate", seed=3, mix=7, share=1 / 3) == way[1]).all()
    assert (server.pixels("/generate", seed=3, dx=0.5) == server.pixels("/generate", seed=3, mix=4, share=0.5)).all()
    assert (server.pixels("/generate", seed=3, move="0:0") == way[0]).all()
    assert (server.pixels("/generate", seed=3, move=["0:2", "1:-1"]) != way[0]).any()
    styled = {"run": folders[1].name, "seed": 3, "mix": 8, "share": 1}
    other = server.pixels("/generate", run=folders[1].name, seed=8)
    whole, fine = (server.pixels("/generate", **styled, layers=layers) for layers in ("all", "fine"))
    own = server.pixels("/generate", run=folders[1].name, seed=3)
    assert (whole == other).mean() > 0.9, "but for its label"
    assert (fine != own).any()
    assert (fine != whole).any()


def test_equal_requests_have_equal_bytes_whatever_is_asked_beside_them(server: Served) -> None:
    answer, alone = server.get("/generate", seed=11, truncation=1.5)
    assert answer.getheader("etag")
    again, nothing = server.get("/generate", {"if-none-match": answer.getheader("etag") or ""}, seed=11, truncation=1.5)
    assert (again.status, nothing) == (304, b"")
    with Image.open(io.BytesIO(alone)) as picture:
        about = json.loads(picture.text["lienzo"])  # type: ignore[attr-defined]
    assert (about["run"], about["seed"], about["truncation"]) == ("plain", 11, 1.5)
    assert server.get("/generate", **{k: v for k, v in about.items() if v not in (None, [])})[1] == alone
    saved, same = server.get("/generate", seed=11, truncation=1.5, download="true")
    assert same == alone
    assert re.fullmatch(
        r'attachment; filename="plain-\d+-r00-\w{8}\.png"', saved.getheader("content-disposition") or ""
    )


def test_requests_in_the_documents_are_answered(server: Served) -> None:
    found = re.findall(r"curl 'http://localhost:8000(\S+)'", (HOME / "docs" / "painting.md").read_text())
    assert len(found) >= 4
    for path in found:
        # The runs there are others: one is told classes.
        here = path.replace("run=b&checkpoint=64000", "run=plain&checkpoint=32")
        answer, _ = server.get(here.replace("?seed=42", "?run=styled&seed=42"))
        assert answer.status == 200, path


def test_every_batch_is_full(folders: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """For smaller ones a kernel may round otherwise, though it need not on every machine."""
    for folder in folders:
        served = ServedGenerator(folder, None, 3)
        sizes: set[int] = set()
        synthesize = served.sampler.generator.synthesize

        def note(code: Tensor, latent: Latent, synthesize: Any = synthesize, sizes: set[int] = sizes) -> Tensor:
            sizes.add(len(code))
            result: Tensor = synthesize(code, latent)
            return result

        monkeypatch.setattr(served.sampler.generator, "synthesize", note)
        few = served.generate([(Style(), Point(1)), (Style(), Point(2, dx=0.5))])
        many = served.generate([(Style(), Point(seed)) for seed in (1, 2, 3, 1)])
        assert sizes == {3}
        assert (few[0] == many[0]).all()
        assert (many[0] == many[3]).all()
        assert (few[1] != many[1]).any()


async def fetch(port: int, path: str) -> tuple[int, bytes]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    content = await reader.read()
    writer.close()
    head, _, body = content.partition(b"\r\n\r\n")
    status = int(head.split()[1])
    assert status != 503 or b"retry-after: 1" in head
    return status, body


def test_a_thousand_requests_at_once(server: Served) -> None:
    """Each has its bytes, or is told to come again, and memory is bounded."""
    paths = [f"/generate?seed={k % 40}&format=webp" for k in range(900)] + [
        f"/wall?seed={k}&columns=3" for k in range(100)
    ]

    async def flood() -> list[tuple[int, bytes]]:
        return await asyncio.gather(*(fetch(server.port, path) for path in paths))

    before = psutil.Process(server.process.pid).memory_info().rss
    answers = asyncio.run(flood())
    counts = Counter(status for status, _ in answers)
    assert counts.keys() <= {200, 503}, counts
    assert counts[200] >= 500, counts
    bodies: dict[str, set[bytes]] = {}
    for path, (status, body) in zip(paths, answers, strict=True):
        if status == 200:
            bodies.setdefault(path, set()).add(body)
    assert all(len(found) == 1 for found in bodies.values())
    for path in [*bodies][:5]:
        assert bodies[path] == {server.get(path)[1]}
    assert psutil.Process(server.process.pid).memory_info().rss - before < 300 << 20


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("/generate?run=no", 404, "run: there is no 'no'; there is plain, styled, told"),
        ("/generate?checkpoint=7", 404, "checkpoint: plain has no '7'; there is 000000000032-r00, 000000000000-r00"),
        ("/generate?class=cats", 400, "class: the generator of this run is told no classes"),
        ("/generate?run=styled&class=cat", 400, "class: there is no class 'cat'; did you mean 'cats'?"),
        ("/generate?label=style%3DBaroque", 400, "label: this run has no --network.label-columns"),
        ("/generate?truncation=0", 400, "truncation must be at least 0.01 for this network, but is 0"),
        ("/generate?move=99:1", 400, "move: this generator has 8 directions, but not number 99"),
        ("/generate?mix=3&layers=fine", 400, "layers fine: this generator's code has 1 layers"),
        ("/generate?seed=x", 422, "seed: Input should be a valid integer"),
        ("/generate?sede=1", 422, "sede: Extra inputs are not permitted"),
        ("/wall?columns=99&rows=99", 413, "an answer has at most 256 of these pictures"),
        ("/interpolate?seeds=0-99999", 413, "an answer has at most 256 of these pictures"),
        ("/interpolate?seeds=4", 400, "seeds must name two pictures"),
        ("/assets/..%2Fapp.py", 404, "Not Found"),
        ("/assets/app.py", 404, "there is no such file"),
        ("/docs", 404, "Not Found"),
    ],
)
def test_what_cannot_be_is_said_in_one_sentence(server: Served, path: str, status: int, said: str) -> None:
    answer, body = server.get(path)
    assert (answer.status, answer.getheader("content-type")) == (status, "application/json")
    assert said in json.loads(body)["detail"]


def test_the_api_describes_itself(server: Served) -> None:
    described = json.loads(server.get("/openapi.json")[1])
    assert described["paths"].keys() == {"/generate", "/wall", "/interpolate", "/runs"}
    names = {one["name"] for one in described["paths"]["/generate"]["get"]["parameters"]}
    assert {"run", "checkpoint", "seed", "class", "label", "truncation", "mix", "share", "move", "dx", "dy"} <= names
    plain, styled, told = json.loads(server.get("/runs")[1])["runs"]
    assert (plain["truncation"], plain["layers"], plain["classes"]) == ("z", 1, [])
    assert [one["images_seen"] for one in plain["checkpoints"]] == [32, 0]
    assert (styled["truncation"], styled["layers"], styled["classes"]) == ("w", 8, [HOSTILE, "cats"])
    assert [(one["name"], one["kind"]) for one in told["labels"]] == [
        ("style", "class"),
        ("genre", "class"),
        ("year", "number"),
    ]


def test_others_need_the_token_and_who_starts_it_gets_the_link(
    folders: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    (tmp_path / "token").write_text(TOKEN)
    served = Served(str(folders[1]), "--host", "0.0.0.0", "--token-file", str(tmp_path / "token"))
    try:
        assert served.link.endswith(f"/?token={TOKEN}")
        assert TOKEN not in " ".join(psutil.Process(served.process.pid).cmdline())
        assert served.get("/")[0].status == 401
        assert served.get("/generate", {"authorization": f"Bearer {TOKEN}"})[0].status == 200
        answer, _ = served.get("/", token=TOKEN)
        cookie = (answer.getheader("set-cookie") or "").partition(";")[0]
        assert served.get("/", {"cookie": cookie})[0].status == 200
    finally:
        ended = served.end(signal.SIGINT)
    assert ended == (0, "")


class Reader:
    """A page as a person uses it: nothing may be said on its console, and nothing may come from another machine."""

    def __init__(self, page: Page, served: Served, shots: Path) -> None:
        self.page, self.served, self.shots = page, served, shots
        self.said: list[str] = []
        self.asked: list[str] = []
        page.on("console", lambda message: self.said.append(message.text))
        page.on("pageerror", lambda error: self.said.append(str(error)))
        page.on("request", lambda request: self.asked.append(request.url))

    def open(self, query: str = "") -> None:
        self.page.goto(f"http://localhost:{self.served.port}/{query}")
        self.painted()

    def painted(self) -> None:
        """Wait until all pictures are there."""
        self.page.wait_for_function(
            "() => document.querySelector('.frame') && ![...document.querySelectorAll('.frame')]"
            ".some((frame) => frame.getAttribute('aria-busy') === 'true')"
            " && [...document.images].length && [...document.images].every((i) => i.complete && i.naturalWidth)"
        )

    def check(self, name: str) -> None:
        """Take a screenshot, and let axe-core look for what keeps people out."""
        self.page.screenshot(path=self.shots / f"{name}.png")
        found = Axe().run(self.page)
        assert found.violations_count == 0, found.generate_report()
        width = self.page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert width <= 0, "it never scrolls sideways"
        assert self.said == []
        assert all(url.startswith((f"http://localhost:{self.served.port}/", "blob:")) for url in self.asked)

    def link(self) -> str:
        return self.page.input_value("#link").partition("/?")[2]

    def shown(self, k: int = 0) -> str:
        """Return the pixels that the k-th view shows."""
        image = self.page.locator(".frame").nth(k).locator("img").first
        shown: str = image.evaluate(
            "(i) => { const c = document.createElement('canvas'); c.width = i.naturalWidth; c.height = i.naturalHeight;"
            " c.getContext('2d').drawImage(i, 0, 0); return c.toDataURL(); }"
        )
        return shown


@pytest.fixture
def reader(browser: Browser, server: Served, tmp_path: Path) -> Iterator[Reader]:
    context = browser.new_context(viewport=DESKTOP)  # type: ignore[arg-type]
    context.set_default_timeout(30_000)
    yield Reader(context.new_page(), server, tmp_path)
    context.close()


def test_the_page_shows_runs_side_by_side_and_its_link_shows_them_again(reader: Reader) -> None:
    page = reader.page
    reader.open("?view=plain@&view=styled@")
    reader.check("1-desktop-side-by-side")
    assert page.locator(".view h2").all_inner_texts() == ["plain 32 pictures seen", "styled 32 pictures seen"]
    page.fill("#seed", "41")
    page.get_by_text("Mix with another seed").click()
    page.fill("#mix", "7")
    page.fill("#share", "0.25")
    reader.painted()
    page.get_by_text("Move along directions").click()
    page.fill("#direction-0", "2.5")
    reader.painted()
    reader.check("2-desktop-mix-and-directions")
    page.select_option("#checkpoint-0", "000000000000-r00")
    reader.painted()
    before = reader.shown(0), reader.shown(1)
    link = reader.link()
    for part in ("seed=41", "mix=7", "share=0.25", "move=0%3A2.5", "view=plain%40000000000000-r00", "view=styled%40"):
        assert part in link
    reader.open("?" + link)
    assert (reader.shown(0), reader.shown(1)) == before
    page.fill("#seed", "42")
    reader.painted()
    assert reader.shown(0) != before[0]


def test_class_truncation_and_saving(reader: Reader, folders: tuple[Path, Path, Path]) -> None:
    page = reader.page
    reader.open("?view=styled@&seed=4")
    page.get_by_label("Class").select_option(HOSTILE)
    page.get_by_label("Truncation").fill("0.5")
    reader.painted()
    reader.check("3-desktop-class")
    with page.expect_download() as download:
        page.get_by_role("link", name="Save this picture of styled").click()
    with Image.open(download.value.path()) as picture:
        about = json.loads(picture.text["lienzo"])  # type: ignore[attr-defined]
        saved = np.asarray(picture)
    assert (about["class"], about["truncation"], about["seed"]) == (HOSTILE, 0.5, 4)
    options = SamplingOptions(label=HOSTILE, truncation=0.5)
    assert (saved == next(TrainedGenerator(folders[1], options).seeded([4]))[0]).all()
    assert page.evaluate("document.querySelectorAll('img[src=x]').length") == 0, "a name stays a name"


def test_labels_are_chosen_on_the_page(reader: Reader) -> None:
    page = reader.page
    reader.open()
    assert page.locator(".view").count() == 3
    reader.open("?view=told@&seed=4")
    before = reader.shown()
    page.get_by_label("style").select_option(HOSTILE)
    page.get_by_label("year").fill("1700")
    reader.painted()
    reader.check("12-desktop-labels")
    assert "label=year%3D1700" in reader.link()
    assert reader.shown() != before


def test_it_is_used_by_keys_alone(reader: Reader) -> None:
    page = reader.page
    reader.open("?view=plain@&seed=5")
    steps = 0
    while page.evaluate("document.activeElement.id") != "next":
        page.keyboard.press("Tab")
        steps += 1
        assert steps < 20
    page.keyboard.press("Enter")
    reader.painted()
    assert page.input_value("#seed") == "6"
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Shift+Tab")
    assert page.evaluate("document.activeElement.id") == "seed"
    page.keyboard.press("ArrowUp")
    assert "seed=7" in reader.link()
    while page.evaluate("document.activeElement.value") != "picture":
        page.keyboard.press("Shift+Tab")
    page.keyboard.press("ArrowRight")  # from the picture to the wall
    reader.painted()
    while page.evaluate("document.activeElement.getAttribute('role')") != "application":
        page.keyboard.press("Tab")
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid", "what has the focus is seen"
    for key in ("ArrowRight", "ArrowDown", "+", "ArrowLeft"):
        page.keyboard.press(key)
    reader.painted()
    assert "-0.50 and 0.00 from seed 1008" in page.inner_text(".foot")
    reader.check("4-desktop-wall-between-seeds")
    page.keyboard.press("Enter")
    reader.painted()
    assert page.input_value("#seed") == "1008"
    assert "mode=wall" not in reader.link()


def test_a_wall_is_painted_as_one_moves(reader: Reader) -> None:
    page = reader.page
    reader.open("?view=plain@&mode=wall&seed=500500")
    reader.check("5-desktop-wall")
    there = page.locator(".frame img").count()
    box = page.locator(".frame").bounding_box()
    assert box
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(*middle)
    page.mouse.down()
    page.mouse.move(middle[0] - 300, middle[1] - 200, steps=4)
    page.mouse.up()
    reader.painted()
    assert 0.5 * there < page.locator(".frame img").count() < 2 * there, "what is far away is forgotten"
    assert "seed=500500" not in reader.link()
    page.mouse.click(*middle)
    page.wait_for_selector(".view.picture")
    reader.painted()
    assert page.is_checked("[name=mode][value=picture]")


def test_a_film_plays_when_it_is_asked_to(reader: Reader) -> None:
    page = reader.page
    reader.open("?view=plain@&mode=film&seeds=3,7&steps=4")
    still = reader.shown()
    page.click("#play")
    page.wait_for_function("() => document.querySelector('#play').textContent === 'Stop'")
    reader.painted()
    reader.check("6-desktop-film")
    page.click("#play")
    reader.painted()
    assert reader.shown() == still


@pytest.mark.parametrize("dark", [False, True])
def test_on_a_phone_light_and_dark(browser: Browser, server: Served, tmp_path: Path, dark: bool) -> None:
    scheme: Any = "dark" if dark else "light"
    context = browser.new_context(viewport=PHONE, color_scheme=scheme, has_touch=True, is_mobile=True)  # type: ignore[arg-type]
    reader = Reader(context.new_page(), server, tmp_path)
    reader.open("?view=styled@&seed=8&class=cats")
    reader.page.get_by_text("Move along directions").tap()
    reader.check(f"{7 + 2 * dark}-phone-{scheme}")
    assert reader.page.evaluate("getComputedStyle(document.body).backgroundColor") == (
        "rgb(20, 23, 27)" if dark else "rgb(255, 255, 255)"
    )
    reader.page.get_by_text("Wall").tap()
    reader.painted()
    reader.check(f"{8 + 2 * dark}-phone-{scheme}-wall")
    context.close()


def test_what_goes_wrong_is_said_in_its_place(reader: Reader) -> None:
    """A link to a run that is not served any more, and a field with nonsense."""
    page = reader.page
    reader.open("?view=gone@&view=plain@&seed=3")
    page.wait_for_selector(".error")
    assert page.inner_text(".error") == "run: there is no 'gone'; there is plain, styled, told"
    assert all("404" in text for text in reader.said), "the browser itself tells of the answer"
    reader.said.clear()
    page.fill("#seed", "12345678")
    assert page.evaluate("document.querySelector('#seed').matches(':invalid')")
    reader.check("11-error")
