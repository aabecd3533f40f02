"""`reduction = "ddp"`: gradients through accelerate's DistributedDataParallel, overlapped with the backward pass.

The bits depend on the number of processes; for one number they repeat.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch.distributed as dist
from accelerate import Accelerator

from trainer.distributed.flat_buffer import FlatBuffer, FlatLayout
from trainer.distributed.world import World


class DdpReduction:
    """Averages gradients over all micro-batches with DDP, and the rest of the flat buffers with one all-reduce.

    The arguments are those of `ExactReduction`, with a layout without gradients.
    """

    def __init__(self, layout: FlatLayout, micro_batches: int, world: World, accelerator: Accelerator) -> None:
        self.layout = layout
        self.accelerator = accelerator
        self.world = world
        self.micro_batches = micro_batches
        self.last = world.share(micro_batches)[-1]
        self.network: Callable[..., Any] = accelerator.prepare_model(layout.network)
        self.sum = FlatBuffer(layout)
        self.buffer = FlatBuffer(layout)
        self.clear()

    def clear(self) -> None:
        """Start the next update."""
        self.sum.flat.zero_()
        for parameter in self.layout.parameters:
            parameter.grad = None

    @contextmanager
    def micro_batch(self, j: int) -> Iterator[FlatBuffer]:
        """Accumulate micro-batch j; the gradients travel during the backward pass of the last one."""
        self.buffer.begin()
        # Not earlier: the optimizer reads the last update's gradients after `mean`.
        if j == self.world.share(self.micro_batches)[0]:
            self.clear()
        if j == self.last:
            yield self.buffer
        else:
            with self.accelerator.no_sync(self.network):
                yield self.buffer
        self.buffer.finish()
        self.sum.flat.add_(self.buffer.flat)

    def mean(self) -> FlatBuffer:
        """Return the mean buffer; DDP has averaged the ranks' sums of gradients already."""
        if self.world.size > 1:
            dist.all_reduce(self.sum.flat)
        self.sum.flat.div_(self.micro_batches)
        for parameter in self.layout.parameters:
            assert parameter.grad is not None
            # DDP's mean over the ranks is 1 / size of the sum over all micro-batches; wanted is 1 / M of it.
            parameter.grad.mul_(self.world.size / self.micro_batches)
        return self.sum
