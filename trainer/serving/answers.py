"""Answers that are given once more: kept within a number of bytes, made once for all who wait for the same."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from trainer.serving.limits import Busy

LOOK_S = 0.2  # how often it is seen whether who asked is still there


class Gone(Exception):
    """Nobody waits for the answer any more."""


class Answers:
    """Keeps the answers that were wanted last.

    Args:
        most_bytes: of all together.
        timeout_s: how long one request waits.
    """

    def __init__(self, most_bytes: int, timeout_s: float) -> None:
        self.most_bytes, self.timeout_s = most_bytes, timeout_s
        self.kept: OrderedDict[str, bytes] = OrderedDict()
        self.bytes = 0
        self.making: dict[str, asyncio.Task[bytes]] = {}
        self.waiting: dict[str, int] = {}

    async def get(
        self, key: str, make: Callable[[], Coroutine[Any, Any, bytes]], gone: Callable[[], Awaitable[bool]]
    ) -> bytes:
        """Return the answer of a key.

        Args:
            key: equal for equal answers.
            make: makes the answer; it is cancelled when all are gone who wait for it.
            gone: tells whether who asked is gone.

        Raises:
            Busy: it takes too long.
            Gone: nobody waits for it.
        """
        if key in self.kept:
            self.kept.move_to_end(key)
            return self.kept[key]
        if key not in self.making:
            self.making[key] = asyncio.create_task(self.make(key, make))
        task = self.making[key]
        self.waiting[key] = self.waiting.get(key, 0) + 1
        try:
            return await self.wait(task, gone)
        finally:
            self.waiting[key] -= 1
            if not self.waiting[key]:
                del self.waiting[key]
                self.forget(key, task)
                task.cancel()  # of one that is done this does nothing

    async def wait(self, task: asyncio.Task[bytes], gone: Callable[[], Awaitable[bool]]) -> bytes:
        """Wait for an answer that is being made."""
        clock = asyncio.get_running_loop().time
        end = clock() + self.timeout_s
        while not (await asyncio.wait({task}, timeout=min(LOOK_S, self.timeout_s)))[0]:
            if clock() >= end:
                raise Busy(f"it took more than {self.timeout_s:g} s")
            if await gone():
                raise Gone
        return task.result()

    async def make(self, key: str, make: Callable[[], Coroutine[Any, Any, bytes]]) -> bytes:
        """Make an answer and keep it."""
        try:
            answer = await make()
            self.keep(key, answer)
            return answer
        finally:
            self.forget(key, asyncio.current_task())

    def forget(self, key: str, task: asyncio.Task[bytes] | None) -> None:
        """Let the next who wants this answer have it made anew, unless somebody does already."""
        if self.making.get(key) is task:
            self.making.pop(key, None)

    def keep(self, key: str, answer: bytes) -> None:
        """Keep an answer, and forget those that were wanted longest ago."""
        if len(answer) > self.most_bytes:
            return
        self.kept[key] = answer
        self.bytes += len(answer)
        while self.bytes > self.most_bytes:
            _, forgotten = self.kept.popitem(last=False)
            self.bytes -= len(forgotten)
