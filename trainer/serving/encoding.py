"""Pictures as files: PNG with the parameters that they were made from, WebP, and films."""

from __future__ import annotations

import io
import json
from typing import Any

from PIL.PngImagePlugin import PngInfo

from shards.images.display import over_checkerboard
from shards.images.encode import to_pillow
from trainer.sampling.films import encode_film
from trainer.sampling.sampler import Images, image_grid

PARAMETERS = "lienzo"  # the keyword of the text in a PNG


def encode_picture(picture: Images, kind: str, parameters: dict[str, Any]) -> bytes:
    """Encode a picture (h, w, c) as "png" or "webp" without loss; a PNG carries its parameters as JSON."""
    file = io.BytesIO()
    if kind == "png":
        info = PngInfo()
        info.add_text(PARAMETERS, json.dumps(parameters))
        to_pillow(picture).save(file, "PNG", pnginfo=info)
    else:
        to_pillow(picture).save(file, "WEBP", lossless=True)
    return file.getvalue()


def encode_wall(pictures: Images, columns: int, kind: str, parameters: dict[str, Any]) -> bytes:
    """Encode pictures (n, h, w, c) in rows; transparency lies over a checkerboard."""
    return encode_picture(image_grid(pictures, columns), kind, parameters)


def encode_frames(pictures: Images, kind: str, fps: float, loop: bool) -> bytes:
    """Encode pictures (n, h, w, c) as a film, "webp" or "gif"; transparency lies over a checkerboard."""
    return encode_film(over_checkerboard(pictures), f".{kind}", fps, loop)
