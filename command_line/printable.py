"""Text from strangers, such as names of files, as a terminal may show it."""

from __future__ import annotations

KEPT = "\n\t"
# They change the order in which a terminal shows what follows, so that one name looks like another.
REORDERING = {*range(0x202A, 0x202F), *range(0x2066, 0x206A)}


def printable(text: object) -> str:
    """Return a text with its control characters escaped, as \\x1b: a terminal would obey them.

    Line breaks and tabs are kept; so is all that is not ASCII but letters, signs and emoji.
    """
    return "".join(escaped(character) for character in str(text))


def escaped(character: str) -> str:
    """Return a character, or its escape if a terminal would obey it."""
    code = ord(character)
    if character in KEPT or not (code < 0x20 or 0x7F <= code < 0xA0 or code in REORDERING):
        return character
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
