"""Load modules without looking for garbage among what they make.

torch and what comes with it are hundreds of thousands of objects that live to the end. Python would look through them
again and again while they grow in number, which is about a quarter of the time that a process takes to start.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

MANY = 20_000  # objects, for which it is worth while


@contextmanager
def loading() -> Iterator[None]:
    """Collect nothing inside; if many objects were made, never look among all that there is in the end."""
    gc.disable()
    try:
        yield
    finally:
        if gc.get_count()[0] > MANY:  # of modules that were there before there are none: garbage is still collected
            gc.freeze()
        gc.enable()
