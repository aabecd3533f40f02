"""The thread that owns one generator: it paints a batch at a time of whatever is asked for."""

from __future__ import annotations

import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from typing import Any

import numpy as np

from shards.errors import DataError
from trainer.core.fields import Refused
from trainer.sampling.sampler import Images
from trainer.serving.limits import Busy
from trainer.serving.points import Point, Style
from trainer.serving.served import ServedGenerator


class Job:
    """The pictures of one answer; nobody waits for them any more when `answer` is cancelled."""

    def __init__(self, style: Style, points: Sequence[Point]) -> None:
        self.style, self.points = style, points
        self.taken = 0  # how many have been put into batches
        self.pictures: list[Images] = []
        self.answer: Future[Images] = Future()  # (n, h, w, c)

    def take(self, most: int) -> list[tuple[Job, Point]]:
        """Take the next points, so many at most."""
        taken = self.points[self.taken : self.taken + most]
        self.taken += len(taken)
        return [(self, point) for point in taken]

    def add(self, picture: Images) -> None:
        """Take over the next picture, and answer when it is the last one."""
        self.pictures.append(picture)
        if len(self.pictures) == len(self.points):
            settle(self.answer, np.stack(self.pictures))


class Worker:
    """Paints jobs with one generator, which only its thread touches.

    Args:
        name: of the thread.
        load: returns the generator; called by the thread.
    """

    def __init__(self, name: str, load: Callable[[], ServedGenerator]) -> None:
        self.load = load
        self.served: Future[ServedGenerator] = Future()
        self.jobs: deque[Job] = deque()
        self.changed = threading.Condition()
        self.stopped = False
        self.thread = threading.Thread(target=self.run, name=name, daemon=True)
        self.thread.start()

    def submit(self, job: Job) -> None:
        """Let a job wait for its turn.

        Raises:
            Busy: the worker is stopped.
        """
        with self.changed:
            if self.stopped:
                raise Busy("the generator is put away")
            self.jobs.append(job)
            self.changed.notify()

    def stop(self) -> None:
        """End the thread after its batch; jobs that wait are answered with Busy."""
        with self.changed:
            self.stopped = True
            self.changed.notify()

    def run(self) -> None:
        """Load the generator, and paint until the worker is stopped."""
        try:
            served = self.load()
            settle(self.served, served)
            while batch := self.next_batch(served):
                self.paint(served, batch)
            self.end(Busy("the generator is put away"))
        except (Refused, DataError) as error:
            self.end(error)
        except Exception as error:  # whoever waits must not wait for ever
            traceback.print_exc(file=sys.stderr)
            self.end(error)

    def end(self, error: Exception) -> None:
        """Answer all who wait with an error."""
        with self.changed:
            self.stopped = True
            left = [*self.jobs]
            self.jobs.clear()
        settle(self.served, error)
        for job in left:
            settle(job.answer, error)

    def next_batch(self, served: ServedGenerator) -> list[tuple[Job, Point]]:
        """Wait for jobs, and return points for one batch; none when the worker is stopped.

        Jobs take turns, so a film does not keep a single picture waiting. Where one does not fill the batch, those
        behind it do, if their truncation wants the same statistics.
        """
        with self.changed:
            while not self.stopped:
                waiting = [job for job in self.jobs if not job.answer.done()]
                batch: list[tuple[Job, Point]] = []
                for job in waiting:
                    if served.statistics_of(job.style.truncation) == served.statistics_of(waiting[0].style.truncation):
                        batch += job.take(served.sampler.batch_size - len(batch))
                begun = {id(job) for job, _ in batch}
                waiting.sort(key=lambda job: id(job) in begun)  # stable: those that were served go to the end
                self.jobs = deque(job for job in waiting if job.taken < len(job.points))
                if batch:
                    return batch
                self.changed.wait()
        return []

    def paint(self, served: ServedGenerator, batch: Sequence[tuple[Job, Point]]) -> None:
        """Generate a batch; a job with what the generator cannot paint is answered with Refused, and the others not."""
        wanted = []
        for job, point in batch:
            try:
                served.check(job.style, [point])
                wanted.append((job, point))
            except (Refused, DataError) as error:
                settle(job.answer, error)
        try:
            pictures = served.generate([(job.style, point) for job, point in wanted]) if wanted else []
        except Exception as error:  # such as too little memory: the next batch may do
            traceback.print_exc(file=sys.stderr)
            for job, _ in wanted:
                settle(job.answer, error)
            return
        for (job, _), picture in zip(wanted, pictures, strict=True):
            job.add(picture)


def settle(future: Future[Any], outcome: object) -> None:
    """Give a future its result or its exception, unless it has one, or nobody waits for it any more."""
    try:
        if isinstance(outcome, Exception):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)
    except InvalidStateError:
        pass
