"""The end of a process whose parent is gone."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable


def end_with_parent(exit_code: int, wait_for_its_end: Callable[[], object] | None = None) -> None:
    """End this process at once when its parent is gone, perhaps killed: nobody would read or undo what it does.

    Args:
        exit_code: of this process.
        wait_for_its_end: returns when the parent is gone; default: as multiprocessing tells of it.
    """
    parent = multiprocessing.parent_process()
    wait = wait_for_its_end or (parent.join if parent else None)
    if wait is None:
        return

    def watch() -> None:
        wait()
        # Not sys.exit, which in a thread ends only that thread.
        os._exit(exit_code)

    threading.Thread(target=watch, name="parent", daemon=True).start()
