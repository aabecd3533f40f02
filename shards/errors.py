"""What every part of this package raises for a user's mistake."""

from __future__ import annotations


class DataError(Exception):
    """Bad input data: the message says what is wrong, where, and what to do. Exit code 2, no traceback."""
