"""The strokes of small SVG figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from launcher.pages.axes import Axis, format_tick
from launcher.pages.markup import Markup, tag

WIDTH, HEIGHT = 480.0, 300.0
LEFT, RIGHT, TOP, BOTTOM = 58.0, 470.0, 24.0, 256.0
LINE = 17.0  # pixels from one name to the next
COLOURS = 8  # in the style sheet
MARKS = "●■▲◆▼★✚✖"


def svg(height: float, title: str, told: str, *parts: Markup) -> Markup:
    """Return a figure with its caption; who cannot see it is told `told`."""
    drawn = tag("svg", *parts, viewBox=f"0 0 {WIDTH:g} {height:g}", role="img", aria_label=f"{title}. {told}")
    return tag("figure", drawn, tag("figcaption", title))


def frame(x: Axis, y: Axis, below: str, above: str) -> Iterator[Markup]:
    """Draw two axes with their ticks and names."""
    yield from ruler(x, LEFT, BOTTOM, below)
    yield text(4, 13, shorten(above, 40), class_="axis")
    yield line(LEFT, TOP, LEFT, BOTTOM, "axis")
    for tick in y.ticks():
        yield line(LEFT, y(tick), RIGHT, y(tick), "grid")
        yield text(LEFT - 6, y(tick) + 5, format_tick(tick), class_="axis", text_anchor="end")


def ruler(axis: Axis, start: float, y: float, name: str) -> Iterator[Markup]:
    """Draw a horizontal axis with its ticks and its name."""
    yield line(start, y, RIGHT, y, "axis")
    for tick in axis.ticks():
        yield line(axis(tick), y, axis(tick), y + 5, "axis")
        yield text(axis(tick), y + 19, format_tick(tick), class_="axis", text_anchor="middle")
    yield text((start + RIGHT) / 2, y + 38, shorten(name, 50), class_="axis", text_anchor="middle")


def line(x1: float, y1: float, x2: float, y2: float, style: str) -> Markup:
    """Draw a straight line."""
    return tag("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=style)


def dot(x: float, y: float, told: str, style: str) -> Markup:
    """Draw a dot that says what it is when pointed at."""
    return tag("circle", tag("title", told), cx=x, cy=y, r=5.0, class_=f"dot {style}")


def text(x: float, y: float, words: str, **attributes: str | float) -> Markup:
    """Write."""
    return tag("text", words, x=x, y=y, **attributes)


def outline(places: Sequence[tuple[float, float]]) -> str:
    """Write the places of a polyline."""
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in places)


def spread_out(heights: Mapping[str, float]) -> dict[str, float]:
    """Move names up or down so that none lies on another, and none leaves the figure."""
    moved, last = dict[str, float](), -LINE
    for name, height in sorted(heights.items(), key=lambda item: item[1]):
        moved[name] = last = max(height, last + LINE)
    # Moved down only so far; what then hangs out below lifts all of them.
    over = max(0.0, last - (BOTTOM - LINE / 2))  # above the axis, which would strike the last one through
    return {name: height - over for name, height in moved.items()}


def shorten(words: str, most: int) -> str:
    """Shorten a name."""
    return words if len(words) <= most else f"{words[: most - 1]}…"


def colour_class(place: int) -> str:
    """Return the class of a colour, by the place of what has it: the same in all figures of a page."""
    return f"c{place % COLOURS}"


def mark_of(place: int) -> str:
    """Return a mark by the place of what has it: who cannot tell the colours goes by it."""
    return MARKS[place % len(MARKS)]
