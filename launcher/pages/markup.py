"""HTML and SVG, escaped by construction: text becomes markup only through `tag`.

All pages build on it, so that a name or an error with a "<" in it breaks no page.
"""

from __future__ import annotations

from html import escape

VOID = frozenset({"img", "meta", "br", "input"})


class Markup(str):
    """Text that is HTML already."""


def tag(name: str, /, *children: str | Markup, **attributes: str | float) -> Markup:
    """Return an element; text is escaped.

    Args:
        name: of the element.
        children: text or markup.
        attributes: by Python's names: class_ is class, stroke_width is stroke-width.
    """
    given = "".join(f' {key.strip("_").replace("_", "-")}="{value_of(value)}"' for key, value in attributes.items())
    return Markup(f"<{name}{given}>" if name in VOID else f"<{name}{given}>{join(*children)}</{name}>")


def join(*children: str | Markup) -> Markup:
    """Put text and markup one after the other."""
    return Markup("".join(child if isinstance(child, Markup) else escape(child) for child in children))


def value_of(value: str | float) -> str:
    """Write an attribute's value: a hundredth of a pixel is enough."""
    return escape(value) if isinstance(value, str) else f"{value:.2f}".rstrip("0").rstrip(".")
