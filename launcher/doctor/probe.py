"""One task of the doctor's job: `python -m launcher.doctor.probe FOLDER`, on each node; it measures and judges nothing.

The folder lies on the file system under test. It holds `plan.json`, and gets one `probe-<rank>.json` from each node.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

import psutil

from launcher.doctor import disk, network
from launcher.doctor.measured import GpuRank, Probe, ProbeMessages
from slurm import job_environment
from trainer.runs.lease_holder import boot_id

T = TypeVar("T")

PACKAGES = ("torch", "numpy", "accelerate", "webdataset", "submitit", "wandb", "safetensors", "pillow")


def installed_versions() -> dict[str, str]:
    """Return what is installed."""
    found = {"python": sys.version.split()[0]}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "missing"
    return found


def measure_numerics() -> tuple[dict[str, Any], Any]:
    """Return the numerical environment of training on this node, and the device."""
    import torch

    from trainer.distributed.numerical_environment import numerical_environment, state_float32_kernels

    state_float32_kernels()  # as training does, here and below
    device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    if device.type == "cpu":
        torch.set_num_threads(1)
    found = numerical_environment(device)
    del found["deterministic"]  # a setting of the run
    return found, device


class Examination:
    """What one node goes through; what fails is noted, and the rest goes on."""

    def __init__(self, folder: Path, plan: dict[str, Any], node: str) -> None:
        self.folder, self.plan, self.node = folder, plan, node
        rank = int(os.environ["SLURM_PROCID"]) if plan["slurm"] else 0
        self.messages = ProbeMessages(folder, rank, plan["size"])
        self.problems: dict[str, str] = {}

    def attempt(self, what: str, act: Callable[[], T]) -> T | None:
        """Measure something; None: it fails."""
        try:
            return act()
        except (OSError, RuntimeError, ImportError, ValueError) as error:
            # In one line and not too long: it becomes a row of the report.
            self.problems[what] = " ".join(str(error).split())[:500]
            return None

    def probe(self) -> Probe:
        """Measure everything, in the order in which training would fail."""
        messages, plan = self.messages, self.plan
        address = plan["addresses"].get(self.node, self.node) if plan["slurm"] else "127.0.0.1"
        # Before torch is imported: a node that does is slow to answer the others.
        connected = self.attempt("network", partial(network.connect_to_all, messages, self.node, address))
        first, reached, all_met = connected or ("", [], False)
        interface = job_environment.interface_towards(first) if first else None
        for name, value in job_environment.interface_variables(interface).items() if interface else ():
            os.environ.setdefault(name, value)  # as training does
        began = time.perf_counter()
        environment, device = self.attempt("import", measure_numerics) or ({}, None)
        import_s = time.perf_counter() - began
        exchange_s, gpus = None, self.measure_gpus(first, all_met, device) if device is not None else ()
        if gpus:
            # A step ends when its slowest rank does.
            times = [one.exchange_s for one in gpus if one.exchange_s is not None]
            exchange_s = max(times) if len(times) == len(gpus) else None
        elif messages.size > 1 and device is not None:
            exchange_s = self.attempt("exchange", partial(network.measure_exchange, messages, first, all_met))
        # After the exchange, which writing would slow down.
        storage = self.attempt("disk", partial(disk.measure_disk, self.folder, messages.rank))
        offset_s = next((one.offset_s for one in reached if one.rank == 0), 0.0)
        visible_s = self.attempt("visibility", partial(disk.measure_visibility, messages, offset_s)) or ()
        return Probe(
            rank=messages.rank,
            node=self.node,
            boot=boot_id(),
            address=address,
            interface=interface,
            interfaces=tuple(psutil.net_if_addrs()),
            python=sys.executable,
            import_s=import_s,
            versions=installed_versions(),
            environment=environment,
            reached=tuple(reached),
            exchange_s=exchange_s,
            disk=storage,
            visible_s=visible_s,
            problems=self.problems,
            gpus=gpus,
        )

    def measure_gpus(self, first: str, all_met: bool, device: Any) -> tuple[GpuRank, ...]:
        """Measure with one rank a GPU of this node, as a run has them; nothing where there are no GPUs."""
        import torch

        from launcher.doctor import gpu_ranks

        # As many as the job has been given: where torch sees none of them, the ranks say so.
        count = self.plan["gpus"] if self.plan["slurm"] else torch.cuda.device_count() * (device.type == "cuda")
        if not count:
            return ()
        found = self.attempt("gpus", partial(gpu_ranks.measure_gpus, self.messages, first, all_met, count)) or ()
        if problem := next((one.problem for one in found if one.problem), self.problems.pop("gpus", "")):
            self.problems["exchange"] = problem
        return found


def main() -> None:
    """Measure, tell it, and leave."""
    folder, node = Path(sys.argv[1]), job_environment.node_name()
    try:
        plan = json.loads((folder / "plan.json").read_text())
    except OSError as error:
        sys.exit(f"{folder} is not to be seen on {node} ({error.strerror}): it must lie on a shared file system")
    examination = Examination(folder, plan, node)
    examination.messages.write_probe(examination.probe())
    examination.messages.wait_for_all("probe", timeout_s=5)  # others may still need the first one's store
    # Not sys.exit: a process group that has failed may leave threads behind that never end.
    os._exit(0)


if __name__ == "__main__":
    main()
