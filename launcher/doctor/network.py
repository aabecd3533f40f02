"""What a node sees of the others: whether their ports answer, how far their clocks are off, how fast they exchange."""

from __future__ import annotations

import socket
import struct
import threading
import time
from contextlib import suppress
from datetime import timedelta
from statistics import median
from typing import Any

from launcher.doctor.measured import ProbeMessages, Reached

# A firewall that drops packets gives no answer at all: so long each closed way is waited for.
CONNECT_S = 10.0
ROUNDS = 10
CLOCK = struct.Struct("!d")
EXCHANGE_MB = 36
EXCHANGES = 5
# Torch's own time-outs, of up to half an hour, are longer than the doctor's job.
LIMIT = timedelta(seconds=60)


def serve_clock() -> socket.socket:
    """Answer whoever connects with this node's clock, from a thread; return the listening socket."""
    # Any free port, as gloo and NCCL take: a firewall that lets only some ports through shows here.
    listener = socket.create_server(("", 0), backlog=4096)

    def answer(peer: socket.socket) -> None:
        with peer, suppress(OSError):
            while peer.recv(1):
                peer.sendall(CLOCK.pack(time.time()))

    def serve() -> None:
        with suppress(OSError):
            while True:
                peer, _ = listener.accept()
                threading.Thread(target=answer, args=(peer,), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    return listener


def connect_to_all(messages: ProbeMessages, node: str, address: str) -> tuple[str, list[Reached], bool]:
    """Connect to every other node; return the first one's address, what was seen, and whether all have met all.

    All wait until the last one is done: whoever goes on to import torch is slow to answer at its port.
    """
    messages.write("listener", {"node": node, "address": address, "port": serve_clock().getsockname()[1]})
    listeners = messages.wait_for_all("listener")
    seen = [exchange_clocks(rank, **listeners[rank]) for rank in listeners if rank != messages.rank]
    absent = [rank for rank in range(messages.size) if rank not in listeners]
    seen += [Reached(rank, f"task {rank}", problem="it did not come") for rank in absent]
    messages.write("met", [one.node for one in seen if one.problem])
    met = messages.wait_for_all("met")
    return listeners[0]["address"] if 0 in listeners else "", seen, len(met) == messages.size and not any(met.values())


def exchange_clocks(rank: int, node: str, address: str, port: int) -> Reached:
    """Exchange clocks with a node, as NTP does: its time belongs to the middle of the round trip."""
    best = (float("inf"), 0.0)
    try:
        with socket.create_connection((address, port), timeout=CONNECT_S) as peer:
            # Else the kernel holds small packets back, and the round trip would be that of its timers.
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for _ in range(ROUNDS):
                asked, began = time.time(), time.perf_counter()
                peer.sendall(b"?")
                (clock,) = CLOCK.unpack(peer.recv(CLOCK.size, socket.MSG_WAITALL))
                took = time.perf_counter() - began
                # The fastest exchange was disturbed least, so that its clock is the surest.
                best = min(best, (took, clock - (asked + took / 2)))
    except (OSError, struct.error) as error:
        return Reached(rank, node, problem=f"{address}:{port}: {getattr(error, 'strerror', None) or error}")
    return Reached(rank, node, round_trip_s=best[0], offset_s=best[1])


def open_store(messages: ProbeMessages, first: str, all_met: bool) -> Any:
    """Return the store where the ranks meet; the first node serves it, for as long as it holds it.

    Raises:
        OSError, RuntimeError: it does not work.
    """
    import torch.distributed as dist  # after the signals and ports: it takes seconds

    # Joining would wait for its time-out on each node, only to say less clearly what is known already.
    if not all_met:
        raise OSError("not tried, as not every node reaches every other")
    if messages.rank == 0:
        store = dist.TCPStore(first, 0, is_master=True, wait_for_workers=False, timeout=LIMIT)  # type: ignore[attr-defined]  # re-exported without a word
        messages.write("store", store.port)
        return store
    return dist.TCPStore(first, messages.wait_for_first("store"), is_master=False, timeout=LIMIT)  # type: ignore[attr-defined]


def measure_exchange(messages: ProbeMessages, first: str, all_met: bool) -> float:
    """Return the seconds of one exact reduction over all nodes without GPUs, as training does it.

    Raises:
        OSError, RuntimeError: it does not work.
    """
    import torch
    import torch.distributed as dist

    from trainer.distributed.world import World

    store = open_store(messages, first, all_met)
    dist.init_process_group("gloo", store=store, rank=messages.rank, world_size=messages.size, timeout=LIMIT)
    try:
        return time_reduction(World(messages.rank, messages.size), torch.device("cpu"))
    finally:
        dist.destroy_process_group()


def time_reduction(world: Any, device: Any) -> float:
    """Return the median seconds of one mean, from the moment when all ranks of a world have their gradients."""
    import torch
    import torch.distributed as dist
    from torch import nn

    from trainer.distributed.flat_buffer import FlatLayout
    from trainer.distributed.reduction import ExactReduction

    # 1000 × 250 weights of four bytes are a megabyte.
    network = nn.Linear(1000, EXCHANGE_MB * 250, bias=False, device=device)
    reduction = ExactReduction(FlatLayout(network, ()), network, world.size, world)
    times = []
    for _ in range(EXCHANGES + 1):
        # Only the exchange is timed, which begins where the micro-batch ends. Sums of zeros take as long as any.
        with reduction.micro_batch(world.rank):
            dist.barrier()
            began = time.perf_counter()
        reduction.mean()
        if device.type == "cuda":
            # By now the kernels are only queued.
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return median(times[1:])  # the first one opens connections
