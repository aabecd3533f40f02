"""A step as CUDA graphs: recorded once for each kind of step, and replayed with other inputs.

A step starts thousands of kernels, and small ones end before the host has started the next. A graph is started at once.
It computes the same operations on the same memory each time, so whatever differs between two steps of a kind is a
tensor that is filled before: the micro-batches, and the numbers of trainer/core/recording.py.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from trainer.core.recording import recorded_by
from trainer.gan.step import GanStep, Scalars, Stop
from trainer.losses.batch import Batch
from trainer.networks.spectral_norm import normalised_weights

log = logging.getLogger(__name__)

T = TypeVar("T")
Updates = Sequence[Sequence[Batch]]
NUMBERS = 32  # of an update, at most: the rate, ADA's p, the blur's widths, and a factor for each penalty
MOST_KINDS = 64  # the inputs of each are kept; top-k makes new ones as its share falls


class Graphs(Protocol):
    """Where steps are recorded."""

    def run_beside(self, act: Callable[[], T]) -> T:
        """Do something where graphs are captured later, in order with what is computed before and after."""

    def capture(self) -> AbstractContextManager[Callable[[], None]]:
        """Capture what is done inside, without doing it; what is returned does it."""


class CudaGraphs:
    """Graphs that share one pool of memory.

    What one of them leaves there, the next one may overwrite. That is harmless: of what a step computes only the state,
    which lies outside, and its scalars are read afterwards, and these before the next step.
    """

    def __init__(self, device: torch.device) -> None:
        self.device, self.stream = device, torch.cuda.Stream(device)
        self.pool = torch.cuda.graph_pool_handle()

    def run_beside(self, act: Callable[[], T]) -> T:
        """Do something on the stream on which graphs are captured: libraries then have their workspaces there."""
        current = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(current)
        with torch.cuda.stream(self.stream):
            result = act()
        current.wait_stream(self.stream)
        return result

    @contextmanager
    def capture(self) -> Iterator[Callable[[], None]]:
        """Capture what is done inside."""
        graph = torch.cuda.CUDAGraph()
        # thread_local: threads that prepare micro-batches may allocate pinned memory meanwhile. The outer context
        # returns to the current stream even if the capture fails.
        with (
            warnings.catch_warnings(),
            torch.cuda.stream(self.stream),
            torch.cuda.graph(graph, self.pool, self.stream, capture_error_mode="thread_local"),
        ):
            warnings.filterwarnings("ignore", "The CUDA Graph is empty")  # as after the last optimizer's step
            yield graph.replay


class Recording:
    """A step of one kind: graphs, and what the host does between them.

    Args:
        step: to be recorded; nothing of it is done yet.
        updates: a step of this kind.
        graphs: where it is recorded.
    """

    def __init__(self, step: GanStep, updates: Updates, graphs: Graphs) -> None:
        self.graphs, self.first = graphs, updates[0][0].images_seen
        self.parts: list[Callable[[int], object]] = []
        self.numbers: list[Callable[[int], float]] = []
        batches = [batch for share in updates for batch in share]
        self.values = batches[0].real.new_zeros(1 + len(batches) + NUMBERS * (len(updates) + 1), dtype=torch.float64)
        self.given = 1 + len(batches)  # values that are no functions of the images seen
        # In memory of their own, outside the pool: in place of plain numbers they have tensors.
        kept = iter([replace(b.map(torch.clone), replaced=self.values[k]) for k, b in enumerate(batches, 1)])
        self.updates = [[next(kept) for _ in share] for share in updates]
        self.open = ExitStack()
        try:
            with recorded_by(self):
                self.begin()
                self.scalars = step(self.updates, lambda: self.values[0])
        finally:
            self.open.close()

    def begin(self) -> None:
        """Begin a graph."""
        replay = self.open.enter_context(self.graphs.capture())
        self.parts.append(lambda images_seen: replay())

    def number(self, compute: Callable[[int], float], images_seen: int, dtype: torch.dtype) -> Tensor:
        """Return a tensor () that holds, in each replay, what `compute` makes of the images seen there."""
        since = images_seen - self.first
        self.numbers.append(lambda first: compute(first + since))
        return self.values[self.given + len(self.numbers) - 1].to(dtype)

    def between_graphs(self, act: Callable[[int], object], images_seen: int) -> None:
        """Let each replay do this here, with the images seen there."""
        since = images_seen - self.first
        self.open.close()
        self.parts.append(lambda first: act(first + since))
        self.begin()

    def __call__(self, updates: Updates, stop: Stop) -> Scalars:
        """Take a step; its scalars are written again by the next one."""
        batches, first = [batch for share in updates for batch in share], updates[0][0].images_seen
        given = [float(stop()), *(float(batch.replaced) for batch in batches)]
        self.fill([*given, *(compute(first) for compute in self.numbers)])
        mine = [tensor for share in self.updates for batch in share for tensor in batch.tensors()]
        copy_by_type(mine, [tensor for batch in batches for tensor in batch.tensors()])
        for part in self.parts:
            part(first)
        return self.scalars

    def fill(self, values: list[float]) -> None:
        """Bring the numbers of a step to the device, without waiting for it."""
        # A new tensor each time: the copy of the last one may not be done. The allocator knows when it is.
        host = torch.tensor(values, dtype=torch.float64, pin_memory=self.values.is_cuda)
        self.values[: len(values)].copy_(host, non_blocking=True)


def copy_by_type(into: Sequence[Tensor], tensors: Sequence[Tensor]) -> None:
    """Copy tensors, those of a type together: each type is one kernel then."""
    for dtype in {tensor.dtype for tensor in tensors}:
        pairs = [(a, b) for a, b in zip(into, tensors, strict=True) if b.dtype == dtype]
        torch._foreach_copy_([a for a, _ in pairs], [b for _, b in pairs])


def kind_of(step: GanStep, updates: Updates) -> Hashable:
    """Return what tells steps apart that do different operations: what is due in them, and how many fakes count."""
    starts = [share[0].images_seen for share in updates]
    augment = step.models.augment
    of_d = [
        ([active.name for active in step.d.due(seen)], augment.moves_p(seen), augment.blur.due(seen)) for seen in starts
    ]
    of_g = [active.name for active in step.g.due(starts[-1])]
    logits = step.g_batches * len(updates[-1][0].real) // step.models.discriminator.settings.pack
    return str((of_d, of_g, step.top_k.count(logits, starts[-1])))


class RecordedStep:
    """Takes steps as GanStep does, with the same bits: the first of each kind as it is, those after it as graphs.

    Args:
        step: the step.
        graphs: where it is recorded.
        required: a step that cannot be recorded is an error; else training goes on without.
    """

    def __init__(self, step: GanStep, graphs: Graphs, required: bool) -> None:
        self.step, self.graphs, self.required = step, graphs, required
        self.recordings: dict[Hashable, Recording | None] = {}
        self.possible = True
        models = step.models
        self.norms = [norm for n in (models.generator, models.discriminator) for norm, _ in normalised_weights(n)]

    def __call__(self, updates: Updates, stop: Stop) -> Scalars:
        """Take a step; the arguments and the result are GanStep's."""
        # A graph would read for ever the sigma that was measured before it, and leaves one that the host believes in.
        self.forget_sigmas()
        try:
            return self.take(updates, stop)
        finally:
            self.forget_sigmas()

    def take(self, updates: Updates, stop: Stop) -> Scalars:
        """Take a step as it is, or as graphs."""
        kind = kind_of(self.step, updates)
        if self.possible and kind in self.recordings and (recording := self.recorded(kind, updates)):
            return recording(updates, stop)
        if len(self.recordings) == MOST_KINDS:
            self.recordings.clear()
        # The first step of a kind: libraries choose their kernels, and what is made once and kept is made.
        self.recordings.setdefault(kind, None)
        return self.graphs.run_beside(lambda: self.step(updates, stop))

    def recorded(self, kind: Hashable, updates: Updates) -> Recording | None:
        """Return the recording of a kind of step; None if it cannot be recorded."""
        recording = self.recordings[kind]
        if recording is None:
            try:
                recording = self.recordings[kind] = Recording(self.step, updates, self.graphs)
            except RuntimeError as error:
                if self.required:
                    raise
                self.give_up(error)
        return recording

    def give_up(self, error: RuntimeError) -> None:
        """Train without graphs from here on."""
        self.possible = False
        self.recordings.clear()
        self.forget_sigmas()  # nothing of what was captured has been computed
        log.warning("no CUDA graphs: this step cannot be recorded: %s", str(error).partition("\n")[0])

    def forget_sigmas(self) -> None:
        """Let spectral norms measure sigma anew; the bits are those of the one that they know."""
        for norm in self.norms:
            norm.known = None
