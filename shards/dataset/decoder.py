"""How the bytes of a dataset's samples become pixels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from PIL import ImageColor

from shards.dataset.files import BUILD_AGAIN, INDEX
from shards.dataset.index import ORIGINAL, DataError, Index
from shards.exclusion import Excluded
from shards.images.decode import decode_image
from shards.images.decoding import Decoding
from shards.images.encode import ENCODINGS, Pixels
from shards.images.npy import as_image

Decode = Callable[[bytes, Pixels], None]
"""Writes the pixels into an array; raises ValueError or OSError if the bytes are not a picture of the dataset."""


def decoder_of(index: Index) -> Decode:
    """Return what decodes the samples of a dataset.

    Raises:
        DataError: the index does not say it.
    """
    try:
        if index.encoding != ORIGINAL:
            return ENCODINGS[index.encoding].decode
        settings = decoding_from(index.content["settings"])
    except (LookupError, TypeError, ValueError, AttributeError):
        raise DataError(f"{index.path / INDEX} is damaged: {BUILD_AGAIN}") from None

    def decode(data: bytes, out: Pixels) -> None:
        try:
            out[:] = decode_image(as_image(data), settings).pixels
        except Excluded as error:
            raise ValueError(f"{error.reason}: {error.detail}") from error

    return decode


def decoding_from(settings: Mapping[str, Any]) -> Decoding:
    """Return how pictures are decoded, from what an index says of it."""
    numbers = [settings[name] for name in ("scaled_decode", "max_pixels", "min_size")]
    if {type(number) for number in numbers} != {int}:
        raise TypeError(f"numbers of pixels are {numbers}")
    red, green, blue, *_ = ImageColor.getrgb(settings["background"])
    return Decoding(
        size=(settings["height"], settings["width"]),
        fit=settings["fit"],
        background=(red, green, blue),
        scaled_decode=settings["scaled_decode"],
        max_pixels=settings["max_pixels"],
        min_size=settings["min_size"],
        channels=settings["channels"],
        crop=settings["crop"],
        max_aspect=settings["max_aspect"],
    )
