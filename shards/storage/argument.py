"""How a place is given on a command line."""

from __future__ import annotations

from typing import Annotated

from tyro.constructors import PrimitiveConstructorSpec

from shards.errors import DataError
from shards.storage.place import Place, parse_place

NONE = "None"  # what tyro itself calls a value that is not there


def read_place(words: list[str]) -> Place | None:
    """Return the place that a word of a command line names.

    Raises:
        ValueError: it names none.
    """
    try:
        return None if words[0] == NONE else parse_place(words[0])
    except DataError as error:
        raise ValueError(str(error)) from None


RULE = PrimitiveConstructorSpec[Place | None](
    nargs=1,
    metavar="PATH|URL",
    instance_from_str=read_place,
    is_instance=lambda value: value is None or isinstance(value, Place),
    str_from_instance=lambda value: [NONE if value is None else str(value)],
)
PlaceArgument = Annotated[Place, RULE]
OptionalPlace = Annotated[Place | None, RULE]
