"""How a picture of any aspect ratio gets the shape of the dataset: which part of it is taken, and how large it becomes.

Of a crop one axis is free: the part has the full height of a wide picture, and the full width of a tall one.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from PIL import Image

from shards.images.size import Size

Fit = Literal["crop", "pad", "stretch"]
Crop = Literal["centre", "top", "entropy"]
Box = tuple[float, float, float, float]  # left, top, right, bottom

SIDE = 64  # pixels, of the crop's longer side where entropies are compared
WINDOWS = 65  # places that are compared at most


def fitted_size(width: float, height: float, size: Size, fit: Fit) -> tuple[int, int]:
    """Return the width and height to which a whole picture is scaled before it is cropped or padded to `size`."""
    to_height, to_width = size
    if fit == "stretch":
        return to_width, to_height
    wide = width * to_height >= height * to_width
    # Of a wide picture the height decides if it is cropped, and the width if it is padded.
    to, of = (to_height, height) if wide == (fit == "crop") else (to_width, width)
    return max(1, round(width * to / of)), max(1, round(height * to / of))


def crop_box(image: Image.Image, extent: tuple[float, float], size: Size, crop: Crop, orientation: int) -> Box:
    """Return the part of a picture that is taken, in fractions of a pixel.

    Args:
        image: perhaps not upright yet.
        extent: its exact width and height, up to a pixel less than `image.size`.
        size: the height and width of which the part has the aspect ratio, as the picture lies.
        crop: which part.
        orientation: of EXIF, which says where the top of the upright picture is.
    """
    width, height = extent
    # Quotients first: of a square they are 1, and change no bit.
    taken = min(width, height * (size[1] / size[0])), min(height, width * (size[0] / size[1]))
    share = place_of(image, extent, taken, crop, orientation)
    left, top = (width - taken[0]) * share, (height - taken[1]) * share
    return left, top, min(left + taken[0], width), min(top + taken[1], height)


def place_of(
    image: Image.Image, extent: tuple[float, float], taken: tuple[float, float], crop: Crop, orientation: int
) -> float:
    """Return where along the free axis the part lies: from 0, the left or the top, to 1."""
    if crop == "entropy":
        return place_of_most_entropy(image, extent, taken)
    # With these orientations the axes change places: the free one is vertical if it is horizontal here.
    vertical = (taken[1] < extent[1]) != (orientation >= 5)
    if crop == "centre" or not vertical:
        return 0.5
    return 1.0 if orientation in (3, 4, 7, 8) else 0.0


def place_of_most_entropy(image: Image.Image, extent: tuple[float, float], taken: tuple[float, float]) -> float:
    """Return the place of the part whose grey levels have the highest entropy; of equal ones the most central.

    The entropy -sum p log p of the 256 grey levels' shares (Shannon 1948) is higher where there is more to see; sharp
    and libvips crop by it, too. Here all of up to WINDOWS evenly spaced parts are compared, in a copy of the picture in
    which the part's longer side has SIDE pixels.
    """
    scale = SIDE / max(taken)
    width, height = (max(1, round(side * scale)) for side in extent)
    window = [max(1, min(whole, round(side * scale))) for whole, side in zip((width, height), taken, strict=True)]
    free = max(width - window[0], height - window[1])
    if not free:
        return 0.5
    small = image.resize((width, height), Image.Resampling.BOX, (0, 0, *extent))
    grey = np.asarray(Image.merge("RGB", small.split()[:3]).convert("L"))
    lines = grey if height > window[1] else grey.T  # along the free axis
    length = window[1] if height > window[1] else window[0]
    places = np.unique(np.linspace(0, free, min(free + 1, WINDOWS)).round().astype(int))
    found = [(round(entropy(lines[at : at + length]), 9), -abs(2 * int(at) - free), -int(at)) for at in places]
    return -max(found)[2] / free


def entropy(grey: np.ndarray) -> float:
    """Return the entropy of the values, in bits."""
    counts = np.bincount(grey.ravel(), minlength=256)
    shares = counts[counts > 0] / grey.size
    return float(-(shares * np.log2(shares)).sum())


def pad_image(image: Image.Image, size: Size, background: tuple[int, ...]) -> Image.Image:
    """Centre a picture on a background of a height and width."""
    height, width = size
    if image.size == (width, height):
        return image
    canvas = Image.new(image.mode, (width, height), background)
    canvas.paste(image, ((width - image.width) // 2, (height - image.height) // 2))
    return canvas
