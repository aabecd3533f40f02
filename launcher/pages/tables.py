"""Tables that scroll by themselves where they are wider than the page."""

from __future__ import annotations

from collections.abc import Sequence

from launcher.pages.markup import Markup, join, tag


def build_table(caption: str, header: Sequence[str], rows: Sequence[Sequence[str | Markup]]) -> Markup:
    """Return a table that scrolls by itself; the first cell of a row names it."""
    head = tag("tr", *(tag("th", name, scope="col") for name in header))
    body = (tag("tr", tag("th", first, scope="row"), *map(build_cell, rest)) for first, *rest in rows)
    whole = tag("table", tag("caption", tag("span", caption)), tag("thead", head), tag("tbody", *body))
    # tabindex: what scrolls must be reachable from the keyboard, and then has to have a name.
    return tag("div", whole, class_="scroll", tabindex="0", role="region", aria_label=caption)


def lines_cell(first: str, *rest: str) -> Markup:
    """Return a cell of lines that do not break; those after the first are small."""
    return tag("td", first, *(join(tag("br"), tag("small", line)) for line in rest), class_="tight")


def build_cell(content: str | Markup) -> Markup:
    """Return a cell; markup that is a cell already stays."""
    return content if isinstance(content, Markup) and content.startswith("<td") else tag("td", content)
