"""Why a file of the source is not in the shards."""

from __future__ import annotations

REASONS = {
    "empty": "the file has no bytes",
    "not_an_image": "the content is in no format that Pillow reads",
    "truncated": "the file ends too early",
    "unreadable": "the file cannot be read, or its content is damaged",
    "too_many_pixels": "more pixels than --max-pixels",
    "too_many_bytes": "more bytes than --max-bytes, unpacked",
    "too_small": "a side shorter than --min-size",
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
}


class Excluded(Exception):
    """This file cannot be used.

    Args:
        reason: a key of REASONS.
        detail: what was found, in words.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail
