"""Run a command so that its standard streams cannot end it, and signals end it in order.

Output that cannot be written is dropped: a long training or build is worth more than its output. So a command runs to
its end even if its terminal or pipe is closed or the disk of its log is full, and its exit code is that of its work.
One exception: if the work succeeded and standard output could not be written, as on a full disk, it is UNWRITTEN.
"""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
from collections.abc import Callable
from typing import Any, NoReturn, TextIO

from command_line.signals import signals_to_handle

UNWRITTEN = 74  # EX_IOERR of sysexits.h
INTERRUPTED = 128 + signal.SIGINT
READER_GONE = (errno.EPIPE, errno.EIO)  # of a pipe whose other end is closed; of a terminal that is closed


class LossyStream(io.FileIO):
    """A standard stream that drops what cannot be written, and remembers the last error."""

    error: OSError | None = None

    def write(self, data: Any, /) -> int:
        """Write; on an error pretend that all was written."""
        try:
            return super().write(data)
        except OSError as error:
            self.error = error
            return len(memoryview(data).cast("B"))


def run(main: Callable[[], int]) -> NoReturn:
    """Run a command, and end the process with its exit code.

    SIGTERM and SIGHUP raise KeyboardInterrupt as Ctrl-C does, unless the command installs its own handlers: it ends in
    order, without a traceback.
    """
    out = secure_streams()
    for number in signals_to_handle((signal.SIGTERM, signal.SIGHUP)):
        signal.signal(number, signal.default_int_handler)
    try:
        code = main()
    except KeyboardInterrupt:
        code = INTERRUPTED
    except SystemExit as ended:  # by the parser, after --help or a mistake
        code = ended.code if isinstance(ended.code, int) else 0
    # Before the exit code is settled: whether what is still in the buffer can be written shows only now.
    sys.stdout.flush()
    if out.error and out.error.errno not in READER_GONE:
        print(f"standard output could not be written: {out.error.strerror}", file=sys.stderr)
        code = code or UNWRITTEN
    sys.exit(code)


def secure_streams() -> LossyStream:
    """Replace standard output and standard error by streams that never fail, and return that of standard output."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:  # closed: the next opened file would get this number, and receive the output
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    sys.stdout, out = secure_stream(1, sys.stdout)
    sys.stderr, _ = secure_stream(2, sys.stderr)
    return out


def secure_stream(descriptor: int, before: TextIO | None) -> tuple[TextIO, LossyStream]:
    """Return a text stream that never fails, and its lowest layer.

    Args:
        descriptor: 1 or 2.
        before: Python's stream, whose encoding is kept; None: it was closed.
    """
    raw = LossyStream(descriptor, "w", closefd=False)
    text = io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=before.encoding if before else "utf-8",
        errors="backslashreplace",  # file names that are not UTF-8, and ASCII terminals, must not raise either
        line_buffering=descriptor == 2 or raw.isatty(),
        write_through=bool(getattr(before, "write_through", False)),
    )
    return text, raw


def reader_gone() -> bool:
    """Return whether the reader of standard output is gone; then endless output, such as `logs --follow`, ends."""
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return isinstance(raw, LossyStream) and raw.error is not None and raw.error.errno in READER_GONE
