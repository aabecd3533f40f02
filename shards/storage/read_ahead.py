"""Read with several requests at the same time, so that the time until a far server answers does not add up."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def read_ahead(requests: Iterable[Callable[[], T]], ahead: int) -> Generator[Callable[[], T], None, None]:
    """Yield for each request, in order, what returns its answer, or raises its error.

    Args:
        requests: what to call, in other threads; at most `ahead` of them are begun and not yielded.
        ahead: 1: they are not begun before their answer is asked for, and no thread is used.
    """
    if ahead == 1:
        yield from requests
        return
    begun: deque[Future[T]] = deque()
    with ThreadPoolExecutor(ahead, "read") as pool:
        try:
            for request in requests:
                begun.append(pool.submit(request))
                if len(begun) == ahead:
                    yield begun.popleft().result
            while begun:
                yield begun.popleft().result
        finally:
            pool.shutdown(cancel_futures=True)
