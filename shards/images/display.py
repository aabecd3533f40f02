"""Pictures of 1, 3 or 4 channels as programs want them that know RGB only: screens, grids and frozen networks.

Four channels are RGBA with straight alpha, as in PNG: colour and alpha are stored side by side. Premultiplied, each
colour is times its alpha (Porter and Duff 1984): only there are filters and averages of pictures right.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Images = npt.NDArray[np.uint8]  # (..., h, w, c)

SQUARE = 8  # pixels, of the checkerboard
LIGHT, DARK = 255, 204


def premultiply(images: Images) -> Images:
    """Multiply the colours of RGBA by alpha, rounded to bytes; pictures without alpha are returned as they are."""
    if images.shape[-1] != 4:
        return images
    alpha = images[..., 3:].astype(np.uint16)
    colours = (images[..., :3] * alpha + 127) // 255
    return np.concatenate([colours.astype(np.uint8), images[..., 3:]], axis=-1)


def over(images: Images, background: npt.NDArray[np.uint8] | int) -> Images:
    """Return RGB, (..., h, w, 3): grey is repeated, RGBA lies over the background, and RGB is returned as it is."""
    if images.shape[-1] == 3:
        return images
    if images.shape[-1] == 1:
        return np.repeat(images, 3, axis=-1)
    alpha = images[..., 3:].astype(np.uint16)
    mixed = (images[..., :3] * alpha + np.asarray(background, dtype=np.uint16) * (255 - alpha) + 127) // 255
    return mixed.astype(np.uint8)


def over_white(images: Images) -> Images:
    """Return RGB, (..., h, w, 3), with white behind what is transparent: `shards build` does so by default, too."""
    return over(images, 255)


def over_checkerboard(images: Images) -> Images:
    """Return RGB, (..., h, w, 3), with a checkerboard behind what is transparent, for people to see it."""
    height, width = images.shape[-3:-1]
    squares = (np.arange(height)[:, None] // SQUARE + np.arange(width) // SQUARE) % 2
    return over(images, np.where(squares, DARK, LIGHT).astype(np.uint8)[..., None])
