"""The reasons why a file is excluded from the shards, and the notes on pictures that are in them."""

from __future__ import annotations

REASONS = {
    "empty": "the file has no bytes",
    "not_an_image": "the content is no picture, whatever its name says",
    "unsupported": "a format, or a variant of one, that cannot be read",
    "truncated": "the file ends too early",
    "damaged": "the content is damaged",
    "unreadable": "the file system or the archive does not give its content",
    "out_of_memory": "too little memory to decode it, also with no other worker at work",
    "kills_worker": "decoding it ended the worker process, also with no other worker at work",
    "too_slow": "decoding it had no end in ten minutes of computing, twice",
    "too_many_pixels": "more pixels than --max-pixels",
    "too_many_bytes": "more bytes than --max-bytes, unpacked",
    "too_small": "a side shorter than --min-size",
    "too_elongated": "a longer side of more than --max-aspect times the shorter one",
    "hidden": "the name of the file, or of a folder above it, starts with a dot",
    "special_file": "a pipe, socket, device or sparse member: never opened",
    "dangling_link": "a link to nothing",
    "symlink_loop": "a link to itself, or to a folder above it",
    "linked_folder": "a link to another folder of the source: its pictures are taken where they lie",
    "outside_source": "a link that leaves the source; --follow-links takes the files that links lead to",
    "link_in_archive": "a link inside an archive",
    "escapes_archive": "a member whose name would leave the folder that the archive is unpacked in",
    "duplicate_name": "a second member with this name; the first one is used",
    "encrypted": "a member that needs a password",
    "filtered": "its row in the table has another value than --filter asks for, or it has no row",
    "duplicate": "has the pixels of another picture, which is used (--deduplicate)",
    "near_duplicate": "nearly equal to another picture, which is used (--deduplicate near)",
}

NOTES = {
    "harmless_warning": "the decoder warned of something that does not touch the pixels",
    "extras_ignored": "damaged or oversized texts and other extras of a PNG were left out",
    "first_frame": "an animation, or several pages: the first one was taken",
    "scaled": "more than 8 bits a channel, taken by their usual range and scaled to 8",
    "spread": "values outside of the usual ranges: the least became black and the greatest white",
    "twelve_bits": "16 bits a channel with no value above 4095: taken as 12 bits",
    "profile_ignored": "the colour profile is damaged, or of another colour space than the pixels",
    "cmyk_by_formula": "CMYK without a colour profile: converted by a plain formula",
    "extra_channels": "more channels than colours and transparency: the first ones were taken",
}
"""Remarks on pictures that are in the shards, shown in the summary of a build."""


class Excluded(Exception):
    """This file is excluded.

    Args:
        reason: a key of REASONS.
        detail: what was found, in words.
    """

    def __init__(self, reason: str, detail: str) -> None:
        line = " ".join(detail.splitlines())  # some decoders' messages have several, or end with a line end
        super().__init__(reason, line)
        self.reason, self.detail = reason, line
