"""How a micro-batch comes to the device: in one copy, from memory that a GPU reads by itself."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

ALIGNMENT = 16  # bytes: more than any type of a draw needs


class Staging(Protocol):
    """Brings tensors of the host to the device."""

    def stage(self, tensors: Sequence[Tensor]) -> Staged:
        """Prepare tensors for the copy, in any thread."""

    def bring(self, staged: Staged) -> list[Tensor]:
        """Return the tensors on the device, without waiting for them there; once, in the thread that computes."""


@dataclass(frozen=True)
class Staged:
    """Tensors of the host; with a buffer, it holds their bytes one after the other."""

    tensors: Sequence[Tensor]
    buffer: Tensor | None = None


class HostStaging:
    """The host is the device."""

    def stage(self, tensors: Sequence[Tensor]) -> Staged:
        """Leave the tensors where they are."""
        return Staged(tensors)

    def bring(self, staged: Staged) -> list[Tensor]:
        """Return the tensors."""
        return list(staged.tensors)


@dataclass
class PinnedStaging:
    """Packs tensors into pinned buffers, which are used again when their copies are done.

    From other memory the driver copies twice, and the host waits for it.

    Args:
        device: a GPU.
    """

    device: torch.device
    free: list[tuple[Tensor, torch.cuda.Event | None]] = field(default_factory=list)
    """Buffers, with what tells that the copy from there is done."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def stage(self, tensors: Sequence[Tensor]) -> Staged:
        """Copy the tensors' bytes into one buffer."""
        places, numel = byte_places(tensors)
        buffer = self.take(numel)
        for tensor, place in zip(tensors, places, strict=True):
            view_as(buffer[place], tensor).copy_(tensor)
        # Of the tensors only shapes and types are read from here on.
        return Staged([tensor.to("meta") for tensor in tensors], buffer)

    def bring(self, staged: Staged) -> list[Tensor]:
        """Copy the buffer, and return views into the copy."""
        assert staged.buffer is not None
        places, numel = byte_places(staged.tensors)
        there = staged.buffer[:numel].to(self.device, non_blocking=True, copy=True)
        with self.lock:
            self.free.append((staged.buffer, self.copied()))
        return [view_as(there[place], tensor) for tensor, place in zip(staged.tensors, places, strict=True)]

    def take(self, numel: int) -> Tensor:
        """Return a buffer from which nothing is copied any more."""
        with self.lock:
            for k, (buffer, copied) in enumerate(self.free):
                if buffer.numel() >= numel and (copied is None or copied.query()):
                    del self.free[k]
                    return buffer
        return self.allocate(numel)

    def allocate(self, numel: int) -> Tensor:
        """Return a new buffer of so many bytes."""
        return torch.empty(numel, dtype=torch.uint8, pin_memory=True)

    def copied(self) -> torch.cuda.Event:
        """Return what tells when all copies so far are done."""
        event = torch.cuda.Event()
        event.record(torch.cuda.current_stream(self.device))
        return event


def byte_places(tensors: Sequence[Tensor]) -> tuple[list[slice], int]:
    """Return where each tensor's bytes lie in a buffer, and how many bytes it needs."""
    places, stop = [], 0
    for tensor in tensors:
        start = -(-stop // ALIGNMENT) * ALIGNMENT
        stop = start + tensor.numel() * tensor.element_size()
        places.append(slice(start, stop))
    return places, stop


def view_as(data: Tensor, tensor: Tensor) -> Tensor:
    """Return bytes as a tensor of another one's type and shape."""
    return data.view(tensor.dtype).view(tensor.shape)


def staging_for(device: torch.device) -> Staging:
    """Return how tensors come to a device."""
    return PinnedStaging(device) if device.type == "cuda" else HostStaging()
