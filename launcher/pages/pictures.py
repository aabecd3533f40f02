"""Pictures inside a page, as WebP: without loss where there is room for it, else smaller until they fit."""

from __future__ import annotations

import base64
import io
import math

from PIL import Image

from launcher.pages.markup import Markup, tag

MOST_SIDE = 1024  # pixels: no column of a page is wider
LOSSLESS_PIXELS = 512 * 512  # beyond, it takes too long and too much room
QUALITY = 82
LEAST_SIDE = 48


def embed_image(image: Image.Image, most: int, told: str) -> Markup:
    """Return a picture inside the page.

    Args:
        image: RGB.
        most: bytes that it may take, before base64 makes a third more of them.
        told: says what it shows to those who do not see it.
    """
    content, shown = fit_image(image, most)
    source = f"data:image/webp;base64,{base64.b64encode(content).decode()}"
    return tag("img", src=source, alt=told, width=float(shown.width), height=float(shown.height))


def fit_image(image: Image.Image, most: int) -> tuple[bytes, Image.Image]:
    """Return a picture in at most so many bytes, or as small as it may become; and what was encoded."""
    shown = image.copy()
    shown.thumbnail((MOST_SIDE, MOST_SIDE), Image.Resampling.LANCZOS)
    if shown.size == image.size and shown.width * shown.height <= LOSSLESS_PIXELS:
        content = encode(shown, lossless=True)
        if len(content) <= most:
            return content, shown
    content = encode(shown, quality=QUALITY)
    while len(content) > most and min(shown.size) > LEAST_SIDE:
        # The bytes grow with the pixels, nearly; a little smaller than that, so that few attempts are needed.
        scale = min(0.9, max(0.5, 0.95 * math.sqrt(most / len(content))))
        width, height = (max(1, round(side * scale)) for side in shown.size)
        shown = shown.resize((width, height), Image.Resampling.LANCZOS)
        content = encode(shown, quality=QUALITY)
    return content, shown


def encode(image: Image.Image, **how: bool | int) -> bytes:
    """Return a picture as WebP."""
    content = io.BytesIO()
    image.save(content, "WEBP", **how)
    return content.getvalue()
