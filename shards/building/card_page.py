"""The two forms of a dataset's card: Markdown, and a page of HTML that needs nothing else. Names are hostile."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

BAR_WIDTH = 14  # characters of the longest bar


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Code:
    """Commands."""

    text: str


@dataclass(frozen=True)
class Table:
    """A table; the first cell of a row names it. Numbers are aligned to the right."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str | int]]
    bars: bool = False
    """Whether the page shows bars for the last column."""


@dataclass(frozen=True)
class Pictures:
    """Pictures, each with words for those who do not see it; they are on the page alone."""

    caption: str
    pngs: Sequence[tuple[bytes, str]]


Block = Text | Code | Table | Pictures


@dataclass(frozen=True)
class Section:
    """A heading and what is below it."""

    title: str
    blocks: Sequence[Block]


def printable(text: str) -> str:
    """Return a text without control characters and lone surrogates, which become escapes."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def cell_text(cell: str | int) -> str:
    """Return a cell as text; numbers with separators."""
    return f"{cell:,}" if isinstance(cell, int) else printable(cell)


def to_markdown(title: str, sections: Sequence[Section]) -> str:
    """Return the card as Markdown."""
    lines = [f"# {escape_markdown(title)}", ""]
    for section in sections:
        lines += [f"## {escape_markdown(section.title)}", ""]
        for block in section.blocks:
            lines += [*markdown_lines(block), ""]
    return "\n".join(lines)


def markdown_lines(block: Block) -> Iterator[str]:
    """Yield the lines of a block."""
    match block:
        case Text(text):
            yield escape_markdown(printable(text))
        case Code(text):
            yield from ("```", *text.splitlines(), "```")
        case Pictures(caption, pngs):
            yield f"{escape_markdown(caption)} ({len(pngs)}): see card.html."
        case Table(caption, columns, rows):
            yield from (f"{escape_markdown(printable(caption))}:", "")
            yield f"| {' | '.join(escape_markdown(printable(column)) for column in columns)} |"
            numbers = [bool(rows) and all(isinstance(row[i], int) for row in rows) for i in range(len(columns))]
            yield f"| {' | '.join('---:' if number else '---' for number in numbers)} |"
            for row in rows:
                yield f"| {' | '.join(escape_markdown(cell_text(cell)) for cell in row)} |"


def escape_markdown(text: str) -> str:
    """Return a text that Markdown shows as it is."""
    return re.sub(r"([\\`*_{}\[\]<>|#~$!&])", r"\\\1", text)


def to_html(title: str, sections: Sequence[Section]) -> str:
    """Return the card as a page without scripts and without anything from elsewhere."""
    body = "\n".join(
        f"<section>\n<h2>{html.escape(section.title)}</h2>\n{''.join(map(html_of, section.blocks))}</section>"
        for section in sections
    )
    name = html.escape(printable(title))
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{name}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>\n{style()}</style>\n</head>\n<body>\n<main>\n<h1>{name}</h1>\n{body}\n</main>\n</body>\n</html>\n"
    )


@cache
def style() -> str:
    """Return the style sheet."""
    return Path(__file__).with_name("card.css").read_text("utf-8")


def html_of(block: Block) -> str:
    """Return a block as HTML."""
    match block:
        case Text(text):
            return f"<p>{html.escape(printable(text))}</p>\n"
        case Code(text):
            return f'<pre tabindex="0"><code>{html.escape(text)}</code></pre>\n'
        case Pictures(caption, pngs):
            images = "".join(
                f'<img src="data:image/png;base64,{base64.b64encode(png).decode()}" '
                f'alt="{html.escape(printable(words))}">'
                for png, words in pngs
            )
            words = f"<figcaption>{html.escape(caption)}</figcaption>"
            return f"<figure>\n<div class=pictures>{images}</div>\n{words}\n</figure>\n"
        case Table():
            return html_table(block)


def html_table(table: Table) -> str:
    """Return a table as HTML; wide ones scroll, by keyboard too."""
    caption = html.escape(printable(table.caption))
    head = "".join(f'<th scope="col">{html.escape(printable(column))}</th>' for column in table.columns)
    most = max((row[-1] for row in table.rows if isinstance(row[-1], int)), default=0)
    rows = "".join(f"<tr>{html_row(row, most if table.bars else 0)}</tr>\n" for row in table.rows)
    return (
        f'<div class=scroll tabindex="0" role="region" aria-label="{caption}"><table>\n<caption>{caption}</caption>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}</tbody>\n</table></div>\n"
    )


def html_row(row: Sequence[str | int], most: int) -> str:
    """Return the cells of a row, and a bar if `most` is not 0."""
    first, *others = row
    cells = f'<th scope="row">{html.escape(cell_text(first))}</th>'
    for cell in others:
        number = " class=number" if isinstance(cell, int) else ""
        cells += f"<td{number}>{html.escape(cell_text(cell))}</td>"
    if most and isinstance(row[-1], int):
        bar = "█" * -(-row[-1] * BAR_WIDTH // most)
        cells += f'<td class=bar aria-hidden="true">{bar}</td>'
    return cells
