"""The frame of a page: one file, whose own style and script are all that a browser may use of it."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from pathlib import Path

from launcher.pages.markup import Markup, join, tag

STYLE = Path(__file__).with_name("style.css")


def build_document(title: str, *parts: Markup, script: str = "", generator: str = "lienzo") -> str:
    """Return a whole page.

    Args:
        title: of the window.
        parts: what it shows.
        script: runs when the page is there; empty: the page has none.
        generator: says in the page what has made it.
    """
    # As they stand: escaped, they would lose their quotes.
    style = STYLE.read_text("utf-8")
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="generator", content=generator),
        # By hash: what a name or a message might smuggle in is not run, and nothing is fetched from anywhere.
        tag("meta", http_equiv="Content-Security-Policy", content=content_policy(style, script)),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", title),
        tag("style", Markup(style)),
    )
    body = tag("body", tag("main", *parts), *([tag("script", Markup(script))] if script else []))
    return "<!doctype html>\n" + tag("html", head, body, lang="en") + "\n"


def content_policy(style: str, script: str) -> str:
    """Return what a browser may use: this style, this script, and the pictures inside the page."""
    allowed = f"style-src {source_hash(style)}", f"script-src {source_hash(script)}" if script else "script-src 'none'"
    return "; ".join(("default-src 'none'", "img-src data:", *allowed, "base-uri 'none'", "form-action 'none'"))


def source_hash(source: str) -> str:
    """Return how a policy names a style or a script."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}'"


def build_section(title: str, *parts: Markup) -> Markup:
    """Return a section; none where it has nothing to say."""
    return tag("section", tag("h2", title), *parts, id=section_id(title)) if any(parts) else Markup()


def section_id(title: str) -> str:
    """Return what a link to a section ends in."""
    return title.lower().replace(" ", "-")


def figure_row(parts: Iterable[Markup]) -> Markup:
    """Put figures side by side where there is room."""
    drawn = [*parts]
    return tag("div", *drawn, class_="figures") if drawn else Markup()


def term_list(items: Iterable[tuple[str, str | Markup]]) -> Markup:
    """Return a list of terms and their meaning."""
    return tag("dl", *(join(tag("dt", term), tag("dd", meaning)) for term, meaning in items))


def folded(title: str, *parts: Markup) -> Markup:
    """Return what is shown when its title is chosen."""
    return tag("details", tag("summary", title), *parts)
