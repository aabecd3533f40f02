"""What mkdocs does with our documents besides: links to files that are not in docs become their names.

In a checkout those links lead to code; a site has only what is in docs.
"""

from __future__ import annotations

import posixpath
import re
from typing import Any

LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((\.\./[^)\s]+)\)")


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Return a page with the names of files in place of links that lead out of docs."""
    folder = posixpath.dirname(page.file.src_uri)
    return LINK.sub(lambda link: named(link, folder), markdown)


def named(link: re.Match[str], folder: str) -> str:
    """Return what stands in place of a link, or the link itself if it stays inside docs."""
    text, target = link.groups()
    path = posixpath.normpath(posixpath.join("docs", folder, target.partition("#")[0]))
    if path.startswith("docs/"):
        return link[0]
    shown = text.strip("`")
    return f"`{path}`" if shown in path else f"{text} (`{path}`)"
