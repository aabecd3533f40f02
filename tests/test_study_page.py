"""The page of a study, in a real browser and as text; its table and its summary for terminals."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
from html import unescape
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from launcher.pages.axes import Axis
from launcher.pages.drawing import BOTTOM, LINE, spread_out
from launcher.pages.markup import Markup, join, tag
from launcher.pages.numbers import format_number
from launcher.study.analysis.comparison import compare_arms
from launcher.study.analysis.results import Arm, Study
from launcher.study.report import export, page
from launcher.study.report.pictures import MOST_BYTES
from launcher.study.report.words import p_value
from tests.made_studies import METRIC, entry, made, study, whole

# Run by the browser in the page: how wide it is, and which text is too faint (WCAG 2.2, 1.4.3).
CHECK = """
<script>
const part = (v) => (v <= 0.04 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
const luminance = (colour) => {
  const [r, g, b] = colour.match(/[\\d.]+/g).map((v) => part(v / 255));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const background = (e) => getComputedStyle(e).backgroundColor;
const behind = (e) => (background(e) === 'rgba(0, 0, 0, 0)' ? behind(e.parentElement) : background(e));
const faint = [];
for (const e of document.querySelectorAll('main *')) {
  if (![...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim()) || e.tagName === 'title') continue;
  const colour = getComputedStyle(e)[e.namespaceURI.endsWith('svg') ? 'fill' : 'color'];
  const [a, b] = [luminance(colour), luminance(behind(e))];
  if ((Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05) < 4.5) faint.push(e.tagName + ' ' + e.textContent);
}
parent.postMessage(JSON.stringify({
  width: document.documentElement.scrollWidth, window: innerWidth, background: background(document.body), faint,
  images: [...document.images].filter((i) => i.naturalWidth > 0).length,
  drawn: [...document.querySelectorAll('svg')].every((s) => s.getBoundingClientRect().height > 50),
}), '*');
</script>
"""
# A browser's window cannot be as narrow as a phone, a frame can.
PHONE = """<!doctype html><body><script>onmessage = (e) => { document.body.dataset.seen = e.data; };</script>
<iframe src="checked.html" width="390" height="900" style="border: 0"></iframe></body>"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    page.write_page(whole(folder), folder / "index.html")
    return folder


def browse(page: Path, *options: str) -> dict[str, object]:
    """Open a page in Chromium, as wide as a phone; return what CHECK sees. Nothing may be said on the console."""
    # Without its policy, which lets no script run that is not the page's own.
    open_page = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page.read_text())
    page.with_name("checked.html").write_text(open_page.replace("</body>", f"{CHECK}</body>"))
    phone = page.with_name("phone.html")
    phone.write_text(PHONE)
    chromium = shutil.which("chromium")
    assert chromium, "this test opens a page: apt-get install chromium"
    command = (
        chromium,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        f"--user-data-dir={page.parent / 'browser'}",
    )
    wanted = ("--virtual-time-budget=10000", "--enable-logging=stderr", "--dump-dom", *options, phone.as_uri())
    ran = subprocess.run([*command, *wanted], capture_output=True, text=True, timeout=120, check=True)
    assert "CONSOLE" not in ran.stderr
    seen = re.search(r'data-seen="([^"]*)"', ran.stdout)
    assert seen
    result: dict[str, object] = json.loads(unescape(seen[1]))
    return result


@pytest.mark.parametrize("dark", [False, True])
def test_a_browser_shows_it_on_a_phone_light_and_dark(folder: Path, dark: bool) -> None:
    options = ["--blink-settings=preferredColorScheme=0"] if dark else []
    seen = browse(folder / "index.html", *options)
    assert seen["window"] == 390
    assert seen["width"] == 390  # the page itself never scrolls sideways
    assert seen["background"] == ("rgb(20, 23, 27)" if dark else "rgb(255, 255, 255)")
    assert seen["faint"] == []
    assert seen["images"] == 4
    assert seen["drawn"] is True


class Outline(HTMLParser):
    """What a screen reader goes by."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def of(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag == name]


def test_it_is_accessible_offline_and_escaped(folder: Path) -> None:
    text = (folder / "index.html").read_text()
    outline = Outline(text)
    assert not outline.open
    assert outline.of("html") == [{"lang": "en"}]
    assert [len(outline.of(name)) for name in ("title", "h1", "main")] == [1 + len(outline.of("circle")), 1, 1]
    assert len(outline.of("caption")) == len(outline.of("table")) == 5
    assert all(attributes.get("scope") in ("row", "col") for attributes in outline.of("th"))
    assert all(attributes.get("alt") for attributes in outline.of("img"))
    assert len(outline.of("svg")) == 3
    assert all(attributes["role"] == "img" and attributes["aria-label"] for attributes in outline.of("svg"))
    assert not outline.of("script") + outline.of("link") + outline.of("b")
    assert "&lt;script&gt;alert(1)&lt;/script&gt; out of memory" in text
    sources = re.findall(r"""(?:src|href)=["']?([^"'>]{0,30})|url\(|@import""", text)
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert len(text) < 3_000_000


def test_it_says_what_must_be_said(folder: Path) -> None:
    text = (folder / "index.html").read_text()
    for words in (
        "stylegan2 is better than each of the others",
        "cannot be separated: at the difference seen, about",
        "Left behind at rung 1",
        "1 of 5 of dcgan",
        "100,000 images a run",
        "random VGG, version 1",
        "5,000 pictures of each side",
        "python -m launcher study studies/painters/study.toml",
    ):
        assert words in text


def test_pictures_that_cannot_be_read_are_told(folder: Path) -> None:
    made_whole = whole(folder)
    (folder / "runs" / "0-s0.png").write_bytes(b"no picture")
    assert "0-s0.png cannot be read" in page.build_page(made_whole, folder)
    assert MOST_BYTES * 4 / 3 < 3_000_000  # in base64


@pytest.mark.parametrize(
    "bare",
    [
        made([Arm("a", "dcgan-32", {}), Arm("b", "dcgan-32", {})], []),
        made([Arm("a", "dcgan-32", {})], [entry("a", 0, 0.0, seconds=0.0, node_seconds=0.0)]),
        study({"a": {0: 1.0}, "b": {0: 1.0}}),
        study({"a": {0: 1.0, 1: 1.0}, "b": {0: 1.0, 1: 1.0}}),
        study({"a": {0: 0.0, 1: -1.0}, "b": {0: 1e9, 1: 1e-9}}),
        study({f"arm-{i}": {seed: float(i + seed % 2) for seed in range(3)} for i in range(12)}),
    ],
    ids=["nothing", "one run", "one seed", "no spread", "wide", "many arms"],
)
def test_bare_studies_have_a_page_and_a_summary(bare: Study, tmp_path: Path) -> None:
    text = page.build_page(bare, tmp_path)
    assert not Outline(text).open
    assert not re.search(r"\bnan\b|\binf\b", text.lower())
    answer = compare_arms(bare)
    console = Console(width=60, record=True, file=io.StringIO())
    console.print(export.terminal_view(bare, answer))
    assert bare.arms[0].name in console.export_text()
    export.write_conclusions(bare, answer, tmp_path / "conclusions.json")
    assert json.loads((tmp_path / "conclusions.json").read_text())["headline"]


def test_the_table_has_a_line_for_each_run(folder: Path) -> None:
    made_whole = whole(folder)
    export.write_csv(made_whole, folder / "results.csv")
    with (folder / "results.csv").open(newline="") as file:
        rows = [*csv.DictReader(file)]
    assert len(rows) == 20
    scores = {(e.arm, str(e.seed)): e.score for e in made_whole.entries}
    for row in rows:
        score = scores[row["arm"], row["seed"]]
        assert row[METRIC] == ("" if score is None else repr(score.value))
    assert rows[4]["reason"] == "rank 1 died: <script>alert(1)</script> out of memory"
    assert rows[5]["settings"] == "optimizer.d-lr=0.0004"
    assert export.escape_formula("=1+1") == "'=1+1"


@given(st.text(), st.text())
def test_no_text_becomes_markup(text: str, value: str) -> None:
    element = tag("p", text, Markup("<br>"), title=value)
    assert element.count("<") == 3
    assert element.count(">") == 3
    assert element.count('"') == 2
    assert join(text) == join(Markup(join(text)))


@given(st.lists(st.floats(-1e12, 1e12), min_size=1, max_size=9))
def test_all_values_lie_on_the_axis(values: list[float]) -> None:
    axis = Axis.of(values, 10, 110)
    assert all(10 <= axis(value) <= 110 for value in values)
    assert all(9.999 <= axis(tick) <= 110.001 for tick in axis.ticks())
    assert len(axis.ticks()) <= 16


@given(st.dictionaries(st.text(), st.floats(24, 256), max_size=12))
def test_names_do_not_lie_on_each_other(heights: dict[str, float]) -> None:
    at = sorted(spread_out(heights).values())
    assert all(b - a >= LINE - 1e-9 for a, b in pairwise(at))
    assert all(height <= BOTTOM - LINE / 2 + 1e-9 for height in at), "the axis would strike it through"


def test_numbers_are_written_to_their_digits() -> None:
    assert format_number(1234.5678, 3.0) == "1,234.6"
    assert format_number(-0.0123) == "−0.01230"
    assert format_number(5, signed=True) == "+5.000"
    assert [p_value(p) for p in (0.00001, 0.0123, 0.5)] == ["p < 0.001", "p = 0.012", "p = 0.50"]
