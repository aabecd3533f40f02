"""A command's surroundings: standard streams that may be closed, full or gone, and the signals that end it.

What a stream does not take is dropped: no output is worth a training, or a build. So a command goes on to its end
whatever becomes of its terminal, its pipe or the disk of its log, and its exit code is that of its work. There is one
exception: after all went well, UNWRITTEN tells that standard output could not be written, as on a full disk.
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

UNWRITTEN = 74  # EX_IOERR
INTERRUPTED = 128 + signal.SIGINT
READER_GONE = (errno.EPIPE, errno.EIO)  # the other end of a pipe; a terminal


class LossyStream(io.FileIO):
    """A standard stream that drops what cannot be written, and remembers why."""

    error: OSError | None = None

    def write(self, data: Any, /) -> int:
        """Write, or drop."""
        try:
            return super().write(data)
        except OSError as error:
            self.error = error
            return len(memoryview(data).cast("B"))


def run(main: Callable[[], int]) -> NoReturn:
    """Run a command and end the process with its exit code.

    SIGTERM and SIGHUP end it as Ctrl-C does, unless it has an answer of its own: in order, without a traceback.
    """
    out = secure_streams()
    for number in signals_to_handle((signal.SIGTERM, signal.SIGHUP)):
        signal.signal(number, signal.default_int_handler)
    try:
        code = main()
    except KeyboardInterrupt:
        code = INTERRUPTED
    except SystemExit as ended:  # a parser's, after --help or a mistake
        code = ended.code if isinstance(ended.code, int) else 0
    sys.stdout.flush()
    if out.error and out.error.errno not in READER_GONE:
        print(f"standard output could not be written: {out.error.strerror}", file=sys.stderr)
        code = code or UNWRITTEN
    sys.exit(code)


def secure_streams() -> LossyStream:
    """Let no standard stream fail whoever writes to it, and return that of standard output."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:  # closed: the next file that is opened would take its place, and what is said would go there
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    sys.stdout, out = secure_stream(1, sys.stdout)
    sys.stderr, _ = secure_stream(2, sys.stderr)
    return out


def secure_stream(descriptor: int, before: TextIO | None) -> tuple[TextIO, LossyStream]:
    """Return a stream that takes everything, in place of one of Python's."""
    raw = LossyStream(descriptor, "w", closefd=False)
    text = io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=before.encoding if before else "utf-8",
        errors="backslashreplace",  # a name that is not UTF-8, or an ASCII terminal, is no reason to end either
        line_buffering=descriptor == 2 or raw.isatty(),
        write_through=bool(getattr(before, "write_through", False)),
    )
    return text, raw


def reader_gone() -> bool:
    """Tell whether nobody reads standard output any more: the end of what would go on for ever."""
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return isinstance(raw, LossyStream) and raw.error is not None and raw.error.errno in READER_GONE
