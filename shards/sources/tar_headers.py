"""Headers of tars by strangers: tarfile believes the sizes in them, and follows chains of them as far as they go."""

from __future__ import annotations

import tarfile

TAR_ERRORS = (tarfile.TarError, OSError, ValueError, OverflowError, RecursionError)
"""What reading the headers of a damaged tar raises; RecursionError: a chain of a thousand long names."""
MOST_EXTENDED = 16 << 20  # bytes of names and attributes before one member; tarfile reads them into memory at once
EXTENDED = {
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
}


class TarHeader(tarfile.TarInfo):
    """A member whose extended headers have a limit."""

    def _proc_member(self, tarfile_: tarfile.TarFile) -> tarfile.TarInfo:
        """Read what belongs to the header: tarfile calls this.

        Raises:
            tarfile.ReadError: its extended header is too long, or its own size is negative: the next header would then
                lie before it, which is an endless loop.
        """
        if self.size < 0:
            raise tarfile.ReadError("a member of negative size")
        if self.type in EXTENDED and self.size > MOST_EXTENDED:
            raise tarfile.ReadError(f"an extended header of {self.size} bytes")
        member: tarfile.TarInfo = super()._proc_member(tarfile_)  # type: ignore[misc]  # not in typeshed
        if member.size < 0:  # as an extended header says
            raise tarfile.ReadError("a member of negative size")
        return member
